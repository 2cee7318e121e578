//! A running `culprit trace --format json`, and its facts as they come.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    process::{Command, ExitStatus},
    time::Instant,
};

use rustix::process::Signal;
use serde_json::Value;

use super::{Incident, Netns, Running, netns::Pair};

/// The binary under test.
pub fn binary() -> Command {
    let program = std::env::var_os("CULPRIT_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_culprit").into());
    let mut command = Command::new(program);
    // A daemon keeps and serves nothing where others would find it, unless a test wants it to.
    command.env("CULPRIT_STORE", "none").env("CULPRIT_LISTEN", "none");
    command
}

/// One event of the JSON stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// The JSON object.
    pub json: Value,
    /// Where it stood in the stream.
    pub index: usize,
}

impl Fact {
    /// What happened.
    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    /// A field's text, empty if it has none.
    pub fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_default()
    }

    /// A field's number.
    #[track_caller]
    pub fn number(&self, field: &str) -> f64 {
        self.json[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {}", self.json))
    }

    /// A field's truth.
    pub fn is(&self, field: &str) -> bool {
        self.json[field] == true
    }

    /// A field's list of texts.
    pub fn list(&self, field: &str) -> Vec<&str> {
        self.json[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Process id of the owner, 0 if it has none.
    pub fn pid(&self) -> u32 {
        self.owner("pid").as_u64().unwrap_or_default() as u32
    }

    /// Process and thread id of the owner.
    pub fn task(&self) -> (u32, u32) {
        (self.pid(), self.owner("tid").as_u64().unwrap_or_default() as u32)
    }

    /// Name of the owning thread.
    pub fn comm(&self) -> &str {
        self.owner("comm").as_str().unwrap_or_default()
    }

    /// Something about the owner.
    pub fn owner(&self, field: &str) -> &Value {
        &self.json["process"][field]
    }

    /// `destination`, `source`, `peer`, `local` or `server` as an address.
    pub fn at(&self, field: &str) -> Option<SocketAddr> {
        let end = &self.json[field];
        let ip: IpAddr = end["ip"].as_str()?.parse().ok()?;
        Some(SocketAddr::new(ip, end["port"].as_u64()? as u16))
    }

    /// Whether it happened in this namespace.
    pub fn within(&self, netns: &Netns) -> bool {
        self.owner("netns") == netns.name()
    }

    /// Whether it is of this kind and goes there.
    pub fn is_to(&self, kind: &str, destination: SocketAddr) -> bool {
        self.kind() == kind && self.at("destination") == Some(destination)
    }

    /// Whether it is about a handshake on this side (`client` or `server`) with this service.
    pub fn handshake(&self, role: &str, service: SocketAddr) -> bool {
        let end = if role == "client" { "peer" } else { "local" };
        self.text("role") == role && self.at(end) == Some(service)
    }
}

/// `culprit trace`, attached.
pub struct Culprit {
    running: Running,
    /// The first line.
    pub start: Value,
    facts: RefCell<Vec<Fact>>,
    pub(super) emitted: RefCell<Vec<Incident>>,
    summary: RefCell<Option<Value>>,
}

/// What a finished `culprit trace` left.
#[derive(Debug)]
pub struct Ended {
    /// How it exited.
    pub status: ExitStatus,
    /// The last line.
    pub summary: Value,
    /// Every fact it emitted.
    pub facts: Vec<Fact>,
    /// Every line of an incident.
    pub incidents: Vec<Incident>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Culprit {
    /// Traces everything; returns once everything is attached.
    #[track_caller]
    pub fn trace(args: &str) -> Self {
        let mut command = binary();
        command.args(["trace", "--format", "json"]).args(args.split_whitespace());
        Self::spawn(command)
    }

    /// Starts a prepared command whose stdout is the JSON stream.
    #[track_caller]
    pub fn spawn(mut command: Command) -> Self {
        let running = Running::spawn(&mut command);
        let line = running.next_line(super::deadline());
        let Ok(Some(line)) = line else {
            panic!("{command:?} does not attach ({line:?}): {}", running.stderr());
        };
        let start: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(start["type"], "start", "{line}");
        Self {
            running,
            start,
            facts: RefCell::default(),
            emitted: RefCell::default(),
            summary: RefCell::default(),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// The process.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The first fact, past or future, for which `wanted` holds.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Fact) -> bool) -> Fact {
        let deadline = super::deadline();
        let mut at = 0;
        loop {
            while let Some(fact) = self.facts.borrow().get(at) {
                if wanted(fact) {
                    return fact.clone();
                }
                at += 1;
            }
            if !self.read(deadline) {
                panic!("gave up waiting for {what}; {}", self.everything());
            }
        }
    }

    /// Every fact emitted so far for which `wanted` holds.
    pub fn seen(&self, wanted: impl Fn(&Fact) -> bool) -> Vec<Fact> {
        self.facts.borrow().iter().filter(|fact| wanted(fact)).cloned().collect()
    }

    /// Waits until all that happened before this call has been emitted: the kernel's ring keeps its order,
    /// so a connect made now comes last.
    #[track_caller]
    pub fn settle(&self, netns: &Netns) {
        let last = SocketAddr::new(netns.loopback(), super::port());
        netns.enter(move || std::net::TcpStream::connect(last).expect_err("nothing listens there"));
        self.wait_for("the connect after everything else", |fact| fact.is_to("connect_ended", last));
    }

    /// Ends it by ^C.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.running.signal(Signal::INT);
        self.finish()
    }

    /// Waits for its own end.
    #[track_caller]
    pub fn finish(mut self) -> Ended {
        let deadline = super::deadline();
        while self.read(deadline) {}
        let status = self.running.wait();
        let summary = self.summary.take().unwrap_or_else(|| panic!("no summary; {}", self.everything()));
        let (facts, incidents) = (self.facts.take(), self.emitted.take());
        Ended { status, summary, facts, incidents, stderr: self.running.stderr() }
    }

    /// Takes in one more line. `false`: there is none, or not in time.
    pub(super) fn read(&self, deadline: Instant) -> bool {
        let Ok(Some(line)) = self.running.next_line(deadline) else { return false };
        let json: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        match json["type"].as_str() {
            Some("summary") => *self.summary.borrow_mut() = Some(json),
            Some("incident") => self.emitted.borrow_mut().push(Incident { json }),
            _ => {
                let mut facts = self.facts.borrow_mut();
                let index = facts.len();
                facts.push(Fact { json, index });
            }
        }
        true
    }

    pub(super) fn everything(&self) -> String {
        let facts = self.facts.borrow();
        let skipped = facts.len().saturating_sub(200);
        let mut text = format!("seen ({skipped} earlier ones left out):\n");
        for fact in facts.iter().skip(skipped) {
            text.push_str(&format!("  {}\n", fact.json));
        }
        for incident in self.emitted.borrow().iter() {
            text.push_str(&format!("  {}\n", incident.json));
        }
        text + "stderr:\n" + &self.running.stderr()
    }
}

impl Pair {
    /// The server's IPv4 end of the wire.
    pub fn service(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.v4(2), port)
    }
}
