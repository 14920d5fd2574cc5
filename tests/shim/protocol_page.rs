//! Runs the examples of `protocol.md`: against the shim, whose messages must look like the page's, and
//! against a worker that was written from the page.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{PYTHON, Shim, file, read};

/// The blocks of one kind, in order.
fn blocks(kind: &str) -> Vec<String> {
    let page = read("protocol.md");
    let fence = format!("```{kind}\n");
    let parts = page.split(&fence).skip(1);
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

fn messages() -> Vec<Value> {
    let messages: Vec<Value> = blocks("json")
        .iter()
        .map(|text| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")))
        .collect();
    assert!(messages.len() >= 12, "the page has lost its examples");
    assert!(messages.iter().all(|message| message["jsonrpc"] == "2.0"));
    messages
}

/// The one message for which this holds.
fn find(of: &[Value], is: impl Fn(&Value) -> bool) -> Value {
    let found: Vec<_> = of.iter().filter(|message| is(message)).collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

fn request(of: &[Value], method: &str, attached: bool) -> Value {
    find(of, |message| {
        message["method"] == method && message.get("attachments").is_some() == attached
    })
}

fn result(of: &[Value], member: &str) -> Value {
    find(of, |message| message["result"].get(member).is_some())
}

fn renumbered(mut message: Value, id: u64) -> Value {
    message["id"] = id.into();
    message
}

/// The command of a worker that expects these requests and sends these answers.
fn page_worker(dir: &Path, pairs: &[[Value; 2]]) -> String {
    let script = dir.join("script.json");
    std::fs::write(&script, json!(pairs).to_string()).unwrap();
    let page = file("tests/fixtures/page.py");
    format!("{} -IS '{}' '{}'", *PYTHON, page.display(), script.display())
}

/// Starts a shim whose worker follows the page.
async fn follow(pairs: &[[Value; 2]]) -> Shim {
    let builder = Shim::builder().both_apis();
    let worker = page_worker(builder.dir(), pairs);
    builder.worker(&worker).start().await
}

#[tokio::test]
async fn the_shim_sends_what_the_page_says() {
    let page = messages();
    let initialize = request(&page, "initialize", false);
    let define = request(&page, "onDefineDomain", false);
    let cloud_init = request(&page, "preCloudInitIso", false);
    let node_hook = request(&page, "preVMStart", false);
    let refusal = find(&page, |message| message["error"]["code"] == -32000);
    let pairs = [
        [initialize.clone(), result(&page, "protocolVersion")],
        [define.clone(), result(&page, "domain")],
        [renumbered(define.clone(), 3), result(&page, "unchanged")],
        [cloud_init.clone(), result(&page, "cloudInitData")],
        [renumbered(define.clone(), 5), refusal.clone()],
        [
            node_hook.clone(),
            find(&page, |message| message["id"] == 6 && message["result"] == json!({})),
        ],
    ];
    let mut shim = follow(&pairs).await;
    let (vmi, domain) = (&define["params"]["vmi"], define["params"]["domain"].as_str().unwrap());
    let answer = shim.define(vmi, domain).await.unwrap();
    assert_eq!(answer, result(&page, "domain")["result"]["domain"]);
    assert_eq!(shim.define(vmi, domain).await.unwrap(), domain);
    let data = cloud_init["params"]["cloudInitData"].to_string();
    let client = shim.dial().await;
    let [answer, _] = client.cloud_init("v1alpha3", vmi, &data, "").await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer, result(&page, "cloudInitData")["result"]["cloudInitData"]);
    let status = shim.define(vmi, domain).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert!(status.message().contains(refusal["error"]["message"].as_str().unwrap()));
    let node = node_hook["params"]["nodeName"].as_str().unwrap();
    assert_eq!(node, "node01", "the node name of these tests");
    shim.dial_plugin().await.node_hook("PreVMStart", vmi).await.unwrap();
    // The worker fails with an assertion if the shim sends more than the page has.
    shim.dial().await.shutdown().await.unwrap();
    assert_eq!(shim.exited().await.code(), Some(0));
    shim.assert_not_logged("AssertionError");
}

#[tokio::test]
async fn the_shim_attaches_as_the_page_says() {
    let page = messages();
    let mut declared = result(&page, "protocolVersion");
    declared["result"]["capabilities"]["attachments"] = true.into();
    let define = request(&page, "onDefineDomain", true);
    let answer = find(&page, |message| {
        message["result"].is_object() && message.get("attachments").is_some()
    });
    let pairs = [[request(&page, "initialize", false), declared], [define.clone(), answer]];
    let shim = follow(&pairs).await;
    let domain = "<domain><name>vm1</name></domain>";
    let answer = shim.define(&define["params"]["vmi"], domain).await.unwrap();
    assert_eq!(answer, "<domain><name>vm1</name><!-- attached --></domain>");
}

#[tokio::test]
async fn the_shim_reads_the_pages_log_line_and_its_refusal_of_all_versions() {
    let page = messages();
    let log = request(&page, "$/log", false);
    let line = &log["params"];
    let mut shim = Shim::persistent("").start().await;
    shim.define(&json!({"do": "log", "lines": [line]}), "<domain/>").await.unwrap();
    let logged = shim.log_line(line["message"].as_str().unwrap()).await;
    for field in ["level", "fields"] {
        assert_eq!(logged[field], line[field], "{logged}");
    }
    // The shim's own number of the call, which in the worker is request 2.
    assert_eq!((&logged["call"], &line["id"]), (&json!(1), &json!(2)));

    let refusal = find(&page, |message| message["error"]["data"].get("protocolVersions").is_some());
    let builder = Shim::builder();
    let worker = page_worker(builder.dir(), &[[request(&page, "initialize", false), refusal]]);
    let mut shim = builder.worker(&worker).spawn();
    assert_eq!(shim.exited().await.code(), Some(1));
    shim.assert_logged("speaks protocol versions [2, 3], and this shim speaks [1]");
}

#[tokio::test]
async fn the_shim_cancels_as_the_page_says() {
    let page = messages();
    let cancel = request(&page, "$/cancelRequest", false);
    let mut shim = Shim::persistent("--cancel").start().await;
    let id = cancel["params"]["id"].as_u64().unwrap();
    for _ in 2..id {
        shim.define(&json!({}), "<domain/>").await.unwrap();
    }
    shim.hangs().await;
    // The fixture logs the id that it has read.
    shim.log_line(&format!("cancelled {id}")).await;
}

#[test]
fn the_worker_that_was_written_from_the_page_answers_its_requests() {
    let page = messages();
    let bare = file("examples/python/bare.py");
    let mut child = Command::new(&*PYTHON)
        .arg(bare)
        .env("KUBEVIRT_HOOK_PROTOCOL", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let unknown = json!({"jsonrpc": "2.0", "id": 3, "method": "noSuchHook", "params": {}});
    for message in [
        request(&page, "initialize", false),
        request(&page, "onDefineDomain", false),
        request(&page, "$/cancelRequest", false),
        unknown,
    ] {
        let bytes = message.to_string().into_bytes();
        stdin.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).unwrap();
        stdin.write_all(&bytes).unwrap();
    }
    drop(stdin);
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "it exits at end-of-file");
    let mut answers = Vec::new();
    while let Some((header, rest)) = output.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*header) as usize;
        answers.push(serde_json::from_slice::<Value>(&rest[..length]).unwrap());
        output = rest[length..].to_vec();
    }
    let [initialized, unchanged, refused] = &answers[..] else { panic!("{answers:#?}") };
    assert_eq!(
        (&initialized["id"], &initialized["result"]["protocolVersion"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(*unchanged, json!({"jsonrpc": "2.0", "id": 2, "result": {"unchanged": true}}));
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(3), &json!(-32601)));
}

/// What each dump of the page contains, in order: the frames of a message.
const DUMPED: [&[&str]; 4] = [
    &["{}"],
    &[r#"{"a":"é"}"#],
    &[r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"hooks":["onDefineDomain"]}}"#],
    &[
        r#"{"jsonrpc":"2.0","id":2,"result":{},"attachments":["domain"]}"#,
        "<domain><name>ns_vm1</name></domain>",
    ],
];

/// Writes bytes as the page does: 16 in a line, in hexadecimal digits and as ASCII.
fn dump(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = |&byte: &u8| if matches!(byte, 0x20..0x7f) { char::from(byte) } else { '.' };
        let text: String = bytes.iter().map(shown).collect();
        format!("{:<47}  |{text}|\n", hex.join(" "))
    };
    bytes.chunks(16).map(line).collect()
}

#[test]
fn the_dumps_are_what_the_shim_reads_and_writes() {
    use bytes::Buf;
    use sidecar_shim::frame::{FrameDecoder, Item, SendBuffer};
    use sidecar_shim::hook::HookCall;
    use sidecar_shim::rpc::{CallResult, Declared, Incoming, MessageReader, Outcome, read_result};
    use tokio_util::codec::Decoder;
    assert_eq!(blocks("hex").len(), DUMPED.len());
    let mut messages = Vec::new();
    for (block, frames) in blocks("hex").iter().zip(DUMPED) {
        let mut written = SendBuffer::default();
        for &frame in frames {
            written.push_frame([frame.into()]);
        }
        let length = written.remaining();
        let bytes = written.copy_to_bytes(length);
        assert_eq!(*block, dump(&bytes), "the page should have:\n{}", dump(&bytes));
        let mut buffer = bytes::BytesMut::from(bytes);
        let mut decoder = FrameDecoder::default();
        let mut reader = MessageReader::default();
        for &frame in frames {
            let item = decoder.decode(&mut buffer).unwrap();
            assert_eq!(item, Some(Item::Frame(frame.into())));
            if frame.contains("jsonrpc") || reader.in_message() {
                messages.extend(reader.take(frame.into()).unwrap());
            }
        }
        assert!(buffer.is_empty() && !reader.in_message());
    }
    let [
        Incoming::Response { id: 1, outcome: initialized },
        Incoming::Response { id: 2, outcome: attached },
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!(Declared::read(initialized).unwrap().hooks.len(), 1);
    let call = HookCall::on_define_domain(&"{}".into(), "domainXML", "<domain/>".into()).unwrap();
    let Outcome::Result(parts) = attached else { panic!("{attached:?}") };
    let CallResult::Output(domain) = read_result(&call, parts).unwrap() else {
        panic!("unchanged")
    };
    assert_eq!(domain, DUMPED[3][1]);
}
