//! The wall clock, live.

mod stepped;
