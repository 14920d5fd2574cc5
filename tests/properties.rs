//! Properties of frames, messages and domains that hold for any bytes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/frames.rs"]
mod frames;
#[path = "common/xml.rs"]
mod xml;

use bytes::{Buf, Bytes};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use sidecar_shim::frame::{Item, MAX_STRAY_BYTES, SendBuffer, Stray};
use sidecar_shim::hook::{HookCall, HookName};
use sidecar_shim::rpc::{
    CallResult, Incoming, MessageReader, Outcome, OutgoingCall, read_result, send_call,
};

use self::frames::items;

/// A part of a document, which no error may contain.
const SECRET: &str = "s3cr3t";

/// A failing case is printed, not written beside the sources.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Decodes a stream that arrives in these pieces.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Seen>, Option<String>) {
    let (items, fault) = items(pieces);
    let seen = items.into_iter().map(|item| match item {
        Item::Frame(frame) => Seen::Frame(frame),
        Item::Stray(stray) => Seen::Stray(stray),
    });
    (seen.collect(), fault.map(|fault| fault.to_string()))
}

#[derive(Clone, PartialEq, Eq)]
enum Seen {
    Frame(Bytes),
    Stray(Stray),
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame(frame) => write!(f, "frame {}", frame.escape_ascii()),
            Self::Stray(stray) => write!(f, "{stray:?}"),
        }
    }
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[..], bytes].concat()
}

/// Streams of workers, valid and broken.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let good = vec(any::<u8>(), 1..300).prop_map(|bytes| frame(&bytes));
    let text = "[ -~\n]{0,120}".prop_map(String::into_bytes);
    let random = vec(any::<u8>(), 0..40);
    let long_text = (MAX_STRAY_BYTES - 200..MAX_STRAY_BYTES + 200).prop_map(|n| vec![b'x'; n]);
    let piece = prop_oneof![8 => good, 4 => text, 2 => random, 1 => long_text];
    let whole = vec(piece, 0..8).prop_map(|pieces| pieces.concat());
    // Cut anywhere, and with one byte changed.
    (whole, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0..4).prop_map(
        |(mut bytes, cut, at, byte, how)| {
            if !bytes.is_empty() && how == 1 {
                bytes.truncate(cut.index(bytes.len()));
            }
            if !bytes.is_empty() && how == 2 {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

/// Splits a stream at these indices.
fn split<'a>(stream: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_split_of_any_stream_gives_the_same_frames_or_the_same_error(
        stream in stream(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let whole = decode([&stream[..]]);
        prop_assert_eq!(&whole, &decode(split(&stream, &cuts)));
        if stream.len() < 2000 {
            prop_assert_eq!(&whole, &decode(stream.chunks(1)));
        }
    }

    #[test]
    fn what_is_written_in_any_pieces_is_read_back(
        frames in vec(vec(vec(any::<u8>(), 0..50), 1..4), 0..6),
        steps in vec(1..40_usize, 1..50),
    ) {
        let frames: Vec<Vec<Vec<u8>>> =
            frames.into_iter().filter(|parts| parts.iter().any(|part| !part.is_empty())).collect();
        let mut send_buffer = SendBuffer::default();
        for parts in &frames {
            send_buffer.push_frame(parts.iter().cloned().map(Bytes::from));
        }
        let mut written = Vec::new();
        for step in steps.iter().cycle() {
            if !send_buffer.has_remaining() {
                break;
            }
            let step = (*step).min(send_buffer.remaining());
            let mut left = step;
            while left > 0 {
                let piece = send_buffer.chunk().len().min(left);
                written.extend_from_slice(&send_buffer.chunk()[..piece]);
                send_buffer.advance(piece);
                left -= piece;
            }
        }
        let expected = frames.iter().map(|parts| Seen::Frame(parts.concat().into())).collect();
        prop_assert_eq!(decode([&written[..]]), (expected, None));
    }

    #[test]
    fn nothing_of_a_document_is_in_an_error_about_frames(
        before in vec(vec(any::<u8>(), 1..300).prop_map(|bytes| frame(&bytes)), 0..3),
        text in "[ -~\n]{0,120}",
        after in stream(),
    ) {
        let document = format!("{text}{SECRET}");
        let stream = [&before.concat()[..], document.as_bytes(), &after].concat();
        let (seen, error) = decode([&stream[..]]);
        prop_assert!(!error.unwrap_or_default().contains(SECRET));
        let shown = seen.iter().filter(|seen| matches!(seen, Seen::Stray(..)));
        let shown = format!("{:?}", shown.collect::<Vec<_>>());
        prop_assert!(!shown.contains(SECRET), "{}", shown);
    }
}

/// JSON of any shape.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            object_of(inner).prop_map(Value::from),
        ]
    })
}

fn object_of(
    value: impl Strategy<Value = Value>,
) -> impl Strategy<Value = serde_json::Map<String, Value>> {
    vec((".{0,12}", value), 0..5).prop_map(|members| members.into_iter().collect())
}

/// A document as text: any characters except NUL, which documents must not contain.
fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,200}"
}

/// Takes the frames out of a send buffer.
fn sent(send_buffer: &mut SendBuffer) -> Vec<Bytes> {
    let bytes = send_buffer.copy_to_bytes(send_buffer.remaining());
    let (seen, error) = decode([&bytes[..]]);
    assert_eq!(error, None);
    let frame = |seen| match seen {
        Seen::Frame(frame) => frame,
        Seen::Stray(..) => panic!("stray bytes from the shim itself"),
    };
    seen.into_iter().map(frame).collect()
}

/// Reads frames, and returns the first message or the fault.
fn read(frames: impl IntoIterator<Item = Bytes>) -> Result<Option<Incoming>, String> {
    let mut reader = MessageReader::default();
    for frame in frames {
        match reader.take(frame) {
            Ok(None) => {}
            other => return other.map_err(|fault| fault.to_string()),
        }
    }
    Ok(None)
}

fn call(domain: &str) -> HookCall {
    let vmi = Bytes::from_static(b"{}");
    HookCall::on_define_domain(&vmi, "domain", domain.to_owned().into()).unwrap()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_call_contains_its_documents_and_nothing_else(
        vmi in object_of(json_value()),
        domain in text(),
        data in object_of(json_value()),
        attach in any::<bool>(),
        deadline_ms in any::<u64>(),
    ) {
        let vmi = Value::Object(vmi);
        let vmi_text = Bytes::from(vmi.to_string());
        let outgoing = |id, call| {
            OutgoingCall { id, call, attachments: attach, deadline_ms, attempt: 1 }
        };
        let shown = json!({"deadlineMs": deadline_ms, "attempt": 1});

        let call = HookCall::on_define_domain(&vmi_text, "domain", domain.clone().into()).unwrap();
        let mut send_buffer = SendBuffer::default();
        send_call(&mut send_buffer, &outgoing(7, &call)).unwrap();
        let frames = sent(&mut send_buffer);
        let message: Value = serde_json::from_slice(&frames[0]).unwrap();
        let head = json!({"jsonrpc": "2.0", "id": 7, "method": "onDefineDomain"});
        let mut expected = head;
        expected["params"] = json!({"vmi": vmi, "invocation": shown});
        if attach && !domain.is_empty() {
            expected["attachments"] = json!(["domain"]);
            prop_assert_eq!(&frames[1..], &[Bytes::from(domain)][..]);
        } else {
            expected["params"]["domain"] = domain.into();
            prop_assert_eq!(frames.len(), 1);
        }
        prop_assert_eq!(message, expected);

        let data = Value::Object(data);
        let data_text = Bytes::from(data.to_string());
        let call = HookCall::pre_cloud_init_iso(&vmi_text, &data_text).unwrap();
        send_call(&mut send_buffer, &outgoing(8, &call)).unwrap();
        let frames = sent(&mut send_buffer);
        let message: Value = serde_json::from_slice(&frames[0]).unwrap();
        let params = json!({"vmi": vmi, "cloudInitData": data, "invocation": shown});
        let expected =
            json!({"jsonrpc": "2.0", "id": 8, "method": "preCloudInitIso", "params": params});
        prop_assert_eq!(message, expected);
        prop_assert_eq!(frames.len(), 1);
    }

    #[test]
    fn a_call_of_a_node_hook_contains_the_node_and_the_reason(
        vmi in object_of(json_value()),
        node in text(),
        context in "[^\0]{0,15}",
    ) {
        let vmi = Value::Object(vmi);
        let hook = HookName::parse("preVMStart").unwrap();
        let call = HookCall::node_hook(hook, &Bytes::from(vmi.to_string()), node.clone())
            .and_then(|call| call.in_context(context.clone()))
            .unwrap();
        let mut send_buffer = SendBuffer::default();
        let outgoing =
            OutgoingCall { id: 9, call: &call, attachments: true, deadline_ms: 5, attempt: 1 };
        send_call(&mut send_buffer, &outgoing).unwrap();
        let frames = sent(&mut send_buffer);
        let message: Value = serde_json::from_slice(&frames[0]).unwrap();
        let mut shown = json!({"deadlineMs": 5, "attempt": 1});
        if !context.is_empty() {
            shown["context"] = context.into();
        }
        let params = json!({"vmi": vmi, "nodeName": node, "invocation": shown});
        let expected = json!({"jsonrpc": "2.0", "id": 9, "method": "preVMStart", "params": params});
        prop_assert_eq!(message, expected);
        prop_assert_eq!(frames.len(), 1);
    }

    #[test]
    fn an_answer_comes_out_as_it_was_put_in(
        domain in "[^\0]{1,200}",
        attached in any::<bool>(),
        id in 0..1_u64 << 53,
        more in object_of(json_value()),
    ) {
        let mut message = more;
        for known in ["id", "method", "params", "result", "error", "attachments"] {
            message.remove(known);
        }
        message.insert("jsonrpc".to_owned(), "2.0".into());
        message.insert("id".to_owned(), id.into());
        let mut frames = Vec::new();
        if attached {
            message.insert("result".to_owned(), json!({"later": "member"}));
            message.insert("attachments".to_owned(), json!(["domain"]));
            frames.push(Bytes::from(domain.clone()));
        } else {
            message.insert("result".to_owned(), json!({"domain": domain, "later": 1}));
        }
        frames.insert(0, Bytes::from(Value::Object(message).to_string()));
        let Ok(Some(Incoming::Response { id: read_id, outcome: Outcome::Result(parts) })) =
            read(frames)
        else {
            panic!("no result");
        };
        prop_assert_eq!(read_id, id);
        let Ok(CallResult::Output(output)) = read_result(&call("<domain/>"), &parts) else {
            panic!("no document");
        };
        prop_assert_eq!(output, domain);
    }

    #[test]
    fn an_error_comes_out_as_it_was_put_in(
        code in any::<i64>(),
        message in ".{0,100}",
        data in json_value(),
    ) {
        let retryable = data.get("retryable") == Some(&Value::Bool(true));
        let error = json!({"code": code, "message": message, "data": data});
        let frame = json!({"jsonrpc": "2.0", "id": 2, "error": error}).to_string();
        let Ok(Some(Incoming::Response { id: 2, outcome: Outcome::Error(error) })) =
            read([Bytes::from(frame)])
        else {
            panic!("no error");
        };
        prop_assert_eq!((error.code, &error.message), (code, &message));
        prop_assert_eq!(error.retryable(), retryable);
    }

    #[test]
    fn any_bytes_are_a_message_or_a_fault_that_shows_no_value(
        frames in vec(vec(any::<u8>(), 1..60), 1..4),
        value in json_value(),
        field in prop::sample::select(vec![
            "jsonrpc", "id", "method", "params", "result", "error", "attachments",
        ]),
        cut in any::<prop::sample::Index>(),
    ) {
        // It must not panic.
        let _ = read(frames.into_iter().map(Bytes::from));

        // A message with one field of the wrong type, whole and torn.
        let mut message = json!({"jsonrpc": "2.0", "id": 2, "result": {"domain": SECRET}});
        message[field] = value;
        message["params"] = SECRET.into();
        let text = Bytes::from(message.to_string());
        for text in [text.slice(..=cut.index(text.len())), text] {
            match read([text]) {
                Err(fault) => prop_assert!(!fault.contains(SECRET), "{}", fault),
                Ok(Some(Incoming::Response { outcome: Outcome::Result(parts), .. })) => {
                    if let Err(fault) = read_result(&call("<domain/>"), &parts) {
                        prop_assert!(!fault.to_string().contains(SECRET), "{}", fault);
                    }
                }
                Ok(_) => {}
            }
        }
    }
}

/// Domains as libvirt and KubeVirt write them, and one with what is rare.
const DOMAINS: [&str; 3] = [
    include_str!("fixtures/domains/libvirt.xml"),
    "<domain type=\"kvm\">\n  <commandline xmlns=\"http://libvirt.org/schemas/domain/qemu/1.0\">\n    \
     <arg value=\"-s\"></arg>\n  </commandline>\n</domain>\n",
    "<?xml version='1.0'?><!--a--><domain xmlns:a='urn:a' xmlns:b='urn:a'><a:x a:y='&lt;&#65;'\n\
     c='>'/><?p x?><![CDATA[<]]>\u{e9}]&amp;<b:\u{e9}></b:\u{e9} ></domain>",
];

/// Pieces that documents consist of, whole and broken.
const PIECES: [&str; 58] = [
    "<domain>",
    "</domain>",
    "<domain/>",
    "<a>",
    "</a>",
    "<a/>",
    "<a ",
    "<",
    "</",
    ">",
    "/>",
    "/",
    "x='1'",
    " x='1'",
    " y=\"2\"",
    " x",
    "=",
    "'",
    "\"",
    " ",
    "\n",
    "text",
    "&amp;",
    "&#65;",
    "&",
    ";",
    "]]>",
    "]",
    "<!-- c -->",
    "<!--",
    "--",
    "<![CDATA[x]]>",
    "<![CDATA[",
    "<?p x?>",
    "<?p",
    "?>",
    "<?xml version='1.0'?>",
    ":",
    "<a:b:c/>",
    "<p:a/>",
    "<:a/>",
    " p:x='1'",
    " xmlns='urn:a'",
    " xmlns:p='urn:a'",
    " q:x=''",
    " xmlns:q='urn:a'",
    " xmlns:p=''",
    " xml:a=''",
    "\u{e9}",
    "\u{a0}",
    "\u{b7}",
    "\u{ff0c}",
    "\u{ffff}",
    "\u{b}",
    "\t\r",
    "\u{feff}",
    "-",
    "1",
];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_document_of_any_pieces_is_judged_as_by_another_parser(
        pieces in vec(prop::sample::select(&PIECES[..]), 0..12),
    ) {
        let text = pieces.concat();
        for text in [format!("<domain>{text}</domain>"), format!("<domain{text}/>"), text] {
            let _ = xml::compare(&text);
        }
    }

    #[test]
    fn a_broken_domain_is_judged_as_by_another_parser(
        which in prop::sample::select(&DOMAINS[..]),
        at in any::<prop::sample::Index>(),
        piece in prop::sample::select(&PIECES[..]),
        cut in 0..5_usize,
    ) {
        prop_assert_eq!(xml::compare(which), Ok(()));
        let places: Vec<_> = which.char_indices().map(|(at, _)| at).collect();
        let (before, after) = which.split_at(places[at.index(places.len())]);
        let after: String = after.chars().skip(cut).collect();
        let _ = xml::compare(&format!("{before}{piece}{after}"));
    }
}
