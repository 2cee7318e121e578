//! What to do about what is in the way of a handshake, with the real values.

use super::{
    obstacle::{Obstacle, What},
    say::Says,
};
use crate::{
    known::context::{LocalObject, LocalWait},
    pipeline::{local_waits::remedies, remedy::Remedy},
    rules::resolvers,
    text::{shell::Command, shown},
};

/// A limit on descriptors above which none is proposed.
const DESCRIPTORS: u64 = 1 << 20;

impl Says<'_> {
    pub(super) fn obstacle_remedies(&self, obstacle: &Obstacle<'_>, pid: u32) -> Vec<Remedy> {
        let limits = self.snapshot().map(|seen| &seen.limits);
        match &obstacle.what {
            What::Waits(_, LocalWait { what: LocalObject::DnsServer { server }, .. }) => {
                resolvers::answers(server.ip(), &self.hs.owner, self.view.world)
            }
            What::Waits(_, wait) => remedies(wait, "keep what a handshake reads (certificates, keys) on a local disk"),
            What::SilentClient(_, socket) => vec![
                "bound the time of a handshake, and do it outside the loop that accepts (Python: \
                 do_handshake_on_connect=False, then in the thread that serves the client)"
                    .into(),
                Remedy::from(format!("see that connection (descriptor {} of {pid}): ", socket.fd)).and(
                    resolvers::there(
                        &self.hs.owner,
                        Command::new("ss").arg("-tnoi").arg(format!(
                            "dst {} dport = :{}",
                            socket.remote.ip(),
                            socket.remote.port()
                        )),
                        self.view.world,
                    ),
                ),
            ],
            What::Frozen => {
                let thaw = limits.and_then(|limits| limits.frozen_group.as_ref()).map(|group| {
                    format!(" (0 into cgroup.freeze, or THAWED into freezer.state, of {})", shown(group))
                });
                vec![
                    Remedy::from(format!(
                        "see who froze the control group, and thaw it: docker unpause, systemctl thaw{}: ",
                        thaw.unwrap_or_default()
                    ))
                    .and(groups(pid)),
                ]
            }
            What::Throttled(slowed) => {
                let group = limits.and_then(|limits| limits.quota_group.as_ref());
                let of = group.map(|group| format!(" of {}", shown(group))).unwrap_or_default();
                vec![
                    Remedy::from(format!(
                        "raise the CPU quota of its control group, now {} µs in each {} µs (cpu.max or \
                         cpu.cfs_quota_us{of}; CPUQuota= of the unit, resources.limits.cpu of the pod): ",
                        slowed.quota.allowed_us, slowed.quota.period_us
                    ))
                    .and(groups(pid)),
                ]
            }
            What::Memory(memory) => vec![
                Remedy::from(format!(
                    "raise memory.high of {} (MemoryHigh= of the unit), or see what uses its memory: ",
                    shown(&memory.group)
                ))
                .and(Command::new("cat").arg(format!("{}/memory.stat", memory.group))),
            ],
            What::Descriptors(used) => {
                let more = used.limit.saturating_mul(4).min(used.hard).min(DESCRIPTORS);
                let mut remedies = Vec::new();
                if more > used.limit {
                    remedies.push(
                        Remedy::from(format!(
                            "raise its limit on open files, now {} (LimitNOFILE= of its unit); until it is started \
                             again: ",
                            used.limit
                        ))
                        .and(Command::new("prlimit").arg("--pid").arg(pid).arg(format!("--nofile={more}:{}", used.hard))),
                    );
                } else {
                    remedies.push(
                        format!("raise its limit on open files, now {} (LimitNOFILE= of its unit)", used.limit)
                            .into(),
                    );
                }
                remedies.push(
                    Remedy::from("see what it holds open: ")
                        .and(Command::new("ls").arg("-l").arg(format!("/proc/{pid}/fd"))),
                );
                remedies
            }
            What::NotAccepting(_) => vec![
                "raise its limit on connections (haproxy: maxconn; nginx: worker_connections), or see why its \
                 listener is paused"
                    .into(),
            ],
        }
    }
}

fn groups(pid: u32) -> Command {
    Command::new("cat").arg(format!("/proc/{pid}/cgroup"))
}
