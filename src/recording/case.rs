//! A call as a case: the name of its directory, and its files. `docs/cases.md` defines the format.

use std::time::{Duration, SystemTime};

use super::directory::CaseFile;
use super::secrets::{Format, Secrets};
use crate::hook::{Checks, Document, HookCall, HookReply, Identity, Subject};
use crate::text::{clip, escape};

/// The variable that tells the hook of a network binding for which registration it runs. The only
/// one that a case has: others may be secret.
pub(super) const BINDING_VARIABLE: &str = "NETWORK_BINDING_PLUGIN_NAME";

/// Maximum length of a VM's name and namespace in a case's name, which has up to 255 bytes.
const MAX_NAME_BYTES: usize = 63;

/// Maximum length of a hook's message in a case. A status holds at least three times as much
/// uncut, with any characters.
const MAX_MESSAGE_BYTES: usize = 600;

/// What became of a call.
pub enum Outcome {
    Replied(HookReply),
    Failed(Failure),
}

/// A failure that is the hook's: the same documents cause it again.
pub struct Failure {
    /// As gRPC spells it.
    pub status: &'static str,
    /// The message that the hook wrote for the VM's owner, if it has refused the VM. The texts of
    /// other failures have lines of stderr, process ids and paths.
    pub refusal: Option<String>,
    /// The time in which the hook did not answer, if it did not.
    pub deadline: Option<Duration>,
}

/// A call that is recorded.
pub struct Case {
    pub call: HookCall,
    pub outcome: Outcome,
    /// Its end.
    pub time: SystemTime,
}

/// Why a case is not recorded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unrecordable {
    #[error("its domain is not well-formed, so that secrets cannot be found in it")]
    NotWellFormed,
    #[error("its documents hold too many secrets")]
    TooManySecrets,
}

impl Case {
    /// Returns the length of its documents.
    pub(super) fn bytes(&self) -> usize {
        let returned = self.returned().map_or(0, |document| document.bytes().len());
        self.call.bytes() + returned
    }

    /// Returns the name of its directory: the time, so that names sort, the VM and the hook.
    pub(super) fn name(&self) -> String {
        let Identity { namespace, name, .. } = Identity::of_vmi(self.call.vmi().bytes());
        let time = humantime::format_rfc3339_micros(self.time).to_string().replace(['-', ':'], "");
        let [namespace, name] = [namespace, name].map(|text| harmless(&text));
        format!("{time}-{namespace}-{name}-{}", self.call.hook())
    }

    /// Returns its files. `binding` is the value of [`BINDING_VARIABLE`].
    pub(super) fn files(
        &self,
        with_secrets: bool,
        binding: Option<&str>,
    ) -> Result<Vec<CaseFile>, Unrecordable> {
        let (subject, format) = match self.call.subject() {
            Subject::Domain(domain) => (Some(("domain.xml", domain)), Format::Xml),
            Subject::CloudInitData(data) => (Some(("cloud-init.json", data)), Format::Json),
            Subject::Node(_) => (None, Format::Json),
        };
        let documents = Documents { case: self, format, secrets: Secrets::default() };
        let documents = if with_secrets { documents } else { documents.searched()? };
        let shown = |format, document: &Document| {
            if with_secrets {
                document.bytes().to_vec()
            } else {
                documents.secrets.replace(format, document.as_str()).into_bytes()
            }
        };
        let mut files = vec![("vmi.json", shown(Format::Json, self.call.vmi()))];
        if let Some((name, document)) = subject {
            files.push((name, shown(format, document)));
        }
        if let Some(args) = self.args(binding) {
            files.push(("args.toml", args.into_bytes()));
        }
        let sent = subject.map(|(_, document)| document);
        let is_shown = sent.is_some_and(|sent| files[1].1 == *sent.bytes());
        match (&self.outcome, self.returned()) {
            (Outcome::Failed(failure), _) => {
                files.push(("error.txt", error(failure, &documents.secrets, with_secrets)));
            }
            (_, Some(returned)) if Some(returned) != sent => {
                let name = match format {
                    Format::Xml => "expected.xml",
                    Format::Json => "expected.json",
                };
                let shown = shown(format, returned);
                if with_secrets || documents.has_expected(is_shown, &shown) {
                    files.push((name, shown));
                }
            }
            _ => files.push(("unchanged", Vec::new())),
        }
        Ok(files)
    }

    /// Returns the document that the hook returned.
    fn returned(&self) -> Option<&Document> {
        match &self.outcome {
            Outcome::Replied(HookReply::Changed(document)) => Some(document),
            _ => None,
        }
    }

    /// Returns `args.toml`, if the call had something to say there.
    fn args(&self, binding: Option<&str>) -> Option<String> {
        let mut lines = Vec::new();
        if let Subject::Node(node) = self.call.subject() {
            lines.push(format!("hook = {}\n", quoted(self.call.hook().as_str())));
            if !node.is_empty() {
                lines.push(format!("node = {}\n", quoted(node)));
            }
        }
        if let Some(context) = self.call.context() {
            lines.push(format!("context = {}\n", quoted(context)));
        }
        if let Outcome::Failed(Failure { deadline: Some(deadline), .. }) = self.outcome {
            let deadline = humantime::format_duration(deadline).to_string();
            lines.push(format!("deadline = {}\n", quoted(&deadline)));
        }
        if let Some(binding) = binding {
            lines.push(format!("[env]\n{BINDING_VARIABLE} = {}\n", quoted(binding)));
        }
        (!lines.is_empty()).then(|| lines.concat())
    }
}

/// The documents of a case, and the secrets in them.
struct Documents<'a> {
    case: &'a Case,
    /// Of the documents that the hook may change.
    format: Format,
    secrets: Secrets,
}

impl Documents<'_> {
    /// Searches for secrets.
    fn searched(mut self) -> Result<Self, Unrecordable> {
        let call = &self.case.call;
        let collected = |_| Unrecordable::TooManySecrets;
        self.secrets.collect(Format::Json, call.vmi().as_str()).map_err(collected)?;
        if let Subject::Domain(sent) | Subject::CloudInitData(sent) = call.subject() {
            self.check(sent)?;
            self.secrets.collect(self.format, sent.as_str()).map_err(collected)?;
        }
        if let Some(returned) = self.case.returned() {
            self.check(returned)?;
            self.secrets.collect_of_hook(self.format, returned.as_str()).map_err(collected)?;
        }
        Ok(self)
    }

    /// In a domain that is not well-formed, the places of secrets are not known.
    fn check(&self, document: &Document) -> Result<(), Unrecordable> {
        let is_domain = matches!(self.format, Format::Xml);
        let checked = || self.case.call.check(document.bytes().clone(), Checks::WellFormed);
        if is_domain && checked().is_err() {
            return Err(Unrecordable::NotWellFormed);
        }
        Ok(())
    }

    /// Whether the hook would return this document, without secrets, for documents without secrets.
    /// `is_shown` says that what it was called with has none.
    fn has_expected(&self, is_shown: bool, shown: &[u8]) -> bool {
        match self.format {
            // It makes something of user data, of which the placeholder has nothing.
            Format::Json => is_shown && self.case.returned().is_some_and(|it| it.bytes() == shown),
            Format::Xml => !self.secrets.hook_made_one(),
        }
    }
}

/// Returns `error.txt`: the status, and lines that the message must have.
fn error(failure: &Failure, secrets: &Secrets, with_secrets: bool) -> Vec<u8> {
    let refusal = failure.refusal.as_deref().unwrap_or_default();
    // Secrets are searched for in all of it: of a part, their ends may be missing.
    let lines = if with_secrets {
        refusal.lines().map(str::trim).map(str::to_owned).collect()
    } else {
        secrets.message(refusal)
    };
    let message = lines.join("\n");
    let mut text = format!("{}\n", failure.status);
    for line in clip(&message, MAX_MESSAGE_BYTES).lines().filter(|line| !line.is_empty()) {
        // As the status has it.
        text.push_str(escape(line.trim_end()).as_ref());
        text.push('\n');
    }
    text.into_bytes()
}

/// Returns a text as a part of a file's name.
fn harmless(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    match clip(text, MAX_NAME_BYTES) {
        "" => "unknown".to_owned(),
        text => text.replace(|c| !is_plain(c), "_"),
    }
}

/// Returns a string of TOML. Its escapes are those of JSON, but it also wants one for DEL.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::hook::HookName;

    const VMI: &str = r#"{"metadata": {"namespace": "shop", "name": "db-1"}}"#;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn case(call: HookCall, outcome: Outcome) -> Case {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
        Case { call, outcome, time }
    }

    fn domain_case(vmi: &str, sent: &str, returned: &str) -> Case {
        let call = HookCall::on_define_domain(&bytes(vmi), "domain", bytes(sent)).unwrap();
        let reply = call.accept(bytes(returned), Checks::WellFormed).unwrap();
        case(call, Outcome::Replied(reply))
    }

    fn cloud_init_case(sent: &str, returned: &str) -> Case {
        let call = HookCall::pre_cloud_init_iso(&bytes(VMI), &bytes(sent)).unwrap();
        let reply = call.accept(bytes(returned), Checks::WellFormed).unwrap();
        case(call, Outcome::Replied(reply))
    }

    fn node_case(node: &str, outcome: Outcome) -> Case {
        let hook = HookName::parse("preVMStart").unwrap();
        case(HookCall::node_hook(hook, &bytes(VMI), node.to_owned()).unwrap(), outcome)
    }

    fn failed(status: &'static str, refusal: Option<&str>) -> Outcome {
        Outcome::Failed(Failure { status, refusal: refusal.map(str::to_owned), deadline: None })
    }

    /// The files of a case as text.
    fn files(case: &Case) -> Vec<(&'static str, String)> {
        let files = case.files(false, None).unwrap();
        files.into_iter().map(|(name, bytes)| (name, String::from_utf8(bytes).unwrap())).collect()
    }

    fn names(case: &Case) -> Vec<&'static str> {
        files(case).into_iter().map(|(name, _)| name).collect()
    }

    fn file(case: &Case, name: &str) -> String {
        files(case).into_iter().find(|(found, _)| *found == name).unwrap().1
    }

    #[test]
    fn names_sort_by_time_and_hold_nothing_that_a_path_could() {
        assert_eq!(
            domain_case(VMI, "<domain/>", "<domain/>").name(),
            "20231114T221320.000001Z-shop-db-1-onDefineDomain"
        );
        let hostile = r#"{"metadata": {"namespace": "../../etc", "name": "a/\u0000\n\u00e9 b"}}"#;
        let name = domain_case(hostile, "<domain/>", "<domain/>").name();
        assert!(name.ends_with("Z-.._.._etc-a__u_0__n__b-onDefineDomain"), "{name}");
        assert!(domain_case("{}", "<domain/>", "<domain/>").name().contains("Z-unknown-unknown-"));
        let (long, hook) = ("a".repeat(300), "h".repeat(63));
        let long = format!(r#"{{"metadata": {{"namespace": "{long}", "name": "{long}"}}}}"#);
        let hook = HookName::parse(&hook).unwrap();
        let call = HookCall::node_hook(hook, &bytes(&long), String::new()).unwrap();
        assert!(case(call, Outcome::Replied(HookReply::Done)).name().len() <= 255 - "-99".len());
    }

    #[test]
    fn what_a_hook_did_is_said_by_one_file() {
        let unchanged = domain_case(VMI, "<domain/>", "<domain/>");
        assert_eq!(names(&unchanged), ["vmi.json", "domain.xml", "unchanged"]);
        let changed = domain_case(VMI, "<domain/>\n", "<domain a='1'/>");
        assert_eq!(file(&changed, "domain.xml"), "<domain/>\n");
        assert_eq!(file(&changed, "expected.xml"), "<domain a='1'/>");
        let data = r#"{"DataSource":"noCloud","UserData":""}"#;
        assert_eq!(names(&cloud_init_case(data, data))[1..], ["cloud-init.json", "unchanged"]);
        let renamed = r#"{"DataSource":"noCloud","UserData":"","VolumeName":"v"}"#;
        assert_eq!(file(&cloud_init_case(data, renamed), "expected.json"), renamed);
        let node = node_case("node\"01\u{7f}", Outcome::Replied(HookReply::Done));
        assert_eq!(names(&node), ["vmi.json", "args.toml", "unchanged"]);
        assert_eq!(
            file(&node, "args.toml"),
            "hook = \"preVMStart\"\nnode = \"node\\\"01\\u007f\"\n"
        );
    }

    #[test]
    fn a_call_has_its_context_its_binding_and_a_deadline_that_passed() {
        let call = HookCall::on_define_domain(&bytes(VMI), "domain", bytes("<domain/>")).unwrap();
        let call = call.in_context("Boot".to_owned()).unwrap();
        let deadline = Some(Duration::from_secs(60));
        let failure = Failure { status: "DEADLINE_EXCEEDED", refusal: None, deadline };
        let late = case(call, Outcome::Failed(failure)).files(false, Some("passt")).unwrap();
        let args = "context = \"Boot\"\ndeadline = \"1m\"\n[env]\n\
                    NETWORK_BINDING_PLUGIN_NAME = \"passt\"\n";
        assert_eq!(late[2], ("args.toml", args.as_bytes().to_vec()));
        assert_eq!(late[3], ("error.txt", b"DEADLINE_EXCEEDED\n".to_vec()));
    }

    #[test]
    fn a_refusal_has_the_lines_of_the_hook_and_other_failures_have_none() {
        let text = "no GPU is free\n\n  ask the \u{1b}admin\npassword=s3cr3t99\n";
        let refused = node_case("", failed("FAILED_PRECONDITION", Some(text)));
        let expected = "FAILED_PRECONDITION\nno GPU is free\nask the \\u{1b}admin\n";
        assert_eq!(file(&refused, "error.txt"), expected);
        let long = "é".repeat(10_000);
        let refused = node_case("", failed("FAILED_PRECONDITION", Some(&long)));
        assert_eq!(
            file(&refused, "error.txt"),
            format!("FAILED_PRECONDITION\n{}\n", "é".repeat(300))
        );
        assert_eq!(file(&node_case("", failed("INTERNAL", None)), "error.txt"), "INTERNAL\n");
        // A secret across the place of the cut.
        let vmi = bytes(r#"{"metadata": {"annotations": {"token": "TRUNC-0123456789"}}}"#);
        let call = HookCall::node_hook(HookName::parse("preVMStart").unwrap(), &vmi, String::new());
        let long = format!("{} TRUNC-0123456789", "x".repeat(585));
        let refused = case(call.unwrap(), failed("FAILED_PRECONDITION", Some(&long)));
        let line = format!("{} REPLACED", "x".repeat(585));
        assert_eq!(file(&refused, "error.txt"), format!("FAILED_PRECONDITION\n{line}\n"));
    }

    #[test]
    fn an_expected_document_is_left_out_if_the_hook_would_make_another_one() {
        let vnc =
            |password: &str| format!("<domain><graphics type='vnc' passwd='{password}'/></domain>");
        // Passed on, with another change.
        let passed = domain_case(VMI, &vnc("s3cr3t99"), &format!("{}\n", vnc("s3cr3t99")));
        assert_eq!(file(&passed, "expected.xml"), format!("{}\n", vnc("REPLACED")));
        // Made by the hook.
        let made = domain_case(VMI, &vnc("s3cr3t99"), &vnc("another1"));
        assert_eq!(names(&made), ["vmi.json", "domain.xml"]);
        // User data, changed or not.
        let data = |text: &str| format!(r#"{{"UserData":"{text}","VolumeName":"v"}}"#);
        let edited = cloud_init_case(&data("user 1"), &data("user 1, and user 2"));
        assert_eq!(names(&edited), ["vmi.json", "cloud-init.json"]);
        assert_eq!(file(&edited, "cloud-init.json"), data("REPLACED"));
        let same = cloud_init_case(&data("user 1"), &data("user 1"));
        assert_eq!(names(&same), ["vmi.json", "cloud-init.json", "unchanged"]);
        assert_eq!(
            edited.files(true, None).unwrap()[2],
            ("expected.json", data("user 1, and user 2").into_bytes())
        );
    }

    #[test]
    fn a_domain_in_which_secrets_cannot_be_found_is_recorded_with_secrets_alone() {
        let broken = "<domain><graphics passwd='s3cr3t99'></domain>";
        let case = domain_case(VMI, broken, broken);
        assert_eq!(case.files(false, None), Err(Unrecordable::NotWellFormed));
        assert_eq!(case.files(true, None).unwrap()[1].1, broken.as_bytes());
        let many: Vec<_> = (0..300).map(|n| format!("\"token-{n}\": \"value {n}\"")).collect();
        let many = format!("{{\"a\": {{{}}}}}", many.join(","));
        let case = domain_case(&many, "<domain/>", "<domain/>");
        assert_eq!(case.files(false, None), Err(Unrecordable::TooManySecrets));
    }
}
