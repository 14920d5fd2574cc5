//! Which VM a call is about: for log lines, metrics and people, never for decisions.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::document::MAX_JSON_DEPTH;
use super::json::{Member, Scan};
use crate::text::{clip, escape_line};

/// Maximum length of a name, a namespace or a UID: Kubernetes allows 253 bytes for the longest.
const MAX_BYTES: usize = 253;

/// The names by which Kubernetes knows a VirtualMachineInstance. What the VMI does not have is
/// empty.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Identity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Identity {
    /// Reads it from a VMI in JSON. That takes no time to speak of: the names come first in what
    /// KubeVirt sends, and the rest is not read. In a VMI that is invalid, it finds what comes
    /// before the fault.
    #[must_use]
    pub fn of_vmi(vmi: &[u8]) -> Self {
        if let Some(identity) = Self::of_plain_vmi(vmi) {
            return identity;
        }
        let mut identity = Self::default();
        let mut json = serde_json::Deserializer::from_slice(vmi);
        // An error stops the search, whether or not everything was found.
        let _ = Object { identity: &mut identity, is_metadata: false }.deserialize(&mut json);
        identity
    }

    /// Reads it from a VMI as KubeVirt writes it.
    fn of_plain_vmi(vmi: &[u8]) -> Option<Self> {
        let mut scan = Scan::new(vmi);
        scan.open()?;
        let mut is_first = true;
        loop {
            match scan.member(&mut is_first)? {
                Member::Named(b"metadata") => break,
                Member::Named(name) => plain(name)?,
                Member::End => return None,
            };
            scan.value(MAX_JSON_DEPTH)?;
        }
        scan.open()?;
        let mut identity = Self::default();
        is_first = true;
        while let Member::Named(name) = scan.member(&mut is_first)? {
            let text = match plain(name)? {
                "namespace" => &mut identity.namespace,
                "name" => &mut identity.name,
                "uid" => &mut identity.uid,
                _ => {
                    scan.value(MAX_JSON_DEPTH)?;
                    continue;
                }
            };
            clip(&escape_line(plain(scan.string()?)?), MAX_BYTES).clone_into(text);
            if identity.is_complete() {
                break;
            }
        }
        Some(identity)
    }

    fn is_complete(&self) -> bool {
        [&self.namespace, &self.name, &self.uid].iter().all(|text| !text.is_empty())
    }
}

/// Returns a string that means what it says.
fn plain(written: &[u8]) -> Option<&str> {
    std::str::from_utf8(written).ok().filter(|text| !text.contains('\\'))
}

/// The VMI, or its metadata.
struct Object<'a> {
    identity: &'a mut Identity,
    is_metadata: bool,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<(), M::Error> {
        while let Some(Text(key)) = members.next_key()? {
            let text = match &*key {
                "metadata" if !self.is_metadata => {
                    let identity = &mut *self.identity;
                    members.next_value_seed(Object { identity, is_metadata: true })?;
                    // The names are nowhere else.
                    return Err(M::Error::custom("stop"));
                }
                "namespace" if self.is_metadata => &mut self.identity.namespace,
                "name" if self.is_metadata => &mut self.identity.name,
                "uid" if self.is_metadata => &mut self.identity.uid,
                _ => {
                    members.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let Text(value) = members.next_value()?;
            clip(&escape_line(&value), MAX_BYTES).clone_into(text);
            if self.identity.is_complete() {
                return Err(M::Error::custom("stop"));
            }
        }
        Ok(())
    }
}

/// A string that is borrowed if it contains no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn names(vmi: &str) -> [String; 3] {
        let Identity { namespace, name, uid } = Identity::of_vmi(vmi.as_bytes());
        [namespace, name, uid]
    }

    #[test]
    fn the_names_are_those_of_the_metadata() {
        let vmi = r#"{"kind": "VirtualMachineInstance", "name": "no", "metadata": {"labels":
            {"name": "no", "uid": "no"}, "name": "vm\u0031", "namespace": "ns", "uid": "u-1",
            "ownerReferences": [{"name": "no"}]}, "spec": {"name": "no"}}"#;
        assert_eq!(names(vmi), ["ns", "vm1", "u-1"]);
        assert_eq!(
            names(r#"{"spec": {}, "metadata": {"name": "vm"}, "uid": "no"}"#),
            ["", "vm", ""]
        );
    }

    #[test]
    fn what_is_missing_or_invalid_is_empty() {
        for vmi in ["", "{", "[]", "7", "{}", r#"{"metadata": 7}"#, r#"{"metadata": {"name": 7}}"#]
        {
            assert_eq!(names(vmi), [""; 3], "{vmi}");
        }
        let escaped = r#"{"metad\u0061ta": {"n\u0061me": "\u0061", "namespace": "ns"}}"#;
        assert_eq!(names(escaped), ["ns", "a", ""]);
        let broken = r#"{"metadata": {"name": "vm", "namespace": "ns", "labels": {"#;
        assert_eq!(names(broken), ["ns", "vm", ""]);
    }

    #[test]
    fn names_are_bounded_and_harmless() {
        let vmi = format!(r#"{{"metadata": {{"name": "a\u001b[2J{}"}}}}"#, "é".repeat(10_000));
        let name = Identity::of_vmi(vmi.as_bytes()).name;
        assert!(name.starts_with("a\\u{1b}[2Jé") && name.len() <= MAX_BYTES, "{name}");
    }
}
