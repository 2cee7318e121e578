//! Records of handshakes and of the bytes of their hellos.

use bytes::Bytes;
use ebpf_probes::{
    abi::Kind,
    probes::tls::{Handshake, SERVER, TLS_BYTES_HEAD, TLS_RECORD_FIRST, TlsRecord, UNREAD},
};

use crate::{
    domains::Mentions,
    records::{Error, read, read_grown, rest},
};

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "decoded by value: a box would be an allocation a record")]
pub enum Record {
    /// Bytes of a hello.
    Hello(HelloBytes),
    /// A handshake moved, was read, or is stuck.
    Handshake(TlsStep, Handshake),
}

/// What a handshake did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsStep {
    /// It reached another stage.
    Phase,
    /// A thread read what the peer had sent.
    Read,
    /// It makes no progress.
    Pending,
}

/// Captured bytes of a hello.
#[derive(Debug, Clone, PartialEq)]
pub struct HelloBytes {
    /// The socket.
    pub cookie: u64,
    /// [`ebpf_probes::probes::tls::CLIENT_HELLO`] or `SERVER_HELLO`.
    pub hello: u32,
    /// Where they begin in the hello's record.
    pub at: u32,
    /// The bytes.
    pub data: Bytes,
}

impl Record {
    /// What has to be known before it is applied.
    pub fn mentions(&self) -> Mentions<'_> {
        match self {
            Self::Handshake(step, handshake) => Mentions {
                owners: [Some(&handshake.owner), Some(&handshake.reader)],
                listeners: *step == TlsStep::Pending
                    && handshake.role == SERVER
                    && handshake.owner.process == 0
                    && handshake.flags & UNREAD != 0,
                vouched: true,
                ..Mentions::default()
            },
            // Its process acts in the records of its handshake.
            Self::Hello(_) => Mentions::default(),
        }
    }
}

/// Decodes a record of one of the probe's kinds.
pub fn decode(kind: Kind, record: &Bytes) -> Result<Record, Error> {
    let step = match kind {
        Kind::TLS_PHASE => TlsStep::Phase,
        Kind::TLS_READ => TlsStep::Read,
        Kind::TLS_PENDING => TlsStep::Pending,
        Kind::TLS_BYTES => {
            return Ok(Record::Hello(HelloBytes {
                cookie: read(record, 16)?,
                hello: read(record, 24)?,
                at: read(record, 28)?,
                data: rest(record, TLS_BYTES_HEAD)?,
            }));
        }
        other => return Err(Error::UnknownKind(other.0)),
    };
    Ok(Record::Handshake(step, read_grown::<TlsRecord>(record, TLS_RECORD_FIRST)?.handshake))
}

#[cfg(test)]
mod tests {
    use ebpf_probes::abi::Header;

    use super::*;
    use crate::records::encode;

    #[test]
    fn a_handshake_recorded_before_it_grew_is_read() {
        let handshake = Handshake { cookie: 9, alert: 7, established_ns: 5, ..Handshake::default() };
        let header = Header { boot_ns: 7, kind: Kind::TLS_READ.0, len: TLS_RECORD_FIRST as u32 };
        let record = encode(TlsRecord { header, handshake }).slice(..TLS_RECORD_FIRST);
        let older = Handshake { established_ns: 0, ..handshake };
        assert_eq!(decode(Kind::TLS_READ, &record), Ok(Record::Handshake(TlsStep::Read, older)));
        let cut = record.slice(..TLS_RECORD_FIRST - 8);
        assert!(matches!(decode(Kind::TLS_READ, &cut), Err(Error::Short { .. })));
    }
}
