//! Puts captured pieces of a hello together: in whatever order they came, and out of however many TLS records its
//! handshake message was spread over. What is missing stays missing; nothing is made up to fill a hole.

use ebpf_probes::probes::tls::HELLO_CAPTURED;

/// `handshake` of RFC 8446 §5.1.
const HANDSHAKE: u8 = 22;
/// Pieces that stand apart, at most; of more, the last ones are not kept.
const APART: usize = 64;

/// Bytes of a hello as they crossed the socket.
#[derive(Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Which of them are here, in order and apart from each other.
    here: Vec<(usize, usize)>,
}

impl Pieces {
    /// Keeps a piece that begins at `at`. Of what is here already, the later piece holds.
    pub(super) fn put(&mut self, at: usize, piece: &[u8]) {
        let end = at + piece.len();
        if piece.is_empty() || end > HELLO_CAPTURED as usize * 2 {
            return;
        }
        let (mut from, mut to) = (at, end);
        let mut apart: Vec<(usize, usize)> = Vec::with_capacity(self.here.len() + 1);
        for &(start, stop) in &self.here {
            if stop < from || start > to {
                apart.push((start, stop));
            } else {
                (from, to) = (from.min(start), to.max(stop));
            }
        }
        if apart.len() >= APART {
            return;
        }
        apart.push((from, to));
        apart.sort_unstable();
        self.here = apart;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(piece);
    }

    /// What is here from the first byte on, without a hole.
    pub(super) fn whole(&self) -> &[u8] {
        match self.here.first() {
            Some(&(0, end)) => &self.bytes[..end],
            _ => &[],
        }
    }

    /// Nothing has come.
    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty()
    }
}

/// The body of the handshake message that begins with the first of these records, if all of it is there.
pub(super) fn message(records: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut rest = records;
    loop {
        let (header, after) = rest.split_first_chunk::<5>()?;
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != HANDSHAKE || len == 0 {
            return None;
        }
        body.extend_from_slice(after.get(..len)?);
        if let Some((&[_, high, middle, low], message)) = body.split_first_chunk::<4>() {
            let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if let Some(message) = message.get(..len) {
                return Some(message.to_vec());
            }
        }
        rest = &after[len..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(part: &[u8]) -> Vec<u8> {
        let mut record = vec![HANDSHAKE, 3, 1];
        record.extend_from_slice(&(part.len() as u16).to_be_bytes());
        record.extend_from_slice(part);
        record
    }

    fn hello(body: &[u8]) -> Vec<u8> {
        let mut message = vec![1, 0];
        message.extend_from_slice(&(body.len() as u16).to_be_bytes());
        message.extend_from_slice(body);
        message
    }

    #[test]
    fn a_hole_is_not_filled_with_zeros() {
        let mut pieces = Pieces::default();
        pieces.put(3, b"def");
        assert_eq!((pieces.whole(), pieces.is_empty()), (&b""[..], false));
        pieces.put(0, b"ab");
        assert_eq!(pieces.whole(), b"ab");
        pieces.put(2, b"c");
        assert_eq!(pieces.whole(), b"abcdef");
    }

    #[test]
    fn a_record_of_no_bytes_is_no_hello() {
        let mut records = record(&[]);
        records.extend_from_slice(&record(&hello(&[7; 40])));
        assert_eq!(message(&records), None);
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_and_records_of_any_size_give_the_hello(
            body in proptest::collection::vec(any::<u8>(), 0..600),
            cuts in proptest::collection::vec(1usize..200, 1..12),
            order in any::<u64>(),
        ) {
            let (whole, mut rest) = (hello(&body), Vec::new());
            let mut at = 0;
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(whole.len());
                rest.extend(record(&whole[at..end]));
                at = end;
                if at == whole.len() {
                    break;
                }
            }
            let mut pieces: Vec<(usize, &[u8])> =
                rest.chunks(cuts[0] + 7).enumerate().map(|(i, piece)| (i * (cuts[0] + 7), piece)).collect();
            pieces.truncate(APART);
            let complete = pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>() == rest.len();
            let turn = order as usize % pieces.len();
            pieces.rotate_left(turn);
            if order & 1 == 0 {
                pieces.reverse();
            }
            let mut held = Pieces::default();
            for (i, (at, piece)) in pieces.iter().enumerate() {
                prop_assert_eq!(message(held.whole()).is_some() && i == 0, false);
                held.put(*at, piece);
            }
            if complete {
                prop_assert_eq!(message(held.whole()), Some(body));
            }
        }

        #[test]
        fn any_bytes_are_a_message_or_none(bytes: Vec<u8>) {
            let _ = message(&bytes);
        }
    }
}
