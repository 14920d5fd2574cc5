//! The log of a server, read as a container runtime reads it: from a pipe, continuously.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Lines that are kept for when the server fails.
const KEPT_LINES: usize = 20;

/// Time to read the last lines of a server that has exited.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What a server writes to its stderr.
pub struct Log {
    kept: Arc<Mutex<VecDeque<String>>>,
    reader: JoinHandle<()>,
}

impl Log {
    /// Reads until EOF.
    pub fn read(stderr: ChildStderr) -> Self {
        let kept = Arc::<Mutex<VecDeque<String>>>::default();
        let shared = kept.clone();
        let reader = thread::spawn(move || {
            let mut lines = BufReader::with_capacity(64 * 1024, stderr).split(b'\n');
            while let Some(Ok(line)) = lines.next() {
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self { kept, reader }
    }

    /// The last lines of a server that has exited.
    pub fn last_words(&self) -> String {
        let ended = Instant::now();
        while !self.reader.is_finished() && ended.elapsed() < DRAIN_TIMEOUT {
            thread::sleep(Duration::from_millis(1));
        }
        self.last_lines()
    }

    /// The last lines so far.
    pub fn last_lines(&self) -> String {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.make_contiguous().join("\n")
    }
}
