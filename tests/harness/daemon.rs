//! A running `culprit run`, with a store and an address of its own, and the incidents it is to see.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use serde_json::Value;
use socket2::Socket;

use super::{Culprit, Incident, Netns, Scratch, culprit::binary, eventually, port, sockets::begin_connect};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Content type.
    pub kind: String,
    /// Body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// `culprit run`, attached.
pub struct Daemon {
    /// Its output.
    pub culprit: Culprit,
    /// Where it serves HTTP.
    pub address: SocketAddr,
}

/// What a daemon is started with.
pub struct Setup {
    /// Its files.
    pub files: Scratch,
    supervisor: Option<UnixDatagram>,
}

impl Setup {
    /// A directory for it.
    pub fn make() -> Self {
        Self { files: Scratch::make(), supervisor: None }
    }

    /// Its store.
    pub fn store(&self) -> String {
        self.files.join("culprit.db").display().to_string()
    }

    /// A socket on which it notifies its state, as systemd has one.
    pub fn supervise(&mut self) -> UnixDatagram {
        let socket = UnixDatagram::bind(self.files.join("notify")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(15))).expect("our own socket");
        self.supervisor = Some(socket.try_clone().expect("a descriptor"));
        socket
    }

    /// Starts it; connects that wait for 300 ms are stalled.
    #[track_caller]
    pub fn start(&self, args: &str) -> Daemon {
        let mut command = binary();
        command.args(["run", "--format", "json", "--log-format", "json", "--listen", "127.0.0.1:0"]);
        command.args(["--store", &self.store()]).args(args.split_whitespace());
        if !args.contains("connect-stall") && !args.contains("--config") {
            command.args(["--connect-stall", "300ms"]);
        }
        if self.supervisor.is_some() {
            command.env("NOTIFY_SOCKET", self.files.join("notify")).env("WATCHDOG_USEC", "2000000");
        }
        Daemon::of(Culprit::spawn(command))
    }
}

fn served(culprit: &Culprit) -> SocketAddr {
    let mut address = None;
    eventually("it says where it serves HTTP", || {
        let said = culprit.running().stderr();
        address = said.split_once("HTTP is served at ").and_then(|(_, rest)| {
            rest.split(['"', ' ', '\n']).next().and_then(|address| address.parse().ok())
        });
        address.is_some()
    });
    address.expect("just seen")
}

impl Daemon {
    /// One that was started in some other way.
    #[track_caller]
    pub fn of(culprit: Culprit) -> Self {
        let address = served(&culprit);
        Self { culprit, address }
    }

    /// Asks for a path.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    /// Asks for a path, with headers.
    #[track_caller]
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        let mut request = agent.get(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.call().unwrap_or_else(|error| panic!("{path}: {error}"));
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        Answer {
            status: response.status().as_u16(),
            kind: kind.unwrap_or_default().to_owned(),
            body: response.body_mut().with_config().limit(64 << 20).read_to_string().expect("text"),
        }
    }

    /// Reads the live stream.
    #[track_caller]
    pub fn listen(&self) -> Reader {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("our own socket");
        let request = format!("GET /api/v1/stream HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut reader = Reader(BufReader::new(stream));
        let head = reader.line().expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        reader
    }
}

/// A reader of the live stream.
pub struct Reader(BufReader<TcpStream>);

impl Reader {
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    /// The next incident; `None`: the stream has ended, or nothing came for long.
    pub fn incident(&mut self) -> Option<Incident> {
        loop {
            if let Some(data) = self.line()?.strip_prefix("data: {") {
                let json = serde_json::from_str(&format!("{{{data}")).expect("JSON");
                return Some(Incident { json });
            }
        }
    }

    /// The next incident for which `wanted` holds.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Incident) -> bool) -> Incident {
        loop {
            match self.incident() {
                Some(incident) if wanted(&incident) => return incident,
                Some(_) => {}
                None => panic!("gave up waiting for {what}"),
            }
        }
    }
}

/// A namespace in which connects to some ports are dropped: each soon is an incident.
pub struct Faults {
    netns: Netns,
    /// Where programs of its own are, and how many there were.
    programs: Mutex<(Scratch, usize)>,
}

impl Faults {
    /// Makes it. `ports` above and including `first` are dropped.
    pub fn make() -> Self {
        let netns = Netns::make();
        netns.nft(
            "table inet test { chain output { type filter hook output priority 0; tcp dport 40000-60000 drop; }; }",
        );
        Self { netns, programs: Mutex::new((Scratch::make(), 0)) }
    }

    /// An unanswered connect, pending for as long as it is kept; and where to.
    pub fn begin(&self) -> (Socket, SocketAddr) {
        let to = SocketAddr::new(self.netns.loopback(), 40_000 + port() % 20_000);
        (begin_connect(&self.netns, to).0, to)
    }

    /// An unanswered connect by a program of its own: those of one program are one incident, those of many programs
    /// are many. It lives as long as it is kept.
    pub fn begin_as_another_program(&self) -> Stuck {
        let mut programs = self.programs.lock().expect("nothing panics with it");
        let (dir, begun) = &mut *programs;
        let shell = dir.join("shell");
        if *begun == 0 {
            std::fs::copy("/bin/bash", &shell).expect("a shell");
        }
        let program = dir.join(&format!("program{begun}"));
        std::fs::hard_link(&shell, &program).expect("a name of its own");
        *begun += 1;
        let mut command = Command::new(program);
        let to = (self.netns.loopback(), 40_000 + port() % 20_000);
        command.args(["-c", &format!("exec 3<>/dev/tcp/{}/{}", to.0, to.1)]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Stuck(self.netns.enter(move || command.spawn().expect("a shell")))
    }
}

/// A program that waits for its connect.
pub struct Stuck(Child);

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether an incident is about this connect.
pub fn to(incident: &Incident, to: SocketAddr) -> bool {
    incident.blamed() == to.to_string()
}

/// A tiny HTTP server: the requests it gets, and what it answers.
pub struct Receiver {
    /// Where it is.
    pub address: SocketAddr,
    /// Requests: headers and body.
    pub got: std::sync::mpsc::Receiver<(Vec<String>, String)>,
}

impl Receiver {
    /// Answers what is about `faults` with these status codes in turn, then with the last of them. What other
    /// tests do at the same time is taken and forgotten.
    pub fn start(at: SocketAddr, statuses: &'static [u16], faults: &Faults) -> Self {
        let ours = faults.netns.name().to_owned();
        let listener = TcpListener::bind(at).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (to, got) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut number = 0;
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = BufReader::new(stream);
                loop {
                    let mut head = Vec::new();
                    let mut line = String::new();
                    while stream.read_line(&mut line).is_ok_and(|len| len > 2) {
                        head.push(line.trim_end().to_lowercase());
                        line.clear();
                    }
                    if head.is_empty() {
                        break;
                    }
                    let length =
                        head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                    let mut body = vec![0; length.unwrap_or(0)];
                    std::io::Read::read_exact(&mut stream, &mut body).expect("what it announced");
                    let text = String::from_utf8(body).expect("text");
                    let mine = text.contains(&ours);
                    let status = if mine { statuses[number.min(statuses.len() - 1)] } else { 200 };
                    number += usize::from(mine);
                    let answer = format!("HTTP/1.1 {status} so\r\nContent-Length: 0\r\n\r\n");
                    stream.get_mut().write_all(answer.as_bytes()).expect("it reads");
                    if mine && to.send((head, text)).is_err() {
                        return;
                    }
                }
            }
        });
        Self { address, got }
    }
}
