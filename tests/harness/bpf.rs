//! Programs that drop packets, a few instructions each, as a policy, a load balancer or systemd attaches them. They are
//! assembled here, so that the tests need no compiler and no object file.

use std::{
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::process::{Resource, Rlimit, setrlimit};
use syscalls::{Sysno, syscall};

use super::{Netns, unique};

const BPF_PROG_LOAD: usize = 5;
const BPF_LINK_CREATE: usize = 28;
const SOL_SOCKET: usize = 1;
const SO_ATTACH_FILTER: usize = 26;
const IPPROTO_TCP: usize = 6;
const TCP_MD5SIG: usize = 14;
const AF_INET: u16 = 2;
const XDP: Attach = Attach { program: 6, attach: 37, flags: 1 << 1 };
const CGROUP_EGRESS: Attach = Attach { program: 8, attach: 1, flags: 0 };
const CGROUP_INGRESS: Attach = Attach { program: 8, attach: 0, flags: 0 };

/// What kind of program goes where.
struct Attach {
    program: u32,
    attach: u32,
    /// For XDP: in the kernel's generic mode, for any device.
    flags: u32,
}

/// An attached program; gone when dropped.
pub struct Attached {
    _link: OwnedFd,
}

/// One instruction: code, destination and source register, offset, immediate value.
const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> [u8; 8] {
    let (off, imm) = (off.to_ne_bytes(), imm.to_ne_bytes());
    [code, dst | src << 4, off[0], off[1], imm[0], imm[1], imm[2], imm[3]]
}

/// `r0 = value; exit`.
const fn returns(value: i32) -> [[u8; 8]; 2] {
    [insn(0xb7, 0, 0, 0, value), insn(0x95, 0, 0, 0, 0)]
}

/// Drops what is IPv4 (XDP_DROP), and lets ARP pass (XDP_PASS).
const DROPS_IPV4: [[u8; 8]; 10] = [
    insn(0x61, 2, 1, 0, 0),                         // r2 = data
    insn(0x61, 3, 1, 4, 0),                         // r3 = data_end
    insn(0xbf, 4, 2, 0, 0),                         // r4 = r2
    insn(0x07, 4, 0, 0, 14),                        // r4 += an Ethernet header
    insn(0xb7, 0, 0, 0, 2),                         // r0 = XDP_PASS
    insn(0x2d, 4, 3, 3, 0),                         // if r4 > r3, leave
    insn(0x69, 2, 2, 12, 0),                        // r2 = the type
    insn(0x55, 2, 0, 1, 0x0800_u16.to_be() as i32), // if it is not IPv4, leave
    insn(0xb7, 0, 0, 0, 1),                         // r0 = XDP_DROP
    insn(0x95, 0, 0, 0, 0),
];

/// One call of bpf(2), whose attributes are these bytes.
#[track_caller]
fn bpf(command: usize, attributes: &[u8]) -> OwnedFd {
    // SAFETY: the attributes, and what they point to, outlive the call; both commands used return a new descriptor.
    let fd = unsafe { syscall!(Sysno::bpf, command, attributes.as_ptr(), attributes.len()) };
    let fd = fd.unwrap_or_else(|error| panic!("bpf({command}): {error}"));
    // SAFETY: it was just made, and is owned by nothing else.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Before Linux 5.11 a program's memory counts against this, with that of all others of the user, for this process and
/// what it starts; where it may not be raised, loading fails with that error.
pub fn raise_memlock() {
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

#[track_caller]
fn attach(instructions: &[[u8; 8]], to: &Attach, target: u32) -> Attached {
    raise_memlock();
    let mut load = [0_u8; 72];
    load[0..4].copy_from_slice(&to.program.to_ne_bytes());
    load[4..8].copy_from_slice(&(instructions.len() as u32).to_ne_bytes());
    load[8..16].copy_from_slice(&(instructions.as_ptr() as u64).to_ne_bytes());
    load[16..24].copy_from_slice(&(c"GPL".as_ptr() as u64).to_ne_bytes());
    load[68..72].copy_from_slice(&to.attach.to_ne_bytes());
    let program = bpf(BPF_PROG_LOAD, &load);
    let fields = [program.as_raw_fd() as u32, target, to.attach, to.flags];
    Attached { _link: bpf(BPF_LINK_CREATE, fields.map(u32::to_ne_bytes).as_flattened()) }
}

/// Drops every IPv4 packet that arrives on this device, before the stack sees it.
#[track_caller]
pub fn xdp_drops_ipv4(netns: &Netns, device: &str) -> Attached {
    let device = device.to_owned();
    netns.enter(move || {
        let index = nix::net::if_::if_nametoindex(device.as_str()).expect("a device");
        attach(&DROPS_IPV4, &XDP, index)
    })
}

/// A cgroup of the test's own in version 2, called like a unit of systemd; removed when dropped, so those in it must
/// be gone by then.
pub struct Unit {
    name: String,
    path: PathBuf,
}

impl Unit {
    /// Makes it.
    #[track_caller]
    pub fn make() -> Self {
        let name = format!("culprit-test-{}-{}.service", std::process::id(), unique());
        let path = culprit::kernel::cgroup::root().expect("a cgroup v2 root").join(&name);
        std::fs::create_dir(&path).expect("root may make a group");
        Self { name, path }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A process moves into it: what sockets it opens from now on are the unit's.
    #[track_caller]
    pub fn take(&self, pid: u32) {
        std::fs::write(self.path.join("cgroup.procs"), pid.to_string()).expect("a process moves");
    }

    /// Nothing leaves its sockets, as by `IPAddressDeny=any`.
    #[track_caller]
    pub fn denies_egress(&self) -> Attached {
        denies(&self.path, &CGROUP_EGRESS)
    }

    /// Nothing reaches its sockets.
    #[track_caller]
    pub fn denies_ingress(&self) -> Attached {
        denies(&self.path, &CGROUP_INGRESS)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[track_caller]
fn denies(cgroup: &Path, which: &Attach) -> Attached {
    let directory = std::fs::File::open(cgroup).expect("our own group");
    attach(&returns(0), which, directory.as_raw_fd() as u32)
}

/// A filter on this socket that lets nothing through (`ret #0`): a listener receives no SYN, a connecting socket no
/// answer.
#[track_caller]
pub fn drop_all_received(socket: &impl AsRawFd) {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const [u8; 8],
    }
    let instructions = [[6, 0, 0, 0, 0, 0, 0, 0]];
    let program = Program { length: 1, instructions: instructions.as_ptr() };
    let size = size_of::<Program>();
    set_option(socket, SOL_SOCKET, SO_ATTACH_FILTER, (&raw const program).cast(), size);
}

/// What comes from this address must be signed (RFC 2385), so that what is not is dropped.
#[track_caller]
pub fn requires_signatures(socket: &impl AsRawFd, of: Ipv4Addr) {
    const KEY: &[u8] = b"secret";
    // struct tcp_md5sig: an address, the key's length, and the key.
    let mut signature = [0_u8; 216];
    signature[0..2].copy_from_slice(&AF_INET.to_ne_bytes());
    signature[4..8].copy_from_slice(&of.octets());
    signature[130..132].copy_from_slice(&(KEY.len() as u16).to_ne_bytes());
    signature[136..136 + KEY.len()].copy_from_slice(KEY);
    set_option(socket, IPPROTO_TCP, TCP_MD5SIG, signature.as_ptr(), signature.len());
}

#[track_caller]
fn set_option(socket: &impl AsRawFd, level: usize, name: usize, value: *const u8, size: usize) {
    // SAFETY: the value, and what it points to, outlive the call.
    let set = unsafe { syscall!(Sysno::setsockopt, socket.as_raw_fd(), level, name, value, size) };
    set.unwrap_or_else(|error| panic!("setsockopt({level}, {name}): {error}"));
}
