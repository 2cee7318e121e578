//! A certificate that is refused for its dates by a process of this host that lives in another time than the host does:
//! libfaketime is preloaded into it. Other processes of the same service that live in the host's show that it is not why.

use ebpf_probes::{
    abi::{Netns, Owner},
    probes::tls::Handshake,
};

use super::{
    alerts,
    ending::{Ending, How, role},
    failing::Failing,
};
use crate::{
    domains::tls::Role,
    known::{
        bounded::{Bounded, Table},
        context::FakedTime,
    },
    pipeline::{
        View,
        incident::{Confidence, TlsFailure},
        remedy::Remedy,
    },
    records,
    text::{duration::off, shell::Command, shown},
    time::SECOND_NS,
};

/// Ends of handshakes that failed, remembered at most: the other end may be on this host, too.
const ENDS: usize = 1024;

/// Which ends of handshakes that failed are whose.
pub(super) struct LocalEnds(Bounded<End, u32>);

/// An address and a port, and of which network namespace where the address is each one's own.
type End = ([u8; 16], u16, Netns);

fn end(address: [u8; 16], port: u16, owner: &Owner) -> End {
    let own = records::address(address).to_canonical().is_loopback();
    (address, port, if own { owner.netns } else { Netns::default() })
}

impl Default for LocalEnds {
    fn default() -> Self {
        Self(Bounded::new(ENDS))
    }
}

impl LocalEnds {
    pub(super) fn table(&self) -> Table {
        self.0.table("tls_failing_ends")
    }

    /// The process that ended a handshake which `owner` took part in, if that is one of this host.
    pub(super) fn judge(&mut self, ending: &Ending, hs: &Handshake, owner: &Owner) -> Option<u32> {
        let tuple = &hs.tuple;
        self.0.insert(end(tuple.local, tuple.local_port, owner), owner.process);
        if ending.by == role(hs) {
            return Some(owner.process);
        }
        self.0.get(&end(tuple.remote, tuple.remote_port, owner)).copied()
    }
}

/// The other time by which a process has judged a certificate, if that is away in a direction that fits.
pub(super) struct Faked<'a> {
    process: u32,
    pub(super) time: &'a FakedTime,
    pub(super) confidence: Confidence,
}

pub(super) fn of(failing: &Failing) -> Option<Faked<'_>> {
    let judges = matches!(failing.failure, TlsFailure::ServerFlightRefused | TlsFailure::ClientFlightRefused);
    let (process, time) = failing.times.another.as_ref()?;
    if !judges || failing.times.hosts {
        return None;
    }
    let is_off = time.ahead_s.is_none_or(|ahead| ahead.unsigned_abs() >= 60);
    let confidence = match failing.most() {
        How::Alert(alerts::CERTIFICATE_EXPIRED) if is_off => match time.ahead_s {
            Some(ahead) if ahead >= 3600 => Confidence::Likely,
            Some(ahead) if ahead < 0 => return None,
            _ => Confidence::Possible,
        },
        // OpenSSL says so of one that is not valid yet.
        How::Alert(alerts::BAD_CERTIFICATE) if is_off && time.ahead_s.is_some_and(|ahead| ahead <= -3600) => {
            Confidence::Likely
        }
        How::Alert(alerts::BAD_CERTIFICATE | alerts::CERTIFICATE_UNKNOWN) | How::Encrypted if is_off => {
            Confidence::Possible
        }
        _ => return None,
    };
    Some(Faked { process: *process, time, confidence })
}

impl Faked<'_> {
    pub(super) fn why(&self, failing: &Failing) -> String {
        let who = match failing.by {
            Role::Client => "The client",
            Role::Server => "The server",
        };
        let setting = match self.time.setting.as_str() {
            "" => "a setting in a file".to_owned(),
            setting => format!("FAKETIME={}", shown(setting)),
        };
        let far = self.time.ahead_s.map(|ahead| {
            let ahead_ns = ahead.saturating_mul(SECOND_NS.cast_signed());
            format!(": {}", off(ahead_ns))
        });
        format!(
            "{who} lives in another time than this host: libfaketime is preloaded into it, with {setting}{}. By the host's \
             clock the dates of the certificate may hold.",
            far.unwrap_or_default()
        )
    }

    pub(super) fn remedies(&self, view: &View<'_>) -> Vec<Remedy> {
        let context = view.world.known.of_process(self.process);
        let program = context.map_or("the program".into(), |context| shown(&context.comm));
        vec![
            format!(
                "start {program} without libfaketime: take LD_PRELOAD and FAKETIME out of its environment (unit, image or pod)"
            )
            .into(),
            Remedy::from("see who set them: ").and(
                Command::new("grep").arg("-zaE")
                    .arg("^(LD_PRELOAD|FAKETIME)").arg(format!("/proc/{}/environ", self.process)),
            ),
        ]
    }
}
