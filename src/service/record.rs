//! What the log says about a hook call: its first line, its last one, and the VM in all of them. At
//! the same places it is entered among the calls that run, and counted.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tonic::Code;
use tracing::Span;

use super::grpc_status;
use crate::backend::{self, Attempts, Progress};
use crate::hook::{Changes, HookCall, HookName, HookReply, Identity};
use crate::logging;
use crate::recording::Recorder;
use crate::stats::{Ending, Refusal, Running, Stats, Subject};

/// A call from its first header on.
#[derive(Debug)]
pub(super) struct CallRecord {
    /// Path of the method.
    method: &'static str,
    started: Instant,
    /// When the caller is answered at the latest.
    deadline: Instant,
    /// Names the call in each of its lines. Without a meaning for methods that run no hook.
    span: Span,
    progress: Arc<Progress>,
    /// Length of the request's message, once it is known.
    bytes_in: AtomicUsize,
    /// Whether the last line is logged.
    has_ended: AtomicBool,
    /// Whether the hook changed its document, if it has one.
    changed: OnceLock<bool>,
    is_slow: AtomicBool,
    /// What the hook changed, if that is logged.
    changes: OnceLock<Changes>,
    /// The call's number, and where it is counted. Only methods that run a hook have these, and
    /// lines.
    entry: Option<(u64, Arc<Stats>)>,
    /// Once its hook is known.
    running: OnceLock<Running>,
    /// What the hook is called with and its reply, if calls are recorded as cases.
    kept_call: OnceLock<HookCall>,
    kept_reply: OnceLock<HookReply>,
}

impl CallRecord {
    /// Begins the record of a call that started at this time, and may take `time`. Only a hook call
    /// has an entry: its number, and where it is counted.
    pub(super) fn new(
        started: Instant,
        time: Duration,
        method: &'static str,
        entry: Option<(u64, Arc<Stats>)>,
    ) -> Self {
        Self {
            method,
            started,
            deadline: started + time,
            span: entry.as_ref().map_or_else(Span::none, |entry| logging::call_span(entry.0)),
            progress: Arc::default(),
            bytes_in: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
            changed: OnceLock::new(),
            is_slow: AtomicBool::new(false),
            changes: OnceLock::new(),
            entry,
            running: OnceLock::new(),
            kept_call: OnceLock::new(),
            kept_reply: OnceLock::new(),
        }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns the call's time in all.
    pub(super) fn time(&self) -> Duration {
        self.deadline - self.started
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    pub(super) fn bytes_in(&self) -> &AtomicUsize {
        &self.bytes_in
    }

    pub(super) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Logs the first line of a hook call, and adds its hook and VM to all of its lines.
    pub(super) fn begin(&self, method: &str, hook: &HookName, vmi: &[u8]) {
        let vm = Identity::of_vmi(vmi);
        let about = logging::About::new(hook.as_str(), [&vm.namespace, &vm.name, &vm.uid]);
        logging::describe_call(&self.span, &about);
        if let Some((call, stats)) = &self.entry {
            let (hook, started, progress) = (hook.clone(), self.started, self.progress());
            // A call begins once.
            let _ =
                self.running.set(stats.begin(Subject { call: *call, hook, vm, started, progress }));
        }
        self.span.in_scope(|| tracing::info!("{method} method has been called"));
    }

    /// Notes whether the hook changed its document.
    pub(super) fn set_changed(&self, changed: bool) {
        // A call has one reply.
        let _ = self.changed.set(changed);
    }

    /// Notes what the hook changed, if that is known.
    pub(super) fn set_changes(&self, changes: Option<Changes>) {
        if let Some(changes) = changes {
            let _ = self.changes.set(changes);
        }
    }

    /// Keeps what the hook is called with, if it is to be recorded.
    pub(super) fn keep_call(&self, recorder: Option<&Recorder>, call: &HookCall) {
        if recorder.is_some_and(Recorder::is_recording) {
            let _ = self.kept_call.set(call.clone());
        }
    }

    /// Keeps the reply of a call that was kept.
    pub(super) fn keep_reply(&self, reply: &HookReply) {
        if self.kept_call.get().is_some() {
            let _ = self.kept_reply.set(reply.clone());
        }
    }

    /// Returns what was kept of the call, and of the reply.
    pub(super) fn kept(&self) -> Option<(&HookCall, Option<&HookReply>)> {
        Some((self.kept_call.get()?, self.kept_reply.get()))
    }

    /// Warns when the call has taken this long, and says what it waits for. Its last line is a
    /// warning then, too. Runs until it is dropped.
    pub(super) async fn watch(&self, slow: Option<Duration>) -> Infallible {
        if let Some(slow) = slow {
            sleep_until(self.started + slow).await;
            self.is_slow.store(true, Ordering::Relaxed);
            let Attempts { number, pid, .. } = self.progress.attempts();
            let what = match pid {
                Some(pid) => format!(
                    "its process {}",
                    backend::activity(pid).as_deref().unwrap_or("has exited")
                ),
                None => "it waits for a process".to_owned(),
            };
            let attempt = (number > 0).then_some(number);
            let slow_ms = milliseconds(slow);
            tracing::warn!(target: "call", slow_ms, attempt, pid, "the call is slow: {what}");
        }
        std::future::pending().await
    }

    /// Adds the hook to a call that ends before its request was read, if its method runs only one.
    fn begin_unread(&self) {
        let hook = match self.method.rsplit('/').next() {
            Some("OnDefineDomain" | "MutateDomain" | "GuestDefinition") => {
                HookName::ON_DEFINE_DOMAIN
            }
            Some("PreCloudInitIso") => HookName::PRE_CLOUD_INIT_ISO,
            _ => return,
        };
        if self.running.get().is_none()
            && let Some((call, stats)) = &self.entry
        {
            logging::describe_call(&self.span, &logging::About::new(hook.as_str(), [""; 3]));
            let (started, progress) = (self.started, self.progress());
            let vm = Identity::default();
            let subject = Subject { call: *call, hook, vm, started, progress };
            let _ = self.running.set(stats.begin(subject));
        }
    }

    fn count(&self, ending: &Ending) {
        match (self.running.get(), &self.entry) {
            (Some(running), _) => running.end(ending),
            (None, Some((_, stats))) => stats.count_unknown(ending),
            (None, None) => {}
        }
    }

    /// Logs the last line of a hook call, with the length of its reply, and counts it. `refusal` is
    /// why the shim itself refused it.
    pub(super) fn end(
        &self,
        code: Code,
        bytes_out: usize,
        refusal: Option<Refusal>,
        message: &str,
    ) {
        self.has_ended.store(true, Ordering::Relaxed);
        self.begin_unread();
        let (method, bytes_in) = (self.method, self.bytes_in.load(Ordering::Relaxed));
        let now = Instant::now();
        let Attempts { first, number, pid } = self.progress.attempts();
        let (took, queued) = (now - self.started, first.unwrap_or(now) - self.started);
        let (took_ms, queued_ms) = (milliseconds(took), milliseconds(queued));
        let (status, changed) = (grpc_status::name(code), self.changed.get());
        let failed = !matches!(code, Code::Ok | Code::Cancelled);
        self.count(&Ending { status, failed, took, queued, refusal });
        let attempt = (number > 0).then_some(number);
        let list = self.changes.get().map(|changes| {
            let listed: Vec<_> = changes.listed.iter().map(ToString::to_string).collect();
            serde_json::json!(listed).to_string()
        });
        let list = list.as_ref().map(tracing::field::display);
        let changes_count = self.changes.get().map(Changes::count);
        let slow = self.is_slow.load(Ordering::Relaxed).then_some(true);
        let _call = self.span.enter();
        macro_rules! last_line {
            ($level:ident) => {
                tracing::$level!(
                    target: "call", method, status, took_ms, queued_ms, attempt, bytes_in,
                    bytes_out, pid, changed, changes_count, changes = list, slow, message
                )
            };
        }
        match code {
            Code::Ok | Code::Cancelled if slow.is_some() => last_line!(warn),
            Code::Ok | Code::Cancelled => last_line!(info),
            _ => last_line!(error),
        }
    }
}

/// A call is dropped without an end when its connection is.
impl Drop for CallRecord {
    fn drop(&mut self) {
        if self.entry.is_some() && !*self.has_ended.get_mut() {
            self.end(Code::Cancelled, 0, None, "the caller left: its connection was closed");
        }
    }
}

/// Returns a time in milliseconds, with microseconds as decimals.
fn milliseconds(time: Duration) -> f64 {
    let microseconds = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    f64::from(microseconds) / 1000.0
}
