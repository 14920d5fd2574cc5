//! `grpc.health.v1.Health`, and the command that asks for it.

use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::process::Command;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{Client, LIMIT, Meeting, Shim, binary, hookctl};

async fn health(args: &[&str], shim: Option<&Shim>) -> Output {
    let mut command = Command::new(binary());
    // A machine that is busy with other tests may take longer than a probe would wait.
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
    for shim in [Shim::plugin(&[], |_, _| {}).await, Shim::plugin_worker("", &[]).await] {
        let asked = health(&[], Some(&shim)).await;
        assert_eq!((asked.status.code(), text(&asked.stdout)), (Some(0), "SERVING\n"));
        let socket = shim.plugin_socket();
        let mut command = Command::new(binary());
        command.args(["health", "--timeout", "60s"]).env("SIDECAR_SHIM_PLUGIN_SOCKET", &socket);
        assert!(
            command.output().await.unwrap().status.success(),
            "it is asked for by its variable"
        );
    }
}

#[tokio::test]
async fn a_shim_whose_workers_fail_again_and_again_is_not() {
    let worker = crate::support::worker("--start once:mark");
    let dir = tempfile::tempdir().unwrap();
    let mut shim = Shim::plugin(&["--mode", "persistent", "--worker", &worker], |command, _| {
        command.current_dir(dir.path());
    })
    .await;
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
    // And it is again, when one does.
    std::fs::remove_dir(dir.path().join("mark")).unwrap();
    shim.log_line("a hook worker is up again").await;
    assert!(health(&[], Some(&shim)).await.status.success());
}

#[tokio::test]
async fn a_shim_that_was_told_to_stop_is_not() {
    let mut shim = Shim::plugin_worker("--hooks preVMStart", &["--shutdown-grace", "10m"]).await;
    let (plugin, meeting) = (shim.dial_plugin().await, Meeting::new(shim.dir.path().join("fifo")));
    let vmi = json!({"do": "meet", "path": meeting.0});
    let call = tokio::spawn(async move { plugin.node_hook("PreVMStart", &vmi).await });
    let joined = meeting.joined().await;
    let before = shim.plugin_socket();
    shim.signal(Signal::SIGTERM);
    shim.log_line("received signal").await;
    let gone = async {
        while before.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("the socket is still there");
    let asked = health(&[], Some(&shim)).await;
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked.stderr).contains("No such file"), "{asked:?}");
    drop(joined);
    call.await.unwrap().unwrap();
    assert_eq!(shim.ended().await.code(), Some(0));
}

#[tokio::test]
async fn who_watches_is_told_of_the_end_and_does_not_delay_it() {
    let mut shim = Shim::plugin_worker("", &["--shutdown-grace", "10m"]).await;
    let mut watched = shim.dial_plugin().await.watch_health().await;
    let mut next = async || watched.message().await.map(|health| health.unwrap().status());
    assert_eq!(next().await.unwrap(), ServingStatus::Serving);
    shim.signal(Signal::SIGTERM);
    assert_eq!(next().await.unwrap(), ServingStatus::NotServing);
    assert_eq!(shim.ended().await.code(), Some(0));
    next().await.unwrap_err();
}

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_told_with_its_causes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // As one does whose --allow-uid does not name the caller.
    let refusing = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let path = path.to_str().unwrap();
    for (program, words) in [(binary(), &["health"][..]), (hookctl(), &["call", "preVMStart"])] {
        let mut command = Command::new(program);
        let output = command.args(words).args(["--socket", path]).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let complaint = text(&output.stderr);
        let user = nix::unistd::geteuid();
        let causes = format!("has stopped, or its --allow-uid does not name this user, {user}\n");
        assert!(complaint.contains("closed the connection without an answer"), "{complaint}");
        assert!(complaint.ends_with(&causes), "{complaint}");
    }
    refusing.abort();
}

#[tokio::test]
async fn what_cannot_be_asked_is_not_healthy_and_says_why() {
    let asked = health(&["--socket", "/nowhere/x.sock"], None).await;
    assert_eq!(asked.status.code(), Some(1));
    let complaint = text(&asked.stderr);
    let start = "sidecar-shim: /nowhere/x.sock is not healthy: cannot connect to /nowhere/x.sock: ";
    assert!(complaint.starts_with(start), "{complaint}");

    let asked = health(&[], None).await;
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked.stderr).contains("name one with --socket"), "{asked:?}");

    let legacy = Shim::persistent("", &[]).await;
    let asked = health(&["--socket", legacy.socket().to_str().unwrap()], None).await;
    assert_eq!(asked.status.code(), Some(1));
    assert!(
        text(&asked.stderr).contains("does not serve grpc.health.v1.Health/Check"),
        "{asked:?}"
    );

    // One that is stopped accepts connections, by the kernel's hand, and says nothing.
    let stopped = Shim::plugin_worker("", &[]).await;
    let _client = Client::dial(&stopped.plugin_socket()).await;
    stopped.signal(Signal::SIGSTOP);
    let asked = health(&["--timeout", "100ms"], Some(&stopped)).await;
    stopped.signal(Signal::SIGCONT);
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked.stderr).contains("no response within 100ms"), "{asked:?}");
}
