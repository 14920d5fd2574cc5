//! The strings of a JSON document, which was validated when it arrived.

use memchr::memchr2;

use super::looks::{is_secret_name, plain};
use super::{PLACEHOLDER, Place};

/// Names below which every string is secret.
const SECRET_OBJECTS: [&str; 4] = ["publickeys", "accesscredentials", "sysprep", "privateoptions"];

/// An object or an array that is open.
#[derive(Default)]
struct Open {
    is_object: bool,
    /// The next string is a key.
    expects_key: bool,
    /// The last key, as a plain name. Empty in an array.
    name: String,
}

/// Visits each key and each string. Returns the document with what `visit` returns in their place.
pub(super) fn walk(
    json: &str,
    visit: &mut dyn FnMut(&Place<'_>, &str) -> Option<String>,
) -> String {
    let mut out = String::with_capacity(json.len());
    let mut open: Vec<Open> = Vec::new();
    let mut rest = json;
    while let Some(next) = rest.find(['"', '{', '[', '}', ']', ':', ',']) {
        out.push_str(&rest[..next]);
        rest = &rest[next..];
        if rest.starts_with('"') {
            let (token, after) = rest.split_at(string_end(rest));
            rest = after;
            // Half of a surrogate pair cannot be decoded; hooks cannot read it either.
            let decoded = serde_json::from_str::<String>(token).ok();
            let is_key = open.last().is_some_and(|it| it.expects_key);
            let name = open.iter().rev().map(|it| &*it.name).find(|name| !name.is_empty());
            let place = Place {
                name: name.filter(|_| !is_key).unwrap_or_default(),
                is_key,
                is_secret: !is_key && is_secret_place(&open),
            };
            let replaced = match &decoded {
                Some(text) => visit(&place, text),
                None => place.is_secret.then(|| PLACEHOLDER.to_owned()),
            };
            match replaced {
                Some(text) => out.push_str(&serde_json::Value::String(text).to_string()),
                None => out.push_str(token),
            }
            if let Some(last) = open.last_mut().filter(|_| is_key) {
                last.name = decoded.as_deref().map(plain).unwrap_or_default();
            }
            continue;
        }
        match rest.as_bytes()[0] {
            b'{' => {
                open.push(Open { is_object: true, expects_key: true, ..Open::default() });
            }
            b'[' => open.push(Open::default()),
            b'}' | b']' => drop(open.pop()),
            separator => {
                if let Some(last) = open.last_mut() {
                    last.expects_key = separator == b',' && last.is_object;
                }
            }
        }
        out.push_str(&rest[..1]);
        rest = &rest[1..];
    }
    out.push_str(rest);
    out
}

/// Returns where the string ends with which a text begins.
fn string_end(text: &str) -> usize {
    let mut at = 1;
    while let Some(found) = memchr2(b'"', b'\\', text.as_bytes().get(at..).unwrap_or_default()) {
        at += found + 1;
        if text.as_bytes()[at - 1] == b'"' {
            return at;
        }
        at += 1;
    }
    text.len()
}

fn is_secret_place(open: &[Open]) -> bool {
    let own = open.iter().rev().find(|it| !it.name.is_empty());
    own.is_some_and(|it| is_secret_name(&it.name))
        || open.iter().any(|it| SECRET_OBJECTS.contains(&&*it.name))
}
