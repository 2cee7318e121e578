//! Every field of a kernel structure that a program reads, once: its path for the agent, which
//! finds the offset in the running kernel's BTF, and its reader for the programs.
//!
//! No offset is compiled in. A field the agent has not filled in sits at [`NO_OFFSET`], where the
//! verifier refuses a direct load.

/// A field of a kernel structure, found in the running kernel's BTF when the program is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The `.rodata` global that receives its offset, in bytes.
    pub global: &'static str,
    /// Where it is: `struct.member.member`.
    pub path: &'static str,
    /// Its size in bytes; 0 accepts any (flexible arrays).
    pub size: u32,
}

/// Two lists of fields as one.
pub const fn joined<const N: usize>(one: &[Field], two: &[Field]) -> [Field; N] {
    let mut all = [one[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < one.len() { one[at] } else { two[at - one.len()] };
        at += 1;
    }
    all
}

/// The value of an offset the agent has not filled in: reading through it is refused by the verifier.
pub const NO_OFFSET: u32 = u32::MAX;

macro_rules! kernel_fields {
    ($($name:ident: $ty:ty [$size:literal] = $path:literal;)+) => { $(
        #[doc = concat!("`", $path, "`")]
        pub const $name: Field = Field { global: stringify!($name), path: $path, size: $size };

        #[doc = concat!("Reads `", $path, "`.")]
        #[cfg(any(target_arch = "bpf", feature = "lint"))]
        #[expect(non_snake_case, reason = "named after the global that holds the offset")]
        pub mod $name {
            #[unsafe(no_mangle)]
            static $name: aya_ebpf::Global<u32> = aya_ebpf::Global::new(super::NO_OFFSET);

            /// A direct load through a pointer whose type the verifier knows: it checks offset and
            /// size, and the load cannot fault.
            ///
            /// # Safety
            /// `base` must come from a BTF-typed tracepoint argument or such a load.
            #[inline(always)]
            pub unsafe fn read(base: *const u8) -> $ty {
                // SAFETY: checked by the verifier; see above.
                unsafe { core::ptr::read_volatile(base.add($name.load() as usize).cast()) }
            }

            /// The field's address, for a helper that may fault safely.
            #[inline(always)]
            pub fn address(base: *const u8) -> *const $ty {
                base.wrapping_add($name.load() as usize).cast()
            }
        }
    )+ };
}

kernel_fields! {
    SK_DADDR: u32 [4] = "sock.__sk_common.skc_daddr";
    SK_RCV_SADDR: u32 [4] = "sock.__sk_common.skc_rcv_saddr";
    SK_DPORT: u16 [2] = "sock.__sk_common.skc_dport";
    SK_NUM: u16 [2] = "sock.__sk_common.skc_num";
    SK_FAMILY: u16 [2] = "sock.__sk_common.skc_family";
    SK_STATE: u8 [1] = "sock.__sk_common.skc_state";
    SK_NET: *const u8 [8] = "sock.__sk_common.skc_net.net";
    SK_V6_DADDR: [u64; 2] [16] = "sock.__sk_common.skc_v6_daddr";
    SK_V6_RCV_SADDR: [u64; 2] [16] = "sock.__sk_common.skc_v6_rcv_saddr";
    SK_COOKIE: u64 [8] = "sock.__sk_common.skc_cookie";
    SK_BOUND_IF: i32 [4] = "sock.__sk_common.skc_bound_dev_if";
    SK_ERR: i32 [4] = "sock.sk_err";
    SK_ERR_SOFT: i32 [4] = "sock.sk_err_soft";
    INET_SPORT: u16 [2] = "inet_sock.inet_sport";
    SK_DST_CACHE: *const u8 [8] = "sock.sk_dst_cache";
    DST_DEV: *const u8 [8] = "dst_entry.dev";
    SK_SOCKET: *const u8 [8] = "sock.sk_socket";
    ICSK_RTO: u32 [4] = "inet_connection_sock.icsk_rto";
    ICSK_BACKOFF: u8 [1] = "inet_connection_sock.icsk_backoff";
    ICSK_PATH_MTU: u32 [4] = "inet_connection_sock.icsk_pmtu_cookie";
    ICSK_RETRANSMITS: u8 [1] = "inet_connection_sock.icsk_retransmits";
    ICSK_RECEIVED: u32 [4] = "inet_connection_sock.icsk_ack.lrcvtime";
    ICSK_ACCEPT_HEAD: *const u8 [8] = "inet_connection_sock.icsk_accept_queue.rskq_accept_head";
    REQ_SK: *const u8 [8] = "request_sock.sk";
    REQ_NEXT: *const u8 [8] = "request_sock.dl_next";
    REQ_DADDR: u32 [4] = "request_sock.__req_common.skc_daddr";
    REQ_RCV_SADDR: u32 [4] = "request_sock.__req_common.skc_rcv_saddr";
    REQ_DPORT: u16 [2] = "request_sock.__req_common.skc_dport";
    REQ_NUM: u16 [2] = "request_sock.__req_common.skc_num";
    REQ_RETRANSMITS: u8 [1] = "request_sock.num_retrans";
    REQ_FAMILY: u16 [2] = "request_sock.__req_common.skc_family";
    REQ_V6_DADDR: [u64; 2] [16] = "request_sock.__req_common.skc_v6_daddr";
    REQ_V6_RCV_SADDR: [u64; 2] [16] = "request_sock.__req_common.skc_v6_rcv_saddr";
    TCP_RCV_NXT: u32 [4] = "tcp_sock.rcv_nxt";
    TCP_SND_NXT: u32 [4] = "tcp_sock.snd_nxt";
    TCP_SND_UNA: u32 [4] = "tcp_sock.snd_una";
    TCP_WRITE_SEQ: u32 [4] = "tcp_sock.write_seq";
    TCP_SND_WND: u32 [4] = "tcp_sock.snd_wnd";
    TCP_MSS: u32 [4] = "tcp_sock.mss_cache";
    TCP_PACKETS: u32 [4] = "tcp_sock.packets_out";
    TCP_SACKED: u32 [4] = "tcp_sock.sacked_out";
    TCP_BYTES_ACKED: u64 [8] = "tcp_sock.bytes_acked";
    TCP_HEARD: u32 [4] = "tcp_sock.rcv_tstamp";
    TCP_MSTAMP: u64 [8] = "tcp_sock.tcp_mstamp";
    TCP_COPIED_SEQ: u32 [4] = "tcp_sock.copied_seq";
    TCP_BYTES_RECEIVED: u64 [8] = "tcp_sock.bytes_received";
    TCP_DATA_SENT: u32 [4] = "tcp_sock.data_segs_out";
    TCP_RETRANS_STAMP: u32 [4] = "tcp_sock.retrans_stamp";
    TCP_SACKS: [u32; 8] [32] = "tcp_sock.selective_acks";
    TCP_NUM_SACKS: u8 [1] = "tcp_sock.rx_opt.num_sacks";
    SK_PROTOCOL: u16 [2] = "sock.sk_protocol";
    NET_INUM: u32 [4] = "net.ns.inum";
    NET_COOKIE: u64 [8] = "net.net_cookie";
    NET_HASH_MIX: u32 [4] = "net.hash_mix";
    TASK_TGID: u32 [4] = "task_struct.tgid";
    TASK_PID: u32 [4] = "task_struct.pid";
    TASK_COMM: [u8; 16] [16] = "task_struct.comm";
    TASK_SIGNAL: *const u8 [8] = "task_struct.signal";
    SIGNAL_LIVE: i32 [4] = "signal_struct.live.counter";
    SIGNAL_THREADS: i32 [4] = "signal_struct.nr_threads";
    TASK_LEADER: *const u8 [8] = "task_struct.group_leader";
    TASK_CGROUPS: *const u8 [8] = "task_struct.cgroups";
    CSS_SET_CGROUP: *const u8 [8] = "css_set.dfl_cgrp";
    CGROUP_SELF: u8 [0] = "cgroup.self";
    CGROUP_PARENT: *const u8 [8] = "cgroup.self.parent";
    CGROUP_NODE: *const u8 [8] = "cgroup.kn";
    NODE_ID: u64 [8] = "kernfs_node.id";
    TASK_NSPROXY: *const u8 [8] = "task_struct.nsproxy";
    NSPROXY_NET: *const u8 [8] = "nsproxy.net_ns";
    TASK_REAL_PARENT: *const u8 [8] = "task_struct.real_parent";
    TASK_MM: *const u8 [8] = "task_struct.mm";
    MM_EXE_FILE: *const u8 [8] = "mm_struct.exe_file";
    FILE_DENTRY: *const u8 [8] = "file.f_path.dentry";
    FILE_MNT: *const u8 [8] = "file.f_path.mnt";
    MOUNT_INNER: u8 [0] = "mount.mnt";
    MOUNT_ROOT: *const u8 [8] = "mount.mnt.mnt_root";
    MOUNT_PARENT: *const u8 [8] = "mount.mnt_parent";
    MOUNT_POINT: *const u8 [8] = "mount.mnt_mountpoint";
    DENTRY_PARENT: *const u8 [8] = "dentry.d_parent";
    DENTRY_NAME: *const u8 [8] = "dentry.d_name.name";
    DENTRY_HASHED: *const u8 [8] = "dentry.d_hash.pprev";
    TASK_FILES: *const u8 [8] = "task_struct.files";
    FILES_FDT: *const u8 [8] = "files_struct.fdt";
    FDT_FD: *const u8 [8] = "fdtable.fd";
    FDT_MAX: u32 [4] = "fdtable.max_fds";
    FILE_PRIVATE: *const u8 [8] = "file.private_data";
    FILE_INODE: *const u8 [8] = "file.f_inode";
    INODE_MODE: u16 [2] = "inode.i_mode";
    SOCKET_SK: *const u8 [8] = "socket.sk";
    SKB_LEN: u32 [4] = "sk_buff.len";
    SKB_SK: *const u8 [8] = "sk_buff.sk";
    SKB_NFCT: usize [8] = "sk_buff._nfct";
    CT_TUPLES: u8 [0] = "nf_conn.tuplehash";
    CT_TUPLE: [u8; 40] [40] = "nf_conntrack_tuple_hash.tuple";
    SKB_HEAD: *const u8 [8] = "sk_buff.head";
    SKB_NETWORK_HEADER: u16 [2] = "sk_buff.network_header";
    SKB_MAC_HEADER: u16 [2] = "sk_buff.mac_header";
    SKB_DEV: *const u8 [8] = "sk_buff.dev";
    SKB_IIF: u32 [4] = "sk_buff.skb_iif";
    SKB_REFDST: u64 [8] = "sk_buff._skb_refdst";
    RTABLE_GATEWAY_FAMILY: u8 [1] = "rtable.rt_gw_family";
    RTABLE_GATEWAY: u32 [4] = "rtable.rt_gw4";
    RTABLE_GATEWAY6: [u64; 2] [16] = "rtable.rt_gw6";
    RT6_GATEWAY: [u64; 2] [16] = "rt6_info.rt6i_gateway";
    RTABLE_FLAGS: u32 [4] = "rtable.rt_flags";
    RT6_FLAGS: u32 [4] = "rt6_info.rt6i_flags";
    SK_ACK_BACKLOG: u32 [4] = "sock.sk_ack_backlog";
    SK_MAX_ACK_BACKLOG: u32 [4] = "sock.sk_max_ack_backlog";
    SKB_PROTOCOL: u16 [2] = "sk_buff.protocol";
    NEIGH_TBL: *const u8 [8] = "neighbour.tbl";
    NEIGH_DEV: *const u8 [8] = "neighbour.dev";
    NEIGH_STATE: u8 [1] = "neighbour.nud_state";
    NEIGH_FLAGS: u8 [0] = "neighbour.flags";
    NEIGH_HA: u64 [32] = "neighbour.ha";
    NEIGH_KEY: u8 [0] = "neighbour.primary_key";
    NEIGH_PROBES: u32 [4] = "neighbour.probes.counter";
    NEIGH_QUEUE: *const u8 [0] = "neighbour.arp_queue";
    NEIGH_QUEUED: u32 [4] = "neighbour.arp_queue.qlen";
    NEIGH_TABLE_FAMILY: u32 [4] = "neigh_table.family";
    NEIGH_TABLE_ENTRIES: u32 [4] = "neigh_table.entries.counter";
    NEIGH_TABLE_GC_ENTRIES: u32 [4] = "neigh_table.gc_entries.counter";
    NEIGH_TABLE_GC_THRESH3: u32 [4] = "neigh_table.gc_thresh3";
    DEV_IFINDEX: u32 [4] = "net_device.ifindex";
    DEV_NAME: [u8; 16] [16] = "net_device.name";
    DEV_ADDR_LEN: u8 [1] = "net_device.addr_len";
    DEV_ADDR: *const u8 [8] = "net_device.dev_addr";
    DEV_IP: *const u8 [8] = "net_device.ip_ptr";
    IN_DEVICE_ADDRESSES: *const u8 [8] = "in_device.ifa_list";
    IN_ADDRESS_LOCAL: u32 [4] = "in_ifaddr.ifa_local";
    IN_ADDRESS_NEXT: *const u8 [8] = "in_ifaddr.ifa_next";
    DEV_LINK_OPS: *const u8 [8] = "net_device.rtnl_link_ops";
    LINK_OPS_KIND: *const u8 [8] = "rtnl_link_ops.kind";
    DEV_NET: *const u8 [8] = "net_device.nd_net.net";
}
