//! Runs the vector worker through every session of `protocol/vectors`.

#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test may panic")]

mod support;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// Watchdog for a worker that hangs. No session takes this long.
const LIMIT: Duration = Duration::from_secs(60);

fn sessions() -> Vec<PathBuf> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocol/vectors/sessions");
    let entries = vectors.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let sessions: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
    assert!(sessions.len() >= 40, "there are only {} sessions", sessions.len());
    sessions
}

#[test]
fn every_session_in_whole_steps() {
    for session in sessions() {
        play(&session, usize::MAX);
    }
}

#[test]
fn every_session_byte_by_byte() {
    for session in sessions() {
        play(&session, 1);
    }
}

/// Runs one session, in writes of at most `chunk` bytes.
fn play(session: &Path, chunk: usize) {
    let name = session.file_stem().unwrap().to_str().unwrap();
    let facts: Value = serde_json::from_slice(&std::fs::read(session).unwrap()).unwrap();
    let input = std::fs::read(session.with_extension("in")).unwrap();
    let wanted = std::fs::read(session.with_extension("out")).unwrap();
    let must_fail = facts["exit"] == "failure";
    let mut child = Command::new(support::program("vectors"))
        .env("KUBEVIRT_HOOK_PROTOCOL", "1")
        .env("VECTORS_CONCURRENCY", facts["concurrency"].to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut stderr = child.stderr.take().unwrap();
    let log = thread::spawn(move || {
        let mut log = String::new();
        stderr.read_to_string(&mut log).map(|_| log).unwrap()
    });
    let (done, waiting) = mpsc::channel();
    let status = thread::spawn(move || {
        // The test drops the sender once it has read all output.
        if waiting.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            child.kill().unwrap();
        }
        child.wait().unwrap()
    });

    let (mut written, mut seen) = (0, Seen::new(facts["faults"] == true));
    for step in facts["steps"].as_array().unwrap() {
        let until = |member: &str| usize::try_from(step[member].as_u64().unwrap()).unwrap();
        for bytes in input[written..until("write")].chunks(chunk) {
            match stdin.write_all(bytes) {
                Ok(()) => {}
                // The worker may exit before it has read everything.
                Err(error) if must_fail && error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => panic!("{name}: {error}"),
            }
        }
        written = until("write");
        let expected = until("await");
        while seen.bytes.len() < expected && seen.read_frame(&mut stdout) {}
        assert_eq!(shown(&seen.bytes), shown(&wanted[..expected]), "{name}, after {written} bytes");
    }
    assert_eq!(written, input.len(), "{name}: the steps end early");
    drop(stdin);
    while seen.read_frame(&mut stdout) {}
    drop::<mpsc::Sender<()>>(done);
    assert_eq!(shown(&seen.bytes), shown(&wanted), "{name}, in the end");
    let (status, log) = (status.join().unwrap(), log.join().unwrap());
    assert_eq!(status.code(), Some(i32::from(must_fail)), "{name}: {log}");
    assert!(!must_fail || !log.is_empty(), "{name}: it exited without a reason");
    for text in facts["stderr"].as_array().unwrap() {
        assert!(log.contains(text.as_str().unwrap()), "{name}: no {text} in {log}");
    }
}

/// The output of the worker, with placeholders in place of what differs between SDKs.
struct Seen {
    bytes: Vec<u8>,
    /// Whether the messages of log lines are placeholders.
    has_faults: bool,
    /// The number of attachments that follow.
    attached: usize,
}

impl Seen {
    fn new(has_faults: bool) -> Self {
        Self { bytes: Vec::new(), has_faults, attached: 0 }
    }

    /// Reads a frame. Returns false at the end.
    fn read_frame(&mut self, stdout: &mut impl Read) -> bool {
        let mut header = Vec::new();
        stdout.take(4).read_to_end(&mut header).unwrap();
        let Ok(length) = <[u8; 4]>::try_from(&header[..]) else {
            self.bytes.extend(header);
            return false;
        };
        let mut payload = Vec::new();
        stdout.take(u32::from_be_bytes(length).into()).read_to_end(&mut payload).unwrap();
        if self.attached > 0 {
            self.attached -= 1;
        } else {
            let message: Value = serde_json::from_slice(&payload).unwrap();
            self.attached = message["attachments"].as_array().map_or(0, Vec::len);
            payload = self.with_placeholders(String::from_utf8(payload).unwrap(), &message);
        }
        self.bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        self.bytes.extend(payload);
        true
    }

    fn with_placeholders(&self, json: String, message: &Value) -> Vec<u8> {
        let mut json = json;
        if !message["result"]["sdk"].is_null() {
            let own = concat!(r#""name":"rust","version":""#, env!("CARGO_PKG_VERSION"), '"');
            assert!(json.contains(own), "{json}");
            json = json.replace(own, r#""name":"SDK","version":"VERSION""#);
        }
        if self.has_faults && message["method"] == "$/log" {
            let params = &message["params"];
            let text = params["message"].as_str().unwrap();
            let has_words = text.contains("vector fault");
            assert_eq!(has_words, params["level"] == "debug", "{text}");
            // The shim logs 8 KiB of a message: the place must be in there.
            assert!(has_words || text.contains("programs/vectors.rs:"), "{text}");
            json = json.replace(&params["message"].to_string(), "\"ANY\"");
        }
        json.into_bytes()
    }
}

/// Formats bytes for the message of an assertion.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
