//! DNS lookups, from a socket of their own each as resolvers make them, of a server that answers every
//! question with the same address. Only port 53 is DNS to a watcher: run it in a network
//! namespace, where nothing else has that port.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, ResourceRecord, TYPE, rdata::RData};

use super::{Done, Drive, Order, here, udp_to};

/// A lost datagram ends the load instead of holding it up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names asked for, one after the other.
const NAMES: u64 = 64;

pub(super) fn serve() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).context("taking port 53")?;
    here(socket.local_addr().context("asking for its port")?)?;
    let mut packet = [0; 512];
    loop {
        let (len, from) = socket.recv_from(&mut packet).context("receiving")?;
        // What is no question gets no answer.
        if let Some(answer) = packet.get(..len).and_then(answer) {
            socket.send_to(&answer, from).context("answering")?;
        }
    }
}

/// 192.0.2.1 (RFC 5737), for a minute.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut reply = Packet::parse(query).ok()?.into_reply();
    reply.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
    let name = reply.questions.first()?.qname.clone();
    let address = RData::A(Ipv4Addr::new(192, 0, 2, 1).into());
    reply.answers.push(ResourceRecord::new(name, CLASS::IN, 60, address));
    reply.build_bytes_vec_compressed().ok()
}

/// A question for the address of a name.
fn query(id: u16, name: &str) -> Result<Vec<u8>> {
    let mut query = Packet::new_query(id);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    query.questions.push(Question::new(Name::new(name)?, TYPE::A.into(), CLASS::IN.into(), false));
    Ok(query.build_bytes_vec()?)
}

pub(super) struct Driver {
    pub(super) to: SocketAddr,
}

impl Driver {
    fn once(&self, number: u64) -> Result<()> {
        let socket = udp_to(self.to, PATIENCE)?;
        let query = query(number as u16, &format!("host{}.soak.example", number % NAMES))?;
        socket.send(&query).context("asking")?;
        let mut packet = [0; 512];
        let len = socket.recv(&mut packet).context("waiting for an answer")?;
        let answer = Packet::parse(&packet[..len]).context("reading an answer")?;
        ensure!(answer.answers.len() == 1, "{} answers", answer.answers.len());
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
        let query = query(0x1234, "a.example").unwrap();
        let answer = answer(&query).unwrap();
        let packet = Packet::parse(&answer).unwrap();
        assert_eq!((packet.id(), packet.questions[0].qname.to_string()), (0x1234, "a.example".into()));
        assert!(
            matches!(&packet.answers[0].rdata, RData::A(at) if Ipv4Addr::from(at.address).is_documentation())
        );
        assert_eq!(super::answer(&query[..11]), None);
    }
}
