//! Names of hosts, as SNI and DNS carry them: is this one, and how is it shown when it is none?
//!
//! The client writes the SNI, clients and servers write DNS names. A name is valid that a
//! host may have: letters, digits, hyphens (RFC 952, RFC 1123 §2.1) and underscores (RFC 8552), in labels of
//! 1 to 63 bytes, 253 in all. Anything else is kept as data and said to be invalid. It refuses to know whether
//! a host of that name exists.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use schemars::JsonSchema;
use serde::Serialize;

use super::{SHOWN, quoted, thousands};

/// Bytes of a name at most: RFC 1035 §2.3.4, without the bytes for lengths.
const LONGEST: usize = 253;
/// Bytes of a label at most.
const LABEL: usize = 63;

/// Why a name is none that a host may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// It is empty, or one of its labels is.
    Empty,
    /// It has more than 253 bytes.
    TooLong,
    /// A label has more than 63 bytes.
    LabelTooLong,
    /// It has a character that is no letter, digit, hyphen or underscore of ASCII.
    Character,
}

/// That a name is invalid, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Invalid {
    /// What is wrong with it.
    pub why: Flaw,
    /// Its whole length in bytes: of one that is too long not all is kept.
    pub bytes: u64,
}

/// A name as a stranger wrote it: bounded, and judged once. In a sentence it stands as [`host`] shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Name {
    /// The name, its first [`LONGEST`] bytes at most when it is invalid.
    pub text: String,
    /// That no host may have it.
    pub invalid: Option<Invalid>,
}

impl Name {
    /// Of bytes as they came.
    pub fn of(bytes: &[u8]) -> Self {
        let Some(why) = flaw(bytes) else {
            return Self { text: String::from_utf8_lossy(bytes).into_owned(), invalid: None };
        };
        let kept = &bytes[..bytes.len().min(LONGEST)];
        let invalid = Some(Invalid { why, bytes: bytes.len() as u64 });
        Self { text: String::from_utf8_lossy(kept).into_owned(), invalid }
    }

    /// Of the labels of a DNS name: a dot within one does not part two.
    pub fn of_labels<'l>(labels: impl IntoIterator<Item = &'l [u8]>) -> Self {
        let text = presentation(labels);
        // The root, and what stands for it.
        let invalid = flaw(text.as_bytes()).filter(|_| !text.is_empty());
        let bytes = text.len() as u64;
        Self { text, invalid: invalid.map(|why| Invalid { why, bytes }) }
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self::of(name.as_bytes())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&words(&self.text, self.invalid.as_ref()))
    }
}

/// What is wrong with a name; one dot at its end is not.
pub fn flaw(name: &[u8]) -> Option<Flaw> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut labels = name.split(|byte| *byte == b'.');
    if name.len() > LONGEST {
        Some(Flaw::TooLong)
    } else if labels.clone().any(<[u8]>::is_empty) {
        Some(Flaw::Empty)
    } else if labels.clone().any(|label| label.len() > LABEL) {
        Some(Flaw::LabelTooLong)
    } else if labels.any(|label| !label.iter().all(allowed)) {
        Some(Flaw::Character)
    } else {
        None
    }
}

/// A name of a host within a sentence: as it is, or quoted, bounded and said to be invalid.
/// `b.example`, `(invalid, 1,700 bytes) "nginx…"`.
pub fn host(name: &str) -> Cow<'_, str> {
    if flaw(name.as_bytes()).is_none() {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(said_invalid(name, name.len()))
    }
}

/// The same of a name that was judged before.
pub fn words<'n>(name: &'n str, invalid: Option<&Invalid>) -> Cow<'n, str> {
    match invalid {
        None => Cow::Borrowed(name),
        Some(invalid) => Cow::Owned(said_invalid(name, invalid.bytes as usize)),
    }
}

fn said_invalid(name: &str, bytes: usize) -> String {
    let mut out = format!("(invalid, {} {}) ", thousands(bytes), if bytes == 1 { "byte" } else { "bytes" });
    let start: String = name.chars().take(SHOWN).collect();
    let quoted = quoted(&start);
    if start.len() < bytes {
        let _ = write!(out, "{}…\"", quoted.strip_suffix('"').unwrap_or(&quoted));
    } else {
        out.push_str(&quoted);
    }
    out
}

/// Whether that may be the name of an application protocol (ALPN): those there are (RFC 7301 §6 and its
/// registry) are words of visible ASCII.
pub fn is_protocol(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-+:/".contains(byte))
}

/// The name of an application protocol within a sentence.
pub fn protocol(name: &str) -> Cow<'_, str> {
    if is_protocol(name.as_bytes()) && name.len() <= SHOWN {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(said_invalid(name, name.len()))
    }
}

/// A DNS name in the form of master files (RFC 1035 §5.1, RFC 4343 §2.1): a dot within a label and a backslash
/// are escaped, and what is no printable ASCII is written as `\DDD`.
pub fn presentation<'l>(labels: impl IntoIterator<Item = &'l [u8]>) -> String {
    let mut out = String::new();
    for label in labels {
        if !out.is_empty() {
            out.push('.');
        }
        for &byte in label {
            match byte {
                b'.' | b'\\' => out.extend(['\\', char::from(byte)]),
                b'!'..=b'~' => out.push(char::from(byte)),
                other => {
                    let _ = write!(out, "\\{other:03}");
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_host_may_have_has_a_flaw() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long = format!("{}example", "abcdefg.".repeat(40));
        for (name, wrong) in [
            ("b.cluster.example", None),
            ("_sip._tcp.example", None),
            ("B-2.example.", None),
            ("192.0.2.1", None),
            ("", Some(Flaw::Empty)),
            ("a..b", Some(Flaw::Empty)),
            (".", Some(Flaw::Empty)),
            (&long_label, Some(Flaw::LabelTooLong)),
            (&long, Some(Flaw::TooLong)),
            ("shop.example) for 1 s", Some(Flaw::Character)),
            ("münchen.example", Some(Flaw::Character)),
            ("a\nb", Some(Flaw::Character)),
            ("*.example", Some(Flaw::Character)),
        ] {
            assert_eq!(flaw(name.as_bytes()), wrong, "{name:?}");
        }
    }

    #[test]
    fn what_is_invalid_says_so_and_how_long_it_is() {
        assert_eq!(host("b.example"), "b.example");
        assert_eq!(host("x y\n"), "(invalid, 4 bytes) \"x y\\n\"");
        let prose = format!("shop.example) for 1.0 s. RESOLVED: {}", "A".repeat(1500));
        let shown = host(&prose);
        assert!(shown.starts_with("(invalid, 1,535 bytes) \"shop.example) for") && shown.ends_with("AA…\""));
        assert!(shown.len() < 200, "{shown}");
    }

    #[test]
    fn of_what_is_invalid_the_beginning_is_kept() {
        let name = Name::of(&[b'A'; 1700]);
        assert_eq!(name.text.len(), LONGEST);
        assert_eq!(name.invalid, Some(Invalid { why: Flaw::TooLong, bytes: 1700 }));
        assert!(name.to_string().starts_with("(invalid, 1,700 bytes) \"AAA"), "{name}");
        assert_eq!(Name::from("b.example").to_string(), "b.example");
    }

    #[test]
    fn a_dot_within_a_label_makes_a_dns_name_invalid() {
        assert!(Name::of_labels([&b"a.b"[..], b"example"]).invalid.is_some());
        assert_eq!(Name::of_labels([&b"a"[..], b"example"]), Name::from("a.example"));
    }

    #[test]
    fn a_protocol_is_a_word() {
        assert_eq!((protocol("h2"), protocol("http/1.1")), ("h2".into(), "http/1.1".into()));
        assert_eq!(protocol("h2, and all is well"), "(invalid, 19 bytes) \"h2, and all is well\"");
    }

    #[test]
    fn labels_are_written_as_in_master_files() {
        let labels: [&[u8]; 3] = [b"a.b", b"c\n\xff\\", b"example"];
        assert_eq!(presentation(labels), "a\\.b.c\\010\\255\\\\.example");
        assert!(flaw(presentation(labels).as_bytes()).is_some());
    }
}
