//! Why a worker does not respond: what an author sees is the same, a timeout, for a dozen mistakes.
//!
//! # Theory of operation
//! A worker that says nothing may still show its mistake if its input goes on. So after the timeout
//! it gets a little more time, then another message, then EOF; what it does at each of them names
//! the mistake. If it does not respond to `initialize`, new processes get it in the framings of
//! other protocols: a worker that understands one of them speaks that protocol.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::conformance;
use super::processes;
use super::verdict::NotPassed;
use super::worker::WorkerUnderTest;
use crate::probe::{Probe, encode};
use sidecar_shim::backend::{CommandLine, OutputEvent};
use sidecar_shim::frame::Stray;
use sidecar_shim::rpc::Incoming;

/// Time after which a worker that has written nothing is asked in other ways. Nearly all are ready
/// before that; one that is not goes on starting meanwhile.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// Time in which a worker shows what it does with more input, or at EOF.
const REACTION: Duration = Duration::from_secs(1);

/// Time for which output is read before it is looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What a worker may print before it responds: that is the fault of another check.
const PRINTED: [&str; 2] = ["look like text", "look like binary data"];

/// What an inherited stdin does, and the remedy.
pub(super) const GIVE_CHILDREN_NO_STDIN: &str =
    "a child process that inherits stdin reads the shim's messages: give it /dev/null as stdin";

impl WorkerUnderTest {
    /// Returns the clause about why request `id` got no response. The worker cannot be used after
    /// that.
    pub(super) async fn why_silent(&mut self, id: u64, sent: Instant) -> String {
        if let Some(child) = self.child_with_stdin() {
            return format!("; {child}: {GIVE_CHILDREN_NO_STDIN}");
        }
        let unread = self.unread();
        if unread > 0 {
            return format!("; {unread} bytes of its stdin are not read");
        }
        if !self.wrote_nothing() {
            return String::new();
        }
        let computed = self.computes();
        let is_late = self.responds(id, self.grace()).await == Some(true);
        if !is_late && computed && self.computes() {
            return "; it is still computing: does a loop never end, or take a time that grows with \
                    the square of the document?"
                .to_owned();
        }
        if is_late {
            let time = humantime::format_duration(rounded(sent.elapsed()));
            return format!(
                "; the response came after {time}: by then the caller has got an error"
            );
        }
        self.notify(conformance::send_unknown_notifications);
        match self.responds(id, REACTION).await {
            Some(true) => {
                return "; it responded when more input came: read exactly the length of a \
                        message, in bytes, from a stdin in binary mode"
                    .to_owned();
            }
            // It took the rest for the end of the message.
            Some(false) => {
                return "; it exited when more input came: the length of a message is in bytes, \
                        not in characters"
                    .to_owned();
            }
            None => {}
        }
        self.close_stdin().await;
        if self.responds(id, REACTION).await == Some(true) {
            return "; it responded when its stdin was closed: flush stdout after each message, \
                    and wait for no more input than one message"
                .to_owned();
        }
        "; it wrote 0 bytes to stdout: is stdout flushed?".to_owned()
    }

    /// Waits for a response this long. If it has not come, and the output ends with something in
    /// another framing, that is the fault: the rest will not come either.
    pub(super) async fn begun(&mut self, id: u64, limit: Duration) -> Result<(), NotPassed> {
        let until = Instant::now() + limit;
        while !self.has_response(id) && Instant::now() < until {
            self.read_for(POLL_INTERVAL, id).await?;
        }
        let what = self.unfinished();
        if self.has_response(id) || what.is_empty() || PRINTED.iter().any(|it| what.contains(it)) {
            return Ok(());
        }
        let time = humantime::format_duration(limit);
        let hint = if counts_itself(&what) {
            ": the length of a frame counts only the bytes behind it"
        } else {
            ""
        };
        let seen = format!("initialize (request {id}) got no response within {time}{what}{hint}");
        Err(self.fault(seen))
    }

    /// Reads for this time. Returns whether the request got its response; `None` if the worker went
    /// on without one.
    async fn responds(&mut self, id: u64, time: Duration) -> Option<bool> {
        match self.read_for(time, id).await {
            Ok(true) => Some(true),
            Ok(false) => None,
            // The output has ended, maybe behind the response.
            Err(_) => Some(self.has_response(id)),
        }
    }

    /// Returns the process that got the worker's stdin during a call, if there is one.
    pub(super) fn child_with_stdin(&self) -> Option<String> {
        let readers = processes::readers(self.stdin_inode()?);
        let before = self.readers_before()?;
        let child = readers.into_iter().find(|reader| !before.contains(&reader.name))?;
        Some(format!("its child process {} ({}) has its stdin", child.pid, child.name))
    }
}

/// Whether a frame misses as many bytes as its length has: "half a frame, 96 of 100 bytes".
fn counts_itself(unfinished: &str) -> bool {
    let frame =
        unfinished.split_once("half a frame, ").and_then(|(_, rest)| rest.split_once(" of "));
    let numbers = frame.and_then(|(have, rest)| {
        let want = rest.split(' ').next()?;
        Some((have.parse::<usize>().ok()?, want.parse::<usize>().ok()?))
    });
    numbers.is_some_and(|(have, want)| want == have + 4)
}

fn rounded(time: Duration) -> Duration {
    let step = 100;
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis / step * step)
}

/// A way to send `initialize` that is not the protocol's, or not the shim's.
#[derive(Debug, Clone, Copy)]
enum Dialect {
    LittleEndian,
    Line,
    ContentLength,
    /// A frame, and then EOF.
    AtEof,
}

/// Those with other framings come first: at EOF their workers may respond too.
const DIALECTS: [Dialect; 4] =
    [Dialect::LittleEndian, Dialect::Line, Dialect::ContentLength, Dialect::AtEof];

impl Dialect {
    fn encode(self) -> Bytes {
        let message = json!({
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {"protocolVersions": [1], "capabilities": {}},
        });
        let message = message.to_string();
        match self {
            Self::LittleEndian => {
                let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes();
                [&length[..], message.as_bytes()].concat().into()
            }
            Self::Line => format!("{message}\n").into(),
            Self::ContentLength => {
                format!("Content-Length: {}\r\n\r\n{message}", message.len()).into()
            }
            Self::AtEof => encode(|buffer| buffer.push_frame([Bytes::from(message)])),
        }
    }

    /// Returns what the author should do.
    fn advice(self) -> &'static str {
        match self {
            Self::LittleEndian => {
                "it responds if the length is in little-endian order: read and write it in \
                 big-endian order"
            }
            Self::Line => {
                "it responds to a line of JSON (newline-delimited JSON): read and write the length \
                 of each message before it, as 4 bytes in big-endian order, and no newline"
            }
            Self::ContentLength => {
                "it responds to a message with a `Content-Length` header (the framing of LSP): \
                 read and write the length as 4 bytes in big-endian order instead"
            }
            Self::AtEof => {
                "it responds when its stdin is closed: flush stdout after each message, and wait \
                 for no more input than one message"
            }
        }
    }

    /// Starts a worker, sends it `initialize` and EOF, and returns whether it responds.
    async fn is_understood(self, command: &CommandLine, limit: Duration) -> bool {
        let Ok(mut probe) = Probe::start(command, true) else { return false };
        probe.send(&self.encode());
        let responds = async {
            probe.flush().await;
            probe.close_stdin();
            while let Some(event) = probe.next().await {
                match event {
                    OutputEvent::Message(Incoming::Response { .. }) => return true,
                    OutputEvent::Stray(stray) if self.is_response(&stray) => return true,
                    _ => {}
                }
            }
            false
        };
        timeout(limit, responds).await.unwrap_or(false)
    }

    /// Whether stray output is a response in this framing, and not an echo of the request.
    fn is_response(self, stray: &Stray) -> bool {
        let beginning = String::from_utf8_lossy(stray.beginning());
        match self {
            // Only the length is stray: the rest looks like a frame.
            Self::LittleEndian => stray.looks_like().contains("little-endian"),
            Self::AtEof => false,
            Self::Line | Self::ContentLength => {
                beginning.contains("\"jsonrpc\"") && !beginning.contains("\"method\"")
            }
        }
    }
}

/// Returns what a worker responds to that does not respond to the shim, and what its author should
/// do. One that was not `silent` has responded before EOF.
pub(super) async fn dialect(
    command: &CommandLine,
    limit: Duration,
    silent: bool,
) -> Option<&'static str> {
    let [little, line, header, eof] = DIALECTS;
    let is_understood = |dialect: Dialect| dialect.is_understood(command, limit);
    let understood = tokio::join!(
        is_understood(little),
        is_understood(line),
        is_understood(header),
        is_understood(eof)
    );
    let understood = <[bool; 4]>::from(understood);
    let mut found = DIALECTS.into_iter().zip(understood).filter(|(_, understood)| *understood);
    let first = found.find(|(dialect, _)| silent || !matches!(dialect, Dialect::AtEof));
    first.map(|(dialect, _)| dialect.advice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_counts_itself_is_recognized() {
        assert!(counts_itself("; its stdout ends with half a frame, 96 of 100 bytes"));
        assert!(!counts_itself("; its stdout ends with half a frame, 90 of 100 bytes"));
        assert!(!counts_itself("; its stdout ends with 3 bytes in 1 line, which look like text"));
    }
}
