//! The wall clock: who sets it, how it moves, and what other clocks say.

mod apply;
mod decode;
mod describe;
mod fact;
mod leap;
mod rate;
pub mod references;
mod text;

pub use apply::{Author, Memory, Step, reading, timestamp};
pub use decode::{Record, decode};
pub use fact::{ClockCall, What};
pub use leap::LeapSecond;
pub use rate::{Tick, rate};
