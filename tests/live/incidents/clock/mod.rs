//! The wall clock, live.

mod machine;
mod stepped;
