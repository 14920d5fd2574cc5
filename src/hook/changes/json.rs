//! The changes between two cloud-init data: JSON objects with known fields.

use serde_json::{Map, Value};

use super::{ChangeKind, Changes, Detail};

/// Depth to which fields are named: those of `CloudInitData`, and of the objects in it. Further in,
/// names are the VM owner's.
const MAX_DEPTH: usize = 2;

/// Compares two objects. `None` if one of them is none.
pub(super) fn changes(old: &[u8], new: &[u8], detail: Detail) -> Option<Changes> {
    let [old, new] = [old, new].map(|json| serde_json::from_slice::<Map<String, Value>>(json).ok());
    let mut changes = Changes::default();
    compare(&old?, &new?, "", 1, detail, &mut changes);
    Some(changes)
}

fn compare(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    path: &str,
    depth: usize,
    detail: Detail,
    changes: &mut Changes,
) {
    let mut push = |kind, path: &str, values: [Option<&Value>; 2]| {
        let [old, new] = values.map(|value| value.map(text));
        let values = [old.as_deref(), new.as_deref()];
        changes.push(kind, path, (detail == Detail::Values).then_some(values));
    };
    let mut inner = Vec::new();
    for (name, value) in new {
        let path = format!("{path}/{name}");
        match old.get(name) {
            Some(before) if before == value => {}
            Some(Value::Object(before)) if depth < MAX_DEPTH && value.is_object() => {
                inner.extend(value.as_object().map(|value| (before, value, path)));
            }
            Some(before) => push(ChangeKind::Altered, &path, [Some(before), Some(value)]),
            None => push(ChangeKind::Added, &path, [None, Some(value)]),
        }
    }
    for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
        push(ChangeKind::Removed, &format!("{path}/{name}"), [Some(value), None]);
    }
    for (old, new, path) in inner {
        compare(old, new, &path, depth + 1, detail, changes);
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
