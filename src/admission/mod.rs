//! Admission: what the shim may hold at a time.
//!
//! [`Memory`] is the budget of bytes for all that connections and calls hold: it starts with the
//! first header of a request, and ends when the client has read its response. A [`Budget`] limits
//! the calls that wait for a process, and their documents' bytes: it hands out [`Permit`]s. Each
//! counts one call and its bytes until it is dropped, so a call that fails, times out or loses its
//! caller is never counted for longer than it exists.

mod memory;
mod watched;

pub use memory::{Memory, PATIENCE, Reclaimable, Share, WaitsFor};
pub use watched::Watched;

/// An amount of calls: what a budget allows, or what is held of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    pub calls: usize,
    /// Bytes of the calls' documents.
    pub bytes: usize,
}

/// Why a call was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many calls as allowed are held.
    Calls { limit: usize },
    /// The documents would be too large in all.
    Bytes {
        /// Bytes that would be held with this call.
        sum: usize,
        limit: usize,
    },
}

/// Counts calls and bytes against a limit. Clones share the count.
#[derive(Debug, Clone)]
pub struct Budget {
    limit: Load,
    held: Watched<Load>,
}

impl Budget {
    /// Allows no more than `limit` at a time.
    #[must_use]
    pub fn new(limit: Load) -> Self {
        Self { limit, held: Watched::default() }
    }

    /// Counts calls, and refuses none.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(Load { calls: usize::MAX, bytes: usize::MAX })
    }

    /// Admits one more call, or refuses it. The limit holds for calls beyond the first `exempt`
    /// ones. If there is only one, it is admitted whatever its size.
    pub fn admit(&self, bytes: usize, exempt: usize) -> Result<Permit, Refused> {
        // There is one thread, so nothing changes between this look and the count.
        let Load { calls, bytes: held } = self.held.get();
        let (calls, sum) = ((calls + 1).saturating_sub(exempt), held.saturating_add(bytes));
        if calls > self.limit.calls {
            Err(Refused::Calls { limit: self.limit.calls })
        } else if calls > 1 && sum > self.limit.bytes {
            Err(Refused::Bytes { sum, limit: self.limit.bytes })
        } else {
            Ok(self.count(bytes))
        }
    }

    /// Counts a call without a limit: one that was admitted before, or one that only has to be
    /// seen.
    #[must_use]
    pub fn count(&self, bytes: usize) -> Permit {
        self.held.modify(|held| {
            held.calls += 1;
            held.bytes += bytes;
        });
        Permit { bytes, held: self.held.clone() }
    }

    /// Returns what is held.
    #[must_use]
    pub fn held(&self) -> &Watched<Load> {
        &self.held
    }
}

/// One admitted call. Dropping it gives its share back.
#[derive(Debug)]
pub struct Permit {
    bytes: usize,
    held: Watched<Load>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.held.modify(|held| {
            held.calls -= 1;
            held.bytes -= self.bytes;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(calls: usize, bytes: usize) -> Budget {
        Budget::new(Load { calls, bytes })
    }

    #[test]
    fn a_dropped_permit_makes_space_for_the_next_call() {
        let budget = budget(2, 100);
        let first = budget.admit(10, 0).unwrap();
        let _second = budget.admit(10, 0).unwrap();
        assert_eq!(budget.admit(10, 0).unwrap_err(), Refused::Calls { limit: 2 });
        assert_eq!(budget.held().get(), Load { calls: 2, bytes: 20 });
        drop(first);
        assert_eq!(budget.held().get(), Load { calls: 1, bytes: 10 });
        assert!(budget.admit(10, 0).is_ok());
    }

    #[test]
    fn one_call_may_be_larger_than_the_limit_and_no_other_beside_it() {
        let budget = budget(9, 100);
        let large = budget.admit(1000, 0).unwrap();
        assert_eq!(budget.admit(1, 0).unwrap_err(), Refused::Bytes { sum: 1001, limit: 100 });
        drop(large);
        let _small = budget.admit(60, 0).unwrap();
        assert_eq!(budget.admit(60, 0).unwrap_err(), Refused::Bytes { sum: 120, limit: 100 });
        assert!(budget.admit(40, 0).is_ok(), "exactly the limit");
    }

    #[test]
    fn a_budget_of_nothing_refuses_every_call_but_the_exempt_ones() {
        let budget = budget(0, 0);
        assert_eq!(budget.admit(1, 0).unwrap_err(), Refused::Calls { limit: 0 });
        let _taken = budget.admit(1, 1).unwrap();
        assert_eq!(budget.admit(1, 1).unwrap_err(), Refused::Calls { limit: 0 });
        assert!(budget.admit(1, 2).is_ok());
    }

    #[test]
    fn bytes_of_exempt_calls_count_once_two_calls_have_to_wait() {
        let budget = budget(9, 100);
        let _served = budget.admit(80, 2).unwrap();
        let _served = budget.admit(80, 2).unwrap();
        let _waiting = budget.admit(80, 2).unwrap();
        assert_eq!(budget.admit(1, 2).unwrap_err(), Refused::Bytes { sum: 241, limit: 100 });
    }

    #[test]
    fn a_call_that_returns_is_counted_without_a_limit() {
        let budget = budget(1, 10);
        let _first = budget.admit(10, 0).unwrap();
        let _returned = budget.count(10);
        assert_eq!(budget.held().get(), Load { calls: 2, bytes: 20 });
    }

    #[tokio::test]
    async fn a_watcher_sees_the_last_permit_go() {
        let budget = Budget::unlimited();
        let held = budget.held().clone();
        let permit = budget.admit(usize::MAX, 0).unwrap();
        drop(budget);
        assert_eq!(held.get(), Load { calls: 1, bytes: usize::MAX });
        let idle = tokio::spawn(async move { held.wait_for(|held| held.calls == 0).await });
        tokio::task::yield_now().await;
        drop(permit);
        idle.await.unwrap();
    }
}
