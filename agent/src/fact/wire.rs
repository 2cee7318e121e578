//! Where packets really go, and what this host itself answers them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use ebpf_probes::probes::connect::Icmp;
use schemars::JsonSchema;
use serde::Serialize;

/// Where packets go instead of the address a program asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Wire {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// Who changed it; absent when that is not known.
    pub by: Option<TranslatedBy>,
}

/// Who changes where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TranslatedBy {
    /// Netfilter in the socket's own network namespace.
    Nat,
    /// A cgroup program that gives sockets another destination (Cilium's socket-level balancing).
    CgroupProgram,
    /// Both, one after the other.
    CgroupProgramAndNat,
    /// Netfilter further on, in another network namespace of this host (a Kubernetes node's, a router's).
    NatLater,
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            Some(TranslatedBy::Nat) => "by NAT",
            Some(TranslatedBy::CgroupProgram) => "by a cgroup program",
            Some(TranslatedBy::CgroupProgramAndNat) => "by a cgroup program and NAT",
            Some(TranslatedBy::NatLater) => "translated later, outside its network namespace, to",
            None => "translated to",
        };
        write!(f, "{by} {}", SocketAddr::new(self.ip, self.port))
    }
}

/// An ICMP error with which this host itself answered, in one of its network namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HostIcmp {
    /// Which error.
    pub error: IcmpError,
    /// The network namespace it was sent in: its name, or `net:[inode]`; absent for the host's own.
    pub netns: Option<String>,
}

/// What an ICMP or ICMPv6 "destination unreachable" says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IcmpError {
    /// There is no route (or a firewall says so).
    NetUnreachable,
    /// The address does not answer on its link (or a firewall says so).
    HostUnreachable,
    /// Of TCP only a firewall says that: REJECT as it is by default.
    PortUnreachable,
    /// A route or a firewall forbids it.
    Prohibited,
    /// Something else.
    Other,
}

impl IcmpError {
    /// What a message says: RFC 792, RFC 1812 §5.2.7.1; RFC 4443 §3.1.
    pub fn of(icmp: Icmp) -> Self {
        match (icmp.v6, icmp.code) {
            (false, 0 | 6 | 11) | (true, 0) => Self::NetUnreachable,
            (false, 1 | 7 | 12) | (true, 3) => Self::HostUnreachable,
            (false, 3) | (true, 4) => Self::PortUnreachable,
            (false, 9 | 10 | 13) | (true, 1 | 5 | 6) => Self::Prohibited,
            _ => Self::Other,
        }
    }
}

impl HostIcmp {
    /// What this host itself has to do with it, to follow what happened.
    pub fn after(answered: Option<&Self>) -> String {
        answered.map(|icmp| format!(": {icmp}")).unwrap_or_default()
    }
}

impl fmt::Display for HostIcmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.error {
            IcmpError::NetUnreachable => "this host itself says that it has no route",
            IcmpError::HostUnreachable => "this host itself says that the address is unreachable",
            IcmpError::PortUnreachable => "this host's own firewall rejects it",
            IcmpError::Prohibited => "this host itself prohibits it, by a route or a firewall rule",
            IcmpError::Other => "this host itself answered with an ICMP error",
        })?;
        match &self.netns {
            Some(netns) => write!(f, " (in {})", crate::text::shown(netns)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_say_the_same_in_their_own_numbers() {
        let says = |v6, code| IcmpError::of(Icmp { v6, code });
        assert_eq!((says(false, 3), says(true, 4)), (IcmpError::PortUnreachable, IcmpError::PortUnreachable));
        assert_eq!((says(false, 13), says(true, 1)), (IcmpError::Prohibited, IcmpError::Prohibited));
        assert_eq!((says(false, 0), says(true, 0)), (IcmpError::NetUnreachable, IcmpError::NetUnreachable));
        assert_eq!((says(false, 1), says(true, 3)), (IcmpError::HostUnreachable, IcmpError::HostUnreachable));
        assert_eq!(says(false, 200), IcmpError::Other);
    }

    #[test]
    fn a_translation_names_the_address_and_who_made_it_where_that_is_known() {
        let wire = |by| Wire { ip: [203, 0, 113, 10].into(), port: 8443, by }.to_string();
        assert_eq!(wire(Some(TranslatedBy::Nat)), "by NAT 203.0.113.10:8443");
        assert_eq!(wire(None), "translated to 203.0.113.10:8443");
    }
}
