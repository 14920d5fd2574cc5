//! Sets the time zone of a VM's guest to the VM's annotation example.org/timezone.

use std::process::ExitCode;

use kubevirt_hook::{Call, Result, Worker, cloud_init::Part, refuse, serde_json::Value};

const ANNOTATION: &str = "example.org/timezone";

/// Returns the VM's cloud-init data with a part of user data beside the owner's.
fn set_timezone(call: &Call, mut data: Value) -> Result<Option<Value>> {
    let Some(name) = call.vmi().annotation(ANNOTATION) else {
        return Ok(None); // nothing changes
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
    if name.is_empty() || !name.chars().all(allowed) {
        // The VM's owner reads this text in the VM's events.
        refuse!("annotation {ANNOTATION}: not the name of a time zone");
    }
    let content = format!("#cloud-config\ntimezone: \"{name}\"\n");
    let part = Part::new("@PROGRAM@", content)?;
    let user_data = data["UserData"].as_str().unwrap_or_default();
    data["UserData"] = part.put(user_data)?.into();
    Ok(Some(data))
}

fn main() -> ExitCode {
    let worker = Worker::new("@NAME@").version(env!("CARGO_PKG_VERSION"));
    worker.pre_cloud_init_iso(set_timezone).run()
}

#[cfg(test)]
mod tests;
