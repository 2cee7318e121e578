//! The clocks a hypervisor or a cloud offers its machines as `/dev/ptp*`. Usually only root may open them.
//!
//! Only those known to show UTC are read, known by `/sys/class/ptp/ptp*/clock_name`. The clock of an ordinary
//! network card is left out: it runs free until it is disciplined, and then shows TAI as a rule, 37 s
//! ahead of UTC; `vmclock` shows TAI too.
//!
//! What the clock says is the host's time: how right that is is not said, so that the error is only the delay
//! of reading it.
//! <https://docs.kernel.org/driver-api/ptp.html>

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::Path,
};

use rustix::time::{DynamicClockId, clock_gettime_dynamic};

use super::{Answer, Failure, Roots, devices, timed};
use crate::fact::{Reading, ReferenceKind};

/// Names of clocks that show UTC.
const UTC: &[&str] = &[
    // drivers/ptp/ptp_kvm_common.c: the host's CLOCK_REALTIME.
    "KVM virtual PTP",
    // drivers/ptp/ptp_vmw.c: the host's time.
    "ptp_vmw",
    // drivers/hv/hv_util.c: the host's time, extrapolated from samples.
    "hyperv",
];
/// Beginnings of names of clocks that show UTC.
const UTC_FAMILIES: &[&str] = &[
    // drivers/net/ethernet/amazon/ena/ena_phc.c: `ena-ptp-05`, the cloud's time.
    "ena-ptp-",
    // drivers/virtio/virtio_rtc_driver.c: type 0 is UTC without smearing; 1 is TAI, 2 monotonic, 3 and 4 smeared.
    "Virtio PTP type 0/",
];
/// The kernel's names have at most 31 bytes.
const NAME: usize = 64;

/// Reads every clock a hypervisor or cloud offers, as `ptp0 (KVM virtual PTP)`.
pub fn readings(roots: &Roots) -> Vec<Answer> {
    let names = match devices(&roots.sysfs, "ptp") {
        Ok(names) => names,
        Err(error) => {
            let why = format!("cannot be listed: {error}");
            return vec![Err(Failure { name: "ptp".into(), why })];
        }
    };
    let read = |device: String| match clock_name(&roots.sysfs, &device) {
        Ok(clock) if shows_utc(&clock) => {
            let name = format!("{device} ({clock})");
            Some(reading(&roots.dev.join(device), &name).map_err(|why| Failure { name, why }))
        }
        Ok(_) => None,
        Err(error) => Some(Err(Failure { name: device, why: format!("its name cannot be read: {error}") })),
    };
    names.into_iter().filter_map(read).collect()
}

/// The clocks that are not read since they do not show UTC, or show it is not known what: `ptp1 (igc-0000:01:00.0)`.
pub fn left_out(sysfs: &Path) -> Vec<String> {
    let named = |device: String| {
        let clock = clock_name(sysfs, &device).ok()?;
        (!shows_utc(&clock)).then(|| format!("{device} ({clock})"))
    };
    devices(sysfs, "ptp").unwrap_or_default().into_iter().filter_map(named).collect()
}

fn shows_utc(clock: &str) -> bool {
    UTC.contains(&clock) || UTC_FAMILIES.iter().any(|family| clock.starts_with(family))
}

fn clock_name(sysfs: &Path, device: &str) -> std::io::Result<String> {
    let name = fs::read_to_string(sysfs.join("class/ptp").join(device).join("clock_name"))?;
    Ok(name.trim().chars().take(NAME).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
}

fn reading(device: &Path, name: &str) -> Result<Reading, String> {
    let clock = File::open(device).map_err(|error| format!("cannot be opened: {error}"))?;
    let (time, at) = timed(|| clock_gettime_dynamic(DynamicClockId::Dynamic(clock.as_fd())));
    let time = time.map_err(|error| format!("cannot be read: {error}"))?;
    at.reading(ReferenceKind::Ptp, name, (time.tv_sec, time.tv_nsec), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these clocks, and a file for each that is no clock.
    fn machine(clocks: &[(&str, &str)]) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().expect("a directory");
        let roots = Roots { sysfs: dir.path().join("sys"), dev: dir.path().join("dev") };
        fs::create_dir(&roots.dev).expect("a directory");
        for (device, clock) in clocks {
            let class = roots.sysfs.join("class/ptp").join(device);
            fs::create_dir_all(&class).expect("a directory");
            fs::write(class.join("clock_name"), clock).expect("a file");
            fs::write(roots.dev.join(device), "").expect("a file");
        }
        (dir, roots)
    }

    #[test]
    fn only_clocks_that_show_utc_are_read() {
        for clock in ["KVM virtual PTP", "ptp_vmw", "hyperv", "ena-ptp-05", "Virtio PTP type 0/variant 0"] {
            assert!(shows_utc(clock), "{clock}");
        }
        for clock in
            ["igc-0000:01:00.0", "mlx5_ptp", "Virtio PTP type 1/variant 0", "vmclock0", "", "hyperv2"]
        {
            assert!(!shows_utc(clock), "{clock}");
        }
    }

    #[test]
    fn a_clock_that_cannot_be_read_is_named_and_a_network_cards_is_left_out() {
        let (_dir, roots) =
            machine(&[("ptp0", "igb-ptp\n"), ("ptp1", "KVM virtual PTP\n"), ("ptp2", "hyperv\n")]);
        fs::remove_file(roots.dev.join("ptp2")).expect("the file");
        let failures: Vec<_> =
            readings(&roots).into_iter().map(|answer| answer.expect_err("no clock").to_string()).collect();
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures[0].starts_with("ptp1 (KVM virtual PTP): cannot be read: "), "{failures:?}");
        assert!(failures[1].starts_with("ptp2 (hyperv): cannot be opened: "), "{failures:?}");
        assert_eq!(left_out(&roots.sysfs), ["ptp0 (igb-ptp)"]);
    }

    #[test]
    fn a_clock_without_a_name_is_named_by_its_device() {
        let (_dir, roots) = machine(&[("ptp0", "")]);
        fs::remove_file(roots.sysfs.join("class/ptp/ptp0/clock_name")).expect("the file");
        let failure = readings(&roots).pop().expect("one answer").expect_err("no name");
        assert!(failure.to_string().starts_with("ptp0: its name cannot be read: "), "{failure}");
    }

    #[test]
    fn a_name_steers_no_terminal() {
        let (_dir, roots) = machine(&[("ptp0", "a\u{1b}[31mb")]);
        assert_eq!(left_out(&roots.sysfs), ["ptp0 (a\u{fffd}[31mb)"]);
    }
}
