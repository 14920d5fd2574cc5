//! The span of a hook call: every line that is logged in it names the call and its VM.

use serde::Serialize;
use tracing::Span;
use tracing::field::Empty;

/// `kind` in lines about a VM, as KubeVirt's components write it.
const KIND: &str = "VirtualMachineInstance";

/// What a call is about. Its texts are harmless and bounded. Empty ones are left out.
#[derive(Serialize)]
pub struct About<'a> {
    pub hook: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub uid: &'a str,
}

impl<'a> About<'a> {
    /// A hook, and the namespace, name and UID of its VM.
    #[must_use]
    pub fn new(hook: &'a str, [namespace, name, uid]: [&'a str; 3]) -> Self {
        Self { hook, kind: KIND, namespace, name, uid }
    }
}

/// Creates the span of a hook call. `call` is the call's number in this shim.
#[must_use]
pub fn call_span(call: u64) -> Span {
    // Of the most severe level, so that no verbosity hides it.
    tracing::error_span!("call", call, about = Empty)
}

/// Adds what the call of a span is about.
pub fn describe_call(span: &Span, about: &About<'_>) {
    // In one step, which costs less. It cannot fail.
    span.record("about", serde_json::to_string(about).unwrap_or_default());
}
