//! A hook call between the services and the backend: the hook, its documents and its reply. It
//! knows neither gRPC nor processes, and does no I/O.

mod changes;
mod cloud_init;
mod document;
mod identity;
mod json;
mod name;
mod xml;

use bytes::Bytes;

pub(crate) use changes::resolved;
pub use changes::{Change, ChangeKind, Changes, Detail, MAX_CHANGES, changes};
pub use cloud_init::CloudInitTexts;
pub(crate) use document::json_fault;
pub use document::{BadDocument, Document};
pub use identity::Identity;
pub use name::{HookKind, HookName};

/// The field of the worker protocol's `params` and `result` for a domain.
pub const DOMAIN: &str = "domain";

/// The field for `CloudInitData`.
pub const CLOUD_INIT_DATA: &str = "cloudInitData";

/// Maximum length of the reason for a call; KubeVirt's own are under 20 bytes.
const MAX_CONTEXT_BYTES: usize = 63;

/// One call of one hook, with validated documents.
#[derive(Debug, Clone)]
pub struct HookCall {
    hook: HookName,
    vmi: Document,
    subject: Subject,
    context: Option<Box<str>>,
}

/// What a hook is called with in addition to the VMI.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A libvirt domain in UTF-8 XML, which the hook may change.
    Domain(Document),
    /// KubeVirt's `CloudInitData`, a JSON object, which the hook may change.
    CloudInitData(Document),
    /// The name of the node on which a node hook runs.
    Node(String),
}

/// The validation of a domain that a hook returns. Cloud-init data is always validated, because the
/// shim parses it itself: it must be a JSON object that KubeVirt can decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// None: the domain is passed on as it is.
    None,
    /// It must be a well-formed XML document whose root is `domain`.
    WellFormed,
}

/// A hook's reply.
#[derive(Debug, Clone)]
pub enum HookReply {
    /// The document stays as it was sent.
    Unchanged,
    /// A new document takes its place.
    Changed(Document),
    /// A node hook has finished. There is no document.
    Done,
}

impl HookReply {
    /// Returns the new document, or `sent` if there is none.
    #[must_use]
    pub fn or(self, sent: Bytes) -> Bytes {
        match self {
            Self::Unchanged | Self::Done => sent,
            Self::Changed(document) => document.into_bytes(),
        }
    }
}

impl HookCall {
    /// Creates a call of `onDefineDomain` with a VMI (JSON object) and a domain (UTF-8 XML). Errors
    /// call the domain `field`, its name in the caller's request.
    pub fn on_define_domain(
        vmi: &Bytes,
        field: &'static str,
        domain: Bytes,
    ) -> Result<Self, BadDocument> {
        let domain = Document::text(field, domain)?;
        Self::new(HookName::ON_DEFINE_DOMAIN, vmi, Subject::Domain(domain))
    }

    /// Creates a call of `preCloudInitIso` with a VMI and `CloudInitData`, both JSON objects.
    pub fn pre_cloud_init_iso(vmi: &Bytes, data: &Bytes) -> Result<Self, BadDocument> {
        let data = Document::json_object("cloudInitData", data)?;
        Self::new(HookName::PRE_CLOUD_INIT_ISO, vmi, Subject::CloudInitData(data))
    }

    /// Creates a call of a node hook with a VMI and the node's name.
    pub fn node_hook(hook: HookName, vmi: &Bytes, node: String) -> Result<Self, BadDocument> {
        let node = without_nul("node_name", node)?;
        Self::new(hook, vmi, Subject::Node(node))
    }

    fn new(hook: HookName, vmi: &Bytes, subject: Subject) -> Result<Self, BadDocument> {
        let vmi = Document::json_object("vmi", vmi)?;
        Ok(Self { hook, vmi, subject, context: None })
    }

    /// Sets the reason for the call: `Boot`, `MigrationSource`, `MigrationTarget`, or what later
    /// versions of KubeVirt send. An empty one counts as none.
    pub fn in_context(mut self, context: String) -> Result<Self, BadDocument> {
        const FIELD: &str = "invocation_context";
        let bytes = context.len();
        if bytes > MAX_CONTEXT_BYTES {
            let fault = format!("is {bytes} bytes long; the maximum is {MAX_CONTEXT_BYTES}");
            return Err(BadDocument::new(FIELD, fault));
        }
        let context = without_nul(FIELD, context)?;
        self.context = (!context.is_empty()).then(|| context.into());
        Ok(self)
    }

    /// Gives a node hook another name.
    #[must_use]
    pub fn with_name(mut self, hook: HookName) -> Self {
        self.hook = hook;
        self
    }

    #[must_use]
    pub fn hook(&self) -> &HookName {
        &self.hook
    }

    /// Returns the VirtualMachineInstance as Kubernetes JSON.
    #[must_use]
    pub fn vmi(&self) -> &Document {
        &self.vmi
    }

    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Returns the reason for the call, if KubeVirt gave one.
    #[must_use]
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// Returns the length of its documents.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let subject = match &self.subject {
            Subject::Domain(document) | Subject::CloudInitData(document) => document.bytes().len(),
            Subject::Node(name) => name.len(),
        };
        self.vmi.bytes().len() + subject
    }

    /// Whether the call may be sent again after a worker died during it. KubeVirt itself calls the
    /// hooks that change a document several times for one start. A node hook may have acted on the
    /// node before its worker died.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        match self.subject {
            Subject::Domain(_) | Subject::CloudInitData(_) => true,
            Subject::Node(_) => false,
        }
    }

    /// Turns a hook's output into its reply. A document that is returned as it was sent is
    /// KubeVirt's own, so it is not validated.
    pub fn accept(&self, output: Bytes, checks: Checks) -> Result<HookReply, BadDocument> {
        match &self.subject {
            Subject::Domain(sent) if output == sent.bytes() => Ok(HookReply::Unchanged),
            // The older form of the data is still filled from it.
            Subject::CloudInitData(sent) if output == sent.bytes() => {
                Ok(HookReply::Changed(sent.clone()))
            }
            _ => self.check(output, checks),
        }
    }

    /// Validates a hook's output: it must be a well-formed XML document whose root is `domain`, or
    /// a JSON object that KubeVirt can decode. A valid one is passed on byte for byte. A node hook
    /// replies through its exit status; its output is ignored.
    pub fn check(&self, output: Bytes, checks: Checks) -> Result<HookReply, BadDocument> {
        let document = match &self.subject {
            Subject::Domain(_) if checks == Checks::None => Document::unchecked(output),
            Subject::Domain(sent) => {
                xml::check_domain(document::read_text(DOMAIN, &output)?, || sent.as_str())
                    .map_err(|fault| BadDocument::new(DOMAIN, fault.to_string()))?;
                Document::unchecked(output)
            }
            Subject::CloudInitData(sent) => {
                return cloud_init::check(sent, Document::json_object(CLOUD_INIT_DATA, &output)?);
            }
            Subject::Node(_) => return Ok(HookReply::Done),
        };
        Ok(HookReply::Changed(document))
    }
}

/// Rejects NUL characters, which neither an argument nor an environment variable can contain.
fn without_nul(field: &'static str, text: String) -> Result<String, BadDocument> {
    match text.bytes().position(|byte| byte == 0) {
        None => Ok(text),
        Some(at) => {
            Err(BadDocument::new(field, format!("contains a NUL character at offset {at}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_contains_no_document() {
        let call = HookCall::on_define_domain(
            &Bytes::from_static(b"{\"secret\":1}"),
            "domainXML",
            Bytes::from_static(b"<domain>secret</domain>"),
        )
        .unwrap();
        let reply = call
            .accept(Bytes::from_static(b"<domain>secret 2</domain>"), Checks::WellFormed)
            .unwrap();
        let shown = format!("{call:?} {reply:?}");
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.contains("Document(23 bytes)"), "{shown}");
    }

    #[test]
    fn a_domain_that_comes_back_as_it_was_sent_is_unchanged_and_not_validated() {
        let sent = Bytes::from_static(b"<domain>");
        let vmi = Bytes::from_static(b"{}");
        let call = HookCall::on_define_domain(&vmi, "domainXML", sent.clone()).unwrap();
        let reply = call.accept(sent.clone(), Checks::WellFormed).unwrap();
        assert!(matches!(reply, HookReply::Unchanged));
        assert!(call.check(sent, Checks::WellFormed).is_err());
        assert!(call.accept(Bytes::from_static(b"<domain> "), Checks::WellFormed).is_err());
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

    #[test]
    fn a_node_hook_is_done_and_never_repeated() {
        let vmi = Bytes::from_static(b"{}");
        let hook = HookName::NODE_HOOKS[0].clone();
        let call = HookCall::node_hook(hook.clone(), &vmi, "node01".to_owned()).unwrap();
        assert!(!call.may_be_repeated());
        assert_eq!(call.bytes(), 8);
        let reply = call.accept(Bytes::from_static(b"whatever it printed"), Checks::WellFormed);
        assert!(matches!(reply.unwrap(), HookReply::Done));
        let fault = HookCall::node_hook(hook, &vmi, "a\0b".to_owned()).unwrap_err().to_string();
        assert_eq!(fault, "node_name contains a NUL character at offset 1");
    }

    #[test]
    fn the_context_is_a_short_word_or_nothing() {
        let vmi = Bytes::from_static(b"{}");
        let call = HookCall::pre_cloud_init_iso(&vmi, &vmi).unwrap();
        let with = |context: &str| call.clone().in_context(context.to_owned());
        assert_eq!(with("Boot").unwrap().context(), Some("Boot"));
        assert_eq!(with("").unwrap().context(), None);
        let fault = with(&"x".repeat(64)).unwrap_err().to_string();
        assert_eq!(fault, "invocation_context is 64 bytes long; the maximum is 63");
        assert!(with("a\0").is_err());
    }
}
