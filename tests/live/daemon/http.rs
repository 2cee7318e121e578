//! What is served: every documented route, errors that name the reason, and bounds.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::{
    harness::daemon::{Daemon, Faults, Setup, to},
    needs,
};

/// Sends these bytes and reads to the end.
fn exchange(daemon: &Daemon, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(daemon.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("our own socket");
    // It may hang up before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn raw(daemon: &Daemon, request: &[u8]) -> String {
    String::from_utf8_lossy(&exchange(daemon, request)).into_owned()
}

/// The head, in lower case, and the body of what is answered to who accepts this encoding.
fn encoded(daemon: &Daemon, path: &str, accepted: &str) -> (String, Vec<u8>) {
    // HTTP/1.0 knows no chunks.
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {}\r\nAccept-Encoding: {accepted}\r\n\r\n", daemon.address);
    let answer = exchange(daemon, request.as_bytes());
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    (String::from_utf8_lossy(&answer[..end]).to_lowercase(), answer[end..].to_vec())
}

#[test]
fn what_is_large_is_compressed_for_who_accepts_that_and_an_event_waits_for_no_other() {
    needs!(Pace);
    let setup = Setup::make();
    let daemon = setup.start("");
    let (head, plain) = encoded(&daemon, "/app.js", "identity");
    assert!(!head.contains("content-encoding") && head.contains("\r\nvary: accept-encoding"), "{head}");
    for refused in ["gzip;q=0", "br"] {
        assert_eq!(encoded(&daemon, "/app.js", refused).1, plain, "{refused}");
    }
    for path in ["/app.js", "/metrics", "/api/v1/openapi.json"] {
        let (head, packed) = encoded(&daemon, path, "br, gzip");
        let is_packed =
            head.contains("\r\ncontent-encoding: gzip") && head.contains("\r\nvary: accept-encoding");
        assert!(is_packed && !head.contains("content-length"), "{path}: {head}");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).expect("gzip");
        assert!(packed.len() < unpacked.len() / 2, "{path}: {} of {}", packed.len(), unpacked.len());
        assert!(path != "/app.js" || unpacked == plain, "{}", String::from_utf8_lossy(&unpacked));
    }
    let (head, small) = encoded(&daemon, "/healthz", "gzip");
    assert!(!head.contains("content-encoding") && small == b"ok\n", "{head}");
    let mut stream = TcpStream::connect(daemon.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("our own socket");
    let request =
        format!("GET /api/v1/stream HTTP/1.1\r\nHost: {}\r\nAccept-Encoding: gzip\r\n\r\n", daemon.address);
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut said = String::new();
    while !said.contains("culprit.stream") {
        let mut some = [0; 1024];
        let len = stream.read(&mut some).expect("its first line comes at once");
        assert_ne!(len, 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&some[..len]));
    }
    assert!(!said.to_lowercase().contains("content-encoding"), "{said}");
}

#[test]
fn every_documented_route_answers_as_documented_and_errors_name_the_reason() {
    needs!(Nftables, Pace);
    let (setup, faults) = (Setup::make(), Faults::make());
    let daemon = setup.start("");
    let (_waits, at) = faults.begin();
    let opened = daemon.culprit.wait_for_incident("one", |incident| to(incident, at) && incident.opens());
    let document = daemon.get("/api/v1/openapi.json").json();
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 9, "{paths:?}");
    for (path, route) in paths.iter().filter(|(path, _)| *path != "/api/v1/stream") {
        let answer = daemon.get(&path.replace("{id}", opened.id()));
        let documented = &route["get"]["responses"]["200"]["content"];
        let kinds: Vec<&String> = documented.as_object().expect("content").keys().collect();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(kinds.iter().any(|kind| answer.kind.starts_with(kind.as_str())), "{path}: {answer:?}");
    }
    let by_id = &paths["/api/v1/incidents/{id}"]["get"]["responses"]["200"]["content"];
    assert!(by_id["application/json"].is_object() && by_id["text/plain"].is_object(), "{by_id}");
    let page = daemon
        .get("/api/v1/incidents?state=open&severity=warning&kind=connect_stalled&since=1h&limit=1")
        .json();
    assert_eq!(page["incidents"][0]["kind"], "connect_stalled", "{page}");
    let text = daemon.get(&format!("/api/v1/incidents/{}?format=text", opened.id()));
    assert!(text.kind.starts_with("text/plain") && text.body.contains("CONNECT STALLED"), "{text:?}");
    for (path, status, why) in [
        ("/api/v1/incidents?kind=wibble", 400, "kind=wibble: there is no such kind: tls_handshake_stalled"),
        ("/api/v1/incidents?state=maybe", 400, "state=maybe: open or resolved"),
        ("/api/v1/incidents?since=yesterday", 400, "since=yesterday: write a time such as"),
        ("/api/v1/incidents?limit=0", 400, "limit=0: 1 to 1000"),
        ("/api/v1/incidents?wibble=1", 400, "wibble"),
        ("/api/v1/incidents/00000000000000000000000000", 404, "there is no incident 0000"),
        ("/nothing", 404, "there is nothing at /nothing"),
    ] {
        let answer = daemon.get(path);
        let said = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == status && said.contains(why), "{path}: {answer:?}");
    }
    let ready = daemon.get("/readyz").json();
    assert_eq!((&ready["ready"], ready["probes"].as_array().map(Vec::len)), (&true.into(), Some(5)));
    let probes = daemon.get("/api/v1/probes").json();
    assert_eq!(probes["probes"][0]["hooks"][0]["program"], "connect4");
}

#[test]
fn oversized_malformed_and_misdirected_requests_are_refused() {
    needs!(Pace);
    let setup = Setup::make();
    let daemon = setup.start("");
    let host = format!("Host: {}\r\n", daemon.address);
    let post = raw(&daemon, format!("POST /metrics HTTP/1.1\r\n{host}Connection: close\r\n\r\n").as_bytes());
    assert!(post.starts_with("HTTP/1.1 405") && post.contains("read-only"), "{post}");
    let large = format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(64 << 10));
    let large = raw(&daemon, large.as_bytes());
    assert!(large.starts_with("HTTP/1.1 431"), "{large}");
    // A name that was made to point here.
    let other = daemon.get_with("/api/v1/incidents", &[("Host", "evil.example.com")]);
    assert!(other.status == 421 && other.body.contains("loopback"), "{other:?}");
    assert_eq!(daemon.get_with("/healthz", &[("Host", "localhost:1")]).status, 200);
    let rubbish = raw(&daemon, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert!(rubbish.is_empty() || rubbish.starts_with("HTTP/1.1 400"), "{rubbish}");
    // Half a head is waited for, but not for ever, and no other client waits; nor is one that says nothing.
    let mut silent = TcpStream::connect(daemon.address).expect("it listens");
    let mut slow = TcpStream::connect(daemon.address).expect("it listens");
    slow.write_all(b"GET / HTTP/1.1\r\nHost").expect("it reads");
    assert_eq!(daemon.get("/healthz").status, 200);
    for stream in [&mut slow, &mut silent] {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("our own socket");
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).is_ok(), "it was left open");
    }
}

#[test]
fn connections_beyond_the_limit_are_refused_and_the_others_are_served() {
    needs!(Pace);
    let setup = Setup::make();
    let daemon = setup.start("");
    let mut held: Vec<TcpStream> =
        (0..600).map(|_| TcpStream::connect(daemon.address).expect("it listens")).collect();
    let mut closed = 0;
    // The last ones: the first have ten seconds to say something, and are to be heard below.
    for stream in held.iter_mut().rev() {
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("our own socket");
        closed += usize::from(matches!(stream.read(&mut [0; 1]), Ok(0)));
        if closed >= 80 {
            break;
        }
    }
    assert!(closed >= 80, "{closed}");
    let first = &mut held[0];
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", daemon.address);
    first.write_all(request.as_bytes()).expect("it reads");
    first.set_read_timeout(Some(Duration::from_secs(10))).expect("our own socket");
    let mut answer = String::new();
    first.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(held);
    crate::harness::eventually("there is room again", || {
        TcpStream::connect(daemon.address).is_ok_and(|mut stream| {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            stream.write_all(request.as_bytes()).is_ok() && stream.read(&mut [0; 1]).is_ok_and(|len| len == 1)
        })
    });
}
