//! Finds out whether a command is a worker or a program that is started for each call: a worker answers
//! `initialize` with a frame.

use std::fmt;
use std::time::Duration;

use bytes::Buf;
use sidecar_shim::backend::{CommandLine, Exit, OutputEvent, children_are_reaped};
use sidecar_shim::frame::{FrameError, Outbox};
use sidecar_shim::rpc::{self, Incoming};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::subscriber::NoSubscriber;

use crate::probe::Probe;

/// Timeout for a worker's first frame. A slow interpreter with many imports takes a second.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for the exit of a command that was asked to. After it the command is killed.
const EXIT_TIMEOUT: Duration = Duration::from_millis(500);

/// What a command turned out to be, and by which sign.
pub(crate) enum Detected {
    Worker,
    Program(Sign),
}

/// Why a command counts as a program.
pub(crate) enum Sign {
    Exited(Exit),
    ClosedStdout,
    OtherOutput,
    Silent,
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(exit) => write!(f, "it {exit}"),
            Self::ClosedStdout => f.write_str("it closed its stdout"),
            Self::OtherOutput => f.write_str("it wrote something else"),
            Self::Silent => write!(f, "no answer within {} s", FRAME_TIMEOUT.as_secs()),
        }
    }
}

/// Starts the command as the shim starts a worker, without arguments, and sends `initialize`. Its process
/// is gone when this returns. An error says why the command cannot be run.
pub(crate) async fn detect(command: &CommandLine) -> Result<Detected, String> {
    // A program complains that it has no arguments, which would look like a failure of the call. The one
    // thread has nothing else to log meanwhile.
    let _quiet = tracing::subscriber::set_default(NoSubscriber::new());
    let mut probe = Probe::start(command, true)?;
    let mut initialize = Outbox::default();
    rpc::send_initialize(&mut initialize, 1);
    probe.send(&initialize.copy_to_bytes(initialize.remaining()));
    let detected = first_frame(&mut probe).await;
    match detected {
        Detected::Worker => probe.close(),
        Detected::Program(_) => probe.terminate(),
    }
    if timeout(EXIT_TIMEOUT, probe.ended()).await.is_ok() {
        // So that nothing of it is logged later.
        probe.stderr_at_end().await;
    }
    drop(probe);
    children_are_reaped().await;
    Ok(detected)
}

/// Reads the output up to the first frame. Text in front of it is the worker's mistake, which the call
/// will show.
async fn first_frame(probe: &mut Probe) -> Detected {
    let until = Instant::now() + FRAME_TIMEOUT;
    let mut wrote_text = false;
    let end = loop {
        match timeout_at(until, probe.next()).await {
            // A request is our own: the command echoes its input.
            Ok(Ok(OutputEvent::Message(Incoming::Request { .. }))) => {
                return Detected::Program(Sign::OtherOutput);
            }
            Ok(Ok(OutputEvent::Message(_) | OutputEvent::Malformed(_))) => return Detected::Worker,
            Ok(Ok(OutputEvent::Stray(_))) => wrote_text = true,
            Ok(Err(end)) => break Some(matches!(end, FrameError::Ended)),
            Err(_) => break None,
        }
    };
    let exit = match end {
        Some(_) => timeout(EXIT_TIMEOUT, probe.ended()).await.ok(),
        None => None,
    };
    Detected::Program(match (end, exit) {
        _ if wrote_text => Sign::OtherOutput,
        (Some(false), _) => Sign::OtherOutput,
        (_, Some(exit)) => Sign::Exited(exit),
        (Some(true), None) => Sign::ClosedStdout,
        (None, None) => Sign::Silent,
    })
}
