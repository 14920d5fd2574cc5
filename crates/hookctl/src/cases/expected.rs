//! What is expected of a call: a file of one of four names.

use bytes::Bytes;
use sidecar_shim::hook::{HookKind, HookName};
use sidecar_shim::service::client::status_name;

/// An empty file: the result is the document that was sent.
pub(super) const UNCHANGED: &str = "unchanged";
/// The call fails.
pub(crate) const ERROR: &str = "error.txt";
const DOMAIN: &str = "expected.xml";
const CLOUD_INIT_DATA: &str = "expected.json";

/// The names of all files that say what is expected.
pub(crate) const FILES: [&str; 4] = [DOMAIN, CLOUD_INIT_DATA, UNCHANGED, ERROR];

/// What is expected of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// This document.
    Document(Bytes),
    /// The document that was sent; of a node hook, success.
    Unchanged,
    /// A failure with this status, whose message contains each of these texts.
    Error { status: &'static str, texts: Vec<String> },
}

impl Expected {
    /// Returns the name of the file with the document that a hook of this kind returns.
    pub(crate) fn document_file(kind: HookKind) -> Option<&'static str> {
        match kind {
            HookKind::Domain => Some(DOMAIN),
            HookKind::CloudInit => Some(CLOUD_INIT_DATA),
            HookKind::Node => None,
        }
    }

    /// Returns the name of its file.
    pub(crate) fn file(&self, kind: HookKind) -> &'static str {
        match self {
            Self::Document(_) => Self::document_file(kind).unwrap_or(DOMAIN),
            Self::Unchanged => UNCHANGED,
            Self::Error { .. } => ERROR,
        }
    }

    /// Reads `error.txt`: the status, then texts.
    pub(crate) fn parse_error(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().map(str::trim);
        let first = lines.next().unwrap_or_default();
        let status = status_name(first).ok_or_else(|| {
            format!(
                "{ERROR}, line 1: {first:?} must be the gRPC status of a failure, such as \
                 FAILED_PRECONDITION (the hook refuses) or INTERNAL (the hook fails)"
            )
        })?;
        let texts = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Ok(Self::Error { status, texts })
    }

    /// Returns the contents of `error.txt` for a refusal of this hook.
    pub(crate) fn error_text(hook: &HookName, status: &str, message: &str) -> String {
        let mut text = format!("{status}\n");
        let refusal = message.strip_prefix(&format!("hook {hook} refused: ")).unwrap_or_default();
        for line in refusal.lines().filter(|line| !line.trim().is_empty()) {
            text += line.trim();
            text.push('\n');
        }
        text
    }
}
