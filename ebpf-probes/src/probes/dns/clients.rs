//! Which sockets ask DNS servers, whom, and on whose behalf: noted in process context, where a program asks for port
//! 53. Their packets may leave for another address and another port (Docker's 127.0.0.11, a balancer in a cgroup
//! program), and only the socket shows that they are lookups.

use aya_ebpf::{
    EbpfContext,
    bindings::bpf_sock,
    helpers::{bpf_get_current_task, bpf_probe_read_kernel, generated::bpf_get_socket_cookie},
    macros::map,
    maps::{Array, LruHashMap},
    programs::{SkBuffContext, SockAddrContext},
};

use super::PORT;
use crate::{
    abi::{AF_INET6, IPPROTO_TCP, IPPROTO_UDP, Owner, Tuple, connect::translated},
    bpf::{
        address::{destination, mapped, same_address, unspecified},
        filter,
        netns::current_netns,
        owner::{SOCKETS, current},
        packet::Packet,
        verifier::opaque,
    },
    fields,
};

/// A socket that asks a DNS server.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Asker {
    /// Who asked last, or connected the socket.
    pub(crate) owner: Owner,
    /// The server asked for.
    remote: [u8; 16],
    /// Its port.
    port: u32,
    /// 1: the socket is connected, whichever thread sends.
    connected: u32,
}

/// Sockets that ask, by their cookie.
#[map]
static ASKERS: LruHashMap<u64, Asker> = LruHashMap::with_max_entries(1 << 12, 0);

/// The cookie of the last socket of each slot: nearly all packets are turned away here.
#[map]
static GATE_DNS: Array<u64> = Array::with_max_entries(GATE_SLOTS, 0);
const GATE_SLOTS: u32 = 1 << 13;

/// Local ports (their low byte) of connections whose packets go to another port than the one asked for.
#[map]
static GATE_STREAMS: Array<u64> = Array::with_max_entries(STREAM_SLOTS, 0);
const STREAM_SLOTS: u32 = 1 << 8;

/// `connect()`: `asked` is what the program asked for, where that is known (its port is not 0);
/// other programs may have changed it.
#[inline(always)]
pub(crate) fn connects(ctx: &SockAddrContext, v6: bool, asked: ([u8; 16], u16)) {
    let (remote, port, protocol) = destination(ctx, v6);
    let (remote, port) = if asked.1 == 0 { (remote, port) } else { asked };
    if port == PORT && (protocol == IPPROTO_UDP || protocol == IPPROTO_TCP) {
        asks(ctx, remote, 1);
    }
}

/// A datagram of an unconnected socket.
#[inline(always)]
pub(crate) fn sends(ctx: &SockAddrContext, v6: bool) {
    let (remote, port, _) = destination(ctx, v6);
    if port == PORT {
        asks(ctx, remote, 0);
    }
}

#[inline(always)]
fn asks(ctx: &SockAddrContext, remote: [u8; 16], connected: u32) {
    let owner = current(current_netns());
    if !filter::caller(&owner) {
        return;
    }
    // SAFETY: the context of a cgroup sock_addr program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let asker = Asker { owner, remote, port: u32::from(PORT), connected };
    match ASKERS.get_ptr_mut(&cookie) {
        // SAFETY: a live map value. One torn by another thread of the same socket is refused by its thread.
        Some(known) => unsafe { known.write(asker) },
        None => {
            let _ = ASKERS.insert(&cookie, &asker, 0);
            let _ = SOCKETS.insert(&cookie, &asker.owner, 0);
            if let Some(slot) = GATE_DNS.get_ptr_mut(cookie as u32 & (GATE_SLOTS - 1)) {
                // SAFETY: a live array slot.
                unsafe { *slot = cookie };
            }
        }
    }
}

/// Whether a packet's socket asks a DNS server, whatever ports the packet itself has.
#[inline(always)]
pub(crate) fn of_asker(ctx: &SkBuffContext) -> bool {
    // SAFETY: context loads, the socket's checked for null; a live array slot.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return false;
        }
        if port_of(socket) == PORT {
            return true;
        }
        let cookie = bpf_get_socket_cookie(ctx.as_ptr());
        GATE_DNS.get_ptr(cookie as u32 & (GATE_SLOTS - 1)).is_some_and(|slot| *slot == cookie)
    }
}

/// The remote port of a socket, 0 while it is not connected.
///
/// # Safety
/// `socket` must be a context's, checked for null.
#[inline(always)]
unsafe fn port_of(socket: *mut bpf_sock) -> u16 {
    // SAFETY: before 5.18 the field is one of four bytes, of which the first two are the port; so it can be read
    // everywhere.
    let word = unsafe { (&raw const (*socket).dst_port).cast::<u32>().read_volatile() };
    u16::from_be(word as u16)
}

/// A SYN leaves for another port than the one asked for: its connection is known by its local port from now on.
#[inline(always)]
pub(crate) fn stream_begins(ctx: &SkBuffContext, packet: &Packet) {
    if packet.remote != PORT
        && of_asker(ctx)
        && let Some(slot) = GATE_STREAMS.get_ptr_mut(u32::from(packet.local) & (STREAM_SLOTS - 1))
    {
        // SAFETY: a live array slot; every writer writes the same.
        unsafe { *slot = 1 };
    }
}

/// Whether a TCP segment may belong to such a connection.
#[inline(always)]
pub(crate) fn stream_of_asker(ctx: &SkBuffContext, local: u16) -> bool {
    // SAFETY: a live array slot.
    let open =
        GATE_STREAMS.get_ptr(u32::from(local) & (STREAM_SLOTS - 1)).is_some_and(|slot| unsafe { *slot != 0 });
    open && of_asker(ctx)
}

/// Who asks on a socket: who connected it, or the thread that is sending on it right now.
#[inline(always)]
pub(crate) fn asker(cookie: u64, packet: &Packet) -> Option<*const Asker> {
    let asker = ASKERS.get_ptr(&cookie)?;
    // SAFETY: a live map value; the running task, read by a helper that cannot fault.
    unsafe {
        if (*asker).connected == 0 && !packet.ingress {
            let task = bpf_get_current_task() as *const u8;
            if bpf_probe_read_kernel(fields::TASK_PID::address(task)).unwrap_or(0) != (*asker).owner.thread {
                return None;
            }
        }
    }
    Some(asker)
}

/// Writes the two ends of a message to `to`, with the server that was asked for.
///
/// # Safety
/// `to` must be writable memory the verifier knows.
#[inline(always)]
pub(crate) unsafe fn write_ends(
    ctx: &SkBuffContext,
    packet: &Packet,
    asker: Option<*const Asker>,
    to: *mut Tuple,
) -> Option<()> {
    // SAFETY: as promised by the caller.
    unsafe {
        packet.write_tuple(ctx, to)?;
        if let Some(elsewhere) = elsewhere(ctx, packet, asker) {
            (&raw mut (*to).remote).write(elsewhere.asked.0);
            (&raw mut (*to).remote_port).write(elsewhere.asked.1);
        }
    }
    Some(())
}

/// A question that goes elsewhere than it was asked.
pub(crate) struct Elsewhere {
    /// The server asked for.
    asked: ([u8; 16], u16),
    /// Why, as far as that is known.
    pub(crate) translated: u32,
}

/// Whether a question goes elsewhere than it was asked.
#[inline(always)]
pub(crate) fn elsewhere(
    ctx: &SkBuffContext,
    packet: &Packet,
    asker: Option<*const Asker>,
) -> Option<Elsewhere> {
    if packet.ingress {
        return None;
    }
    // SAFETY: a live map value; context loads, the socket's checked for null.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let target: [u8; 16] =
            if packet.v4 { mapped(ctx.load::<u32>(16).ok()?) } else { ctx.load(24).ok()? };
        let on_wire = (target, packet.remote);
        let connected = (address_of(socket), port_of(socket));
        let (asked, is_connected) = match asker {
            Some(asker) => (((*asker).remote, (*asker).port as u16), (*asker).connected != 0),
            // Connected before it was looked at.
            None if connected.1 == PORT => (connected, true),
            None => return None,
        };
        // Asked for no address in particular, the kernel takes its own loopback.
        if same_end(&asked, &on_wire) || unspecified(&asked.0) {
            return None;
        }
        let mut by = 0;
        if is_connected && !same_end(&asked, &connected) {
            by |= translated::BY_PROGRAM;
        }
        if is_connected && !same_end(&connected, &on_wire) {
            by |= translated::BY_NAT;
        }
        Some(Elsewhere { asked, translated: by })
    }
}

#[inline(always)]
fn same_end(one: &([u8; 16], u16), two: &([u8; 16], u16)) -> bool {
    one.1 == two.1 && same_address(&one.0, &two.0)
}

/// # Safety
/// As for [`port_of`].
#[inline(always)]
unsafe fn address_of(socket: *mut bpf_sock) -> [u8; 16] {
    // SAFETY: loads of the widths the verifier asks for.
    unsafe {
        if (&raw const (*socket).family).read_volatile() == u32::from(AF_INET6) {
            let at = (&raw const (*socket).dst_ip6).cast::<u32>();
            let words = [
                at.read_volatile(),
                at.add(1).read_volatile(),
                at.add(2).read_volatile(),
                at.add(3).read_volatile(),
            ];
            core::mem::transmute::<[u32; 4], [u8; 16]>(words)
        } else {
            // The optimiser must not make one load of the two branches': the verifier wants each at its place.
            mapped(opaque(u64::from((&raw const (*socket).dst_ip4).read_volatile())) as u32)
        }
    }
}
