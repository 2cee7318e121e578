//! Readers of the daemon over HTTP, as simple as can be: a request with an answer, and a reader of the live
//! stream that counts what it receives.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ureq::Agent;

use crate::bench::soak::report::Stream;

/// An answer takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A reader of the stream looks up so often whether it is over.
const LOOK_UP: Duration = Duration::from_millis(500);

/// The body of what is answered, with 200.
pub(super) fn get(to: SocketAddr, path: &str) -> Result<Vec<u8>> {
    // No proxy of this machine's stands between.
    let config = Agent::config_builder().timeout_global(Some(PATIENCE)).proxy(None);
    let answer = Agent::from(config.build()).get(format!("http://{to}{path}")).call();
    let body = answer.and_then(|mut answer| answer.body_mut().read_to_vec());
    body.with_context(|| format!("asking for {path}"))
}

/// Reads the live stream until it is over.
pub(super) fn follow(to: SocketAddr, over: &AtomicBool) -> Stream {
    let mut read = Stream::default();
    if let Err(why) = lines(to, over, &mut read.events) {
        read.ended = Some(format!("{why:#}"));
    }
    read
}

fn lines(to: SocketAddr, over: &AtomicBool, events: &mut u64) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connecting for the stream")?;
    stream.set_read_timeout(Some(LOOK_UP)).context("limiting its patience")?;
    let request = format!("GET /api/v1/stream HTTP/1.1\r\nHost: {to}\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).context("asking for the stream")?;
    let (mut stream, mut line) = (BufReader::new(stream), Vec::new());
    let mut first = true;
    while !over.load(Ordering::Relaxed) {
        match stream.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => {
                ensure!(
                    !first || line.starts_with(b"HTTP/1.1 200"),
                    "the stream: {}",
                    String::from_utf8_lossy(&line)
                );
                ensure!(line != b"event: lagged\n", "the stream: this reader was too slow");
                first = false;
                *events += u64::from(line == b"event: incident\n");
                line.clear();
            }
            Ok(_) => {
                ensure!(over.load(Ordering::Relaxed), "the stream ended");
            }
            // What has come of a line so far stays in it.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("reading the stream"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn only_an_answer_with_200_has_a_body() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            for status in ["200 OK", "503 Busy"] {
                let (mut stream, _) = listener.accept().unwrap();
                write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
                    .unwrap();
                let mut request = BufReader::new(stream).lines();
                assert_eq!(request.next().unwrap().unwrap(), "GET /x HTTP/1.1");
            }
        });
        assert_eq!(get(to, "/x").unwrap(), b"hi");
        let refused = format!("{:#}", get(to, "/x").unwrap_err());
        assert!(refused.contains("/x") && refused.contains("503"), "{refused}");
        server.join().unwrap();
    }
}
