//! The span of a hook call: every line that is logged in it names the call and its VM.

use tracing::Span;
use tracing::field::Empty;

/// `kind` in lines about a VM, as KubeVirt's components write it.
const KIND: &str = "VirtualMachineInstance";

/// Creates the span of a hook call. `call` is the call's number in this shim.
#[must_use]
pub fn call_span(call: u64) -> Span {
    // Of the most severe level, so that no verbosity hides it.
    tracing::error_span!(
        "call",
        call,
        hook = Empty,
        kind = Empty,
        namespace = Empty,
        name = Empty,
        uid = Empty,
    )
}

/// Adds what is known about the call of a span: its hook, and the namespace, name and UID of its
/// VM. What is empty is left out.
pub fn describe_call(span: &Span, hook: &str, [namespace, name, uid]: [&str; 3]) {
    span.record("hook", hook);
    span.record("kind", KIND);
    for (field, text) in [("namespace", namespace), ("name", name), ("uid", uid)] {
        if !text.is_empty() {
            span.record(field, text);
        }
    }
}
