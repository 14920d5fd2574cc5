//! The Python SDK's own tests, as part of this project's.

#![expect(clippy::disallowed_types, reason = "a test starts processes")]

use std::process::Command;

#[test]
fn the_python_sdk_passes_its_tests() {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/python/tests");
    let mut python = Command::new("python3");
    python.args(["-B", "-m", "unittest", "discover", "-s", tests]);
    let run = python.output().expect("the tests need python3");
    let text = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{text}");
    // That nothing was found to run would be a success too.
    let ran = text.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next());
    let ran: usize = ran.unwrap_or_default().parse().unwrap_or_default();
    assert!(ran >= 70, "{text}");
}
