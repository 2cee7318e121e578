//! TLS handshakes, both sides, of any library and port.

mod apply;
mod decode;
mod describe;
mod fact;
mod hello;
mod parse;
mod text;

pub use apply::{Memory, session_ends};
pub use decode::{HelloBytes, Record, TlsStep, decode};
pub use fact::{Role, Session, Stage, What};
pub use parse::alert_name;
pub use text::owes;
