//! Messages that the protocol allows and this shim does not send: what a newer shim may say, or another
//! one. `check` finds out whether a worker puts up with them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::{Buf, Bytes, BytesMut};
use serde_json::value::RawValue;
use tokio_util::codec::Decoder;

use sidecar_shim::frame::{FrameDecoder, Item, Outbox};
use sidecar_shim::rpc::{OutgoingCall, send_call};

/// A member that no version of the protocol has.
const UNKNOWN_MEMBER: &str = "memberOfANewerVersion";

/// Its value.
const UNKNOWN_VALUE: &str = r#"{"list":[1,-2.5e3,true,null,"text"],"object":{}}"#;

/// Puts an `initialize` into the outbox that offers other protocol versions than the shim's own.
pub(crate) fn send_initialize_with_versions(outbox: &mut Outbox, id: u64, versions: &[u64]) {
    push(
        outbox,
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{{"protocolVersions":{versions:?},"shim":{{"name":"sidecar-shim","version":"99.0.0"}},"maxFrameBytes":16777215,"capabilities":{{"attachments":true,"cancel":true}}}}}}"#
        ),
    );
}

/// Puts the `initialize` of a newer shim into the outbox: it speaks more versions, has more members and
/// more capabilities, and writes its members in another order.
pub(crate) fn send_initialize_of_newer_shim(outbox: &mut Outbox, id: u64) {
    push(
        outbox,
        format!(
            r#"{{"{UNKNOWN_MEMBER}":{UNKNOWN_VALUE},"method":"initialize","params":{{"{UNKNOWN_MEMBER}":{UNKNOWN_VALUE},"capabilities":{{"cancel":true,"{UNKNOWN_MEMBER}":{UNKNOWN_VALUE},"attachments":true}},"maxFrameBytes":16777215,"protocolVersions":[3,2,1],"shim":{{"{UNKNOWN_MEMBER}":{UNKNOWN_VALUE},"version":"99.0.0","name":"sidecar-shim"}}}},"id":{id},"jsonrpc":"2.0"}}"#
        ),
    );
}

/// Puts a request into the outbox whose method no worker has, with an attachment if there is one.
pub(crate) fn send_unknown_request(outbox: &mut Outbox, id: u64, attachment: Option<Bytes>) {
    let attachments = if attachment.is_some() { r#","attachments":["domain"]"# } else { "" };
    push(
        outbox,
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"hookOfANewerVersion","params":{{"vmi":{{}}}}{attachments}}}"#
        ),
    );
    if let Some(attachment) = attachment {
        outbox.push_frame([attachment]);
    }
}

/// Puts two notifications into the outbox that no worker knows, one of them without `params`.
pub(crate) fn send_unknown_notifications(outbox: &mut Outbox) {
    push(
        outbox,
        format!(
            r#"{{"jsonrpc":"2.0","method":"$/notificationOfANewerVersion","params":{UNKNOWN_VALUE}}}"#
        ),
    );
    push(outbox, r#"{"jsonrpc":"2.0","method":"notificationOfANewerVersion"}"#.to_owned());
}

/// Puts a call of a hook into the outbox whose `params` are no use to it: given as JSON text, or left out.
pub(crate) fn send_call_with_params(
    outbox: &mut Outbox,
    id: u64,
    hook: &str,
    params: Option<&str>,
) {
    let params = params.map_or_else(String::new, |params| format!(r#","params":{params}"#));
    push(outbox, format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{hook}"{params}}}"#));
}

/// Puts a call into the outbox as [`send_call`] does, with members in it that no worker knows.
pub(crate) fn send_call_of_newer_shim(
    outbox: &mut Outbox,
    outgoing: &OutgoingCall<'_>,
) -> Result<(), usize> {
    send_changed(outbox, outgoing, with_unknown_members)
}

/// Puts a call into the outbox as [`send_call`] does, with its strings written as `\u` escapes wherever
/// that is possible.
pub(crate) fn send_escaped_call(
    outbox: &mut Outbox,
    outgoing: &OutgoingCall<'_>,
) -> Result<(), usize> {
    send_changed(outbox, outgoing, |json| Some(escaped(json)))
}

fn push(outbox: &mut Outbox, json: String) {
    outbox.push_frame([Bytes::from(json)]);
}

/// Puts a call into the outbox whose message is written anew. An error is a length that does not fit a
/// frame.
fn send_changed(
    outbox: &mut Outbox,
    outgoing: &OutgoingCall<'_>,
    change: impl Fn(&str) -> Option<String>,
) -> Result<(), usize> {
    let mut usual = Outbox::default();
    send_call(&mut usual, outgoing)?;
    let mut bytes = BytesMut::from(&*usual.copy_to_bytes(usual.remaining()));
    let mut decoder = FrameDecoder::default();
    let mut is_message = true;
    while let Ok(Some(Item::Frame(frame))) = decoder.decode(&mut bytes) {
        let text = std::str::from_utf8(&frame).ok().filter(|_| std::mem::take(&mut is_message));
        let frame = text.and_then(&change).map_or(frame, Bytes::from);
        if frame.len() > sidecar_shim::frame::MAX_FRAME_BYTES {
            return Err(frame.len());
        }
        outbox.push_frame([frame]);
    }
    Ok(())
}

/// The same message with one more member in it, in its `params` and in their `invocation`, and with its
/// members in the order of their names. `None` if it is no call.
fn with_unknown_members(message: &str) -> Option<String> {
    type Members = BTreeMap<String, Box<RawValue>>;
    let unknown = || RawValue::from_string(UNKNOWN_VALUE.to_owned()).ok();
    let mut outer: Members = serde_json::from_str(message).ok()?;
    let mut params: Members = serde_json::from_str(outer.get("params")?.get()).ok()?;
    let mut invocation: Members = serde_json::from_str(params.get("invocation")?.get()).ok()?;
    for members in [&mut outer, &mut params, &mut invocation] {
        members.insert(UNKNOWN_MEMBER.to_owned(), unknown()?);
    }
    params.insert("invocation".to_owned(), serde_json::value::to_raw_value(&invocation).ok()?);
    outer.insert("params".to_owned(), serde_json::value::to_raw_value(&params).ok()?);
    serde_json::to_string(&outer).ok()
}

/// The same JSON with every character of its strings escaped that is neither an ASCII letter nor a digit
/// nor escaped already. Characters beyond U+FFFF take two escapes.
fn escaped(json: &str) -> String {
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

    use super::*;

    fn call() -> HookCall {
        let vmi =
            Bytes::from_static(br#"{"name":"caf\u00e9 \"x\\\" a/b","n":1e400,"s":"\ud83d\ude00"}"#);
        let domain = "<domain>\n\u{1f600} \"x\" \\ é</domain>";
        HookCall::on_define_domain(&vmi, "domain", Bytes::from(domain)).unwrap()
    }

    /// The frames that something puts into an outbox.
    fn frames(send: impl FnOnce(&mut Outbox)) -> Vec<String> {
        let mut outbox = Outbox::default();
        send(&mut outbox);
        let mut bytes = BytesMut::from(&*outbox.copy_to_bytes(outbox.remaining()));
        let mut decoder = FrameDecoder::default();
        std::iter::from_fn(|| match decoder.decode(&mut bytes).unwrap()? {
            Item::Frame(frame) => Some(String::from_utf8(frame.to_vec()).unwrap()),
            Item::Stray(stray) => panic!("{stray:?}"),
        })
        .collect()
    }

    fn outgoing(call: &HookCall, attachments: bool) -> OutgoingCall<'_> {
        OutgoingCall { id: 9, call, attachments, deadline_ms: 1000, attempt: 1 }
    }

    #[test]
    fn what_is_unknown_is_json_all_the_same() {
        let all = frames(|outbox| {
            send_initialize_with_versions(outbox, 1, &[7, 8]);
            send_initialize_of_newer_shim(outbox, 2);
            send_unknown_request(outbox, 3, None);
            send_unknown_notifications(outbox);
            send_call_with_params(outbox, 4, "onDefineDomain", None);
            send_call_with_params(outbox, 5, "onDefineDomain", Some("[]"));
        });
        let all: Vec<serde_json::Value> =
            all.iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
        assert_eq!(all.len(), 7);
        assert!(
            all.iter().all(|message| message["jsonrpc"] == "2.0" && message["method"].is_string())
        );
        let ids: Vec<_> = all.iter().filter_map(|message| message["id"].as_u64()).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5]);
        assert_eq!(all[0]["params"]["protocolVersions"], serde_json::json!([7, 8]));
    }

    #[test]
    fn a_newer_shims_call_has_all_that_a_call_has_and_more() {
        for attachments in [false, true] {
            let usual =
                frames(|outbox| send_call(outbox, &outgoing(&call(), attachments)).unwrap());
            let later = frames(|outbox| {
                send_call_of_newer_shim(outbox, &outgoing(&call(), attachments)).unwrap();
            });
            assert_eq!(usual[1..], later[1..]);
            // Three times the one member is all that there is more.
            let more = format!(r#""{UNKNOWN_MEMBER}":{UNKNOWN_VALUE}"#);
            assert_eq!(later[0].len(), usual[0].len() + 3 * (more.len() + 1));
            assert_eq!(later[0].matches(&more).count(), 3);
            assert!(later[0].contains("1e400"), "numbers stay as they were written");
        }
    }

    #[test]
    fn an_escaped_call_says_the_same() {
        let usual = frames(|outbox| send_call(outbox, &outgoing(&call(), false)).unwrap());
        let other = frames(|outbox| send_escaped_call(outbox, &outgoing(&call(), false)).unwrap());
        // serde_json has no room for this number.
        let [usual, other]: [serde_json::Value; 2] = [usual, other]
            .map(|frames| serde_json::from_str(&frames[0].replace("1e400", "1")).unwrap());
        assert_eq!(usual, other);
        let text = escaped(r#"{"a b":["é\n\"", 1, "😀"]}"#);
        assert_eq!(text, r#"{"a\u0020b":["\u00e9\n\"", 1, "\ud83d\ude00"]}"#);
    }
}
