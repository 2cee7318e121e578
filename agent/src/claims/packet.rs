//! What an ARP packet or a neighbour discovery message says of whose an address is. Hostile input: any host on the link
//! may send anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::known::context::Claim;

/// A MAC says that it has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Says {
    pub(super) address: IpAddr,
    pub(super) mac: [u8; 8],
    pub(super) how: Claim,
    /// It would replace what others know.
    pub(super) overrides: bool,
}

/// What an ARP packet's sender says of itself. `None`: nothing, or it is no ARP for IPv4 over Ethernet.
pub(super) fn arp(packet: &[u8]) -> Option<Says> {
    let head: &[u8; 28] = packet.first_chunk()?;
    if head[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let sender = Ipv4Addr::new(head[14], head[15], head[16], head[17]);
    if sender.is_unspecified() {
        return None;
    }
    let how = match (head[14..18] == head[24..28], head[7]) {
        (true, _) => Claim::Announcement,
        (false, 1) => Claim::Question,
        (false, _) => Claim::Answer,
    };
    Some(Says { address: sender.into(), mac: mac(&head[8..14])?, how, overrides: true })
}

/// What an ICMPv6 message from `source` says: an advertisement of its target, a solicitation of its sender.
pub(super) fn nd(message: &[u8], source: Ipv6Addr) -> Option<Says> {
    let head: &[u8; 24] = message.first_chunk()?;
    let options = &message[24..];
    match head[0] {
        136 => {
            let target = Ipv6Addr::from(*head.last_chunk::<16>()?);
            let overrides = head[4] & 0x20 != 0;
            let answers = head[4] & 0x40 != 0;
            let mac = option(options, 2)?;
            (!answers).then_some(Says { address: target.into(), mac, how: Claim::Advertisement, overrides })
        }
        135 if !source.is_unspecified() => {
            let mac = option(options, 1)?;
            Some(Says { address: source.into(), mac, how: Claim::Question, overrides: true })
        }
        _ => None,
    }
}

/// What an advertisement that answers a question says of its target.
pub(super) fn solicited(message: &[u8]) -> Option<Says> {
    let head: &[u8; 24] = message.first_chunk()?;
    let target = Ipv6Addr::from(*head.last_chunk::<16>()?);
    let overrides = head[4] & 0x20 != 0;
    let mac = option(&message[24..], 2).filter(|_| head[0] == 136)?;
    Some(Says { address: target.into(), mac, how: Claim::Answer, overrides })
}

/// The link-layer address in an option of this type.
fn option(mut options: &[u8], wanted: u8) -> Option<[u8; 8]> {
    // At most as many as fit; one of no length would never end.
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        let this = options.get(..len).filter(|_| len > 0)?;
        if kind == wanted {
            return mac(this.get(2..8)?);
        }
        options = &options[len..];
    }
    None
}

/// An Ethernet address that a host can have.
fn mac(bytes: &[u8]) -> Option<[u8; 8]> {
    let mut mac = [0; 8];
    mac[..6].copy_from_slice(bytes.get(..6)?);
    let possible = mac != [0; 8] && mac[0] & 1 == 0;
    possible.then_some(mac)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Request or reply of 02:…:01 with these addresses.
    fn packet(op: u8, sender: u8, target: u8) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, op, 2, 0, 0, 0, 0, 1, 192, 0, 2, sender];
        packet.extend([0, 0, 0, 0, 0, 0, 192, 0, 2, target]);
        packet
    }

    #[test]
    fn announcements_questions_and_answers_claim_their_senders_address_and_a_probe_claims_none() {
        let how = |packet: &[u8]| arp(packet).map(|says| (says.address, says.how));
        let own: IpAddr = [192, 0, 2, 9].into();
        assert_eq!(how(&packet(1, 9, 9)), Some((own, Claim::Announcement)));
        assert_eq!(how(&packet(2, 9, 9)), Some((own, Claim::Announcement)));
        assert_eq!(how(&packet(1, 9, 1)), Some((own, Claim::Question)));
        assert_eq!(how(&packet(2, 9, 1)), Some((own, Claim::Answer)));
        let mut probe = packet(1, 0, 9);
        probe[14..18].fill(0);
        assert_eq!(how(&probe), None);
        let mut group = packet(1, 9, 9);
        group[8] = 3;
        assert_eq!(how(&group), None, "no host has a group's address");
    }

    /// An advertisement with these flags, and a link-layer address.
    fn advertisement(flags: u8) -> Vec<u8> {
        let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
        message.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).octets());
        message.extend([14, 1, 0, 0, 0, 0, 0, 0]);
        message.extend([2, 1, 2, 0, 0, 0, 0, 1]);
        message
    }

    #[test]
    fn an_advertisement_claims_its_target_unless_it_answers() {
        let says = nd(&advertisement(0x20), Ipv6Addr::LOCALHOST).expect("a claim");
        assert_eq!((says.mac, says.overrides), ([2, 0, 0, 0, 0, 1, 0, 0], true));
        assert_eq!(nd(&advertisement(0x60), Ipv6Addr::LOCALHOST), None);
        assert!(nd(&advertisement(0), Ipv6Addr::LOCALHOST).is_some_and(|says| !says.overrides));
    }

    #[test]
    fn a_solicitation_of_a_host_that_detects_duplicates_claims_nothing() {
        let mut message = advertisement(0);
        (message[0], message[32]) = (135, 1);
        assert_eq!(nd(&message, Ipv6Addr::UNSPECIFIED), None);
        let sender = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
        assert!(nd(&message, sender).is_some_and(|says| says.address == IpAddr::V6(sender)));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (arp(&bytes), nd(&bytes, Ipv6Addr::LOCALHOST));
            let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
            message.extend([0; 16]);
            message.extend(&bytes);
            let _ = nd(&message, Ipv6Addr::LOCALHOST);
        }
    }
}
