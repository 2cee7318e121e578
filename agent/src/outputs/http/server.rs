//! The listening end: connections, TLS, and what each may take. Runs on a thread with a runtime of its own.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    thread::{self, JoinHandle},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, header, uri::Authority},
    response::Response,
};
use axum_server::{Handle, accept::Accept};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::oneshot,
};
use tokio_io_timeout::TimeoutWriter;
use tokio_rustls::rustls::ServerConfig;
use tower::{Service, ServiceExt};

use super::{
    App,
    access::{Access, Rules},
    api,
    error::{Misdirected, Unauthorized},
    limits::{CONNECTIONS, DRAIN, HEAD, HEAD_BYTES, SEND_BYTES, WRITE},
};

/// A server that runs; it ends when this is dropped.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Takes the address.
///
/// # Errors
/// When another process has it, or it is none of this machine's.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Server {
    /// Starts to serve.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(listener: TcpListener, app: Arc<App>, access: Arc<Access>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .thread_name("culprit-http-work")
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("culprit-http".into()).spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, app, access, stopped)) {
                tracing::error!("HTTP is no longer served: {error}");
            }
            runtime.shutdown_background();
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread), address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    access: Arc<Access>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let local = listener.local_addr()?.ip().is_loopback();
    let handle = Handle::new();
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(Door { app: app.clone(), access, local })
        // Also who connects and says nothing: until hyper knows the version it has no time limit of its own.
        .first_request_timeout(HEAD)
        .handle(handle.clone());
    bound(server.http_builder());
    let stop = async {
        let _ = stopped.await;
        handle.graceful_shutdown(Some(DRAIN));
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        served = server.serve(api::router(app).into_make_service()) => served,
        never = stop => never,
    }
}

/// What requests may take.
fn bound(builder: &mut auto::Builder<TokioExecutor>) {
    // Without a Date: a culprit that sees the answer pass would take it for another clock, and it is this one.
    builder.http1().auto_date_header(false).http2().auto_date_header(false);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(32)
        .max_header_list_size(HEAD_BYTES as u32)
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(WRITE);
}

/// Lets connections in: so many at once, by the rules of that moment.
#[derive(Clone)]
struct Door {
    app: Arc<App>,
    access: Arc<Access>,
    local: bool,
}

/// A connection, with or without TLS.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Accept<TcpStream, Router> for Door {
    type Stream = Box<dyn Connection>;
    type Service = Admission;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, router: Router) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            let Some(held) = Held::take(&door.app) else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let rules = door.access.now();
            let stream = secured(stream, rules.tls.clone()).await?;
            Ok((stream, Admission { router, rules, local: door.local, _held: Arc::new(held) }))
        })
    }
}

async fn secured(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Box<dyn Connection>> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BYTES)?;
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE));
    let stream = Box::pin(stream);
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let accepted = tokio::time::timeout(HEAD, tokio_rustls::TlsAcceptor::from(tls).accept(stream)).await;
    Ok(Box::new(accepted.map_err(|_| io::ErrorKind::TimedOut)??))
}

/// Answers the requests of a connection, by the rules there were when it came.
#[derive(Clone)]
struct Admission {
    router: Router,
    rules: Arc<Rules>,
    local: bool,
    _held: Arc<Held>,
}

impl Service<axum::http::Request<Incoming>> for Admission {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::http::Request<Incoming>) -> Self::Future {
        let Self { router, rules, local, .. } = self.clone();
        Box::pin(async move { Ok(admit(request.map(Body::new), router, rules, local).await) })
    }
}

/// Whether a request may be answered at all; what every answer carries.
pub(super) async fn admit(request: Request, router: Router, rules: Arc<Rules>, local: bool) -> Response {
    let caller = Caller::of(&request);
    let mut response = match refusal(caller, &rules, local).await {
        Some(refusal) => refusal,
        None => match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
    };
    for (name, value) in &rules.headers {
        response.headers_mut().insert(name, value.clone());
    }
    response
        .headers_mut()
        .entry(header::X_CONTENT_TYPE_OPTIONS)
        .or_insert(HeaderValue::from_static("nosniff"));
    response
}

/// What of a request decides whether it is answered.
struct Caller {
    host: Option<String>,
    path: String,
    authorization: Option<String>,
}

impl Caller {
    fn of(request: &Request) -> Self {
        let said =
            |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            host: said(header::HOST).or_else(|| request.uri().authority().map(ToString::to_string)),
            path: request.uri().path().to_owned(),
            authorization: said(header::AUTHORIZATION),
        }
    }
}

async fn refusal(caller: Caller, rules: &Arc<Rules>, local: bool) -> Option<Response> {
    // A page somewhere else may have its name point here, and would read everything, as if it were ours: no one
    // calls a loopback address by another name.
    let open = local && rules.tls.is_none() && !rules.wants_password();
    if open && caller.host.is_some_and(|host| !is_own(&host)) {
        let why = "this listens on a loopback address, which has no other name: ask for it by address, or localhost";
        return Some(Misdirected::because(why));
    }
    if !rules.wants_password() || caller.path == "/healthz" || caller.path == "/readyz" {
        return None;
    }
    let admitted = match caller.authorization {
        None => false,
        Some(said) => {
            let rules = rules.clone();
            tokio::task::spawn_blocking(move || rules.admits(Some(&said))).await.unwrap_or(false)
        }
    };
    (!admitted).then(|| {
        let mut response = Unauthorized::because("a user name and a password are wanted");
        let realm = HeaderValue::from_static("Basic realm=\"culprit\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
        response
    })
}

fn is_own(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

/// A connection counts as long as it lives.
struct Held(Arc<App>);

impl Held {
    /// Nothing when there are as many as there may be.
    fn take(app: &Arc<App>) -> Option<Self> {
        let traffic = &app.traffic;
        let room = |open| (open < CONNECTIONS).then_some(open + 1);
        if traffic.connections.fetch_update(Relaxed, Relaxed, room).is_err() {
            traffic.refused.fetch_add(1, Relaxed);
            return None;
        }
        Some(Self(app.clone()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.traffic.connections.fetch_sub(1, Relaxed);
    }
}
