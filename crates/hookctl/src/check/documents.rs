//! The documents that hooks are called with: the user's or the samples, and variants of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::markers;
use super::verdict::Stop;
use crate::inputs::{Inputs, Unreadable};
use crate::normalize::{Kind, normalize};
use sidecar_shim::hook::{BadDocument, Checks, HookCall, HookName};

/// About the longest document that KubeVirt takes back: 4,194,304 bytes for the whole reply.
const LARGE_BYTES: usize = 4_000_000;

/// The members of `CloudInitData` that hold documents of their own, with comments that begin with `#`.
pub(super) const CLOUD_INIT_TEXTS: [&str; 2] = ["UserData", "NetworkData"];

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Read(#[from] Unreadable),
    #[error("cannot call a hook with these documents: {0}")]
    Bad(#[from] BadDocument),
}

/// What hooks are called with.
pub(super) struct Documents {
    vmi: Bytes,
    domain: Bytes,
    cloud_init: Bytes,
    node: String,
}

impl Documents {
    /// Reads files, or takes the samples in their place.
    pub(super) fn read(inputs: &Inputs) -> Result<Self, Unusable> {
        let documents = Self {
            vmi: inputs.read_vmi()?,
            domain: inputs.read_domain()?,
            cloud_init: inputs.read_cloud_init()?,
            node: inputs.node.clone(),
        };
        let hooks = [HookName::ON_DEFINE_DOMAIN, HookName::PRE_CLOUD_INIT_ISO];
        for hook in hooks.into_iter().chain(HookName::NODE_HOOKS) {
            documents.call(&hook)?;
        }
        // What the shim would not take back, KubeVirt does not send.
        let call = documents.call(&HookName::ON_DEFINE_DOMAIN)?;
        call.check(documents.domain.clone(), Checks::WellFormed)?;
        Ok(documents)
    }

    /// A call with the documents as they are.
    pub(super) fn call(&self, hook: &HookName) -> Result<HookCall, BadDocument> {
        self.call_about(hook, &self.vmi, self.subject(hook).clone())
    }

    /// The document that a hook may change; for a node hook there is none.
    pub(super) fn subject(&self, hook: &HookName) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        match kind(hook) {
            Some(Kind::Xml) => &self.domain,
            Some(Kind::Json) => &self.cloud_init,
            None => &NOTHING,
        }
    }

    fn call_about(
        &self,
        hook: &HookName,
        vmi: &Bytes,
        subject: Bytes,
    ) -> Result<HookCall, BadDocument> {
        match kind(hook) {
            Some(Kind::Xml) => HookCall::on_define_domain(vmi, "domain", subject),
            Some(Kind::Json) => HookCall::pre_cloud_init_iso(vmi, &subject),
            None => HookCall::node_hook(hook.clone(), vmi, self.node.clone()),
        }
    }

    /// A call with another document in place of the one that the hook may change.
    pub(super) fn call_with(
        &self,
        hook: &HookName,
        subject: impl Into<Bytes>,
    ) -> Result<HookCall, Stop> {
        self.call_about(hook, &self.vmi, subject.into()).map_err(Stop::skipped)
    }

    /// Calls with documents that hold almost nothing: those that the hook may change, then the VMI too.
    pub(super) fn minimal(&self, hook: &HookName) -> Result<Vec<HookCall>, Stop> {
        let minimal = Bytes::from_static(match kind(hook) {
            Some(Kind::Xml) => b"<domain/>",
            Some(Kind::Json) | None => b"{}",
        });
        let empty = Bytes::from_static(b"{}");
        [&self.vmi, &empty]
            .into_iter()
            .map(|vmi| self.call_about(hook, vmi, minimal.clone()).map_err(Stop::skipped))
            .collect()
    }

    /// A call with a document of 4 MB. `None` for a node hook, which has none.
    pub(super) fn large(&self, hook: &HookName) -> Result<Option<HookCall>, Stop> {
        let missing = LARGE_BYTES.saturating_sub(self.subject(hook).len());
        let filler = "# a line of text\n".repeat(missing / 17);
        match kind(hook) {
            Some(Kind::Xml) => self.marked(hook, &filler).map(Some),
            Some(Kind::Json) => {
                let large = self.cloud_init_with(&["UserData"], &filler)?;
                self.call_with(hook, large).map(Some)
            }
            None => Ok(None),
        }
    }

    /// A call with a domain that has a mark in it.
    pub(super) fn marked(&self, hook: &HookName, text: &str) -> Result<HookCall, Stop> {
        let domain = std::str::from_utf8(&self.domain).unwrap_or_default();
        let marked = markers::insert(domain, text)
            .ok_or_else(|| Stop::skipped("the domain has no place for a mark"))?;
        self.call_with(hook, marked)
    }

    /// The cloud-init data with more text at the end of some of its members, numbers and all the rest as
    /// they were written.
    pub(super) fn cloud_init_with(&self, members: &[&str], more: &str) -> Result<String, Stop> {
        let unusable = |_| Stop::skipped("the cloud-init data cannot be changed");
        let mut data: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(&self.cloud_init).map_err(unusable)?;
        for member in members {
            let text = data.get(*member).and_then(|raw| serde_json::from_str(raw.get()).ok());
            let text: String = text.flatten().unwrap_or_default();
            let longer = to_raw_value(&format!("{text}{more}")).map_err(unusable)?;
            data.insert((*member).to_owned(), longer);
        }
        serde_json::to_string(&data).map_err(unusable)
    }
}

/// What kind of document a hook may change. None, if it is a node hook.
pub(super) fn kind(hook: &HookName) -> Option<Kind> {
    if hook.is_node_hook() {
        None
    } else if *hook == HookName::PRE_CLOUD_INIT_ISO {
        Some(Kind::Json)
    } else {
        Some(Kind::Xml)
    }
}

/// Whether two documents of a hook say the same, however they are written.
pub(super) fn equivalent(hook: &HookName, one: &[u8], other: &[u8]) -> bool {
    let text = |document| kind(hook).map(|kind| normalize(kind, document));
    one == other || text(one) == text(other)
}

/// A member of cloud-init data that is text.
pub(super) fn cloud_init_text(data: &[u8], member: &str) -> Option<String> {
    let mut data: BTreeMap<String, Value> = serde_json::from_slice(data).ok()?;
    match data.remove(member)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::samples;

    fn read(vmi: Option<&Path>, domain: Option<&Path>) -> Result<Documents, Unusable> {
        let [vmi, domain] = [vmi, domain].map(|path| path.map(Path::to_owned));
        Documents::read(&Inputs { vmi, domain, cloud_init: None, node: "node01".to_owned() })
    }

    fn samples() -> Documents {
        read(None, None).unwrap()
    }

    #[test]
    fn large_documents_are_about_four_megabytes() {
        for hook in [HookName::ON_DEFINE_DOMAIN, HookName::PRE_CLOUD_INIT_ISO] {
            let call = samples().large(&hook).unwrap().unwrap();
            assert!(
                (LARGE_BYTES..LARGE_BYTES + 500_000).contains(&call.bytes()),
                "{}",
                call.bytes()
            );
        }
        assert!(samples().large(&HookName::NODE_HOOKS[0]).unwrap().is_none());
    }

    #[test]
    fn cloud_init_data_get_more_text_where_it_is_asked_for() {
        let sample = samples();
        let more = sample.cloud_init_with(&["UserData", "Other"], "# more\n").unwrap();
        let user_data = cloud_init_text(more.as_bytes(), "UserData").unwrap();
        assert!(user_data.starts_with("#cloud-config\n") && user_data.ends_with("\n# more\n"));
        assert_eq!(cloud_init_text(more.as_bytes(), "Other").unwrap(), "# more\n");
        let network = |data: &[u8]| cloud_init_text(data, "NetworkData").unwrap();
        assert_eq!(network(more.as_bytes()), network(samples::CLOUD_INIT.as_bytes()));
    }

    #[test]
    fn documents_that_kubevirt_would_not_send_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("document");
        std::fs::write(&file, "<domain>").unwrap();
        let fault = |vmi, domain| read(vmi, domain).err().unwrap().to_string();
        assert!(fault(Some(&*file), None).contains("vmi is not a JSON object"));
        assert!(fault(None, Some(&*file)).contains("domain is not a well-formed domain"));
        assert!(
            fault(None, Some(Path::new("/no/such/file"))).contains("cannot read /no/such/file")
        );
    }
}
