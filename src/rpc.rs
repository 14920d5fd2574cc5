//! Messages of the worker protocol, to and from frames. This is the one file that knows
//! JSON-RPC; `protocol.md` is what it implements.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::frame::{MAX_FRAME_BYTES, Outbox};
use crate::hook::{HookCall, HookName, Subject};

/// The protocol version that this shim speaks, as `KUBEVIRT_HOOK_PROTOCOL` has it too.
pub const PROTOCOL_VERSION: &str = "1";

/// More calls at once than this are never sent to one worker, whatever it declares.
pub const MAX_CONCURRENCY: usize = 64;

/// Values that may travel outside JSON, in frames of their own.
const ATTACHABLE: [&str; 3] = ["domain", "vmi", "cloudInitData"];

/// The id of a request from a worker is echoed back; no honest one is longer.
const MAX_ID_BYTES: usize = 64;

const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const HOOK_REFUSES: i64 = -32000;

/// What a worker sent, read to the end of the message, its attachments included.
#[derive(Debug)]
pub enum Incoming {
    /// The answer to a request of ours.
    Response {
        /// The request's id.
        id: u64,
        /// The answer.
        outcome: Outcome,
    },
    /// A line for the log.
    Log(LogLine),
    /// A request. There are none that a worker may send, so it is owed an error.
    Request {
        /// Its id, as JSON text.
        id: String,
    },
    /// A notification that means nothing here.
    Ignored,
}

/// `$/log`.
#[derive(Debug, Deserialize)]
pub struct LogLine {
    /// `debug`, `info`, `warning` or `error`.
    #[serde(default)]
    pub level: String,
    /// The text.
    pub message: String,
    /// The call that it belongs to.
    pub id: Option<u64>,
}

/// The two kinds of answer.
pub enum Outcome {
    /// `result`, with the values that were attached to it.
    Result(ResultParts),
    /// `error`.
    Error(ErrorObject),
}

/// A result as it came. It holds a document, so it has no `Debug` of its own.
pub struct ResultParts {
    json: Bytes,
    attached: Vec<(&'static str, Bytes)>,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Result(parts) => write!(f, "Result({} bytes)", parts.json.len()),
            Self::Error(error) => write!(f, "Error({})", error.code),
        }
    }
}

/// `error` of a response.
#[derive(Debug, Deserialize)]
pub struct ErrorObject {
    /// What kind of error, by JSON-RPC's and the protocol's numbers.
    pub code: i64,
    /// Words for the VM's owner.
    #[serde(default)]
    pub message: String,
    data: Option<Box<RawValue>>,
}

/// What an error code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The worker does not know the method.
    MethodNotFound,
    /// The params cannot be used.
    InvalidParams,
    /// The hook refuses or failed, and says why.
    Refused,
    /// A fault of the worker's code, or a number that means nothing here.
    Fault,
}

impl ErrorObject {
    /// What the code means.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.code {
            METHOD_NOT_FOUND => ErrorKind::MethodNotFound,
            INVALID_PARAMS => ErrorKind::InvalidParams,
            HOOK_REFUSES => ErrorKind::Refused,
            _ => ErrorKind::Fault,
        }
    }
}

impl fmt::Display for ErrorObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.as_str() {
            "" => write!(f, "(error {} without a message)", self.code),
            message if self.kind() == ErrorKind::Fault => {
                write!(f, "{message} (error {})", self.code)
            }
            message => f.write_str(message),
        }
    }
}

/// A message that breaks the rules. The text never holds anything of a document.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

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
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    attachments: Vec<Text<'a>>,
}

/// A string that is borrowed where it holds no escapes. (Inside an `Option`, a bare `Cow` never
/// is.)
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Puts frames together to messages: one frame of JSON, then one for each attachment.
#[derive(Default)]
pub struct MessageReader {
    waiting: Option<Waiting>,
}

struct Waiting {
    id: u64,
    json: Bytes,
    /// Names of attachments still to come, the next one last.
    missing: Vec<&'static str>,
    attached: Vec<(&'static str, Bytes)>,
}

impl MessageReader {
    /// Takes the next frame. `None` while attachments are still to come.
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

    /// Whether the output must not end here.
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
                let error = parse(error.get().as_bytes(), "the error of a response")?;
                Ok(Some(Incoming::Response { id, outcome: Outcome::Error(error) }))
            }
            (None, Some(_)) => Err(Malformed("an error response with attachments".to_owned())),
            _ => Err(Malformed(format!(
                "the response to request {id} has to hold either \"result\" or \"error\""
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
    parse(params.as_bytes(), "the params of $/log").map(Incoming::Log)
}

fn attachment_names(names: &[Text<'_>]) -> Result<Vec<&'static str>, Malformed> {
    let mut known = Vec::new();
    for Text(name) in names {
        let name = ATTACHABLE.into_iter().find(|known| known == name).ok_or_else(|| {
            Malformed(format!("an attachment whose name is none of {}", ATTACHABLE.join(", ")))
        })?;
        if known.contains(&name) {
            return Err(Malformed(format!("two attachments named {name}")));
        }
        known.push(name);
    }
    Ok(known)
}

/// Parses JSON, and says what is wrong without repeating a value, which may be a document.
fn parse<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Result<T, Malformed> {
    serde_json::from_slice(json).map_err(|error| {
        let place = format!("at line {}, column {}", error.line(), error.column());
        Malformed(if error.is_data() {
            format!("{what} is JSON, but not of the right shape ({place})")
        } else {
            format!("{what} is not JSON: {error}")
        })
    })
}

/// What a worker declared in its answer to `initialize`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its hooks, sorted.
    pub hooks: Vec<HookName>,
    /// Whether large values go in frames of their own.
    pub attachments: bool,
    /// Whether it understands `$/cancelRequest`.
    pub cancel: bool,
    /// How many calls it takes at once, from 1 to [`MAX_CONCURRENCY`].
    pub concurrency: usize,
}

impl Declared {
    /// Reads the answer to `initialize`.
    pub fn read(outcome: &Outcome) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct InitializeResult {
            protocol_version: u64,
            hooks: Vec<String>,
            #[serde(default)]
            capabilities: Capabilities,
        }
        #[derive(Deserialize)]
        #[serde(default)]
        struct Capabilities {
            attachments: bool,
            cancel: bool,
            concurrency: u64,
        }
        impl Default for Capabilities {
            fn default() -> Self {
                Self { attachments: false, cancel: false, concurrency: 1 }
            }
        }

        let parts = match outcome {
            Outcome::Result(parts) => parts,
            Outcome::Error(error) => return Err(refusal(error)),
        };
        let result: InitializeResult = parse(&parts.json, "the result of initialize")?;
        if result.protocol_version.to_string() != PROTOCOL_VERSION {
            return Err(Malformed(format!(
                "it chose protocol version {}, and this shim speaks {PROTOCOL_VERSION}",
                result.protocol_version
            )));
        }
        let mut hooks = Vec::new();
        for name in &result.hooks {
            let hook = HookName::parse(name).ok_or_else(|| {
                Malformed(
                    "it declares a hook whose name is not a small letter followed by letters and \
                     digits"
                        .to_owned(),
                )
            })?;
            hooks.push(hook);
        }
        hooks.sort();
        hooks.dedup();
        if hooks.is_empty() {
            return Err(Malformed("it declares no hooks".to_owned()));
        }
        let concurrency = result.capabilities.concurrency;
        if concurrency == 0 {
            return Err(Malformed("it declares a concurrency of 0".to_owned()));
        }
        Ok(Self {
            hooks,
            attachments: result.capabilities.attachments,
            cancel: result.capabilities.cancel,
            concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX).min(MAX_CONCURRENCY),
        })
    }
}

fn refusal(error: &ErrorObject) -> Malformed {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        protocol_versions: Vec<u64>,
    }
    let data = error.data.as_ref().and_then(|data| serde_json::from_str::<Data>(data.get()).ok());
    Malformed(match data {
        Some(Data { protocol_versions }) if error.kind() == ErrorKind::InvalidParams => format!(
            "it speaks protocol versions {protocol_versions:?}, and this shim speaks \
             [{PROTOCOL_VERSION}]"
        ),
        _ => format!("it refused initialize: {error}"),
    })
}

/// What a worker answered to a call.
#[derive(Debug)]
pub enum Answered {
    /// `{"unchanged": true}`.
    Unchanged,
    /// The new document's bytes, not yet checked.
    Output(Bytes),
}

/// Finds the answer to a call in a result.
pub fn read_answer(call: &HookCall, parts: &ResultParts) -> Result<Answered, Malformed> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct HookResult<'a> {
        unchanged: Option<bool>,
        #[serde(borrow)]
        domain: Option<Text<'a>>,
        #[serde(borrow)]
        cloud_init_data: Option<&'a RawValue>,
    }
    let member = call.subject().member();
    let result: HookResult<'_> = parse(&parts.json, "its result")?;
    let inline = match call.subject() {
        Subject::Domain(_) => result.domain.map(|Text(text)| match text {
            Cow::Borrowed(text) => parts.json.slice_ref(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        }),
        Subject::CloudInitData(_) => {
            result.cloud_init_data.map(|raw| parts.json.slice_ref(raw.get().as_bytes()))
        }
    };
    let attached = parts.attached.iter().find(|(name, _)| *name == member);
    match (inline, attached, result.unchanged == Some(true)) {
        (Some(output), None, false) => Ok(Answered::Output(output)),
        (None, Some((_, output)), false) => Ok(Answered::Output(output.clone())),
        (None, None, true) => Ok(Answered::Unchanged),
        (None, None, false) => Err(Malformed(format!(
            "its result holds neither the member \"{member}\" nor \"unchanged\":true"
        ))),
        _ => Err(Malformed(format!(
            "its result has to hold one of \"{member}\", an attachment of that name, and \
             \"unchanged\":true"
        ))),
    }
}

/// Puts `initialize` into the outbox.
pub fn send_initialize(outbox: &mut Outbox, id: u64) {
    let version = env!("CARGO_PKG_VERSION");
    outbox.push_frame([Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{{"protocolVersions":[{PROTOCOL_VERSION}],"shim":{{"name":"sidecar-shim","version":"{version}"}},"maxFrameBytes":{MAX_FRAME_BYTES},"capabilities":{{"attachments":true,"cancel":true}}}}}}"#
    ))]);
}

/// What a call says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Invocation {
    /// Time left, in milliseconds.
    pub deadline_ms: u64,
    /// Which try this is, from 1.
    pub attempt: u32,
}

/// Puts a call into the outbox. The VMI goes in as the JSON text that it came as; the domain is
/// attached if the worker takes attachments. An error is the length that does not fit a frame,
/// and then nothing was put in.
pub fn send_call(
    outbox: &mut Outbox,
    id: u64,
    call: &HookCall,
    attachments: bool,
    invocation: Invocation,
) -> Result<(), usize> {
    let hook = call.hook();
    let head = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{hook}","params":{{"vmi":"#);
    let Invocation { deadline_ms, attempt } = invocation;
    let invocation =
        format!(r#""invocation":{{"deadlineMs":{deadline_ms},"attempt":{attempt}}}}}"#);
    let vmi = call.vmi().bytes().clone();
    let mut parts = vec![Bytes::from(head), vmi];
    let mut attached = None;
    match call.subject() {
        // An empty value cannot be a frame, so it stays inline.
        Subject::Domain(domain) if attachments && !domain.bytes().is_empty() => {
            attached = Some(domain.bytes().clone());
            parts.push(Bytes::from(format!(r#",{invocation},"attachments":["domain"]}}"#)));
        }
        Subject::Domain(domain) => {
            let text = serde_json::to_string(domain.as_str()).unwrap_or_default();
            parts.push(Bytes::from_static(br#","domain":"#));
            parts.push(Bytes::from(text));
            parts.push(Bytes::from(format!(",{invocation}}}")));
        }
        Subject::CloudInitData(data) => {
            parts.push(Bytes::from_static(br#","cloudInitData":"#));
            parts.push(data.bytes().clone());
            parts.push(Bytes::from(format!(",{invocation}}}")));
        }
    }
    let json: usize = parts.iter().map(Bytes::len).sum();
    let longest = json.max(attached.as_ref().map_or(0, Bytes::len));
    if longest > MAX_FRAME_BYTES {
        return Err(longest);
    }
    outbox.push_frame(parts);
    if let Some(domain) = attached {
        outbox.push_frame([domain]);
    }
    Ok(())
}

/// Puts a cancellation of the call `id` into the outbox.
pub fn send_cancel(outbox: &mut Outbox, id: u64) {
    outbox.push_frame([Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","method":"$/cancelRequest","params":{{"id":{id}}}}}"#
    ))]);
}

/// Puts the answer to a worker's request into the outbox: there is no such method.
pub fn send_method_not_found(outbox: &mut Outbox, id: &str) {
    outbox.push_frame([Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{METHOD_NOT_FOUND},"message":"the shim takes no requests"}}}}"#
    ))]);
}
