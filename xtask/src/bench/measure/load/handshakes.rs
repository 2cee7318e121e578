//! Full TLS 1.3 handshakes: no resumption, no tickets, a certificate made when the server starts.
//! Four threads of the client go for each processor, and two of the server, so that no processor is
//! ever idle; at a pace, one thread of the client goes. The client takes any certificate: it is here
//! to keep the server busy.

use std::{
    io::{self, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct, ServerConfig, ServerConnection,
    SideData, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::NoServerSessionStorage,
    version::TLS13,
};
use socket2::SockRef;

use super::{Done, Drive, Order};

const NAME: &str = "service.test";

pub(super) fn serve(listener: &TcpListener) -> Result<()> {
    let config = Arc::new(server_config()?);
    let threads = 2 * processors();
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| answer(listener, &config));
        }
        answer(listener, &config)
    })
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn answer(listener: &TcpListener, config: &Arc<ServerConfig>) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().context("accepting")?;
        // A driver that ends in the middle of a handshake is no failure of ours.
        let _ = greet(&mut stream, config);
    }
}

fn greet(stream: &mut TcpStream, config: &Arc<ServerConfig>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    handshake(&mut tls, stream)?;
    tls.send_close_notify();
    tls.write_tls(stream).map(drop)
}

fn handshake<D: SideData>(tls: &mut ConnectionCommon<D>, stream: &mut TcpStream) -> io::Result<()> {
    while tls.is_handshaking() {
        tls.complete_io(stream)?;
    }
    while tls.wants_write() {
        tls.write_tls(stream)?;
    }
    Ok(())
}

fn server_config() -> Result<ServerConfig> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([NAME.to_owned()]).context("making a certificate")?;
    let key =
        PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(|why| anyhow!("the key: {why}"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config() -> Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

pub(super) struct Driver {
    to: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Driver {
    pub(super) fn new(to: SocketAddr) -> Result<Self> {
        Ok(Self { to, config: Arc::new(client_config()?) })
    }

    fn once(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.to)?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        handshake(&mut tls, &mut stream)?;
        // The server's close_notify says that it has finished too. Then a reset: no TIME_WAIT.
        stream.read_to_end(&mut Vec::with_capacity(64))?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    }
}

impl Drive for Driver {
    fn drive(&mut self, order: &Order) -> Result<Done> {
        let began = Instant::now();
        let threads = if order.rate > 0.0 { 1 } else { 4 * processors() };
        let done: Vec<Result<Done>> = thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| order.repeat(|_| self.once().context("a handshake"))))
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a driving thread panicked"))))
                .collect()
        });
        let mut sum = Done { seconds: began.elapsed().as_secs_f64(), ..Done::default() };
        for done in done {
            let done = done?;
            sum.count += done.count;
            sum.stalls += done.stalls;
        }
        Ok(sum)
    }
}

/// Takes any certificate and any signature.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
