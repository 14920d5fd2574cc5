//! Messages from a worker: assembled from frames and parsed.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ErrorObject, Incoming, LogLine, Malformed, Outcome, ResultParts};
use crate::hook::{CLOUD_INIT_DATA, DOMAIN, HookCall, Subject, json_fault};
use crate::logging::HookFields;
use crate::text::fit;

/// Values that may be sent in separate frames.
const ATTACHABLE: [&str; 3] = [DOMAIN, "vmi", CLOUD_INIT_DATA];

/// Maximum length of an error's message; longer ones lose lines in the middle. A line of the log
/// has the same maximum, and a status has a lower one.
const MAX_MESSAGE_BYTES: usize = 8 * 1024;

/// Maximum length of the id of a worker's request, which the error reply repeats.
const MAX_ID_BYTES: usize = 64;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Text<'a>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    attachments: Vec<Text<'a>>,
}

/// Tells `null`, which is an invalid result, from no result.
pub(super) fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads the fields of a log line.
pub(super) fn hook_fields<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<HookFields, D::Error> {
    serde_json::Map::deserialize(deserializer).map(HookFields::new)
}

/// A string that is borrowed if it contains no escapes. (A bare `Cow` inside an `Option` never is.)
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Assembles messages from frames: one frame of JSON, then one for each attachment.
#[derive(Default)]
pub struct MessageReader {
    waiting: Option<Waiting>,
}

struct Waiting {
    id: u64,
    json: Bytes,
    /// Names of the attachments that have not arrived, the next one last.
    missing: Vec<&'static str>,
    attached: Vec<(&'static str, Bytes)>,
}

impl MessageReader {
    /// Accepts the next frame. Returns `None` while attachments are missing.
    pub fn take(&mut self, frame: Bytes) -> Result<Option<Incoming>, Malformed> {
        let Some(mut waiting) = self.waiting.take() else {
            return self.take_json(&frame);
        };
        if let Some(name) = waiting.missing.pop() {
            waiting.attached.push((name, frame));
        }
        if !waiting.missing.is_empty() {
            self.waiting = Some(waiting);
            return Ok(None);
        }
        let parts = ResultParts { json: waiting.json, attached: waiting.attached };
        Ok(Some(Incoming::Response { id: waiting.id, outcome: Outcome::Result(parts) }))
    }

    /// Whether attachments are missing.
    #[must_use]
    pub fn in_message(&self) -> bool {
        self.waiting.is_some()
    }

    fn take_json(&mut self, frame: &Bytes) -> Result<Option<Incoming>, Malformed> {
        let envelope: Envelope<'_> = parse(frame, "a message")?;
        if !matches!(&envelope.jsonrpc, Some(Text(version)) if version == "2.0") {
            return Err(Malformed("a message without \"jsonrpc\":\"2.0\"".to_owned()));
        }
        if let Some(Text(method)) = &envelope.method {
            return notification_or_request(method, &envelope).map(Some);
        }
        let id = envelope
            .id
            .and_then(|id| id.get().parse::<u64>().ok())
            .ok_or_else(|| Malformed("a response without the request's id".to_owned()))?;
        match (envelope.result, envelope.error) {
            (Some(result), None) => {
                let json = frame.slice_ref(result.get().as_bytes());
                let mut missing = attachment_names(&envelope.attachments)?;
                if missing.is_empty() {
                    let parts = ResultParts { json, attached: Vec::new() };
                    return Ok(Some(Incoming::Response { id, outcome: Outcome::Result(parts) }));
                }
                missing.reverse();
                self.waiting = Some(Waiting { id, json, missing, attached: Vec::new() });
                Ok(None)
            }
            (None, Some(error)) if envelope.attachments.is_empty() => {
                let error = read_error(error.get())?;
                Ok(Some(Incoming::Response { id, outcome: Outcome::Error(error) }))
            }
            (None, Some(_)) => Err(Malformed("an error response with attachments".to_owned())),
            _ => Err(Malformed(format!(
                "the response to request {id} must have either \"result\" or \"error\""
            ))),
        }
    }
}

fn notification_or_request(method: &str, envelope: &Envelope<'_>) -> Result<Incoming, Malformed> {
    if let Some(id) = envelope.id {
        let id = id.get();
        if id.len() > MAX_ID_BYTES {
            return Err(Malformed(format!("a request whose id is {} bytes long", id.len())));
        }
        return Ok(Incoming::Request { id: id.to_owned() });
    }
    if method != "$/log" {
        return Ok(Incoming::Ignored);
    }
    let params = envelope.params.map_or("null", RawValue::get);
    // An unreadable line is logged as such; the worker is not stopped for it.
    Ok(Incoming::Log(parse(params.as_bytes(), "a log line").unwrap_or_else(|fault| LogLine {
        level: "warning".to_owned(),
        message: format!("{fault}"),
        id: None,
        fields: HookFields::default(),
        unreadable: true,
    })))
}

/// Reads the error of a response. If only its code can be read, the message is replaced: Python
/// writes bytes that are not UTF-8 as half a surrogate pair, which `serde_json` rejects.
fn read_error(json: &str) -> Result<ErrorObject, Malformed> {
    #[derive(Deserialize)]
    struct CodeAlone {
        code: i64,
    }
    let mut error: ErrorObject =
        parse(json.as_bytes(), "the error of a response").or_else(|_| {
            let CodeAlone { code } = parse(json.as_bytes(), "the error of a response")?;
            Ok(ErrorObject {
                code,
                message: "(a message that cannot be read)".to_owned(),
                data: None,
            })
        })?;
    if error.message.len() > MAX_MESSAGE_BYTES {
        error.message = fit(&error.message, MAX_MESSAGE_BYTES, str::len);
    }
    Ok(error)
}

fn attachment_names(names: &[Text<'_>]) -> Result<Vec<&'static str>, Malformed> {
    let mut known = Vec::new();
    for Text(name) in names {
        let name = ATTACHABLE.into_iter().find(|known| known == name).ok_or_else(|| {
            Malformed(format!("an attachment whose name is not one of {}", ATTACHABLE.join(", ")))
        })?;
        if known.contains(&name) {
            return Err(Malformed(format!("two attachments named {name}")));
        }
        known.push(name);
    }
    Ok(known)
}

/// Parses a JSON object. The error repeats no value, which could be a document.
pub(super) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Result<T, Malformed> {
    let parsed = serde_json::from_slice(json).map_err(|error| {
        let place = format!("at line {}, column {}", error.line(), error.column());
        Malformed(if error.is_data() {
            format!("{what} is JSON, but has the wrong fields or types ({place})")
        } else {
            format!("{what} {}", json_fault(json, &error))
        })
    })?;
    // serde also accepts an array as a structure's fields in order.
    if json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(Malformed(format!("{what} is JSON, but has the wrong type (an array)")));
    }
    Ok(parsed)
}

/// The result of a call.
pub enum CallResult {
    /// `{"unchanged": true}`.
    Unchanged,
    /// The new document, not validated yet.
    Output(Bytes),
    /// A node hook has finished.
    Done,
}

/// Reads the result of a call.
pub fn read_result(call: &HookCall, parts: &ResultParts) -> Result<CallResult, Malformed> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct HookResult<'a> {
        unchanged: Option<bool>,
        #[serde(borrow)]
        domain: Option<Text<'a>>,
        #[serde(borrow)]
        cloud_init_data: Option<&'a RawValue>,
    }
    let result: HookResult<'_> = parse(&parts.json, "its result")?;
    let (field, inline) = match call.subject() {
        Subject::Domain(_) => {
            let inline = result.domain.map(|Text(text)| match text {
                Cow::Borrowed(text) => parts.json.slice_ref(text.as_bytes()),
                Cow::Owned(text) => Bytes::from(text),
            });
            (DOMAIN, inline)
        }
        Subject::CloudInitData(_) => {
            let raw = result.cloud_init_data;
            (CLOUD_INIT_DATA, raw.map(|raw| parts.json.slice_ref(raw.get().as_bytes())))
        }
        Subject::Node(_) => return Ok(CallResult::Done),
    };
    let attached = parts.attached.iter().find(|(name, _)| *name == field);
    match (inline, attached, result.unchanged == Some(true)) {
        (Some(output), None, false) => Ok(CallResult::Output(output)),
        (None, Some((_, output)), false) => Ok(CallResult::Output(output.clone())),
        (None, None, true) => Ok(CallResult::Unchanged),
        (None, None, false) => Err(Malformed(format!(
            "its result has neither the field \"{field}\" nor \"unchanged\":true"
        ))),
        _ => Err(Malformed(format!(
            "its result must have exactly one of \"{field}\", an attachment of that name, and \
             \"unchanged\":true"
        ))),
    }
}
