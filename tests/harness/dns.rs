//! DNS messages, and a server in a thread that answers as it is configured.

use std::{
    fs,
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    process::Command,
    thread::JoinHandle,
};

use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE, rdata::RData,
};

use super::{Netns, Running, eventually, sockets::me};

/// The port culprit knows DNS by.
pub const PORT: u16 = 53;

/// A query for the IPv4 address of a name.
pub fn query(id: u16, name: &str) -> Vec<u8> {
    query_for(id, name, TYPE::A)
}

/// A query for records of this type.
pub fn query_for(id: u16, name: &str, query_type: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).expect("a name");
    packet.questions.push(Question::new(name, QTYPE::TYPE(query_type), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().expect("well-formed")
}

/// What the server says.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// This address.
    Address(Ipv4Addr),
    /// No address, for this reason.
    No(RCODE),
    /// Too much for UDP: the answer is cut.
    Truncated,
}

impl Answer {
    /// The reply to a query.
    pub fn to(self, query: &[u8]) -> Vec<u8> {
        let mut packet = Packet::parse(query).expect("a query").into_reply();
        let asked = Packet::parse(query).expect("a query");
        let question = asked.questions.first().expect("one question").clone();
        match self {
            Self::Address(address) => packet.answers.push(ResourceRecord::new(
                question.qname.clone(),
                CLASS::IN,
                60,
                RData::A(address.into()),
            )),
            Self::No(rcode) => *packet.rcode_mut() = rcode,
            Self::Truncated => packet.set_flags(PacketFlag::TRUNCATION),
        }
        if packet.questions.is_empty() {
            packet.questions.push(question);
        }
        packet.build_bytes_vec().expect("well-formed")
    }
}

/// Answers one query over UDP inside, then ends.
#[track_caller]
pub fn answer_once(netns: &Netns, at: SocketAddr, answer: Answer) -> JoinHandle<()> {
    let socket = netns.enter(move || UdpSocket::bind(at).expect("a free port"));
    netns.thread_named("dns-server", move || {
        let mut query = [0; 512];
        let (len, from) = socket.recv_from(&mut query).expect("a query");
        socket.send_to(&answer.to(&query[..len]), from).expect("the client waits");
    })
}

/// Answers so many queries over UDP inside, each as it is planned: not at all where there is no answer; then ends.
#[track_caller]
pub fn answer_in_turn(netns: &Netns, at: SocketAddr, plan: Vec<Option<Answer>>) -> JoinHandle<()> {
    let socket = netns.enter(move || UdpSocket::bind(at).expect("a free port"));
    netns.thread_named("dns-server", move || {
        for answer in plan {
            let mut query = [0; 512];
            let (len, from) = socket.recv_from(&mut query).expect("a query");
            if let Some(answer) = answer {
                socket.send_to(&answer.to(&query[..len]), from).expect("the client waits");
            }
        }
    })
}

/// dnsmasq inside, which answers at an address by asking another server.
#[track_caller]
pub fn dnsmasq(netns: &Netns, at: IpAddr, upstream: IpAddr) -> Running {
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq
        .args([
            "-k",
            "-C",
            "/dev/null",
            "--no-hosts",
            "--no-resolv",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
        ])
        .arg(format!("--listen-address={at}"))
        .arg(format!("--server={upstream}"));
    let running = netns.spawn(dnsmasq);
    eventually("dnsmasq is ready", || {
        let bound = netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/udp").expect("proc"));
        bound.contains(":0035 ")
    });
    running
}

/// Answers queries without an OPT record over UDP inside, as many as this, and drops those with one; then ends.
#[track_caller]
pub fn answer_without_edns(netns: &Netns, at: SocketAddr, answers: usize, answer: Answer) -> JoinHandle<()> {
    let socket = netns.enter(move || UdpSocket::bind(at).expect("a free port"));
    netns.thread_named("dns-server", move || {
        let (mut query, mut left) = ([0; 512], answers);
        while left > 0 {
            let (len, from) = socket.recv_from(&mut query).expect("a query");
            if Packet::parse(&query[..len]).expect("a query").opt().is_none() {
                socket.send_to(&answer.to(&query[..len]), from).expect("the client waits");
                left -= 1;
            }
        }
    })
}

/// What `ip netns exec` mounts over `/etc/resolv.conf` of processes in a namespace.
pub struct ResolvConf(PathBuf);

impl ResolvConf {
    /// It names this server, with these options.
    #[track_caller]
    pub fn naming(server: IpAddr, options: &str, netns: &Netns) -> Self {
        let directory = PathBuf::from("/etc/netns").join(netns.name());
        fs::create_dir_all(&directory).expect("root may");
        let all = format!("nameserver {server}\noptions {options}\n");
        fs::write(directory.join("resolv.conf"), all).expect("root may");
        Self(directory)
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // Goes when it is empty.
        let _ = fs::remove_dir("/etc/netns");
    }
}

/// Asks over UDP and returns the answer.
pub fn ask(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.send(query)?;
    let mut answer = vec![0; 512];
    let len = socket.recv(&mut answer)?;
    answer.truncate(len);
    Ok(answer)
}

/// Asks inside as often as this, of a server that does not answer: the socket, which waits, and the thread.
pub fn ask_unanswered(
    netns: &Netns,
    server: SocketAddr,
    query: Vec<u8>,
    times: u32,
) -> (UdpSocket, (u32, u32)) {
    netns.enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("any port");
        socket.connect(server).expect("UDP never refuses");
        for _ in 0..times {
            socket.send(&query).expect("loopback takes it");
        }
        (socket, me())
    })
}

/// A message as TCP has it, after its length (RFC 1035 §4.2.2).
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = u16::try_from(message.len()).expect("short").to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    framed
}

/// Reads such a message.
pub fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).expect("a length");
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message).expect("a message");
    message
}
