//! Lookups that ended late or with SERVFAIL, or that no process waits for any more: how many were there of one program at
//! one server within a minute? A program that asks for strangers' names is answered so now and then and is healthy:
//! whether these are too many is decided once the good answers are known, too.

use super::lookup::{Bad, subject};
use crate::{
    domains::dns::Heard,
    known::bounded::{Bounded, Table},
    pipeline::world::World,
};

/// Endings within this long of each other belong together.
pub(super) const WINDOW_NS: u64 = 60_000_000_000;
/// As many of them open an incident.
const BAD: usize = 3;
/// The same name again within this long is the same lookup: a resolver asks for A and AAAA, and asks again at once.
const AGAIN_NS: u64 = 1_000_000_000;
/// Answers that the kernel holds back are here after this long.
const ANSWERS_NS: u64 = 1_500_000_000;
/// Programs and servers followed at most.
const SUBJECTS: usize = 256;
/// Endings remembered of each at most.
const REMEMBERED: usize = 64;

/// Late and failed lookups, by subject.
pub(super) struct Failing(Bounded<String, Endings>);

/// Those of one program at one server.
#[derive(Debug, Default)]
struct Endings {
    bad: Vec<Bad>,
    /// When it is decided whether they are too many.
    judge_at_ns: Option<u64>,
}

impl Default for Failing {
    fn default() -> Self {
        Self(Bounded::new(SUBJECTS))
    }
}

impl Failing {
    pub(super) fn table(&self) -> Table {
        self.0.table("dns_unanswered_failing")
    }

    /// A lookup ended badly; `true`: there may be too many, which the answers to others decide.
    pub(super) fn add(&mut self, bad: Bad, now_ns: u64, world: &World) -> bool {
        let subject = subject(&bad.op, world);
        if self.0.get(&subject).is_none() {
            self.0.insert(subject.clone(), Endings::default());
        }
        let Some(known) = self.0.get_mut(&subject) else { return false };
        known.bad.retain(|before| bad.at_ns.saturating_sub(before.at_ns) < WINDOW_NS);
        let again = |before: &Bad| {
            (bad.followed || before.op.name.text.eq_ignore_ascii_case(&bad.op.name.text))
                && bad.at_ns.saturating_sub(before.at_ns) < AGAIN_NS
        };
        if known.bad.iter().any(again) {
            return false;
        }
        if known.bad.len() >= REMEMBERED {
            known.bad.remove(0);
        }
        known.bad.push(bad);
        let many = known.bad.len() >= BAD && known.judge_at_ns.is_none();
        if many {
            known.judge_at_ns = Some(now_ns.saturating_add(ANSWERS_NS));
        }
        many
    }

    /// Whether lookups about a subject have ended badly often enough, lately.
    pub(super) fn is_many(&self, subject: &str, now_ns: u64) -> bool {
        self.0.get(&subject.to_owned()).is_some_and(|known| {
            known.bad.iter().filter(|bad| now_ns.saturating_sub(bad.at_ns) < WINDOW_NS).count() >= BAD
        })
    }

    /// Those that are too many, now that the answers are known.
    pub(super) fn due(&mut self, now_ns: u64, world: &World) -> Vec<Vec<Bad>> {
        let mut found = Vec::new();
        for (_, known) in self.0.iter_mut() {
            if known.judge_at_ns.is_none_or(|at| at > now_ns) {
                continue;
            }
            known.judge_at_ns = None;
            known.bad.retain(|bad| now_ns.saturating_sub(bad.at_ns) < WINDOW_NS);
            if known.bad.len() >= BAD && known.bad.len() >= good(&known.bad, world) {
                found.push(known.bad.clone());
            }
        }
        found.sort_by_key(|bad| bad.first().map(|first| (first.at_ns, first.op.cookie, first.op.id)));
        found
    }
}

/// Answers to other questions of the same process, by the same server, in the same time.
fn good(bad: &[Bad], world: &World) -> usize {
    let (Some(first), Some(last)) = (bad.first(), bad.last()) else { return 0 };
    let since_ns = first.at_ns.min(first.op.started_ns);
    let is_good = |heard: &&Heard| {
        heard.at_ns >= since_ns
            && heard.server == last.op.server
            && heard.owner.process == last.op.owner.process
            && heard.verdict.is_answer()
            && !bad.iter().any(|bad| bad.op.name.text.eq_ignore_ascii_case(&heard.name))
    };
    world.answers().iter().filter(is_good).count()
}
