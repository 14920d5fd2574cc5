//! The two forms in which KubeVirt exchanges cloud-init data.
//!
//! `cloudInitData` is the newer one. If it comes back without user data or without metadata,
//! KubeVirt parses `cloudInitNoCloudSource` instead, where empty bytes fail the VM's start. So the
//! older form is always filled from the newer one.

use bytes::Bytes;

use crate::hook::CloudInitTexts;

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
    let CloudInitTexts { user_data, network_data, .. } = CloudInitTexts::read(data)?;
    let mut source = serde_json::Map::new();
    source.insert("userData".to_owned(), user_data.unwrap_or_default().into());
    if let Some(text) = network_data.filter(|text| !text.is_empty()) {
        source.insert("networkData".to_owned(), text.into());
    }
    Ok(Bytes::from(serde_json::Value::Object(source).to_string()))
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
