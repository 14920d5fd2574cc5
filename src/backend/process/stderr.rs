//! Standard error of a child: each line is logged, the last ones are kept for an error's text.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;
use tokio::time::sleep;

use crate::hook::HookName;
use crate::text::clip;

/// A longer line of standard error is cut here. Under 16 KiB, so that the log's line, with its
/// own fields, stays below what container runtimes split.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// After so many lines the reader pauses for a moment, so that the log's writer keeps up and loses
/// none of an ordinary hook's. What a hook writes meanwhile waits in its pipe.
const BURST_LINES: usize = 64;

/// The pause. 64 lines in it are more than a log is good for.
const BURST_PAUSE: Duration = Duration::from_millis(2);

/// How many lines of standard error are kept for an error's text.
const KEPT_LINES: usize = 20;

/// How much of each line is kept; 20 of them are five times what a gRPC status message holds.
const KEPT_LINE_BYTES: usize = 1024;

/// What a child's standard error has said.
#[derive(Default)]
pub(super) struct Stderr {
    kept: Mutex<VecDeque<String>>,
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

/// Reads standard error to its end, whatever stands in it, so that a child never blocks on it.
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
    let mut text = String::from_utf8_lossy(line).trim_end().to_owned();
    if *cut > 0 {
        text = format!("{text} [{cut} more bytes]");
    }
    let (hook, call) = shared.call.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let hook = hook.as_ref().map(HookName::as_str);
    tracing::info!(target: "hook", hook, worker, pid, call, "{text}");
    shared.keep(&text);
    line.clear();
    *cut = 0;
}
