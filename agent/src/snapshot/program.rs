//! What a program has loaded: which TLS library, which language runtime. Reported by the libraries mapped into
//! the process, never by the name of its file. A program that carries everything inside itself says nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use crate::known::context::{Loaded, Runtime};

/// Bytes of `/proc/PID/maps` read at most; a JVM with thousands of mappings has about one mebibyte.
const MAPS: u64 = 4 << 20;

/// How the files of TLS libraries begin: OpenSSL and its forks, NSS, GnuTLS, Mbed TLS, wolfSSL, s2n, LibreSSL,
/// Botan, MatrixSSL, Netty's and Conscrypt's copies of BoringSSL, and Python's and .NET's links to OpenSSL.
const TLS: &[&str] = &[
    "libssl.so",
    "libssl-",
    "libssl.",
    "libssl3.so",
    "libgnutls",
    "libmbedtls",
    "libwolfssl",
    "libs2n",
    "libtls.so",
    "libtls-",
    "libbotan",
    "libmatrixssl",
    "libboringssl",
    "libnetty_tcnative",
    "libconscrypt",
    "librustls",
    "libSystem.Security.Cryptography.Native.OpenSsl",
];

/// What the process has loaded.
pub(super) fn look(proc: &Path) -> Loaded {
    let Ok(file) = fs::File::open(proc.join("maps")) else { return Loaded::default() };
    let mut maps = BufReader::new(file.take(MAPS));
    let mut loaded = parse(&mut maps);
    // Cut short, something may be missing.
    loaded.known &= maps.into_inner().limit() > 0;
    if loaded.runtime.is_none()
        && fs::read_link(proc.join("exe")).is_ok_and(|exe| exe.file_name().is_some_and(|name| name == "node"))
    {
        loaded.runtime = Some(Runtime::Node);
    }
    loaded
}

fn parse(maps: &mut impl BufRead) -> Loaded {
    let mut loaded = Loaded::default();
    let mut before = String::new();
    for line in maps.lines().map_while(Result::ok) {
        // address perms offset dev inode path; the path may hold spaces.
        let Some(at) = line.find('/') else { continue };
        let path = &line[at..];
        if path == before {
            continue;
        }
        before = path.to_owned();
        let name = path.rsplit('/').next().unwrap_or(path);
        loaded.known = true;
        loaded.dynamic |=
            name.starts_with("libc.so") || name.starts_with("libc-") || name.starts_with("ld-musl");
        if loaded.tls.is_none() && TLS.iter().any(|known| name.starts_with(known)) {
            loaded.tls = Some(name.trim_end_matches(" (deleted)").to_owned());
        }
        if loaded.runtime.is_none() {
            loaded.runtime = runtime(path, name);
        }
    }
    loaded
}

fn runtime(path: &str, name: &str) -> Option<Runtime> {
    if name.starts_with("libcoreclr.so") {
        let version = path.split_once("/Microsoft.NETCore.App/").map(|(_, rest)| rest);
        let major = version.and_then(|rest| rest.split('.').next()?.parse().ok());
        return Some(Runtime::Dotnet { major });
    }
    if name.starts_with("libjvm.so") {
        return Some(Runtime::Java);
    }
    name.starts_with("libnode.so").then_some(Runtime::Node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(paths: &[&str]) -> Loaded {
        let line = |path: &&str| format!("7f0000000000-7f0000001000 r-xp 00000000 fe:00 1234    {path}\n");
        parse(&mut paths.iter().map(line).collect::<String>().as_bytes())
    }

    #[test]
    fn a_tls_library_and_a_runtime_are_known_by_their_files() {
        let dotnet = of(&[
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/usr/share/dotnet/shared/Microsoft.NETCore.App/8.0.11/libcoreclr.so",
            "/usr/lib/x86_64-linux-gnu/libssl.so.3",
        ]);
        assert_eq!(dotnet.runtime, Some(Runtime::Dotnet { major: Some(8) }));
        assert_eq!((dotnet.tls.as_deref(), dotnet.speaks_tls()), (Some("libssl.so.3"), Some(true)));
        let own = of(&["/srv/my app/libcoreclr.so", "/lib/ld-musl-x86_64.so.1"]);
        assert_eq!((own.runtime, own.dynamic), (Some(Runtime::Dotnet { major: None }), true));
        let plain = of(&["/usr/bin/memcached", "/usr/lib/libc.so.6", "/usr/lib/libssh.so.4"]);
        assert_eq!(plain.speaks_tls(), Some(false));
        // Everything inside: it may speak TLS or not.
        assert_eq!(of(&["/usr/bin/caddy"]).speaks_tls(), None);
        assert_eq!(of(&[]).speaks_tls(), None);
    }

    #[test]
    fn this_very_process_can_be_looked_at() {
        let seen = look(Path::new("/proc/self"));
        assert!(seen.known && seen.dynamic && seen.runtime.is_none(), "{seen:?}");
    }
}
