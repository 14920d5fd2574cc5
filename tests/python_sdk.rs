//! The Python SDK's own tests, as part of this project's. Each file of them is a test here, so that
//! they run at the same time.

#![expect(clippy::disallowed_types, clippy::expect_used, reason = "a test starts processes")]

use std::process::Command;

/// Runs a file of tests, of which there must be this many.
fn passes(file: &str, at_least: usize) {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/python/tests");
    let mut python = Command::new("python3");
    python.args(["-B", "-m", "unittest", "discover", "-s", tests, "-p", file]);
    let run = python.output().expect("the tests need python3");
    let text = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{text}");
    // unittest also succeeds if it finds no tests.
    let ran = text.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next());
    let ran: usize = ran.unwrap_or_default().parse().unwrap_or_default();
    assert!(ran >= at_least, "{text}");
}

#[test]
fn argv() {
    passes("test_argv.py", 12);
}

#[test]
fn cloud_init() {
    passes("test_cloud_init.py", 6);
}

#[test]
fn end() {
    passes("test_end.py", 13);
}

#[test]
fn faults() {
    passes("test_faults.py", 18);
}

#[test]
fn logging() {
    passes("test_logging.py", 17);
}

#[test]
fn pages() {
    passes("test_pages.py", 9);
}

#[test]
fn testing() {
    passes("test_testing.py", 18);
}

#[test]
fn vectors() {
    passes("test_vectors.py", 2);
}

#[test]
fn worker() {
    passes("test_worker.py", 21);
}

#[test]
fn xml() {
    passes("test_xml.py", 30);
}

#[test]
fn every_file_of_tests_is_one_of_these() {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/python/tests");
    let entries = std::fs::read_dir(tests).expect("the tests of the SDK");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("test_")).collect();
    names.sort();
    let expected = [
        "argv",
        "cloud_init",
        "end",
        "faults",
        "logging",
        "pages",
        "testing",
        "vectors",
        "worker",
        "xml",
    ];
    assert_eq!(names, expected.map(|name| format!("test_{name}.py")));
}
