//! Messages to a worker, put into frames.

use bytes::Bytes;
use tracing::Level;

use super::{METHOD_NOT_FOUND, PROTOCOL_VERSION};
use crate::frame::{MAX_FRAME_BYTES, SendBuffer};
use crate::hook::{HookCall, Subject};
use crate::logging::level_name;

/// Puts `initialize` into the send buffer. The worker need not send log lines below `log_level`.
pub fn send_initialize(send_buffer: &mut SendBuffer, id: u64, log_level: Level) {
    let (version, log_level) = (env!("CARGO_PKG_VERSION"), level_name(log_level));
    send_buffer.push_frame([Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{{"protocolVersions":[{PROTOCOL_VERSION}],"shim":{{"name":"sidecar-shim","version":"{version}"}},"maxFrameBytes":{MAX_FRAME_BYTES},"logLevel":"{log_level}","capabilities":{{"attachments":true,"cancel":true}}}}}}"#
    ))]);
}

/// A call on its way to a worker.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingCall<'a> {
    /// The request's id.
    pub id: u64,
    pub call: &'a HookCall,
    /// Whether the worker accepts attachments.
    pub attachments: bool,
    /// Time left, in milliseconds.
    pub deadline_ms: u64,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

/// Puts a call into the send buffer. The VMI is sent as the JSON text that it came as; the domain
/// is attached if the worker accepts attachments. An error is a length that does not fit into a
/// frame; the send buffer is unchanged then.
pub fn send_call(send_buffer: &mut SendBuffer, outgoing: &OutgoingCall<'_>) -> Result<(), usize> {
    let OutgoingCall { id, call, attachments, deadline_ms, attempt } = *outgoing;
    let hook = call.hook();
    let head = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{hook}","params":{{"vmi":"#);
    let context = call
        .context()
        .map_or_else(String::new, |context| format!(r#","context":{}"#, json_string(context)));
    let invocation =
        format!(r#""invocation":{{"deadlineMs":{deadline_ms},"attempt":{attempt}{context}}}}}"#);
    let vmi = call.vmi().bytes().clone();
    let mut parts = vec![Bytes::from(head), vmi];
    let mut attached = None;
    match call.subject() {
        // A frame cannot be empty, so an empty value is sent inline.
        Subject::Domain(domain) if attachments && !domain.bytes().is_empty() => {
            attached = Some(domain.bytes().clone());
            parts.push(Bytes::from(format!(r#",{invocation},"attachments":["domain"]}}"#)));
        }
        Subject::Domain(domain) => {
            parts.push(Bytes::from_static(br#","domain":"#));
            parts.push(Bytes::from(json_string(domain.as_str())));
            parts.push(Bytes::from(format!(",{invocation}}}")));
        }
        Subject::CloudInitData(data) => {
            parts.push(Bytes::from_static(br#","cloudInitData":"#));
            parts.push(data.bytes().clone());
            parts.push(Bytes::from(format!(",{invocation}}}")));
        }
        Subject::Node(name) => {
            let name = json_string(name);
            parts.push(Bytes::from(format!(r#","nodeName":{name},{invocation}}}"#)));
        }
    }
    let json: usize = parts.iter().map(Bytes::len).sum();
    let longest = json.max(attached.as_ref().map_or(0, Bytes::len));
    if longest > MAX_FRAME_BYTES {
        return Err(longest);
    }
    send_buffer.push_frame(parts);
    if let Some(domain) = attached {
        send_buffer.push_frame([domain]);
    }
    Ok(())
}

fn json_string(text: &str) -> String {
    // Cannot fail: text is always serializable.
    serde_json::to_string(text).unwrap_or_default()
}

/// Puts a cancellation of the call `id` into the send buffer.
pub fn send_cancel(send_buffer: &mut SendBuffer, id: u64) {
    send_buffer.push_frame([Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","method":"$/cancelRequest","params":{{"id":{id}}}}}"#
    ))]);
}

/// Puts the error reply to a worker's request into the send buffer: the method does not exist.
pub fn send_method_not_found(send_buffer: &mut SendBuffer, id: &str) {
    send_buffer.push_frame([Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{METHOD_NOT_FOUND},"message":"the shim takes no requests"}}}}"#
    ))]);
}
