//! Finds out whether a command is a worker or a program for each call: only a worker responds to
//! `initialize` with a frame.

use std::path::Path;
use std::time::Duration;

use sidecar_shim::backend::{Child, CommandLine, OutputEvent, stop_orphans};
use sidecar_shim::frame::FrameError;
use sidecar_shim::logging::least_hook_level;
use sidecar_shim::rpc::{self, Incoming};
use tokio::time::timeout;
use tracing::subscriber::NoSubscriber;

use crate::probe::{EXIT_TIMEOUT, Probe, encode};

/// Timeout for a worker's first frame. A slow interpreter with many imports takes a second.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) enum Detected {
    Worker,
    /// With the sign that it is not a worker.
    Program(String),
}

/// Starts the command as the shim starts a worker, without arguments, and sends `initialize`. When
/// this returns, none of its processes is left. An error says why the command cannot run.
pub(crate) async fn detect(command: &CommandLine) -> Result<Detected, String> {
    let level = least_hook_level();
    // A program complains that it has no arguments, which would look like a failure of the call.
    // The one thread has nothing else to log meanwhile.
    let _quiet = tracing::subscriber::set_default(NoSubscriber::new());
    let mut probe =
        Probe::start(command, true).map_err(|why| format!("{why}{}", advice_on_path(command)))?;
    probe.send(&encode(|send_buffer| rpc::send_initialize(send_buffer, 1, level)));
    let detected = timeout(FRAME_TIMEOUT, first_frame(&mut probe)).await;
    let detected = detected.unwrap_or_else(|_| {
        let (limit, unfinished) = (FRAME_TIMEOUT.as_secs(), probe.unfinished());
        Detected::Program(format!("it sent no frame within {limit} s{unfinished}"))
    });
    if let Detected::Worker = detected {
        probe.close_stdin();
        let _ = timeout(EXIT_TIMEOUT, probe.exit()).await;
    }
    probe.process.stop(EXIT_TIMEOUT).await;
    // Read to the end, or the rest would be logged later.
    probe.process.read_stderr_to_end().await;
    stop_orphans(Duration::ZERO).await;
    Ok(detected)
}

/// Returns the end of an error about a program that is a file here and was looked up in `$PATH`.
fn advice_on_path(command: &CommandLine) -> String {
    let words = shlex::split(&command.to_string()).unwrap_or_default();
    let name = words.first().filter(|name| !name.contains('/') && Path::new(name).is_file());
    name.map_or_else(String::new, |name| format!(": the file in this directory is ./{name}"))
}

/// Reads the output up to the first frame. Text before it is the worker's mistake, which the call
/// will show.
async fn first_frame(probe: &mut Probe) -> Detected {
    let other_output = || Detected::Program("it wrote something else to stdout".to_owned());
    let mut wrote_text = false;
    while let Some(event) = probe.next().await {
        match event {
            // The request is ours: the command echoes its input.
            OutputEvent::Message(Incoming::Request { .. }) => return other_output(),
            OutputEvent::Message(_) | OutputEvent::Malformed(_) => return Detected::Worker,
            OutputEvent::Stray(_) => wrote_text = true,
        }
    }
    if wrote_text || !matches!(probe.end(), FrameError::Ended) {
        return other_output();
    }
    Detected::Program(match timeout(EXIT_TIMEOUT, probe.exit()).await {
        Ok(exit) => format!("it {exit}"),
        Err(_) => "it closed its stdout".to_owned(),
    })
}
