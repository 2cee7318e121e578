//! Incidents of a running `culprit`, as they are emitted.

use serde_json::Value;

use super::{Culprit, Netns};

/// One line of `"type":"incident"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// The JSON object.
    pub json: Value,
}

impl Incident {
    /// A text by its path, e.g. `/cause/kind`; empty if there is none.
    pub fn text(&self, path: &str) -> &str {
        self.json.pointer(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// A number by its path.
    #[track_caller]
    pub fn number(&self, path: &str) -> u64 {
        let number = self.json.pointer(path).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("{path} is no number in {:#}", self.json))
    }

    /// Its identity.
    pub fn id(&self) -> &str {
        self.text("/id")
    }

    /// Kind of cause and confidence.
    pub fn blame(&self) -> (&str, &str) {
        (self.text("/cause/kind"), self.text("/cause/confidence"))
    }

    /// Where the blame points, as `address:port`.
    pub fn blamed(&self) -> String {
        let to = &self.json["cause"]["destination"];
        match (to["ip"].as_str(), to["port"].as_u64()) {
            (Some(ip), Some(port)) => format!("{ip}:{port}"),
            _ => String::new(),
        }
    }

    /// All of its `why`, as one text.
    pub fn why(&self) -> String {
        self.json["why"].to_string()
    }

    /// All of its remedies, as one text.
    pub fn remedies(&self) -> String {
        self.json["remedies"].to_string()
    }

    /// Process and thread id of who suffers.
    pub fn task(&self) -> (u64, u64) {
        (self.number("/process/pid"), self.number("/process/tid"))
    }

    /// Whether who suffers lives in this namespace, or the device it is about.
    pub fn within(&self, netns: &Netns) -> bool {
        self.text("/process/netns") == netns.name() || self.text("/details/netns") == netns.name()
    }

    /// Whether it is of this kind, about a neighbour of this address in this namespace.
    pub fn about(&self, kind: &str, netns: &Netns, address: std::net::IpAddr) -> bool {
        self.text("/kind") == kind
            && self.text("/details/netns") == netns.name()
            && self.text("/details/address") == address.to_string()
    }

    /// Whether it opens here.
    pub fn opens(&self) -> bool {
        self.text("/state") == "open"
    }
}

impl Culprit {
    /// The first incident line, past or future, for which `wanted` holds.
    #[track_caller]
    pub fn wait_for_incident(&self, what: &str, wanted: impl Fn(&Incident) -> bool) -> Incident {
        let deadline = super::deadline();
        loop {
            if let Some(found) = self.incidents(&wanted).into_iter().next() {
                return found;
            }
            if !self.read(deadline) {
                panic!("gave up waiting for {what}; {}", self.everything());
            }
        }
    }

    /// Every incident line so far for which `wanted` holds.
    pub fn incidents(&self, wanted: impl Fn(&Incident) -> bool) -> Vec<Incident> {
        self.emitted.borrow().iter().filter(|incident| wanted(incident)).cloned().collect()
    }
}
