//! Names of time servers, as people write them.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Where NTP servers listen.
const NTP: u16 = 123;
/// The longest name there is in DNS.
const LONGEST: usize = 253;

/// A time server: a name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
}

impl Server {
    /// A name to be resolved, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Reads `HOST`, `HOST:PORT`, `IP`, `IP:PORT` or `[V6]:PORT`; port 123 if none is given.
pub fn server(text: &str) -> Result<Server, String> {
    parse(text).map_err(|why| format!("{text:?} is no time server: {why}"))
}

fn parse(text: &str) -> Result<Server, &'static str> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("`[` without `]`")?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':').ok_or("after `]` comes `:` and a port, or nothing")?),
        };
        address(host)?;
        (host, port)
    } else if text.matches(':').count() > 1 {
        address(text)
            .map_err(|_| "more than one `:`, and no IPv6 address; with a port it is [ADDRESS]:PORT")?;
        (text, None)
    } else {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        name(host)?;
        (host, port)
    };
    let port = match port {
        None => NTP,
        // `parse` alone takes `+1` too.
        Some(port) if port.bytes().all(|digit| digit.is_ascii_digit()) => {
            port.parse().ok().filter(|&port| port != 0).ok_or("a port is a number from 1 to 65535")?
        }
        Some(_) => return Err("a port is a number from 1 to 65535"),
    };
    Ok(Server { host: host.to_owned(), port })
}

/// An IPv6 address, with a zone perhaps: `fe80::1%eth0`.
fn address(text: &str) -> Result<(), &'static str> {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    if zone.is_some_and(|zone| zone.is_empty() || !zone.bytes().all(is_plain)) {
        return Err("after `%` comes the name of a device");
    }
    address.parse::<Ipv6Addr>().map(|_| ()).map_err(|_| "no IPv6 address between the brackets")
}

fn name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("there is no name");
    }
    if text.len() > LONGEST {
        return Err("a name has at most 253 characters");
    }
    if text.starts_with('-') || !text.bytes().all(is_plain) {
        return Err("a name has letters, digits, `-`, `_` and `.`");
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_number && text.parse::<Ipv4Addr>().is_err() {
        return Err("it looks like an IPv4 address, and is none");
    }
    Ok(())
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_understood_with_and_without_a_port() {
        for (text, written) in [
            ("pool.ntp.org", "pool.ntp.org:123"),
            ("time:4123", "time:4123"),
            ("192.0.2.1", "192.0.2.1:123"),
            ("192.0.2.1:124", "192.0.2.1:124"),
            ("2001:db8::1", "[2001:db8::1]:123"),
            ("[2001:db8::1]", "[2001:db8::1]:123"),
            ("[2001:db8::1]:4123", "[2001:db8::1]:4123"),
            ("[fe80::1%eth0]:123", "[fe80::1%eth0]:123"),
            ("::1", "[::1]:123"),
        ] {
            let read = server(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(read.to_string(), written);
            assert_eq!(server(written), Ok(read), "{written} is understood as well");
        }
        assert_eq!(
            server("[::1]:9").map(|server| (server.host().to_owned(), server.port())),
            Ok(("::1".into(), 9))
        );
    }

    #[test]
    fn what_is_no_server_is_named_with_the_reason() {
        for (text, why) in [
            ("", "no name"),
            (":123", "no name"),
            ("time:", "a port is"),
            ("time:0", "a port is"),
            ("time:65536", "a port is"),
            ("time:+1", "a port is"),
            ("time:ntp", "a port is"),
            ("a b", "a name has"),
            ("-x", "a name has"),
            ("http://time", "a port is"),
            ("time/", "a name has"),
            ("300.1.1.1", "looks like an IPv4"),
            ("1.2", "looks like an IPv4"),
            ("[::1", "without `]`"),
            ("[::1]123", "after `]`"),
            ("[time]:123", "no IPv6 address"),
            ("1:2:3", "more than one `:`"),
            ("fe80::1%", "more than one `:`"),
            ("[fe80::1%a b]:1", "name of a device"),
        ] {
            let said = server(text).expect_err(text);
            assert!(
                said.starts_with(&format!("{text:?} is no time server: ")) && said.contains(why),
                "{said}"
            );
        }
        assert!(server(&"a".repeat(254)).is_err_and(|why| why.contains("253")));
    }
}
