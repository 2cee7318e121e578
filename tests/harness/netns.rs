//! Network namespaces a test makes and removes itself, and Rust code that runs inside them.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Command,
    sync::Once,
    thread::{Builder, JoinHandle},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    process::{Running, run, words},
    unique,
};

const PREFIX: &str = "culprit-test-";

/// A network namespace with loopback up; removed with everything in it when dropped.
pub struct Netns {
    name: String,
    subnet: u16,
}

impl Netns {
    /// Makes one.
    #[track_caller]
    pub fn make() -> Self {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_orphans);
        let number = unique();
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        run(&mut words(&format!("ip netns add {name}")));
        // Another run of the tests at the same time must not use the same addresses either.
        let subnet = (std::process::id() as u16).wrapping_mul(251).wrapping_add(number);
        let netns = Self { name, subnet };
        netns.ip("link set lo up");
        netns
    }

    /// Its name, as facts show it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip`, inside.
    #[track_caller]
    pub fn ip(&self, args: &str) {
        run(&mut words(&format!("ip -n {} {args}", self.name)));
    }

    /// An nftables ruleset, inside.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        let mut nft = Command::new("nft");
        nft.arg(rules);
        self.enter(move || run(&mut nft));
    }

    /// Drops TCP segments to a port where `hook` (`input` or `output`) says.
    #[track_caller]
    pub fn drop_tcp(&self, hook: &str, port: u16) {
        self.nft(&format!(
            "table inet test {{ chain {hook} {{ type filter hook {hook} priority 0; tcp dport {port} drop; }}; }}"
        ));
    }

    /// Sets a sysctl of this namespace, e.g. `net/ipv4/tcp_syn_retries`.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        let (path, text) = (Path::new("/proc/sys").join(name), value.to_owned());
        self.enter(move || {
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        });
    }

    /// A counter of this namespace, e.g. `TcpExt`, `TCPSynRetrans`.
    #[track_caller]
    pub fn counter(&self, group: &str, name: &str) -> u64 {
        let tables = ["snmp", "netstat"].map(|table| format!("/proc/thread-self/net/{table}"));
        let text =
            self.enter(move || tables.map(|table| std::fs::read_to_string(table).expect("proc")).concat());
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        rows.chunks_exact(2)
            .filter(|pair| pair[0][0].trim_end_matches(':') == group)
            .find_map(|pair| pair[1][pair[0].iter().position(|column| *column == name)?].parse().ok())
            .unwrap_or_else(|| panic!("the kernel counts no {group} {name}"))
    }

    /// An address of its loopback that no other namespace uses.
    pub fn loopback(&self) -> IpAddr {
        let [high, low] = self.subnet.to_be_bytes();
        Ipv4Addr::new(127, high, low, 1).into()
    }

    /// An IPv4 address of a network that is this namespace's own.
    pub fn v4(&self, host: u8) -> IpAddr {
        let [high, low] = self.subnet.to_be_bytes();
        Ipv4Addr::new(10, high, low, host).into()
    }

    /// The same in IPv6.
    pub fn v6(&self, host: u16) -> IpAddr {
        Ipv6Addr::new(0xfd00, 0, 0, self.subnet, 0, 0, 0, host).into()
    }

    /// The MAC of a device inside.
    #[track_caller]
    pub fn mac(&self, device: &str) -> String {
        let shown = run(&mut words(&format!("ip -n {} -br link show {device}", self.name)));
        let shown = String::from_utf8(shown.stdout).expect("text");
        shown.split_whitespace().nth(2).expect("the third column is the address").to_owned()
    }

    /// Runs code in a thread inside, and waits for it.
    #[track_caller]
    pub fn enter<T: Send + 'static>(&self, code: impl FnOnce() -> T + Send + 'static) -> T {
        self.thread(code).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs code in a thread inside.
    pub fn thread<T: Send + 'static>(&self, code: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.thread_named("inside", code)
    }

    /// Runs code in a thread of this name inside.
    pub fn thread_named<T: Send + 'static>(
        &self,
        name: &str,
        code: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let netns = File::open(Path::new("/run/netns").join(&self.name)).expect("made by make()");
        let inside = move || {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&netns), Some(LinkNameSpaceType::Network))
                .expect("root may enter");
            code()
        };
        Builder::new().name(name.to_owned()).spawn(inside).expect("a thread")
    }

    /// Starts a process inside.
    #[track_caller]
    pub fn spawn(&self, mut command: Command) -> Running {
        self.enter(move || Running::spawn(&mut command))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Namespaces of test processes that were killed.
fn remove_orphans() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// Two namespaces and a wire between them.
pub struct Pair {
    /// One end.
    pub client: Netns,
    /// The other.
    pub server: Netns,
}

impl Pair {
    /// Makes both, addressed in both families.
    #[track_caller]
    pub fn make() -> Self {
        let pair = Self { client: Netns::make(), server: Netns::make() };
        let (a, b) = (&pair.client, &pair.server);
        a.ip(&format!("link add wire type veth peer name wire netns {}", b.name));
        for (netns, v4, v6) in [(a, pair.v4(1), pair.v6(1)), (b, pair.v4(2), pair.v6(2))] {
            netns.ip("link set wire up");
            netns.ip(&format!("addr add {v4}/24 dev wire"));
            netns.ip(&format!("addr add {v6}/64 dev wire nodad"));
        }
        pair
    }

    /// A host behind the server, which forwards to it, and its address. The client has no route there yet.
    #[track_caller]
    pub fn host_behind(&self) -> (Netns, IpAddr) {
        let (router, host) = (&self.server, Netns::make());
        let address = host.v4(9);
        router.ip(&format!("link add behind type veth peer name eth0 netns {}", host.name));
        router.ip(&format!("addr add {}/24 dev behind", host.v4(1)));
        router.ip("link set behind up");
        host.ip(&format!("addr add {address}/24 dev eth0"));
        host.ip("link set eth0 up");
        router.sysctl("net/ipv4/ip_forward", "1");
        (host, address)
    }

    /// An IPv4 address on the wire: host 1 is the client, 2 the server, others do not exist.
    pub fn v4(&self, host: u8) -> IpAddr {
        self.client.v4(host)
    }

    /// An IPv6 address on the wire.
    pub fn v6(&self, host: u16) -> IpAddr {
        self.client.v6(host)
    }
}
