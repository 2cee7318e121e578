//! DNS lookups, from a socket of their own each as resolvers make them, of a server that answers every
//! question with the same address. Only port 53 is DNS to a watcher: run it in a network
//! namespace, where nothing else has that port.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Done, Drive, Order, here, udp_to};

/// A lost datagram ends the load instead of holding it up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names asked for, one after the other.
const NAMES: u64 = 64;
/// A response without errors, recursion desired and available.
const RESPONSE: [u8; 2] = [0x81, 0x80];
/// One question, and in an answer one answer.
const COUNTS: [u8; 8] = [0, 1, 0, 1, 0, 0, 0, 0];
/// The name of the question, A, IN, a minute, and 192.0.2.1 (RFC 5737).
const ANSWER: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];

pub(super) fn serve() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).context("taking port 53")?;
    here(socket.local_addr().context("asking for its port")?)?;
    let mut packet = [0; 512];
    loop {
        let (len, from) = socket.recv_from(&mut packet).context("receiving")?;
        // What is shorter than a header is no question.
        if let Some(answer) = packet.get(..len).and_then(answer) {
            socket.send_to(&answer, from).context("answering")?;
        }
    }
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (id, question) = (query.get(..2)?, query.get(12..)?);
    Some([id, &RESPONSE, &COUNTS, question, &ANSWER].concat())
}

/// A question for the address of a name.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut query = [id.to_be_bytes(), [1, 0]].concat();
    query.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

pub(super) struct Driver {
    pub(super) to: SocketAddr,
}

impl Driver {
    fn once(&self, number: u64) -> Result<()> {
        let socket = udp_to(self.to, PATIENCE)?;
        let query = query(number as u16, &format!("host{}.soak.example", number % NAMES));
        socket.send(&query).context("asking")?;
        let mut packet = [0; 512];
        let len = socket.recv(&mut packet).context("waiting for an answer")?;
        ensure!(len == query.len() + ANSWER.len(), "an answer of {len} bytes");
        Ok(())
    }
}

impl Drive for Driver {
    fn drive(&mut self, order: &Order) -> Result<Done> {
        order.repeat(|number| self.once(number).context("a lookup"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_repeats_the_question_and_adds_an_address() {
        let query = query(0x1234, "a.example");
        assert_eq!(query[12..], *b"\x01a\x07example\x00\x00\x01\x00\x01");
        let answer = answer(&query).unwrap();
        assert_eq!(answer[..12], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..query.len()], query[12..]);
        assert_eq!(answer[answer.len() - 4..], [192, 0, 2, 1]);
        assert_eq!(super::answer(&query[..11]), None);
    }
}
