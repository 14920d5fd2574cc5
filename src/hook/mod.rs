//! A hook call as the middle of the shim sees it: which hook, which documents, what came back.
//! It knows neither gRPC nor processes, and does no I/O.

mod document;
mod xml;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

pub use document::{BadDocument, Document};

/// The longest name that a hook may have; KubeVirt's own are under 20 bytes.
const MAX_NAME_BYTES: usize = 63;

/// The name of a hook, as programs and workers know it: `onDefineDomain`.
///
/// It is a small ASCII letter followed by ASCII letters and digits, so it can be looked up in
/// `$PATH` and printed without care for what it holds.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HookName(Cow<'static, str>);

impl HookName {
    /// Changes the libvirt domain before it is defined.
    pub const ON_DEFINE_DOMAIN: Self = Self(Cow::Borrowed("onDefineDomain"));
    /// Changes cloud-init data before the disk image is made of it.
    pub const PRE_CLOUD_INIT_ISO: Self = Self(Cow::Borrowed("preCloudInitIso"));

    /// Takes a name from outside. `None` if it could not be a hook's.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let first = name.bytes().next()?;
        let fits = first.is_ascii_lowercase()
            && name.len() <= MAX_NAME_BYTES
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        // `initialize` is the worker protocol's own request.
        (fits && name != "initialize").then(|| Self(Cow::Owned(name.to_owned())))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One call of one hook, with its documents checked.
#[derive(Debug, Clone)]
pub struct HookCall {
    hook: HookName,
    vmi: Document,
    subject: Subject,
}

/// What a hook is asked to change.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A libvirt domain, UTF-8 XML.
    Domain(Document),
    /// KubeVirt's `CloudInitData`, a JSON object.
    CloudInitData(Document),
}

impl Subject {
    /// The member of the worker protocol's `params` and `result` that holds it.
    #[must_use]
    pub fn member(&self) -> &'static str {
        match self {
            Self::Domain(_) => "domain",
            Self::CloudInitData(_) => "cloudInitData",
        }
    }

    /// The document itself.
    #[must_use]
    pub fn document(&self) -> &Document {
        match self {
            Self::Domain(document) | Self::CloudInitData(document) => document,
        }
    }
}

/// What is checked of a domain that a hook answered. Cloud-init data are a JSON object in any case:
/// the shim has to read them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// Nothing: it is passed on as it is.
    None,
    /// That it is a well-formed XML document whose root is `domain`.
    WellFormed,
}

/// What a hook answered.
#[derive(Debug, Clone)]
pub enum HookReply {
    /// The document stays as it came.
    Unchanged,
    /// A new document takes its place.
    Changed(Document),
}

impl HookReply {
    /// The document that holds now, given the one that was sent.
    #[must_use]
    pub fn or(self, sent: Bytes) -> Bytes {
        match self {
            Self::Unchanged => sent,
            Self::Changed(document) => document.into_bytes(),
        }
    }
}

impl HookCall {
    /// A call of `onDefineDomain` with a VMI (JSON object) and a domain (UTF-8 XML).
    pub fn on_define_domain(vmi: &Bytes, domain: Bytes) -> Result<Self, BadDocument> {
        Ok(Self {
            hook: HookName::ON_DEFINE_DOMAIN,
            vmi: Document::json_object("vmi", vmi)?,
            subject: Subject::Domain(Document::text("domainXML", domain)?),
        })
    }

    /// A call of `preCloudInitIso` with a VMI and `CloudInitData`, both JSON objects.
    pub fn pre_cloud_init_iso(vmi: &Bytes, data: &Bytes) -> Result<Self, BadDocument> {
        Ok(Self {
            hook: HookName::PRE_CLOUD_INIT_ISO,
            vmi: Document::json_object("vmi", vmi)?,
            subject: Subject::CloudInitData(Document::json_object("cloudInitData", data)?),
        })
    }

    /// The hook that is called.
    #[must_use]
    pub fn hook(&self) -> &HookName {
        &self.hook
    }

    /// The VirtualMachineInstance as Kubernetes JSON.
    #[must_use]
    pub fn vmi(&self) -> &Document {
        &self.vmi
    }

    /// What the hook is asked to change.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Bytes of its documents.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.vmi.bytes().len() + self.subject.document().bytes().len()
    }

    /// Whether it may be sent again after a worker has died over it. KubeVirt itself calls these
    /// hooks several times for one start.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        match self.subject {
            Subject::Domain(_) | Subject::CloudInitData(_) => true,
        }
    }

    /// Checks what a hook answered in place of the subject: a well-formed XML document whose
    /// root is `domain`, or a JSON object. Whatever passes here is passed on byte for byte.
    pub fn accept(&self, output: Bytes, checks: Checks) -> Result<HookReply, BadDocument> {
        let member = self.subject.member();
        let document = match self.subject {
            Subject::Domain(_) if checks == Checks::None => Document::unchecked(output),
            Subject::Domain(_) => {
                xml::check_domain(document::read_text(member, &output)?)
                    .map_err(|fault| BadDocument::new(member, fault.to_string()))?;
                Document::unchecked(output)
            }
            Subject::CloudInitData(_) => Document::json_object(member, &output)?,
        };
        Ok(HookReply::Changed(document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_names_are_plain_words() {
        for good in ["onDefineDomain", "preVMStart", "x1"] {
            assert_eq!(HookName::parse(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for bad in ["", "Kill", "../../bin/sh", "$/log", "initialize", "on define", "é", &long] {
            assert_eq!(HookName::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn debug_output_holds_no_document() {
        let call = HookCall::on_define_domain(
            &Bytes::from_static(b"{\"secret\":1}"),
            Bytes::from_static(b"<domain>secret</domain>"),
        )
        .unwrap();
        let reply = call
            .accept(Bytes::from_static(b"<domain>secret</domain>"), Checks::WellFormed)
            .unwrap();
        let shown = format!("{call:?} {reply:?}");
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.contains("Document(23 bytes)"), "{shown}");
    }

    #[test]
    fn cloud_init_output_keeps_its_white_space_and_must_be_an_object() {
        let call =
            HookCall::pre_cloud_init_iso(&Bytes::from_static(b"{}"), &Bytes::from_static(b" {} "))
                .unwrap();
        let reply =
            call.accept(Bytes::from_static(b" {\"UserData\": \"x\"}\n"), Checks::None).unwrap();
        assert_eq!(reply.or(Bytes::new()), " {\"UserData\": \"x\"}\n");
        let fault = call.accept(Bytes::from_static(b"[1]"), Checks::None).unwrap_err().to_string();
        assert_eq!(fault, "cloudInitData is not a JSON object: it begins with `[`");
    }
}
