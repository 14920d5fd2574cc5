//! libvirt's judgement of the domains that hooks return, with the tools that it brings.
//!
//! Its schema does not know all of what KubeVirt writes: for one, KubeVirt writes empty elements
//! where it has nothing to say. These are left out first. What libvirt says of the domain that was
//! sent counts for nothing; only what else it says of the result is the hook's.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use roxmltree::{Document, Node};
use sidecar_shim::backend::{Child, CommandLine, Launch, Process};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

/// Maximum time of a tool. They take 50 ms.
const TOOL_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum length of a tool's output. A complaint takes about 100 bytes.
const MAX_OUTPUT_BYTES: u64 = 64 * 1024;

/// Runs a tool with its stderr in its stdout: the arguments are the tool's.
const WITH_STDERR: [&str; 4] = ["sh", "-c", "exec \"$@\" 2>&1 </dev/null", "sh"];

/// A domain that every version of libvirt accepts.
const VALID: &[u8] = b"<domain type=\"test\"><name>vm</name><memory>65536</memory>\
    <os><type>hvm</type></os></domain>";

/// One that none does.
const INVALID: &[u8] = b"<domain type=\"test\"><name>vm</name><memory>much</memory>\
    <os><type>hvm</type></os></domain>";

/// What to do without libvirt's tools.
const INSTALL: &str = "install virt-xml-validate or virsh (Debian: apt install libvirt-clients \
                       libxml2-utils; Fedora: dnf install libvirt-client libxml2)";

/// A tool of libvirt's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    /// Applies the schema.
    Validate,
    /// Reads the domain, in the driver that is there for tests.
    Virsh,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Validate => "virt-xml-validate",
            Self::Virsh => "virsh",
        }
    }

    fn words(self, file: &Path) -> Vec<String> {
        let file = file.display().to_string();
        let words = match self {
            Self::Validate => vec![self.name().to_owned(), file, "domain".to_owned()],
            Self::Virsh => {
                let define = ["--quiet", "--connect", "test:///default", "define"];
                let words = [self.name()].into_iter().chain(define).map(str::to_owned);
                words.chain([file]).collect()
            }
        };
        WITH_STDERR.into_iter().map(str::to_owned).chain(words).collect()
    }
}

/// The tools that are installed.
pub(super) struct Libvirt {
    tools: Vec<Tool>,
}

impl Libvirt {
    /// Finds the tools, and tries them. An error says what to install.
    pub(super) async fn find() -> Result<Self, String> {
        let (mut tools, mut faults) = (Vec::new(), String::new());
        for tool in [Tool::Validate, Tool::Virsh] {
            let path = std::env::var_os("PATH").unwrap_or_default();
            if !std::env::split_paths(&path).any(|directory| directory.join(tool.name()).is_file())
            {
                continue;
            }
            match (judge(tool, VALID).await?, judge(tool, INVALID).await?) {
                (valid, invalid) if valid.is_empty() && !invalid.is_empty() => tools.push(tool),
                (says, _) => {
                    let says = says.join(" ");
                    let _ = write!(faults, "; {} does not work here: {says}", tool.name());
                }
            }
        }
        if tools.is_empty() {
            Err(format!("--libvirt: {INSTALL}{faults}"))
        } else {
            Ok(Self { tools })
        }
    }

    /// Returns what the tools say of the result and do not say of what was sent.
    pub(super) async fn complaints(&self, sent: &Bytes, result: &Bytes) -> Option<String> {
        let mut lines = Vec::new();
        for &tool in &self.tools {
            match new_complaints(tool, sent, result).await {
                Ok(new) if new.is_empty() => {}
                Ok(new) => {
                    let tool = tool.name();
                    lines.push(format!("{tool} rejects the result, and not domain.xml:"));
                    lines.extend(new);
                }
                Err(why) => lines.push(why),
            }
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

async fn new_complaints(tool: Tool, sent: &Bytes, result: &Bytes) -> Result<Vec<String>, String> {
    let [sent, result] = match tool {
        Tool::Validate => [sent, result].map(without_empty_elements),
        Tool::Virsh => [sent, result].map(Clone::clone),
    };
    let known = judge(tool, &sent).await?;
    let known: Vec<_> = known.iter().map(|line| without_place(line)).collect();
    let found = judge(tool, &result).await?;
    Ok(found.into_iter().filter(|line| !known.contains(&without_place(line))).collect())
}

/// Returns the lines that a tool says of a domain; none if it accepts it.
async fn judge(tool: Tool, domain: &[u8]) -> Result<Vec<String>, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot run {}: {error}", tool.name());
    let directory = tempfile::tempdir().map_err(|error| cannot(&error))?;
    let file = directory.path().join("domain.xml");
    std::fs::write(&file, domain).map_err(|error| cannot(&error))?;
    let words = tool.words(&file).into_iter().map(Into::into);
    let Some(command) = CommandLine::from_words(words) else { return Ok(Vec::new()) };
    let launch = Launch {
        command: &command,
        documents: &[],
        protocol: None,
        context: None,
        stdin: false,
        span: None,
        memory: None,
    };
    let (mut process, pipes) = Process::spawn(&launch).map_err(|error| cannot(&error))?;
    let mut output = Vec::new();
    let finished = timeout(TOOL_TIMEOUT, async {
        let _ = pipes.stdout.take(MAX_OUTPUT_BYTES).read_to_end(&mut output).await;
        process.wait().await
    })
    .await;
    let exit = finished.map_err(|_| cannot(&format!("it takes more than {TOOL_TIMEOUT:?}")))?;
    if exit.success() {
        return Ok(Vec::new());
    }
    let place = format!("{}:", file.display());
    let lines = String::from_utf8_lossy(&output).replace(&place, "line ");
    let lines: Vec<_> = lines
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.ends_with("fails to validate"))
        .map(str::to_owned)
        .collect();
    Ok(if lines.is_empty() { vec![exit.to_string()] } else { lines })
}

/// Returns a complaint without the line that it is about: a hook moves lines.
fn without_place(line: &str) -> &str {
    let after = line.strip_prefix("line ").and_then(|rest| rest.split_once(": "));
    after.map_or(line, |(_, complaint)| complaint)
}

/// Removes elements that have neither attributes nor content. Every other line stays where it is.
fn without_empty_elements(domain: &Bytes) -> Bytes {
    let Some(document) = str::from_utf8(domain).ok().and_then(|text| Document::parse(text).ok())
    else {
        return domain.clone();
    };
    let text = document.input_text();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for node in document.root_element().descendants().skip(1) {
        let range = node.range();
        if node.is_element() && is_empty(node) && range.start >= at {
            out.push_str(&text[at..range.start]);
            out.extend(text[range.clone()].matches('\n'));
            at = range.end;
        }
    }
    out.push_str(&text[at..]);
    out.into()
}

fn is_empty(node: Node<'_, '_>) -> bool {
    node.attributes().len() == 0
        && node.children().all(|child| match (child.is_element(), child.text()) {
            (true, _) => is_empty(child),
            (false, Some(text)) => child.is_comment() || text.trim().is_empty(),
            (false, None) => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_elements_are_left_out_and_lines_stay() {
        let text =
            "<domain>\n<a>\n <b></b>\n</a>\n<c x=''/><d> t </d><e><f/><g>1</g></e>\n</domain>";
        let kept = without_empty_elements(&Bytes::from_static(text.as_bytes()));
        let expected = "<domain>\n\n\n\n<c x=''/><d> t </d><e><g>1</g></e>\n</domain>";
        assert_eq!(kept, expected);
    }

    #[test]
    fn a_complaint_is_the_same_on_another_line() {
        let complaint = "element bios: Relax-NG validity error : Extra element";
        assert_eq!(without_place(&format!("line 21: {complaint}")), complaint);
        assert_eq!(without_place(complaint), complaint);
    }
}
