//! Two hosts on a wire, in network namespaces that carry this process's id: two soaks at once do not meet.
//! The near one has the load, the far one the addresses it goes to; a firewall on the near one drops what
//! goes to some ports.

use std::{ops::RangeInclusive, process::Command};

use anyhow::Result;

use crate::{cmd, demo::lab::Lab};

/// For documentation (RFC 5737): inside the namespaces they lead nowhere else.
const NEAR: &str = "203.0.113.1";
pub(super) const FAR: &str = "203.0.113.2";
/// More addresses of the far host, in the same network.
pub(super) const NEIGHBOURS: RangeInclusive<u8> = 16..=31;
/// What goes to these and later ports is dropped.
pub(super) const DROPPED: u16 = 20_000;

/// Removed when dropped.
pub(super) struct Network {
    /// The namespace of the load.
    pub(super) near: String,
    _lab: Lab,
}

impl Network {
    pub(super) fn build() -> Result<Self> {
        let mut lab = Lab::named(&format!("culprit-soak-{}-", std::process::id()))?;
        let (near, far) = (lab.host("near")?, lab.host("far")?);
        lab.wire((&near, &format!("{NEAR}/24")), (&far, &format!("{FAR}/24")))?;
        for last in NEIGHBOURS {
            lab.ip(&far, &format!("addr add {}/32 dev eth0", neighbour(last)))?;
        }
        let rules = format!(
            "table inet soak {{ chain out {{ type filter hook output priority 0; ip daddr {FAR} tcp dport >= {DROPPED} drop; }}; }}\n"
        );
        let mut nft: Command = Lab::inside(&near, "nft");
        cmd::run(nft.arg("-f").arg(lab.file("soak.nft", &rules)?))?;
        Ok(Self { near, _lab: lab })
    }
}

/// An address of the far host.
pub(super) fn neighbour(last: u8) -> String {
    format!("203.0.113.{last}")
}
