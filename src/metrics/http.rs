//! HTTP/1.1 for metrics and probes: `GET` of three paths, one request on each connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Sources;
use super::families::{Format, text_of};

/// Maximum number of connections. Prometheus has one, and so has a probe.
const MAX_CONNECTIONS: usize = 8;

/// Maximum length of a request's headers, and the least that the library works with.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// Maximum number of a request's headers. Prometheus sends five.
const MAX_HEADERS: usize = 32;

/// What a connection holds beside its response: its headers, and what they are parsed into.
const CONNECTION_BYTES: usize = 32 * 1024;

/// Time for a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a connection in all: Prometheus gives up after ten seconds by default.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Back-off after an accept that failed, mostly for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

const OPEN_METRICS: &str = "application/openmetrics-text";

/// A socket that clients connect to.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Serves until it is dropped.
pub async fn serve(listener: Listener, sources: Arc<Sources>) {
    let mut connections = Connections::default();
    loop {
        let sources = sources.clone();
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                connections.open(|request| converse(TokioIo::new(stream), request, sources));
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                connections.open(|request| converse(TokioIo::new(stream), request, sources));
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!("cannot accept a connection for metrics: {error}");
            sleep(ACCEPT_BACKOFF).await;
        }
    }
}

/// The open connections, at most [`MAX_CONNECTIONS`]. A further one takes the place of the oldest
/// that has sent no request yet, so that clients that stall cannot keep a probe from its answer.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// In the order of their arrival.
    open: VecDeque<(AbortHandle, Received)>,
}

/// Whether a connection's request has been received.
type Received = Arc<AtomicBool>;

impl Connections {
    fn open<F>(&mut self, converse: impl FnOnce(Received) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() >= MAX_CONNECTIONS {
            let silent = |(_, received): &(_, Received)| !received.load(Ordering::Relaxed);
            let oldest = self.open.iter().position(silent).unwrap_or_default();
            if let Some((task, _)) = self.open.remove(oldest) {
                task.abort();
            }
        }
        let received = Received::default();
        self.open.push_back((self.tasks.spawn(converse(received.clone())), received));
    }
}

/// Answers one request.
async fn converse(stream: impl Read + Write + Unpin, received: Received, sources: Arc<Sources>) {
    let mut share = sources.memory.empty();
    let answered = timeout(CONNECTION_TIMEOUT, async {
        // What replies may take beside calls that wait: a scrape works when the budget is used up.
        share.grow(CONNECTION_BYTES).await;
        let service = service_fn(|request| {
            received.store(true, Ordering::Relaxed);
            let sources = sources.clone();
            async move { Ok::<_, Infallible>(answer(&request, &sources).await) }
        });
        let mut builder = Builder::new();
        builder
            .keep_alive(false)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS)
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT);
        builder.serve_connection(stream, service).await
    });
    // The client has got an HTTP error, or has left.
    let _ = answered.await;
}

async fn answer(request: &Request<Incoming>, sources: &Sources) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served\n");
        response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => metrics(request.headers(), sources).await,
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" if sources.is_ready() => plain(StatusCode::OK, "ok\n"),
        "/readyz" => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "workers keep failing, or the shim is shutting down; its log says which\n",
        ),
        _ => plain(StatusCode::NOT_FOUND, "only /metrics, /healthz and /readyz are served\n"),
    }
}

async fn metrics(headers: &HeaderMap, sources: &Sources) -> Response<Full<Bytes>> {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (format, kind) = if accepted.any(|value| value.contains(OPEN_METRICS)) {
        (Format::OpenMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    } else {
        (Format::Text, "text/plain; version=0.0.4; charset=utf-8")
    };
    response(StatusCode::OK, kind, text_of(sources, format).await.into())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
