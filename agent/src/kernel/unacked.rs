//! Connections whose data is not acknowledged, as the kernel's programs noted them: has their sockets looked at again, four
//! times a second, and writes a record of each that has been so long enough, at each timeout from then on, and when it is
//! over. Whose they are, where that is not known, a walk over all open files says.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::{maps::Array, programs::RawTracePoint};
use bytes::Bytes;
use ebpf_probes::{
    abi::{Header, Kind},
    probes::connect::{LOOK_UNACKED, UNACKED_MAP, Unacked, UnackedRecord},
    spec::OWNERS_ONLY_MAP,
};

use super::{
    adopt, generation,
    load::{Error, Kernel},
};
use crate::{records::encode, time::SECOND_NS};

/// Data that was sent again so often, and is that old, is reported; or that is older.
const TIMEOUTS: u32 = 3;
const LEAST_NS: u64 = SECOND_NS;
const OLD_NS: u64 = 3 * SECOND_NS;
/// How often all open files are walked over to find out whose a connection is.
const WALK_EVERY_NS: u64 = 2 * SECOND_NS;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(Unacked);
// SAFETY: `#[repr(C)]` integers and byte arrays.
unsafe impl aya::Pod for Value {}

/// What was reported of them.
#[derive(Default)]
pub(super) struct Watch {
    program: Program,
    reported: HashMap<u64, Reported>,
    walked_ns: u64,
    /// Connections that no task has: of the kernel itself, or out of reach.
    ownerless: HashMap<u64, u64>,
}

/// The program that looks at a socket.
#[derive(Default)]
enum Program {
    #[default]
    NotLoaded,
    Loaded(OwnedFd),
    Refused,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
struct Reported {
    since_ns: u64,
    timeouts: u32,
    reported: bool,
    evidence: u32,
}

impl Watch {
    /// Looks at all of them, and writes what is due.
    pub(super) fn sweep(
        &mut self,
        kernel: &mut Kernel,
        now_ns: u64,
        to: &mut impl FnMut(Bytes),
    ) -> Result<(), Error> {
        let entries = kernel.entries::<u64, Value>(UNACKED_MAP)?;
        if entries.is_empty() {
            self.reported.clear();
            self.ownerless.clear();
            return Ok(());
        }
        let mut seen = Vec::with_capacity(entries.len());
        for (socket, Value(noted)) in entries {
            let looked = self.look(kernel, socket);
            let now = kernel.value::<u64, Value>(UNACKED_MAP, &socket)?.map_or(noted, |value| value.0);
            seen.push((socket, now, looked));
        }
        seen.sort_by_key(|(_, unacked, _)| unacked.since_ns);
        self.find_owners(kernel, now_ns, &mut seen)?;
        for (socket, unacked, looked) in seen {
            let known = self.reported.get(&socket).copied().unwrap_or_default();
            // Nothing can be seen of it any more where the program cannot be run.
            let lost = !looked && now_ns.saturating_sub(unacked.again_ns) > 130 * SECOND_NS;
            if unacked.is_over() || unacked.window == 0 || lost {
                kernel.forget::<u64, Value>(UNACKED_MAP, &socket)?;
                self.reported.remove(&socket);
                if known.reported {
                    to(record(Kind::CONNECTION_SETTLED, now_ns, unacked));
                }
                continue;
            }
            let age_ns = now_ns.saturating_sub(unacked.since_ns);
            let due = age_ns >= OLD_NS || (unacked.timeouts >= TIMEOUTS && age_ns >= LEAST_NS);
            let reported = Reported {
                since_ns: unacked.since_ns,
                timeouts: unacked.timeouts,
                reported: true,
                evidence: evidence(&unacked),
            };
            if due && reported != known {
                self.reported.insert(socket, reported);
                to(record(Kind::CONNECTION_UNACKED, now_ns, unacked));
            }
        }
        Ok(())
    }

    fn look(&mut self, kernel: &mut Kernel, socket: u64) -> bool {
        if matches!(self.program, Program::NotLoaded) {
            self.program = match load(kernel) {
                Ok(program) => Program::Loaded(program),
                Err(error) => {
                    tracing::warn!("whether data was acknowledged is not seen: {error}");
                    Program::Refused
                }
            };
        }
        let Program::Loaded(program) = &self.program else { return false };
        generation::run(program, &[socket]).is_ok()
    }

    /// Walks over all open files if it is not known whose some connection is that is reported now.
    fn find_owners(
        &mut self,
        kernel: &mut Kernel,
        now_ns: u64,
        seen: &mut [(u64, Unacked, bool)],
    ) -> Result<(), Error> {
        let there: HashSet<u64> = seen.iter().map(|(socket, ..)| *socket).collect();
        self.ownerless.retain(|socket, _| there.contains(socket));
        let asked = |socket: &u64, since_ns: u64| self.ownerless.get(socket) == Some(&since_ns);
        let unknown: Vec<(u64, u64)> = seen
            .iter()
            .filter(|(socket, unacked, _)| {
                unacked.owner.process == 0 && !unacked.is_over() && !asked(socket, unacked.since_ns)
            })
            .map(|(socket, unacked, _)| (*socket, unacked.since_ns))
            .collect();
        if unknown.is_empty() || now_ns.saturating_sub(self.walked_ns) < WALK_EVERY_NS {
            return Ok(());
        }
        self.walked_ns = now_ns;
        self.ownerless.extend(unknown);
        if let Err(error) = owners_only(kernel).map_err(io::Error::other).and_then(|()| adopt::walk(kernel)) {
            tracing::debug!("whose connections are is not seen: {error}");
            return Ok(());
        }
        for (socket, unacked, _) in seen {
            if let Some(Value(now)) = kernel.value::<u64, Value>(UNACKED_MAP, socket)? {
                *unacked = now;
            }
        }
        Ok(())
    }
}

/// What a report would say that an earlier one did not.
fn evidence(unacked: &Unacked) -> u32 {
    let bits = [
        unacked.sacked > 0,
        unacked.is_heard(),
        unacked.fresh_ns != 0,
        unacked.drops > 0,
        unacked.owner.process != 0,
    ];
    bits.iter().fold(0, |all, bit| all << 1 | u32::from(*bit))
}

fn record(kind: Kind, boot_ns: u64, unacked: Unacked) -> Bytes {
    let header = Header { boot_ns, kind: kind.0, len: size_of::<UnackedRecord>() as u32 };
    encode(UnackedRecord { header, unacked })
}

/// From now on a walk adopts nothing.
fn owners_only(kernel: &mut Kernel) -> Result<(), Error> {
    let error = |source| Error::Map { name: OWNERS_ONLY_MAP, source };
    let Some(map) = kernel.map_mut(OWNERS_ONLY_MAP) else { return Ok(()) };
    Array::<_, u32>::try_from(map).and_then(|mut map| map.set(0, 1, 0)).map_err(error)
}

fn load(kernel: &mut Kernel) -> io::Result<OwnedFd> {
    let program: &mut RawTracePoint = kernel
        .program_mut(LOOK_UNACKED)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| io::Error::other(format!("the kernel object has no program {LOOK_UNACKED}")))?;
    program.load().map_err(io::Error::other)?;
    program.fd().map_err(io::Error::other)?.as_fd().try_clone_to_owned()
}
