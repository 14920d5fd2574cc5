//! Streams and environment of hooks and their children: no marker in the environment, an empty
//! stdin, and a stdout that leads to the log.

#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test may panic")]

mod support;

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;

use kubevirt_hook::serde_json::{json, Value};

fn frame(message: &Value) -> Vec<u8> {
    let json = message.to_string().into_bytes();
    [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], &json].concat()
}

/// Held while a child starts: until it has executed its program, it has copies of this process's
/// pipes, so that another test's pipe would not be closed.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts the program as a worker.
fn start(arguments: &[&str]) -> Child {
    Command::new(support::program("children"))
        .args(arguments)
        .env("KUBEVIRT_HOOK_PROTOCOL", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends the program two calls at once: a child of the first must not read the second.
fn serve(arguments: &[&str]) -> Output {
    let starting = STARTING.lock();
    let mut child = start(arguments);
    drop(starting);
    let mut input = Vec::new();
    for id in [1, 2] {
        let params = json!({"vmi": {}, "domain": "<domain/>\n"});
        let message =
            json!({"jsonrpc": "2.0", "id": id, "method": "onDefineDomain", "params": params});
        input.extend(frame(&message));
    }
    child.stdin.take().unwrap().write_all(&input).unwrap();
    child.wait_with_output().unwrap()
}

/// Reads both responses, in order.
fn answers(output: &Output) -> [Value; 2] {
    let mut rest = &output.stdout[..];
    let answers = [(); 2].map(|()| {
        let (length, tail) = rest.split_first_chunk().unwrap();
        let (json, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        rest = tail;
        serde_json::from_slice(json).unwrap()
    });
    assert!(rest.is_empty(), "something is between the frames");
    answers
}

#[test]
fn a_child_of_a_hook_is_not_a_worker_and_cannot_reach_the_shim() {
    let output = serve(&[]);
    for answer in answers(&output) {
        assert_eq!(answer["error"]["message"], "the child ended with 0");
    }
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(log.matches("printed by the hook\n").count(), 2, "{log}");
    assert_eq!(log.matches("printed by a child\n").count(), 2, "{log}");
    assert!(output.status.success());
}

#[test]
fn with_other_threads_the_marker_stays_and_the_log_says_so() {
    let output = serve(&["threads"]);
    for answer in answers(&output) {
        assert_eq!(answer["error"]["message"], "the child ended with 4");
    }
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("KUBEVIRT_HOOK_PROTOCOL stays in the environment"), "{log}");
}

#[test]
fn in_argv_style_printed_text_is_not_part_of_the_result() {
    let _starting = STARTING.lock();
    let output = Command::new(support::program("children"))
        .args(["--vmi", "{}", "--domain", "<domain/>"])
        .env_remove("KUBEVIRT_HOOK_PROTOCOL")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"");
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "printed by the hook\nprinted by a child\nchildren: the child ended with 0\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_worker_whose_stdout_is_closed_says_so_and_fails() {
    let starting = STARTING.lock();
    let mut child = start(&[]);
    drop(child.stdout.take());
    drop(starting);
    let message = frame(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"}));
    child.stdin.take().unwrap().write_all(&message).unwrap();
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.starts_with("children: cannot write to the shim: Broken pipe"), "{log}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_programs_own_level_wins_and_what_is_logged_early_keeps_its_level() {
    let starting = STARTING.lock();
    let mut child = Command::new(support::program("vectors"))
        .envs([("KUBEVIRT_HOOK_PROTOCOL", "1"), ("SIDECAR_SHIM_STDERR_LEVELS", "1")])
        .env("VECTORS_DEBUG", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(starting);
    let initialize = json!({"protocolVersions": [1], "logLevel": "error"});
    let vmi = json!({"vector": {"do": "log", "level": "debug", "text": "details"}});
    let mut input = Vec::new();
    for (id, method, params) in [
        (1, "initialize", initialize),
        (2, "onDefineDomain", json!({"vmi": vmi, "domain": "<domain/>"})),
    ] {
        input.extend(frame(
            &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}),
        ));
    }
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "<4>logged early disk=vda\n");
    let answered = String::from_utf8_lossy(&output.stdout);
    let line = r#""params":{"level":"debug","message":"details","id":2}"#;
    assert!(answered.contains(line), "{answered}");
}
