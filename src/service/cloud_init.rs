//! The two forms in which KubeVirt exchanges cloud-init data.
//!
//! `cloudInitData` is the newer one. If it comes back without user data or without metadata,
//! KubeVirt parses `cloudInitNoCloudSource` instead, where empty bytes fail the VM's start. So the
//! older form is always filled from the newer one.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

/// One cloud-init source in both forms.
pub(super) struct Forms {
    /// `CloudInitData`, a JSON object.
    pub(super) data: Bytes,
    /// `CloudInitNoCloudSource`, a JSON object.
    pub(super) no_cloud_source: Bytes,
}

impl Forms {
    /// Returns both forms of a hook's reply.
    pub(super) fn of(data: Bytes) -> Result<Self, String> {
        Ok(Self { no_cloud_source: no_cloud_source(&data)?, data })
    }

    /// Fills the older form if the caller sent only the newer.
    pub(super) fn complete(self) -> Result<Self, String> {
        if self.no_cloud_source.is_empty() { Self::of(self.data) } else { Ok(self) }
    }
}

fn no_cloud_source(data: &[u8]) -> Result<Bytes, String> {
    let mut json = serde_json::Deserializer::from_slice(data);
    // The parser's own text may quote a value, so only its position is shown.
    let fields = json.deserialize_map(Fields).map_err(|error| {
        if error.is_data() {
            let (line, column) = (error.line(), error.column());
            format!(
                "has a field UserData or NetworkData that is not a string (at line {line}, \
                 column {column})"
            )
        } else {
            format!("cannot be read as KubeVirt reads it: {error}")
        }
    })?;
    let mut source = serde_json::Map::new();
    source.insert("userData".to_owned(), fields.user_data.into());
    if !fields.network_data.is_empty() {
        source.insert("networkData".to_owned(), fields.network_data.into());
    }
    Ok(Bytes::from(serde_json::Value::Object(source).to_string()))
}

/// The fields that both forms have. KubeVirt reads them as Go does: the case of the key is ignored,
/// the last one wins, `null` changes nothing.
#[derive(Default)]
struct Found {
    user_data: String,
    network_data: String,
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let field = if key.eq_ignore_ascii_case("UserData") {
                &mut found.user_data
            } else if key.eq_ignore_ascii_case("NetworkData") {
                &mut found.network_data
            } else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if let Some(text) = map.next_value::<Option<String>>()? {
                *field = text;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data: &str) -> String {
        String::from_utf8(no_cloud_source(data.as_bytes()).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn keys_are_read_as_go_reads_them() {
        assert_eq!(
            of(r#"{"UserData":"a","NetworkData":"n","Other":{"UserData":"x"}}"#),
            r#"{"networkData":"n","userData":"a"}"#
        );
        assert_eq!(of(r#"{"userdata":"b"}"#), r#"{"userData":"b"}"#);
        assert_eq!(of(r#"{"UserData":"a","USERDATA":"c","userData":null}"#), r#"{"userData":"c"}"#);
        assert_eq!(of("{}"), r#"{"userData":""}"#);
    }

    #[test]
    fn values_of_another_type_are_named_and_not_shown() {
        let fault = no_cloud_source(br#"{"UserData":{"password":"secret"}}"#).unwrap_err();
        assert!(fault.contains("UserData") && !fault.contains("secret"), "{fault}");
    }

    #[test]
    fn the_older_form_is_kept_when_nothing_changed() {
        let data = Bytes::from_static(br#"{"UserData":"a"}"#);
        let sent = Forms { data: data.clone(), no_cloud_source: Bytes::from_static(b"{ }") };
        assert_eq!(sent.complete().unwrap().no_cloud_source, "{ }");
        let sent = Forms { data, no_cloud_source: Bytes::new() };
        assert_eq!(sent.complete().unwrap().no_cloud_source, r#"{"userData":"a"}"#);
    }
}
