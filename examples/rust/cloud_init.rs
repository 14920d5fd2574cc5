//! Adds a part to the VM's cloud-init user data, from its annotation: a script, or configuration such
//! as `#cloud-config` with `timezone: Etc/UTC` in the next line.

use std::process::ExitCode;

use kubevirt_hook::serde_json::{self, json, Value};
use kubevirt_hook::{Call, Refusal, Result, Worker};

const ANNOTATION: &str = "cloud-init.vm.kubevirt.io/user-data";
/// A list of parts, in YAML, and so in JSON.
const ARCHIVE: &str = "#cloud-config-archive\n";

fn pre_cloud_init_iso(call: &Call, mut data: Value) -> Result<Option<Value>> {
    let Some(part) = call.annotation(ANNOTATION) else { return Ok(None) };
    if !part.starts_with('#') {
        let why = format!("annotation {ANNOTATION}: its first line has to be #cloud-config or so");
        return Err(Refusal::new(why).into());
    }
    let old = data["UserData"].as_str().unwrap_or_default();
    let parts: Option<Vec<Value>> = match old.strip_prefix(ARCHIVE) {
        Some(parts) => serde_json::from_str(parts).ok(),
        None if old.is_empty() => Some(vec![]),
        None => old.starts_with('#').then(|| vec![old.into()]),
    };
    let why = format!("annotation {ANNOTATION}: nothing can be added to user data of this form");
    let mut parts = parts.ok_or(Refusal::new(why))?;
    if parts.iter().any(|there| there == part) {
        return Ok(None); // a later call of the same boot, on our own result
    }
    parts.push(part.into());
    data["UserData"] = format!("{ARCHIVE}{}\n", json!(parts)).into();
    Ok(Some(data))
}

fn main() -> ExitCode {
    Worker::new("cloud-init").version("1.0.0").pre_cloud_init_iso(pre_cloud_init_iso).run()
}
