//! Compares the test vectors of the protocol with what the shim reads and writes.

#![expect(
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test may panic, and starts a process"
)]

#[path = "common/frames.rs"]
mod frames;

use std::path::PathBuf;
use std::process::Command;

use self::frames::items;
use bytes::{Buf, Bytes};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sidecar_shim::frame::{FrameError, Item, SendBuffer};
use sidecar_shim::hook::{Checks, HookCall, HookKind, HookName};
use sidecar_shim::logging::HookFields;
use sidecar_shim::rpc::{
    CallResult, Declared, ErrorObject, Incoming, MessageReader, Outcome, OutgoingCall, read_result,
    send_call, send_cancel, send_initialize,
};

fn directory(kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("protocol/vectors").join(kind)
}

/// Returns the vectors of one kind: their names and descriptions.
fn vectors(kind: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory(kind)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            found.push((name, serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()));
        }
    }
    assert!(found.len() > 10, "{} vectors in {kind}", found.len());
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    found
}

fn bytes(kind: &str, name: &str, extension: &str) -> Vec<u8> {
    std::fs::read(directory(kind).join(format!("{name}.{extension}"))).unwrap()
}

/// Formats bytes as the vectors do.
fn shown(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(
        |_| {
            let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({"hex": digits.join(" ")})
        },
        |text| json!({"text": text}),
    )
}

#[test]
fn the_files_are_as_their_script_writes_them() {
    let script = directory("").join("generate.py");
    let check = Command::new("python3").arg("-B").arg(script).arg("--check").output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn frames_are_found_wherever_the_stream_is_split() {
    for (name, facts) in vectors("frames") {
        let expected = match facts.get("shim") {
            Some(shim) => shim.clone(),
            None => json!({"items": facts["payloads"], "fault": facts["fault"]}),
        };
        let stream = bytes("frames", &name, "bin");
        for size in [stream.len().max(1), 1] {
            let (items, error) = items(stream.chunks(size));
            let fault = error.map(|error| match error {
                FrameError::Empty => "length",
                FrameError::Torn { .. } => "torn",
                other => panic!("{name}: {other}"),
            });
            let items: Vec<_> = items
                .iter()
                .map(|item| match item {
                    Item::Frame(frame) => shown(frame),
                    Item::Stray(stray) => json!({"stray": stray.bytes}),
                })
                .collect();
            assert_eq!(json!({"items": items, "fault": fault}), expected, "{name}");
        }
    }
}

/// A call in a vector, with its documents unparsed.
#[derive(Deserialize)]
struct Call<'a> {
    id: u64,
    method: String,
    #[serde(borrow)]
    params: Params<'a>,
    #[serde(default)]
    attachments: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow)]
    vmi: Option<&'a RawValue>,
    domain: Option<String>,
    #[serde(borrow)]
    cloud_init_data: Option<&'a RawValue>,
    node_name: Option<String>,
    invocation: Option<Value>,
}

impl Call<'_> {
    /// Returns the shim's own form of the call, or `None` if the shim does not send such calls.
    fn hook_call(&self, attached: Option<&Bytes>) -> Option<HookCall> {
        let raw = |value: Option<&RawValue>| value.map(|raw| Bytes::from(raw.get().to_owned()));
        let vmi = raw(self.params.vmi)?;
        let hook = HookName::parse(&self.method)?;
        let call = match hook.kind() {
            HookKind::Domain => {
                let inline = self.params.domain.clone().map(Bytes::from);
                HookCall::on_define_domain(&vmi, "domain", inline.or(attached.cloned())?)
            }
            HookKind::CloudInit => {
                HookCall::pre_cloud_init_iso(&vmi, &raw(self.params.cloud_init_data)?)
            }
            HookKind::Node => HookCall::node_hook(hook, &vmi, self.params.node_name.clone()?),
        };
        let context = self.params.invocation.as_ref().and_then(|said| said["context"].as_str());
        call.and_then(|call| call.in_context(context.unwrap_or_default().to_owned())).ok()
    }

    fn outgoing<'a>(&self, call: &'a HookCall, attachments: bool) -> OutgoingCall<'a> {
        let invocation = self.params.invocation.as_ref().unwrap();
        OutgoingCall {
            id: self.id,
            call,
            attachments,
            deadline_ms: invocation["deadlineMs"].as_u64().unwrap(),
            attempt: u32::try_from(invocation["attempt"].as_u64().unwrap()).unwrap(),
        }
    }
}

/// Returns what the shim sends in place of the message in `frame`, or `None` if it does not send
/// such messages.
fn sent(frame: &[u8], attached: Option<&Bytes>, takes_attachments: bool) -> Option<SendBuffer> {
    let mut send_buffer = SendBuffer::default();
    let message: Value = serde_json::from_slice(frame).unwrap();
    match message["method"].as_str()? {
        "initialize" => {
            let level = message["params"]["logLevel"].as_str().unwrap();
            // The protocol's word is longer than that of `tracing`.
            let level = level.replace("warning", "warn").parse().unwrap();
            send_initialize(&mut send_buffer, message["id"].as_u64()?, level);
        }
        "$/cancelRequest" => send_cancel(&mut send_buffer, message["params"]["id"].as_u64()?),
        _ => {
            let call: Call<'_> = serde_json::from_slice(frame).unwrap();
            let hook_call = call.hook_call(attached)?;
            send_call(&mut send_buffer, &call.outgoing(&hook_call, takes_attachments)).unwrap();
        }
    }
    Some(send_buffer)
}

/// Returns the frames of a stream without stray output.
fn frames(stream: &[u8]) -> Vec<Bytes> {
    let (items, error) = items([stream]);
    assert!(error.is_none(), "{error:?}");
    let frames = items.into_iter().map(|item| match item {
        Item::Frame(frame) => frame,
        Item::Stray(stray) => panic!("{stray:?}"),
    });
    frames.collect()
}

#[test]
fn the_shim_writes_what_the_vector_worker_reads() {
    let mut compared = 0;
    for (name, facts) in vectors("sessions") {
        if facts["shim"] != true {
            continue;
        }
        let input = frames(&bytes("sessions", &name, "in"));
        let takes_attachments = facts["out"][0]["result"]["capabilities"]["attachments"] == true;
        let mut rest = input.iter();
        while let Some(frame) = rest.next() {
            let message: Value = serde_json::from_slice(frame).unwrap();
            let attached = message["attachments"].is_array().then(|| rest.next().unwrap());
            let Some(mut send_buffer) = sent(frame, attached, takes_attachments) else { continue };
            let sent = frames(&send_buffer.copy_to_bytes(send_buffer.remaining()));
            let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
            let json = String::from_utf8(sent[0].to_vec()).unwrap();
            assert_eq!(json.replace(&version, "\"version\":\"0.1.0\""), *frame, "{name}");
            assert_eq!(sent.get(1), attached, "{name}");
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared} messages");
}

/// Returns the call with this id in the shim's own form, or `None` if the shim does not send such
/// calls.
fn find_call(input: &[Bytes], id: u64) -> Option<HookCall> {
    let at = input.iter().position(|frame| {
        serde_json::from_slice::<Value>(frame)
            .is_ok_and(|it| it["id"] == id && it.get("method").is_some())
    })?;
    let call: Call<'_> = serde_json::from_slice(&input[at]).ok()?;
    let attached = call.attachments.iter().position(|name| name == "domain");
    call.hook_call(attached.map(|index| &input[at + 1 + index]))
}

/// Formats a worker's error as the vectors do.
fn error_object(error: &ErrorObject) -> Value {
    let mut object = json!({"code": error.code, "message": error.message});
    if error.retryable() {
        object["data"] = json!({"retryable": true});
    }
    object
}

/// Compares one message of the worker, as the shim reads it, with the vector.
fn compare(name: &str, incoming: Incoming, expected: &Value, attached: &[Value], input: &[Bytes]) {
    match incoming {
        Incoming::Log(line) => {
            let mut said = json!({"level": line.level, "message": line.message, "id": line.id});
            if line.fields != HookFields::default() {
                // What the shim does to a field is tested beside it.
                said["fields"] = expected["params"]["fields"].clone();
            }
            assert_eq!(said, expected["params"], "{name}");
        }
        Incoming::Response { id, outcome } => {
            assert_eq!(json!(id), expected["id"], "{name}");
            match outcome {
                Outcome::Error(error)
                    if expected["error"]["data"].get("protocolVersions").is_some() =>
                {
                    assert_eq!(error.code, expected["error"]["code"], "{name}");
                    let text = Declared::read(&Outcome::Error(error)).unwrap_err().to_string();
                    assert!(text.contains("protocol versions [1]"), "{name}: {text}");
                }
                Outcome::Error(error) => {
                    assert_eq!(error_object(&error), expected["error"], "{name}");
                }
                result if id == 1 => {
                    let declared = Declared::read(&result).unwrap();
                    assert!(declared.attachments && declared.cancel, "{name}");
                    assert_eq!(
                        expected["result"]["capabilities"]["concurrency"],
                        declared.concurrency
                    );
                }
                Outcome::Result(parts) => {
                    let Some(call) = find_call(input, id) else { return };
                    let is_domain = *call.hook() == HookName::ON_DEFINE_DOMAIN;
                    let member = if is_domain { "domain" } else { "cloudInitData" };
                    let wanted = match (&expected["result"][member], attached) {
                        (Value::Null, []) => None,
                        (Value::Null, [attachment]) => Some(attachment["text"].clone()),
                        (inline, []) => Some(inline.clone()),
                        _ => panic!("{name}: {expected}"),
                    };
                    let answer = match read_result(&call, &parts).unwrap() {
                        CallResult::Unchanged | CallResult::Done => None,
                        CallResult::Output(bytes) if is_domain => {
                            Some(json!(std::str::from_utf8(&bytes).unwrap()))
                        }
                        CallResult::Output(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
                    };
                    assert_eq!(answer, wanted, "{name}");
                }
            }
        }
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn the_shim_reads_what_the_vector_worker_writes() {
    for (name, facts) in vectors("sessions") {
        // The input of some sessions is broken at its end.
        let input: Vec<_> = items([&bytes("sessions", &name, "in")[..]])
            .0
            .into_iter()
            .filter_map(|item| match item {
                Item::Frame(frame) => Some(frame),
                Item::Stray(_) => None,
            })
            .collect();
        let mut reader = MessageReader::default();
        let mut expected = facts["out"].as_array().unwrap().iter().peekable();
        for frame in frames(&bytes("sessions", &name, "out")) {
            let Some(incoming) = reader.take(frame).unwrap() else { continue };
            let message = expected.next().unwrap();
            let mut attached = Vec::new();
            while let Some(value) = expected.next_if(|value| value.get("jsonrpc").is_none()) {
                attached.push(value.clone());
            }
            compare(&name, incoming, message, &attached, &input);
        }
        assert!(!reader.in_message() && expected.next().is_none(), "{name}");
    }
}

/// Returns the number in a line of the page's table of limits.
fn limit(page: &str, before: &str, after: &str) -> usize {
    let (_, rest) = page.split_once(before).unwrap_or_else(|| panic!("no {before:?}"));
    rest.split_once(after).unwrap().0.parse().unwrap()
}

#[test]
fn documents_may_be_nested_as_deeply_as_the_page_says_and_no_deeper() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/protocol.md")).unwrap();
    let json = limit(&page, "| JSON of a document | objects and arrays nested up to ", " deep");
    let vmi = |depth: usize| {
        let vmi = format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        HookCall::on_define_domain(&vmi.into(), "domainXML", "<domain/>".into())
    };
    let call = vmi(json).unwrap();
    let fault = vmi(json + 1).unwrap_err().to_string();
    assert_eq!(fault, format!("vmi is nested more than {json} deep"));

    let xml = limit(&page, "| elements of a domain | nested up to ", " deep");
    assert!(page.contains(&format!("Elements may be nested {xml} deep")));
    let returns = |depth: usize| {
        let inner = ["<a>", "</a>"].map(|tag| tag.repeat(depth - 1));
        call.accept(format!("<domain>{}{}</domain>", inner[0], inner[1]).into(), Checks::WellFormed)
    };
    assert!(returns(xml).is_ok());
    let fault = returns(xml + 1).map(|_| ()).unwrap_err().to_string();
    assert!(fault.contains(&format!("nested more than {xml} deep")), "{fault}");
}
