//! Checks of frames: split, joined and broken ones.

use std::time::Duration;

use super::conformance;
use super::session::Session;
use super::verdict::{NotPassed, Verdict};
use super::worker::WorkerUnderTest;
use crate::probe::encode;

/// Timeout for a worker to read a piece before the next one is sent. Most read it at once.
const PIECE_TIMEOUT: Duration = Duration::from_millis(250);

/// The same for a worker that has waited for more than one piece before.
const NEXT_PIECE_TIMEOUT: Duration = Duration::from_millis(2);

/// Single bytes at both ends of a message. The first of them are its length.
const SINGLE_BYTES: usize = 16;

/// Lengths of the pieces between them. They have no common factor, so pieces end anywhere.
const PIECES: [usize; 6] = [1, 2, 5, 97, 1021, 4099];

/// Time in which a worker shows a response that comes too early.
const WATCH_TIME: Duration = Duration::from_millis(250);

/// Lengths that no frame has.
const BAD_LENGTHS: [[u8; 4]; 3] = [[0, 0, 0, 0], [1, 0, 0, 0], [0xff; 4]];

/// Input that must not end there.
const HALF_FRAMES: [(&str, &[u8]); 2] =
    [("EOF in the length of a frame", &[0, 0]), ("EOF inside a frame", b"\0\0\0\x09{\"a\"")];

/// Messages that are not a JSON object in UTF-8.
const BAD_MESSAGES: [(&str, &[u8]); 5] = [
    (
        "two JSON objects in one frame",
        b"{\"jsonrpc\":\"2.0\",\"method\":\"later\"}{\"jsonrpc\":\"2.0\",\"method\":\"later\"}",
    ),
    ("half a JSON object", b"{\"jsonrpc\":\"2.0\",\"id\":7,"),
    ("a message that is `[]`", b"[]"),
    ("a message that is not JSON", b"not JSON"),
    (
        "a message that is not UTF-8",
        b"{\"jsonrpc\":\"2.0\",\"method\":\"later\",\"params\":\"\xff\"}",
    ),
];

pub(super) async fn torn_writes(session: &mut Session) -> Verdict {
    let call = session.plain_call()?;
    let mut worker = session.worker().await?;
    let (id, bytes) = worker.call_bytes(&call)?;
    let mut limit = PIECE_TIMEOUT;
    for piece in pieces(&bytes) {
        if !worker.send_piece(piece, limit).await {
            limit = NEXT_PIECE_TIMEOUT;
        }
    }
    worker.reply(&call, id).await?;
    session.release(worker).await
}

/// Splits a message into single bytes at both ends, and pieces of odd lengths between.
fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let (head, rest) = bytes.split_at(bytes.len().min(SINGLE_BYTES));
    let (mut middle, tail) = rest.split_at(rest.len().saturating_sub(SINGLE_BYTES));
    let mut pieces: Vec<_> = head.chunks(1).collect();
    for length in PIECES.into_iter().cycle() {
        if middle.is_empty() {
            break;
        }
        let (piece, rest) = middle.split_at(length.min(middle.len()));
        pieces.push(piece);
        middle = rest;
    }
    pieces.extend(tail.chunks(1));
    pieces
}

pub(super) async fn joined_writes(session: &mut Session) -> Verdict {
    session.require("unknown-notification")?;
    let call = session.plain_call()?;
    let mut worker = session.worker().await?;
    let notifications = encode(conformance::send_unknown_notifications);
    let (id, bytes) = worker.call_bytes(&call)?;
    worker.send(&[notifications, bytes].concat());
    worker.reply(&call, id).await?;
    session.release(worker).await
}

pub(super) async fn whole_call(session: &mut Session) -> Verdict {
    let call = session.plain_call()?;
    let mut worker = session.worker().await?;
    let (id, bytes) = worker.call_bytes(&call)?;
    let (most, last) = bytes.split_at(bytes.len() - 1);
    worker.send_piece(most, session.timeouts.response).await;
    if worker.read_for(WATCH_TIME, id).await? {
        let seen = format!("it responded to request {id} before the last byte was sent");
        return Err(worker.fault(seen));
    }
    worker.send(last);
    worker.reply(&call, id).await?;
    session.release(worker).await
}

pub(super) async fn bad_length(session: &mut Session) -> Verdict {
    for header in BAD_LENGTHS {
        let what = format!("a frame of length {}", u32::from_be_bytes(header));
        expect_failure(session.new_worker().await?, &header, false, &what).await?;
    }
    Ok(None)
}

pub(super) async fn half_frame(session: &mut Session) -> Verdict {
    for (what, bytes) in HALF_FRAMES {
        expect_failure(session.new_worker().await?, bytes, true, what).await?;
    }
    if session.declared()?.attachments
        && let Ok(call) = session.plain_call()
    {
        let mut worker = session.new_worker().await?;
        let (_, bytes) = worker.call_bytes(&call)?;
        let message = first_frame(&bytes);
        if message.len() < bytes.len() {
            expect_failure(worker, message, true, "EOF before an attachment").await?;
        }
    }
    Ok(None)
}

/// Returns the first of several frames, with its length.
fn first_frame(bytes: &[u8]) -> &[u8] {
    let length = bytes.first_chunk().map_or(0, |header| u32::from_be_bytes(*header));
    let whole = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(4);
    bytes.get(..whole).unwrap_or(bytes)
}

pub(super) async fn bad_json(session: &mut Session) -> Verdict {
    for (what, message) in BAD_MESSAGES {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
        let bytes = [&length[..], message].concat();
        expect_failure(session.new_worker().await?, &bytes, false, what).await?;
    }
    Ok(None)
}

/// Sends input that cannot be read. The worker must report it and exit non-zero.
async fn expect_failure(
    mut worker: WorkerUnderTest,
    bytes: &[u8],
    then_close: bool,
    what: &str,
) -> Result<(), NotPassed> {
    worker.send(bytes);
    if then_close {
        worker.close_stdin().await;
    }
    let exit = worker.exit_after(what).await?;
    let stderr = worker.stderr_at_end().await;
    let seen = match exit.code() {
        Some(0) => format!("after {what} it exited with status 0"),
        Some(_) if stderr.is_empty() => format!("after {what} it wrote nothing to stderr"),
        Some(_) => return Ok(()),
        None => format!("after {what} it {exit}"),
    };
    Err(worker.fault(seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_message() {
        for length in [0, 1, 15, 16, 17, 31, 32, 33, 5000, 20_000] {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let pieces = pieces(&bytes);
            assert_eq!(pieces.concat(), bytes);
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
            let edges =
                pieces.iter().take(SINGLE_BYTES).chain(pieces.iter().rev().take(SINGLE_BYTES));
            assert!(length < 32 || edges.into_iter().all(|piece| piece.len() == 1));
        }
    }
}
