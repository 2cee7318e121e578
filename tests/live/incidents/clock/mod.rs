//! The wall clock, live.

mod chrony;
mod machine;
mod skewed;
mod stepped;
