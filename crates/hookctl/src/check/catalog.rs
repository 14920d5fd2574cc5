//! All checks in their order: what each demands, why, and where `protocol.md` says so.

use std::future::Future;
use std::pin::Pin;

use serde::Serialize;

use super::session::Session;
use super::verdict::Verdict;
use super::{
    contents, encoding, framing, handshake, intact, kinds, leftovers, lifecycle, memory, messages,
    namespaces, optional,
};

pub(super) struct Check {
    /// The name in `docs/check.md`.
    pub(super) name: &'static str,
    pub(super) level: Level,
    /// What the worker must do: the rest of a sentence that begins with "it".
    pub(super) demands: &'static str,
    /// What happens otherwise.
    pub(super) why: &'static str,
    /// The heading in `protocol.md`.
    pub(super) section: &'static str,
    pub(super) run: Run,
}

/// How much `protocol.md` demands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Level {
    /// A worker that does not do it fails.
    Must,
    /// A worker that does not do it gets a warning. A worker that exits instead, or does not
    /// respond, fails.
    Should,
}

impl Level {
    /// Returns the word of RFC 2119.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
        }
    }
}

type Run = for<'a> fn(&'a mut Session) -> Pin<Box<dyn Future<Output = Verdict> + 'a>>;

macro_rules! checks {
    ($($name:literal, $level:ident, $run:path, in $section:literal: $demands:literal,
       $why:literal;)*) => {
        &[$(Check {
            name: $name,
            level: Level::$level,
            demands: $demands,
            why: $why,
            section: $section,
            run: |session| Box::pin($run(session)),
        }),*]
    };
}

/// All checks. Those that judge what was noticed during the others come last.
pub(super) const CHECKS: &[Check] = checks! {
    "handshake", Must, handshake::handshake, in "initialize":
        "responds to initialize with its version and its hooks",
        "the shim does not start without that response";
    "newer-shim", Must, handshake::newer_shim, in "Messages":
        "responds to initialize with unknown versions, capabilities and fields",
        "every newer shim would need a new worker";
    "no-common-version", Must, handshake::no_common_version, in "initialize":
        "rejects unknown versions with −32602 and data.protocolVersions, and waits for EOF",
        "a newer shim could not report what is wrong";
    "protocol-variable", Should, handshake::protocol_variable, in "Start":
        "without KUBEVIRT_HOOK_PROTOCOL and arguments, writes to stderr and exits non-zero",
        "started by hand, or with --mode exec, it would hang or seem to succeed";
    "call", Must, messages::call, in "Calls":
        "responds to a call of each of its hooks with a valid result",
        "every VM with these documents would fail to start";
    "utf-8", Must, encoding::utf_8, in "Messages":
        "reads and writes UTF-8, and counts the length of a frame in bytes",
        "VMs with a letter outside ASCII in an annotation would not start, or get other letters";
    "unknown-fields", Must, messages::unknown_fields, in "Messages":
        "ignores unknown fields of a message, of params and of invocation",
        "every call of a newer shim would fail";
    "unknown-method", Must, messages::unknown_method, in "Messages":
        "responds to an unknown method with −32601",
        "the caller could not tell a missing hook from one that fails";
    "unknown-notification", Must, messages::unknown_notification, in "Messages":
        "ignores unknown notifications, and does not respond to them",
        "the shim kills a worker that responds to a notification";
    "ids", Must, messages::ids, in "Messages":
        "responds with the exact id of the request, up to 2^53 − 1",
        "the shim kills a worker whose response has an unknown id";
    "useless-params", Must, messages::useless_params, in "Errors":
        "responds to calls with missing or invalid params, and keeps running",
        "a worker that exits over one call fails others too, and is restarted each time";
    "escapes", Must, messages::escapes, in "Messages":
        "reads \\u escapes in JSON strings",
        "KubeVirt writes some characters as escapes, < and & among them";
    "nested-json", Must, kinds::nested_json, in "Limits":
        "reads JSON nested 100 deep",
        "a VMI may be as deep, and the shim sends it";
    "same-hooks", Must, handshake::same_hooks, in "initialize":
        "declares the same in every process",
        "the shim rejects a worker that declares other hooks than the first one";
    "same-result", Should, handshake::same_result, in "Hooks":
        "returns the same result for the same call, in every process",
        "every start would change the VM";
    "annotation-text", Must, encoding::annotation_text, in "Hooks":
        "takes &, <, >, quotes and letters outside ASCII in an annotation that its hooks read",
        "the VM of everyone who writes one there would not start, or get another text";
    "cloud-init-kinds", Must, kinds::cloud_init_kinds, in "Hooks":
        "returns all fields of cloud-init data, each with the kind of JSON that it had",
        "KubeVirt cannot read fields of another kind, and treats a missing one as empty";
    "text-intact", Should, intact::text_intact, in "Hooks":
        "keeps text, white space and Unicode where it has nothing to change",
        "data of other hooks and programs in the document would be lost";
    "minimal-document", Must, contents::minimal, in "Calls":
        "responds to calls with minimal documents, if only with an error, and keeps running",
        "a worker that exits over one call fails others too, and is restarted each time";
    "large-document", Must, contents::large, in "Limits":
        "responds to a call with a document of 4 MB",
        "VMs with many devices, or with much cloud-init data, would not start";
    "idempotent", Must, contents::idempotent, in "Hooks":
        "changes nothing in its own result, also as KubeVirt rewrites it",
        "KubeVirt calls hooks several times for one start, also with their own results";
    "namespaces", Should, namespaces::namespaces, in "Hooks":
        "does the same for any prefix of QEMU's namespace: finds elements by namespace",
        "sidecars get the element qemu:commandline, Plugins commandline with xmlns, and other hooks \
         have other prefixes";
    "torn-writes", Must, framing::torn_writes, in "Frames":
        "reads a message that arrives in many pieces, some of a single byte",
        "a pipe holds 64 KiB, so long messages arrive in pieces";
    "joined-writes", Must, framing::joined_writes, in "Frames":
        "reads several messages that arrive at once",
        "what it read beyond the first message would be lost";
    "child-stdin", Must, leftovers::child_stdin, in "Start":
        "lets no child process read its stdin",
        "a child process that inherits stdin reads the shim's messages, and waits for them";
    "whole-call", Must, framing::whole_call, in "Messages":
        "responds to a call only after reading all of it, attachments included",
        "it would read the rest of the call as the next message";
    "bad-length", Must, framing::bad_length, in "Frames":
        "after a frame of 0 or more than 16,777,215 bytes, writes to stderr and exits non-zero",
        "it would wait for bytes that never come, or allocate memory for them";
    "half-frame", Must, framing::half_frame, in "Frames":
        "at EOF inside a message, writes to stderr and exits non-zero",
        "it would act on half a message, or hide an error";
    "bad-json", Must, framing::bad_json, in "Frames":
        "after a message that is not a JSON object in UTF-8, writes to stderr and exits non-zero",
        "the stream cannot be resynchronized: it would read one call's bytes as another's";
    "attachments", Must, optional::attachments, in "Attachments":
        "reads the attachments of every message, also of an unknown method",
        "it would read the attachment as the next message";
    "cancel", Must, optional::cancel, in "Cancellation":
        "responds once to a cancelled call, and ignores cancellations of other ids",
        "the shim kills a worker that responds twice or never, and cancellations may come late";
    "concurrency", Must, optional::concurrency, in "Concurrency":
        "responds to as many calls at once as it declares, each with its own result",
        "one VM would get the document of another";
    "end-of-file", Must, lifecycle::end_of_file, in "Stop":
        "exits with status 0 within half of --kill-grace after EOF",
        "the shim would send SIGTERM, which may interrupt its work";
    "end-of-file-in-call", Must, lifecycle::end_of_file_in_call, in "Stop":
        "responds to what it has read before EOF, then exits",
        "calls would fail whenever the shim stops a worker";
    "sigterm", Should, lifecycle::sigterm, in "Stop":
        "exits within --kill-grace after SIGTERM",
        "SIGKILL would interrupt its work";
    "leftovers", Should, leftovers::leftovers, in "Limits":
        "closes what a call opens: descriptors, child processes, threads",
        "after some thousand calls it could open no more, and every call would fail";
    "memory", Should, memory::memory, in "Limits":
        "keeps nothing of a call: after a warm-up its memory stops growing",
        "the container would run out of memory, and the shim would exit with it";
    "one-response", Must, messages::one_response, in "Messages":
        "responds once to each request",
        "the shim kills a worker whose response belongs to no open request";
    "known-messages", Must, messages::known_messages, in "Messages":
        "sends only responses and readable $/log lines",
        "the shim ignores other notifications and rejects requests";
    "frames-alone", Must, messages::frames_alone, in "Start":
        "writes only frames to stdout",
        "the shim kills a worker that writes more than 64 KiB of text per call; less is skipped";
};

impl Check {
    /// Returns the anchor of the section in `protocol.md`.
    pub(super) fn anchor(&self) -> String {
        self.section.to_lowercase().replace(' ', "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sections_are_in_the_page() {
        let page = include_str!("../../../../protocol.md");
        for (index, check) in CHECKS.iter().enumerate() {
            assert!(CHECKS[..index].iter().all(|other| other.name != check.name), "{}", check.name);
            let heading = format!("# {}\n", check.section);
            assert!(page.contains(&heading), "protocol.md has no section {}", check.section);
        }
    }

    #[test]
    fn the_document_has_all_checks_and_no_others() {
        let page = include_str!("../../../../docs/check.md");
        let table = page.split("\n## ").find(|part| part.starts_with("The checks\n")).unwrap();
        let mut rows = table.lines().filter(|line| line.starts_with("| `"));
        for check in CHECKS {
            let Check { name, demands, why, section, .. } = check;
            let (level, anchor) = (check.level.word(), check.anchor());
            let row = format!(
                "| `{name}` | {level} | {demands} | {why} | [{section}](../protocol.md#{anchor}) |"
            );
            assert_eq!(rows.next(), Some(&*row), "docs/check.md and the program differ");
        }
        assert_eq!(rows.next(), None, "docs/check.md has an unknown check");
    }
}
