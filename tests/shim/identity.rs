//! What the log says about a call: which VM it is about, in every line, and what it cost.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{DOMAIN, Shim};

/// A VMI whose hook call does something.
fn vmi(name: &str, does: &Value) -> Value {
    let mut vmi = does.clone();
    vmi["kind"] = "VirtualMachineInstance".into();
    vmi["metadata"] = json!({
        "name": name, "namespace": "ns", "uid": format!("uid-of-{name}"),
        "annotations": {"password": "hunter2"},
    });
    vmi
}

/// The lines that name a call, in their order.
fn lines_of_calls(shim: &Shim) -> Vec<&Value> {
    shim.lines.iter().filter(|line| line.get("call").is_some()).collect()
}

#[tokio::test]
async fn failures_of_two_vms_are_told_apart_by_any_of_their_lines() {
    let builder = Shim::persistent("--hooks preVMStart").plugin();
    let mut shim = builder.args(["--max-workers", "2"]).start().await;
    for round in 0..3 {
        let mut calls = Vec::new();
        for name in ["vm-a", "vm-b"] {
            let text = format!("said by {name} {round}");
            let log = json!({"do": "exit", "status": 3, "stderr": [text]});
            calls.push(shim.send_node_hook(vmi(name, &log)).await);
        }
        for call in calls {
            call.await.unwrap().unwrap_err();
        }
    }
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    let lines = lines_of_calls(&shim);
    let numbers: BTreeSet<_> = lines.iter().map(|line| line["call"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=6).collect());
    for number in numbers {
        let of_call: Vec<_> = lines.iter().filter(|line| line["call"] == number).collect();
        let name = of_call[0]["name"].as_str().unwrap();
        for line in &of_call {
            assert_eq!(line["hook"], "preVMStart", "{line}");
            assert_eq!(line["kind"], "VirtualMachineInstance", "{line}");
            assert_eq!((&line["namespace"], &line["name"]), (&json!("ns"), &json!(name)), "{line}");
            assert_eq!(line["uid"], format!("uid-of-{name}"), "{line}");
        }
        let messages: Vec<_> = of_call.iter().map(|line| line["msg"].as_str().unwrap()).collect();
        assert_eq!(messages[0], "ExecuteNodeHook method has been called");
        assert!(
            messages.iter().any(|it| it.starts_with(&format!("said by {name}"))),
            "{messages:?}"
        );
        let failed: Vec<_> = of_call.iter().filter(|line| line.get("status").is_some()).collect();
        assert_eq!(failed.len(), 1, "one line says how it ended: {messages:?}");
        assert_eq!(failed[0]["status"], "INTERNAL");
    }
    shim.assert_not_logged("hunter2");
}

#[tokio::test]
async fn the_last_line_says_what_a_call_cost() {
    for exec in [false, true] {
        let builder = if exec {
            Shim::builder().program("onDefineDomain", "#!/bin/sh\nprintf %s \"$4\"\n")
        } else {
            Shim::persistent("")
        };
        let mut shim = builder.start().await;
        let request = vmi("vm", &json!({"do": "answer", "value": "<domain><name/></domain>"}));
        shim.define(&request, DOMAIN).await.unwrap();
        let last = shim.log_line("hook answered").await;
        assert_eq!(last["status"], "OK");
        assert_eq!(last["method"], "/kubevirt.hooks.v1alpha3.Callbacks/OnDefineDomain");
        assert_eq!((&last["attempt"], &last["changed"]), (&json!(1), &json!(!exec)), "{last}");
        let bytes = |field: &str| usize::try_from(last[field].as_u64().unwrap()).unwrap();
        let documents = request.to_string().len() + DOMAIN.len();
        assert!((documents..documents + 16).contains(&bytes("bytes_in")), "{last}");
        let reply = if exec { DOMAIN.len() } else { "<domain><name/></domain>".len() };
        assert!((reply..reply + 8).contains(&bytes("bytes_out")), "{last}");
        let (took, queued) =
            (last["took_ms"].as_f64().unwrap(), last["queued_ms"].as_f64().unwrap());
        assert!(0.0 < queued && queued < took && took < 60_000.0, "{last}");
        assert!(last["pid"].as_u64().is_some(), "{last}");
    }
}

#[tokio::test]
async fn a_retried_call_says_so() {
    let mut shim = Shim::persistent("").start().await;
    let request = json!({"do": "exit at first"});
    shim.define(&vmi("vm", &request), DOMAIN).await.unwrap();
    assert_eq!(shim.log_line("hook answered").await["attempt"], 2);
}

#[tokio::test]
async fn a_call_that_was_refused_names_its_vm_as_far_as_it_is_known() {
    let mut shim = Shim::persistent("").start().await;
    let request = vmi("vm", &json!({})).to_string();
    let client = shim.dial().await;
    client.define("v1alpha3", request, "<domain>\0</domain>".to_owned()).await.unwrap_err();
    let line = shim.log_line("call failed").await;
    assert_eq!((&line["name"], &line["status"]), (&json!("vm"), &json!("INVALID_ARGUMENT")));
    let broken = r#"{"metadata": {"name": "vm-2"}, "spec": {"#.to_owned();
    client.define("v1alpha3", broken, DOMAIN.to_owned()).await.unwrap_err();
    let line = shim.log_line("call failed").await;
    assert_eq!((&line["name"], line.get("uid")), (&json!("vm-2"), None));
    client.define("v1alpha3", "[7]".to_owned(), DOMAIN.to_owned()).await.unwrap_err();
    let line = shim.log_line("call failed").await;
    assert_eq!((line.get("name"), &line["call"]), (None, &json!(3)));
}

#[tokio::test]
async fn a_slow_call_is_logged_while_it_runs_and_again_when_it_ends() {
    let builder = Shim::persistent("--hooks preVMStart").plugin();
    let mut shim = builder.args(["--slow", "50ms", "--max-workers", "1"]).start().await;
    let first =
        shim.node_hook_in_flight(|gate| vmi("vm-a", &json!({"do": "wait", "path": gate.0}))).await;
    let line = shim.log_line("the call is slow: its process sleeps").await;
    assert_eq!((&line["level"], &line["name"]), (&json!("warning"), &json!("vm-a")));
    assert_eq!((&line["slow_ms"], &line["attempt"]), (&json!(50.0), &json!(1)));
    assert!(line["pid"].as_u64().is_some() && line.get("took_ms").is_none(), "{line}");
    let second = shim.send_node_hook(vmi("vm-b", &json!({}))).await;
    let line = shim.log_line("the call is slow: it waits for a process").await;
    assert_eq!((&line["name"], line.get("pid")), (&json!("vm-b"), None));
    first.finish().await.unwrap();
    second.await.unwrap().unwrap();
    for name in ["vm-a", "vm-b"] {
        let line = shim.log_line("hook answered").await;
        assert_eq!((&line["name"], &line["slow"]), (&json!(name), &json!(true)), "{line}");
        assert!(line["took_ms"].as_f64().unwrap() >= 50.0, "{line}");
    }
    shim.send_node_hook(vmi("vm-c", &json!({}))).await.await.unwrap().unwrap();
    let line = shim.log_line("hook answered").await;
    assert_eq!((&line["level"], line.get("slow")), (&json!("info"), None), "{line}");
}

#[tokio::test]
async fn the_log_says_what_a_hook_changed_without_any_value() {
    for flag in [false, true] {
        let mut builder = Shim::persistent("");
        if flag {
            builder = builder.args(["--log-changes"]);
        }
        let mut shim = builder.start().await;
        let answer = DOMAIN.replace("</domain>", "<os k='hunter2'/><x/><x>hunter2</x></domain>");
        shim.define(&vmi("vm", &json!({"do": "answer", "value": answer})), DOMAIN).await.unwrap();
        let line = shim.log_line("hook answered").await;
        let changes = json!(["added /domain/os", "added /domain/x[1]", "added /domain/x[2]"]);
        let expected = if flag { (Some(&changes), Some(&json!(3))) } else { (None, None) };
        assert_eq!((line.get("changes"), line.get("changes_count")), expected, "{line}");
        shim.define(&vmi("vm", &json!({"do": "unchanged"})), DOMAIN).await.unwrap();
        let line = shim.log_line("hook answered").await;
        assert_eq!((&line["changed"], line.get("changes")), (&json!(false), None), "{line}");
        let data = r#"{"UserData": "hunter2", "DataSource": "noCloud"}"#;
        let value = json!({"UserData": "hunter2 hunter2", "DataSource": "noCloud"});
        let request = vmi("vm", &json!({"do": "answer", "value": value}));
        shim.dial().await.cloud_init("v1alpha3", &request, data, "").await.unwrap();
        let line = shim.log_line("hook answered").await;
        let changes = json!(["altered /UserData"]);
        assert_eq!(line.get("changes"), flag.then_some(&changes), "{line}");
        shim.assert_not_logged("hunter2");
    }
}

#[tokio::test]
async fn a_call_whose_caller_left_has_a_last_line() {
    let builder = Shim::persistent("--hooks preVMStart").plugin();
    let mut shim = builder.args(["--kill-grace", "50ms"]).start().await;
    let call = shim.send_node_hook(vmi("vm", &json!({"do": "hang"}))).await;
    shim.log_line("hanging").await;
    call.abort();
    let line = shim.log_line("the caller left: ").await;
    assert_eq!((&line["status"], &line["name"]), (&json!("CANCELLED"), &json!("vm")), "{line}");
    assert_eq!((&line["level"], &line["attempt"]), (&json!("info"), &json!(1)), "{line}");
}

#[tokio::test]
async fn a_call_that_was_refused_unread_names_its_hook() {
    let mut shim = Shim::builder().program("onDefineDomain", "#!/bin/sh\n").start().await;
    let domain = format!("<domain>{}</domain>", "x".repeat(500_000));
    shim.define(&vmi("vm", &json!({})), &domain).await.unwrap_err();
    let line = shim.log_line("call failed").await;
    let expected = (&json!("onDefineDomain"), &json!("RESOURCE_EXHAUSTED"));
    assert_eq!((&line["hook"], &line["status"]), expected, "{line}");
}
