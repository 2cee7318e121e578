//! A stage for incidents: two hosts and a wire, a network behind a tun device that answers nothing, a real TLS server
//! that follows a plan, and culprit watching.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::{
    Culprit, Running, Scratch,
    incident::Incident,
    keep::Keeper,
    netns::Pair,
    port,
    tls::{Identity, openssl_client_for},
};

/// Behind the tun device of the server's host: nothing is ever answered.
pub const VOID: &str = "192.0.2.64";
/// Another such address.
pub const OTHER_VOID: &str = "192.0.2.65";
/// The same in IPv6.
pub const VOID6: &str = "2001:db8::64";
/// How long a fetch is given before its program goes on, seconds.
pub const PATIENCE: f64 = 2.5;

/// The stage; `W` is `()` until something watches.
pub struct Stage<W = Culprit> {
    /// The client's and the server's host.
    pub pair: Pair,
    /// The server's certificate.
    pub identity: Identity,
    /// Where the server listens.
    pub service: SocketAddr,
    /// What watches.
    pub culprit: W,
    programs: Scratch,
    actors: Vec<Running>,
    _void: Running,
    keeper: Keeper,
}

impl Stage {
    /// Sets it, over IPv4. `case` names the recording, `rule/case`.
    #[track_caller]
    pub fn set(case: &'static str) -> Self {
        Self::with(case, |pair| pair.v4(2))
    }

    /// Sets it, over IPv6.
    #[track_caller]
    pub fn set_v6(case: &'static str) -> Self {
        Self::with(case, |pair| pair.v6(2))
    }

    #[track_caller]
    fn with(case: &'static str, address: impl Fn(&Pair) -> std::net::IpAddr) -> Self {
        Stage::unwatched(case, address, port()).watched()
    }
}

impl Stage<()> {
    /// Sets it, and nothing watches yet. Its service is at this address and port.
    #[track_caller]
    pub fn unwatched(case: &'static str, address: impl Fn(&Pair) -> std::net::IpAddr, port: u16) -> Self {
        let pair = Pair::make();
        let service = SocketAddr::new(address(&pair), port);
        let programs = Scratch::make();
        for (name, text) in PROGRAMS {
            std::fs::write(programs.join(name), text).expect("our own directory");
        }
        let void = pair.server.spawn({
            let mut python = python();
            python.arg(programs.join("void.py")).arg("void0");
            python
        });
        void.wait_for_line("ready");
        pair.server.ip("link set void0 up");
        pair.server.ip("route add default dev void0");
        pair.server.ip("-6 route add default dev void0");
        Self {
            pair,
            identity: Identity::make(),
            service,
            culprit: (),
            programs,
            actors: Vec::new(),
            _void: void,
            keeper: Keeper::new(case),
        }
    }

    /// From now on culprit watches.
    #[track_caller]
    pub fn watched(self) -> Stage {
        let Self { pair, identity, service, culprit: (), programs, actors, _void, mut keeper } = self;
        let culprit = Culprit::trace("");
        for actor in &actors {
            keeper.keep(actor.pid());
        }
        Stage { pair, identity, service, culprit, programs, actors, _void, keeper }
    }

    /// Starts the Python server with a plan, before anything watches; its process id.
    #[track_caller]
    pub fn serve_unwatched(&mut self, plan: &Value) -> u64 {
        let server = self.server(plan);
        self.begin(server)
    }
}

impl<W> Stage<W> {
    fn server(&self, plan: &Value) -> Command {
        let mut server = python();
        server
            .arg(self.program("tls_server.py"))
            .arg(self.service.ip().to_string())
            .arg(self.service.port().to_string())
            .args([self.identity.cert(), self.identity.key()])
            .arg(plan.to_string());
        server
    }

    #[track_caller]
    fn begin(&mut self, command: Command) -> u64 {
        let running = self.pair.server.spawn(command);
        running.wait_for_line("ready");
        let pid = running.pid();
        self.actors.push(running);
        pid.into()
    }

    /// A fixture program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// An OpenSSL client that asks for this name.
    #[track_caller]
    pub fn client(&self, name: &str, options: &str) -> Running {
        openssl_client_for(&self.pair.client, self.service, name, options)
    }
}

impl Stage {
    /// Keeps a recording of what this process is part of, if recordings are to be kept.
    #[track_caller]
    pub fn keep(&mut self, pid: u32) {
        self.keeper.keep(pid);
    }

    /// The same, of the test's own threads.
    #[track_caller]
    pub fn keep_own(&mut self) {
        self.keep(std::process::id());
    }

    /// Starts the Python server with a plan; its process id.
    #[track_caller]
    pub fn serve(&mut self, plan: &Value) -> u64 {
        let server = self.server(plan);
        let pid = self.act(server);
        self.actor().say("begin\n");
        pid
    }

    /// The Python server with a plan, beside a file system at this directory that answers nothing for so many seconds;
    /// its process id.
    #[track_caller]
    pub fn serve_beside_silent_files(&mut self, plan: &Value, directory: &Path, seconds: f64) -> u64 {
        let mut both = python();
        both.arg(self.program("silent_fs.py")).arg(directory).arg(seconds.to_string());
        let server = self.server(plan);
        both.arg(server.get_program()).args(server.get_args());
        let pid = self.act(both);
        self.actor().say("begin\n");
        pid
    }

    /// The Python server does this, in the thread that shakes hands, for a client that asks for `slow.test`.
    #[track_caller]
    pub fn serve_slowly(&mut self, action: &Value) -> u64 {
        self.serve(&json!({ "sni": { "slow.test": action } }))
    }

    /// Starts a process on the server's host and waits for its `ready`; its process id.
    #[track_caller]
    pub fn act(&mut self, command: Command) -> u64 {
        let pid = self.begin(command);
        self.keep(u32::try_from(pid).expect("a process id"));
        pid
    }

    /// The last process started.
    pub fn actor(&mut self) -> &mut Running {
        self.actors.last_mut().expect("a process acts")
    }

    /// The incident of the service, as it opens.
    #[track_caller]
    pub fn stalled(&self) -> Incident {
        self.stalled_after(1000)
    }

    /// The same where the threshold is another one, milliseconds.
    #[track_caller]
    pub fn stalled_after(&self, threshold: u64) -> Incident {
        let opened = self
            .culprit
            .wait_for_incident("a stalled handshake", |incident| self.serves(incident) && incident.opens());
        // At most 500 ms after it.
        let late = opened.number("/details/stall_ms");
        let most = (threshold + 500) as f64 * super::slow();
        assert!(late >= threshold && (late as f64) < most, "opened after {late} ms: {:#}", opened.json);
        assert_eq!(opened.text("/kind"), "tls_handshake_stalled");
        opened
    }

    /// The same incident once it blames a neighbour for certain: the neighbour's second question goes
    /// unanswered about when the handshake begins to count as stalled, so that it may open without.
    #[track_caller]
    pub fn blames_neighbour(&self, opened: &Incident) -> Incident {
        self.culprit.wait_for_incident("the neighbour as its cause", |incident| {
            incident.id() == opened.id() && incident.blame() == ("neighbour", "certain")
        })
    }

    /// The same incident's end.
    #[track_caller]
    pub fn resolved(&self, opened: &Incident) -> Incident {
        self.culprit.wait_for_incident("its end", |incident| {
            incident.id() == opened.id() && incident.text("/state") == "resolved"
        })
    }

    /// Whether an incident is about a handshake the service owes.
    pub fn serves(&self, incident: &Incident) -> bool {
        incident.text("/details/role") == "server"
            && incident.text("/details/local/ip").parse() == Ok(self.service.ip())
            && incident.json["details"]["local"]["port"] == self.service.port()
    }

    /// Everything that was opened on this stage.
    pub fn opened(&self) -> Vec<Incident> {
        self.culprit.incidents(|incident| {
            incident.opens()
                && (self.serves(incident)
                    || incident.within(&self.pair.server)
                    || incident.within(&self.pair.client))
        })
    }

    /// Ends the scene. Exactly `expected` incidents were opened on it, and whatever was open may still be.
    #[track_caller]
    pub fn ends_with(mut self, expected: usize) {
        self.culprit.settle(&self.pair.client);
        let opened = self.opened();
        assert_eq!(opened.len(), expected, "{opened:#?}");
        self.keeper.end();
    }
}

/// Debian's own: one that a version manager put first in the path is slow in a VM.
pub fn python() -> Command {
    Command::new("/usr/bin/python3")
}

const PROGRAMS: &[(&str, &str)] = &[
    ("tls_server.py", include_str!("../programs/tls_server.py")),
    ("tls_server.js", include_str!("../programs/tls_server.js")),
    ("tls_reconnect.js", include_str!("../programs/tls_reconnect.js")),
    ("tls_timer.js", include_str!("../programs/tls_timer.js")),
    ("plain_server.py", include_str!("../programs/plain_server.py")),
    ("validating_client.py", include_str!("../programs/validating_client.py")),
    ("silent_fs.py", include_str!("../programs/silent_fs.py")),
    ("silent_daemon.py", include_str!("../programs/silent_daemon.py")),
    ("AiaClient.java", include_str!("../programs/AiaClient.java")),
    ("void.py", include_str!("../programs/void.py")),
];
