//! Messages over TCP: segments put together, and whole messages cut out.

use super::DnsMessage;
use crate::known::bounded::{Bounded, Table};

/// Streams being put together, remembered at most.
const STREAMS: usize = 256;
/// Bytes of one TCP stream held back at most: one message and its length.
const STREAM_BYTES: usize = 65_537;

/// The streams, by socket cookie and direction.
pub(super) struct Streams(Bounded<(u64, bool), Stream>);

/// Bytes that do not make a whole message yet.
struct Stream {
    next: u32,
    held: Vec<u8>,
}

impl Default for Streams {
    fn default() -> Self {
        Self(Bounded::new(STREAMS))
    }
}

impl Streams {
    pub(super) fn table(&self) -> Table {
        self.0.table("dns_streams")
    }

    /// Puts TCP segments together and cuts the whole messages out (RFC 1035 §4.2.2: two bytes of
    /// length before each).
    pub(super) fn reassemble(&mut self, message: &DnsMessage) -> Vec<Vec<u8>> {
        let key = (message.cookie, message.ingress);
        if self.0.get(&key).is_none() {
            self.0.insert(key, Stream { next: message.seq, held: Vec::new() });
        }
        let Some(stream) = self.0.get_mut(&key) else { return vec![] };
        let ahead = message.seq.wrapping_sub(stream.next) as i32;
        let data: &[u8] = &message.data;
        if ahead > 0 {
            // Something is missing: begin again with this segment.
            stream.held.clear();
            stream.held.extend_from_slice(data);
        } else {
            let seen = ahead.unsigned_abs() as usize;
            stream.held.extend_from_slice(data.get(seen..).unwrap_or_default());
        }
        let end = message.seq.wrapping_add(message.wire_len);
        if (end.wrapping_sub(stream.next) as i32) > 0 {
            stream.next = end;
        }
        let mut whole = Vec::new();
        while let Some(&[high, low]) = stream.held.first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes([high, low]));
            if stream.held.len() < 2 + len {
                break;
            }
            whole.push(stream.held[2..2 + len].to_vec());
            stream.held.drain(..2 + len);
        }
        // A captured segment shorter than on the wire leaves a hole: what is held cannot be completed.
        if data.len() < message.wire_len as usize || stream.held.len() > STREAM_BYTES {
            if stream.held.len() > 14 {
                whole.push(stream.held[2..].to_vec());
            }
            stream.held.clear();
        }
        whole
    }
}
