//! What has happened in a history, and what must hold of it whatever the order of events was.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::input::Input;
use super::*;
use crate::error::HookFailure;

/// One history, shared by all that take part in it.
pub(super) struct History {
    pub(super) plan: Plan,
    pub(super) counts: Arc<Counts>,
    /// From now on nothing goes wrong any more.
    pub(super) peace: AtomicBool,
    pub(super) stopped: AtomicBool,
    /// Number of workers that were started and did not come up.
    pub(super) failed_starts: AtomicUsize,
    record: Mutex<Record>,
    /// Whether to print what happens.
    verbose: bool,
}

struct Record {
    start: Instant,
    digest: DefaultHasher,
    calls: Vec<Call>,
    reached: BTreeSet<&'static str>,
    /// The input of each worker.
    inputs: Vec<Input>,
}

/// A call. Its number is in its documents, and in all that workers write about it.
struct Call {
    node: bool,
    /// How often a worker answered that another may succeed.
    retryable: usize,
}

/// The text that names a call. It has the same length for all, so that none contains another.
pub(super) fn token(number: usize) -> String {
    format!("@{number:04}@")
}

/// The numbers of the calls that a text names.
pub(super) fn tokens(text: &[u8]) -> impl Iterator<Item = usize> {
    text.windows(6)
        .filter(|window| window[0] == b'@' && window[5] == b'@')
        .filter_map(|window| std::str::from_utf8(&window[1..5]).ok()?.parse().ok())
}

impl History {
    pub(super) fn new(plan: Plan, counts: Arc<Counts>, verbose: bool) -> Arc<Self> {
        let record = Record {
            start: Instant::now(),
            digest: DefaultHasher::new(),
            calls: Vec::new(),
            reached: BTreeSet::new(),
            inputs: Vec::new(),
        };
        Arc::new(Self {
            plan,
            counts,
            peace: AtomicBool::default(),
            stopped: AtomicBool::default(),
            failed_starts: AtomicUsize::default(),
            record: Mutex::new(record),
            verbose,
        })
    }

    /// Notes an event. All of them, with their times, are what must be the same in a replay.
    pub(super) fn event(&self, event: impl FnOnce() -> String) {
        let mut record = self.record.lock().unwrap();
        let (time, event) = (record.start.elapsed(), event());
        (time, &event).hash(&mut record.digest);
        if self.verbose {
            println!("{time:?} {event}");
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.record.lock().unwrap().digest.finish()
    }

    /// Whether this goes wrong now.
    pub(super) fn happens(&self, fault: Fault, dice: &mut Dice) -> bool {
        self.plan.happens(fault, dice) && !self.peace.load(Relaxed)
    }

    pub(super) fn new_call(&self, node: bool) -> usize {
        let mut record = self.record.lock().unwrap();
        record.calls.push(Call { node, retryable: 0 });
        record.calls.len() - 1
    }

    pub(super) fn new_worker(&self, input: StdinRecord) -> usize {
        let mut record = self.record.lock().unwrap();
        record.inputs.push(Input(input));
        record.inputs.len()
    }

    pub(super) fn asked_for_retry(&self, call: usize) {
        self.record.lock().unwrap().calls[call].retryable += 1;
    }

    /// In how many pipes a call lies, or lay, of which nothing was read.
    pub(super) fn unread_by(&self, call: usize) -> usize {
        let record = self.record.lock().unwrap();
        record.inputs.iter().filter(|input| input.was_sent(call) && !input.has_begun(call)).count()
    }

    fn begun_by(&self, call: usize) -> usize {
        let record = self.record.lock().unwrap();
        record.inputs.iter().filter(|input| input.has_begun(call)).count()
    }

    /// Whether a call may have begun of which that is not known: a process that survives might
    /// still read it, or so little of it was written that its number is missing.
    fn may_have_begun(&self) -> bool {
        let record = self.record.lock().unwrap();
        self.plan.has(Fault::Survives) || record.inputs.iter().any(Input::has_nameless)
    }

    /// Checks what a caller got, `after` it called. It had `time`.
    pub(super) fn judge(&self, call: usize, result: &HookResult, after: Duration, time: Duration) {
        let node = self.record.lock().unwrap().calls[call].node;
        let text = match result {
            Ok(reply) => String::from_utf8(reply.clone().or(token(call).into()).to_vec()).unwrap(),
            Err(failure) => failure.to_string(),
        };
        self.event(|| format!("call {call}: {}: {text:.200}", result.is_ok()));
        assert!(after <= time + BACKSTOP, "call {call}: an answer after {after:?} of {time:?}");
        let others: Vec<_> = tokens(text.as_bytes()).filter(|&other| other != call).collect();
        assert_eq!(others, [0; 0], "call {call}: bytes of other calls in {text}");
        let (begun, late) = (self.begun_by(call), after >= time);
        let (what, explained) = match result {
            Ok(HookReply::Done) => ("done", node && begun > 0),
            Ok(HookReply::Unchanged | HookReply::Changed(_)) => {
                ("changed", !node && begun > 0 && tokens(text.as_bytes()).count() > 0)
            }
            Err(HookFailure::Refused(_)) => {
                ("refused", begun > 0 && tokens(text.as_bytes()).count() > 0)
            }
            Err(HookFailure::BadOutput(_)) => {
                ("bad output", begun > 0 && self.plan.has(Fault::ReturnsNonsense))
            }
            Err(HookFailure::Died { .. }) => ("died", begun > 0 || self.may_have_begun()),
            Err(HookFailure::Protocol { .. }) => {
                ("broken rule", begun > 0 || self.may_have_begun())
            }
            Err(HookFailure::Deadline { .. }) => ("deadline", late),
            Err(HookFailure::Stalled { .. }) => ("stalled", late),
            Err(HookFailure::Busy(why)) if why.contains("(--queue-") => ("queue is full", true),
            Err(HookFailure::Busy(_)) => ("busy", late),
            Err(HookFailure::Unavailable(why)) if why.contains("shutting down") => {
                ("stopped", self.stopped.load(Relaxed))
            }
            Err(HookFailure::Unavailable(why)) if why.contains("before they read") => {
                let workers = self.record.lock().unwrap().inputs.len();
                ("unread", begun <= 1 && workers >= MAX_UNREAD as usize)
            }
            Err(HookFailure::Unavailable(_)) if late => ("no worker", true),
            // Only workers that do not come up make calls fail at once.
            Err(HookFailure::Unavailable(_)) => {
                let failed = self.counts.failed.load(Relaxed);
                ("down", self.failed_starts.load(Relaxed) + failed >= INTENSITY)
            }
            Err(_) => ("another failure", false),
        };
        assert!(explained, "call {call}, begun {begun} times: nothing explains {text}");
        self.reached(what);
    }

    /// Counts a thing that histories are to reach.
    pub(super) fn reached(&self, what: &'static str) {
        self.record.lock().unwrap().reached.insert(what);
    }

    pub(super) fn all_reached(&self) -> BTreeSet<&'static str> {
        self.record.lock().unwrap().reached.clone()
    }

    /// Checks what workers got, when all of them are gone.
    pub(super) fn judge_workers(&self) {
        let record = &mut *self.record.lock().unwrap();
        let reached = &mut record.reached;
        for (number, call) in record.calls.iter().enumerate() {
            let attempts = record.inputs.iter().filter_map(|input| input.attempt_of(number));
            let mut begun: Vec<_> = attempts.collect();
            begun.sort_unstable();
            let most = if call.node { 1 + call.retryable.min(1) } else { 2 };
            assert!(begun.len() <= most, "call {number} has begun {} times", begun.len());
            // See `may_have_begun`.
            let right = [1, 2].starts_with(&begun)
                || self.plan.has(Fault::Survives)
                || record.inputs.iter().any(Input::has_nameless);
            assert!(right || begun.contains(&0), "call {number}: attempts {begun:?}");
            let sent = record.inputs.iter().filter(|input| input.was_sent(number)).count();
            let unread = sent - begun.len();
            // While another process holds the pipe, the worker may have read the call: it counts as
            // an attempt.
            let attempts = if self.plan.has(Fault::Survives) { 2 - begun.len().min(2) } else { 0 };
            assert!(
                unread <= MAX_UNREAD as usize + attempts,
                "call {number} was left unread {unread} times"
            );
            if unread > 0 && !begun.is_empty() {
                reached.insert(if call.node { "unread node hook again" } else { "unread again" });
            }
            if begun.len() > 1 {
                reached.insert("second attempt");
            }
        }
    }
}
