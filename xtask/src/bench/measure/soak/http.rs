//! Readers of the daemon over HTTP, as simple as can be: a request with an answer, and a reader of the live
//! stream that counts what it receives.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::bench::soak::report::Stream;

/// An answer takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A reader of the stream looks up so often whether it is over.
const LOOK_UP: Duration = Duration::from_millis(500);

/// The body of what is answered, with 200.
pub(super) fn get(to: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let ask = || -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().with_context(|| format!("asking for {path}"))?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.with_context(|| format!("{path}: no HTTP was answered"))? + 4);
    let status =
        String::from_utf8_lossy(head.split(|&byte| byte == b'\r').next().unwrap_or_default()).into_owned();
    ensure!(status.contains(" 200"), "{path}: {status}");
    Ok(body.to_owned())
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
