//! Sends responses, and holds a call's memory until its client has read them.

use std::convert::Infallible;
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::admission::{Memory, Permit, Share, WaitsFor};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");

/// Time for a client to read a response. It is its last act in a call, on the same machine.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a response that was cut to leave the connection's buffers.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// The client did not read a response, and the connection has to be closed to get rid of it.
pub(super) struct Unread;

/// What a call holds until its response is read.
pub(super) struct Held {
    pub(super) share: Share,
    #[expect(dead_code, reason = "it counts the call until it is dropped")]
    pub(super) in_flight: Permit,
}

/// A message on its way, which the HTTP/2 library drops when all of it has been written.
struct Outgoing {
    message: Bytes,
    _held: Option<Held>,
    /// Closes when this is dropped.
    _written: oneshot::Sender<Infallible>,
}

impl AsRef<[u8]> for Outgoing {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

/// Sends a message and the status OK.
pub(super) async fn send_reply(
    respond: &mut SendResponse<Bytes>,
    message: Bytes,
    held: Held,
    memory: &Memory,
) -> Result<(), Unread> {
    // An error means that the client has left.
    let Ok(mut stream) = respond.send_response(head(), false) else { return Ok(()) };
    let bytes = held.share.bytes();
    let mut written = send_message(&mut stream, message, Some(held));
    let _ = stream.send_trailers([(STATUS, OK)].into_iter().collect());
    let reclaimable = memory.reclaimable(bytes, WaitsFor::Peer);
    let why = tokio::select! {
        () = written.closed() => return Ok(()),
        _ = poll_fn(|context| stream.poll_reset(context)) => "the client reset it",
        () = sleep(READ_TIMEOUT) => "the client did not read it in 10 s",
        () = reclaimable.reclaimed() => "the client did not read it, and others need its memory",
    };
    cut(&mut stream, written, why).await
}

/// Drops what the client has not read of a response.
async fn cut(
    stream: &mut SendStream<Bytes>,
    mut written: Written,
    why: &str,
) -> Result<(), Unread> {
    tracing::warn!(target: "call", "cut a response: {why}");
    stream.send_reset(Reason::ENHANCE_YOUR_CALM);
    // A piece of it may be in the connection's buffer, which the client does not read either.
    timeout(CUT_TIMEOUT, written.closed()).await.map_err(|_| Unread)
}

/// Starts a response that consists of several messages.
pub(super) fn start_stream(respond: &mut SendResponse<Bytes>) -> Option<SendStream<Bytes>> {
    respond.send_response(head(), false).ok()
}

/// Sends one of several messages. Returns whether the client has read it.
pub(super) async fn send_next(stream: &mut SendStream<Bytes>, message: Bytes) -> bool {
    let mut written = send_message(stream, message, None);
    timeout(READ_TIMEOUT, written.closed()).await.is_ok()
}

/// Ends a response of several messages.
pub(super) fn end_stream(stream: &mut SendStream<Bytes>, status: &Status) {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_ok() {
        let _ = stream.send_trailers(trailers);
    }
}

/// Sends a status without a message.
pub(super) fn send_status(respond: &mut SendResponse<Bytes>, status: &Status, http: StatusCode) {
    let mut response = head();
    *response.status_mut() = http;
    if status.add_header(response.headers_mut()).is_ok() {
        // An error means that the client has left.
        let _ = respond.send_response(response, true);
    }
}

fn head() -> Response<()> {
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, GRPC);
    head
}

/// Closes when a message has been written to the socket, or dropped.
struct Written(oneshot::Receiver<Infallible>);

impl Written {
    async fn closed(&mut self) {
        let _ = (&mut self.0).await;
    }
}

fn send_message(stream: &mut SendStream<Bytes>, message: Bytes, held: Option<Held>) -> Written {
    let (written, closed) = oneshot::channel();
    let outgoing = Outgoing { message, _held: held, _written: written };
    // An error means that the client has left.
    let _ = stream.send_data(Bytes::from_owner(outgoing), false);
    Written(closed)
}
