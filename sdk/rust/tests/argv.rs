//! Argv style: a hook's program without the shim, with documents in its arguments.

#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test may panic")]

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use kubevirt_hook::serde_json::{json, Value};

const DOMAIN: &str = "<domain>\n\t<name>é &amp; </name>\r\n</domain>\n\n";

/// Runs the vector worker through a link with this name, or with one that is not a hook's.
fn start(name: Option<&str>, arguments: &[&OsStr], context: Option<&str>) -> Output {
    let program = support::program("vectors");
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join(name.unwrap_or("a-program"));
    symlink(program, &link).unwrap();
    let mut command = Command::new(link);
    command.args(arguments).env_remove("KUBEVIRT_HOOK_PROTOCOL").env_remove("RUST_BACKTRACE");
    match context {
        Some(context) => command.env("KUBEVIRT_HOOK_CONTEXT", context),
        None => command.env_remove("KUBEVIRT_HOOK_CONTEXT"),
    };
    command.output().unwrap()
}

fn run(name: Option<&str>, vector: &Value, option: &str, subject: &str) -> Output {
    let vmi = json!({"vector": vector}).to_string();
    let arguments = ["--vmi", &vmi, option, subject].map(OsStr::new);
    start(name, &arguments, None)
}

/// Returns the output of a hook that succeeded.
fn result(output: &Output) -> &str {
    assert!(output.status.success(), "{}", log(output));
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Returns the stderr of a hook that failed with this status.
fn failure(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{}", log(output));
    assert!(output.stdout.is_empty(), "something was printed");
    log(output)
}

fn log(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_result_and_an_unchanged_document_are_printed_to_the_byte() {
    let append = json!({"do": "append", "text": "<!-- ü -->"});
    assert_eq!(result(&run(None, &append, "--domain", DOMAIN)), format!("{DOMAIN}<!-- ü -->"));
    assert_eq!(result(&run(None, &Value::Null, "--domain", DOMAIN)), DOMAIN);
    // An unchanged document is not re-encoded.
    let data = "{ \"UserData\" : \"\\u0061\",\n\"DataSource\":\"noCloud\" }";
    assert_eq!(result(&run(None, &Value::Null, "--cloud-init", data)), data);
    let answer = json!({"do": "answer", "text": "#cloud-config\n"});
    assert_eq!(
        result(&run(None, &answer, "--cloud-init", data)),
        r##"{"DataSource":"noCloud","UserData":"#cloud-config\n"}"##
    );
}

#[test]
fn the_name_that_it_is_started_by_decides_and_otherwise_the_options() {
    let who = json!({"do": "invocation"});
    assert_eq!(result(&run(Some("onDefineDomain"), &Value::Null, "--domain", DOMAIN)), DOMAIN);
    assert_eq!(result(&run(Some("preVMStart"), &Value::Null, "--node", "node-a")), "");
    let refused = run(Some("preVMStart"), &who, "--node", "node-a");
    assert!(failure(&refused, 1).ends_with("attempt 1, context none, node node-a\n"));

    let wrong = run(Some("onDefineDomain"), &who, "--cloud-init", "{}");
    assert!(failure(&wrong, 2).contains("onDefineDomain takes --domain XML"));
    let unnamed = run(None, &who, "--node", "node-a");
    assert!(failure(&unnamed, 2).contains("--node does not select a hook"));
    // The name of a hook that is not registered counts as any other name.
    assert_eq!(result(&run(Some("preVMStop"), &Value::Null, "--domain", DOMAIN)), DOMAIN);
    let children = support::program("children");
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("preCloudInitIso");
    symlink(children, &link).unwrap();
    let mut command = Command::new(link);
    command.args(["--vmi", "{}", "--domain", "<domain/>"]).env_remove("KUBEVIRT_HOOK_PROTOCOL");
    let output = command.output().unwrap();
    assert!(failure(&output, 2).contains("this program has no hook preCloudInitIso"));
}

#[test]
fn help_prints_the_usage() {
    for option in ["--help", "-h"] {
        let usage = "usage:\n  onDefineDomain --vmi JSON --domain XML\n  \
            preCloudInitIso --vmi JSON --cloud-init JSON\n  preVMStart --vmi JSON --node NAME\n\
            or as a worker of sidecar-shim --mode persistent\n";
        assert_eq!(result(&start(None, &[OsStr::new(option)], None)), usage);
    }
}

#[test]
fn the_options_may_come_in_any_order_and_with_an_equals_sign() {
    let domain = format!("--domain={DOMAIN}");
    let output = start(None, &[&domain, "--vmi", "{}"].map(OsStr::new), None);
    assert_eq!(result(&output), DOMAIN);
}

#[test]
fn the_context_comes_from_the_environment() {
    let vmi = json!({"vector": {"do": "invocation"}}).to_string();
    let arguments = ["--vmi", &vmi, "--domain", DOMAIN].map(OsStr::new);
    let output = start(None, &arguments, Some("MigrationTarget"));
    assert!(failure(&output, 1).contains("attempt 1, context MigrationTarget, node none"));
    let output = start(None, &arguments, Some(""));
    assert!(failure(&output, 1).contains("context none"));
}

#[test]
fn an_invalid_command_line_exits_with_status_2_and_quotes_no_document() {
    for (arguments, reason) in [
        (&[][..], "--vmi is missing"),
        (&["--vmi", "{}"], "--domain, --cloud-init or --node is missing"),
        (&["--domain", DOMAIN], "--vmi is missing"),
        (&["--vmi", "{}", "--domain"], "--domain has no value"),
        (&["--vmi", "{}", "--vmi", "{}"], "--vmi conflicts with an earlier option"),
        (
            &["--vmi", "{}", "--domain", DOMAIN, "--node", "a"],
            "--node conflicts with an earlier option",
        ),
        (&["{}", DOMAIN], "unknown argument"),
    ] {
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        let log = failure(&start(None, &arguments, None), 2);
        assert!(log.contains(reason), "{reason}: {log}");
        assert!(log.contains("usage:\n  onDefineDomain --vmi JSON --domain XML\n"), "{log}");
        assert!(!log.contains("<domain>"), "{log}");
    }
}

#[test]
fn invalid_documents_fail_the_call() {
    for (arguments, reason) in [
        ([&b"--vmi"[..], b"[1]", b"--domain", b"<domain/>"], "vmi is missing or not an object"),
        ([b"--vmi", b"\xff", b"--domain", b"<domain/>"], "vmi is missing or not an object"),
        ([b"--vmi", b"{}", b"--domain", b"<domain>\xff"], "domain is not UTF-8"),
        ([b"--vmi", b"{}", b"--cloud-init", b"{"], "cloudInitData is missing or not an object"),
    ] {
        let log = failure(&start(None, &arguments.map(OsStr::from_bytes), None), 1);
        assert_eq!(log, format!("vectors: {reason}\n"));
    }
}

/// Runs the vector worker as the shim does that reads levels on stderr.
fn run_with_levels(vector: &Value, option: &str, subject: &str) -> Output {
    let vmi = json!({"vector": vector}).to_string();
    Command::new(support::program("vectors"))
        .args(["--vmi", &vmi, option, subject])
        .env_remove("KUBEVIRT_HOOK_PROTOCOL")
        .env_remove("RUST_BACKTRACE")
        .env("SIDECAR_SHIM_STDERR_LEVELS", "1")
        .output()
        .unwrap()
}

#[test]
fn a_fault_fails_the_call_and_shows_where_it_was_without_its_words() {
    let fail = json!({"do": "fail", "text": "vector fault"});
    let panicked = failure(&run(None, &fail, "--domain", DOMAIN), 1);
    assert!(panicked.starts_with("ERROR: panic at "), "{panicked}");
    assert!(panicked.contains("programs/vectors.rs:") && !panicked.contains("vector fault"));
    // The backtrace has the hook's function, and little else.
    assert!(panicked.contains("vectors::act"), "{panicked}");
    assert!(!panicked.contains("panicking::"), "{panicked}");
    assert!(panicked.ends_with("vectors: a fault in the hook's code; its log has the trace\n"));
    let returned = failure(&run(None, &fail, "--cloud-init", "{}"), 1);
    let start = "ERROR: fault: alloc::string::String at ";
    assert!(returned.starts_with(start) && returned.contains("vectors.rs:"), "{returned}");
    assert!(!returned.contains("vector fault"));

    let panicked = failure(&run_with_levels(&fail, "--domain", DOMAIN), 1);
    let mut lines = panicked.lines().rev();
    assert_eq!(lines.next(), Some("vectors: a fault in the hook's code; its log has the trace"));
    assert!(lines.clone().count() > 2 && lines.all(|it| it.starts_with("<3>")), "{panicked}");
}

#[test]
fn log_lines_go_to_stderr() {
    let vector = json!({"do": "log", "level": "warning", "text": "look here"});
    let output = run(None, &vector, "--domain", DOMAIN);
    assert_eq!(result(&output), DOMAIN);
    assert_eq!(log(&output), "WARNING: look here\n");
}

#[test]
fn log_lines_have_their_level_if_the_shim_reads_it() {
    for (level, prefix) in [("info", "<6>"), ("warning", "<4>"), ("error", "<3>")] {
        let fields = json!({"disk": "vdc", "count": 2, "seen": true});
        let vector = json!({"do": "log", "level": level, "text": "look\nhere", "fields": fields});
        let output = run_with_levels(&vector, "--domain", DOMAIN);
        assert_eq!(result(&output), DOMAIN);
        let expected = format!("{prefix}look\n{prefix}here count=2 disk=vdc seen=true\n");
        assert_eq!(log(&output), expected);
    }
    let vector = json!({"do": "log", "level": "debug", "text": "details"});
    assert_eq!(log(&run_with_levels(&vector, "--domain", DOMAIN)), "");
}
