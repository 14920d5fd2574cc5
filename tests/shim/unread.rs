//! Calls that their worker has not begun to read: no hook knows of them, so they go to another one,
//! node hooks included.

use nix::sys::signal::Signal;
use serde_json::json;
use tonic::Code;

use crate::support::{Shim, ShimBuilder};

/// A worker of one node hook, without buffers between it and its stdin. `calls` appends a line to
/// a file for each call that it reads, in part or whole.
const WORKER: &str = r#"#!/usr/bin/env python3
import json, os, select, signal, struct, sys, time

def read(count):
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            os._exit(0)
        data += more
    return data

def message():
    return json.loads(read(*struct.unpack(">I", read(4))))

def answer(message, result):
    data = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
    os.write(1, struct.pack(">I", len(data)) + data)

def arrived():
    select.select([0], [], [])

def note():
    with open(sys.argv[2], "a") as calls:
        calls.write("read\n")

answer(message(), {"protocolVersion": 1, "hooks": ["preVMStart"]})
for number in range(1000):
    if sys.argv[1] == "never" or number > 0:
        arrived()
        if sys.argv[1] in ("never", "exit"):
            os._exit(0)
        if sys.argv[1] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1] == "part":
            note()
            read(5)
            os._exit(0)
    call = message()
    note()
    answer(call, {})
    if sys.argv[1] == "close":
        os.close(0)
        time.sleep(1000)
"#;

fn builder(does: &str) -> (ShimBuilder, std::path::PathBuf) {
    let builder = Shim::builder().program("leaves", WORKER).plugin();
    let calls = builder.dir().join("calls");
    std::fs::write(&calls, "").unwrap();
    let command = format!("leaves {does} {}", calls.display());
    (builder.worker(&command), calls)
}

#[tokio::test]
async fn no_node_hook_is_lost_whose_worker_exits_or_dies_or_closes_its_stdin_before_it_reads() {
    for (does, count) in [("exit", 10), ("die", 3), ("close", 3)] {
        let (builder, calls) = builder(does);
        let shim = builder.start().await;
        let client = shim.dial_plugin().await;
        for number in 0..count {
            let result = client.node_hook("PreVMStart", &json!({})).await;
            assert!(result.is_ok(), "{does}, call {number}: {result:?}");
        }
        let read = std::fs::read_to_string(calls).unwrap().lines().count();
        assert_eq!(read, count, "{does}: each was read once");
    }
}

#[tokio::test]
async fn a_node_hook_that_its_worker_has_read_in_part_is_not_sent_again() {
    let (builder, calls) = builder("part");
    let shim = builder.start().await;
    let client = shim.dial_plugin().await;
    client.node_hook("PreVMStart", &json!({})).await.unwrap();
    let status = client.node_hook("PreVMStart", &json!({})).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert!(status.message().contains("exited with status 0"), "{status:?}");
    assert_eq!(std::fs::read_to_string(calls).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn a_worker_that_never_reads_a_call_is_an_error_and_no_loop() {
    let (builder, calls) = builder("never");
    let mut shim = builder.start().await;
    let client = shim.dial_plugin().await;
    let status = client.node_hook("PreVMStart", &json!({})).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let text =
        "hook preVMStart is unavailable: 3 workers in a row stopped before they read the call";
    assert!(status.message().starts_with(text), "{status:?}");
    assert_eq!(std::fs::read_to_string(calls).unwrap(), "");
    shim.signal(Signal::SIGTERM);
    assert!(shim.exited().await.success());
}
