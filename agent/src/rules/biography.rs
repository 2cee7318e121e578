//! What the past of a neighbour's entry says of a connect that gets nowhere: who changed the entry and when, and whether
//! what is sent to its MAC arrives. It is a cause where it fits in time and the neighbour is silent since; else it is reported.

use std::net::IpAddr;

use ebpf_probes::{
    abi::{Owner, Tuple},
    probes::connect::Connect,
};

use crate::{
    domains::neighbour::{Biography, Change, Turn, UnicastLost},
    pipeline::{View, incident::Confidence, remedy::Remedy},
    text::{shell::Command, shown},
};

use super::{
    neighbours::{beside, resolution},
    text,
};

/// A change that long ago is no news.
const PAST_NS: u64 = 120_000_000_000;
/// What began to fail so soon after a change may well fail because of it.
const SOON_NS: u64 = 60_000_000_000;
/// Times that a neighbour hears only what is sent to everybody, before that is no chance.
const TIMES: u32 = 2;

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing comes back.
    Silent,
    /// It is refused, by the host that has the address now.
    Refused,
    /// Something else explains it.
    Other,
}

/// What became of the entry of the neighbour a connect goes by, shortly before it began or while it lasts.
pub(super) struct Past {
    /// When and what, for the evidence.
    pub(super) seen: Vec<(u64, String)>,
    /// What that means.
    pub(super) why: Vec<String>,
    /// What to do.
    pub(super) remedies: Vec<Remedy>,
    /// How sure it is that this is the cause; `None`: it is no proof.
    pub(super) blamed: Option<Confidence>,
}

impl Past {
    /// Reports it: first what is a cause, last what is not.
    pub(super) fn reported(
        self,
        why: &mut Vec<String>,
        remedies: &mut Vec<Remedy>,
        evidence: &mut Vec<(u64, String)>,
    ) {
        if self.blamed.is_some_and(|confidence| confidence > Confidence::Possible) {
            why.splice(0..0, self.why);
            remedies.splice(0..0, self.remedies);
        } else {
            why.extend(self.why);
            remedies.extend(self.remedies);
        }
        evidence.extend(self.seen);
        evidence.sort_by_key(|(at, _)| *at);
    }
}

/// See [`Past`]; `began_ns`: when it first went wrong.
pub(super) fn past(connect: &Connect, began_ns: u64, fate: Fate, view: &View<'_>) -> Option<Past> {
    let (address, biography) = view.world.biography(connect, view.now_ns)?;
    let account = Account { connect, began_ns, fate, address, biography, view };
    let mut past = Past { seen: vec![], why: vec![], remedies: vec![], blamed: None };
    if let Some(lost) = &biography.unicast {
        account.lost(lost, &mut past);
    }
    if let Some(change) = &biography.change {
        account.changed(change, &mut past);
    }
    (!past.seen.is_empty()).then_some(past)
}

/// The same of a connection by its ends.
pub(super) fn past_of(
    (cookie, tuple, owner): (u64, &Tuple, &Owner),
    began_ns: u64,
    fate: Fate,
    view: &View<'_>,
) -> Option<Past> {
    let connect =
        Connect { cookie, tuple: *tuple, owner: *owner, started_ns: began_ns, ..Connect::default() };
    past(&connect, began_ns, fate, view)
}

struct Account<'a> {
    connect: &'a Connect,
    began_ns: u64,
    fate: Fate,
    address: IpAddr,
    biography: &'a Biography,
    view: &'a View<'a>,
}

impl Account<'_> {
    /// It answers what is sent to everybody, at the same MAC, and never what is sent to that.
    fn lost(&self, lost: &UnicastLost, past: &mut Past) {
        let is_news =
            lost.last_ns.saturating_add(PAST_NS) >= self.began_ns && lost.last_ns <= self.view.now_ns;
        if self.fate != Fate::Silent || !is_news {
            return;
        }
        let (how, mac) = (resolution(self.address), &lost.mac);
        let (device, address) = (shown(&self.biography.device), self.address);
        past.seen.push((
            lost.last_ns,
            format!(
                "{address} on {device} answers {how} sent to everybody at {mac}, after it answered none sent to that MAC, {} so far",
                text::times(lost.times.into())
            ),
        ));
        let span = lost.last_ns.saturating_sub(lost.first_ns);
        let within = if lost.times > 1 { format!(" within {}", text::duration(span)) } else { String::new() };
        past.why.push(format!(
            "{address} answers no {how} question that is sent to its MAC {mac}, and one that is sent to everybody at once and at the same MAC, {}{within}: frames to {mac} alone are lost on the way, as where a switch has it at a wrong port. What makes the neighbour send something (traceroute, a new {how} question) seems to cure it, for a while.",
            text::times(lost.times.into())
        ));
        past.remedies.push(Remedy::from(format!(
            "look on the switches between this host and {address} at which port {mac} is (mac address-table, bridge fdb show), and clear that entry"
        )));
        if lost.times >= TIMES {
            past.blamed = Some(Confidence::Likely);
        }
    }

    fn changed(&self, change: &Change, past: &mut Past) {
        let (at, view, began_ns) = (change.at_ns, self.view, self.began_ns);
        if at.saturating_add(PAST_NS) < began_ns || at > view.now_ns {
            return;
        }
        let (address, device) = (self.address, &self.biography.device);
        let by = match view.world.known.named(&change.owner) {
            Some(who) => format!(" by {}", text::process(&who)),
            None => " by a packet".to_owned(),
        };
        let when = if at <= began_ns {
            format!("{} before", text::duration(began_ns - at))
        } else {
            format!("{} after it began", text::duration(at - began_ns))
        };
        let soon = at <= began_ns && began_ns - at <= SOON_NS;
        let entry = format!("the entry of {address} on {}", shown(device));
        let (seen, why, blamed) = match &change.what {
            Turn::Moved { from, to } => {
                let now = match self.fate {
                    Fate::Silent => format!("does {to} have the address and serve it?"),
                    Fate::Refused => format!("{to} has the address by now, and does not serve it."),
                    Fate::Other => format!("does {to} have the address?"),
                };
                let blamed = match self.fate {
                    Fate::Silent => Some(Confidence::Likely),
                    Fate::Refused => Some(Confidence::Possible),
                    Fate::Other => None,
                };
                (
                    format!("{entry} moved from {from} to {to}{by}"),
                    format!("{entry} moved from {from} to {to} {when}{by}: {now}"),
                    blamed.filter(|_| soon),
                )
            }
            Turn::SetPermanent { to } => (
                format!("{entry} was set PERMANENT at {to}{by}"),
                match self.fate {
                    Fate::Silent => format!(
                        "{entry} was set PERMANENT at {to} {when}{by}, and no answer comes from there: is that still its MAC? It is never asked for again."
                    ),
                    _ => format!("{entry} was set PERMANENT at {to} {when}{by}: is that still its MAC?"),
                },
                (self.fate == Fate::Silent && soon).then_some(Confidence::Likely),
            ),
            Turn::Removed { from } => (
                format!("{entry} was removed{by}; it was at {from}"),
                format!("{entry}, at {from}, was removed {when}{by}."),
                None,
            ),
        };
        let ask = Command::new("ip").words("neigh del").arg(address).arg("dev").arg(device);
        past.why.push(format!("{}{}", why[..1].to_uppercase(), &why[1..]));
        past.remedies.push(Remedy::from("have the neighbour asked for again: ").and(beside(
            self.connect,
            view.world,
            ask,
        )));
        past.seen.push((at, seen));
        past.blamed = past.blamed.max(blamed);
    }
}
