//! One request, from its first header until its response is read.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::CONTENT_TYPE;
use http::{Method as HttpMethod, Request, StatusCode};
use prost::Message as _;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Code;
use tracing::Instrument;

use super::proto::health::HealthCheckRequest;
use super::record::CallRecord;
use super::request::PREFIX_BYTES;
use super::request::{MaxBytes, Message, Receiver, Window};
use super::response::{self, Held, Unread};
use super::router::{Kind, Method, Router};
use super::shim::Shim;
use super::{MAX_REQUEST_BYTES, MAX_SHOWN_BYTES, case, deadline, grpc_status};
use crate::admission::WaitsFor;
use crate::error::{CallError, RequestFault};
use crate::stats::Refusal;
use crate::text::clip;

/// Maximum time for a request to arrive, if the caller's deadline is later.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for the rest of a request that was refused.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum length of a request without documents, and of a reply to one that the connection's share
/// covers.
const MAX_SMALL_BYTES: usize = 4 * 1024;

/// What a request needs beside its documents in exec mode: their tags and lengths, and the type
/// of the domain, the reason for the call or the node's name.
const MAX_FIELDS_BYTES: usize = 1024;

/// What the calls of a connection share.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) shim: Arc<Shim>,
    pub(super) router: Arc<Router>,
    pub(super) window: Window,
    /// The connection's share of the memory.
    pub(super) connection_bytes: usize,
}

/// What becomes of a call's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    Keep,
    /// Its client was promised space that it did not use, or does not read.
    Close,
    /// Others need its place now.
    CloseAtOnce,
}

impl Calls {
    /// Runs a call.
    pub(super) async fn run(
        self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Connection {
        let (head, body) = request.into_parts();
        let started = Instant::now();
        let time = deadline::of(&head.headers, self.shim.call_timeout);
        let path = head.uri.path();
        let found = check(&head)
            .and_then(|()| self.router.find(path).ok_or_else(|| self.router.unknown(path)));
        match found {
            Ok(method) => {
                drop(head);
                let entry = (method.documents > 0).then(|| self.shim.next_entry());
                let record = Arc::new(CallRecord::new(started, time, method.path, entry));
                let span = record.span().clone();
                let served = self.serve(method, record, body, &mut respond);
                served.instrument(span).await
            }
            Err(fault) => {
                let http = match fault {
                    RequestFault::NotGrpc { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    _ => StatusCode::OK,
                };
                let error = fault.into();
                self.count_refusal(&error);
                let path = clip(path, MAX_SHOWN_BYTES).escape_debug().to_string();
                tracing::error!(target: "call", method = path, "call failed: {error}");
                drop(head);
                response::send_status(&mut respond, &grpc_status::of(&error), http);
                self.receive_rest(body).await
            }
        }
    }

    async fn serve(
        &self,
        method: &Method,
        record: Arc<CallRecord>,
        body: RecvStream,
        respond: &mut SendResponse<Bytes>,
    ) -> Connection {
        let in_flight = self.shim.in_flight.count(0);
        let mut receiver = Receiver {
            body,
            unreleased: 0,
            memory: &self.shim.memory,
            window: &self.window,
            max: self.max_bytes(method),
            connection_bytes: self.connection_bytes,
            deadline: record.deadline().min(record.started() + RECEIVE_TIMEOUT),
            time: record.time().min(RECEIVE_TIMEOUT),
            received: record.bytes_in(),
        };
        let replied = tokio::select! {
            replied = self.reply(method, &record, &mut receiver) => replied,
            reset = poll_fn(|context| respond.poll_reset(context)) => {
                let why = reset.map_or_else(|error| error.to_string(), |reason| reason.to_string());
                Err(RequestFault::ClientLeft(why).into())
            }
        };
        let Receiver { body, .. } = receiver;
        let connection = close_unless(body.is_end_stream());
        if method.documents > 0 {
            log_end(&record, &replied);
        }
        // Dropped when the reply was sent: only then is the case written.
        let _case = case::of(self.shim.recorder.as_ref(), &record, replied.as_ref().err());
        match replied {
            Ok(Reply::Message { message, share }) => {
                let held = Held { share, in_flight };
                match response::send_reply(respond, message, held, &self.shim.memory).await {
                    Ok(()) => connection,
                    Err(Unread) => Connection::Close,
                }
            }
            Ok(Reply::Watch(params)) => {
                drop(in_flight);
                if let Kind::Watch(watch) = &method.kind {
                    self.watch(watch.of(&params), respond).await;
                }
                connection
            }
            Err(CallError::Request(RequestFault::ClientLeft(why))) => {
                if method.documents == 0 {
                    tracing::debug!(method = method.path, "the client left: {why}");
                }
                connection
            }
            Err(error) => {
                if method.documents == 0 {
                    tracing::error!(target: "call", method = method.path, "call failed: {error}");
                    self.count_refusal(&error);
                }
                response::send_status(respond, &grpc_status::of(&error), StatusCode::OK);
                drop(in_flight);
                match error {
                    CallError::Request(RequestFault::TooSlow) => Connection::CloseAtOnce,
                    // It was waited for already.
                    CallError::Request(
                        RequestFault::NotReceived { .. } | RequestFault::ShuttingDown,
                    ) => connection,
                    _ => self.receive_rest(body).await,
                }
            }
        }
    }

    /// Receives the request and runs the method.
    async fn reply(
        &self,
        method: &Method,
        record: &Arc<CallRecord>,
        receiver: &mut Receiver<'_>,
    ) -> Result<Reply, CallError> {
        let Message { bytes, mut share } = tokio::select! {
            message = receiver.receive() => message?,
            () = self.shim.give_up.cancelled() => {
                return Err(RequestFault::ShuttingDown.into());
            }
        };
        match &method.kind {
            Kind::Watch(_) => {
                receiver.release();
                let params = HealthCheckRequest::decode(bytes)
                    .map_err(|error| RequestFault::NotDecoded(error.to_string()))?;
                Ok(Reply::Watch(params))
            }
            Kind::Unary(run) => {
                let replied = run(bytes, record.clone()).await;
                // The client hears of it in the packet of the reply, not in one before.
                receiver.release();
                let message = replied?;
                // Only the reply is left, which may be longer than the request.
                let covered = match method.documents {
                    0 => MAX_SMALL_BYTES,
                    _ => share.bytes() + self.connection_bytes,
                };
                let (bytes, budget) = (message.len(), self.shim.memory.limit());
                let no_memory = |_| RequestFault::NoMemoryForReply { bytes, budget };
                let more = share.grow(bytes.saturating_sub(covered));
                timeout_at(record.deadline(), more).await.map_err(no_memory)?;
                share.shrink_to(bytes);
                Ok(Reply::Message { message, share })
            }
        }
    }

    /// Sends the changes of a service's health until the client leaves or the shim stops.
    async fn watch(&self, mut changes: super::health::Changes, respond: &mut SendResponse<Bytes>) {
        let Some(mut stream) = response::start_stream(respond) else { return };
        // Such a call may last for ever: others may have its place.
        let waiting = self.shim.memory.reclaimable(self.connection_bytes, WaitsFor::Peer);
        loop {
            let change = tokio::select! {
                change = changes.next() => change,
                _ = poll_fn(|context| stream.poll_reset(context)) => return,
                () = waiting.reclaimed() => None,
            };
            let Some(change) = change else { break };
            if !response::send_next(&mut stream, super::router::encode(&change)).await {
                return;
            }
        }
        response::end_stream(&mut stream, &grpc_status::of(&RequestFault::WatchEnded.into()));
    }

    /// Drops the rest of a request that was refused. Some clients take a connection that is closed
    /// while they send for a failure of another kind.
    async fn receive_rest(&self, mut body: RecvStream) -> Connection {
        // It is no more than the window allows: no more is released.
        let rest = async { while let Some(Ok(_)) = body.data().await {} };
        let waiting = self.shim.memory.reclaimable(self.connection_bytes, WaitsFor::Peer);
        tokio::select! {
            _ = timeout(REST_TIMEOUT, rest) => {}
            () = waiting.reclaimed() => return Connection::CloseAtOnce,
        }
        close_unless(body.is_end_stream())
    }

    /// Counts a request that was refused and does not call a hook.
    fn count_refusal(&self, error: &CallError) {
        if let Some(refusal) = Refusal::of(error) {
            self.shim.stats.refuse(refusal);
        }
    }

    fn max_bytes(&self, method: &Method) -> MaxBytes {
        match (method.documents, self.shim.max_argument_bytes) {
            (0, _) => {
                MaxBytes { message: MAX_SMALL_BYTES, is_admitted: false, as_arguments: false }
            }
            (documents, Some(bytes)) => {
                let message = documents * bytes + MAX_FIELDS_BYTES;
                MaxBytes { message, is_admitted: true, as_arguments: true }
            }
            (_, None) => {
                MaxBytes { message: MAX_REQUEST_BYTES, is_admitted: true, as_arguments: false }
            }
        }
    }
}

enum Reply {
    Message { message: Bytes, share: crate::admission::Share },
    Watch(HealthCheckRequest),
}

fn close_unless(is_received: bool) -> Connection {
    if is_received { Connection::Keep } else { Connection::Close }
}

/// Checks that a request is gRPC.
fn check(head: &http::request::Parts) -> Result<(), RequestFault> {
    let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let is_grpc = content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| rest.first().is_none_or(|byte| b"+;".contains(byte)));
    if head.method == HttpMethod::POST && is_grpc {
        return Ok(());
    }
    let shown = |text: &str| format!("{:?}", clip(text, MAX_SHOWN_BYTES));
    Err(RequestFault::NotGrpc {
        method: shown(head.method.as_str()),
        content_type: shown(&String::from_utf8_lossy(content_type)),
    })
}

/// Logs how a hook call ended. Of an error that is all of the text; the status may be cut.
fn log_end(record: &CallRecord, replied: &Result<Reply, CallError>) {
    let refusal = replied.as_ref().err().and_then(Refusal::of);
    let (code, bytes_out, message) = match replied {
        Ok(Reply::Message { message, .. }) => {
            (Code::Ok, message.len() - PREFIX_BYTES, "hook answered".to_owned())
        }
        Ok(Reply::Watch(_)) => return,
        Err(CallError::Request(RequestFault::ClientLeft(why))) => {
            (Code::Cancelled, 0, format!("the caller left: {why}"))
        }
        Err(error) => (grpc_status::code_of(error), 0, format!("call failed: {error}")),
    };
    record.end(code, bytes_out, refusal, &message);
}
