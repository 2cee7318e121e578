//! Live tests: the real kernel, real sockets. See `harness`.
fn main() {}
