//! Plays a caller, as the services call the pool: with a share of the budget of bytes, from the
//! first byte of its request to the last one of its response that was read.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::{timeout, timeout_at};

use super::*;
use crate::admission::WaitsFor;

/// Bytes of a small call: more than its documents have.
const SMALL: usize = 1024;

pub(super) struct Caller {
    pub(super) history: Arc<History>,
    pub(super) pool: Arc<Pool>,
    pub(super) memory: Memory,
    pub(super) dice: Dice,
}

impl Caller {
    /// Makes all its calls.
    pub(super) async fn play(mut self) {
        let plan = &self.history.plan;
        let (calls, pause) = (plan.calls_of_a_caller, plan.pause);
        for _ in 0..calls {
            sleep(self.dice.millis(pause)).await;
            for _ in 0..self.dice.roll(4) {
                tokio::task::yield_now().await;
            }
            let time = if self.happens(Fault::ShortDeadlines) {
                self.dice.millis(60)
            } else {
                SECOND + self.dice.millis(1000)
            };
            self.call(time).await;
        }
    }

    fn happens(&mut self, fault: Fault) -> bool {
        self.history.happens(fault, &mut self.dice)
    }

    /// Makes a call. Returns what came back, unless the caller left.
    pub(super) async fn call(&mut self, time: Duration) -> Option<HookResult> {
        let node = self.dice.one_in(3);
        let number = self.history.new_call(node);
        let large = self.happens(Fault::LargeDocuments);
        let length = if large { self.dice.roll(3 * PIPE_BYTES) } else { 10 };
        let vmi = Bytes::from(format!(r#"{{"token":"{}"}}"#, token(number)));
        let call = if node {
            HookCall::node_hook(HookName::NODE_HOOKS[0].clone(), &vmi, "node01".to_owned())
        } else {
            let domain = format!("<domain>{}{}</domain>", token(number), "x".repeat(length));
            HookCall::on_define_domain(&vmi, "domainXML", domain.into())
        };
        let (start, call) = (Instant::now(), call.unwrap());
        let leaves = if self.happens(Fault::CallersLeave) { self.dice.millis(100) } else { LONG };
        let bytes = (2 * call.bytes() + SMALL).min(self.memory.limit());
        let share = timeout_at(start + time.min(leaves), self.memory.take(bytes)).await;
        self.check_limits();
        let Ok(share) = share else {
            self.history.event(|| format!("call {number}: no memory"));
            self.history.reached("no memory");
            return None;
        };
        self.history.event(|| format!("call {number} begins, {time:?}"));
        let result = timeout(leaves, self.pool.call(call, start + time, Arc::default())).await;
        self.check_limits();
        let Ok(result) = result else {
            self.history.event(|| format!("call {number}: its caller leaves"));
            self.history.reached("caller left");
            return None;
        };
        self.history.judge(number, &result, start.elapsed(), time);
        if self.happens(Fault::SlowPeers) {
            let unread = self.memory.reclaimable(bytes, WaitsFor::Peer);
            let _ = timeout(self.dice.millis(1000), unread.reclaimed()).await;
        }
        drop(share);
        Some(result)
    }

    fn check_limits(&self) {
        let plan = &self.history.plan;
        assert!(self.memory.held().get() <= self.memory.limit(), "more than the budget of bytes");
        // What a worker takes soon does not count, nor what one could not be sent.
        let exempt = 2 * plan.settings.max_workers * plan.concurrency;
        let waiting = self.pool.waiting.get().calls;
        assert!(waiting <= plan.settings.queue.calls.saturating_add(exempt), "{waiting} wait");
    }

    /// All faults have ended: calls have to succeed, as many at once as there are slots.
    pub(super) async fn call_in_peace(&self) {
        self.history.peace.store(true, Relaxed);
        // The longest back-off, and time for the start after it.
        sleep(40 * SECOND).await;
        let plan = &self.history.plan;
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..plan.settings.max_workers * plan.concurrency {
            let mut caller = Self {
                history: self.history.clone(),
                pool: self.pool.clone(),
                memory: self.memory.clone(),
                dice: Dice::new(number as u64, 3),
            };
            calls.spawn(async move { caller.call(30 * SECOND).await });
        }
        self.history.reached("peace");
        while let Some(result) = calls.join_next().await {
            match result {
                Ok(Some(Ok(_))) => {}
                Ok(other) => panic!("after all faults have ended: {other:?}"),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
    }
}
