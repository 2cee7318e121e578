//! The commands that a user types: what they select, print, record and show.

mod filters;
mod output;
mod record_replay;
mod top;
mod trace_command;
mod untrusted_names;
mod why;
