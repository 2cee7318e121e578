//! `clock_stepped` and `clock_skewed`, live.

mod chrony;
mod machine;
mod skewed;
mod stepped;
