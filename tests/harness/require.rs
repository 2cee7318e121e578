//! What a test needs from the machine. A test may skip only for a reason listed here, found by looking
//! for the capability itself, never by a version number.

use std::{io::Write, process::Command};

/// A capability some supported machines lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// io_uring, built in and not switched off.
    IoUring,
    /// The `inet_sk_error_report` tracepoint (Linux 5.14).
    SocketErrors,
    /// `kfree_skb` has the reason (Linux 5.17).
    DropReasons,
    /// The kernel's own type information describes conntrack's entries: not where conntrack is a module.
    ConntrackTypes,
    /// `kfree_skb` has what queueing disciplines drop (Linux 6.12).
    QdiscReasons,
    /// tc, and a kernel with clsact and classifiers in BPF.
    TrafficControl,
    /// Multipath TCP.
    Mptcp,
    /// nftables: the tool and the kernel's part.
    Nftables,
    /// The openssl tool.
    Openssl,
    /// The curl tool.
    Curl,
    /// libfaketime, which gives a program another time.
    Faketime,
    /// A C compiler for x86-64, for a program that enters the kernel the old way.
    Gcc,
    /// A virtual machine in which nothing else runs meanwhile: its settings are the test's own, and its clock may
    /// jump by months.
    OwnMachine,
    /// Time namespaces, and an `unshare` that makes them.
    TimeNamespaces,
    /// Perl, which makes system calls by number (those of x86-64).
    Perl,
    /// tun devices: a network that answers nothing.
    Tun,
    /// Java, at a speed a test can wait for.
    Java,
    /// Node.js.
    Node,
    /// A Prometheus and its promtool: what `cargo xtask` has fetched and names.
    Prometheus,
    /// Chromium, and what drives it.
    Chromium,
    /// axe-core, which judges pages: what `cargo xtask` has fetched and names.
    Axe,
    /// chronyd: what `cargo xtask` has fetched and names by `CULPRIT_CHRONYD`, or the machine's own.
    Chrony,
    /// dnsmasq.
    Dnsmasq,
    /// runc, and a kernel in which it can run a container.
    Runc,
    /// macvlan devices.
    Macvlan,
    /// FUSE.
    Fuse,
    /// A control group with a CPU quota.
    CpuQuota,
    /// Time is measured: not under emulation.
    MeasuredTime,
    /// A machine of ordinary speed: what depends on no particular kernel is not shown on emulated ones as well.
    Pace,
}

impl Feature {
    /// Why it is missing, if it is.
    fn missing(self) -> Option<&'static str> {
        let (here, why) = match self {
            Self::IoUring => {
                (io_uring::IoUring::new(2).is_ok(), "this kernel has no io_uring, or forbids it")
            }
            Self::SocketErrors => (
                in_btf("btf_trace_inet_sk_error_report"),
                "this kernel has no inet_sk_error_report tracepoint",
            ),
            Self::DropReasons => {
                (in_btf("SKB_DROP_REASON_NETFILTER_DROP"), "this kernel does not say why it drops packets")
            }
            Self::ConntrackTypes => {
                (in_btf("nf_conntrack_tuple_hash"), "this kernel does not describe conntrack's entries")
            }
            Self::QdiscReasons => (
                in_btf("SKB_DROP_REASON_QDISC_DROP"),
                "this kernel does not say what queueing disciplines drop",
            ),
            Self::TrafficControl => {
                (has_traffic_control(), "there is no tc, or the kernel has no clsact or no BPF classifier")
            }
            Self::Mptcp => {
                let socket = socket2::Socket::new(
                    socket2::Domain::IPV4,
                    socket2::Type::STREAM,
                    Some(socket2::Protocol::MPTCP),
                );
                (socket.is_ok(), "this kernel has no MPTCP")
            }
            Self::Nftables => {
                (runs("nft", "list ruleset"), "there is no nft, or the kernel has no nf_tables")
            }
            Self::Openssl => (runs("openssl", "version"), "there is no openssl tool"),
            Self::Curl => (runs("curl", "--version"), "there is no curl"),
            Self::Faketime => (faketime().is_some(), "there is no libfaketime"),
            Self::Gcc => (
                cfg!(target_arch = "x86_64") && runs("gcc", "--version"),
                "there is no gcc, or it makes no x86 programs",
            ),
            Self::OwnMachine => (
                std::env::var_os("CULPRIT_OWN_CLOCK").is_some(),
                "it sets the clock by months: only in a VM, and alone",
            ),
            Self::TimeNamespaces => (
                runs("unshare", "--time --boottime 1 true"),
                "this kernel has no time namespaces, or unshare cannot make them",
            ),
            Self::Perl => (
                cfg!(target_arch = "x86_64") && runs("perl", "-MTime::HiRes -e 1"),
                "there is no perl, or the calls have other numbers here",
            ),
            Self::Tun => (has_tun(), "this kernel has no tun devices"),
            Self::Java => (
                super::slow() <= 1.0 && runs("java", "-version"),
                "there is no java, or it takes minutes to start here",
            ),
            Self::Node => (
                super::slow() <= 1.0 && runs("node", "--version"),
                "there is no node, or it takes minutes to start here",
            ),
            Self::Prometheus => (
                ["CULPRIT_PROMETHEUS", "CULPRIT_PROMTOOL"]
                    .iter()
                    .all(|name| std::env::var_os(name).is_some()),
                "there is no Prometheus",
            ),
            Self::Chromium => {
                (runs("chromedriver", "--version") && runs("chromium", "--version"), "there is no Chromium")
            }
            Self::Axe => (
                std::env::var_os("CULPRIT_AXE").is_some(),
                "there is no axe-core: `cargo xtask setup` fetches it",
            ),
            Self::Chrony => (
                Command::new(chronyd()).arg("--version").output().is_ok_and(|output| output.status.success()),
                "there is no chronyd: `cargo xtask setup` fetches it where there is apt",
            ),
            Self::Dnsmasq => (runs("dnsmasq", "--version"), "there is no dnsmasq"),
            Self::Runc => (
                super::container::works(),
                "there is no runc or no static busybox, or runc can run nothing here",
            ),
            Self::Fuse => (has_fuse(), "this kernel has no FUSE"),
            Self::CpuQuota => (
                super::group::Group::with_quota(50_000, 100_000).is_some(),
                "no control group can have a CPU quota here",
            ),
            Self::Macvlan => (has_macvlan(), "this kernel has no macvlan devices"),
            Self::Pace => (super::slow() <= 1.0, "this machine is slow, and ordinary ones show it as well"),
            Self::MeasuredTime => {
                (super::slow() <= 1.0, "CULPRIT_TEST_SLOW says that time means little here")
            }
        };
        (!here).then_some(why)
    }
}

/// Whether a test can run here. Prints the reason when it cannot; fails instead where `CULPRIT_LIVE=require` and
/// the reason is that this is not root.
pub fn can_run(test: &str, features: &[Feature]) -> bool {
    let root = rustix::process::geteuid().is_root();
    let why = if root {
        features.iter().find_map(|feature| feature.missing())
    } else {
        let required = std::env::var_os("CULPRIT_LIVE").is_some_and(|value| value == "require");
        assert!(!required, "CULPRIT_LIVE=require, and this is not root");
        Some("live tests need root")
    };
    if let Some(why) = why {
        skip(test.trim_start_matches("live::").trim_end_matches("::here"), why);
    }
    why.is_none()
}

/// Prints that a test was skipped, and why: past libtest's capture, for a skip that is not seen is a test
/// that is never run.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Ends the test here, with a printed reason, unless the machine can run it.
#[macro_export]
macro_rules! needs {
    ($($feature:ident),*) => {
        fn here() {}
        let test = std::any::type_name_of_val(&here);
        if !$crate::harness::require::can_run(test, &[$($crate::harness::Feature::$feature),*]) {
            return;
        }
    };
}

/// Where chronyd is.
pub fn chronyd() -> std::ffi::OsString {
    std::env::var_os("CULPRIT_CHRONYD").unwrap_or_else(|| "chronyd".into())
}

/// Whether the running kernel's type information has this name: it holds every tracepoint's (`btf_trace_NAME`) and
/// enumerator's.
pub fn in_btf(name: &str) -> bool {
    let btf = std::fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let mut wanted = name.as_bytes().to_vec();
    wanted.push(0);
    btf.windows(wanted.len()).any(|window| window == wanted)
}

/// A VM's /dev lacks the node of a module that is not loaded yet; opening it loads it.
fn has_tun() -> bool {
    let path = std::path::Path::new("/dev/net/tun");
    if std::env::var_os("CULPRIT_VM").is_some() && !path.exists() {
        let _ = std::fs::create_dir_all("/dev/net");
        let _ = Command::new("mknod").args(["/dev/net/tun", "c", "10", "200"]).status();
    }
    std::fs::OpenOptions::new().read(true).write(true).open(path).is_ok()
}

/// Built in, or loaded as a module by now or by the first mount.
fn has_fuse() -> bool {
    let known = || std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = || known().lines().any(|line| line.trim_start_matches("nodev").trim() == "fuse");
    has() || (runs("modprobe", "fuse") && has())
}

fn has_macvlan() -> bool {
    let netns = super::Netns::make();
    netns.ip("link add one type veth peer name other");
    runs("ip", &format!("-n {} link add link one name child type macvlan", netns.name()))
}

fn has_traffic_control() -> bool {
    let netns = super::Netns::make();
    let name = netns.name();
    runs("tc", &format!("-n {name} qdisc add dev lo clsact"))
        && Command::new("tc")
            .args(["-n", name, "filter", "add", "dev", "lo", "egress", "bpf", "direct-action"])
            .args(["bytecode", "1,6 0 0 0"])
            .output()
            .is_ok_and(|output| output.status.success())
}

/// Whether a program is here: it must end well.
pub fn runs(program: &str, args: &str) -> bool {
    Command::new(program).args(args.split(' ')).output().is_ok_and(|output| output.status.success())
}

/// libfaketime, where Debian, Ubuntu and others have it.
pub fn faketime() -> Option<&'static str> {
    const PATHS: &[&str] = &[
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/faketime/libfaketime.so.1",
        "/usr/lib64/faketime/libfaketime.so.1",
    ];
    PATHS.iter().copied().find(|path| std::path::Path::new(path).exists())
}
