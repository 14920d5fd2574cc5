//! One connection: its calls, its windows, and when it is closed.
//!
//! # Theory of operation
//! A connection holds a share of the memory from the moment it is accepted. The share covers what
//! its client may send without asking: the window of the connection. It is opened further for
//! calls that are admitted, and for each further call at a time. While no call is open the
//! connection counts as idle, and may be reclaimed to make space for another one.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection as Http2};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::call::{Calls, Connection};
use super::request::Window;
use super::router::Router;
use super::shim::Shim;
use super::turns::Turns;
use crate::admission::{Reclaimable, Share, WaitsFor};

/// HTTP/2's window at the beginning, for one stream and for the connection (RFC 9113, section
/// 6.9.2): what a client may send before its call is admitted.
const WINDOW_BYTES: u32 = 65_535;

/// Maximum length of an HTTP/2 frame, which is received as a whole; clients choose any length below
/// it. KubeVirt's sends 16 kB.
const FRAME_BYTES: u32 = 64 * 1024;

/// Maximum length of a request's headers. gRPC clients send a few hundred bytes.
const HEADER_BYTES: u32 = 8 * 1024;

/// What a response may hold of the connection's buffers.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Maximum number of calls in flight on one connection; the client delays further ones. KubeVirt
/// makes one call on each connection.
const MAX_STREAMS: u32 = 16;

/// The share of a connection: its window, a frame that is being received, its headers and its
/// state.
pub const CONNECTION_BYTES: usize = 192 * 1024;

/// Time for the client's preface. gRPC clients send it at once; one that does not hangs, or only
/// probes whether the socket accepts connections.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time after which a connection without a call is closed. An ordinary one is for one call, and
/// closed by its client.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for a client to read its last responses when the shim closes its connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection was closed by the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    ByClient,
    NoPreface,
    Idle,
    /// Others needed its place or its memory.
    Reclaimed,
    /// Its client did not send what it had announced, or did not read a response.
    Stalled,
}

/// Serves a connection until its client closes it, it is idle for too long, or after `stop` its
/// calls have finished.
pub(super) async fn serve(
    stream: UnixStream,
    share: Share,
    shim: Arc<Shim>,
    router: Arc<Router>,
    stop: CancellationToken,
) -> Closed {
    let idle = shim.memory.reclaimable(share.bytes(), WaitsFor::Call);
    let handshake = timeout(PREFACE_TIMEOUT, builder().handshake(Turns::new(stream)));
    let http2 = tokio::select! {
        http2 = handshake => match http2 {
            Ok(Ok(http2)) => http2,
            Ok(Err(_)) => return Closed::ByClient,
            Err(_) => return Closed::NoPreface,
        },
        () = idle.reclaimed() => return Closed::Reclaimed,
        () = stop.cancelled() => return Closed::ByClient,
    };
    let connection_bytes = share.bytes();
    let calls = Calls { shim, router, window: Window::default(), connection_bytes };
    let idle = Some((idle, Instant::now() + IDLE_TIMEOUT));
    let open = JoinSet::new();
    let state = State { http2, share, calls, open, idle, windows: 1, closing: None };
    state.run(stop).await
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    builder
}

struct State {
    http2: Http2<Turns, Bytes>,
    share: Share,
    calls: Calls,
    open: JoinSet<Connection>,
    /// While no call is open, and until when.
    idle: Option<(Reclaimable, Instant)>,
    /// The number of calls whose first bytes its window allows.
    windows: usize,
    /// Once it accepts no more calls: the time for its client to read the last responses. If others
    /// need its place there is none: what is in the socket by then is there for the client.
    closing: Option<Duration>,
}

impl State {
    async fn run(mut self, stop: CancellationToken) -> Closed {
        let mut opened = self.calls.window.0.subscribe();
        let mut stopping = false;
        loop {
            tokio::select! {
                request = self.http2.accept() => {
                    let Some(Ok((request, respond))) = request else { return Closed::ByClient };
                    self.open.spawn(self.calls.clone().run(request, respond));
                    self.idle = None;
                    self.add_window();
                }
                Some(ended) = self.open.join_next() => {
                    // A call that panicked has been logged, and its stream reset.
                    let close = match ended.unwrap_or(Connection::Keep) {
                        Connection::Keep => None,
                        Connection::Close => Some(CLOSE_TIMEOUT),
                        Connection::CloseAtOnce => Some(Duration::ZERO),
                    };
                    if let Some(time) = close {
                        if self.closing.is_none() {
                            self.http2.graceful_shutdown();
                        }
                        self.closing = Some(self.closing.unwrap_or(time).min(time));
                    }
                    if self.open.is_empty() {
                        if let Some(time) = self.closing {
                            let _ = timeout(time, closed(&mut self.http2)).await;
                            return Closed::Stalled;
                        }
                        let bytes = self.share.bytes();
                        let idle = self.calls.shim.memory.reclaimable(bytes, WaitsFor::Call);
                        self.idle = Some((idle, Instant::now() + IDLE_TIMEOUT));
                    }
                }
                Ok(()) = opened.changed() => self.set_window(*opened.borrow_and_update()),
                () = reclaimed(self.idle.as_ref()) => return Closed::Reclaimed,
                () = idle_timeout(self.idle.as_ref()) => return Closed::Idle,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.http2.graceful_shutdown();
                }
            }
        }
    }

    /// Opens the window for the first bytes of one more call, so that calls on one connection do
    /// not wait for each other. Without memory for it they do.
    fn add_window(&mut self) {
        if self.open.len() > self.windows && self.share.try_grow(WINDOW_BYTES as usize) {
            self.windows += 1;
            let open = *self.calls.window.0.borrow();
            self.set_window(open);
        }
    }

    /// Opens the connection's window by what its admitted calls have announced.
    fn set_window(&mut self, announced: usize) {
        let bytes = self.windows * WINDOW_BYTES as usize + announced;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(i32::MAX.cast_unsigned());
        self.http2.set_target_window_size(bytes);
        // The window of each stream can be opened for all streams only, and stays open: what they
        // may send in all is limited by the connection's.
        if announced > 0 && self.open.len() == 1 {
            // An error means that the client has not confirmed the last change yet.
            let _ = self.http2.set_initial_window_size(bytes);
        }
    }
}

/// Waits until the last responses are sent and the connection is closed.
async fn closed(http2: &mut Http2<Turns, Bytes>) {
    // Further calls are reset.
    while let Some(Ok(_)) = http2.accept().await {}
}

async fn reclaimed(idle: Option<&(Reclaimable, Instant)>) {
    match idle {
        Some((idle, _)) => idle.reclaimed().await,
        None => pending().await,
    }
}

async fn idle_timeout(idle: Option<&(Reclaimable, Instant)>) {
    match idle {
        Some((_, at)) => sleep_until(*at).await,
        None => pending().await,
    }
}
