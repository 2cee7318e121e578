//! Programs whose trade is the time, known by the name of their main thread, and where each shows whom it follows.
//! Whether such a program is right is not known here: it may follow servers that lie.

use crate::{pipeline::remedy::Remedy, text::shell::Command};

/// What kind of program keeps the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rules) enum Daemon {
    Chrony,
    /// ntpd of ntp.org and NTPsec, or OpenNTPD's: all three have one name.
    Ntpd,
    NtpdRs,
    Timesyncd,
    /// Asks once when it is started.
    OneShot,
    /// Follows a clock of the network card or the hypervisor.
    Ptp,
    VmwareTools,
    VirtualBox,
    QemuAgent,
    /// Sets the wall clock from the hardware clock.
    Hwclock,
}

/// Names as the kernel keeps them: 15 bytes at most.
const DAEMONS: &[(&str, Daemon)] = &[
    ("chronyd", Daemon::Chrony),
    ("chronyc", Daemon::Chrony),
    ("ntpd", Daemon::Ntpd),
    ("ntp-daemon", Daemon::NtpdRs),
    ("openntpd", Daemon::Ntpd),
    ("systemd-timesyn", Daemon::Timesyncd),
    ("ntpdate", Daemon::OneShot),
    ("sntp", Daemon::OneShot),
    ("ntpdig", Daemon::OneShot),
    ("rdate", Daemon::OneShot),
    ("htpdate", Daemon::OneShot),
    ("phc2sys", Daemon::Ptp),
    ("ptp4l", Daemon::Ptp),
    ("ts2phc", Daemon::Ptp),
    ("timemaster", Daemon::Ptp),
    ("vmtoolsd", Daemon::VmwareTools),
    ("VBoxService", Daemon::VirtualBox),
    ("qemu-ga", Daemon::QemuAgent),
    ("hwclock", Daemon::Hwclock),
];

/// Which one a program is, by its name.
pub(in crate::rules) fn daemon(comm: &str) -> Option<Daemon> {
    DAEMONS.iter().find(|(name, _)| *name == comm).map(|(_, daemon)| *daemon)
}

impl Daemon {
    /// How to see whom it follows: what it has done itself it would only do again when asked to set the clock.
    pub(in crate::rules) fn whom_it_follows(self) -> Remedy {
        let servers = Remedy::from("see which servers it follows, and whether they agree: ");
        match self {
            Self::Chrony => servers.and(Command::new("chronyc").words("sources -v")),
            Self::Ntpd => servers
                .and(Command::new("ntpq").words("-pn"))
                .and(" (ntpd, NTPsec), ")
                .and(Command::new("ntpctl").words("-s all"))
                .and(" (OpenNTPD)"),
            Self::NtpdRs => servers.and(Command::new("ntp-ctl").arg("status")),
            Self::Timesyncd => Remedy::from("see which server it follows: ")
                .and(Command::new("timedatectl").arg("timesync-status")),
            Self::OneShot => {
                "see which server it is configured to ask, and whether others agree with that one".into()
            }
            Self::Ptp => Remedy::from("see which grandmaster it follows: ")
                .and(Command::new("pmc").words("-u -b 0").arg("GET TIME_STATUS_NP")),
            Self::VmwareTools => Remedy::from("look at the clock of the host, which it follows: ")
                .and(Command::new("vmware-toolbox-cmd").words("timesync status")),
            Self::VirtualBox => "look at the clock of the VirtualBox host, which it follows".into(),
            Self::QemuAgent => "look at the clock of the host, by whose order it set this one".into(),
            Self::Hwclock => Remedy::from("look at the hardware clock, from which it set this one: ")
                .and(Command::new("hwclock").words("--show --verbose")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_the_name_the_kernel_keeps() {
        assert_eq!(daemon("systemd-timesyn"), Some(Daemon::Timesyncd));
        assert_eq!(daemon("date"), None);
        assert!(DAEMONS.iter().all(|(name, _)| name.len() <= 15));
    }
}
