//! Checks of JSON: that a worker reads what is nested deep, and returns cloud-init data with the
//! fields and the kinds that it got.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::session::Session;
use super::verdict::{NotPassed, Verdict};
use sidecar_shim::hook::{HookKind, HookReply};

/// Maximum depth of the JSON of a document in the protocol.
const MAX_DEPTH: usize = 100;

/// A field that KubeVirt does not have.
const NEW_FIELD: &str = "FieldOfANewerKubeVirt";

/// Values in which languages without JSON's kinds change the kind: text that looks like a number or
/// a word of JSON, empty objects and arrays, whole numbers, and `null`.
fn all_fields() -> Value {
    let device = json!({
        "type": "nic", "bus": "pci", "address": "0000:01:00.0", "mac": "52:54:00:12:34:56",
        "serial": "0012", "numaNode": 1, "alignedCPUs": [0, 1], "tags": ["true", "1e3"],
    });
    json!({
        "DataSource": "configDrive",
        "NoCloudMetaData": {
            "instance-type": "null", "instance-id": "007", "local-hostname": "12",
            "public-keys": {"0": "ssh-ed25519 AAAA"},
        },
        "ConfigDriveMetaData": {
            "instance_id": "1.0", "hostname": "no", "uuid": "", "devices": [device],
            "public_keys": {},
        },
        "DevicesData": [{"type": "disk", "bus": "scsi", "address": "0", "tags": []}],
        "VolumeName": "42",
        NEW_FIELD: {"list": [1, null, {}], "text": "7", "flag": false},
    })
}

pub(super) async fn cloud_init_kinds(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let Some(hook) = hooks.iter().find(|hook| hook.kind() == HookKind::CloudInit) else {
        return Err(NotPassed::skipped("it declares no preCloudInitIso"));
    };
    let mut worker = session.worker().await?;
    let mut sent: Map<String, Value> =
        serde_json::from_slice(&session.documents.cloud_init).unwrap_or_default();
    // As KubeVirt sends them: its texts are never `null`.
    let nulls = ["NoCloudMetaData", "ConfigDriveMetaData", "DevicesData"];
    if let Value::Object(fields) = all_fields() {
        sent.extend(fields);
    }
    let mut with_nulls = sent.clone();
    with_nulls.extend(nulls.map(|field| (field.to_owned(), Value::Null)));
    let mut compared = false;
    for sent in [sent, with_nulls].map(Value::Object) {
        let call = session.documents.call_with(hook, Bytes::from(sent.to_string()))?;
        let HookReply::Changed(result) = worker.call(&call).await? else { continue };
        let result: Value = serde_json::from_slice(result.bytes()).unwrap_or_default();
        compared = true;
        if let Some(fault) = changed_kind(&sent, &result, "") {
            return Err(worker.fault(format!("{hook} returned cloud-init data in which {fault}")));
        }
    }
    session.release(worker).await?;
    if compared { Ok(None) } else { Err(NotPassed::skipped(super::intact::NOTHING_CHANGED)) }
}

/// Returns the first difference in fields or kinds. What was `null` may have got a value.
fn changed_kind(sent: &Value, result: &Value, path: &str) -> Option<String> {
    match (sent, result) {
        (Value::Object(sent), Value::Object(result)) => sent.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            let Some(result) = result.get(key) else {
                return Some(format!("{} is missing", &path[1..]));
            };
            changed_kind(value, result, &path)
        }),
        (Value::Array(sent), Value::Array(result)) => {
            let items = sent.iter().zip(result).enumerate();
            items.clone().find_map(|(at, (sent, result))| {
                changed_kind(sent, result, &format!("{path}[{at}]"))
            })
        }
        (Value::Null, result) if path.trim_matches('.').contains(['.', '[']) => {
            (!result.is_null()).then(|| became(path, "null", result))
        }
        (Value::Null, _) => None,
        (Value::Number(sent), Value::Number(result)) if sent.is_u64() != result.is_u64() => {
            Some(format!("{} is a whole number no longer", &path[1..]))
        }
        _ if kind(sent) == kind(result) => None,
        _ => Some(became(path, kind(sent), result)),
    }
}

fn became(path: &str, before: &str, result: &Value) -> String {
    format!("{} became {} (it was {before})", path.trim_start_matches('.'), kind(result))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

pub(super) async fn nested_json(session: &mut Session) -> Verdict {
    let hooks = session.hooks()?;
    let mut worker = session.worker().await?;
    let vmi = nested(&session.documents.vmi)
        .ok_or_else(|| NotPassed::skipped("the VMI has no place for another field"))?;
    for hook in &hooks {
        let subject = session.documents.subject(hook.kind());
        let call = session.documents.call_about(hook, &vmi, subject).map_err(NotPassed::skipped)?;
        worker.call(&call).await.map_err(|failure| {
            failure.with(format!("; that was a VMI with arrays nested {MAX_DEPTH} deep"))
        })?;
    }
    session.release(worker).await
}

/// Returns the VMI with a field that makes it as deep as it may be.
fn nested(vmi: &[u8]) -> Option<Bytes> {
    let vmi = std::str::from_utf8(vmi).ok()?.trim_end();
    let (fields, _) = vmi.rsplit_once('}')?;
    let separator = if fields.trim_end().ends_with('{') { "" } else { "," };
    let (open, close) = ("[".repeat(MAX_DEPTH - 1), "]".repeat(MAX_DEPTH - 1));
    Some(format!("{fields}{separator}\"sidecarShimCheck\":{open}{close}}}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_and_missing_fields_are_found() {
        let sent = all_fields();
        assert_eq!(changed_kind(&sent, &sent, ""), None);
        let with = |path: &str, value: Value| {
            let mut result = sent.clone();
            *result.pointer_mut(path).unwrap() = value;
            changed_kind(&sent, &result, "").unwrap_or_default()
        };
        for (path, value, expected) in [
            ("/VolumeName", json!(42), "VolumeName became a number (it was a string)"),
            ("/ConfigDriveMetaData/public_keys", json!([]), "public_keys became an array"),
            (
                "/ConfigDriveMetaData/devices/0/numaNode",
                json!(1.5),
                "numaNode is a whole number no",
            ),
            ("/FieldOfANewerKubeVirt/list/1", json!(""), "list[1] became a string (it was null)"),
            ("/FieldOfANewerKubeVirt", json!({}), "FieldOfANewerKubeVirt.flag is missing"),
            ("/DataSource", json!("noCloud"), ""),
        ] {
            let fault = with(path, value);
            assert!(fault.contains(expected) && fault.is_empty() == expected.is_empty(), "{fault}");
        }
        assert_eq!(changed_kind(&json!({"UserData": null}), &json!({"UserData": "x"}), ""), None);
    }

    #[test]
    fn the_deepest_vmi_is_one_that_the_shim_sends() {
        for vmi in ["{}", "{\"spec\":{}}\n"] {
            let deep = nested(vmi.as_bytes()).unwrap();
            let call = sidecar_shim::hook::HookCall::pre_cloud_init_iso(&deep, &"{}".into());
            assert!(call.is_ok(), "{}", String::from_utf8_lossy(&deep));
        }
    }
}
