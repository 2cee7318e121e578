//! The wall clock, live.

mod chrony;
mod skewed;
mod stepped;
