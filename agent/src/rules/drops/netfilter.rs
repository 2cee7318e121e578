//! What to do about packets that netfilter drops: which chain, in whose namespace, and what it should let pass.

use std::net::IpAddr;

use super::{Loss, Verdict, verdict_of};
use crate::{
    domains::connect::DropPlace, fact::TranslatedBy, pipeline::remedy::Remedy, text::shell::Command,
};

impl Loss<'_> {
    /// netfilter: which chain, and what it should let pass.
    pub(super) fn netfilter(&self) -> Verdict {
        let (to, port) = self.filtered();
        let (who, device, packets) = (self.whose(), self.device(), self.packets());
        let (why, words) = match (self.known, self.site.place, self.is_answer()) {
            (false, ..) => (
                "This host's own kernel drops the packets, so no other machine is to blame.".to_owned(),
                format!("allow tcp/{port} to {to} and its answers in this host's own firewall: "),
            ),
            (true, DropPlace::Output, false) if !self.site.other_netns => (
                "This host's own kernel drops the packets, so no other machine is to blame.".to_owned(),
                format!("allow egress tcp/{port} to {to} in this host's own firewall: "),
            ),
            (true, DropPlace::Input, true) => (
                format!(
                    "{to} answers: {packets} arrive on {device}, and {who}'s own firewall drops them (input). Network and peer are fine."
                ),
                "accept answers in the input chain (ct state established,related accept): ".to_owned(),
            ),
            (true, DropPlace::Prerouting, true) => (
                format!(
                    "{to} answers: {packets} arrive on {device}, and {who}'s own firewall drops them before routing (ingress, raw or prerouting: also where firewalld's rpfilter is)."
                ),
                format!("accept answers of {to} in the prerouting and ingress chains: "),
            ),
            (true, DropPlace::Forward, is_answer) => (
                format!(
                    "{who} should forward {packets}, which came in by {device}, and its firewall drops them (forward)."
                ),
                if is_answer {
                    "accept answers in the forward chain (ct state established,related accept): ".to_owned()
                } else {
                    format!("allow tcp/{port} to {to} in the forward chain: ")
                },
            ),
            (true, DropPlace::Input, false) => (
                format!("{packets} reach the host they are for, and {who}'s firewall drops them (input)."),
                format!("allow tcp/{port} in the input chain: "),
            ),
            (true, DropPlace::Prerouting, false) => (
                format!(
                    "{packets} arrive on {device} of {who}, whose firewall drops them before routing (ingress, raw or prerouting)."
                ),
                format!("allow tcp/{port} to {to} in the prerouting and ingress chains: "),
            ),
            (true, DropPlace::Output, is_answer) => (
                format!("{who}'s firewall drops {packets} on their way out (output or postrouting)."),
                if is_answer {
                    "accept answers in the output chain (ct state established,related accept): ".to_owned()
                } else {
                    format!("allow tcp/{port} to {to} on its way out there: ")
                },
            ),
        };
        verdict_of(why, [Remedy::from(words).and(self.run(Command::new("nft").words("list ruleset")))])
    }

    /// Where a SYN goes as the rules see it that drop it: as on the wire, but before it is translated. Answers are reported
    /// by whom they come from, as it was asked.
    fn filtered(&self) -> (IpAddr, u16) {
        let is_translated =
            |by| by != Some(TranslatedBy::NatLater) || self.site.place != DropPlace::Prerouting;
        match self.to.wire {
            Some(wire) if !self.is_answer() && is_translated(wire.by) => (wire.ip, wire.port),
            _ => (self.to.ip, self.to.port),
        }
    }
}
