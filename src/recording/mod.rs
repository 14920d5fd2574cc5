//! Records calls as cases, directories of files that `hookctl test` runs: `--record`, off by
//! default.
//!
//! # Theory of operation
//! This is the one place where documents of VMs get onto a disk. [`Recorder::reserve`] takes a call
//! that has an outcome, before it is replied to. Dropping what it returns, once the reply was sent,
//! queues the case for a thread, which replaces secrets (`secrets`), makes files (`case`) and
//! writes them (`directory`). Nothing of that blocks the shim's own thread, and nothing fails a
//! call: a case for which there is no memory or no place in the queue is left out, with a line in
//! the log.
//!
//! What waits is charged to the memory budget. What is on the disk is limited in cases and bytes,
//! which are counted at the start and before each case: other shims may record there too. At a
//! limit recording stops for good. A case that is larger than the limit itself is left out.

mod case;
mod directory;
mod secrets;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use self::case::BINDING_VARIABLE;
pub use self::case::{Case, Failure, Outcome};
use self::directory::{Directory, Held};
use crate::admission::{Memory, Share};
use crate::error::StartError;
use crate::logging::Seldom;

/// Maximum number of cases that wait. KubeVirt makes a handful of calls for a VM; the disk of a
/// node's shim has time until the next VMs.
const MAX_WAITING: usize = 32;

/// All that wait may take this part of the budget. Calls need the rest.
const BUDGET_PART: usize = 4;

/// Memory that a case takes for each byte of its documents: those, what else their request holds
/// (cloud-init data comes twice), and what is written.
const COPIES: usize = 3;

/// Time for the last cases to be written when the shim stops: a busy disk takes part of a second
/// for each. One that hangs must not keep the VM's pod.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Size of the thread's stack.
const STACK_BYTES: usize = 256 * 1024;

/// What is recorded, and where.
#[derive(Debug, Clone)]
pub struct Config {
    pub directory: PathBuf,
    /// Maximum number of cases in the directory, those of earlier runs included.
    pub max_cases: usize,
    /// Maximum number of bytes in them.
    pub max_bytes: u64,
    /// Whether secrets are written as they are.
    pub with_secrets: bool,
}

/// Takes calls, and writes them in a thread.
pub struct Recorder {
    /// `None` once the shim stops.
    queue: Mutex<Option<SyncSender<Waiting>>>,
    /// Completes when the thread has written the last case.
    written: Mutex<Option<oneshot::Receiver<()>>>,
    state: Arc<State>,
    memory: Memory,
    omitted: Mutex<Seldom>,
}

#[derive(Default)]
struct State {
    /// A limit was reached.
    is_full: AtomicBool,
    /// What waiting cases hold of the budget.
    bytes: AtomicUsize,
}

/// A case on its way to the disk.
struct Waiting {
    case: Case,
    share: Share,
    state: Arc<State>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.state.bytes.fetch_sub(self.share.bytes(), Ordering::Relaxed);
    }
}

/// A case whose call is not replied to yet. It is queued when this is dropped.
pub struct Reserved {
    waiting: Option<Waiting>,
    recorder: Arc<Recorder>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let Some(waiting) = self.waiting.take() else { return };
        let queue = lock(&self.recorder.queue);
        if queue.as_ref().is_some_and(|queue| queue.try_send(waiting).is_err()) {
            self.recorder.omit("too many cases wait for the disk");
        }
    }
}

impl Recorder {
    /// Opens the directory, warns that documents are written there, and starts the thread.
    /// `of_plugin` says that the shim may serve all VMs of a node.
    pub fn start(config: Config, memory: Memory, of_plugin: bool) -> Result<Arc<Self>, StartError> {
        let refused = |why| StartError::Record { path: config.directory.clone(), why };
        let directory = Directory::open(&config.directory).map_err(refused)?;
        let held = directory
            .held()
            .map_err(|error| refused(format!("cannot count its cases: {error}")))?;
        warn(&config, held, of_plugin);
        let state = Arc::<State>::default();
        let (queue, waiting) = sync_channel(MAX_WAITING);
        let (done, written) = oneshot::channel();
        let binding = std::env::var_os(BINDING_VARIABLE).and_then(|text| text.into_string().ok());
        let mut writer = Writer {
            config,
            directory,
            held,
            binding,
            state: state.clone(),
            is_failing: false,
            too_large: Seldom::default(),
        };
        writer.check_limits(0);
        // Not tokio's: the end of the program would wait for a disk that hangs.
        let thread = std::thread::Builder::new().name("record".to_owned()).stack_size(STACK_BYTES);
        thread
            .spawn(move || {
                writer.run(&waiting);
                let _ = done.send(());
            })
            .map_err(|source| StartError::System { what: "start a thread for --record", source })?;
        Ok(Arc::new(Self {
            queue: Mutex::new(Some(queue)),
            written: Mutex::new(Some(written)),
            state,
            memory,
            omitted: Mutex::default(),
        }))
    }

    /// Whether calls are still recorded.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        !self.state.is_full.load(Ordering::Relaxed)
    }

    /// Takes memory for a case. `None` if there is none.
    pub fn reserve(self: &Arc<Self>, case: Case) -> Option<Reserved> {
        let bytes = case.bytes().saturating_mul(COPIES);
        let mut share = self.memory.empty();
        let held = self.state.bytes.load(Ordering::Relaxed);
        let is_too_much = held.saturating_add(bytes) > self.memory.limit() / BUDGET_PART;
        if is_too_much || !share.try_grow(bytes) {
            self.omit("it does not fit into the memory budget beside other calls and cases");
            return None;
        }
        self.state.bytes.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Some(Waiting { case, share, state: self.state.clone() });
        Some(Reserved { waiting, recorder: self.clone() })
    }

    /// Waits until the cases that were queued are written.
    pub async fn finish(&self) {
        drop(lock(&self.queue).take());
        let written = lock(&self.written).take();
        if let Some(written) = written
            && timeout(FINISH_TIMEOUT, written).await.is_err()
        {
            tracing::warn!("the last recorded cases are lost: the disk did not take them in time");
        }
    }

    fn omit(&self, why: &str) {
        if let Some(suppressed) = lock(&self.omitted).count() {
            tracing::warn!(suppressed, "a call was not recorded: {why}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says at the start that documents are written, and where.
fn warn(config: &Config, held: Held, of_plugin: bool) {
    let directory = config.directory.display();
    let (max_cases, max_bytes) = (config.max_cases, config.max_bytes);
    let secrets = if config.with_secrets {
        "WITH ALL SECRETS in them (--record-secrets): passwords, keys, cloud-init user data"
    } else {
        "with known kinds of secrets replaced"
    };
    let vms = if of_plugin { ", of every VM that this plugin is called for," } else { "" };
    tracing::warn!(
        %directory, held_cases = held.cases, held_bytes = held.bytes, max_cases, max_bytes,
        "RECORDING is on: the documents of each call{vms} are written to files in {directory}, \
         {secrets}; start without --record to stop"
    );
}

/// Writes cases, in a thread.
struct Writer {
    config: Config,
    directory: Directory,
    held: Held,
    /// The value of [`BINDING_VARIABLE`].
    binding: Option<String>,
    state: Arc<State>,
    /// The last case could not be written.
    is_failing: bool,
    /// Cases that are larger than all may be.
    too_large: Seldom,
}

impl Writer {
    fn run(&mut self, queue: &Receiver<Waiting>) {
        let mut unrecordable = Seldom::default();
        for waiting in queue {
            if self.state.is_full.load(Ordering::Relaxed) {
                continue;
            }
            match waiting.case.files(self.config.with_secrets, self.binding.as_deref()) {
                Ok(files) => self.write(&waiting.case.name(), &files),
                Err(why) => {
                    if let Some(suppressed) = unrecordable.count() {
                        tracing::warn!(suppressed, "a call was not recorded: {why}");
                    }
                }
            }
        }
    }

    fn write(&mut self, name: &str, files: &[directory::CaseFile]) {
        let bytes: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        self.directory.lock();
        let written = self.write_within_limits(name, files, bytes);
        self.directory.unlock();
        match written {
            Ok(()) => self.is_failing = false,
            Err(_) if self.is_failing => {}
            Err(error) => {
                self.is_failing = true;
                tracing::warn!(
                    directory = %self.config.directory.display(),
                    "calls are not recorded: cannot write there: {error}; this is logged once, \
                     until a case can be written"
                );
            }
        }
    }

    fn write_within_limits(
        &mut self,
        name: &str,
        files: &[directory::CaseFile],
        bytes: u64,
    ) -> std::io::Result<()> {
        // Others have added or removed something.
        if self.directory.cases()? != self.held.cases {
            self.held = self.directory.held()?;
        }
        // Others may be smaller.
        if bytes > self.config.max_bytes {
            if let Some(suppressed) = self.too_large.count() {
                tracing::warn!(
                    suppressed,
                    bytes,
                    max_bytes = self.config.max_bytes,
                    "a call was not recorded: its case has {bytes} bytes, which is more than \
                     --record-bytes"
                );
            }
        } else if self.check_limits(bytes) {
            self.directory.write(name, files)?;
            tracing::debug!(case = name, bytes, "recorded a call");
            self.held.cases += 1;
            self.held.bytes += bytes;
            self.check_limits(0);
        }
        Ok(())
    }

    /// Whether another case of this length may be written. If not, recording stops.
    fn check_limits(&self, bytes: u64) -> bool {
        let Held { cases, bytes: held } = self.held;
        let Config { max_cases, max_bytes, directory, .. } = &self.config;
        let limit = if cases >= *max_cases {
            "--record-limit"
        } else if held >= *max_bytes || held.saturating_add(bytes) > *max_bytes {
            "--record-bytes"
        } else {
            return true;
        };
        if !self.state.is_full.swap(true, Ordering::Relaxed) {
            let directory = directory.display();
            tracing::warn!(
                held_cases = cases,
                held_bytes = held,
                max_cases,
                max_bytes,
                "recording has stopped: {directory} is full ({limit}); take the cases away and \
                 restart to record others"
            );
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;

    use super::*;
    use crate::hook::{HookCall, HookReply};

    /// A recorder whose thread does nothing, and what would reach it.
    fn stalled(memory: &Memory) -> (Arc<Recorder>, Receiver<Waiting>) {
        let (queue, waiting) = sync_channel(MAX_WAITING);
        let recorder = Recorder {
            queue: Mutex::new(Some(queue)),
            written: Mutex::default(),
            state: Arc::default(),
            memory: memory.clone(),
            omitted: Mutex::default(),
        };
        (Arc::new(recorder), waiting)
    }

    /// A case with documents of this length.
    fn case(bytes: usize) -> Case {
        let vmi = Bytes::from_static(b"{}");
        let domain = Bytes::from(vec![b' '; bytes - vmi.len()]);
        let call = HookCall::on_define_domain(&vmi, "domain", domain).unwrap();
        let outcome = Outcome::Replied(HookReply::Unchanged);
        Case { call, outcome, time: SystemTime::now() }
    }

    #[tokio::test]
    async fn a_disk_that_stalls_costs_cases_and_no_calls() {
        let memory = Memory::new(1 << 20);
        let (recorder, waiting) = stalled(&memory);
        for _ in 0..MAX_WAITING + 10 {
            drop(recorder.reserve(case(100)).unwrap());
        }
        let queued: Vec<_> = waiting.try_iter().collect();
        assert_eq!(queued.len(), MAX_WAITING);
        // Only what waits is charged.
        assert_eq!(memory.held().get(), MAX_WAITING * 100 * COPIES);
        drop(queued);
        assert_eq!(memory.held().get(), 0);
        recorder.finish().await;
        drop(recorder.reserve(case(100)).unwrap());
        assert_eq!(waiting.iter().count(), 0, "the queue has not ended");
    }

    #[tokio::test]
    async fn a_case_is_queued_after_the_reply_and_takes_a_part_of_the_budget() {
        let memory = Memory::new(8000);
        let (recorder, waiting) = stalled(&memory);
        assert!(recorder.reserve(case(1001)).is_none(), "more than its part");
        let first = recorder.reserve(case(600)).unwrap();
        assert!(waiting.try_recv().is_err(), "the call has no reply yet");
        assert!(recorder.reserve(case(600)).is_none(), "more than its part in all");
        drop(first);
        assert_eq!(waiting.try_recv().unwrap().case.bytes(), 600);
        let calls = memory.take(6500).await;
        assert!(recorder.reserve(case(600)).is_none(), "calls hold the rest");
        drop(calls);
        assert!(recorder.reserve(case(600)).is_some());
    }
}
