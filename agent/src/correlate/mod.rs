//! Events → incidents: pure, in event time.

pub mod incident;
