//! Runs a case: in each mode, and in each spelling in which KubeVirt may send its domain, and then
//! on its own result.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sidecar_shim::hook::HookKind;
use sidecar_shim::service::client::ClientError;
use sidecar_shim::service::{Api, ApiVersion};

use super::exec::{self, InDoubt, Programs};
use super::libvirt::Libvirt;
use super::says::{self, Difference};
use super::shims::{Answer, Mode, Reply, Shims};
use crate::cases::{Case, Expected};
use crate::rewrite::{QEMU, Receiver};

/// The status with which a program of exec mode fails: it can only exit.
const PROGRAM_FAILED: &str = "INTERNAL";

/// Statuses of a worker that refuses.
const REFUSALS: [&str; 2] = ["FAILED_PRECONDITION", "INVALID_ARGUMENT"];

/// A domain that KubeVirt cannot rewrite.
const UNREADABLE: &str = "KubeVirt cannot read the hook's result";

/// How a domain is spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As in the case's file, the only one for cloud-init data and for node hooks.
    File,
    /// As KubeVirt writes it for a hook sidecar.
    Sidecar,
    /// As KubeVirt writes it for a Plugin.
    Plugin,
}

/// One way to run a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) mode: Mode,
    pub(super) kind: HookKind,
    pub(super) spelling: Spelling,
    /// Whether the hook gets its own result.
    pub(super) again: bool,
}

impl Way {
    /// Returns what the hook got, if cases of this kind can send it more than one thing.
    pub(super) fn sent(self) -> Option<&'static str> {
        if self.kind != HookKind::Domain {
            return None;
        }
        Some(match (self.spelling, self.again) {
            (Spelling::File, false) => "domain.xml as it stands",
            (Spelling::Sidecar, false) => "as KubeVirt writes it for a sidecar",
            (Spelling::Plugin, false) => "as KubeVirt writes it for a Plugin",
            (Spelling::File, true) => "the result of domain.xml as it stands, sent again",
            (Spelling::Sidecar, true) => "a sidecar's result, sent again",
            (Spelling::Plugin, true) => "a Plugin's result, sent again",
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mode)?;
        self.sent().map_or(Ok(()), |sent| write!(f, ", {sent}"))
    }
}

/// What is wrong with a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// In words.
    Text(String),
    /// A worker died in the call, and another one answered.
    WorkerDied,
    /// It is not the document that was expected.
    Differs {
        what: String,
        /// The document that it was compared with, in a word.
        with: &'static str,
        difference: Difference,
    },
}

/// What a case's results are compared with.
#[derive(Clone, Copy)]
pub(super) enum Demand<'a> {
    /// What the case expects.
    OfCase(&'a Expected),
    /// What the hook did in the first call, of which there is no file yet.
    OfFirstCall(&'a Expected),
}

impl<'a> Demand<'a> {
    fn expected(self) -> &'a Expected {
        match self {
            Self::OfCase(expected) | Self::OfFirstCall(expected) => expected,
        }
    }
}

/// What became of a case.
#[derive(Default)]
pub(super) struct Outcome {
    /// Number of calls.
    pub(super) calls: usize,
    /// What failed, and in which way.
    pub(super) faults: Vec<(Way, Fault)>,
    /// Why nothing was written of what the hook does.
    pub(super) not_written: Option<String>,
    /// Why exec mode was left out.
    pub(super) no_exec: Option<String>,
    /// The call for which it was left out, until all cases are done: if the worker has run as a
    /// program in another call, it is one.
    pub(super) in_doubt: Option<InDoubt>,
}

impl Outcome {
    /// A worker's last call may have failed because the worker is not a program.
    fn doubt(&mut self, case: &Case, fault: Option<(Way, Fault)>) {
        self.calls -= 1;
        self.in_doubt = Some(InDoubt { variables: case.variables.clone(), fault });
    }

    /// Decides what is in doubt, when all cases are done.
    pub(super) fn settle(&mut self, programs: &Programs) {
        let Some(InDoubt { variables, fault }) = self.in_doubt.take() else { return };
        if programs.is_program(&variables) {
            self.calls += 1;
            self.faults.extend(fault);
        } else {
            self.no_exec = Some("started as a program, it exits with status 2".to_owned());
        }
    }
}

/// Runs cases.
pub(super) struct Runner {
    pub(super) shims: Shims,
    /// The modes to run cases in, the first one at least.
    pub(super) modes: Vec<Mode>,
    /// Whether the command is a worker, which need not be able to run in exec mode.
    pub(super) is_worker: bool,
    /// The environments in which it has run in exec mode.
    pub(super) programs: Programs,
    /// What the program writes if it fails without a call.
    pub(super) alone: Option<String>,
    /// Judges the domains that hooks return.
    pub(super) libvirt: Option<Libvirt>,
}

impl Runner {
    /// Runs a case in every way.
    pub(super) async fn run(&self, case: &Case, expected: Demand<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        for &mode in &self.modes {
            if mode == Mode::Exec && self.is_worker && !fits_into_arguments(case) {
                let why = "an argument of a program cannot hold the case's documents".to_owned();
                outcome.no_exec = Some(why);
                continue;
            }
            let way = Way { mode, ..self.first_way(case) };
            if let Err(why) = self.in_mode(case, expected, way, &mut outcome).await {
                outcome.faults.push((way, Fault::Text(why)));
            }
        }
        outcome
    }

    /// Returns the way of a case's first call.
    pub(super) fn first_way(&self, case: &Case) -> Way {
        let (mode, kind) = (self.modes[0], case.hook.kind());
        Way { mode, kind, spelling: Spelling::File, again: false }
    }

    /// Makes the first call of a case, for what is to be expected of it.
    pub(super) async fn first(&self, case: &Case) -> Result<Answer, String> {
        self.shims.call(case, self.modes[0], api(case), case.subject.clone()).await
    }

    /// Returns what libvirt says of a result and does not say of what was sent.
    async fn complaints(&self, sent: &Bytes, result: &Bytes) -> Option<String> {
        self.libvirt.as_ref()?.complaints(sent, result).await
    }

    /// Runs a case in one mode. An error says why the hook cannot be called.
    async fn in_mode(
        &self,
        case: &Case,
        expected: Demand<'_>,
        way: Way,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        for (spelling, api) in spellings(case) {
            let way = Way { spelling, ..way };
            let Some(sent) = spelling.write(&case.subject) else {
                let what = "KubeVirt cannot read this domain.xml, so it cannot spell it".to_owned();
                outcome.faults.push((way, Fault::Text(what)));
                continue;
            };
            if spelling != Spelling::File && api == self::api(case) && is_spelt_alike(case, &sent) {
                continue;
            }
            outcome.calls += 1;
            let answer = self.shims.call(case, way.mode, api, sent.clone()).await?;
            let Answer { reply, is_of_second_worker } = answer;
            if way.mode == Mode::Exec && self.is_worker {
                match &reply {
                    Ok(_) => self.programs.has_run(&case.variables),
                    Err(error) if exec::is_usage_error(error) => {
                        let fault = self.judge(case, expected, way, &reply);
                        outcome.doubt(case, fault.map(|fault| (way, fault)));
                        return Ok(());
                    }
                    Err(_) => {}
                }
            }
            if is_of_second_worker {
                outcome.faults.push((way, Fault::WorkerDied));
            }
            let fault = self.judge(case, expected, way, &reply);
            let has_failed = fault.is_some();
            outcome.faults.extend(fault.map(|fault| (way, fault)));
            if let (Ok(result), false) = (&reply, has_failed)
                && case.hook.kind() == HookKind::Domain
                && *result != sent
            {
                outcome.calls += 1;
                let again_way = Way { again: true, ..way };
                let fault = self.again(case, api, again_way, result).await?;
                outcome.faults.extend(fault.map(|fault| (again_way, fault)));
                if way.mode == self.modes[0] && spelling == Spelling::File {
                    let complaints = self.complaints(&sent, result).await;
                    outcome.faults.extend(complaints.map(|what| (way, Fault::Text(what))));
                }
            }
        }
        Ok(())
    }

    /// Compares a reply with what is expected.
    fn judge(&self, case: &Case, demand: Demand<'_>, way: Way, reply: &Reply) -> Option<Fault> {
        let (expected, file) = (demand.expected(), demand.expected().file(way.kind));
        let is_first = matches!(demand, Demand::OfFirstCall(_));
        let (document, with, what) = match (expected, reply) {
            (Expected::Error { status, texts }, Err(error)) => {
                let alone = self.alone.as_deref();
                return judge_error(status, texts, way.mode, error, alone).map(Fault::Text);
            }
            (Expected::Error { status, .. }, Ok(_)) => {
                let what = if is_first {
                    format!("the hook succeeds, and failed in the first call with {status}")
                } else {
                    format!("the hook succeeds, and {file} expects that it fails with {status}")
                };
                return Some(Fault::Text(what));
            }
            (_, Err(error)) => return Some(Fault::Text(format!("the hook fails: {error}"))),
            (Expected::Document(document), Ok(_)) if is_first => {
                (document, "first", "differs from that of the first call".to_owned())
            }
            (Expected::Document(document), Ok(_)) => {
                (document, "expected", format!("differs from {file}"))
            }
            (Expected::Unchanged, Ok(_)) => {
                let end = if is_first {
                    "which the hook returned in the first call".to_owned()
                } else {
                    format!("and the case has {file}")
                };
                (&case.subject, "sent", format!("differs from what was sent, {end}"))
            }
        };
        let returned = reply.as_ref().ok()?;
        match (way.spelling.write(document), way.spelling.write(returned)) {
            (Some(document), Some(returned)) => {
                difference(way.kind, &what, with, &document, &returned)
            }
            _ => Some(Fault::Text(UNREADABLE.to_owned())),
        }
    }

    /// Calls the hook with its result as KubeVirt rewrites it. What KubeVirt drops does not count.
    async fn again(
        &self,
        case: &Case,
        api: Api,
        way: Way,
        result: &Bytes,
    ) -> Result<Option<Fault>, String> {
        let receiver = Receiver::same(api);
        let Some(sent) = receiver.rewrite_document(result) else {
            return Ok(Some(Fault::Text(UNREADABLE.to_owned())));
        };
        let answer = self.shims.call(case, way.mode, api, sent.clone()).await?;
        if answer.is_of_second_worker {
            return Ok(Some(Fault::WorkerDied));
        }
        let reply = match answer.reply {
            Ok(reply) => receiver.rewrite_document(&reply).unwrap_or(reply),
            Err(error) => return Ok(Some(Fault::Text(format!("the hook fails: {error}")))),
        };
        let what = "is changed once more, so the hook is not idempotent";
        Ok(difference(way.kind, what, "sent", &sent, &reply))
    }
}

/// Whether each document fits into one argument of a program. Linux grants 32 pages, with a NUL.
fn fits_into_arguments(case: &Case) -> bool {
    let limit = 32 * rustix::param::page_size();
    case.vmi.len() < limit && case.subject.len() < limit
}

fn difference(
    kind: HookKind,
    what: &str,
    with: &'static str,
    expected: &[u8],
    returned: &[u8],
) -> Option<Fault> {
    match says::compare(kind, expected, returned) {
        Ok(None) => None,
        Ok(Some(difference)) => Some(Fault::Differs { what: what.to_owned(), with, difference }),
        Err(why) => Some(Fault::Text(format!("the hook's result {why}"))),
    }
}

/// Whether what is sent is the case's file, but for a declaration that KubeVirt writes in a boot's
/// first call only.
fn is_spelt_alike(case: &Case, sent: &Bytes) -> bool {
    let text = str::from_utf8(&case.subject).unwrap_or_default().trim_end();
    let declaration = format!(" xmlns:qemu=\"{QEMU}\"");
    let (head, tail) = text.split_once(&declaration).unwrap_or((text, ""));
    let is_without = sent.len() == head.len() + tail.len()
        && sent.starts_with(head.as_bytes())
        && sent.ends_with(tail.as_bytes());
    is_without || *sent == text
}

/// Whether a program of exec mode can only exit where a worker fails so.
pub(super) fn is_refusal(expected: Option<&Expected>) -> bool {
    matches!(expected, Some(Expected::Error { status, .. }) if REFUSALS.contains(status))
}

/// Compares a failure with the one that is expected. `alone` is what the program writes if it fails
/// without a call.
fn judge_error(
    status: &str,
    texts: &[String],
    mode: Mode,
    error: &ClientError,
    alone: Option<&str>,
) -> Option<String> {
    let Some((found, message)) = error.status() else {
        return Some(format!("the call fails: {error}"));
    };
    let is_alike = mode == Mode::Exec && found == PROGRAM_FAILED && REFUSALS.contains(&status);
    if is_alike && let Some(why) = exec::why_not_refused(error, alone) {
        return Some(format!("fails, and does not refuse with {status}: {why}: {error}"));
    }
    if found != status && !is_alike {
        return Some(format!("fails with another status than {status}: {error}"));
    }
    let missing = texts.iter().find(|text| !message.contains(text.as_str()))?;
    Some(format!("the message does not contain {missing:?}: {error}"))
}

/// Returns the spellings of a case's document, and the API for each.
fn spellings(case: &Case) -> Vec<(Spelling, Api)> {
    let api = api(case);
    let mut spellings = vec![(Spelling::File, api)];
    if case.hook.kind() == HookKind::Domain {
        if api != Api::Plugins {
            spellings.push((Spelling::Sidecar, api));
        }
        spellings.push((Spelling::Plugin, Api::Plugins));
    }
    spellings
}

/// Returns the API through which the case is called as it stands. Only Plugins have a context.
fn api(case: &Case) -> Api {
    match (case.hook.kind(), &case.context) {
        (HookKind::Domain, None) | (HookKind::CloudInit, _) => Api::Legacy(ApiVersion::V1Alpha3),
        (HookKind::Domain, Some(_)) | (HookKind::Node, _) => Api::Plugins,
    }
}

impl Spelling {
    /// Writes a document so. `None` if it cannot be read.
    fn write(self, document: &Bytes) -> Option<Bytes> {
        match self {
            Self::File => Some(document.clone()),
            Self::Sidecar => Receiver::SameSidecar.rewrite_document(document),
            // It keeps what another hook has added.
            Self::Plugin => Receiver::NextPlugin.rewrite_document(document),
        }
    }
}

/// A runner that several tasks share.
pub(super) type Shared = Arc<Runner>;
