//! What to do about a wait on this machine: a process, a pipe or a file system that does not answer.

use super::remedy::Remedy;
use crate::{
    known::context::{Family, LocalObject, LocalWait, SeenMount, SeenProcess},
    text::{shell::Command, shown},
};

/// About a process, a pipe or a file system that does not answer; `instead`: what to do so that nothing depends on that
/// file system.
pub fn remedies(wait: &LocalWait, instead: &'static str) -> Vec<Remedy> {
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
        // What to ask it for is known to who knows the lookup.
        LocalObject::DnsServer { .. } => {}
        LocalObject::FileSystem(mount) => remedies.extend(mounted(mount, wait.ends.is_empty(), instead)),
    }
    remedies
}

/// About a process at the other end.
fn process(end: &SeenProcess) -> Remedy {
    if end.is_stopped() {
        return Remedy::from(format!("once it is clear who stopped {}: ", end.called()))
            .and(Command::new("kill").arg("-CONT").arg(end.pid));
    }
    Remedy::from(format!("see what {} does: ", end.called()))
        .and(Command::new("ps").words("-L -o tid,stat,wchan:32,comm -p").arg(end.pid))
}

fn mounted(mount: &SeenMount, unserved: bool, instead: &'static str) -> Vec<Remedy> {
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
    remedies.push(instead.into());
    if let Some(point) = &mount.point {
        remedies.push(
            Remedy::from("or detach it, once nothing needs it: ")
                .and(Command::new("umount").arg("-l").arg("--").arg(point)),
        );
    }
    remedies
}
