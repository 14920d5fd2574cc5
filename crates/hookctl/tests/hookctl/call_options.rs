//! What `hookctl call` takes for a VMI and for a hook's name, and its reports for machines.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::call::{call, text};
use crate::support::{ECHO, LIMIT, Shim, read, script, worker};

/// A hook that makes the VMI the title of the domain.
const TITLE: &str = "#!/bin/sh\nprintf '<domain><title><![CDATA[%s]]></title></domain>' \"$2\"\n";

/// Returns the VMI that the hook gets.
async fn vmi_of(args: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let hook = script(dir.path(), "hook", TITLE);
    let command = ["--mode", "exec", "--", hook.to_str().unwrap()];
    let output = call(&[&["onDefineDomain"], args, &command].concat(), |_| {}).await;
    let domain = text(&output.stdout);
    let vmi =
        domain.strip_prefix("<domain><title><![CDATA[").and_then(|rest| rest.split_once("]]>"));
    serde_json::from_str(vmi.unwrap_or_else(|| panic!("{}", text(&output.stderr))).0).unwrap()
}

#[tokio::test]
async fn annotations_and_labels_are_set_in_the_sample_and_in_a_file() {
    let set = ["--annotation", "a.example.com/x=<&\"=ü", "--annotation", "b=", "--label", "l=v"];
    let sample = vmi_of(&set).await;
    let (annotations, labels) = (&sample["metadata"]["annotations"], &sample["metadata"]["labels"]);
    assert_eq!(annotations["a.example.com/x"], "<&\"=ü");
    assert_eq!(
        (&annotations["b"], &labels["l"], &labels["app"]),
        (&json!(""), &json!("v"), &json!("sample"))
    );

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vm.yaml");
    let vm = "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: web}\n\
              spec:\n  template:\n    metadata: {labels: {l: old, m: kept}}\n    spec: {domain: {}}\n";
    std::fs::write(&file, vm).unwrap();
    let given = vmi_of(&[&["--vmi", file.to_str().unwrap()], &set[..]].concat()).await;
    assert_eq!(given["kind"], "VirtualMachineInstance");
    assert_eq!(given["metadata"]["labels"], json!({"l": "v", "m": "kept"}));
    assert_eq!(
        (&given["metadata"]["name"], &given["metadata"]["annotations"]["b"]),
        (&json!("web"), &json!(""))
    );

    for bad in ["novalue", "=x"] {
        let output = call(&["onDefineDomain", "--label", bad, "--", "cat"], |_| {}).await;
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("must be KEY=VALUE"), "{}", text(&output.stderr));
    }
    for flag in ["--annotation", "--label"] {
        let args = ["onDefineDomain", flag, "k=1", flag, "k=2", "--", "cat"];
        let output = call(&args, |_| {}).await;
        assert_eq!(output.status.code(), Some(1));
        let complaint = text(&output.stderr);
        assert!(complaint.contains(&format!("{flag} k is given twice")), "{complaint}");
    }
}

#[tokio::test]
async fn one_document_may_come_from_stdin() {
    let dir = tempfile::tempdir().unwrap();
    let hook = script(dir.path(), "hook", TITLE);
    let mut command = tokio::process::Command::new(crate::hookctl());
    command.args(["call", "onDefineDomain", "--vmi", "-", "--mode", "exec", "--"]).arg(&hook);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"metadata:\n  name: from-stdin\n").await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    assert!(text(&output.stdout).contains(r#"{"metadata":{"name":"from-stdin"}}"#), "{output:?}");

    for (args, expected) in [
        (["--vmi", "-", "--domain", "-"], "stdin (`-`) is one document"),
        (["--vmi", "-", "--watch", "--json"], "--watch reads documents again"),
    ] {
        let args = [&["onDefineDomain"], &args[..], &["--", "cat"]].concat();
        let output = call(&args, |_| {}).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn a_file_that_is_no_vmi_is_an_error_with_the_command_that_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pod.yaml");
    let pod = "kind: Pod\napiVersion: v1\nmetadata:\n  namespace: shop\n  labels: {vm.kubevirt.io/name: web}\n";
    std::fs::write(&file, pod).unwrap();
    let output =
        call(&["onDefineDomain", "--vmi", file.to_str().unwrap(), "--", "cat"], |_| {}).await;
    let why = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        why.contains("kubectl get vmi web -n shop -o json > vmi.json\n")
            && why.lines().count() == 1,
        "{why}"
    );
    assert!(!why.contains("labels"), "{why}");
    let endless = call(&["onDefineDomain", "--vmi", "/dev/zero", "--", "cat"], |_| {}).await;
    assert!(text(&endless.stderr).contains("is larger than"), "{}", text(&endless.stderr));
}

#[tokio::test]
async fn names_of_hooks_are_understood_in_kubevirts_spelling_and_suggested() {
    let dir = tempfile::tempdir().unwrap();
    let echo = script(dir.path(), "hook", ECHO);
    let exec = ["--mode", "exec", "--", echo.to_str().unwrap()];
    let worker = worker("");
    let persistent = ["--mode", "persistent", "--worker", &worker];
    for (hook, succeeded) in
        [("OnDefineDomain", "unchanged"), ("PreVMStart", "preVMStart succeeded")]
    {
        let report = text(&call(&[&[hook], &exec[..]].concat(), |_| {}).await.stderr);
        assert!(report.contains(succeeded), "{report}");
    }
    for (args, expected) in
        [(&exec, "preVMStrat"), (&persistent, "preVMStrat"), (&persistent, "prevmstart")]
            .map(|(how, hook)| ([&[hook], &how[..]].concat(), "Did you mean preVMStart?"))
    {
        let output = call(&args, |_| {}).await;
        let report = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(report.contains(expected), "{args:?}: {report}");
    }
    let output = call(&[&["shutdown"], &persistent[..]].concat(), |_| {}).await;
    assert!(!text(&output.stderr).contains("Did you mean"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn the_report_for_machines_is_one_line_of_json() {
    let dir = tempfile::tempdir().unwrap();
    let report = async |args: &[&str], hook: &str| {
        let hook = script(dir.path(), "hook", &format!("#!/bin/sh\n{hook}\n"));
        let command = ["--json", "--mode", "exec", "--", hook.to_str().unwrap()];
        let output = call(&[args, &command].concat(), |_| {}).await;
        let stdout = text(&output.stdout);
        assert_eq!(stdout.lines().count(), 1, "{stdout} {}", text(&output.stderr));
        let report: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(output.status.success(), report["ok"] == true, "{report}");
        (report, text(&output.stderr))
    };
    let add = r#"printf '%s' "$4" | sed 's#</domain>#<title>x</title></domain>#'"#;
    let (changed, stderr) = report(&["onDefineDomain", "--repeat", "3"], add).await;
    assert_eq!(stderr, "", "the report is on stdout alone");
    assert_eq!((&changed["hook"], &changed["status"]), (&json!("onDefineDomain"), &json!("OK")));
    assert_eq!((&changed["times"]["calls"], &changed["changed"]), (&json!(3), &json!(true)));
    let times =
        ["minMs", "p50Ms", "p99Ms", "maxMs"].map(|name| changed["times"][name].as_f64().unwrap());
    assert!(times.is_sorted() && times[0] > 0.0, "{times:?}");
    assert!(changed["times"]["callsPerSecond"].as_f64().unwrap() > 0.0);
    let listed = json!([{"kind": "added", "path": "/domain/title", "values": "\"x\""}]);
    assert_eq!(
        changed["changes"],
        json!({"added": 1, "removed": 0, "altered": 0, "listed": listed})
    );
    assert!(
        changed["diff"].as_str().unwrap().contains("\n+<title>x</title></domain>\n"),
        "{changed}"
    );
    assert!(changed["result"].as_str().unwrap().ends_with("<title>x</title></domain>"));
    assert_eq!(changed["again"]["changed"], true);
    assert!(changed["again"]["diff"].as_str().unwrap().starts_with("--- sent again\n"));

    let (same, _) = report(&["onDefineDomain"], r#"printf '%s' "$4""#).await;
    assert_eq!(
        (&same["changed"], &same["diff"], same.get("again")),
        (&json!(false), &Value::Null, None)
    );
    let (node, _) = report(&["PreVMStart"], "exit 0").await;
    assert_eq!((&node["hook"], node.get("result")), (&json!("preVMStart"), None));

    let (failed, stderr) = report(&["onDefineDomain"], "echo no such disk >&2; exit 3").await;
    assert_eq!((&failed["ok"], &failed["status"]), (&json!(false), &json!("INTERNAL")));
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("status 3") && error.contains("no such disk"), "{error}");
    assert!(stderr.contains("hookctl: onDefineDomain failed: INTERNAL"), "{stderr}");
    let (unread, _) = report(&["onDefineDomain", "--vmi", "/no/such/file"], "exit 0").await;
    assert_eq!(unread["status"], Value::Null);
    assert!(unread["error"].as_str().unwrap().contains("cannot read /no/such/file"), "{unread}");

    let out = dir.path().join("out.xml");
    let (written, _) = report(&["onDefineDomain", "-o", out.to_str().unwrap()], add).await;
    assert_eq!(written["result"], std::fs::read_to_string(&out).unwrap().as_str());
    let refused = call(&["onDefineDomain", "--json", "-o", "-", "--", "cat"], |_| {}).await;
    assert!(text(&refused.stderr).contains("give --output a file"), "{}", text(&refused.stderr));
}

#[tokio::test]
async fn the_page_lists_every_field_of_the_report() {
    let page = read("docs/writing-hooks.md");
    let dir = tempfile::tempdir().unwrap();
    let hook = "#!/bin/sh\nprintf '%s' \"$4\" | sed 's#</domain>#<title>x</title></domain>#'\n";
    let hook = script(dir.path(), "hook", hook);
    for args in [["--mode", "exec"], ["--vmi", "/nowhere"]] {
        let args =
            [&["onDefineDomain", "--json"], &args[..], &["--", hook.to_str().unwrap()]].concat();
        let report: Value = serde_json::from_slice(&call(&args, |_| {}).await.stdout).unwrap();
        let nested =
            ["times", "changes", "again"].iter().filter_map(|name| report[name].as_object());
        for field in nested.chain(report.as_object()).flat_map(|object| object.keys()) {
            assert!(page.contains(&format!("`{field}`")), "{field} is not in the page");
        }
    }
}

#[tokio::test]
async fn the_hooks_of_sockets_and_commands_are_listed() {
    let list = async |args: &[&str], path: Option<&Path>| {
        let args = [&["--list"], args].concat();
        let output = call(&args, |command| {
            if let Some(path) = path {
                command.env("PATH", path);
            }
        });
        let output = output.await;
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let domain = "  onDefineDomain       changes the libvirt domain\n";
    let node = "  preVMStart           node hook\n";
    let all = "--hooks onDefineDomain,preCloudInitIso,preVMStart";
    let worker = worker(all);
    let (status, hooks, _) = list(&["--worker", &worker], None).await;
    assert_eq!(status, Some(0));
    assert!(
        hooks.contains(": worker\n") && hooks.contains(domain) && hooks.contains(node),
        "{hooks}"
    );
    let (_, program, _) = list(&["--", "false"], None).await;
    assert_eq!(
        program,
        "false: program for each call\n  any hook, by whichever name it is called\n"
    );
    let dir = tempfile::tempdir().unwrap();
    script(dir.path(), "preVMStart", ECHO);
    let (_, in_path, _) = list(&[], Some(dir.path())).await;
    assert_eq!(in_path, format!("$PATH: programs for each call\n{node}"));

    let shim = Shim::persistent(all).both_apis().start().await;
    let (socket, plugin) = (shim.socket(), shim.plugin_socket());
    let (_, sidecar, _) = list(&["--socket", socket.to_str().unwrap()], None).await;
    assert!(
        sidecar.contains(": hook sidecar, v1alpha3\n") && sidecar.contains(domain),
        "{sidecar}"
    );
    assert!(!sidecar.contains(node) && !sidecar.to_lowercase().contains("shutdown"), "{sidecar}");
    let (_, plugins, _) = list(&["--socket", plugin.to_str().unwrap()], None).await;
    assert!(
        plugins.contains(": plugin\n") && plugins.contains(domain) && plugins.contains(node),
        "{plugins}"
    );
    assert!(!plugins.contains("preCloudInitIso"), "{plugins}");
    let (_, json, _) = list(&["--json", "--socket", plugin.to_str().unwrap()], None).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    let expected = json!({"name": "preVMStart", "point": "PreVMStart", "what": "node hook"});
    assert!(json["hooks"].as_array().unwrap().contains(&expected), "{json}");
    let (status, _, why) = list(&["--socket", "/no/such.sock"], None).await;
    assert!(status == Some(1) && why.contains("cannot connect to /no/such.sock"), "{why}");
}

#[tokio::test]
async fn a_variable_that_no_option_reads_is_reported() {
    for command in
        [&["call", "preVMStart", "--mode", "exec"][..], &["check"], &["test", "/nowhere"]]
    {
        let mut hookctl = tokio::process::Command::new(crate::hookctl());
        hookctl.args(command).args(["--", "true"]).kill_on_drop(true);
        hookctl.env("SIDECAR_SHIM_MAX_WORKER", "3").env("SIDECAR_SHIM_SERVICE_HOST", "10.0.0.1");
        hookctl.env("SIDECAR_SHIM_SOCKET_DIR", "/nowhere");
        let output = tokio::time::timeout(LIMIT, hookctl.output()).await.unwrap().unwrap();
        let report = text(&output.stderr);
        let expected = "hookctl: no option reads the variable SIDECAR_SHIM_MAX_WORKER: did you mean \
                        SIDECAR_SHIM_MAX_WORKERS?\n";
        assert!(report.starts_with(expected), "{report}");
        assert_eq!(report.matches("no option reads").count(), 1, "{report}");
    }
}
