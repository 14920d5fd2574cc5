//! What has happened since the start: the one register that `status` and the metrics are read from.
//!
//! # Theory of operation
//! A call is entered when its hook and VM are known, and counted when it ends. Both take one lock
//! for less than a microsecond. The register has a fixed size whatever happens: counts and
//! histograms for each hook that is served, the last [`LAST_FAILURES`], the [`SLOWEST`] of the last
//! hour, and the calls that run, which the budget of bytes limits.
//!
//! It holds no text of a document and none of a hook: the identity of a VM, the names of the hook
//! and of the status, times and process ids.

mod histogram;
mod refusal;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

pub use histogram::Histogram;
pub use refusal::Refusal;

use crate::backend::{Attempts, Progress};
use crate::hook::{HookName, Identity};

/// The name under which calls are counted whose hook is not served, or that were refused before it
/// was known. No hook's name begins like this.
pub const OTHER: &str = "_other";

/// Maximum number of hooks that are counted each for itself. KubeVirt knows ten; a worker may
/// declare any number.
const MAX_HOOKS: usize = 64;

/// Number of failures that are remembered: what fits on a screen.
pub const LAST_FAILURES: usize = 10;

/// Number of slow calls that are remembered.
pub const SLOWEST: usize = 10;

/// Time for which a slow call is remembered. Without a limit those of the start would never go.
const SLOW_FOR: Duration = Duration::from_secs(3600);

/// A call whose hook is known.
#[derive(Debug)]
pub struct Subject {
    /// Its number in the log.
    pub call: u64,
    pub hook: HookName,
    pub vm: Identity,
    pub started: Instant,
    pub progress: Arc<Progress>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// The gRPC status, as the log spells it.
    pub status: &'static str,
    /// Whether the caller got an error.
    pub failed: bool,
    pub took: Duration,
    /// The part of it that the call waited for a process.
    pub queued: Duration,
    /// Why the shim refused it.
    pub refusal: Option<Refusal>,
}

/// A call that has ended.
#[derive(Debug, Clone)]
pub struct Past {
    /// `None` if it was refused before its hook was known.
    pub subject: Option<Arc<Subject>>,
    pub status: &'static str,
    pub took: Duration,
    pub attempts: Attempts,
    pub time: SystemTime,
    at: Instant,
}

impl Past {
    /// Returns the time since it ended.
    #[must_use]
    pub fn ago(&self) -> Duration {
        self.at.elapsed()
    }
}

/// The counts of one hook.
#[derive(Debug, Clone, Default)]
pub struct HookStats {
    pub name: String,
    /// By status, of which there are 17.
    pub statuses: Vec<(&'static str, u64)>,
    /// Calls that failed.
    pub failed: u64,
    /// Calls that had a second attempt.
    pub retried: u64,
    pub took: Histogram,
    pub queued: Histogram,
}

/// All that is known at one moment.
#[derive(Debug, Clone)]
pub struct Summary {
    pub uptime: Duration,
    pub started: SystemTime,
    /// The last one is [`OTHER`].
    pub hooks: Vec<HookStats>,
    pub refusals: Vec<(Refusal, u64)>,
    /// Calls whose hook is known and that have not ended. Of many, the oldest.
    pub running: Vec<Arc<Subject>>,
    /// The last one first.
    pub failures: Vec<Past>,
    /// The slowest one first.
    pub slowest: Vec<Past>,
}

/// The register.
#[derive(Debug)]
pub struct Stats {
    started: (Instant, SystemTime),
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    hooks: Vec<HookStats>,
    refusals: BTreeMap<Refusal, u64>,
    running: BTreeMap<u64, Arc<Subject>>,
    failures: VecDeque<Past>,
    /// The slowest one first.
    slowest: Vec<Past>,
}

impl Stats {
    /// Counts the calls of these hooks (of many, the first ones), and those of all others as one.
    #[must_use]
    pub fn new(hooks: &[HookName]) -> Self {
        let names = hooks.iter().take(MAX_HOOKS).map(HookName::as_str).chain([OTHER]);
        let state = State {
            hooks: names.map(HookStats::new).collect(),
            refusals: Refusal::ALL.into_iter().map(|refusal| (refusal, 0)).collect(),
            running: BTreeMap::new(),
            failures: VecDeque::with_capacity(LAST_FAILURES),
            slowest: Vec::with_capacity(SLOWEST + 1),
        };
        Self { started: (Instant::now(), SystemTime::now()), state: Mutex::new(state) }
    }

    /// Enters a call, until the result is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>, subject: Subject) -> Running {
        let subject = Arc::new(subject);
        self.lock().running.insert(subject.call, subject.clone());
        Running { stats: self.clone(), subject }
    }

    /// Counts a call that ended before its hook was known.
    pub fn count_unknown(&self, ending: &Ending) {
        self.lock().count(None, ending);
    }

    /// Counts a request that was refused and does not call a hook.
    pub fn refuse(&self, refusal: Refusal) {
        *self.lock().refusals.entry(refusal).or_default() += 1;
    }

    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut state = self.lock();
        state.forget_slow(Instant::now());
        Summary {
            uptime: self.started.0.elapsed(),
            started: self.started.1,
            hooks: state.hooks.clone(),
            refusals: state.refusals.iter().map(|(&refusal, &count)| (refusal, count)).collect(),
            running: state.running.values().take(LAST_FAILURES).cloned().collect(),
            failures: state.failures.iter().cloned().collect(),
            slowest: state.slowest.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HookStats {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    fn count_status(&mut self, status: &'static str, count: u64) {
        match self.statuses.iter_mut().find(|(name, _)| *name == status) {
            Some((_, known)) => *known += count,
            None => self.statuses.push((status, count)),
        }
    }

    /// Adds the counts of another hook.
    pub fn merge(&mut self, other: &Self) {
        other.statuses.iter().for_each(|(status, count)| self.count_status(status, *count));
        self.failed += other.failed;
        self.retried += other.retried;
        self.took.merge(&other.took);
        self.queued.merge(&other.queued);
    }
}

impl State {
    fn count(&mut self, subject: Option<&Arc<Subject>>, ending: &Ending) {
        let Ending { status, failed, took, queued, refusal } = *ending;
        let attempts = subject.map(|subject| subject.progress.attempts()).unwrap_or_default();
        let known = subject.and_then(|subject| {
            self.hooks.iter_mut().position(|hook| hook.name == subject.hook.as_str())
        });
        let index = known.unwrap_or(self.hooks.len() - 1);
        let hook = &mut self.hooks[index];
        hook.count_status(status, 1);
        hook.failed += u64::from(failed);
        hook.took.add(took);
        hook.queued.add(queued);
        hook.retried += u64::from(attempts.number > 1);
        if let Some(refusal) = refusal {
            *self.refusals.entry(refusal).or_default() += 1;
        }
        let is_slow = subject.is_some()
            && (self.slowest.len() < SLOWEST
                || self.slowest.last().is_some_and(|fastest| fastest.took < took)
                || self.slowest.iter().any(|past| past.at.elapsed() > SLOW_FOR));
        if !failed && !is_slow {
            return;
        }
        let (at, time) = (Instant::now(), SystemTime::now());
        let past = Past { subject: subject.cloned(), status, took, attempts, time, at };
        if is_slow {
            self.forget_slow(at);
            let place = self.slowest.partition_point(|other| other.took >= took);
            self.slowest.insert(place, past.clone());
            self.slowest.truncate(SLOWEST);
        }
        if failed {
            self.failures.truncate(LAST_FAILURES - 1);
            self.failures.push_front(past);
        }
    }

    fn forget_slow(&mut self, now: Instant) {
        self.slowest.retain(|past| now.duration_since(past.at) <= SLOW_FOR);
    }
}

/// A call that runs. It is entered until this is dropped, and counted if it has ended by then.
#[derive(Debug)]
pub struct Running {
    stats: Arc<Stats>,
    subject: Arc<Subject>,
}

impl Running {
    /// Counts the call.
    pub fn end(&self, ending: &Ending) {
        let mut state = self.stats.lock();
        state.running.remove(&self.subject.call);
        state.count(Some(&self.subject), ending);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stats.lock().running.remove(&self.subject.call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Arc<Stats> {
        Arc::new(Stats::new(&[HookName::ON_DEFINE_DOMAIN]))
    }

    fn subject(call: u64, hook: HookName) -> Subject {
        let vm = Identity { name: format!("vm-{call}"), ..Identity::default() };
        Subject { call, hook, vm, started: Instant::now(), progress: Arc::default() }
    }

    fn ending(status: &'static str, millis: u64) -> Ending {
        let (took, queued) = (Duration::from_millis(millis), Duration::ZERO);
        Ending { status, failed: status != "OK", took, queued, refusal: None }
    }

    fn call(stats: &Arc<Stats>, number: u64, ended: &'static str, millis: u64) {
        let running = stats.begin(subject(number, HookName::ON_DEFINE_DOMAIN));
        running.end(&ending(ended, millis));
    }

    fn vms(past: &[Past]) -> Vec<String> {
        past.iter().map(|past| past.subject.as_ref().unwrap().vm.name.clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_counted_by_hook_and_status() {
        let stats = stats();
        for _ in 0..3 {
            call(&stats, 1, "OK", 1);
        }
        call(&stats, 2, "INTERNAL", 1);
        drop(stats.begin(subject(3, HookName::ON_DEFINE_DOMAIN)));
        stats.begin(subject(4, HookName::PRE_CLOUD_INIT_ISO)).end(&ending("UNIMPLEMENTED", 1));
        let refused = Ending { refusal: Some(Refusal::Size), ..ending("RESOURCE_EXHAUSTED", 1) };
        stats.count_unknown(&refused);
        stats.refuse(Refusal::NotServed);
        let summary = stats.summary();
        let [served, other] = &summary.hooks[..] else { panic!("{summary:?}") };
        assert_eq!(served.statuses, [("OK", 3), ("INTERNAL", 1)]);
        assert_eq!(served.took.count(), 4, "a call that was dropped is not counted");
        assert_eq!(other.name, OTHER);
        assert_eq!(other.statuses, [("UNIMPLEMENTED", 1), ("RESOURCE_EXHAUSTED", 1)]);
        let count = |of| summary.refusals.iter().find(|(refusal, _)| *refusal == of).unwrap().1;
        assert_eq!([Refusal::Size, Refusal::NotServed, Refusal::Queue].map(count), [1, 1, 0]);
        assert!(summary.running.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_failures_and_the_slowest_calls_of_an_hour_are_remembered() {
        let stats = stats();
        for number in 1..=50 {
            call(&stats, number, if number % 2 == 0 { "OK" } else { "INTERNAL" }, 100 - number);
        }
        let summary = stats.summary();
        let expected: Vec<_> = (0..10).map(|index| format!("vm-{}", 49 - 2 * index)).collect();
        assert_eq!(vms(&summary.failures), expected);
        let expected: Vec<_> = (1..=10).map(|number| format!("vm-{number}")).collect();
        assert_eq!(vms(&summary.slowest), expected);
        tokio::time::advance(SLOW_FOR + Duration::from_secs(1)).await;
        call(&stats, 51, "OK", 1);
        let summary = stats.summary();
        assert_eq!(vms(&summary.slowest), ["vm-51"]);
        assert_eq!(summary.failures.len(), LAST_FAILURES);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_run_are_known_until_they_end_oldest_first() {
        let stats = stats();
        let mut running: Vec<_> = (1..=20)
            .map(|number| stats.begin(subject(number, HookName::ON_DEFINE_DOMAIN)))
            .collect();
        let oldest = |stats: &Stats| -> Vec<u64> {
            stats.summary().running.iter().map(|subject| subject.call).collect()
        };
        assert_eq!(oldest(&stats), (1..=10).collect::<Vec<_>>());
        running[0].end(&ending("OK", 1));
        running.truncate(2);
        assert_eq!(oldest(&stats), [2]);
        drop(running);
        assert!(oldest(&stats).is_empty());
    }
}
