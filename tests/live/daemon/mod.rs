//! `culprit run` as it stays on a machine: what it keeps, serves and tells, and how it begins and ends.

mod access;
mod http;
mod lifecycle;
mod page;
mod prometheus;
mod stream;
mod webhook;
