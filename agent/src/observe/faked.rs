//! Whether a process lives in another time than its host: libfaketime answers its calls for the time of day. It is preloaded
//! by the environment, which also says by how much; where it is not mapped (a static program) it does nothing. A time
//! namespace shifts the clocks since boot alone, never the time of day. Nothing else of an environment is kept.

use std::{
    fs,
    io::Read,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::known::context::FakedTime;

/// Bytes of an environment, and of a list of mappings, read at most.
const ENVIRONMENT: u64 = 256 << 10;
const MAPS: u64 = 4 << 20;
/// Bytes of the setting that are kept.
const SETTING: usize = 64;
const DAY_S: f64 = 86_400.0;

/// What a process believes of the time of day, if that is not its host's.
pub(super) fn of(proc: &Path) -> Option<FakedTime> {
    let environment = read(&proc.join("environ"), ENVIRONMENT)?;
    let setting = preloaded(&environment)?;
    let is_mapped = read(&proc.join("maps"), MAPS)?.windows(12).any(|name| name == b"/libfaketime");
    is_mapped.then(|| faked(setting.as_deref(), today())).flatten()
}

fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    fs::File::open(path).ok()?.take(most).read_to_end(&mut all).ok()?;
    Some(all)
}

/// The setting of libfaketime where an environment preloads it; `Some(None)`: it stands in a file.
fn preloaded(environment: &[u8]) -> Option<Option<String>> {
    let of = |name: &[u8]| {
        environment.split(|&byte| byte == 0).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
    };
    of(b"LD_PRELOAD")?.windows(8).any(|name| name == b"faketime").then(|| {
        of(b"FAKETIME")
            .map(|setting| String::from_utf8_lossy(&setting[..setting.len().min(SETTING)]).into_owned())
    })
}

/// What a setting makes of the time of day: `None` if nothing.
fn faked(setting: Option<&str>, today: i64) -> Option<FakedTime> {
    let Some(setting) = setting.map(str::trim).filter(|setting| !setting.is_empty()) else {
        return Some(FakedTime::default());
    };
    let ahead_s = match setting.as_bytes() {
        [b'+' | b'-', ..] => offset(setting),
        _ => day(setting.trim_start_matches('@')).map(|day| (day - today).saturating_mul(86_400)),
    };
    // Only faster or slower, or by nothing.
    let is_none = ahead_s == Some(0) && setting.starts_with(['+', '-']) && !setting.contains(' ');
    (!is_none).then(|| FakedTime { setting: setting.to_owned(), ahead_s })
}

/// `+20y`, `-1,5d`, `+30`: in seconds.
fn offset(setting: &str) -> Option<i64> {
    let first = setting.split_whitespace().next()?;
    let number = first.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let times = match &first[number.len()..] {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => DAY_S,
        "y" => 365.0 * DAY_S,
        _ => return None,
    };
    // A cast stays within bounds.
    number.replace(',', ".").parse::<f64>().ok().map(|number| (number * times) as i64)
}

/// The days since 1970 of `2030-01-31 …`.
fn day(setting: &str) -> Option<i64> {
    let date: jiff::civil::Date = setting.get(..10)?.parse().ok()?;
    let since = date.since(jiff::civil::date(1970, 1, 1)).ok()?;
    Some(since.get_days().into())
}

fn today() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs() / 86_400).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(setting: &str) -> Option<i64> {
        faked(Some(setting), 20_000).expect("another time").ahead_s
    }

    #[test]
    fn a_setting_says_how_far_away_the_time_is() {
        assert_eq!(ahead("+20y"), Some(20 * 365 * 86_400));
        assert_eq!(ahead("-1,5d"), Some(-129_600));
        assert_eq!(ahead("+2h x10"), Some(7200));
        assert_eq!(ahead("2024-10-05 10:00:00"), Some(86_400), "the day 20,001");
        assert_eq!(ahead("@2024-10-03 10:00:00"), Some(-86_400));
        assert_eq!((ahead("%"), ahead("+1w"), ahead("i2")), (None, None, None));
        assert_eq!(faked(Some("+0"), 0), None);
        assert_eq!(faked(None, 0), Some(FakedTime::default()));
    }

    #[test]
    fn only_an_environment_that_preloads_it_is_another_time() {
        let preload = b"A=1\0LD_PRELOAD=/usr/lib/faketime/libfaketime.so.1\0FAKETIME=+20y\0";
        assert_eq!(preloaded(preload), Some(Some("+20y".into())));
        assert_eq!(preloaded(b"LD_PRELOAD=libfaketime.so.1\0FAKETIME_TIMESTAMP_FILE=/x\0"), Some(None));
        assert_eq!(preloaded(b"FAKETIME=+20y\0LD_PRELOAD=libjemalloc.so\0"), None);
        assert_eq!(preloaded(b"XLD_PRELOAD=libfaketime.so.1\0"), None);
        assert_eq!(of(Path::new("/proc/self")), None);
    }
}
