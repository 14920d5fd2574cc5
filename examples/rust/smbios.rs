//! Sets the base board manufacturer that a guest sees in its SMBIOS tables, from the VM's annotation
//! `smbios.vm.kubevirt.io/baseBoardManufacturer`. With `KUBEVIRT_HOOK_PROTOCOL` in the environment
//! this is a persistent worker; without, it is run once for each call, as
//! `onDefineDomain --vmi JSON --domain XML`, and prints the result.
//!
//! To build it by itself, make it `src/main.rs` of a package with these dependencies:
//!
//! ```toml
//! [dependencies]
//! quick-xml = "0.42"
//! serde_json = "1.0"
//! ```

#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "standard error is the hook's log")]

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use quick_xml::XmlVersion;
use quick_xml::escape::partial_escape;
use quick_xml::events::{BytesStart, BytesText, Event};
use quick_xml::reader::Reader;
use serde_json::{Value, json};

// ---- The hook: documents in, a document out. This is the part to replace. ----

const ANNOTATION: &str = "smbios.vm.kubevirt.io/baseBoardManufacturer";

/// An element's tag, and an attribute where the tag alone does not tell it from its siblings.
type Step = (&'static str, Option<(&'static str, &'static str)>);

const SMBIOS: [Step; 3] = [("domain", None), ("os", None), ("smbios", None)];
const MANUFACTURER: [Step; 4] = [
    ("domain", None),
    ("sysinfo", Some(("type", "smbios"))),
    ("baseBoard", None),
    ("entry", Some(("name", "manufacturer"))),
];

/// The domain with the manufacturer set, or none where it is right as it stands.
fn on_define_domain(vmi: &Value, domain: &str) -> Result<Option<String>, Failure> {
    let manufacturer = &vmi["metadata"]["annotations"][ANNOTATION];
    if manufacturer.is_null() {
        return Ok(None);
    }
    let Some(text) = manufacturer.as_str().filter(|text| !text.contains(is_unfit)) else {
        let why = format!("annotation {ANNOTATION}: not a text that SMBIOS can hold");
        return Err(failure(REFUSED, why));
    };
    let text = partial_escape(text);
    let entry = format!(r#"<entry name="manufacturer">{text}</entry>"#);

    let has_mode = |tag: &BytesStart, _: &str| has_attribute(tag, "mode", "sysinfo");
    let changed = put(domain, &SMBIOS, r#"<smbios mode="sysinfo"/>"#, has_mode)?;
    let changed = put(&changed, &MANUFACTURER, &entry, |_, inside| inside == text)?;
    // In a later call of the same boot, on our own result, nothing has changed.
    Ok((changed != domain).then_some(changed))
}

/// Control characters and noncharacters: not for XML, still less for an SMBIOS string.
fn is_unfit(c: char) -> bool {
    c.is_control() || matches!(c, '\u{fdd0}'..='\u{fdef}' | '\u{fffe}' | '\u{ffff}')
}

/// Puts `leaf` where `path` leads, in place of the element there unless `is_right` says, from its
/// start tag and its content, that it can stay. What is missing of the path is added at the end of
/// what there is. One piece of the document is replaced: every other byte stays as it came.
fn put(
    document: &str,
    path: &[Step],
    leaf: &str,
    is_right: impl Fn(&BytesStart, &str) -> bool,
) -> Result<String, Failure> {
    let mut reader = Reader::from_str(document);
    // Not the reader's own count, which leaves a byte order mark out.
    let position = |reader: &Reader<&[u8]>| document.len() - reader.get_ref().len();
    let mut depth = 0; // how many elements are open
    let mut found = 0; // how many of them, from the root on, are steps of the path
    let mut edit = None; // what of the document to replace, and by what
    loop {
        let start = position(&reader);
        let malformed = |error| bad_params(format!("domain, at byte {start}: {error}"));
        let event = reader.read_event().map_err(malformed)?;
        let end = position(&reader);
        let is_step = match &event {
            Event::Start(tag) | Event::Empty(tag) => {
                edit.is_none() && depth == found && is_at(path[found], tag)
            }
            _ => false,
        };
        match event {
            Event::Start(tag) | Event::Empty(tag) if is_step && found + 1 == path.len() => {
                let mut inside = BytesText::new("");
                if !document[start..end].ends_with("/>") {
                    inside = reader.read_text(tag.name()).map_err(malformed)?;
                }
                edit = Some(if is_right(&tag, &inside) {
                    (start..start, String::new())
                } else {
                    (start..position(&reader), leaf.to_owned())
                });
            }
            Event::Empty(tag) if is_step => {
                let inside = nested(&path[found + 1..], leaf);
                let open = tag.trim_end();
                edit = Some((start..end, format!("<{open}>{inside}</{}>", path[found].0)));
            }
            Event::Start(_) => {
                depth += 1;
                found += usize::from(is_step);
            }
            Event::End(_) => {
                if edit.is_none() && depth == found {
                    // The path goes no further than here. The end tag keeps its own line.
                    let at = document[..start].trim_end().len();
                    edit = Some((at..at, nested(&path[found..], leaf)));
                }
                depth -= 1;
            }
            Event::Eof if depth > 0 => {
                return Err(bad_params("domain: ends inside an element"));
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let Some((range, text)) = edit else {
        return Err(bad_params("domain: the root element is not <domain>"));
    };
    Ok([&document[..range.start], &text, &document[range.end..]].concat())
}

fn is_at((name, attribute): Step, tag: &BytesStart) -> bool {
    tag.name().as_ref() == name
        && attribute.is_none_or(|(name, value)| has_attribute(tag, name, value))
}

fn has_attribute(tag: &BytesStart, name: &str, value: &str) -> bool {
    let attribute = tag.try_get_attribute(name).ok().flatten();
    let found = attribute.and_then(|it| it.normalized_value(XmlVersion::Implicit1_0).ok());
    found.is_some_and(|found| found == value)
}

/// The elements of the steps, each inside the one before, with `leaf` for the last.
fn nested(steps: &[Step], leaf: &str) -> String {
    match steps {
        [] | [_] => leaf.to_owned(),
        [(tag, None), rest @ ..] => format!("<{tag}>{}</{tag}>", nested(rest, leaf)),
        [(tag, Some((name, value))), rest @ ..] => {
            format!("<{tag} {name}=\"{value}\">{}</{tag}>", nested(rest, leaf))
        }
    }
}

// ---- The protocol: frames of a 4-byte big-endian length and one JSON-RPC message. ----

/// 16 MiB - 1, so that the first byte of every frame is zero.
const MAX_FRAME: u32 = 0x00ff_ffff;

const REFUSED: i32 = -32000; // with a message for the VM's owner
const UNKNOWN_METHOD: i32 = -32601;
const BAD_PARAMS: i32 = -32602;

/// Why a request has no result: an error object of JSON-RPC.
type Failure = Value;

fn bad_params(message: impl Into<String>) -> Failure {
    failure(BAD_PARAMS, message)
}

fn failure(code: i32, message: impl Into<String>) -> Failure {
    json!({"code": code, "message": message.into()})
}

/// Answers until end-of-file, the order to stop. After an error there is no way back.
///
/// Nothing else in this process may write to standard output: log with `eprintln!`, and give a
/// program that is started from here a `.stdout(…)` of its own. A panic ends the worker; the shim
/// reports it with the last lines of standard error, and starts another.
fn serve(mut input: impl Read, mut output: impl Write) -> Result<(), Box<dyn Error>> {
    while let Some(message) = read_message(&mut input)? {
        let Some(id) = message.get("id") else {
            continue; // a notification: none concerns this worker
        };
        let response = match answer(&message) {
            Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            Err(failure) => json!({"jsonrpc": "2.0", "id": id, "error": failure}),
        };
        let mut payload = response.to_string();
        if payload.len() > MAX_FRAME as usize {
            let error = failure(REFUSED, "the result is too large for a frame");
            payload = json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string();
        }
        output.write_all(&u32::try_from(payload.len())?.to_be_bytes())?;
        output.write_all(payload.as_bytes())?;
        output.flush()?;
    }
    Ok(())
}

/// The next message, or none at end-of-file.
fn read_message(input: &mut impl Read) -> Result<Option<Value>, Box<dyn Error>> {
    let mut header = Vec::new();
    input.take(4).read_to_end(&mut header)?;
    if header.is_empty() {
        return Ok(None);
    }
    let length = <[u8; 4]>::try_from(&header[..]).map_or(0, u32::from_be_bytes);
    if !(1..=MAX_FRAME).contains(&length) {
        return Err(format!("not the length of a frame: {header:02x?}").into());
    }
    let mut payload = Vec::new();
    input.take(length.into()).read_to_end(&mut payload)?;
    match serde_json::from_slice(&payload) {
        Ok(message @ Value::Object(_)) => Ok(Some(message)),
        Ok(_) => Err("a message that is not an object".into()),
        Err(error) => Err(format!("a frame that is not JSON: {error}").into()),
    }
}

/// The result of one request.
fn answer(message: &Value) -> Result<Value, Failure> {
    let params = &message["params"];
    match message["method"].as_str() {
        Some("initialize") => {
            let offered = params["protocolVersions"].as_array();
            if !offered.is_some_and(|versions| versions.contains(&json!(1))) {
                let mut error = bad_params("no common protocol version");
                error["data"] = json!({"protocolVersions": [1]});
                return Err(error);
            }
            let worker = json!({"name": "smbios", "version": "1.0.0"});
            Ok(json!({"protocolVersion": 1, "worker": worker, "hooks": ["onDefineDomain"]}))
        }
        Some("onDefineDomain") => match (&params["vmi"], &params["domain"]) {
            (vmi @ Value::Object(_), Value::String(domain)) => {
                Ok(match on_define_domain(vmi, domain)? {
                    Some(domain) => json!({"domain": domain}),
                    None => json!({"unchanged": true}),
                })
            }
            _ => Err(bad_params("vmi is not an object, or domain not a string")),
        },
        Some(other) => Err(failure(UNKNOWN_METHOD, format!("unknown method {other}"))),
        None => Err(failure(UNKNOWN_METHOD, "a request without a method")),
    }
}

// ---- Argv style: one process for each call. ----

fn run_once(vmi: &str, domain: &str) -> Result<(), Box<dyn Error>> {
    let vmi = serde_json::from_str(vmi)?;
    let changed = on_define_domain(&vmi, domain)
        .map_err(|error| error["message"].as_str().unwrap_or_default().to_owned())?;
    io::stdout().write_all(changed.as_deref().unwrap_or(domain).as_bytes())?;
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().map(OsString::into_string).collect();
    // The variable stays: std cannot remove it safely. A program that is started from here gets
    // `.env_remove("KUBEVIRT_HOOK_PROTOCOL")`, or it may take itself for a worker.
    let outcome = if env::var_os("KUBEVIRT_HOOK_PROTOCOL").is_some() {
        serve(io::stdin().lock(), io::stdout().lock())
    } else if let [_, Ok(first), Ok(vmi), Ok(second), Ok(domain)] = &arguments[..]
        && [first, second] == ["--vmi", "--domain"]
    {
        run_once(vmi, domain)
    } else {
        eprintln!("usage: onDefineDomain --vmi JSON --domain XML");
        return ExitCode::from(2);
    };
    if let Err(error) = outcome {
        eprintln!("smbios: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
