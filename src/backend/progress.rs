//! How far a call has come: what a caller's log line says of it afterwards, and of one that takes
//! long.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Shared by the call's caller and those who carry it out.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Attempts>);

/// The processes that a call was given to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Attempts {
    /// When it was first given to one. Until then it has waited.
    pub first: Option<Instant>,
    /// Number of the last attempt, from 1; 0 before the first.
    pub number: u32,
    /// The process of the last attempt.
    pub pid: Option<i32>,
}

impl Progress {
    #[must_use]
    pub fn attempts(&self) -> Attempts {
        *self.lock()
    }

    /// A process has got the call.
    pub(super) fn began(&self, pid: i32, number: u32) {
        let mut attempts = self.lock();
        attempts.first.get_or_insert_with(Instant::now);
        attempts.number = number;
        attempts.pid = Some(pid);
    }

    fn lock(&self) -> MutexGuard<'_, Attempts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
