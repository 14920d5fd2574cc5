//! Calls with the documents as they are, and with variants of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::CheckFailed;
use super::markers;
use super::verdict::NotPassed;
use crate::inputs::{Documents, Inputs};
use crate::normalize::normalize;
use sidecar_shim::hook::{BadDocument, Checks, HookCall, HookKind, HookName};

/// Size of a large document. KubeVirt accepts at most 4,194,304 bytes for the whole reply.
const LARGE_BYTES: usize = 4_000_000;

/// A line that makes documents larger: text in a domain, a comment in cloud-init data.
const FILLER_LINE: &str = "# a line of text\n";

/// The fields of `CloudInitData` that hold whole documents, with comments that begin with
/// `#`.
pub(super) const CLOUD_INIT_TEXTS: [&str; 2] = ["UserData", "NetworkData"];

/// Reads the documents. KubeVirt must be able to send them.
pub(super) fn read(inputs: &Inputs) -> Result<Documents, CheckFailed> {
    let documents = inputs.read()?;
    for hook in HookName::WITH_DOCUMENT.into_iter().chain(HookName::NODE_HOOKS) {
        documents.call(&hook)?;
    }
    // KubeVirt sends no domain that the shim would reject as a result.
    let call = documents.call(&HookName::ON_DEFINE_DOMAIN)?;
    call.check(documents.domain.clone(), Checks::WellFormed)?;
    Ok(documents)
}

impl Documents {
    /// Returns a call with the documents as they are.
    pub(super) fn call(&self, hook: &HookName) -> Result<HookCall, BadDocument> {
        self.call_about(hook, &self.vmi, self.subject(hook.kind()))
    }

    /// Returns a call with this VMI, and with this document that the hook may change.
    pub(super) fn call_about(
        &self,
        hook: &HookName,
        vmi: &Bytes,
        subject: Bytes,
    ) -> Result<HookCall, BadDocument> {
        match hook.kind() {
            HookKind::Domain => HookCall::on_define_domain(vmi, "domain", subject),
            HookKind::CloudInit => HookCall::pre_cloud_init_iso(vmi, &subject),
            HookKind::Node => HookCall::node_hook(hook.clone(), vmi, self.node.clone()),
        }
    }

    /// Returns a call with another document that the hook may change.
    pub(super) fn call_with(
        &self,
        hook: &HookName,
        subject: impl Into<Bytes>,
    ) -> Result<HookCall, NotPassed> {
        self.call_about(hook, &self.vmi, subject.into()).map_err(NotPassed::skipped)
    }

    /// Returns calls with a minimal document that the hook may change, with the VMI and with a
    /// minimal VMI.
    pub(super) fn minimal_calls(&self, hook: &HookName) -> Result<[HookCall; 2], NotPassed> {
        let empty = Bytes::from_static(b"{}");
        let minimal = match hook.kind() {
            HookKind::Domain => Bytes::from_static(b"<domain/>"),
            HookKind::CloudInit | HookKind::Node => empty.clone(),
        };
        let call = |vmi| self.call_about(hook, vmi, minimal.clone()).map_err(NotPassed::skipped);
        Ok([call(&self.vmi)?, call(&empty)?])
    }

    /// Returns a call with a document of 4 MB, unless it is a node hook's.
    pub(super) fn large_call(&self, hook: &HookName) -> Result<Option<HookCall>, NotPassed> {
        let missing = LARGE_BYTES.saturating_sub(self.subject(hook.kind()).len());
        let filler = FILLER_LINE.repeat(missing / FILLER_LINE.len());
        match hook.kind() {
            HookKind::Domain => self.marked_call(hook, &filler).map(Some),
            HookKind::CloudInit => {
                let large = self.cloud_init_with(&["UserData"], &filler)?;
                self.call_with(hook, large).map(Some)
            }
            HookKind::Node => Ok(None),
        }
    }

    /// Returns a call with a marker in the domain.
    pub(super) fn marked_call(&self, hook: &HookName, text: &str) -> Result<HookCall, NotPassed> {
        let domain = std::str::from_utf8(&self.domain).unwrap_or_default();
        let marked = markers::insert(domain, text)
            .ok_or_else(|| NotPassed::skipped("the domain has no place for a marker"))?;
        self.call_with(hook, marked)
    }

    /// Returns the cloud-init data with more text at the end of some fields. Everything else stays
    /// as it was written, numbers included.
    pub(super) fn cloud_init_with(&self, fields: &[&str], more: &str) -> Result<String, NotPassed> {
        let unusable = |_| NotPassed::skipped("the cloud-init data cannot be changed");
        let mut data: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(&self.cloud_init).map_err(unusable)?;
        for field in fields {
            let text = data.get(*field).and_then(|raw| serde_json::from_str(raw.get()).ok());
            let text: String = text.flatten().unwrap_or_default();
            let longer = to_raw_value(&format!("{text}{more}")).map_err(unusable)?;
            data.insert((*field).to_owned(), longer);
        }
        serde_json::to_string(&data).map_err(unusable)
    }
}

/// Returns whether two documents of a hook have the same content, however they are written.
pub(super) fn equivalent(hook: &HookName, one: &[u8], other: &[u8]) -> bool {
    one == other || normalize(hook.kind(), one) == normalize(hook.kind(), other)
}

/// Returns a field of cloud-init data, if it is text.
pub(super) fn cloud_init_text(data: &[u8], field: &str) -> Option<String> {
    let mut data: BTreeMap<String, Value> = serde_json::from_slice(data).ok()?;
    match data.remove(field)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read_files(vmi: Option<&Path>, domain: Option<&Path>) -> Result<Documents, CheckFailed> {
        let [vmi, domain] = [vmi, domain].map(|path| path.map(Path::to_owned));
        read(&Inputs { vmi, domain, node: "node01".to_owned(), ..Inputs::default() })
    }

    fn samples() -> Documents {
        read_files(None, None).unwrap()
    }

    #[test]
    fn large_documents_have_about_four_megabytes() {
        for hook in HookName::WITH_DOCUMENT {
            let call = samples().large_call(&hook).unwrap().unwrap();
            assert!(
                (LARGE_BYTES..LARGE_BYTES + 500_000).contains(&call.bytes()),
                "{}",
                call.bytes()
            );
        }
        assert!(samples().large_call(&HookName::NODE_HOOKS[0]).unwrap().is_none());
    }

    #[test]
    fn cloud_init_data_get_more_text_in_the_given_fields_alone() {
        let sample = samples();
        let more = sample.cloud_init_with(&["UserData", "Other"], "# more\n").unwrap();
        let user_data = cloud_init_text(more.as_bytes(), "UserData").unwrap();
        assert!(user_data.starts_with("#cloud-config\n") && user_data.ends_with("\n# more\n"));
        assert_eq!(cloud_init_text(more.as_bytes(), "Other").unwrap(), "# more\n");
        let network = |data: &[u8]| cloud_init_text(data, "NetworkData").unwrap();
        assert_eq!(network(more.as_bytes()), network(&sample.cloud_init));
    }

    #[test]
    fn documents_that_kubevirt_would_not_send_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("document");
        std::fs::write(&file, "<domain>").unwrap();
        let fault = |vmi, domain| read_files(vmi, domain).err().unwrap().to_string();
        assert!(fault(Some(&*file), None).contains("it is XML; a domain is given by --domain"));
        assert!(fault(None, Some(&*file)).contains("domain is not a well-formed domain"));
        assert!(
            fault(None, Some(Path::new("/no/such/file"))).contains("cannot read /no/such/file")
        );
    }
}
