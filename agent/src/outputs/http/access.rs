//! Who may connect: TLS and basic authentication, from a file in the format of the Prometheus exporter
//! toolkit (<https://prometheus.io/docs/prometheus/latest/configuration/https/>). The file and the certificates
//! are read again when they change; what cannot be read then leaves what was there.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};

/// The file is looked at again after this long.
const EVERY: Duration = Duration::from_secs(1);
/// A hash that no password has, for users that do not exist: they take as long to refuse.
const UNKNOWN_USER: &str = "$2b$10$abcdefghijklmnopqrstuu5eWLxQ2vXpTZW0s2cV9p0Fh5n5yFQ7S";

/// What is wrong with the file or what it names.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{path}: {why}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// It says something that cannot be.
    #[error("{path}: {why}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What.
        why: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tls_server_config: Option<Tls>,
    #[serde(default)]
    http_server_config: Http,
    #[serde(default)]
    basic_auth_users: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    cert_file: PathBuf,
    key_file: PathBuf,
    #[serde(default)]
    client_auth_type: ClientAuth,
    client_ca_file: Option<PathBuf>,
    min_version: Option<Version>,
    max_version: Option<Version>,
    /// The order of cipher suites is the library's.
    #[serde(default)]
    prefer_server_cipher_suites: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
enum ClientAuth {
    #[default]
    NoClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Version {
    #[serde(rename = "TLS12")]
    Tls12,
    #[serde(rename = "TLS13")]
    Tls13,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    #[serde(default = "yes")]
    http2: bool,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

impl Default for Http {
    fn default() -> Self {
        Self { http2: true, headers: BTreeMap::new() }
    }
}

fn yes() -> bool {
    true
}

/// What the file says, in effect.
pub(super) struct Rules {
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) headers: HeaderMap,
    users: BTreeMap<String, String>,
    /// Hashes of user and password that were right: bcrypt is slow on purpose.
    right: Mutex<Vec<[u8; 32]>>,
}

/// The rules as they are now.
pub struct Access {
    state: Mutex<State>,
}

struct State {
    path: Option<PathBuf>,
    rules: Arc<Rules>,
    /// When the files it was made from were written.
    written: Vec<(PathBuf, Option<SystemTime>)>,
    looked: Instant,
}

impl Access {
    /// Reads the file; without one, everybody who can connect may read.
    ///
    /// # Errors
    /// When the file or what it names cannot be used.
    pub fn new(path: Option<&Path>) -> Result<Self, Error> {
        let (rules, written) = load(path)?;
        let path = path.map(Path::to_owned);
        Ok(Self {
            state: Mutex::new(State { path, rules: Arc::new(rules), written, looked: Instant::now() }),
        })
    }

    /// Takes another file from now on.
    ///
    /// # Errors
    /// As [`Access::new`]; what was there stays.
    pub fn replace(&self, path: Option<&Path>) -> Result<(), Error> {
        let new = Self::new(path)?;
        let new = new.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The rules, read again if they have changed.
    pub(super) fn now(&self) -> Arc<Rules> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= EVERY {
            state.looked = Instant::now();
            let changed = state.written.iter().any(|(path, written)| when(path) != *written);
            if changed {
                match load(state.path.as_deref()) {
                    Ok((rules, written)) => {
                        tracing::info!("TLS and authentication were read again");
                        (state.rules, state.written) = (Arc::new(rules), written);
                    }
                    Err(error) => {
                        tracing::error!("{error}: what was there before stays in effect");
                        // Said once for each change.
                        for (path, written) in &mut state.written {
                            *written = when(path);
                        }
                    }
                }
            }
        }
        state.rules.clone()
    }
}

impl Rules {
    pub(super) fn wants_password(&self) -> bool {
        !self.users.is_empty()
    }

    /// Whether the `Authorization` header names a user and the right password. Takes a while.
    pub(super) fn admits(&self, authorization: Option<&str>) -> bool {
        let Some((user, password)) = authorization.and_then(credentials) else { return false };
        let known = self.users.get(&user);
        let hash = known.map_or(UNKNOWN_USER, String::as_str);
        let digest: [u8; 32] = Sha256::new()
            .chain_update(hash)
            .chain_update([0])
            .chain_update(&user)
            .chain_update([0])
            .chain_update(&password)
            .finalize()
            .into();
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.contains(&digest) {
            return true;
        }
        drop(right);
        // More than 72 bytes bcrypt does not look at.
        let admitted = bcrypt::verify(password, hash).unwrap_or(false) && known.is_some();
        if admitted {
            right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            right.truncate(63);
            right.insert(0, digest);
        }
        admitted
    }
}

fn credentials(authorization: &str) -> Option<(String, String)> {
    let (scheme, encoded) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn when(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

type Loaded = (Rules, Vec<(PathBuf, Option<SystemTime>)>);

fn load(path: Option<&Path>) -> Result<Loaded, Error> {
    let Some(path) = path else {
        let rules =
            Rules { tls: None, headers: HeaderMap::new(), users: BTreeMap::new(), right: Mutex::default() };
        return Ok((rules, vec![]));
    };
    let content = |why: String| Error::Content { path: path.to_owned(), why };
    let mut files = vec![path.to_owned()];
    let text = fs::read_to_string(path).map_err(|why| Error::File { path: path.to_owned(), why })?;
    let file: File = match text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#')) {
        true => File::default(),
        false => serde_saphyr::from_str(&text).map_err(|why| content(why.to_string()))?,
    };
    for (user, hash) in &file.basic_auth_users {
        if hash.parse::<bcrypt::HashParts>().is_err() {
            return Err(content(format!(
                "basic_auth_users: {user}: this is no bcrypt hash: `htpasswd -nBC 10 {user}` makes one"
            )));
        }
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &file.http_server_config.headers {
        let bad = || content(format!("http_server_config: headers: {name}: no HTTP header can be so"));
        let name: HeaderName = name.parse().map_err(|_| bad())?;
        headers.insert(name, HeaderValue::from_str(value).map_err(|_| bad())?);
    }
    let tls = match &file.tls_server_config {
        Some(tls) => {
            // Paths are relative to the file, as in the toolkit.
            let beside = |file: &Path| path.parent().unwrap_or(Path::new("")).join(file);
            files.extend([beside(&tls.cert_file), beside(&tls.key_file)]);
            files.extend(tls.client_ca_file.iter().map(|file| beside(file)));
            Some(Arc::new(server_config(tls, &beside, file.http_server_config.http2, &content)?))
        }
        None => None,
    };
    let written = files.into_iter().map(|file| (file.clone(), when(&file))).collect();
    Ok((Rules { tls, headers, users: file.basic_auth_users, right: Mutex::default() }, written))
}

fn server_config(
    tls: &Tls,
    beside: &impl Fn(&Path) -> PathBuf,
    http2: bool,
    content: &impl Fn(String) -> Error,
) -> Result<ServerConfig, Error> {
    let _ = tls.prefer_server_cipher_suites;
    let certificates = certificates(&beside(&tls.cert_file))?;
    let key_file = beside(&tls.key_file);
    let key = PrivateKeyDer::from_pem_file(&key_file)
        .map_err(|why| Error::Content { path: key_file, why: format!("no private key in PEM: {why}") })?;
    let (least, most) =
        (tls.min_version.unwrap_or(Version::Tls12), tls.max_version.unwrap_or(Version::Tls13));
    let versions: Vec<&'static SupportedProtocolVersion> =
        [(Version::Tls12, &TLS12), (Version::Tls13, &TLS13)]
            .into_iter()
            .filter(|(version, _)| *version >= least && *version <= most)
            .map(|(_, version)| version)
            .collect();
    if versions.is_empty() {
        return Err(content("tls_server_config: min_version is above max_version".into()));
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|why| content(format!("tls_server_config: {why}")))?;
    let builder = match (tls.client_auth_type, &tls.client_ca_file) {
        (ClientAuth::NoClientCert, _) => builder.with_no_client_auth(),
        (_, None) => {
            return Err(content("tls_server_config: client_auth_type wants a client_ca_file".into()));
        }
        (wanted, Some(file)) => {
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(&beside(file))? {
                roots.add(certificate).map_err(|why| content(format!("client_ca_file: {why}")))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match wanted {
                ClientAuth::VerifyClientCertIfGiven => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier.build().map_err(|why| content(format!("client_ca_file: {why}")))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(|why| content(format!("tls_server_config: certificate and key: {why}")))?;
    config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { vec![] };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |why: String| Error::Content { path: file.to_owned(), why };
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|why| bad(format!("no certificates in PEM: {why}")))?;
    if found.is_empty() {
        return Err(bad("no certificate in it".into()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("room");
        load(Some(file.path())).map(|(rules, _)| rules).map_err(|error| error.to_string())
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
    }

    #[test]
    fn only_the_right_password_of_a_known_user_is_admitted() {
        let hash = bcrypt::hash("a:b", 4).expect("a hash");
        let rules = rules(&format!("basic_auth_users:\n  sre: {hash}\n")).expect("sound");
        for _ in 0..2 {
            assert!(rules.admits(Some(&basic("sre", "a:b"))));
            assert!(!rules.admits(Some(&basic("sre", "a"))));
            assert!(!rules.admits(Some(&basic("root", "a:b"))));
        }
        for bad in ["", "Basic", "Basic !", "Bearer c3JlOmE6Yg==", "Basic c3Jl"] {
            assert!(!rules.admits(Some(bad)), "{bad}");
        }
        assert!(!rules.admits(None));
    }

    #[test]
    fn an_unknown_user_is_refused_as_slowly_as_a_known_one() {
        assert!(UNKNOWN_USER.parse::<bcrypt::HashParts>().is_ok_and(|parts| parts.get_cost() == 10));
    }

    #[test]
    fn an_empty_file_asks_for_nothing_and_a_strange_one_is_an_error() {
        assert!(!rules("# later\n\n").expect("sound").wants_password());
        for (text, wanted) in [
            ("tls_server_config: {cert_file: a}", "key_file"),
            ("http_server_config: {headers: {\"a b\": c}}", "no HTTP header can be so"),
            ("basic_auth_users: [a]", "expected mapping"),
            ("{", "1"),
        ] {
            let why = rules(text).err().unwrap_or_else(|| panic!("{text} was taken"));
            assert!(why.contains(wanted), "{text}: {why}");
        }
    }
}
