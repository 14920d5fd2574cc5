//! A hook call as the middle of the shim sees it: which hook, which documents, what came back.
//! It knows neither gRPC nor processes, and does no I/O.

mod document;
mod name;
mod xml;

use bytes::Bytes;

pub use document::{BadDocument, Document};
pub use name::{HookKind, HookName};

/// The member of the worker protocol's `params` and `result` that holds a domain.
pub const DOMAIN: &str = "domain";

/// The member that holds `CloudInitData`.
pub const CLOUD_INIT_DATA: &str = "cloudInitData";

/// The longest word for why a call is made; KubeVirt's own are under 20 bytes.
const MAX_CONTEXT_BYTES: usize = 63;

/// One call of one hook, with its documents checked.
#[derive(Debug, Clone)]
pub struct HookCall {
    hook: HookName,
    vmi: Document,
    subject: Subject,
    context: Option<Box<str>>,
}

/// What a hook is called about, beside the VMI.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A libvirt domain, UTF-8 XML, which it may change.
    Domain(Document),
    /// KubeVirt's `CloudInitData`, a JSON object, which it may change.
    CloudInitData(Document),
    /// The name of the node on which a node hook does its work.
    Node(String),
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
    /// A node hook has done its work. There is no document.
    Done,
}

impl HookReply {
    /// The document that holds now, given the one that was sent.
    #[must_use]
    pub fn or(self, sent: Bytes) -> Bytes {
        match self {
            Self::Unchanged | Self::Done => sent,
            Self::Changed(document) => document.into_bytes(),
        }
    }
}

impl HookCall {
    /// A call of `onDefineDomain` with a VMI (JSON object) and a domain (UTF-8 XML), which errors call
    /// `field`, as the caller's request does.
    pub fn on_define_domain(
        vmi: &Bytes,
        field: &'static str,
        domain: Bytes,
    ) -> Result<Self, BadDocument> {
        let domain = Document::text(field, domain)?;
        Self::new(HookName::ON_DEFINE_DOMAIN, vmi, Subject::Domain(domain))
    }

    /// A call of `preCloudInitIso` with a VMI and `CloudInitData`, both JSON objects.
    pub fn pre_cloud_init_iso(vmi: &Bytes, data: &Bytes) -> Result<Self, BadDocument> {
        let data = Document::json_object("cloudInitData", data)?;
        Self::new(HookName::PRE_CLOUD_INIT_ISO, vmi, Subject::CloudInitData(data))
    }

    /// A call of a node hook with a VMI and the node's name.
    pub fn node_hook(hook: HookName, vmi: &Bytes, node: String) -> Result<Self, BadDocument> {
        let node = without_nul("node_name", node)?;
        Self::new(hook, vmi, Subject::Node(node))
    }

    fn new(hook: HookName, vmi: &Bytes, subject: Subject) -> Result<Self, BadDocument> {
        let vmi = Document::json_object("vmi", vmi)?;
        Ok(Self { hook, vmi, subject, context: None })
    }

    /// Says why the call is made: `Boot`, `MigrationSource`, `MigrationTarget`, or what KubeVirt may
    /// call it later. Nothing, if that is empty.
    pub fn in_context(mut self, context: String) -> Result<Self, BadDocument> {
        const FIELD: &str = "invocation_context";
        let bytes = context.len();
        if bytes > MAX_CONTEXT_BYTES {
            let fault = format!("is {bytes} bytes long; it may be {MAX_CONTEXT_BYTES}");
            return Err(BadDocument::new(FIELD, fault));
        }
        let context = without_nul(FIELD, context)?;
        self.context = (!context.is_empty()).then(|| context.into());
        Ok(self)
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

    /// What the hook is called about.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Why the call is made, if KubeVirt has said so.
    #[must_use]
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// Bytes of its documents.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let subject = match &self.subject {
            Subject::Domain(document) | Subject::CloudInitData(document) => document.bytes().len(),
            Subject::Node(name) => name.len(),
        };
        self.vmi.bytes().len() + subject
    }

    /// Whether it may be sent again after a worker has died over it. KubeVirt itself calls the hooks
    /// that change a document several times for one start. What a node hook had done until then, only
    /// it can know.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        match self.subject {
            Subject::Domain(_) | Subject::CloudInitData(_) => true,
            Subject::Node(_) => false,
        }
    }

    /// Takes what a hook answered in place of the subject, if it passes the check. A domain that came
    /// back as it was sent is KubeVirt's own, and not checked.
    pub fn accept(&self, output: Bytes, checks: Checks) -> Result<HookReply, BadDocument> {
        match &self.subject {
            Subject::Domain(sent) if output == sent.bytes() => Ok(HookReply::Unchanged),
            _ => self.check(output, checks),
        }
    }

    /// Checks a document that is to take the subject's place: a well-formed XML document whose root is
    /// `domain`, or a JSON object. Whatever passes here is passed on byte for byte. A node hook answers
    /// by ending well; what it has said besides is nobody's.
    pub fn check(&self, output: Bytes, checks: Checks) -> Result<HookReply, BadDocument> {
        let document = match self.subject {
            Subject::Domain(_) if checks == Checks::None => Document::unchecked(output),
            Subject::Domain(_) => {
                xml::check_domain(document::read_text(DOMAIN, &output)?)
                    .map_err(|fault| BadDocument::new(DOMAIN, fault.to_string()))?;
                Document::unchecked(output)
            }
            Subject::CloudInitData(_) => Document::json_object(CLOUD_INIT_DATA, &output)?,
            Subject::Node(_) => return Ok(HookReply::Done),
        };
        Ok(HookReply::Changed(document))
    }
}

/// Neither an argument nor a variable can hold a NUL.
fn without_nul(field: &'static str, text: String) -> Result<String, BadDocument> {
    match text.bytes().position(|byte| byte == 0) {
        None => Ok(text),
        Some(at) => Err(BadDocument::new(field, format!("holds a NUL character at offset {at}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_holds_no_document() {
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
    fn a_domain_that_came_back_as_it_was_sent_is_unchanged_whatever_it_is() {
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
        assert_eq!(fault, "node_name holds a NUL character at offset 1");
    }

    #[test]
    fn the_context_is_a_short_word_or_nothing() {
        let vmi = Bytes::from_static(b"{}");
        let call = HookCall::pre_cloud_init_iso(&vmi, &vmi).unwrap();
        let with = |context: &str| call.clone().in_context(context.to_owned());
        assert_eq!(with("Boot").unwrap().context(), Some("Boot"));
        assert_eq!(with("").unwrap().context(), None);
        let fault = with(&"x".repeat(64)).unwrap_err().to_string();
        assert_eq!(fault, "invocation_context is 64 bytes long; it may be 63");
        assert!(with("a\0").is_err());
    }
}
