//! A local network: hosts on a switch (a Linux bridge), each in a namespace of its own, and culprit watching.

use std::net::{IpAddr, SocketAddr};

use super::{
    Culprit, Incident, Netns,
    keep::Keeper,
    port,
    process::{Running, run, words},
    stage::python,
};

/// A MAC that no device has: that of a machine that is gone.
pub const ABSENT_MAC: &str = "02:00:5e:10:00:01";

const SERVER: &str = "
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
server = socket.create_server((host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
print('ready', flush=True)
kept = []
while True:
    kept.append(server.accept())
";

/// The network.
pub struct Lan {
    /// The switch, with a bridge `br0` and a port per host.
    pub switch: Netns,
    /// What watches.
    pub culprit: Culprit,
    keeper: Keeper,
}

/// A host: its device on the network is `eth0`.
pub struct Host {
    /// Its namespace.
    pub netns: Netns,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
}

impl Lan {
    /// Sets it up. `case` names the recording, `rule/case`.
    #[track_caller]
    pub fn set(case: &'static str) -> Self {
        Self::with(Keeper::new(case), Culprit::trace(""))
    }

    /// The same, with another culprit, and no recording.
    #[track_caller]
    pub fn watched_by(culprit: Culprit) -> Self {
        Self::with(Keeper::idle(), culprit)
    }

    #[track_caller]
    fn with(mut keeper: Keeper, culprit: Culprit) -> Self {
        let switch = Netns::make();
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        keeper.keep(std::process::id());
        Self { switch, culprit, keeper }
    }

    /// A new host with this number.
    #[track_caller]
    pub fn host(&self, number: u8) -> Host {
        let (netns, v4, v6) = (Netns::make(), self.switch.v4(number), self.switch.v6(number.into()));
        let host = Host { netns, v4, v6 };
        self.plug(&host, "eth0");
        host.netns.ip(&format!("addr add {v4}/24 dev eth0"));
        host.netns.ip(&format!("addr add {v6}/64 dev eth0 nodad"));
        host
    }

    /// Another device of a host on this network.
    #[track_caller]
    pub fn plug(&self, host: &Host, device: &str) {
        let port = format!("port{}", super::unique());
        self.switch.ip(&format!("link add {port} type veth peer name {device} netns {}", host.netns.name()));
        self.switch.ip(&format!("link set {port} master br0 up"));
        host.netns.ip(&format!("link set {device} up"));
    }

    /// The switch loses every ARP and neighbour solicitation or advertisement.
    #[track_caller]
    pub fn drops_arp_and_ndp(&self) {
        self.switch.nft(
            "table bridge test { chain forward { type filter hook forward priority 0; \
             ether type arp drop; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } drop; }; }",
        );
    }

    /// It forwards them again.
    #[track_caller]
    pub fn forwards_arp_and_ndp(&self) {
        self.switch.nft("delete table bridge test");
    }

    /// The incident of this kind about a neighbour, as it opens.
    #[track_caller]
    pub fn opened(&self, kind: &str, netns: &Netns, address: IpAddr) -> Incident {
        let opened = self
            .culprit
            .wait_for_incident(kind, |emitted| emitted.about(kind, netns, address) && emitted.opens());
        self.keeper.catches_up();
        opened
    }

    /// The same incident's end.
    #[track_caller]
    pub fn resolved(&self, opened: &Incident) -> Incident {
        self.culprit.wait_for_incident("its end", |emitted| {
            emitted.id() == opened.id() && emitted.text("/state") == "resolved"
        })
    }

    /// Ends the scene. Of the incidents about these hosts exactly those of these kinds were opened.
    #[track_caller]
    pub fn ends_with(mut self, hosts: &[&Host], kinds: &[&str]) {
        self.culprit.settle(&self.switch);
        let opened = self
            .culprit
            .incidents(|emitted| emitted.opens() && hosts.iter().any(|host| emitted.within(&host.netns)));
        let mut found: Vec<&str> = opened.iter().map(|emitted| emitted.text("/kind")).collect();
        found.sort_unstable();
        let mut wanted = kinds.to_vec();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{opened:#?}");
        self.keeper.end();
    }
}

impl Host {
    /// Its address of the same family.
    pub fn like(&self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.v4 } else { self.v6 }
    }

    /// A service of it, on a port that no other test uses.
    pub fn service(&self, address: IpAddr) -> SocketAddr {
        SocketAddr::new(address, port())
    }

    /// Its MAC.
    pub fn mac(&self) -> String {
        self.netns.mac("eth0")
    }

    /// Sets its entry of an address to this MAC, in this state (`permanent`, `stale`, `reachable`).
    #[track_caller]
    pub fn sets_neighbour(&self, address: IpAddr, mac: &str, state: &str) {
        self.netns.ip(&format!("neigh replace {address} lladdr {mac} dev eth0 nud {state}"));
    }

    /// Its entry for an address, as `ip neigh` shows it.
    #[track_caller]
    pub fn entry(&self, address: IpAddr) -> String {
        let shown = run(&mut words(&format!("ip -n {} neigh show {address} dev eth0", self.netns.name())));
        String::from_utf8(shown.stdout).expect("text")
    }

    /// A server of it, in a process of its own: it accepts, and sends nothing.
    #[track_caller]
    pub fn serves(&self, service: SocketAddr) -> Running {
        let mut python = python();
        python.args(["-c", SERVER]).arg(service.ip().to_string()).arg(service.port().to_string());
        let server = self.netns.spawn(python);
        server.wait_for_line("ready");
        server
    }

    /// Carries out a remedy, word for word.
    #[track_caller]
    pub fn carries_out(&self, remedy: &str) {
        run(&mut words(remedy));
    }
}
