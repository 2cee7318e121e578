//! Why a kernel dropped a packet, as far as the remedy is concerned: `enum skb_drop_reason`, whose names (never its
//! numbers, which move from kernel to kernel) are grouped here by what there is to do about them.

/// Groups of drop reasons with one remedy each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rules) enum Reason {
    /// The kernel gave no reason (before 5.17), or none that means anything.
    NotTold,
    /// netfilter: nft, iptables, firewalld, kube-proxy.
    Netfilter,
    /// Reverse-path filter.
    RpFilter,
    /// The address is none of this namespace's, and it does not forward.
    NotHere,
    /// The frame's destination is another MAC.
    OtherHost,
    /// The packet's source is impossible here: most often one of the namespace's own addresses.
    BadSource,
    /// No route.
    NoRoute,
    /// A BPF program of the cgroup, on the way out.
    CgroupEgress,
    /// A BPF program of the cgroup on the way in, or a filter on the socket.
    SocketFilter,
    /// A traffic-control program or action on the way out.
    TcEgress,
    /// The same on the way in.
    TcIngress,
    /// An XDP program fails to redirect. What it plainly drops has no reason.
    Xdp,
    /// A queueing discipline is full, or polices.
    Qdisc,
    /// The neighbour did not answer, or could not be asked.
    Neighbour,
    /// The listener's accept queue is full.
    QueueFull,
    /// SELinux or another security module.
    Security,
    /// IPsec.
    Xfrm,
    /// A checksum is wrong.
    Checksum,
    /// TCP MD5 or TCP-AO keys do not match.
    Authentication,
    /// IPv6 is switched off on the device.
    Ipv6Disabled,
    /// Larger than the path takes.
    TooBig,
    /// A buffer is full.
    Full,
    /// The answer fits no SYN that was sent.
    BadAnswer,
    /// Any other.
    Other,
}

impl Reason {
    /// Whether a rule or policy of this host drops it, and no fault: where the kernel names no reason most often one does.
    pub(in crate::rules) fn is_filter(self) -> bool {
        matches!(
            self,
            Self::NotTold
                | Self::Netfilter
                | Self::RpFilter
                | Self::CgroupEgress
                | Self::SocketFilter
                | Self::TcEgress
                | Self::TcIngress
                | Self::Xdp
                | Self::Security
                | Self::Xfrm
        )
    }

    /// By the kernel's name for it, without its prefix.
    pub(in crate::rules) fn of(name: Option<&str>) -> Self {
        let Some(name) = name else { return Self::NotTold };
        match name {
            "NOT_SPECIFIED" | "NOT_DROPPED_YET" => Self::NotTold,
            "NETFILTER_DROP" => Self::Netfilter,
            "IP_RPFILTER" => Self::RpFilter,
            "IP_INADDRERRORS" | "IP_INVALID_DEST" => Self::NotHere,
            "OTHERHOST" => Self::OtherHost,
            "IP_INVALID_SOURCE" | "IP_LOCAL_SOURCE" | "IP_LOCALNET" => Self::BadSource,
            "IP_INNOROUTES" | "IP_OUTNOROUTES" => Self::NoRoute,
            "BPF_CGROUP_EGRESS" => Self::CgroupEgress,
            "SOCKET_FILTER" => Self::SocketFilter,
            "TC_EGRESS" => Self::TcEgress,
            "TC_INGRESS" => Self::TcIngress,
            "XDP" => Self::Xdp,
            "TCP_LISTEN_OVERFLOW" => Self::QueueFull,
            "SECURITY_HOOK" => Self::Security,
            "XFRM_POLICY" => Self::Xfrm,
            "TCP_CSUM" | "IP_CSUM" | "SKB_CSUM" => Self::Checksum,
            "TCP_AUTH_HDR" => Self::Authentication,
            "IPV6DISABLED" => Self::Ipv6Disabled,
            "PKT_TOO_BIG" => Self::TooBig,
            "CPU_BACKLOG" | "SOCKET_BACKLOG" | "SOCKET_RCVBUFF" | "PROTO_MEM" | "NOMEM" | "FULL_RING" => {
                Self::Full
            }
            "TCP_INVALID_ACK_SEQUENCE" | "TCP_INVALID_SEQUENCE" | "TCP_OLD_ACK" | "TCP_ACK_UNSENT_DATA" => {
                Self::BadAnswer
            }
            _ if name.starts_with("NEIGH_") => Self::Neighbour,
            _ if ["QDISC_", "FQ_", "CAKE_", "DUALPI2_"].iter().any(|head| name.starts_with(head)) => {
                Self::Qdisc
            }
            _ if name.starts_with("TCP_MD5") || name.starts_with("TCP_AO") => Self::Authentication,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_known_by_name() {
        assert_eq!(Reason::of(None), Reason::NotTold);
        assert_eq!(Reason::of(Some("NETFILTER_DROP")), Reason::Netfilter);
        assert_eq!(Reason::of(Some("QDISC_OVERLIMIT")), Reason::Qdisc);
        assert_eq!(Reason::of(Some("TCP_MD5NOTFOUND")), Reason::Authentication);
        assert_eq!(Reason::of(Some("NEIGH_QUEUEFULL")), Reason::Neighbour);
        assert_eq!(Reason::of(Some("SOMETHING_NEW")), Reason::Other);
    }
}
