//! Checks of text on its way through a hook: its letters, and what the formats of documents escape.

use std::borrow::Cow;

use bytes::Bytes;
use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::{BytesStart, Event};
use serde_json::{Map, Value};

use super::documents::{CLOUD_INIT_TEXTS, cloud_init_text, equivalent};
use super::markers::{self, DIFFICULT_TEXT};
use super::session::Session;
use super::verdict::{NotPassed, Verdict};
use super::worker::WorkerUnderTest;
use sidecar_shim::hook::{HookCall, HookKind, HookName, HookReply};
use sidecar_shim::rpc::{ErrorKind, Outcome};

/// An annotation that no hook reads.
const ANNOTATION: &str = "check.sidecar-shim.example/text";

/// Letters of several scripts, none of which is ASCII.
const LETTERS: &str = "é ß Ж 中 \u{1f600}";

/// What is added to an annotation to find out whether the hook reads it.
const PLAIN: &str = "Plain";

/// What an annotation may contain, with its name.
const SPECIAL: [(&str, &str); 8] = [
    ("&", "A&B"),
    ("<", "A<B"),
    (">", "A]]>B"),
    ("\"", "A\"B"),
    ("'", "A'B"),
    ("é", "Aéß"),
    ("Ж", "Ж中"),
    ("\u{1f600}", "A\u{1f600}"),
];

/// Maximum number of annotations that are tried: each takes a call, and ten if the hook reads it.
const MAX_ANNOTATIONS: usize = 32;

/// Remedy for a worker that gets along with ASCII alone.
const COUNT_BYTES: &str = "; that was a call with letters outside ASCII: messages are in UTF-8, and \
                           the length of a frame counts bytes, not characters";

const ESCAPE: &str = "write text into XML with a library or an SDK, or escape & as &amp;, < as \
                      &lt;, > as &gt; and \" as &quot;, once";

// ---- utf-8 ----

pub(super) async fn utf_8(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    for hook in &hooks {
        let call = call_with_letters(session, hook)?;
        let blame = |failure: NotPassed| failure.with(COUNT_BYTES);
        let outcome = worker.attempt(&call).await.map_err(blame)?;
        // A hook may refuse a VM.
        if let Outcome::Error(error) = &outcome
            && error.kind() != ErrorKind::Fault
        {
            continue;
        }
        let reply = worker.read(&call, &outcome).map_err(blame)?;
        let HookReply::Changed(result) = reply else { continue };
        if let Some(damage) = texts(hook, result.bytes()).iter().find_map(|text| damage(text)) {
            let seen = format!("{hook} returned letters outside ASCII {damage}");
            return Err(worker.fault(seen));
        }
    }
    session.release(worker).await
}

fn call_with_letters(session: &Session, hook: &HookName) -> Result<HookCall, NotPassed> {
    let documents = &session.documents;
    let vmi = with_annotation(&documents.vmi, ANNOTATION, LETTERS)
        .ok_or_else(|| NotPassed::skipped("the VMI has no place for an annotation"))?;
    let subject = match hook.kind() {
        HookKind::Domain => {
            let domain = String::from_utf8_lossy(&documents.domain);
            markers::insert(&domain, DIFFICULT_TEXT)
                .map_or_else(|| documents.domain.clone(), Bytes::from)
        }
        HookKind::CloudInit => {
            documents.cloud_init_with(&CLOUD_INIT_TEXTS, &format!("\n# {LETTERS}\n"))?.into()
        }
        HookKind::Node => Bytes::new(),
    };
    documents.call_about(hook, &vmi, subject).map_err(NotPassed::skipped)
}

/// Returns what became of [`LETTERS`] in a text, if that is a mistake that can be named.
fn damage(text: &str) -> Option<&'static str> {
    if text.contains(&as_latin_1(LETTERS)) {
        Some("as two or more others each: it reads UTF-8 as another encoding")
    } else if text.contains("? ? ? ?") {
        Some("as question marks: it writes another encoding than UTF-8")
    } else {
        None
    }
}

/// Returns what a program makes of a text in UTF-8 that it reads as Latin-1.
fn as_latin_1(text: &str) -> String {
    text.bytes().map(char::from).collect()
}

// ---- annotation-text ----

pub(super) async fn annotation_text(session: &mut Session) -> Verdict {
    session.require("utf-8")?;
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    let mut read = Vec::new();
    for hook in hooks.iter().filter(|hook| hook.kind() != HookKind::Node) {
        let plain = session.result(&mut worker, hook).await?;
        for (key, value) in annotations(&session.documents.vmi).into_iter().take(MAX_ANNOTATIONS) {
            let with_plain = with_text(&value, PLAIN);
            let Some(call) = call_with(session, hook, &key, &with_plain) else { continue };
            let reply = match worker.attempt(&call).await? {
                Outcome::Error(_) => None,
                outcome @ Outcome::Result(_) => {
                    Some(worker.read(&call, &outcome)?.or(session.documents.subject(hook.kind())))
                }
            };
            if reply.as_ref().is_some_and(|reply| equivalent(hook, &plain, reply)) {
                continue;
            }
            // Whether the hook writes the annotation's text into the document as it is.
            let copies = reply.is_some_and(|reply| has_text(hook, &reply, PLAIN));
            for special in SPECIAL {
                try_special(session, &mut worker, hook, (&key, &value), special, copies).await?;
            }
            read.push(key);
        }
    }
    session.release(worker).await?;
    read.dedup();
    if read.is_empty() {
        return Err(NotPassed::skipped(
            "the hooks read no annotation that this VMI has (pass another one with --vmi)",
        ));
    }
    Ok(Some(read.join(", ")))
}

/// Calls a hook with special text in an annotation that it reads.
async fn try_special(
    session: &Session,
    worker: &mut WorkerUnderTest,
    hook: &HookName,
    (key, value): (&str, &str),
    (name, text): (&str, &str),
    copies: bool,
) -> Result<(), NotPassed> {
    let Some(call) = call_with(session, hook, key, &with_text(value, text)) else { return Ok(()) };
    let place = format!("with {name} in the annotation {key}");
    let outside_ascii = if name.is_ascii() { "" } else { COUNT_BYTES };
    let blame = |failure: NotPassed| failure.with(format!("; that was {place}{outside_ascii}"));
    let outcome = worker.attempt(&call).await.map_err(blame)?;
    match &outcome {
        Outcome::Error(error) if error.kind() == ErrorKind::Fault => {
            let seen = format!("{place}, {hook} failed with {error}: refuse a value with -32000");
            return Err(worker.warning(seen));
        }
        Outcome::Error(_) => return Ok(()),
        Outcome::Result(_) => {}
    }
    let remedy = if hook.kind() == HookKind::Domain { ESCAPE } else { "" };
    let reply = worker.read(&call, &outcome);
    let reply = reply.map_err(|failure| failure.with(format!("; that was {place}: {remedy}")))?;
    let result = reply.or(session.documents.subject(hook.kind()));
    if !copies || has_text(hook, &result, text) {
        return Ok(());
    }
    Err(match lost(hook, &result, text) {
        Some(how) => worker.fault(format!("{place}, {hook} {how}")),
        None => worker.warning(format!("{place}, {hook} wrote something else than that text")),
    })
}

/// Returns what became of a text, if that is a mistake that can be named.
fn lost(hook: &HookName, result: &[u8], text: &str) -> Option<String> {
    if has_text(hook, result, &escape(text)) {
        return Some("escaped it twice: a library that writes XML escapes text itself".to_owned());
    }
    if has_text(hook, result, &as_latin_1(text)) {
        return Some("wrote other letters: it reads UTF-8 as another encoding".to_owned());
    }
    let unknown = text.replace(|letter: char| !letter.is_ascii(), "?");
    if unknown != text && has_text(hook, result, &unknown) {
        return Some("wrote a question mark: it writes another encoding than UTF-8".to_owned());
    }
    None
}

fn call_with(session: &Session, hook: &HookName, key: &str, value: &str) -> Option<HookCall> {
    let vmi = with_annotation(&session.documents.vmi, key, value)?;
    let subject = session.documents.subject(hook.kind());
    session.documents.call_about(hook, &vmi, subject).ok()
}

/// Returns the annotations of a VMI.
fn annotations(vmi: &[u8]) -> Vec<(String, String)> {
    let vmi: Value = serde_json::from_slice(vmi).unwrap_or_default();
    let annotations = vmi.pointer("/metadata/annotations").and_then(Value::as_object);
    let texts = annotations.into_iter().flatten();
    texts.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Returns the VMI with this annotation. `None` if it has no place for one.
fn with_annotation(vmi: &[u8], key: &str, value: &str) -> Option<Bytes> {
    let mut vmi: Map<String, Value> = serde_json::from_slice(vmi).ok()?;
    let metadata = vmi.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    let annotations = metadata.as_object_mut()?.entry("annotations");
    let annotations = annotations.or_insert_with(|| Value::Object(Map::new()));
    annotations.as_object_mut()?.insert(key.to_owned(), value.into());
    Some(serde_json::to_vec(&vmi).ok()?.into())
}

/// Returns the value of an annotation with more text in it: at its end, or in each string if the
/// value is itself a JSON object or array.
fn with_text(value: &str, text: &str) -> String {
    fn add(value: &mut Value, text: &str) {
        match value {
            Value::String(string) => string.push_str(text),
            Value::Array(items) => items.iter_mut().for_each(|item| add(item, text)),
            Value::Object(fields) => fields.values_mut().for_each(|field| add(field, text)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    match serde_json::from_str::<Value>(value) {
        Ok(mut json @ (Value::Object(_) | Value::Array(_))) => {
            add(&mut json, text);
            json.to_string()
        }
        _ => format!("{value}{text}"),
    }
}

// ---- Texts of documents ----

/// Whether a text of the document contains this one.
fn has_text(hook: &HookName, document: &[u8], text: &str) -> bool {
    texts(hook, document).iter().any(|it| it.contains(text))
}

/// Returns the texts and values of attributes of a domain, or the texts of cloud-init data.
fn texts(hook: &HookName, document: &[u8]) -> Vec<String> {
    match hook.kind() {
        HookKind::Domain => texts_of_xml(&String::from_utf8_lossy(document)),
        HookKind::CloudInit => {
            CLOUD_INIT_TEXTS.iter().filter_map(|field| cloud_init_text(document, field)).collect()
        }
        HookKind::Node => Vec::new(),
    }
}

fn texts_of_xml(xml: &str) -> Vec<String> {
    let mut reader = Reader::from_str(xml);
    let (mut texts, mut text) = (Vec::new(), String::new());
    loop {
        match reader.read_event() {
            Ok(Event::Text(piece)) => text.push_str(&piece.xml10_content()),
            Ok(Event::CData(piece)) => text.push_str(&piece.xml10_content()),
            Ok(Event::GeneralRef(reference)) => match reference.resolve_char_ref() {
                Ok(Some(character)) => text.push(character),
                _ => text.push_str(resolve_predefined_entity(&reference).unwrap_or_default()),
            },
            Ok(Event::Start(tag) | Event::Empty(tag)) => {
                texts.push(std::mem::take(&mut text));
                texts.extend(values(&tag));
            }
            Ok(Event::End(_)) => texts.push(std::mem::take(&mut text)),
            Ok(Event::Eof) | Err(_) => return texts,
            Ok(_) => {}
        }
    }
}

fn values(tag: &BytesStart<'_>) -> Vec<String> {
    let attributes = tag.attributes().flatten();
    let values = attributes
        .filter_map(|it| it.normalized_value(XmlVersion::Implicit1_0).ok().map(Cow::into_owned));
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_in_elements_and_attributes() {
        let domain = HookName::ON_DEFINE_DOMAIN;
        let xml = "<domain a='x &amp; y'><b>A&lt;<![CDATA[&]]>&#233;</b><c v=\"Ж\"/></domain>";
        for text in ["x & y", "A<&é", "Ж"] {
            assert!(has_text(&domain, xml.as_bytes(), text), "{text}");
        }
        assert!(!has_text(&domain, xml.as_bytes(), "&lt;"));
    }

    #[test]
    fn mistakes_with_texts_have_names() {
        let domain = HookName::ON_DEFINE_DOMAIN;
        let lost = |xml: &str, text| lost(&domain, xml.as_bytes(), text).unwrap_or_default();
        assert!(lost("<d>A&amp;amp;B</d>", "A&B").starts_with("escaped it twice"));
        assert!(lost("<d>AÃ©Ã\u{9f}</d>", "Aéß").contains("reads UTF-8 as another"));
        assert!(lost("<d>A??</d>", "Aéß").contains("question mark"));
        assert_eq!(lost("<d>A_B</d>", "A&B"), "");
        assert!(damage(&as_latin_1(LETTERS)).is_some() && damage(LETTERS).is_none());
    }

    #[test]
    fn text_goes_into_the_strings_of_json() {
        assert_eq!(with_text("a, b", "&"), "a, b&");
        assert_eq!(with_text(r#"{"-rtc":"x","n":[1,"y"]}"#, "<"), r#"{"-rtc":"x<","n":[1,"y<"]}"#);
        assert_eq!(with_text("7", "<"), "7<");
        let vmi = with_annotation(b"{\"spec\":{}}", "k", "v").unwrap();
        assert_eq!(annotations(&vmi), [("k".to_owned(), "v".to_owned())]);
        assert_eq!(with_annotation(b"{\"metadata\":7}", "k", "v"), None);
    }
}
