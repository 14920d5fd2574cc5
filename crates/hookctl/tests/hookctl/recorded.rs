//! What a running shim records is a test: it passes with the hook that was recorded, and fails with
//! one that does something else.

use std::path::Path;
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::call::text;
use crate::hookctl;
use crate::support::{LIMIT, PYTHON, Shim, file};

const SECRET: &str = "s3cr3t-of-the-vm";

/// A hook of each kind, and what another version of it does otherwise.
const HOOK: &str = r##"
import sys
sys.path.insert(0, "SDK")
from kubevirt_hook import Refused, Worker

hook = Worker("recorded", "1.0.0")

@hook.edit_domain
def edit(vmi, doc):
    if vmi.annotation("example.com/refuse"):
        raise Refused("no rack has space\nask the administrator")
    doc.ensure("sysinfo[@type='smbios']/chassis/entry[@name='asset']").text = hook.call.context or "Boot"

@hook.pre_cloud_init_iso
def add(vmi, data):
    line = "# of the hook\n"
    return {**data, "UserData": data["UserData"].replace(line, "") + line}

@hook.on_node("preVMStart")
def start(vmi, node):
    if node == "full":
        raise Refused(f"{node} has no space")

hook.run()
"##;

const DOMAIN: &str = "<domain type=\"kvm\">\n\t<name>shop_db-1</name>\n\t<sysinfo type=\"smbios\">\
    \n\t\t<chassis></chassis>\n\t</sysinfo>\n\t<devices>\n\t\t<graphics type=\"vnc\" \
    passwd=\"s3cr3t-of-the-vm\"></graphics>\n\t</devices>\n</domain>";

/// Writes the hook with a change to a directory, and returns its command.
fn write(directory: &Path, (before, after): (&str, &str)) -> [String; 2] {
    let text = HOOK.replace("SDK", file("sdk/python").to_str().unwrap());
    assert!(text.contains(before), "{before}");
    let path = directory.join("hook.py");
    std::fs::write(&path, text.replace(before, after)).unwrap();
    [PYTHON.clone(), path.to_str().unwrap().to_owned()]
}

fn vmi(annotations: &Value) -> Value {
    let metadata = json!({"namespace": "shop", "name": "db-1", "annotations": annotations});
    let volume = json!({"name": "init", "cloudInitNoCloud": {"userData": SECRET}});
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": metadata,
        "spec": {"domain": {"devices": {}}, "volumes": [volume]},
    })
}

async fn run(cases: &Path, args: &[&str], hook: &[String]) -> Output {
    let mut command = Command::new(hookctl());
    command.arg("test").arg(cases).args(["--mode", "persistent"]).args(args).arg("--").args(hook);
    tokio::time::timeout(LIMIT, command.kill_on_drop(true).output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_recorded_case_passes_and_fails_when_the_hook_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let cases = dir.path().join("cases");
    let hook = write(dir.path(), ("", ""));
    let builder = Shim::worker(&format!("'{}' '{}'", hook[0], hook[1])).both_apis();
    let mut shim = builder.args(["--record".as_ref(), cases.as_os_str()]).start().await;
    let (legacy, plugin) = (shim.dial().await, shim.dial_plugin().await);
    let (plain, refused) = (vmi(&json!({})), vmi(&json!({"example.com/refuse": "please"})));
    let data = json!({"DataSource": "noCloud", "UserData": SECRET, "NoCloudMetaData": {}});
    let result = legacy.define("v1alpha3", plain.to_string(), DOMAIN).await.unwrap();
    // KubeVirt calls again with the result.
    legacy.define("v1alpha3", plain.to_string(), result).await.unwrap();
    legacy.cloud_init("v1alpha3", &plain, &data.to_string(), "").await.unwrap();
    plugin.mutate("libvirt", &plain, DOMAIN, Some("MigrationTarget")).await.unwrap();
    plugin.node_hook_on("node07", "PreVMStart", &plain).await.unwrap();
    plugin.node_hook_on("full", "PreVMStart", &plain).await.unwrap_err();
    legacy.define("v1alpha3", refused.to_string(), DOMAIN).await.unwrap_err();
    shim.signal(Signal::SIGTERM);
    shim.exited().await;

    // What the hook makes of the user data is the author's to say.
    let output = run(&cases, &[], &hook).await;
    let report = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{report}");
    assert_eq!(report.matches("has no expected file").count(), 1, "{report}");
    let output = run(&cases, &["--update", "--filter", "preCloudInitIso"], &hook).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = run(&cases, &[], &hook).await;
    let report = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.contains("7 cases: 7 passed"), "{report}");

    for (change, failing) in [
        (("or \"Boot\"", "and \"Boot\""), 3),
        (("# of the hook\\n", "# of another hook\\n"), 1),
        (("node == \"full\"", "node == \"node07\""), 2),
        (("no rack has space", "no rack"), 1),
    ] {
        let other = write(dir.path(), change);
        let output = run(&cases, &[], &other).await;
        let report = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{change:?}: {report}");
        let expected = format!("7 cases: {} passed, {failing} failed", 7 - failing);
        assert!(report.contains(&expected), "{change:?}: {report}");
    }
}
