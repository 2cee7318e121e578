//! TLS by two libraries: OpenSSL's tools as processes, rustls in threads of the test.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::danger::ClientCertVerifier,
};

use super::{
    Netns, Running, Scratch,
    process::{run, words},
};

/// The name in every test certificate.
pub const NAME: &str = "service.test";

const REQUEST: &str = "\
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = service.test
[extensions]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:service.test, IP:127.0.0.1
";

/// A key and its self-signed certificate.
pub struct Identity {
    scratch: Scratch,
}

impl Identity {
    /// Makes one.
    #[track_caller]
    pub fn make() -> Self {
        let identity = Self { scratch: Scratch::make() };
        let config = identity.scratch.join("request");
        std::fs::write(&config, REQUEST).expect("our own directory");
        let mut request =
            words("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2");
        request
            .arg("-config")
            .arg(config)
            .arg("-keyout")
            .arg(identity.key())
            .arg("-out")
            .arg(identity.cert());
        run(&mut request);
        identity
    }

    /// One whose certificate has expired.
    #[track_caller]
    pub fn expired() -> Self {
        let identity = Self::make();
        let over = identity.scratch.join("over.pem");
        let mut sign = words("openssl x509 -days -1");
        sign.arg("-in").arg(identity.cert()).arg("-signkey").arg(identity.key()).arg("-out").arg(&over);
        run(&mut sign);
        std::fs::rename(over, identity.cert()).expect("our own directory");
        identity
    }

    /// The certificate, PEM.
    pub fn cert(&self) -> PathBuf {
        self.scratch.join("cert.pem")
    }

    /// The key, PEM.
    pub fn key(&self) -> PathBuf {
        self.scratch.join("key.pem")
    }

    fn cert_der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.cert()).expect("made by openssl")
    }

    /// `openssl s_server` inside, listening; `-www` makes it answer each connection by itself.
    #[track_caller]
    pub fn server(&self, netns: &Netns, at: SocketAddr, options: &str) -> Running {
        let mut command = words(&format!("openssl s_server -accept {at} -www {options}"));
        command.arg("-cert").arg(self.cert()).arg("-key").arg(self.key());
        let server = netns.spawn(command);
        server.wait_for_line("ACCEPT");
        server
    }

    /// A rustls client that trusts this identity and nothing else.
    pub fn client_config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.cert_der()).expect("a certificate");
        ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
    }

    /// A rustls client connection about to say hello.
    pub fn client(&self, change: impl FnOnce(&mut ClientConfig)) -> ClientConnection {
        let mut config = self.client_config();
        change(&mut config);
        ClientConnection::new(Arc::new(config), NAME.try_into().expect("a name"))
            .expect("a sound configuration")
    }

    /// The same, asking for a name that is not in the certificate.
    pub fn client_for(&self, name: &'static str) -> ClientConnection {
        ClientConnection::new(Arc::new(self.client_config()), name.try_into().expect("a name"))
            .expect("a sound configuration")
    }

    /// A rustls server connection waiting for a hello.
    pub fn server_connection(&self) -> ServerConnection {
        let key = PrivateKeyDer::from_pem_file(self.key()).expect("made by openssl");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.cert_der()], key)
            .expect("a sound configuration");
        ServerConnection::new(Arc::new(config)).expect("a sound configuration")
    }

    /// The same, asking for a client certificate that `verifier` judges.
    pub fn server_connection_with(&self, verifier: Arc<dyn ClientCertVerifier>) -> ServerConnection {
        let key = PrivateKeyDer::from_pem_file(self.key()).expect("made by openssl");
        let config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.cert_der()], key)
            .expect("a sound configuration");
        ServerConnection::new(Arc::new(config)).expect("a sound configuration")
    }
}

/// `openssl s_client` inside, asking for a name.
#[track_caller]
pub fn openssl_client_for(netns: &Netns, to: SocketAddr, name: &str, options: &str) -> Running {
    netns.spawn(words(&format!("openssl s_client -connect {to} -servername {name} {options}")))
}

/// `openssl s_client` inside; it stays connected until hushed.
#[track_caller]
pub fn openssl_client(netns: &Netns, to: SocketAddr, options: &str) -> Running {
    netns.spawn(words(&format!("openssl s_client -connect {to} -servername {NAME} {options}")))
}

/// Like `openssl_client`, with a certificate of its own.
#[track_caller]
pub fn openssl_client_as(identity: &Identity, netns: &Netns, to: SocketAddr, options: &str) -> Running {
    let mut command: Command = words(&format!("openssl s_client -connect {to} -servername {NAME} {options}"));
    command.arg("-cert").arg(identity.cert()).arg("-key").arg(identity.key());
    netns.spawn(command)
}

/// Drives either side's handshake to its end.
#[track_caller]
pub fn handshake<D: rustls::SideData>(
    connection: &mut rustls::ConnectionCommon<D>,
    stream: &mut TcpStream,
) -> std::io::Result<()> {
    while connection.is_handshaking() {
        connection.complete_io(stream)?;
    }
    // The last flight may still be ours to send.
    while connection.wants_write() {
        connection.write_tls(stream)?;
    }
    Ok(())
}

/// The bytes of the ClientHello this connection begins with.
pub fn hello_of(connection: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).expect("memory");
    }
    bytes
}

/// Sends each piece as a segment of its own.
#[track_caller]
pub fn send_in_pieces(stream: &mut TcpStream, pieces: &[&[u8]]) {
    stream.set_nodelay(true).expect("TCP");
    for piece in pieces {
        stream.write_all(piece).expect("the peer reads or buffers");
    }
}

/// Reads until the peer closes.
pub fn drain(stream: &mut TcpStream) {
    let mut chunk = [0; 4096];
    while matches!(stream.read(&mut chunk), Ok(1..)) {}
}
