//! What was under way before culprit started: adopted once, at the start.

use ebpf_probes::abi::ProbeId;

use super::source::{Kind, Source};
use crate::{
    kernel::{adopt, load::Kernel},
    known::context::Context,
    sockdiag,
};

/// What was under way, among the sources.
pub(super) const KIND: Kind = Kind {
    open: |spec, _| {
        let wanted = super::wants(spec, ProbeId::CONNECT) || super::wants(spec, ProbeId::TLS);
        Ok(wanted.then(|| Box::new(UnderWay) as Box<dyn Source>))
    },
};

struct UnderWay;

impl Source for UnderWay {
    /// Has the kernel adopt it, and once more what had no cookie before. What cannot be adopted is missed, and nothing
    /// else: it is no reason not to start.
    fn at_start(&mut self, kernel: &mut Kernel) -> anyhow::Result<Vec<Context>> {
        let adopted = adopt::walk(kernel).and_then(|walked| {
            if !walked {
                return Ok(());
            }
            let lacking = adopt::lacking(kernel).map_err(std::io::Error::other)?;
            if sockdiag::draw_cookies(lacking)? > 0 {
                adopt::walk(kernel)?;
            }
            Ok(())
        });
        if let Err(error) = adopted {
            tracing::warn!(
                "connects and handshakes that were under way before the start are not seen: {error}"
            );
        }
        Ok(vec![])
    }
}
