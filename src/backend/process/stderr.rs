//! The stderr of a child: each line is logged, the last ones are kept for the text of an error.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;
use tokio::time::sleep;

use crate::hook::HookName;
use crate::text::{MAX_LINE_BYTES, clip, hook_line};

/// Number of lines after which the reader pauses, so that the log writer keeps up and drops no
/// lines of an ordinary hook. Meanwhile the hook's lines wait in the pipe.
const BURST_LINES: usize = 64;

/// Length of the pause: 32,000 lines per second are more than a log can be used for.
const BURST_PAUSE: Duration = Duration::from_millis(2);

/// Number of lines that are kept for the text of an error.
const KEPT_LINES: usize = 20;

/// Maximum number of bytes kept of each line. 20 such lines are five times as long as a gRPC status
/// message may be.
const KEPT_LINE_BYTES: usize = 1024;

/// The last lines of a child's stderr.
#[derive(Default)]
pub(super) struct Stderr {
    kept: Mutex<VecDeque<String>>,
    /// The call that new lines are attributed to.
    call: Mutex<(Option<HookName>, Option<u64>)>,
}

impl Stderr {
    pub(super) fn set_call(&self, hook: &HookName, id: Option<u64>) {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = (Some(hook.clone()), id);
    }

    fn keep(&self, line: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(clip(line, KEPT_LINE_BYTES).to_owned());
    }

    pub(super) fn forget(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }
}

/// Reads stderr until EOF, so that the child never blocks on it.
pub(super) async fn drain(mut pipe: ChildStderr, shared: Arc<Stderr>, pid: i32, worker: String) {
    let mut chunk = vec![0; MAX_LINE_BYTES];
    let mut line = Vec::new();
    let mut cut = 0;
    let mut burst: usize = 0;
    loop {
        let count = pipe.read(&mut chunk).await.unwrap_or(0);
        for &byte in &chunk[..count] {
            if byte == b'\n' {
                burst += 1;
                if burst.is_multiple_of(BURST_LINES) {
                    sleep(BURST_PAUSE).await;
                }
                report(&shared, pid, &worker, &mut line, &mut cut);
            } else if line.len() < MAX_LINE_BYTES {
                line.push(byte);
            } else {
                cut += 1;
            }
        }
        if count == 0 {
            break;
        }
    }
    if !line.is_empty() {
        report(&shared, pid, &worker, &mut line, &mut cut);
    }
}

fn report(shared: &Stderr, pid: i32, worker: &str, line: &mut Vec<u8>, cut: &mut usize) {
    let text = hook_line(line, *cut);
    let (hook, call) = shared.call.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let hook = hook.as_ref().map(HookName::as_str);
    tracing::info!(target: "hook", hook, worker, pid, call, "{text}");
    shared.keep(&text);
    line.clear();
    *cut = 0;
}
