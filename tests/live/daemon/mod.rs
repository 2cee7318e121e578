//! `culprit run`, the daemon: what it stores, serves and notifies, and how it starts and ends.

mod access;
mod http;
mod lifecycle;
mod page;
mod prometheus;
mod stream;
mod webhook;
