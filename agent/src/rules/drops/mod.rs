//! Remedies by reason: from why, where and in whose namespace a kernel of this host dropped a connect's packet to
//! what caused it and what to do. Direction and place are what the kernel saw, never a guess; where they were not
//! recorded only what holds for all of them is said. It does not know who wrote the rule that drops.

mod netfilter;
mod reason;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, net::IpAddr};

use ebpf_probes::{
    abi::Netns,
    probes::connect::{Connect, Dropped, place},
};
pub(super) use reason::Reason;

use super::{
    neighbours,
    text::{address, count},
};
use crate::{
    domains::connect::{DropPlace, DropSite, DroppedPacket},
    fact::Endpoint,
    pipeline::{incident::CauseKind, remedy::Remedy, world::World},
    records,
    text::{shell::Command, shown},
};

/// What to say about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    /// One sentence: whose doing it is.
    pub(super) why: String,
    /// What to do, the surest first.
    pub(super) remedies: Vec<Remedy>,
}

/// Who swallows a connect's packets, in words: this host (which packet, why and where), another address that
/// answers in place of the one asked, or the network.
pub(super) fn fate(connect: &Connect, world: &World) -> String {
    if connect.drops == 0 {
        let syns = connect.syns.max(connect.retries.saturating_add(1));
        let syns = count(syns.into(), "SYN", "SYNs");
        return match world.stray_answer(connect) {
            Some(stray) => format!(
                "{syns}, answered from another address ({}), which this host refuses with a reset",
                address(&stray)
            ),
            None if !connect.is_seen() => format!("{syns}, no answer"),
            None => format!("{syns}, no answer from the network"),
        };
    }
    let drops = u64::from(connect.drops);
    let site = world.drop_site(connect);
    let packets = match site.as_ref().and_then(|site| site.packet) {
        Some(DroppedPacket::Syn) => format!("{} of it", count(drops, "SYN", "SYNs")),
        Some(DroppedPacket::SynAck) => format!("{} to it", count(drops, "answer", "answers")),
        _ => format!("{} of it", count(drops, "packet", "packets")),
    };
    if connect.drop_where & place::QUEUE_FULL != 0 {
        return format!("this host itself ignored {packets}: the listener's accept queue is full");
    }
    let mut details: Vec<String> = world.drop_reason(connect.drop_reason).into_iter().collect();
    if let Some(site) = site {
        details.push(site.place.name().to_owned());
        details.extend(site.device.map(|device| shown(&device).into_owned()));
        if site.other_netns {
            details.push(match site.netns {
                Some(netns) => format!("network namespace {}", shown(&netns)),
                None => "the host's own network namespace".into(),
            });
        }
    }
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
    format!("this host itself dropped {packets}{details}")
}

/// What a connect comes to nothing for, as far as its packets are lost on this host: a rule or policy here, a full
/// accept queue, a frame for another MAC. Where the kernel names no reason, or a fault, it is the connect that is said.
pub(super) fn cause(connect: &Connect, world: &World) -> CauseKind {
    if connect.drops == 0 {
        return CauseKind::OutboundConnect;
    }
    if connect.drop_where & place::QUEUE_FULL != 0 {
        return CauseKind::ListenLimit;
    }
    match Reason::of(world.drop_reason(connect.drop_reason).as_deref()) {
        // Which it was is not reported before 5.17.
        Reason::NotTold => CauseKind::OutboundConnect,
        reason if reason.is_filter() => CauseKind::Filter,
        Reason::QueueFull => CauseKind::ListenLimit,
        Reason::OtherHost | Reason::Neighbour => CauseKind::Neighbour,
        _ => CauseKind::OutboundConnect,
    }
}

/// What caused the loss of a connect's packets on this host, and what to do; `None` when this host lost none.
pub(super) fn verdict(connect: &Connect, world: &World) -> Option<Verdict> {
    if connect.drops == 0 {
        return world.stray_answer(connect).map(|stray| asymmetric(connect, &stray, world));
    }
    let reason = world.drop_reason(connect.drop_reason);
    let queue_full = connect.drop_where & place::QUEUE_FULL != 0;
    let site = world.drop_site(connect);
    let loss = Loss {
        reason: if queue_full { Reason::QueueFull } else { Reason::of(reason.as_deref()) },
        named: reason.unwrap_or_else(|| "no reason reported".into()),
        known: site.is_some(),
        site: site.unwrap_or(DropSite {
            packet: None,
            place: DropPlace::Output,
            device: None,
            netns: world.known.namespace(connect.owner.netns),
            other_netns: false,
        }),
        lost: world.domains.connect.lost_packet(connect),
        to: world.known.destination(connect),
        from: records::address(connect.tuple.local),
        connect,
        world,
    };
    Some(loss.verdict())
}

/// A loss with all that is known of it.
struct Loss<'a> {
    reason: Reason,
    /// The reason in the kernel's word.
    named: String,
    /// Which packet and where is known.
    known: bool,
    site: DropSite,
    lost: Option<&'a Dropped>,
    /// ProcessRef the connect asks.
    to: Endpoint,
    /// Its own address; unspecified when it is not known.
    from: IpAddr,
    connect: &'a Connect,
    world: &'a World,
}

impl Loss<'_> {
    /// The table.
    fn verdict(&self) -> Verdict {
        let (device, from, to) = (self.device(), self.from, self.to.ip);
        let (packets, who) = (self.packets(), self.whose());
        match self.reason {
            Reason::Netfilter => self.netfilter(),
            Reason::RpFilter => {
                let (source, back) = if self.is_answer() { (to, from) } else { (from, to) };
                let setting = format!("net.ipv4.conf.{}.rp_filter=2", self.device_argument());
                verdict_of(
                    format!("{packets} arrived on {device}, but {who}'s route back to {source} leaves by another device: its strict reverse-path filter (rp_filter) dropped them. The network is fine."),
                    [
                        Remedy::from("filter loosely (the larger of this and net.ipv4.conf.all.rp_filter counts): ")
                            .and(self.run(Command::new("sysctl").arg("-w").arg(setting))),
                        Remedy::from("or make the route symmetric: ")
                            .and(self.run(Command::new("ip").words("route get").arg(source).arg("from").arg(back))),
                    ],
                )
            }
            Reason::OtherHost => self.wrong_mac(),
            Reason::NotHere if self.is_answer() && !self.site.other_netns => verdict_of(
                format!("{packets} came to {device}, and {who} no longer holds the address they are for."),
                [self.run(Command::new("ip").words("address show dev").arg(self.device_argument()))],
            ),
            Reason::NotHere => {
                let target = if self.is_answer() { from } else { to };
                let key = if to.is_ipv6() { "net.ipv6.conf.all.forwarding" } else { "net.ipv4.ip_forward" };
                verdict_of(
                    format!("{packets} reached {device} of {who}, which neither holds {target} nor forwards: either it should be a router and forwarding is off, or a neighbour entry on the way names the wrong machine's MAC."),
                    [
                        Remedy::from(format!("1 if {who} is to forward: ")).and(self.run(Command::new("sysctl").arg(key))),
                        Remedy::from("where the packets come from, does the entry name the MAC of the right machine? ")
                            .and(ip_of(target).words("neigh show").arg(target)),
                    ],
                )
            }
            Reason::BadSource => {
                let source = if self.is_answer() { to } else { from };
                verdict_of(
                    format!("{packets} reached {device} of {who} with a source address that cannot come from outside: most often {source} is also an address of {who}."),
                    [self.run(ip_of(source).words("address show to").arg(source))],
                )
            }
            Reason::NoRoute => {
                let target = if self.is_answer() { from } else { to };
                verdict_of(
                    format!("{who} has no route for the packets."),
                    [self.run(ip_of(target).words("route get").arg(target))],
                )
            }
            Reason::CgroupEgress => verdict_of(
                format!("A BPF program of the process's cgroup drops {packets} on their way out (BPF_CGROUP_EGRESS): systemd's IPAddressDeny, Cilium or another policy, not nft."),
                self.cgroup_commands(),
            ),
            Reason::SocketFilter if self.is_answer() => verdict_of(
                format!("A BPF program of the process's cgroup, or a filter on its socket, drops {packets} as they arrive."),
                self.cgroup_commands(),
            ),
            Reason::SocketFilter => verdict_of(
                format!("{packets} reached the listener on {}, and a BPF program of its cgroup, or a filter on its socket, drops them.", address(&self.to)),
                [Remedy::from("look for programs of type cgroup_inet_ingress, and for IPAddressDeny of the listener's unit: ")
                    .and(Command::new("bpftool").words("cgroup tree"))],
            ),
            Reason::TcEgress => verdict_of(
                format!("A traffic-control program on {device} of {who} drops {packets} on their way out (TC_EGRESS): a network policy or a CNI's filter, not nft."),
                self.traffic_control("egress"),
            ),
            Reason::TcIngress => verdict_of(
                format!("A traffic-control program on {device} of {who} drops {packets} as they arrive (TC_INGRESS): a network policy or a CNI's filter, not nft."),
                self.traffic_control("ingress"),
            ),
            Reason::Xdp => verdict_of(
                format!("An XDP program on {device} of {who} takes {packets} as they arrive, and cannot pass them on."),
                [self.run(Command::new("bpftool").words("net show dev").arg(self.device_argument()))],
            ),
            Reason::Qdisc => verdict_of(
                format!("The queueing discipline of {device} of {who} drops {packets} ({}).", self.named),
                [self.run(Command::new("tc").words("-s qdisc show dev").arg(self.device_argument()))],
            ),
            Reason::Neighbour => verdict_of(
                format!("No packet leaves {who}: a neighbour does not answer ({}).", self.named),
                [self.run(ip_of(to).words("route get").arg(to)), self.run(ip_of(to).arg("neigh"))],
            ),
            Reason::QueueFull => self.queue_full(),
            Reason::Security => verdict_of(
                format!("A security module (SELinux) of {who} drops {packets}."),
                [Command::new("ausearch").words("-m avc -ts recent").into()],
            ),
            Reason::Xfrm => verdict_of(
                format!("An IPsec policy of {who} drops {packets}."),
                [
                    self.run(Command::new("ip").words("xfrm policy")),
                    self.run(Command::new("ip").words("-s xfrm state")),
                ],
            ),
            Reason::Checksum => verdict_of(
                format!("{packets} arrived on {device} of {who} with a wrong checksum ({}).", self.named),
                [Remedy::from("compare checksum offload at both ends: ")
                    .and(self.run(Command::new("ethtool").arg("-k").arg(self.device_argument())))],
            ),
            Reason::Authentication => verdict_of(
                format!("{packets} carry no TCP MD5 or TCP-AO signature that {who} accepts ({}).", self.named),
                [format!("compare the keys of both ends for {}", address(&self.to)).into()],
            ),
            Reason::Ipv6Disabled => verdict_of(
                format!("IPv6 is switched off on {device} of {who}."),
                [self.run(
                    Command::new("sysctl").arg(format!("net.ipv6.conf.{}.disable_ipv6", self.device_argument())),
                )],
            ),
            Reason::TooBig => verdict_of(
                format!("{packets} are larger than {device} of {who} takes."),
                [self.run(Command::new("ip").words("link show dev").arg(self.device_argument()))],
            ),
            Reason::Full => verdict_of(
                format!("A buffer of {who} is full and {packets} are dropped ({}).", self.named),
                [self.run(Command::new("nstat").arg("-az"))],
            ),
            Reason::BadAnswer => verdict_of(
                format!("{packets} fit no SYN that was sent ({}): something between answers for {to}, or an old connection is still open there.", self.named),
                [self.run(Command::new("ss").words("-tanoi dst").arg(to))],
            ),
            Reason::NotTold | Reason::Other => self.unnamed(),
        }
    }

    fn traffic_control(&self, direction: &str) -> Vec<Remedy> {
        let show = Command::new("tc").words("-s filter show dev").arg(self.device_argument()).arg(direction);
        vec![
            self.run(show),
            Remedy::from("with Cilium: ").and(Command::new("cilium-dbg").words("monitor --type drop")),
        ]
    }

    /// The frame was for another MAC than the one of the device that holds the address.
    fn wrong_mac(&self) -> Verdict {
        if let Some(lost) = self.lost.filter(|lost| lost.at & place::TUNNEL != 0) {
            return self.wrong_tunnel_mac(lost);
        }
        let (who, device) = (self.whose(), self.device());
        let (frame, own) = match self.lost {
            Some(lost) => (mac(&lost.frame_mac), mac(&lost.device_mac)),
            None => ("another MAC".into(), "its own".into()),
        };
        let (holder, sender) =
            if self.is_answer() { (self.from, "the peer") } else { (self.to.ip, "the sender") };
        let clear = ip_of(holder).words("neigh flush to").arg(holder);
        let clear = if self.is_answer() {
            Remedy::from("clear the entry where the answers come from: ").and(clear)
        } else {
            // The sender of a SYN is the connecting process's namespace, when the holder is its neighbour.
            let netns = self.world.known.namespace(self.connect.owner.netns);
            let process = Some(self.connect.owner.process).filter(|process| *process != 0);
            neighbours::within(netns.as_deref(), process, clear)
        };
        let announce = Command::new("arping").words("-c 3 -A -I").arg(self.device_argument()).arg(holder);
        verdict_of(
            format!(
                "{holder} is on {device} of {who} with MAC {own}, and {sender} sends its frames to {frame}: a neighbour entry is out of date."
            ),
            [clear, Remedy::from(format!("or have {holder} announce itself: ")).and(self.run(announce))],
        )
    }

    /// The same at the end of a tunnel: where the packets are sent, the next hop's entry names a MAC of the past.
    fn wrong_tunnel_mac(&self, lost: &Dropped) -> Verdict {
        let (frame, own) = (mac(&lost.frame_mac), mac(&lost.device_mac));
        verdict_of(
            format!(
                "{} come to {} of {} in frames for {frame}, and its MAC is {own}: where they are sent, the neighbour entry of the next hop is out of date.",
                self.packets(),
                self.device(),
                self.whose()
            ),
            tunnel_remedies(lost, self.device_argument()),
        )
    }

    /// Who has attached what to the process's cgroup.
    fn cgroup_commands(&self) -> Vec<Remedy> {
        let process = self.world.known.named(&self.connect.owner);
        let mut remedies = Vec::new();
        if let Some(unit) = process.as_ref().and_then(|process| process.unit.as_ref()) {
            let show =
                Command::new("systemctl").words("show -p IPAddressAllow -p IPAddressDeny --").arg(unit);
            remedies.push(show.into());
        }
        let tree = Command::new("bpftool").words("cgroup tree");
        remedies.push(match process {
            Some(process) => Remedy::from(format!(
                "look at the programs of its cgroup (named in /proc/{}/cgroup): ",
                process.pid
            ))
            .and(tree),
            None => tree.into(),
        });
        remedies
    }

    /// A listener of this very host has no room.
    fn queue_full(&self) -> Verdict {
        let netns = self.lost.map_or(self.connect.owner.netns, |lost| lost.netns);
        let port = self.to.wire.map_or(self.to.port, |wire| wire.port);
        let listener = self.listener(netns);
        let who = match &listener {
            Some((process, comm)) => format!("{}[{process}]", shown(comm)),
            None => "the listener".to_owned(),
        };
        let sockets = Command::new("ss").words("-Hlnt sport =").arg(format!(":{port}"));
        verdict_of(
            format!(
                "The SYNs reach {} on this host, where {who} listens and does not accept: its accept queue is full. No packet filter is involved.",
                address(&self.to)
            ),
            [
                Remedy::from("compare the queue with its limit (Recv-Q above Send-Q): ")
                    .and(self.run(sockets)),
                Remedy::from(format!(
                    "see what {who} does instead of accepting; a larger backlog (listen(2), net.core.somaxconn) only helps against bursts"
                )),
            ],
        )
    }

    /// Neither nft nor anything else can be named.
    fn unnamed(&self) -> Verdict {
        let (who, packets, place) = (self.whose(), self.packets(), self.site.place);
        if self.reason == Reason::Other {
            return verdict_of(
                format!("{who} drops {packets} ({}, {}).", self.named, place.name()),
                [self.run(Command::new("nstat").arg("-az")), self.run(Command::new("ip").words("-s link"))],
            );
        }
        let filter = |direction: &str| {
            self.site.device.as_ref().map(|device| {
                self.run(Command::new("tc").words("-s filter show dev").arg(device).arg(direction))
            })
        };
        let mut looks = vec![self.run(Command::new("nft").words("list ruleset"))];
        match place {
            DropPlace::Output => {
                looks.extend(filter("egress"));
                looks.push(Command::new("bpftool").words("cgroup tree").into());
            }
            DropPlace::Forward => looks.push(self.run(Command::new("ip").arg("route"))),
            DropPlace::Prerouting | DropPlace::Input => {
                looks.extend(filter("ingress"));
                // A device driver's own XDP gives no reason.
                let xdp = self.site.device.as_ref().filter(|_| place == DropPlace::Prerouting);
                looks.extend(
                    xdp.map(|device| self.run(Command::new("bpftool").words("net show dev").arg(device))),
                );
                looks.push(self.run(Command::new("nstat").arg("-az")));
            }
        }
        verdict_of(
            format!(
                "{who} drops {packets} itself ({}), and this kernel does not say why: a packet filter, a policy program or a missing route.",
                place.name()
            ),
            looks,
        )
    }

    fn is_answer(&self) -> bool {
        self.site.packet == Some(DroppedPacket::SynAck)
    }

    /// The packets, in words.
    fn packets(&self) -> &'static str {
        match self.site.packet {
            Some(DroppedPacket::Syn) => "the SYNs",
            Some(DroppedPacket::SynAck) => "the answers",
            Some(DroppedPacket::Reset) => "the resets",
            None => "the packets",
        }
    }

    /// Whose network stack it is.
    fn whose(&self) -> String {
        match (&self.site.netns, self.site.other_netns) {
            (None, false) => "this host".into(),
            (None, true) => "the host's own network namespace".into(),
            (Some(netns), _) => format!("network namespace {}", shown(netns)),
        }
    }

    /// The device, in a sentence.
    fn device(&self) -> Cow<'_, str> {
        self.site.device.as_deref().map_or(Cow::Borrowed("the device"), shown)
    }

    /// The device, in a command.
    fn device_argument(&self) -> &str {
        self.site.device.as_deref().unwrap_or("DEVICE")
    }

    /// A command, in the namespace where the packet was.
    fn run(&self, command: Command) -> Remedy {
        neighbours::within(self.site.netns.as_deref(), self.resident(), command)
    }

    /// Who listens there, process and name, where the packets go.
    fn listener(&self, netns: Netns) -> Option<(u32, String)> {
        let (ip, port) = self.to.wire.map_or((self.to.ip, self.to.port), |wire| (wire.ip, wire.port));
        self.world.known.listener_at(netns, ip, port)
    }

    /// A process that lives in that namespace.
    fn resident(&self) -> Option<u32> {
        if !self.site.other_netns {
            return Some(self.connect.owner.process).filter(|process| *process != 0);
        }
        let netns = self.lost?.netns;
        self.listener(netns).map(|(process, _)| process)
    }
}

/// `ip` of an address's family.
fn ip_of(address: IpAddr) -> Command {
    let ip = Command::new("ip");
    if address.is_ipv6() { ip.arg("-6") } else { ip }
}

/// What to do where frames are sent to a tunnel's end by a MAC of the past. Which machine that is is not known here.
pub(super) fn tunnel_remedies(lost: &Dropped, device: &str) -> Vec<Remedy> {
    let (frame, own) = (mac(&lost.frame_mac), mac(&lost.device_mac));
    let mut remedies = Vec::new();
    if lost.holder != [0; 16] {
        let replace = Command::new("ip").words("neigh replace").arg(records::address(lost.holder));
        let replace = replace.arg("lladdr").arg(&own).arg("dev").arg(device).words("nud permanent");
        remedies.push(Remedy::from("on the machine that sends them: ").and(replace));
    }
    let entries = Command::new("bridge").words("fdb show dev").arg(device);
    remedies.push(
        Remedy::from(format!("and give its forwarding entry of {frame} to {own}, by the same dst: "))
            .and(entries),
    );
    remedies
}

/// Answers come from another address than the one that was asked.
fn asymmetric(connect: &Connect, stray: &Endpoint, world: &World) -> Verdict {
    let to = world.known.destination(connect);
    verdict_of(
        format!(
            "{} was asked and {} answers: address translation on the way is undone in one direction only (asymmetric NAT), and this host refuses what it never asked for.",
            address(&to),
            address(stray)
        ),
        [
            Remedy::from(format!(
                "make the answers of {} pass the machine that translated {}: its default route, or source NAT (masquerade) there",
                stray.ip, to.ip
            )),
            Remedy::from("on the machine that translates: ")
                .and(Command::new("conntrack").words("-L -d").arg(to.ip)),
        ],
    )
}

fn verdict_of(mut why: String, remedies: impl IntoIterator<Item = Remedy>) -> Verdict {
    if let Some(first) = why.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Verdict { why, remedies: remedies.into_iter().collect() }
}

/// `02:00:5e:12:00:aa`.
pub(super) fn mac(bytes: &[u8; 6]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
