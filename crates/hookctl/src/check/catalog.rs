//! All checks, in their order: what each demands, why, and where `protocol.md` says so.

use std::future::Future;
use std::pin::Pin;

use super::session::Session;
use super::verdict::Verdict;
use super::{contents, framing, handshake, lifecycle, messages, optional};

/// One check.
pub(super) struct Check {
    /// What it is called, in words that can be looked up in `docs/check.md`.
    pub(super) name: &'static str,
    /// What it demands of a worker: the end of a sentence that begins with "it".
    pub(super) demands: &'static str,
    /// What happens otherwise.
    pub(super) why: &'static str,
    /// The heading in `protocol.md`.
    pub(super) section: &'static str,
    /// Tries it.
    pub(super) run: Run,
}

/// How a check is run.
type Run = for<'a> fn(&'a mut Session) -> Pin<Box<dyn Future<Output = Verdict> + 'a>>;

/// Declares the checks.
macro_rules! checks {
    ($($name:literal, $run:path, in $section:literal: $demands:literal, $why:literal;)*) => {
        &[$(Check {
            name: $name,
            demands: $demands,
            why: $why,
            section: $section,
            run: |session| Box::pin($run(session)),
        }),*]
    };
}

/// All checks. Those that judge what was noticed by the way come last.
pub(super) const CHECKS: &[Check] = checks! {
    "handshake", handshake::handshake, in "initialize":
        "answers initialize with its version and its hooks",
        "the shim does not start with a worker that does not";
    "newer-shim", handshake::newer_shim, in "Messages":
        "answers the initialize of a newer shim, with versions, capabilities and members that it does not know",
        "it would have to be changed with every new shim";
    "no-common-version", handshake::no_common_version, in "initialize":
        "refuses versions that it does not speak with −32602 and data.protocolVersions, and waits for end-of-file",
        "a shim of the future could not say what is wrong";
    "protocol-variable", handshake::protocol_variable, in "Start":
        "started without KUBEVIRT_HOOK_PROTOCOL and without arguments, says something on standard error and exits with a status other than 0",
        "somebody who starts it by hand, or with --mode exec, would wait for ever or take it for a success";
    "call", messages::call, in "Calls":
        "answers a call of each of its hooks with a result that the shim takes",
        "every VM with these documents would fail to start";
    "unknown-members", messages::unknown_members, in "Messages":
        "ignores unknown members of a message, of params and of invocation",
        "what a newer shim adds would make every call fail";
    "unknown-method", messages::unknown_method, in "Messages":
        "answers an unknown method with −32601",
        "the caller could not tell a hook that is not there from one that fails";
    "unknown-notification", messages::unknown_notification, in "Messages":
        "ignores unknown notifications, and does not answer them",
        "the shim ends a worker that answers what was no request";
    "ids", messages::ids, in "Messages":
        "answers with the very id of the request, up to 2^53 − 1",
        "the shim ends a worker whose answer belongs to no request";
    "useless-params", messages::useless_params, in "Errors":
        "answers calls whose params are missing or of the wrong kind, and goes on",
        "a worker that dies over one call takes the others with it, and is started again each time";
    "escapes", messages::escapes, in "Messages":
        "reads JSON strings with \\u escapes like any others",
        "KubeVirt writes some characters as escapes, < and & among them";
    "same-answer", handshake::same_answer, in "Hooks":
        "declares the same in every process, and answers the same call alike, twice and in another process",
        "the shim takes no worker that declares other hooks, and a VM would change with every start and on every node";
    "text-intact", contents::text_intact, in "Hooks":
        "leaves text, white space and Unicode as they are where it has nothing to change",
        "it would break what other hooks and programs keep in the document";
    "minimal-document", contents::minimal, in "Calls":
        "answers calls whose documents hold nothing, with an error if it likes, and goes on",
        "a worker that dies over one call takes the others with it, and is started again each time";
    "large-document", contents::large, in "Limits":
        "answers a call with a document of 4 MB",
        "VMs with many devices, or with much cloud-init data, would not start";
    "idempotent", contents::idempotent, in "Hooks":
        "changes nothing more when it gets its own result",
        "KubeVirt calls hooks several times for one start, also with their own results";
    "torn-writes", framing::torn_writes, in "Frames":
        "reads a message that arrives in many pieces, some of a single byte",
        "a pipe holds 64 KiB, so long messages arrive in pieces";
    "joined-writes", framing::joined_writes, in "Frames":
        "reads several messages that arrive at once",
        "what it has read beyond the first message would be lost";
    "whole-call", framing::whole_call, in "Messages":
        "does not answer a call before it has read it to its end, attachments included",
        "it would take the rest of the call for the next message";
    "bad-length", framing::bad_length, in "Frames":
        "at a frame of no bytes, or of more than 16,777,215, says so on standard error and exits with a status other than 0",
        "it would wait for bytes that never come, or take memory for them";
    "half-frame", framing::half_frame, in "Frames":
        "at end-of-file inside a message, says so on standard error and exits with a status other than 0",
        "it would act upon half a message, or hide that something is broken";
    "bad-json", framing::bad_json, in "Frames":
        "at a message that is no JSON object in UTF-8, says so on standard error and exits with a status other than 0",
        "out of step, it would take one call's bytes for another's";
    "attachments", optional::attachments, in "Attachments":
        "reads the attachments of every message, also of an unknown method",
        "it would take the attachment for the next message";
    "cancel", optional::cancel, in "Cancellation":
        "answers a cancelled call once, with its result or −32800, and ignores cancellations of other ids",
        "cancellations and answers cross, and the shim ends a worker that answers twice or not at all";
    "concurrency", optional::concurrency, in "Concurrency":
        "answers as many calls at once as it declares, each with its own result",
        "one VM would get the document of another";
    "end-of-file", lifecycle::end_of_file, in "Stop":
        "at end-of-file, exits with status 0 within --kill-grace",
        "it would be killed, and its exit taken for a failure";
    "end-of-file-in-call", lifecycle::end_of_file_in_call, in "Stop":
        "at end-of-file, answers what it has read before it ends",
        "a call would fail whenever the shim stops";
    "sigterm", lifecycle::sigterm, in "Stop":
        "at SIGTERM, ends within --kill-grace",
        "it would be killed by SIGKILL, whatever it is doing";
    "memory", lifecycle::memory, in "Limits":
        "keeps nothing of its calls: in 1,000 of them, its memory does not go on growing by more than 4 KiB for each",
        "the container would run out of memory, and the shim end with it";
    "one-answer", messages::one_answer, in "Messages":
        "answers every request once",
        "the shim ends a worker whose answer belongs to no open request";
    "known-messages", messages::known_messages, in "Messages":
        "sends nothing but responses and $/log lines that can be read",
        "the shim ignores the rest, and refuses requests";
    "frames-alone", messages::frames_alone, in "Start":
        "writes frames to standard output, and nothing else",
        "text between frames is skipped up to 64 KiB for each call, then the worker is ended; behind a frame's length it would break the frame";
};

impl Check {
    /// The place in `protocol.md`, as a link there has it.
    pub(super) fn anchor(&self) -> String {
        self.section.to_lowercase().replace(' ', "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_sections_are_in_the_page() {
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
            let anchor = check.anchor();
            let row =
                format!("| `{name}` | {demands} | {why} | [{section}](../protocol.md#{anchor}) |");
            assert_eq!(rows.next(), Some(&*row), "docs/check.md and the program differ");
        }
        assert_eq!(rows.next(), None, "docs/check.md has a check that there is not");
    }
}
