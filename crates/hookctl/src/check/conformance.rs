//! Messages that the protocol allows and this shim does not send, as a newer shim or another one
//! may. `check` finds out whether a worker can read them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio_util::codec::Decoder;

use crate::probe::encode;
use sidecar_shim::frame::{FrameDecoder, Item, MAX_FRAME_BYTES, SendBuffer};

/// A version that no worker speaks.
pub(super) const UNKNOWN_VERSION: u64 = 4_000_000_000;

/// A field that no version of the protocol has.
const UNKNOWN_FIELD: &str = "fieldOfANewerVersion";

/// Its value.
const UNKNOWN_VALUE: &str = r#"{"list":[1,-2.5e3,true,null,"text"],"object":{}}"#;

/// Returns an `initialize` that offers these protocol versions.
fn initialize(id: u64, versions: &[u64]) -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": id,
        "method": "initialize",
        "params": {
            "protocolVersions": versions,
            "shim": {"name": "sidecar-shim", "version": "99.0.0"},
            "maxFrameBytes": MAX_FRAME_BYTES,
            "logLevel": "info",
            "capabilities": {"attachments": true, "cancel": true},
        },
    })
}

/// Puts an `initialize` into the send buffer that offers only a version that no worker speaks.
pub(super) fn send_initialize_of_unknown_version(send_buffer: &mut SendBuffer, id: u64) {
    push(send_buffer, &initialize(id, &[UNKNOWN_VERSION]));
}

/// Puts the `initialize` of a newer shim into the send buffer: it has more versions, fields and
/// capabilities.
pub(super) fn send_initialize_of_newer_shim(send_buffer: &mut SendBuffer, id: u64) {
    let mut message = initialize(id, &[3, 2, 1]);
    for object in ["", "/params", "/params/shim", "/params/capabilities"] {
        if let Some(object) = message.pointer_mut(object) {
            object[UNKNOWN_FIELD] = unknown_value();
        }
    }
    push(send_buffer, &message);
}

fn unknown_value() -> Value {
    serde_json::from_str(UNKNOWN_VALUE).unwrap_or_default()
}

/// Puts a request with an unknown method into the send buffer, and its attachment, if it has one.
pub(super) fn send_unknown_request(
    send_buffer: &mut SendBuffer,
    id: u64,
    attachment: Option<Bytes>,
) {
    let params = json!({"vmi": {}});
    let mut message =
        json!({"jsonrpc": "2.0", "id": id, "method": "hookOfANewerVersion", "params": params});
    if attachment.is_some() {
        message["attachments"] = json!(["domain"]);
    }
    push(send_buffer, &message);
    if let Some(attachment) = attachment {
        send_buffer.push_frame([attachment]);
    }
}

/// Puts two unknown notifications into the send buffer, one of them without `params`.
pub(super) fn send_unknown_notifications(send_buffer: &mut SendBuffer) {
    let method = "$/notificationOfANewerVersion";
    push(send_buffer, &json!({"jsonrpc": "2.0", "method": method, "params": unknown_value()}));
    push(send_buffer, &json!({"jsonrpc": "2.0", "method": "notificationOfANewerVersion"}));
}

/// Puts an unknown notification of about this length into the send buffer.
pub(super) fn send_long_notification(send_buffer: &mut SendBuffer, length: usize) {
    let params = json!({"text": "x".repeat(length)});
    push(send_buffer, &json!({"jsonrpc": "2.0", "method": "$/long", "params": params}));
}

/// Puts a call into the send buffer whose `params` a hook cannot use, or that has none.
pub(super) fn send_call_with_params(
    send_buffer: &mut SendBuffer,
    id: u64,
    hook: &str,
    params: Option<Value>,
) {
    let mut message = json!({"jsonrpc": "2.0", "id": id, "method": hook});
    if let Some(params) = params {
        message["params"] = params;
    }
    push(send_buffer, &message);
}

fn push(send_buffer: &mut SendBuffer, message: &Value) {
    send_buffer.push_frame([Bytes::from(message.to_string())]);
}

/// Rewrites the message of a call, the first of its frames. If it becomes too long for a frame, the
/// error is its length.
pub(super) fn rewrite_call(
    call: &[u8],
    rewrite: impl Fn(&str) -> Option<String>,
) -> Result<Bytes, usize> {
    let mut frames = BytesMut::from(call);
    let Ok(Some(Item::Frame(message))) = FrameDecoder::default().decode(&mut frames) else {
        return Ok(Bytes::copy_from_slice(call));
    };
    let rewritten = std::str::from_utf8(&message).ok().and_then(rewrite);
    let message = rewritten.map_or(message, Bytes::from);
    if message.len() > MAX_FRAME_BYTES {
        return Err(message.len());
    }
    let message = encode(|send_buffer| send_buffer.push_frame([message]));
    Ok([&message[..], &frames].concat().into())
}

/// Returns the message of a call with an unknown field in it, in its `params` and in their
/// `invocation`, and with its fields in alphabetical order.
pub(super) fn with_unknown_fields(message: &str) -> Option<String> {
    type Fields = BTreeMap<String, Box<RawValue>>;
    let unknown = || RawValue::from_string(UNKNOWN_VALUE.to_owned()).ok();
    let mut outer: Fields = serde_json::from_str(message).ok()?;
    let mut params: Fields = serde_json::from_str(outer.get("params")?.get()).ok()?;
    let mut invocation: Fields = serde_json::from_str(params.get("invocation")?.get()).ok()?;
    for fields in [&mut outer, &mut params, &mut invocation] {
        fields.insert(UNKNOWN_FIELD.to_owned(), unknown()?);
    }
    params.insert("invocation".to_owned(), to_raw_value(&invocation).ok()?);
    outer.insert("params".to_owned(), to_raw_value(&params).ok()?);
    serde_json::to_string(&outer).ok()
}

/// Returns the same JSON with every character of its strings escaped, except ASCII letters, digits
/// and what is escaped already. Characters beyond U+FFFF take two escapes.
pub(super) fn with_escapes(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut inside = false;
    let mut characters = json.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                inside = !inside;
                out.push('"');
            }
            '\\' => {
                out.push('\\');
                out.extend(characters.next());
            }
            other if inside && !other.is_ascii_alphanumeric() => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use sidecar_shim::hook::HookCall;
    use sidecar_shim::rpc::{OutgoingCall, send_call};

    use super::*;

    /// A call as the shim sends it.
    fn usual_call(attachments: bool) -> Bytes {
        let vmi =
            Bytes::from_static(br#"{"name":"caf\u00e9 \"x\\\" a/b","n":1e400,"s":"\ud83d\ude00"}"#);
        let domain = "<domain>\n\u{1f600} \"x\" \\ é</domain>";
        let call = HookCall::on_define_domain(&vmi, "domain", Bytes::from(domain)).unwrap();
        let call = OutgoingCall { id: 9, call: &call, attachments, deadline_ms: 1000, attempt: 1 };
        encode(|send_buffer| send_call(send_buffer, &call).unwrap())
    }

    fn frames(bytes: &[u8]) -> Vec<String> {
        let mut bytes = BytesMut::from(bytes);
        let mut decoder = FrameDecoder::default();
        std::iter::from_fn(|| match decoder.decode(&mut bytes).unwrap()? {
            Item::Frame(frame) => Some(String::from_utf8(frame.to_vec()).unwrap()),
            Item::Stray(stray) => panic!("{stray:?}"),
        })
        .collect()
    }

    #[test]
    fn every_message_is_json_rpc() {
        let all = frames(&encode(|send_buffer| {
            send_initialize_of_unknown_version(send_buffer, 1);
            send_initialize_of_newer_shim(send_buffer, 2);
            send_unknown_request(send_buffer, 3, None);
            send_unknown_notifications(send_buffer);
            send_call_with_params(send_buffer, 4, "onDefineDomain", None);
            send_call_with_params(send_buffer, 5, "onDefineDomain", Some(json!([])));
        }));
        let all: Vec<Value> =
            all.iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
        assert_eq!(all.len(), 7);
        assert!(
            all.iter().all(|message| message["jsonrpc"] == "2.0" && message["method"].is_string())
        );
        let ids: Vec<_> = all.iter().filter_map(|message| message["id"].as_u64()).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5]);
        assert_eq!(all[0]["params"]["protocolVersions"], json!([UNKNOWN_VERSION]));
        let params = &all[1]["params"];
        for object in [&all[1], params, &params["shim"], &params["capabilities"]] {
            assert_eq!(object[UNKNOWN_FIELD]["list"][1], -2500.0);
        }
    }

    #[test]
    fn a_newer_shims_call_has_all_that_a_call_has_and_more() {
        for attachments in [false, true] {
            let call = usual_call(attachments);
            let usual = frames(&call);
            let newer = frames(&rewrite_call(&call, with_unknown_fields).unwrap());
            assert_eq!(usual.len(), 1 + usize::from(attachments));
            assert_eq!(usual[1..], newer[1..]);
            // The only difference is the unknown field, three times.
            let more = format!(r#""{UNKNOWN_FIELD}":{UNKNOWN_VALUE}"#);
            assert_eq!(newer[0].len(), usual[0].len() + 3 * (more.len() + 1));
            assert_eq!(newer[0].matches(&more).count(), 3);
            assert!(newer[0].contains("1e400"), "numbers stay as they were written");
        }
    }

    #[test]
    fn an_escaped_call_has_the_same_content() {
        let call = usual_call(false);
        let escaped = rewrite_call(&call, |json| Some(with_escapes(json))).unwrap();
        // serde_json cannot hold this number.
        let [usual, other]: [Value; 2] = [call, escaped]
            .map(|call| serde_json::from_str(&frames(&call)[0].replace("1e400", "1")).unwrap());
        assert_eq!(usual, other);
        let text = with_escapes(r#"{"a b":["é\n\"", 1, "😀"]}"#);
        assert_eq!(text, r#"{"a\u0020b":["\u00e9\n\"", 1, "\ud83d\ude00"]}"#);
    }

    #[test]
    fn a_call_that_becomes_too_long_for_a_frame_is_an_error() {
        let rewrite = |_: &str| Some("x".repeat(MAX_FRAME_BYTES + 1));
        assert_eq!(rewrite_call(&usual_call(false), rewrite), Err(MAX_FRAME_BYTES + 1));
    }
}
