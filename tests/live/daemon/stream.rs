//! The live stream: many readers, and slow ones that do not delay the others.

use std::{
    cell::RefCell,
    collections::HashSet,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{
    harness::{
        daemon::{Faults, Setup},
        eventually, slow,
    },
    needs,
};

const READERS: usize = 100;
const INCIDENTS: usize = 250;

/// A reader that takes nothing.
fn silent_reader(at: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("our own socket");
    socket.connect(&at.into()).expect("it listens");
    let mut stream = TcpStream::from(socket);
    let request = format!("GET /api/v1/stream HTTP/1.1\r\nHost: {at}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    stream
}

#[test]
fn a_hundred_readers_receive_everything_and_one_that_does_not_read_is_disconnected() {
    needs!(Nftables, Pace);
    let (setup, faults) = (Setup::make(), Faults::make());
    let daemon = setup.start("");
    let mut silent: Vec<TcpStream> = (0..5).map(|_| silent_reader(daemon.address)).collect();
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let mut reader = daemon.listen();
            std::thread::spawn(move || {
                let mut opened = HashSet::new();
                while opened.len() < INCIDENTS {
                    let Some(incident) = reader.incident() else { break };
                    opened.insert(incident.id().to_owned());
                }
                (opened.len(), Instant::now())
            })
        })
        .collect();
    let waiting: Vec<_> = (0..INCIDENTS)
        .map(|number| {
            if number % 50 == 49 {
                std::thread::sleep(Duration::from_millis(100));
            }
            faults.begin_as_another_program()
        })
        .collect();
    let seen = RefCell::new(HashSet::new());
    daemon.culprit.wait_for_incident("the last", |incident| {
        seen.borrow_mut().insert(incident.id().to_owned());
        seen.borrow().len() >= INCIDENTS
    });
    let printed = Instant::now();
    for reader in readers {
        let (emitted, at) = reader.join().expect("no panic");
        assert_eq!(emitted, INCIDENTS);
        let behind = at.saturating_duration_since(printed);
        assert!(behind < Duration::from_secs(2).mul_f64(slow()), "{behind:?}");
    }
    // A reader that takes nothing is disconnected once the kernel's buffer for it is full.
    let more: Vec<_> = (0..INCIDENTS).map(|_| faults.begin_as_another_program()).collect();
    eventually("no reader is served any more", || {
        let metrics = daemon.get("/metrics").body;
        metrics.lines().any(|line| line == "culprit_sink_queue_length{sink=\"stream\"} 0")
    });
    for reader in &mut silent {
        reader.set_read_timeout(Some(Duration::from_secs(10))).expect("our own socket");
        // What was sent before comes first, then the end.
        reader.read_to_end(&mut Vec::new()).expect("it was cut off");
    }
    assert_eq!(daemon.get("/healthz").status, 200);
    drop((waiting, more));
}
