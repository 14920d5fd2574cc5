//! `sidecar-shim status`: what an administrator sees of a pool, of its workers, and of calls.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use bytes::Bytes;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::process::Command;

use crate::support::{DOMAIN, ECHO, Gate, InFlight, LIMIT, PYTHON, Shim, binary, kill, read};

/// Runs `status` with these arguments.
async fn status(args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["status", "--timeout", "60s"]).args(args).kill_on_drop(true);
    tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap()
}

fn printed(output: Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The status of the shim behind a socket, as text.
pub async fn text_of(socket: &Path) -> String {
    printed(status(&["--socket", socket.to_str().unwrap()]).await)
}

/// The status of the shim behind a socket, as JSON.
pub async fn json_of(socket: &Path) -> Value {
    let args = ["--json", "--socket", socket.to_str().unwrap()];
    serde_json::from_str(&printed(status(&args).await)).unwrap()
}

/// A VMI whose hook call does something.
fn vmi(name: &str, does: &Value) -> Value {
    let mut vmi = does.clone();
    vmi["metadata"] = json!({"name": name, "namespace": "shop", "uid": format!("uid-of-{name}")});
    vmi
}

/// What the lines of a page show, without the spaces that align them.
fn words(page: &str) -> Vec<String> {
    page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[track_caller]
fn assert_has_line(page: &str, parts: &[&str]) {
    let found = words(page).iter().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(found, "no line with {parts:?}:\n{page}");
}

#[tokio::test]
async fn a_worker_that_hangs_and_one_that_starts_are_shown_with_their_calls() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::new(dir.path().join("start"));
    let worker = format!("--hooks preVMStart --wait-for {}", gate.0.display());
    let mut shim = Shim::persistent(&worker).plugin().args(["--max-workers", "2"]).spawn();
    drop(gate.reached().await);
    shim.serving().await;
    let hanging =
        shim.node_hook_in_flight(|at| vmi("hung", &json!({"do": "wait", "path": at.0}))).await;
    let waiting = shim.send_node_hook(vmi("waits", &json!({}))).await;
    let starting = gate.reached().await;
    let socket = shim.plugin_socket();
    let status = json_of(&socket).await;
    let pool = &status["pools"][0];
    assert_eq!((&pool["state"], &status["state"]), (&json!("serving"), &json!("serving")));
    let counts = json!({"starting": 1, "ready": 0, "busy": 1, "stopping": 0});
    assert_eq!(pool["worker_counts"], counts);
    assert_eq!((&pool["calls_running"], &pool["calls_waiting"]), (&json!(1), &json!(1)));
    assert!(pool["waiting_bytes"].as_u64().unwrap() > 0);
    let [busy, new] = &pool["workers"].as_array().unwrap()[..] else { panic!("{pool}") };
    assert_eq!((&busy["state"], &busy["calls"]), (&json!("busy"), &json!(1)));
    assert!(busy["busy_seconds"].as_f64().unwrap() > 0.0, "{busy}");
    assert!(busy["resident_bytes"].as_u64().unwrap() > 1 << 20, "{busy}");
    assert_eq!((&new["state"], &new["busy_seconds"]), (&json!("starting"), &Value::Null));
    assert!(new["pid"].as_i64().is_some(), "{new}");
    let [first, second] = &status["running"].as_array().unwrap()[..] else { panic!("{status}") };
    assert_eq!((&first["vm"]["name"], &first["pid"]), (&json!("hung"), &busy["pid"]));
    assert_eq!((&second["vm"]["name"], &second["pid"]), (&json!("waits"), &Value::Null));
    assert!(first["seconds"].as_f64() >= second["seconds"].as_f64());

    let page = text_of(&socket).await;
    let pid = busy["pid"].to_string();
    assert_has_line(&page, &["1 starting, 0 ready, 1 busy, 0 stopping; at most 2"]);
    assert_has_line(&page, &[&pid, "busy", "1 call, "]);
    assert_has_line(&page, &["starting"]);
    assert_has_line(&page, &["preVMStart call 1 pid", &pid, "shop/hung"]);
    assert_has_line(&page, &["preVMStart call 2 waits shop/waits"]);
    drop(starting);
    waiting.await.unwrap().unwrap();
    hanging.finish().await.unwrap();
    let after = json_of(&socket).await;
    assert_eq!(after["running"], json!([]));
    assert_eq!(after["hooks"][0]["statuses"], json!([{"status": "OK", "count": 2}]));
}

#[tokio::test]
async fn a_pool_whose_workers_keep_failing_says_why() {
    let builder = Shim::persistent("--start once:mark").plugin();
    let dir = builder.dir().to_owned();
    let mut shim = builder.current_dir(&dir).start().await;
    let plugin = shim.dial_plugin().await;
    let _ = plugin.mutate("libvirt", &json!({"do": "kill"}), "<domain/>", None).await;
    shim.log_line("hook workers keep failing").await;
    let status = json_of(&shim.plugin_socket()).await;
    let pool = &status["pools"][0];
    assert_eq!((&pool["state"], &status["state"]), (&json!("down"), &json!("failing")));
    let fault = pool["last_fault"].as_str().unwrap();
    assert!(fault.contains("exited with status 8 before it answered initialize"), "{fault}");
    assert!(!fault.contains("came up before"), "it has what the worker wrote: {fault}");
    assert!(pool["back_off_seconds"].as_f64().is_some(), "{pool}");
    let exits = &pool["exits"];
    assert_eq!((&exits["call"], &exits["failed_idle"]), (&json!(1), &json!(0)), "{exits}");
    assert!(exits["failed_start"].as_u64() >= Some(5), "{exits}");
    let page = text_of(&shim.plugin_socket()).await;
    assert_has_line(&page, &["down: calls fail at once, next start in"]);
    assert_has_line(&page, &["last fault: ", "python"]);
    assert_has_line(&page, &["failed: 0 while idle,"]);
}

#[tokio::test]
async fn failures_and_slow_calls_name_their_vm_and_nothing_else_of_it() {
    let shim = Shim::persistent("--hooks preVMStart").plugin().start().await;
    let client = shim.dial_plugin().await;
    for number in 0..12 {
        let error = json!({"code": -32000, "message": format!("because of {number}")});
        let request = vmi(&format!("vm-{number}"), &json!({"do": "error", "error": error}));
        client.node_hook("PreVMStart", &request).await.unwrap_err();
    }
    client.node_hook("PreVMStart", &vmi("good", &json!({}))).await.unwrap();
    client.node_hook("OnDefineDomain", &json!({})).await.unwrap_err();
    client.node_hook("PostVMStop", &vmi("other", &json!({}))).await.unwrap_err();
    let status = json_of(&shim.plugin_socket()).await;
    let failures = status["failures"].as_array().unwrap();
    let names: Vec<_> = failures.iter().map(|it| it["vm"]["name"].as_str()).collect();
    let last: Vec<_> = (4..12).rev().map(|number| format!("vm-{number}")).collect();
    assert_eq!(names[..2], [Some("other"), None]);
    assert_eq!(names[2..], last.iter().map(|name| Some(&**name)).collect::<Vec<_>>());
    assert_eq!(failures[1]["status"], "UNIMPLEMENTED");
    let failure = &failures[2];
    assert_eq!(failure["vm"], json!({"namespace": "shop", "name": "vm-11", "uid": "uid-of-vm-11"}));
    let fields = [&failure["hook"], &failure["status"], &failure["call"]];
    assert_eq!(fields, [&json!("preVMStart"), &json!("FAILED_PRECONDITION"), &json!(12)]);
    assert!(failure["pid"].as_u64().is_some() && failure["took_ms"].as_f64() > Some(0.0));
    assert!(humantime::parse_rfc3339(failure["time"].as_str().unwrap()).is_ok(), "{failure}");
    let slowest = status["slowest"].as_array().unwrap();
    assert_eq!(slowest.len(), 10);
    let times: Vec<_> = slowest.iter().map(|it| it["took_ms"].as_f64().unwrap()).collect();
    assert!(times.is_sorted_by(|before, after| before >= after), "{times:?}");

    let hooks = status["hooks"].as_array().unwrap();
    let [served, other] = &hooks[..] else { panic!("{hooks:?}") };
    assert_eq!((&served["name"], &other["name"]), (&json!("preVMStart"), &json!("_other")));
    assert_eq!([&served["calls"], &served["failed"]], [&json!(13), &json!(12)]);
    assert_eq!(other["statuses"], json!([{"status": "UNIMPLEMENTED", "count": 2}]));
    assert_eq!(status["all"]["calls"], 15);
    assert!(served["p50_ms"].as_f64() <= served["p99_ms"].as_f64(), "{served}");
    assert!(served["p99_ms"].as_f64() <= served["max_ms"].as_f64(), "{served}");
    assert_eq!(status["refusals"], json!([{"why": "not_served", "count": 2}]));

    let page = text_of(&shim.plugin_socket()).await;
    assert!(!page.contains("because of") && !status.to_string().contains("because of"), "{page}");
    assert_has_line(&page, &["FAILED_PRECONDITION preVMStart shop/vm-11"]);
    assert_has_line(&page, &["UNIMPLEMENTED (no hook)"]);
    assert_has_line(&page, &["preVMStart: FAILED_PRECONDITION 12"]);
}

#[tokio::test]
async fn exec_mode_shows_what_runs_and_what_waits() {
    let waits = "#!/bin/sh\npath=${2#*:\\\"}; cat \"${path%%\\\"*}\"\n";
    let builder = Shim::builder().program("preVMStart", waits).plugin();
    let shim = builder.args(["--max-workers", "1"]).start().await;
    let running = shim.node_hook_in_flight(|gate| json!({"path": gate.0})).await;
    let gate = shim.gate();
    let waiting = shim.send_node_hook(json!({"path": gate.0})).await;
    let socket = shim.plugin_socket();
    let mut status = Value::Null;
    // The call may not have arrived yet.
    for _ in 0..1000 {
        status = json_of(&socket).await;
        if status["calls_waiting"] == 1 {
            break;
        }
    }
    let fields = ["mode", "calls_running", "calls_waiting", "max_workers", "pools"];
    let found = fields.map(|field| status[field].clone());
    assert_eq!(found, [json!("exec"), json!(1), json!(1), json!(1), json!([])]);
    running.finish().await.unwrap();
    InFlight::new(waiting, &gate).await.finish().await.unwrap();
}

#[tokio::test]
async fn files_have_the_digests_that_they_have_now() {
    let builder = Shim::builder().program("onDefineDomain", ECHO);
    let program = builder.dir().join("bin/onDefineDomain");
    let shim = builder.start().await;
    let status = json_of(&shim.socket()).await;
    let files = status["files"].as_array().unwrap();
    assert_eq!(files[0]["path"], binary().to_str().unwrap());
    for (file, path) in files.iter().zip([&binary(), &program]) {
        let mut command = Command::new("sha256sum");
        let expected = command.arg(path).output().await.unwrap().stdout;
        let expected = String::from_utf8(expected).unwrap();
        assert_eq!(file["sha256"].as_str(), expected.split(' ').next(), "{file}");
    }
    let page = text_of(&shim.socket()).await;
    assert_has_line(&page, &[files[1]["sha256"].as_str().unwrap()]);
}

#[tokio::test]
async fn without_a_socket_the_only_one_of_the_directory_is_asked() {
    let shim = Shim::persistent("").start().await;
    let hooks = shim.dir.path().join("hooks");
    let directory = ["--socket-dir", hooks.to_str().unwrap()];
    // Other files are there as well.
    std::fs::write(hooks.join("notes"), "").unwrap();
    assert!(printed(status(&directory).await).starts_with("sidecar-shim "));
    let _other = UnixListener::bind(hooks.join("other.sock")).unwrap();
    let several = status(&directory).await;
    assert_eq!(several.status.code(), Some(1));
    let complaint = String::from_utf8(several.stderr).unwrap();
    assert!(complaint.contains("several sockets: name one with --socket"), "{complaint}");
    assert!(complaint.contains("/other.sock") && complaint.contains("/shim-"), "{complaint}");

    let empty = tempfile::tempdir().unwrap();
    let none = status(&["--socket-dir", empty.path().to_str().unwrap()]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8(none.stderr).unwrap().contains("there is no socket in"));
    let nowhere = status(&["--socket-dir", "/nowhere"]).await;
    assert!(String::from_utf8(nowhere.stderr).unwrap().contains("cannot read /nowhere: No such"));
}

#[tokio::test]
async fn a_shim_without_the_service_is_named_as_older() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // It answers as gRPC servers do that do not know a service.
    let old = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut http2 = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = http2.accept().await {
            let head = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "12");
            let _: h2::SendStream<Bytes> =
                respond.send_response(head.body(()).unwrap(), true).unwrap();
        }
    });
    let asked = status(&["--socket", path.to_str().unwrap()]).await;
    assert_eq!(asked.status.code(), Some(1));
    let complaint = String::from_utf8(asked.stderr).unwrap();
    assert!(complaint.contains("its shim is older than this program"), "{complaint}");
    old.abort();
    let nowhere = status(&["--socket", "/nowhere/x.sock"]).await;
    let complaint = String::from_utf8(nowhere.stderr).unwrap();
    assert!(complaint.contains("cannot connect to /nowhere/x.sock"), "{complaint}");
}

#[tokio::test]
async fn a_page_has_80_columns_and_colours_on_a_terminal_only() {
    let long = "n".repeat(253);
    let shim = Shim::persistent("--hooks preVMStart").plugin().start().await;
    let client = shim.dial_plugin().await;
    let request = vmi(&long, &json!({"do": "exit", "status": 3}));
    client.node_hook("PreVMStart", &request).await.unwrap_err();
    let socket = shim.plugin_socket();
    let page = text_of(&socket).await;
    assert!(page.contains("      shop/nnn"), "{page}");
    let widest = page.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80) && !page.contains('\u{1b}'), "{page}");

    let on_terminal = async |variable: &str| {
        let script = "import pty, sys; pty.spawn(sys.argv[1:])";
        let mut command = Command::new(&*PYTHON);
        command.args(["-c", script]).arg(binary()).args(["status", "--timeout", "60s", "--socket"]);
        let output = command.arg(&socket).env("NO_COLOR", variable).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(on_terminal("").await.contains("\u{1b}[32mserving"), "an empty NO_COLOR is unset");
    let plain = on_terminal("1").await;
    assert!(plain.contains("serving") && !plain.contains('\u{1b}'), "{plain}");
}

/// The names in a value, with the path to each.
fn names(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                into.insert(path.clone());
                names(value, &path, into);
            }
        }
        Value::Array(values) => {
            for value in values {
                names(value, &format!("{path}[]"), into);
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_names_in_the_json_are_those_of_the_page() {
    let mut shim = Shim::persistent("--hooks preVMStart").plugin().start().await;
    let client = shim.dial_plugin().await;
    client.node_hook("PostVMStop", &vmi("other", &json!({}))).await.unwrap_err();
    let call =
        shim.node_hook_in_flight(|gate| vmi("vm", &json!({"do": "wait", "path": gate.0}))).await;
    let status = json_of(&shim.plugin_socket()).await;
    call.finish().await.unwrap();
    let mut found = BTreeSet::new();
    names(&status, "", &mut found);
    let page = read("docs/observing.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Status\n")).unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split("` |").next());
    let documented: BTreeSet<_> =
        cells.flat_map(|cell| cell.split("`, `")).map(str::to_owned).collect();
    let of = |left: &BTreeSet<String>, right: &BTreeSet<String>| -> Vec<String> {
        left.difference(right).cloned().collect()
    };
    assert_eq!(of(&found, &documented), [""; 0], "not documented");
    assert_eq!(of(&documented, &found), [""; 0], "documented, but not there");
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
}

#[tokio::test]
async fn a_worker_that_is_lost_while_idle_is_counted_as_such() {
    let mut shim = Shim::persistent("").start().await;
    kill(shim.worker_pid().await);
    shim.log_line("worker failed").await;
    let socket = shim.socket();
    assert_eq!(json_of(&socket).await["pools"][0]["exits"]["failed_idle"], 1);
    shim.define(&json!({}), DOMAIN).await.unwrap();
    let pool = &json_of(&socket).await["pools"][0];
    assert_eq!((&pool["starts"], &pool["last_fault"]), (&json!(2), &Value::Null));
}

#[tokio::test]
async fn a_status_that_cannot_be_written_is_a_failure() {
    let shim = Shim::persistent("").start().await;
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(binary());
    command.arg("status").arg("--socket").arg(shim.socket()).kill_on_drop(true);
    let child = command.stdout(full).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("cannot write the status: "), "{error}");
}
