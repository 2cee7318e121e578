//! Incidents, live: real servers and clients on real sockets, each situation named exactly once.

mod arrivals;
mod calm;
mod causes;
mod clock;
mod decoys;
mod drops;
mod honest;
mod idle;
mod lasting;
mod listeners;
mod neighbours;
mod policies;
mod runtimes;
