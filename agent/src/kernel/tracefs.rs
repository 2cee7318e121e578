//! Tracefs for attaching a tracepoint: used where it is mounted; otherwise mounted for the
//! moment, in a mount namespace of a thread of our own, so that nothing on the machine changes.

use std::{fs, thread};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Whether tracefs is mounted in one of its usual places.
pub fn mounted() -> bool {
    PLACES.iter().any(|place| fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_some()))
}

/// Runs `attach` where tracefs can be seen. When it cannot be mounted either, `attach` runs all the
/// same and reports what it misses.
pub fn with<T: Send>(attach: impl FnOnce() -> T + Send) -> T {
    if mounted() {
        return attach();
    }
    thread::scope(|scope| {
        let own = scope.spawn(|| {
            let _ = mount_privately();
            attach()
        });
        own.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn mount_privately() -> rustix::io::Result<()> {
    // SAFETY: this thread was made for this, shares no file-system state others rely on, and ends soon.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS)? };
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount("tracefs", PLACES[0], "tracefs", MountFlags::empty(), None)
}
