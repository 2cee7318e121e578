//! Webhooks: each incident is POSTed to each URL, in order, from the queue on disk. What the other side cannot
//! take now is tried again, less and less often; what it does not want is given up and counted. One thread a
//! URL: a slow one delays no other.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{
    queue::Counts,
    store::{Store, deliveries::Delivery},
};

/// A call that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after a failure, first and at most.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(300);
/// An incident that could not be delivered for this long is given up.
const TOO_OLD_MS: i64 = 86_400_000;
/// The queue is looked at this often even if nothing says that something came.
const IDLE: Duration = Duration::from_secs(5);

/// Wakes the threads.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
}

/// A webhook that runs. Ends when this is dropped, at the next ring at the latest; what is queued stays on disk.
pub struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl Bell {
    /// Something may be due.
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits for a ring after `seen`, or for so long; the number of the last ring.
    fn wait(&self, seen: u64, at_most: Duration) -> u64 {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |rung: &mut u64| *rung == seen;
        *self.changed.wait_timeout_while(rung, at_most, waits).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Starts notifying `url`, on a thread of its own.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(
    url: String,
    secret: Option<PathBuf>,
    store: Store,
    bell: Arc<Bell>,
    counts: Arc<Counts>,
) -> io::Result<Running> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("culprit/", env!("CARGO_PKG_VERSION")))
        .tls_config(
            ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build(),
        )
        .build()
        .into();
    let stopped = Arc::new(AtomicBool::new(false));
    let hook = Hook { url, secret, store, bell, counts, agent, stopped: stopped.clone() };
    thread::Builder::new().name("culprit-webhook".into()).spawn(move || hook.notify())?;
    Ok(Running(stopped))
}

struct Hook {
    url: String,
    secret: Option<PathBuf>,
    store: Store,
    bell: Arc<Bell>,
    counts: Arc<Counts>,
    agent: ureq::Agent,
    stopped: Arc<AtomicBool>,
}

/// What came of a call.
enum Came {
    Taken,
    /// It may be taken later.
    Later(String),
    /// It never will.
    Refused(String),
}

impl Hook {
    fn notify(&self) {
        let (mut seen, mut pause, mut complained) = (0, FIRST, None);
        while !self.stopped.load(Relaxed) {
            let delivery = match self.store.next_delivery(&self.url) {
                Ok(Some(delivery)) => delivery,
                Ok(None) => {
                    seen = self.bell.wait(seen, IDLE);
                    continue;
                }
                Err(error) => {
                    tracing::error!("webhook {}: {error}", self.shown());
                    self.rest(MOST);
                    continue;
                }
            };
            let came = match self.post(&delivery) {
                Came::Later(why) if delivery.age_ms > TOO_OLD_MS => {
                    Came::Refused(format!("{why}, for a day now"))
                }
                came => came,
            };
            match came {
                Came::Taken => {
                    self.counts.emitted.fetch_add(1, Relaxed);
                    if complained.take().is_some() {
                        tracing::info!("webhook {}: it takes incidents again", self.shown());
                    }
                    pause = FIRST;
                }
                Came::Refused(why) => {
                    self.counts.refused.fetch_add(1, Relaxed);
                    let incident = &delivery.incident;
                    tracing::warn!(incident, "webhook {}: {why}: it was not notified", self.shown());
                }
                Came::Later(why) => {
                    if complained.as_ref() != Some(&why) {
                        tracing::warn!("webhook {}: {why}: trying again", self.shown());
                        complained = Some(why);
                    }
                    self.rest(pause);
                    pause = (pause * 2).min(MOST);
                    continue;
                }
            }
            if let Err(error) = self.store.delivered(delivery.number) {
                tracing::error!("webhook {}: {error}", self.shown());
                self.rest(MOST);
            }
        }
    }

    /// Waits, whatever rings, unless it is the end.
    fn rest(&self, pause: Duration) {
        let begun = std::time::Instant::now();
        let mut seen = 0;
        while let Some(left) = pause.checked_sub(begun.elapsed())
            && !left.is_zero()
            && !self.stopped.load(Relaxed)
        {
            seen = self.bell.wait(seen, left);
        }
    }

    fn post(&self, delivery: &Delivery) -> Came {
        let timestamp = jiff::Timestamp::now().as_second().to_string();
        let mut request = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .header("x-culprit-incident", &delivery.incident)
            .header("x-culprit-delivery", delivery.number.to_string())
            .header("x-culprit-timestamp", &timestamp);
        if let Some(file) = &self.secret {
            // Read each time: secrets are renewed in place.
            match fs::read(file) {
                Ok(secret) => {
                    let signature = sign(secret.trim_ascii(), &timestamp, &delivery.body);
                    request = request.header("x-culprit-signature", signature);
                }
                Err(error) => return Came::Later(format!("{}: {error}", file.display())),
            }
        }
        match request.send(&delivery.body) {
            Ok(response) => match response.status().as_u16() {
                200..=299 => Came::Taken,
                status @ (408 | 425 | 429 | 500..=599) => Came::Later(format!("HTTP status {status}")),
                status => Came::Refused(format!("HTTP status {status}")),
            },
            Err(error) => Came::Later(error.to_string()),
        }
    }

    /// The URL without what may be secret.
    fn shown(&self) -> String {
        shown(&self.url)
    }
}

fn shown(url: &str) -> String {
    let Ok(uri) = url.parse::<ureq::http::Uri>() else { return "(no URL)".into() };
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}/…", uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default())
}

/// `sha256=` and the HMAC of timestamp, dot and body, in hexadecimal.
fn sign(secret: &[u8], timestamp: &str, body: &str) -> String {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret).expect("any length of key will do");
    for part in [timestamp.as_bytes(), b".", body.as_bytes()] {
        hmac.update(part);
    }
    let hex: String = hmac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_openssl_makes_of_it() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        let wanted = "sha256=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        assert_eq!(sign(b"secret", "1700000000", "{\"a\":1}"), wanted);
    }

    #[test]
    fn a_log_shows_neither_path_nor_password() {
        assert_eq!(
            shown("https://user:word@hooks.example.com:8443/T0K3N?a=b"),
            "https://hooks.example.com:8443/…"
        );
    }
}
