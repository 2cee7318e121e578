//! The listening end: connections, TLS, and what each may take. Runs on a thread with a runtime of its own.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header, uri::Authority},
    response::{IntoResponse, Response},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpStream, sync::oneshot};
use tokio_io_timeout::TimeoutWriter;
use tower::{ServiceExt, service_fn};

use super::{
    App,
    access::{Access, Rules},
    api, error,
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
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = api::router(app.clone());
    let graceful = GracefulShutdown::new();
    let mut stopped = pin!(stopped);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, or gone already: the next may be luckier.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        if app.traffic.connections.load(Relaxed) >= CONNECTIONS {
            app.traffic.refused.fetch_add(1, Relaxed);
            continue;
        }
        let held = Held::new(app.clone());
        let (router, rules, watcher) = (router.clone(), access.now(), graceful.watcher());
        tokio::spawn(async move {
            let _held = held;
            // A client that leaves in between need not explain itself.
            let _ = connection(stream, router, rules, local, watcher).await;
        });
    }
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    router: Router,
    rules: Arc<Rules>,
    local: bool,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BYTES)?;
    let tls = rules.tls.clone();
    let service = service_fn(move |request: axum::http::Request<hyper::body::Incoming>| {
        let (router, rules) = (router.clone(), rules.clone());
        async move { Ok::<_, std::convert::Infallible>(admit(request.map(Body::new), router, rules, local).await) }
    });
    let service = TowerToHyperService::new(service);
    let mut builder = auto::Builder::new(TokioExecutor::new());
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
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE));
    match tls {
        Some(tls) => {
            let acceptor = tokio_rustls::TlsAcceptor::from(tls);
            let stream = tokio::time::timeout(HEAD, acceptor.accept(Box::pin(stream))).await??;
            watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await
        }
        None => {
            let stream = TokioIo::new(Box::pin(stream));
            watcher.watch(builder.serve_connection(stream, service).into_owned()).await
        }
    }
}

/// Whether a request may be answered at all; what every answer carries.
async fn admit(request: Request, router: Router, rules: Arc<Rules>, local: bool) -> Response {
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
        return Some(error::error(StatusCode::MISDIRECTED_REQUEST, why));
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
        let mut response =
            error::error(StatusCode::UNAUTHORIZED, "a user name and a password are wanted").into_response();
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
    fn new(app: Arc<App>) -> Self {
        app.traffic.connections.fetch_add(1, Relaxed);
        Self(app)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.traffic.connections.fetch_sub(1, Relaxed);
    }
}
