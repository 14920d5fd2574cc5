//! Sets a guest's time zone through cloud-init, from the VM's annotation, for example
//! Europe/Lisbon.

use std::process::ExitCode;

use kubevirt_hook::{serde_json::Value, Call, Refusal, Result, Worker};

const ANNOTATION: &str = "timezone.vm.kubevirt.io/name";

fn pre_cloud_init_iso(call: &Call, mut data: Value) -> Result<Option<Value>> {
    let Some(name) = call.annotation(ANNOTATION) else { return Ok(None) };
    let refuse = |why| Refusal::new(format!("annotation {ANNOTATION}: {why}"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_+-".contains(c);
    if !name.split('/').all(|part| !part.is_empty() && part.chars().all(is_name)) {
        return Err(refuse("not the name of a time zone").into());
    }
    let user_data = data["UserData"].as_str().filter(|text| !text.is_empty());
    let user_data = user_data.unwrap_or("#cloud-config\n");
    if user_data.lines().next().map(str::trim_end) != Some("#cloud-config") {
        return Err(refuse("the user data is not #cloud-config").into());
    }
    // A top-level key is at the start of a line. The rest of the YAML stays unchanged.
    let is_zone = |line: &str| line.starts_with("timezone:");
    let wanted = format!("timezone: {name}\n");
    let lines = user_data.split_inclusive('\n');
    let mut changed: String =
        lines.map(|line| if is_zone(line) { &wanted } else { line }).collect();
    if !user_data.lines().any(is_zone) {
        changed = format!("{}\n{wanted}", changed.strip_suffix('\n').unwrap_or(&changed));
    }
    data["UserData"] = changed.into();
    Ok(Some(data))
}

fn main() -> ExitCode {
    Worker::new("cloud-init").version("1.0.0").pre_cloud_init_iso(pre_cloud_init_iso).run()
}
