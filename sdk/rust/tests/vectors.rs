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

    let (mut written, mut seen) = (0, Vec::new());
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
        let missing = expected.saturating_sub(seen.len()) as u64;
        (&mut stdout).take(missing).read_to_end(&mut seen).unwrap();
        assert_eq!(shown(&seen), shown(&wanted[..expected]), "{name}, after {written} bytes");
    }
    assert_eq!(written, input.len(), "{name}: the steps end early");
    drop(stdin);
    stdout.read_to_end(&mut seen).unwrap();
    drop::<mpsc::Sender<()>>(done);
    assert_eq!(shown(&seen), shown(&wanted), "{name}, in the end");
    let (status, log) = (status.join().unwrap(), log.join().unwrap());
    assert_eq!(status.code(), Some(i32::from(must_fail)), "{name}: {log}");
    assert!(!must_fail || !log.is_empty(), "{name}: it exited without a reason");
    for text in facts["stderr"].as_array().unwrap() {
        assert!(log.contains(text.as_str().unwrap()), "{name}: no {text} in {log}");
    }
}

/// Formats bytes for the message of an assertion.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
