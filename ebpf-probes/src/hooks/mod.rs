//! The programs that several probes share: each is attached once, and only hands on what it sees. Only for the `bpf`
//! target.

mod adopt;
mod exec;
mod follow;
mod packet;
mod sock_addr;
mod tcp;
