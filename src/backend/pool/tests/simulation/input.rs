//! What a worker was sent, read from the bytes that the shim wrote to its stdin.

use super::*;

pub(super) struct Input(pub(super) StdinRecord);

/// A message, its attachments included. Its end may be missing.
struct Message<'a> {
    begins: usize,
    json: &'a [u8],
}

impl Input {
    /// Whether a call was written to it, whole or in part.
    pub(super) fn was_sent(&self, call: usize) -> bool {
        self.find(call, |_, _| ()).is_some()
    }

    /// Whether the worker has read a byte of the call.
    pub(super) fn has_begun(&self, call: usize) -> bool {
        self.find(call, |message, read| read > message.begins) == Some(true)
    }

    /// The number of the attempt, of a call that the worker has begun to read. 0 if that part of
    /// the message was not written.
    pub(super) fn attempt_of(&self, call: usize) -> Option<u64> {
        let attempt = |message: &Message<'_>, read| {
            let json = String::from_utf8_lossy(message.json);
            let (_, attempt) = json.rsplit_once("\"attempt\":").unwrap_or_default();
            let number = attempt.split(|digit: char| !digit.is_ascii_digit()).next();
            (read > message.begins).then(|| number.unwrap_or_default().parse().unwrap_or(0))
        };
        self.find(call, attempt).flatten()
    }

    /// Whether the worker has begun to read a message that broke off before it named its call.
    pub(super) fn has_nameless(&self) -> bool {
        self.0.with(|bytes, read| {
            let last = messages(bytes).last();
            last.is_some_and(|last| {
                let begin = &last.json[..last.json.len().min(100)];
                let is_whole = last.json.ends_with(b"}");
                read > last.begins && !is_whole && tokens(begin).next().is_none()
            })
        })
    }

    fn find<T>(&self, call: usize, look: impl FnOnce(&Message<'_>, usize) -> T) -> Option<T> {
        let token = token(call);
        self.0.with(|bytes, read| {
            let mut messages = messages(bytes);
            // The VMI, which holds the token, stands at the beginning.
            let found = messages.find(|message| {
                let begin = &message.json[..message.json.len().min(100)];
                begin.windows(token.len()).any(|window| window == token.as_bytes())
            });
            found.map(|message| look(&message, read))
        })
    }
}

fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (begins, json) = (at, frame(bytes, &mut at)?);
        if json.ends_with(b"\"attachments\":[\"domain\"]}") {
            frame(bytes, &mut at);
        }
        Some(Message { begins, json })
    })
}

/// Returns the frame at this position, or what is there of it.
fn frame<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = bytes.get(*at..).filter(|rest| !rest.is_empty())?;
    let Some(header) = rest.first_chunk() else {
        *at = bytes.len();
        return Some(rest);
    };
    let begin = *at + 4;
    *at = begin + u32::from_be_bytes(*header) as usize;
    Some(&bytes[begin..bytes.len().min(*at)])
}
