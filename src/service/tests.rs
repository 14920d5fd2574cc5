//! Connections on a paused clock: what is waited for, and for how long.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::Request;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admission::{Budget, Memory};
use crate::backend::{self, Backend, HookSource, InPath, Settings};
use crate::hook::Checks;

/// A `SETTINGS` frame without settings, which follows the preface.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A server without hooks.
struct Bench {
    shim: Arc<Shim>,
    connections: mpsc::Sender<Accepted>,
    _serving: JoinHandle<()>,
}

impl Bench {
    async fn start() -> Self {
        let memory = Memory::new(16 << 20);
        let settings = Settings {
            min_workers: 0,
            max_workers: 1,
            idle_timeout: Duration::from_secs(1),
            queue: crate::admission::Load { calls: 1, bytes: 1 },
            max_requests: None,
            worker_memory: None,
            checks: Checks::None,
            start_timeout: Duration::from_secs(1),
            kill_grace: Duration::from_secs(1),
            memory: memory.clone(),
        };
        let source = HookSource::Exec(InPath::default());
        let backend = Backend::start(&backend::Config { source, settings }).await.unwrap();
        let shim = Arc::new(Shim {
            recorder: None,
            calls: AtomicU64::new(0),
            stats: Arc::new(crate::stats::Stats::new(backend.hooks())),
            backend: Arc::new(backend),
            call_timeout: None,
            slow: None,
            log_changes: false,
            max_argument_bytes: None,
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
            in_flight: Budget::unlimited(),
            memory,
        });
        let (connections, incoming) = mpsc::channel(1);
        let api = Api::Legacy(ApiVersion::V1Alpha3);
        let serving = tokio::spawn(serve(shim.clone(), api, incoming, CancellationToken::new()));
        Self { shim, connections, _serving: serving }
    }

    async fn connect(&self) -> UnixStream {
        let (client, stream) = UnixStream::pair().unwrap();
        let share = self.shim.memory.take(CONNECTION_BYTES).await;
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        self.connections.send(Accepted { stream, share, place }).await.ok().unwrap();
        client
    }

    /// Connects a client that lets the server send this many bytes.
    async fn client(&self, window: u32) -> SendRequest<Bytes> {
        let stream = self.connect().await;
        let (client, connection) =
            Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
        tokio::spawn(connection);
        client.ready().await.unwrap()
    }

    fn held(&self) -> usize {
        self.shim.memory.held().get()
    }
}

/// Sends the headers of a request.
fn begin(
    client: &mut SendRequest<Bytes>,
    path: &str,
    headers: &BTreeMap<&str, &str>,
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut request = Request::post(format!("http://localhost{path}"));
    request = request.header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send_request(request.body(()).unwrap(), false).unwrap()
}

/// Waits until the server closes the connection, and returns after how many seconds.
async fn closed(mut stream: UnixStream) -> u64 {
    let started = Instant::now();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    started.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_client_has_ten_seconds_for_its_preface_and_a_minute_for_its_call() {
    use tokio::io::AsyncWriteExt as _;
    let bench = Bench::start().await;
    assert_eq!(closed(bench.connect().await).await, 10);
    let mut half = bench.connect().await;
    half.write_all(&PREFACE[..9]).await.unwrap();
    assert_eq!(closed(half).await, 10);
    let mut idle = bench.connect().await;
    idle.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
    assert_eq!(closed(idle).await, 60);
    assert_eq!(bench.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_not_read_is_cut_after_ten_seconds() {
    let bench = Bench::start().await;
    let mut client = bench.client(0).await;
    let (response, mut body) = begin(&mut client, "/kubevirt.hooks.info.Info/Info", &[].into());
    let started = Instant::now();
    body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(bench.shim.in_flight.held().get().calls, 1, "its call is not over");
    let error = body.data().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(started.elapsed().as_secs(), 10);
    assert_eq!(bench.shim.in_flight.held().get().calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_has_until_its_deadline_to_arrive_and_a_minute_at_most() {
    let path = "/kubevirt.hooks.v1alpha3.Callbacks/OnDefineDomain";
    for (headers, seconds) in
        [(vec![("grpc-timeout", "20S")], 19), (vec![("grpc-timeout", "9H")], 60), (vec![], 60)]
    {
        let bench = Bench::start().await;
        let mut client = bench.client(65_535).await;
        let (response, mut body) = begin(&mut client, path, &headers.into_iter().collect());
        let started = Instant::now();
        // 64 kB that never come.
        body.send_data(Bytes::from_static(&[0, 0, 1, 0, 0]), false).unwrap();
        let head = response.await.unwrap();
        assert_eq!(head.headers()["grpc-status"], "4");
        assert_eq!(started.elapsed().as_secs(), seconds);
    }
}
