//! The strings of a JSON document, which was validated when it arrived.

use std::collections::HashSet;

use memchr::memchr2;

use super::looks::{is_harmless_name, is_secret_name, is_secret_option, plain};
use super::{PLACEHOLDER, Place, is_secret};

/// Names below which every string is secret.
const SECRET_OBJECTS: [&str; 4] = ["publickeys", "accesscredentials", "sysprep", "privateoptions"];

/// Keys of objects that give a name to a value, and those of the value: an environment variable, a
/// header of HTTP.
const NAMES: [&str; 3] = ["name", "key", "header"];
const VALUES: [&str; 3] = ["value", "values", "content"];

/// An object or an array that is open.
#[derive(Default)]
struct Open {
    /// Its number among the document's objects and arrays.
    number: usize,
    is_object: bool,
    /// The next string is a key.
    expects_key: bool,
    /// The last key, as a plain name. Empty in an array.
    name: String,
    kind: NameKind,
    /// The last string of an array is an option whose value is secret.
    is_behind_option: bool,
}

/// What the name of a value says about it.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum NameKind {
    #[default]
    Plain,
    Secret,
    Reference,
}

/// Visits each key and each string. Returns the document with what `visit` returns in their place.
pub(super) fn walk(
    json: &str,
    visit: &mut dyn FnMut(&Place<'_>, &str) -> Option<String>,
) -> String {
    // The name of a value may stand behind it.
    let mut named = HashSet::new();
    walk_with(json, &HashSet::new(), &mut |open, _, text| {
        if let Some(last) = open.last()
            && !last.expects_key
            && NAMES.contains(&&*last.name)
            && is_secret_name(text)
        {
            named.insert(last.number);
        }
        None
    });
    walk_with(json, &named, &mut |_, place, text| visit(place, text))
}

/// Whether a text of JSON has a secret.
pub(super) fn has_secret(json: &str) -> bool {
    let mut found = false;
    walk(json, &mut |place, text| {
        // One is enough.
        found = found || is_secret(place, text);
        None
    });
    found
}

type Visit<'a> = &'a mut dyn FnMut(&[Open], &Place<'_>, &str) -> Option<String>;

/// As [`walk`]. `named` has the objects in which the value is secret by the name beside it.
fn walk_with(json: &str, named: &HashSet<usize>, visit: Visit<'_>) -> String {
    let mut number = 0;
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
                is_secret: !is_key && is_secret_place(&open, named),
            };
            let replaced = match &decoded {
                Some(text) => visit(&open, &place, text),
                None => place.is_secret.then(|| PLACEHOLDER.to_owned()),
            };
            match replaced {
                Some(text) => out.push_str(&serde_json::Value::String(text).to_string()),
                None => out.push_str(token),
            }
            if let Some(last) = open.last_mut() {
                last.read(decoded.as_deref().unwrap_or_default());
            }
            continue;
        }
        match rest.as_bytes()[0] {
            opening @ (b'{' | b'[') => {
                let is_object = opening == b'{';
                number += 1;
                open.push(Open { number, is_object, expects_key: is_object, ..Open::default() });
            }
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

impl Open {
    /// Takes notice of a string in it.
    fn read(&mut self, text: &str) {
        if !self.is_object {
            self.is_behind_option = is_secret_option(text);
        } else if self.expects_key {
            self.name = plain(text);
            self.kind = if is_harmless_name(text) {
                NameKind::Reference
            } else if is_secret_name(text) {
                NameKind::Secret
            } else {
                NameKind::Plain
            };
        }
    }
}

fn is_secret_place(open: &[Open], named: &HashSet<usize>) -> bool {
    let kind = open.iter().rev().map(|it| it.kind).find(|kind| *kind != NameKind::Plain);
    let is_named = |it: &Open| named.contains(&it.number) && VALUES.contains(&&*it.name);
    kind == Some(NameKind::Secret)
        || open.last().is_some_and(|it| it.is_behind_option)
        || open.iter().any(|it| SECRET_OBJECTS.contains(&&*it.name) || is_named(it))
}
