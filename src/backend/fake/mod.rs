//! A child process that is played by a test: it reads and writes through in-memory pipes, and exits
//! when the test lets it. The tests pause the clock, so none of them takes real time.

mod child;
mod log;
mod spawner;
mod stderr;
mod worker;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

pub(super) use self::child::{Holder, StdinRecord};
pub(super) use self::log::Logged;
pub(super) use self::spawner::{Counts, FakeSpawner, Started};
pub(super) use self::worker::{FakeWorker, Request};
use super::config::Settings;
use super::process::CommandLine;
use crate::admission::{Load, Memory};
use crate::error::HookResult;
use crate::hook::{Checks, HookCall, HookName};

/// Less than Linux's pipes hold, so that little fills them.
pub(super) const PIPE_BYTES: usize = 4 * 1024;

/// Limit for each wait of a test. The paused clock reaches it at once if nothing else can happen.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) const KILL_GRACE: Duration = Duration::from_secs(2);

/// The domain that calls send.
pub(super) const DOMAIN: &str = "<domain>sent</domain>";

/// Puts a message into a frame.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&length[..], message].concat()
}

/// Waits for something that must happen.
pub(super) async fn soon<T>(happens: impl Future<Output = T>) -> T {
    timeout(LIMIT, happens).await.expect("this never happens")
}

/// Lets all other tasks run until each of them waits. The clock stands still.
pub(super) async fn settle() {
    // More turns than any chain of messages between the tasks of a test needs.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        min_workers: 0,
        max_workers: 4,
        idle_timeout: 300 * SECOND,
        queue: Load { calls: 256, bytes: 1 << 30 },
        max_requests: None,
        worker_memory: None,
        checks: Checks::WellFormed,
        start_timeout: 60 * SECOND,
        kill_grace: KILL_GRACE,
        memory: Memory::new(usize::MAX),
    }
}

pub(super) fn command() -> CommandLine {
    CommandLine::from_words(["fake-worker".into()]).unwrap()
}

/// A call that may be repeated.
pub(super) fn domain_call() -> HookCall {
    domain_call_with(DOMAIN.into())
}

pub(super) fn domain_call_with(domain: Bytes) -> HookCall {
    HookCall::on_define_domain(&Bytes::from_static(b"{}"), "domainXML", domain).unwrap()
}

/// A call that may not be repeated.
pub(super) fn node_call() -> HookCall {
    let hook = HookName::NODE_HOOKS[0].clone();
    HookCall::node_hook(hook, &Bytes::from_static(b"{}"), "node01".to_owned()).unwrap()
}

/// The domain that a call returned.
pub(super) fn domain(result: HookResult) -> String {
    let reply = result.unwrap_or_else(|failure| panic!("{failure}"));
    String::from_utf8(reply.or(DOMAIN.into()).to_vec()).unwrap()
}

/// The text of the failure that a call returned.
pub(super) fn failure(result: HookResult) -> String {
    result.map(|_| "a reply").expect_err("it should fail").to_string()
}
