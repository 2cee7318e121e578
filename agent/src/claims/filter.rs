//! Classic BPF programs: of all ARP packets and ICMPv6 messages that a namespace receives the kernel hands over only those
//! that speak for one of its own addresses. What they let pass is looked at again; they only spare the work.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use socket2::SockFilter;

/// Addresses a program compares with; with more of them it compares with none and lets all pass.
const COMPARED: usize = 1024;
/// Comparisons that can jump to one return.
const REACH: usize = 200;
/// `SKF_NET_OFF` of include/uapi/linux/filter.h: from the network header on.
const NETWORK: u32 = 0xfff0_0000;

/// `BPF_LD | BPF_W | BPF_ABS` and its siblings, and jumps, of include/uapi/linux/bpf_common.h.
mod op {
    pub(super) const WORD: u16 = 0x20;
    pub(super) const HALF: u16 = 0x28;
    pub(super) const BYTE: u16 = 0x30;
    pub(super) const ALWAYS: u16 = 0x05;
    pub(super) const EQUAL: u16 = 0x15;
    pub(super) const SET: u16 = 0x45;
    pub(super) const RETURN: u16 = 0x06;
}

/// The whole packet, or nothing.
const PASS: u32 = u32::MAX;
const DROP: u32 = 0;

fn load(code: u16, at: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, at)
}

fn end(verdict: u32) -> SockFilter {
    SockFilter::new(op::RETURN, 0, 0, verdict)
}

/// Goes on where the value that was loaded last is this one.
fn require(value: u32) -> [SockFilter; 2] {
    [SockFilter::new(op::EQUAL, 1, 0, value), end(DROP)]
}

/// Passes where the word that was loaded last is one of these.
fn among(words: &[u32], program: &mut Vec<SockFilter>) {
    if words.len() > COMPARED {
        program.push(end(PASS));
        return;
    }
    for some in words.chunks(REACH) {
        for (at, word) in some.iter().enumerate() {
            // Over the rest of them and the jump that follows.
            let over = u8::try_from(some.len() - at).unwrap_or(u8::MAX);
            program.push(SockFilter::new(op::EQUAL, over, 0, *word));
        }
        program.push(SockFilter::new(op::ALWAYS, 0, 0, 1));
        program.push(end(PASS));
    }
    program.push(end(DROP));
}

/// ARP over Ethernet for IPv4 whose sender is one of these; a probe, which has none, is no claim.
pub(super) fn arp(own: impl Iterator<Item = IpAddr>) -> Vec<SockFilter> {
    let words: Vec<u32> = own
        .filter_map(|address| match address {
            IpAddr::V4(v4) if v4 != Ipv4Addr::UNSPECIFIED => Some(v4.into()),
            _ => None,
        })
        .collect();
    let mut program = vec![load(op::WORD, 0)];
    program.extend(require(0x0001_0800));
    program.push(load(op::HALF, 4));
    program.extend(require(0x0604));
    program.push(load(op::WORD, 14));
    among(&words, &mut program);
    program
}

/// Neighbour advertisements that answer no question of this host, and solicitations, that speak for an address whose last
/// four bytes are those of one of these. From the link itself, which a hop limit of 255 proves.
pub(super) fn nd(own: impl Iterator<Item = IpAddr>) -> Vec<SockFilter> {
    let words: Vec<u32> = own
        .filter_map(|address| match address {
            IpAddr::V6(v6) => v6.octets().last_chunk().map(|last| u32::from_be_bytes(*last)),
            IpAddr::V4(_) => None,
        })
        .collect();
    let mut program = vec![load(op::BYTE, NETWORK + 7)];
    program.extend(require(255));
    program.extend([
        load(op::BYTE, 0),
        // A solicitation: its sender.
        SockFilter::new(op::EQUAL, 7, 0, 135),
        SockFilter::new(op::EQUAL, 1, 0, 136),
        end(DROP),
        // An advertisement that answers a question of this host says nothing of this host.
        load(op::BYTE, 4),
        SockFilter::new(op::SET, 0, 1, 0x40),
        end(DROP),
        load(op::WORD, 20),
        SockFilter::new(op::ALWAYS, 0, 0, 1),
        load(op::WORD, NETWORK + 20),
    ]);
    among(&words, &mut program);
    program
}

/// ARP replies of this sender.
pub(super) fn answers_arp(sender: Ipv4Addr) -> Vec<SockFilter> {
    let mut program = vec![load(op::WORD, 0)];
    program.extend(require(0x0001_0800));
    program.push(load(op::WORD, 4));
    program.extend(require(0x0604_0002));
    program.push(load(op::WORD, 14));
    program.extend(require(sender.into()));
    program.push(end(PASS));
    program
}

/// Neighbour advertisements of this target, from the link itself.
pub(super) fn answers_nd(target: Ipv6Addr) -> Vec<SockFilter> {
    let mut program = vec![load(op::BYTE, NETWORK + 7)];
    program.extend(require(255));
    program.push(load(op::BYTE, 0));
    program.extend(require(136));
    for (at, word) in (8..).step_by(4).zip(target.octets().as_chunks::<4>().0) {
        program.push(load(op::WORD, at));
        program.extend(require(u32::from_be_bytes(*word)));
    }
    program.push(end(PASS));
    program
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;

    #[test]
    fn the_kernel_takes_the_programs_however_many_addresses_there_are() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
        for many in [0u32, 1, 200, 201, 1024, 1025, 5000] {
            let v4 = (1..=many).map(|number| IpAddr::V4(Ipv4Addr::from(number)));
            socket.attach_filter(&arp(v4)).unwrap_or_else(|error| panic!("{many}: {error}"));
            let v6 = (1..=many).map(|number| IpAddr::V6(u128::from(number).into()));
            socket.attach_filter(&nd(v6)).unwrap_or_else(|error| panic!("{many}: {error}"));
        }
    }
}
