//! Sets a guest's time zone through cloud-init, from the VM's annotation, for example
//! Europe/Lisbon. The owner's user data stays as it is.

use std::process::ExitCode;

use kubevirt_hook::{cloud_init::Part, ensure, serde_json::Value, Call, Result, Worker};

const ANNOTATION: &str = "timezone.vm.kubevirt.io/name";

fn pre_cloud_init_iso(call: &Call, mut data: Value) -> Result<Option<Value>> {
    let Some(name) = call.vmi().annotation(ANNOTATION) else { return Ok(None) };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_+-".contains(c);
    let fits = name.split('/').all(|part| !part.is_empty() && part.chars().all(is_name));
    ensure!(fits, "annotation {ANNOTATION}: not the name of a time zone");
    let content = format!("#cloud-config\ntimezone: \"{name}\"\n");
    // In place of a zone that the owner's user data may set.
    let part = Part::new("timezone.vm.kubevirt.io", content)?.replacing();
    data["UserData"] = part.put(data["UserData"].as_str().unwrap_or_default())?.into();
    Ok(Some(data))
}

fn main() -> ExitCode {
    Worker::new("cloud-init").version("1.0.0").pre_cloud_init_iso(pre_cloud_init_iso).run()
}
