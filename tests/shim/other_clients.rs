//! Clients other than tonic. `.ci/run` installs them; without them, these tests are skipped.

use std::process::Command;

use crate::support::{ECHO, Shim, file, skipped};

/// The Python that may have grpcio.
fn python() -> String {
    std::env::var("SHIM_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Whether grpcio is installed. Where the environment names a Python, it must be.
fn has_grpcio() -> bool {
    let found = Command::new(python()).args(["-c", "import grpc"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return true;
    }
    assert!(
        std::env::var_os("SHIM_TEST_PYTHON").is_none(),
        "SHIM_TEST_PYTHON names a Python without grpcio"
    );
    skipped("the tests with grpcio", "python3 has no module grpc");
    false
}

async fn every_call(mut shim: Shim, newest: &str) {
    let mut client = tokio::process::Command::new(python());
    client.arg(file("tests/fixtures/grpcio_client.py")).arg(shim.socket()).arg(newest);
    let output = client.kill_on_drop(true).output().await.unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaint}");
    assert_eq!(shim.exited().await.code(), Some(0), "the client shuts it down");
}

/// Calls the fixture `every_hook.py` through both APIs.
pub async fn call_plugin(shim: &Shim) {
    if !has_grpcio() {
        return;
    }
    let mut client = tokio::process::Command::new(python());
    client.arg(file("tests/fixtures/grpcio_plugins.py"));
    client.arg(shim.socket()).arg(shim.plugin_socket());
    let output = client.kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn grpcio_makes_every_call_in_exec_mode() {
    if has_grpcio() {
        let builder = Shim::builder().version("v1alpha2");
        let builder = builder.program("onDefineDomain", ECHO).program("preCloudInitIso", ECHO);
        every_call(builder.start().await, "v1alpha2").await;
    }
}

#[tokio::test]
async fn grpcio_makes_every_call_in_persistent_mode() {
    if has_grpcio() {
        every_call(Shim::persistent("").start().await, "v1alpha3").await;
        every_call(Shim::persistent("--attachments").start().await, "v1alpha3").await;
    }
}

#[tokio::test]
async fn grpcio_in_its_default_options_is_refused_and_the_log_says_what_to_set() {
    if !has_grpcio() {
        return;
    }
    let mut shim = Shim::persistent("").start().await;
    let call = async |authority: &[&str]| {
        let mut client = tokio::process::Command::new(python());
        client.arg(file("tests/fixtures/grpcio_default.py")).arg(shim.socket()).args(authority);
        let output = client.kill_on_drop(true).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (refused, answered) = (call(&[]).await, call(&["localhost"]).await);
    assert!(["INTERNAL\n", "UNAVAILABLE\n"].contains(&&*refused), "{refused}");
    assert_eq!(answered, "OK\n");
    let line = shim.log_line("refused a request of which the client sees PROTOCOL_ERROR").await;
    assert!(line["msg"].as_str().unwrap().contains("grpc.default_authority"), "{line}");
}
