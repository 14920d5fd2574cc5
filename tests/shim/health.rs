//! `grpc.health.v1.Health`, and the command that queries it.

use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::process::Command;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{Client, LIMIT, Shim, binary, eventually};

async fn health(args: &[&str], shim: Option<&Shim>) -> Output {
    let mut command = Command::new(binary());
    // On a machine that is busy with other tests, an answer may take longer than a probe waits.
    command.arg("health").args(["--timeout", "60s"]).args(args);
    if let Some(shim) = shim {
        command.arg("--socket").arg(shim.plugin_socket());
    }
    tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_shim_that_answers_calls_is_healthy() {
    for builder in [Shim::builder(), Shim::persistent("")] {
        let shim = builder.plugin().start().await;
        let asked = health(&[], Some(&shim)).await;
        assert_eq!((asked.status.code(), text(&asked.stdout)), (Some(0), "SERVING\n"));
        let socket = shim.plugin_socket();
        let mut command = Command::new(binary());
        command.args(["health", "--timeout", "60s"]).env("SIDECAR_SHIM_PLUGIN_SOCKET", &socket);
        let asked = command.output().await.unwrap();
        assert!(asked.status.success(), "with the socket in a variable: {asked:?}");
    }
}

#[tokio::test]
async fn a_shim_whose_workers_keep_failing_is_not() {
    let builder = Shim::persistent("--start once:mark").plugin();
    let dir = builder.dir().to_owned();
    let mut shim = builder.current_dir(&dir).start().await;
    assert!(health(&[], Some(&shim)).await.status.success());
    // No other worker comes up after the first.
    let plugin = shim.dial_plugin().await;
    let _ = plugin.mutate("libvirt", &json!({"do": "kill"}), "<domain/>", None).await;
    shim.log_line("hook workers keep failing").await;
    let asked = health(&[], Some(&shim)).await;
    assert_eq!((asked.status.code(), text(&asked.stdout)), (Some(1), ""));
    let complaint = text(&asked.stderr);
    assert!(
        complaint.contains("is not healthy: NOT_SERVING: its workers keep failing"),
        "{complaint}"
    );
    // When one does, the shim is healthy again.
    std::fs::remove_dir(dir.join("mark")).unwrap();
    shim.log_line("a hook worker is up again").await;
    assert!(health(&[], Some(&shim)).await.status.success());
}

#[tokio::test]
async fn a_shim_with_a_worker_is_healthy_although_no_other_one_starts() {
    let builder = Shim::persistent("--start once:mark").both_apis();
    let dir = builder.dir().to_owned();
    let mut shim = builder.current_dir(&dir).start().await;
    let busy = shim.call_at_gate("wait").await;
    let waiting = shim.send(&json!({})).await;
    // Five starts have failed in a row.
    let line = shim.log_line("another start in 1s 600ms").await;
    let text = line["msg"].as_str().unwrap();
    assert!(text.starts_with("hook worker failed, another start in "), "{line}");
    assert!(text.contains("exited with status 8 before it answered initialize"), "{line}");
    assert!(health(&[], Some(&shim)).await.status.success());
    busy.finish().await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shim_that_shuts_down_is_not() {
    let mut shim = Shim::persistent("--hooks preVMStart")
        .plugin()
        .args(["--shutdown-grace", "10m"])
        .start()
        .await;
    let call = shim.node_hook_in_flight(|gate| json!({"do": "wait", "path": gate.0})).await;
    let before = shim.plugin_socket();
    shim.signal(Signal::SIGTERM);
    shim.log_line("received signal").await;
    eventually("the socket is removed", || !before.exists()).await;
    let asked = health(&[], Some(&shim)).await;
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked.stderr).contains("No such file"), "{asked:?}");
    call.finish().await.unwrap();
    assert_eq!(shim.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_client_that_watches_sees_the_shutdown_and_does_not_delay_it() {
    let mut shim = Shim::persistent("").plugin().args(["--shutdown-grace", "10m"]).start().await;
    let mut watched = shim.dial_plugin().await.watch_health().await;
    let mut next = async || watched.message().await.map(|health| health.unwrap().status());
    assert_eq!(next().await.unwrap(), ServingStatus::Serving);
    shim.signal(Signal::SIGTERM);
    assert_eq!(next().await.unwrap(), ServingStatus::NotServing);
    assert_eq!(shim.exited().await.code(), Some(0));
    next().await.unwrap_err();
}

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // As a shim does whose --allow-uid does not name the caller.
    let refusing = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let asked = health(&["--socket", path.to_str().unwrap()], None).await;
    assert_eq!(asked.status.code(), Some(1));
    let complaint = text(&asked.stderr);
    let user = nix::unistd::geteuid();
    let causes = format!("has stopped, or its --allow-uid does not name this user, {user}\n");
    assert!(complaint.contains("closed the connection without an answer"), "{complaint}");
    assert!(complaint.ends_with(&causes), "{complaint}");
    refusing.abort();
}

#[tokio::test]
async fn a_shim_that_cannot_be_queried_is_not_healthy_and_the_command_says_why() {
    let asked = health(&["--socket", "/nowhere/x.sock"], None).await;
    assert_eq!(asked.status.code(), Some(1));
    let complaint = text(&asked.stderr);
    let start = "sidecar-shim: /nowhere/x.sock is not healthy: cannot connect to /nowhere/x.sock: ";
    assert!(complaint.starts_with(start), "{complaint}");

    let asked = health(&[], None).await;
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked.stderr).contains("name one with --socket"), "{asked:?}");

    let legacy = Shim::persistent("").start().await;
    let asked = health(&["--socket", legacy.socket().to_str().unwrap()], None).await;
    assert_eq!(asked.status.code(), Some(1));
    assert!(
        text(&asked.stderr).contains("does not serve grpc.health.v1.Health/Check"),
        "{asked:?}"
    );

    // For a stopped process the kernel still accepts connections, but none is answered.
    let stopped = Shim::persistent("").plugin().start().await;
    let _client = Client::dial(&stopped.plugin_socket()).await;
    stopped.signal(Signal::SIGSTOP);
    let asked = health(&["--timeout", "100ms"], Some(&stopped)).await;
    stopped.signal(Signal::SIGCONT);
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked.stderr).contains("no response within 100ms"), "{asked:?}");
}
