//! Nothing that a hook writes to its stdout gets into a log or a status, however broken it is: it
//! may be a document of the VM, with its owner's password.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::metrics::Metrics;
use crate::status::{json_of, text_of};
use crate::support::{DOMAIN, Shim, kill};

const SECRET: &str = "s3cr3t";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], message].concat()
}

/// Messages that are no answer to call 2, in every way that the shim tells apart.
fn broken_messages() -> Vec<Vec<u8>> {
    let texts = [
        "S",
        "\"S\"",
        "[\"S\"]",
        r#"{"jsonrpc":"2.0","id":2,"result":{"domain":"S"#,
        r#"{"jsonrpc":"2.0","id":2,"result":{"domain":"S"}}}"#,
        r#"{"jsonrpc":"2.0","id":2,"result":{"domain":"S\q"}}"#,
        r#"{"jsonrpc":"2.0","id":2,"result":{"domain":"S\ud800"}}"#,
        r#"{"jsonrpc":"2.0","id":2,"result":{"domain":S}}"#,
        r#"{"jsonrpc":"S","id":2,"result":{}}"#,
        r#"{"jsonrpc":{"S":"S"},"id":2,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":"S","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":{"S":1},"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":2,"S":"S"}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":["S"]}"#,
        r#"{"jsonrpc":"2.0","id":"SSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSS","method":"S"}"#,
        r#"{"jsonrpc":"2.0","id":2,"result":{},"error":{"code":1,"message":"S"}}"#,
        r#"{"jsonrpc":"2.0","id":2,"error":"S"}"#,
        r#"{"jsonrpc":"2.0","id":2,"error":{"code":"S"}}"#,
        r#"{"jsonrpc":"2.0","id":2,"error":["S"]}"#,
        r#"{"jsonrpc":"2.0","id":2,"result":{},"attachments":"S"}"#,
        r#"{"jsonrpc":"2.0","id":2,"result":{},"attachments":["S"]}"#,
        r#"{"jsonrpc":"2.0","id":2,"result":{},"attachments":[{"S":1}]}"#,
        r#"{"jsonrpc":"2.0","id":2,"error":{"code":1,"message":""},"attachments":["S"]}"#,
        r#"{"jsonrpc":"2.0","id":1002,"result":{"domain":"S"}}"#,
    ];
    let mut messages: Vec<Vec<u8>> =
        texts.into_iter().map(|text| text.replace('S', SECRET).into_bytes()).collect();
    messages.push(
        [&br#"{"jsonrpc":"2.0","id":2,"result":{"domain":""#[..], b"s3cr3t\xff\"}}"].concat(),
    );
    messages.push(format!("{}{SECRET}", "[".repeat(200)).into_bytes());
    messages
}

/// Results that hold no document of the right kind.
fn broken_results() -> Vec<Value> {
    vec![
        json!(SECRET),
        json!([SECRET]),
        json!({SECRET: SECRET}),
        json!({"domain": {SECRET: SECRET}}),
        json!({"domain": [SECRET]}),
        json!({"domain": SECRET, "unchanged": true}),
        json!({"unchanged": SECRET}),
        json!({"domain": SECRET}),
        json!({"domain": format!("<domain>{SECRET}")}),
        json!({"domain": format!("<domain>{SECRET}</vm>")}),
        json!({"domain": format!("<domain a={SECRET}/>")}),
        json!({"domain": format!("<domain a='{SECRET}' a='{SECRET}'/>")}),
        json!({"domain": format!("<domain>&{SECRET};</domain>")}),
        json!({"domain": format!("<domain>{SECRET}&#0;</domain>")}),
        json!({"domain": format!("<domain/>{SECRET}")}),
        json!({"domain": format!("<!DOCTYPE d [<!ENTITY e '{SECRET}'>]><domain/>")}),
        json!({"domain": format!("<?xml version='{SECRET}'?><domain/>")}),
        json!({"domain": format!("<?xml version='1.0' encoding='{SECRET}'?><domain/>")}),
        json!({"domain": format!("<domain>{SECRET}\0</domain>")}),
        json!({"domain": format!("<domain><!-- {SECRET} -- --></domain>")}),
    ]
}

/// Data that KubeVirt could not read.
fn broken_cloud_init() -> Vec<Value> {
    vec![
        json!(SECRET),
        json!([SECRET]),
        json!({"UserData": {"password": SECRET}}),
        json!({"UserData": [SECRET]}),
        json!({"NetworkData": [SECRET], "UserData": SECRET}),
    ]
}

#[track_caller]
fn assert_silent(status: &Status, case: &str) {
    assert_eq!(status.code(), Code::Internal, "{case}: {status:?}");
    assert!(!status.message().contains(SECRET), "{case}: {status:?}");
}

/// Stops the shim, and looks at everything that it has logged.
async fn assert_nothing_is_logged(mut shim: Shim) {
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    shim.assert_logged("call failed");
    shim.assert_not_logged(SECRET);
}

#[tokio::test]
async fn no_broken_answer_of_a_worker_is_quoted() {
    let shim = Shim::persistent("").args(["--log-level", "debug"]).start().await;
    for message in broken_messages() {
        let case = String::from_utf8_lossy(&message).into_owned();
        let vmi = json!({"do": "raw", "hex": hex(&frame(&message)), "exit": true});
        assert_silent(&shim.fails(&vmi).await, &case);
    }
    for result in broken_results() {
        let hex = hex(&frame(
            json!({"jsonrpc": "2.0", "id": 2, "result": result}).to_string().as_bytes(),
        ));
        let vmi = json!({"do": "raw", "hex": hex, "exit": true});
        assert_silent(&shim.fails(&vmi).await, &result.to_string());
    }
    for value in broken_cloud_init() {
        let message = json!({"jsonrpc": "2.0", "id": 2, "result": {"cloudInitData": value}});
        let hex = hex(&frame(message.to_string().as_bytes()));
        let vmi = json!({"do": "raw", "hex": hex, "exit": true});
        let answer = shim.dial().await.cloud_init("v1alpha3", &vmi, "{}", "").await;
        assert_silent(&answer.unwrap_err(), &value.to_string());
    }
    assert_nothing_is_logged(shim).await;
}

#[tokio::test]
async fn no_output_outside_frames_is_quoted() {
    let shim = Shim::persistent("").args(["--log-level", "debug"]).start().await;
    let message = json!({"jsonrpc": "2.0", "id": 2, "result": {"domain": SECRET}}).to_string();
    let length = u32::try_from(message.len()).unwrap();
    for output in [
        format!("password: {SECRET}\n").into_bytes(),
        format!("{message}\n").into_bytes(),
        format!("Content-Length: {length}\r\n\r\n{message}").into_bytes(),
        format!("<domain>{SECRET}</domain>").into_bytes(),
        [&length.to_le_bytes()[..], message.as_bytes()].concat(),
        message.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        format!("password: {SECRET}\n").repeat(5000).into_bytes(),
        // The end of a document whose length was announced too short.
        [&b"\0\0\0\x08"[..], b"<domain>", format!("{SECRET}</domain>").as_bytes()].concat(),
        [b"\0\0\0\xff", SECRET.as_bytes()].concat(),
    ] {
        let vmi = json!({"do": "raw", "hex": hex(&output), "exit": true});
        assert_silent(&shim.fails(&vmi).await, &String::from_utf8_lossy(&output));
    }
    assert_nothing_is_logged(shim).await;
}

#[tokio::test]
async fn no_log_line_that_cannot_be_read_is_quoted() {
    let mut shim = Shim::persistent("").args(["--log-level", "debug"]).start().await;
    for params in [
        json!(SECRET),
        json!([SECRET]),
        json!({SECRET: SECRET}),
        json!({"message": {SECRET: SECRET}}),
        json!({"level": [SECRET], "message": SECRET}),
        json!({"level": "info", "message": SECRET, "id": SECRET}),
    ] {
        let message = json!({"jsonrpc": "2.0", "method": "$/log", "params": params}).to_string();
        let vmi = json!({"do": "raw", "hex": hex(&frame(message.as_bytes())), "exit": true});
        assert_silent(&shim.fails(&vmi).await, &params.to_string());
        shim.log_line("a log line is JSON, but").await;
    }
    assert_nothing_is_logged(shim).await;
}

#[tokio::test]
async fn no_broken_output_of_a_program_is_quoted() {
    let script = "#!/bin/sh\ncase $4 in\n\
                  *one*) printf '<domain>s3cr3t';;\n\
                  *two*) printf '{\"UserData\":\"s3cr3t\"}';;\n\
                  *three*) printf '<domain>s3cr3t\\377</domain>';;\n\
                  *) printf '%s' s3cr3t; exit 3;;\nesac\n";
    let shim = Shim::builder().program("onDefineDomain", script).start().await;
    for case in ["one", "two", "three", "four"] {
        let domain = format!("<domain>{case}</domain>");
        let status = shim.define(&json!({}), &domain).await.unwrap_err();
        assert_silent(&status, case);
    }
    assert_nothing_is_logged(shim).await;
}

/// In place of the first answer: as MCP frames messages, and as LSP does.
#[tokio::test]
async fn another_framing_is_named_at_once_and_not_quoted() {
    let message = json!({"jsonrpc": "2.0", "id": 1, "result": {SECRET: SECRET}}).to_string();
    for (output, expected) in [
        (format!("{message}\n"), "lines of JSON without a length (newline-delimited JSON)"),
        (
            format!("Content-Length: {}\r\n\r\n{message}", message.len()),
            "a `Content-Length` header (the framing of LSP)",
        ),
    ] {
        let start = format!("--start raw:{}", hex(output.as_bytes()));
        // It says so long before the start timeout, which is a minute.
        let mut shim = Shim::persistent(&start).spawn();
        let line = shim.log_line("skipped text on the worker's stdout").await;
        let text = line["msg"].as_str().unwrap();
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("write the length of each message before it, as 4 bytes"), "{text}");
        assert_eq!(line["bytes"], output.len());
        shim.signal(Signal::SIGTERM);
        shim.exited().await;
        shim.assert_not_logged(SECRET);

        let mut shim = Shim::persistent(&start).args(["--start-timeout", "500ms"]).spawn();
        assert_eq!(shim.exited().await.code(), Some(1));
        shim.assert_logged("did not answer initialize within 500ms (--start-timeout); its stdout");
        shim.assert_not_logged(SECRET);
    }
}

/// Documents that hold the secret wherever a VM's owner can put one, and a hook that does something.
fn vmi_with_secrets(does: &Value) -> Value {
    let mut vmi = does.clone();
    vmi["metadata"] = json!({
        "name": "db-1", "namespace": "shop", "uid": "u-1",
        "annotations": {"password": SECRET}, "labels": {SECRET: SECRET},
    });
    vmi["spec"] = json!({"volumes": [{"cloudInitNoCloud": {"userData": SECRET}}]});
    vmi
}

/// Makes calls that fail with the secret in every text that a hook and a document can have.
async fn fail_with_secrets(shim: &Shim) {
    let domain = format!("<domain><!-- {SECRET} --><name>{SECRET}</name></domain>");
    let error = json!({"code": -32000, "message": SECRET, "data": {SECRET: SECRET}});
    for does in [
        json!({"do": "error", "error": error}),
        json!({"do": "answer", "value": SECRET}),
        json!({"do": "raw", "hex": hex(SECRET.as_bytes()), "exit": true}),
        json!({"do": "exit", "status": 3, "stderr": [SECRET]}),
        json!({"do": SECRET}),
    ] {
        shim.define(&vmi_with_secrets(&does), &domain).await.unwrap_err();
    }
    let client = shim.dial().await;
    let vmi = vmi_with_secrets(&json!({"do": "answer", "value": [SECRET]}));
    client
        .cloud_init("v1alpha3", &vmi, &json!({"UserData": SECRET}).to_string(), "")
        .await
        .unwrap_err();
    client.cloud_init("v1alpha3", &vmi, SECRET, SECRET).await.unwrap_err();
    let broken = format!("{{\"metadata\": {{\"name\": \"db-2\", \"a\": {{{SECRET}");
    client.define("v1alpha3", broken, domain.clone()).await.unwrap_err();
    client.define("v1alpha3", vmi.to_string(), format!("{domain}\0")).await.unwrap_err();
}

#[tokio::test]
async fn no_secret_of_a_vm_or_a_hook_is_in_the_status() {
    let mut shim = Shim::persistent("").args(["--log-level", "debug"]).start().await;
    fail_with_secrets(&shim).await;
    // The fault of a pool: a worker that has written something and is lost while idle.
    let write = vmi_with_secrets(&json!({"do": "stderr", "text": format!("{SECRET}\n")}));
    shim.define(&write, DOMAIN).await.unwrap();
    let running = shim.call_in_flight().await;
    let (page, status) = (text_of(&shim.socket()).await, json_of(&shim.socket()).await.to_string());
    running.finish().await.unwrap();
    kill(shim.worker_pid().await);
    shim.log_line("hook worker failed").await;
    let (after, later) = (text_of(&shim.socket()).await, json_of(&shim.socket()).await.to_string());
    for text in [page, status, after, later] {
        assert!(text.contains("db-1") && text.contains("db-2"), "{text}");
        assert!(!text.contains(SECRET) && !text.contains("password"), "{text}");
    }
}

#[tokio::test]
async fn neither_a_secret_nor_a_vm_is_in_the_metrics() {
    let metrics = Metrics::start(Shim::persistent("--hooks onDefineDomain,preVMStart")).await;
    let client = metrics.shim.dial_plugin().await;
    let domain = format!("<domain><name>{SECRET}</name></domain>");
    let error = json!({"code": -32000, "message": SECRET});
    for does in [
        json!({"do": "error", "error": error}),
        json!({"do": "answer", "value": SECRET}),
        json!({"do": "exit", "status": 3, "stderr": [SECRET]}),
    ] {
        let vmi = vmi_with_secrets(&does);
        client.mutate("libvirt", &vmi, &domain, Some(SECRET)).await.unwrap_err();
        let _ = client.node_hook("PreVMStart", &vmi).await;
    }
    client.node_hook(SECRET, &vmi_with_secrets(&json!({}))).await.unwrap_err();
    let page = metrics.scrape().await;
    assert!(page.contains("code=\"INTERNAL\""), "{page}");
    for text in [SECRET, "password", "db-1", "shop", "u-1"] {
        assert!(!page.contains(text), "{text}: {page}");
    }
}

#[tokio::test]
async fn what_a_worker_prints_before_it_answers_is_no_harm() {
    let shim = Shim::persistent("").start().await;
    let vmi = json!({"do": "print", "text": format!("the password is {SECRET}\n")});
    assert_eq!(shim.define(&vmi, DOMAIN).await.unwrap(), DOMAIN);
    let status = shim.fails(&json!({"do": "exit", "status": 3})).await;
    assert_silent(&status, "exit");
    assert_nothing_is_logged(shim).await;
}
