//! What to do about what is in the way of a handshake, with the real values.

use super::{
    obstacle::{Obstacle, What},
    obstacle_words::named,
    say::Says,
};
use crate::{
    known::context::{Family, LocalObject, LocalWait, SeenMount, SeenProcess},
    pipeline::remedy::Remedy,
    rules::resolvers,
    text::{shell::Command, shown},
};

/// A limit on descriptors above which none is proposed.
const DESCRIPTORS: u64 = 1 << 20;

impl Says<'_> {
    pub(super) fn obstacle_remedies(&self, obstacle: &Obstacle<'_>, pid: u32) -> Vec<Remedy> {
        let limits = self.snapshot().map(|seen| &seen.limits);
        match &obstacle.what {
            What::Waits(_, wait) => waiting(wait),
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

/// About a process, a pipe or a file system that does not answer.
fn waiting(wait: &LocalWait) -> Vec<Remedy> {
    let mut remedies: Vec<Remedy> = wait.ends.iter().take(2).map(process).collect();
    match &wait.what {
        LocalObject::UnixSocket { path } => {
            if wait.ends.is_empty() {
                let place = path.as_ref().map(|path| format!(" {}", shown(path))).unwrap_or_default();
                remedies.push(
                    Remedy::from(format!("see which process is behind the socket{place}: "))
                        .and(Command::new("ss").arg("-xap")),
                );
            }
            if wait.sends {
                remedies.push("log without waiting: to a file, or to a syslog server over UDP".into());
            }
        }
        LocalObject::Pipe if wait.sends => {
            remedies.push("see that what it writes is read, or write it to a file".into());
        }
        LocalObject::Pipe => {}
        LocalObject::FileSystem(mount) => remedies.extend(mounted(mount, wait.ends.is_empty())),
    }
    remedies
}

/// About a process at the other end.
fn process(end: &SeenProcess) -> Remedy {
    if end.is_stopped() {
        return Remedy::from(format!("once it is clear who stopped {}: ", named(end)))
            .and(Command::new("kill").arg("-CONT").arg(end.pid));
    }
    Remedy::from(format!("see what {} does: ", named(end)))
        .and(Command::new("ps").words("-L -o tid,stat,wchan:32,comm -p").arg(end.pid))
}

fn mounted(mount: &SeenMount, unserved: bool) -> Vec<Remedy> {
    let mut remedies = Vec::new();
    let server = mount.source.as_deref().and_then(|source| source.split_once(":/")).map(|(host, _)| host);
    match (mount.family, server) {
        (Family::Nfs, Some(server)) => remedies.push(
            Remedy::from(format!("see whether the NFS server {} answers: ", shown(server)))
                .and(Command::new("rpcinfo").arg("-t").arg(server).arg("nfs")),
        ),
        (Family::Fuse, _) if unserved => remedies.push(
            Remedy::from("see which process serves it: ")
                .and(Command::new("fuser").arg("-v").arg("/dev/fuse")),
        ),
        _ => {}
    }
    remedies.push("keep what a handshake reads (certificates, keys) on a local disk".into());
    if let Some(point) = &mount.point {
        remedies.push(
            Remedy::from("or detach it, once nothing needs it: ")
                .and(Command::new("umount").arg("-l").arg("--").arg(point)),
        );
    }
    remedies
}
