//! A value that changes with each call, and for whose changes a task seldom waits.
//!
//! tokio's `watch` wakes its receivers through nine locks, whether or not one waits. A call changes
//! the counts of what is held nine times, which made a twentieth of its CPU time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A value that many tasks may read and wait for. Clones share it.
pub struct Watched<T>(Arc<Shared<T>>);

#[derive(Default)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

#[derive(Default)]
struct State<T> {
    value: T,
    /// Number of changes so far.
    changes: u64,
    /// Number of tasks that wait.
    waiting: usize,
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Default> Default for Watched<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({:?})", self.get())
    }
}

impl<T: Copy> Watched<T> {
    #[must_use]
    pub fn get(&self) -> T {
        self.lock().value
    }

    /// Returns the number of changes so far.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    pub(super) fn modify(&self, change: impl FnOnce(&mut T)) {
        let mut state = self.lock();
        change(&mut state.value);
        state.changes += 1;
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.0.changed.notify_waiters();
        }
    }

    /// Waits until there are more than `changes` changes.
    pub async fn changed(&self, changes: u64) {
        self.wait(|state| state.changes > changes).await;
    }

    /// Waits until the value is such a one.
    pub async fn wait_for(&self, is_wanted: impl Fn(T) -> bool) {
        self.wait(|state| is_wanted(state.value)).await;
    }

    async fn wait(&self, is_over: impl Fn(&State<T>) -> bool) {
        let waiter = Waiter::new(self);
        loop {
            // It counts changes from here on, so none is missed after the look.
            let notified = self.0.changed.notified();
            if is_over(&waiter.0.lock()) {
                return;
            }
            notified.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that waits, until it is dropped.
struct Waiter<'a, T: Copy>(&'a Watched<T>);

impl<'a, T: Copy> Waiter<'a, T> {
    fn new(watched: &'a Watched<T>) -> Self {
        watched.lock().waiting += 1;
        Self(watched)
    }
}

impl<T: Copy> Drop for Waiter<'_, T> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::{future::join_all, poll};

    use super::*;

    #[tokio::test]
    async fn each_waiter_hears_of_the_change_that_it_waits_for() {
        let watched = Watched::<usize>::default();
        let waiting: Vec<_> =
            (1..4).map(|wanted| watched.wait_for(move |is| is == wanted)).collect();
        let mut all = Box::pin(join_all(waiting));
        for value in [3, 2] {
            watched.modify(|is| *is = value);
            assert_eq!(poll!(&mut all).map(drop), Poll::Pending);
        }
        watched.modify(|is| *is = 1);
        all.await;
        assert_eq!((watched.get(), watched.changes()), (1, 3));
        watched.wait_for(|is| is == 1).await;
    }

    #[tokio::test]
    async fn changes_are_counted_while_none_waits() {
        let watched = Watched::<usize>::default();
        let before = watched.changes();
        watched.modify(|is| *is += 1);
        watched.changed(before).await;
        let now = watched.changes();
        let mut next = Box::pin(watched.changed(now));
        assert_eq!(poll!(&mut next), Poll::Pending);
        watched.modify(|_| ());
        next.await;
    }

    #[tokio::test]
    async fn a_waiter_that_left_is_not_notified() {
        let watched = Watched::<usize>::default();
        let mut left = Box::pin(watched.wait_for(|_| false));
        assert_eq!(poll!(&mut left), Poll::Pending);
        assert_eq!(watched.lock().waiting, 1);
        drop(left);
        assert_eq!(watched.lock().waiting, 0);
    }
}
