//! Values of options: what may be written, and what to say about anything else.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use ebpf_probes::probes::PROBES;

use crate::{config::Place, observe::Target, units};

/// Other names of probes, and theirs: as `ip neigh` abbreviates it.
const ALIASES: &[(&str, &str)] = &[("neigh", "neighbour")];

/// The name of a probe, or one of [`ALIASES`], which becomes the probe's own.
pub(super) fn probes() -> impl TypedValueParser<Value = String> {
    let values = PROBES.iter().map(|probe| {
        let aliases = ALIASES.iter().filter(|(_, name)| *name == probe.name).map(|(alias, _)| *alias);
        PossibleValue::new(probe.name).aliases(aliases)
    });
    PossibleValuesParser::new(values).map(|given| {
        let own = ALIASES.iter().find(|(alias, _)| *alias == given).map(|(_, name)| (*name).to_owned());
        own.unwrap_or(given)
    })
}

pub(super) fn parse_comm(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 15 {
        return Err(format!("the kernel keeps 1 to 15 bytes of a thread's name, this has {}", text.len()));
    }
    Ok(text.to_owned())
}

/// A process by its id or name, or a port by `:PORT`.
pub(super) fn parse_target(text: &str) -> Result<Target, String> {
    if let Some(port) = text.strip_prefix(':') {
        let known = port.parse().ok().filter(|port| *port != 0);
        return known.map(Target::Port).ok_or_else(|| format!("{text} is no port from :1 to :65535"));
    }
    match text.parse() {
        Ok(0) => Err("0 is no process".into()),
        Ok(process) => Ok(Target::Process(process)),
        Err(_) if text.is_empty() => Err("a process has a number or a name".into()),
        Err(_) => Ok(Target::Name(text.to_owned())),
    }
}

/// Address and prefix length out of 128; IPv4 as IPv4-mapped.
pub(super) fn parse_cidr(text: &str) -> Result<([u8; 16], u32), String> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().map_err(|_| format!("{address} is not an IP address"))?;
    let (bytes, width) = match address {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), 32),
        IpAddr::V6(v6) => (v6.octets(), 128),
    };
    let bits = match bits {
        None => width,
        Some(bits) => bits
            .parse()
            .ok()
            .filter(|&bits| bits <= width)
            .ok_or_else(|| format!("/{bits} is not a prefix length from 0 to {width}"))?,
    };
    Ok((bytes, bits + 128 - width))
}

/// Below a quarter second every retransmission would look like a stall, and the sweep could not keep up.
pub(super) fn parse_threshold(text: &str) -> Result<Duration, String> {
    let time = units::duration(text)?;
    if time < Duration::from_millis(250) || time > Duration::from_secs(3600) {
        return Err(format!("{text} is not between 250ms and 1h"));
    }
    Ok(time)
}

/// Time daemons keep a clock right to some milliseconds, and nothing is right that is off by a day.
pub(super) fn parse_clock(text: &str) -> Result<Duration, String> {
    let time = units::duration(text)?;
    if time < Duration::from_millis(10) || time > Duration::from_secs(86_400) {
        return Err(format!("{text} is not between 10ms and 24h"));
    }
    Ok(time)
}

pub(super) fn parse_ring(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(mib @ 1..=256) if u32::is_power_of_two(mib) => Ok(mib),
        _ => Err("a power of two from 1 to 256".into()),
    }
}

/// An amount of memory, with the units people write.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" | "k" | "K" => 10,
        "MiB" | "m" | "M" => 20,
        "GiB" | "g" | "G" => 30,
        other => return Err(format!("{other} is not a unit: use KiB, MiB or GiB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text} does not begin with a whole number"))?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is out of range"))?;
    if bytes < 1 << 20 {
        return Err(format!("{text} is less than 1MiB"));
    }
    Ok(bytes)
}

/// Where to listen; `:PORT` is every address.
pub(super) fn parse_listen(text: &str) -> Result<Place<SocketAddr>, String> {
    if text == "none" {
        return Ok(Place::Nowhere);
    }
    let every = text.strip_prefix(':').and_then(|port| port.parse().ok());
    match every {
        Some(port) => Ok(Place::At(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))),
        None => address(text).map(Place::At).ok_or_else(|| {
            "write an address and a port, such as 127.0.0.1:9877, [::1]:9877 or :9877, or none".into()
        }),
    }
}

/// An IPv6 address may come without brackets, as Kubernetes gives a pod its own: the port is always there.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = || {
        let (address, port) = text.rsplit_once(':')?;
        Some(SocketAddr::from((address.parse::<Ipv6Addr>().ok()?, port.parse::<u16>().ok()?)))
    };
    text.parse().ok().or_else(bare)
}

pub(super) fn parse_store(text: &str) -> Result<Place<PathBuf>, String> {
    match text {
        "none" => Ok(Place::Nowhere),
        "" => Err("a path, or none".into()),
        path => Ok(Place::At(path.into())),
    }
}

pub(super) fn parse_url(text: &str) -> Result<String, String> {
    let uri: ureq::http::Uri = text.parse().map_err(|why| format!("this is no URL ({why})"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(text.to_owned()),
        _ => Err("write a whole URL, such as https://hooks.example.com/culprit".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_at_is_written_as_people_and_kubernetes_do() {
        let at = |text| match parse_listen(text) {
            Ok(Place::At(address)) => address.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(at("127.0.0.1:9877"), "127.0.0.1:9877");
        assert_eq!(at(":9877"), "[::]:9877");
        assert_eq!(at("[fd00::7]:9877"), "[fd00::7]:9877");
        assert_eq!(at("fd00::7:9877"), "[fd00::7]:9877");
        assert_eq!(parse_listen("none"), Ok(Place::Nowhere));
        for bad in ["localhost:9877", "9877", "127.0.0.1", "", ":99999"] {
            assert!(parse_listen(bad).is_err_and(|why| why.contains("127.0.0.1:9877")), "{bad}");
        }
    }

    #[test]
    fn a_probe_has_one_name_whatever_it_was_called() {
        let command = || clap::Command::new("culprit").arg(clap::Arg::new("probe").value_parser(probes()));
        let named = |given: &str| {
            let matches = command().try_get_matches_from(["culprit", given]).ok()?;
            matches.get_one::<String>("probe").cloned()
        };
        for probe in PROBES {
            assert_eq!(named(probe.name).as_deref(), Some(probe.name));
        }
        assert_eq!(named("neigh").as_deref(), Some("neighbour"));
        assert_eq!(named("neighbor"), None);
    }

    #[test]
    fn sizes_have_units_and_a_least() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("1048576"), Ok(1 << 20));
        assert!(parse_bytes("10k").is_err_and(|why| why.contains("less than 1MiB")));
        assert!(parse_bytes("1.5GiB").is_err() && parse_bytes("99999999999GiB").is_err());
    }
}
