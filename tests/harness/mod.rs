//! What live tests stand on: network namespaces of their own, a running `culprit` whose facts can be
//! waited for, and the capabilities of the kernel underneath.
//!
//! Tests run in parallel on one kernel, and culprit sees the whole of it. So every test works in
//! namespaces with unique names and picks facts by them; where a fact has no owner, by its addresses,
//! which are unique too.

pub mod balancer;
pub mod bpf;
pub mod container;
pub mod culprit;
pub mod daemon;
pub mod dns;
pub mod group;
pub mod incident;
pub mod keep;
pub mod lan;
pub mod netns;
pub mod process;
pub mod require;
pub mod sockets;
pub mod stage;
pub mod terminal;
pub mod time;
pub mod tls;

pub use culprit::{Culprit, Fact};
pub use incident::Incident;
pub use lan::Lan;
pub use netns::Netns;
pub use process::Running;
pub use require::Feature;
pub use stage::Stage;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// How long anything may take before it counts as never, on a machine of ordinary speed.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many times slower than a developer's machine this one is: `CULPRIT_TEST_SLOW`, 1 if unset.
pub fn slow() -> f64 {
    std::env::var("CULPRIT_TEST_SLOW").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1.0)
}

/// The moment at which waiting becomes failure.
pub fn deadline() -> Instant {
    Instant::now() + PATIENCE.mul_f64(slow())
}

/// The most milliseconds something on this host's loopback may plausibly take.
pub fn soon_ms() -> f64 {
    1000.0 * slow()
}

/// A number no other call in this process got: for names, ports and addresses.
pub fn unique() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A port no other test of this process uses, below the ephemeral range: culprit may know listeners by
/// port alone.
pub fn port() -> u16 {
    10_000 + unique() % 20_000
}

/// Polls until this holds, for what the kernel does without an event.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = deadline();
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A directory that is removed with the test, readable by every user.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it.
    pub fn make() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("culprit-test-{}-{}", std::process::id(), unique()));
        std::fs::create_dir(&path).expect("a scratch directory");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("our own directory");
        Self(path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
