//! The frame codec: bytes in, frames out. It does no I/O and knows nothing of JSON.
//!
//! A frame is an unsigned 32-bit big-endian length and that many bytes. A length is below 2^24, so
//! the first byte of every frame is `0x00`, with which no text begins. So [`Stray`] output, which
//! a hook printed by mistake, is recognized and skipped.

mod stray;

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

use self::stray::BYTES_BEHIND;
pub use self::stray::Stray;

/// Size of a frame's header: the length of what follows.
const HEADER_BYTES: usize = 4;

/// Maximum length of a frame (16 MiB − 1): the first byte of its header is zero.
pub const MAX_FRAME_BYTES: usize = 0x00ff_ffff;

/// Maximum length of stray output that is skipped. It allows a banner or a few debugging prints,
/// and stops a worker that prints documents early.
pub const MAX_STRAY_BYTES: usize = 64 * 1024;

/// Maximum length of a frame whose read buffer is kept, so that one large document does not take
/// memory for the rest of the worker's life.
const KEPT_BUFFER_BYTES: usize = 64 * 1024;

/// The next part of a worker's output.
#[derive(Clone, PartialEq, Eq)]
pub enum Item {
    /// A whole frame, without its header.
    Frame(Bytes),
    /// Bytes between two frames.
    Stray(Stray),
}

/// Shows a length only: a frame may contain a document.
impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(frame) => write!(f, "Frame({} bytes)", frame.len()),
            Self::Stray(stray) => stray.fmt(f),
        }
    }
}

/// Why a worker's output cannot be read further. The stream cannot be resynchronized after any of
/// these.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of length 0 (header 00 00 00 00): a frame has at least one byte")]
    Empty,
    /// More stray output than [`MAX_STRAY_BYTES`].
    #[error(
        "more than {MAX_STRAY_BYTES} bytes of stray output, which look like {}: {}",
        .0.looks_like(),
        .0.advice()
    )]
    TooMuchStray(Stray),
    #[error("its output ended inside a frame: {have} of {want} bytes")]
    Torn {
        /// Bytes that arrived, header included.
        have: usize,
        /// Bytes that the frame should have, header included.
        want: usize,
    },
    #[error("its output ended before an attachment that it had announced")]
    MissingAttachment,
    /// The output ended between two messages.
    #[error("it closed its stdout")]
    Ended,
    #[error(
        "a frame of {bytes} bytes, which does not fit into the memory budget of {budget} bytes \
         (--memory-budget)"
    )]
    OverBudget { bytes: usize, budget: usize },
    #[error("its output could not be read: {0}")]
    Io(#[from] std::io::Error),
}

/// Finds frames in a stream of bytes, wherever it was split.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    run: Stray,
    skipped: usize,
}

impl FrameDecoder {
    /// Returns the length, with its header, of a frame of which only the beginning has come.
    #[must_use]
    pub fn announced(&self, src: &BytesMut) -> Option<usize> {
        let header = src.first_chunk::<HEADER_BYTES>().filter(|header| header[0] == 0)?;
        Some(HEADER_BYTES + u32::from_be_bytes(*header) as usize)
    }

    /// Resets the count of stray bytes: the limit applies to each call.
    pub fn reset_stray_count(&mut self) {
        self.skipped = 0;
    }

    /// Returns the stray bytes since the last frame that no item contains yet.
    #[must_use]
    pub fn run(&self) -> &Stray {
        &self.run
    }

    /// Describes the beginning of a frame in `src`, if the rest has not arrived.
    #[must_use]
    pub fn half_frame(&self, src: &[u8]) -> Option<String> {
        let want = wanted(src);
        let is_half = !src.is_empty() && want.is_none_or(|want| src.len() < want);
        is_half.then(|| stray::half_frame(src, want))
    }

    /// Ends the current run, with what stands `behind` it.
    fn end_run(&mut self, behind: &[u8]) -> Item {
        let mut run = std::mem::take(&mut self.run);
        run.end(behind);
        Item::Stray(run)
    }

    /// Moves stray bytes at the front of `src` into the current run.
    fn skip_stray(&mut self, src: &mut BytesMut) -> Result<(), FrameError> {
        let until_frame = src.iter().position(|&byte| byte == 0).unwrap_or(src.len());
        if until_frame == 0 {
            return Ok(());
        }
        // Bytes beyond the limit are not counted, so that the error does not depend on how many of
        // them have arrived.
        let counted = until_frame.min(MAX_STRAY_BYTES + 1 - self.skipped);
        self.run.add(&src[..counted]);
        self.skipped += counted;
        src.advance(until_frame);
        if self.skipped > MAX_STRAY_BYTES {
            return Err(FrameError::TooMuchStray(std::mem::take(&mut self.run)));
        }
        Ok(())
    }
}

impl Decoder for FrameDecoder {
    type Item = Item;
    type Error = FrameError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Item>, FrameError> {
        self.skip_stray(src)?;
        if src.is_empty() {
            return Ok(None);
        }
        if !self.run.is_empty() {
            // What stands behind the run helps to describe it, however the stream was split.
            let is_enough = src.len() >= BYTES_BEHIND;
            return Ok(is_enough.then(|| self.end_run(src)));
        }
        let Some(whole) = wanted(src) else { return Ok(None) };
        let len = whole - HEADER_BYTES;
        if len == 0 {
            return Err(FrameError::Empty);
        }
        if src.len() < whole {
            return Ok(None);
        }
        src.advance(HEADER_BYTES);
        let frame = src.split_to(len).freeze();
        if src.is_empty() && len > KEPT_BUFFER_BYTES {
            *src = BytesMut::new();
        }
        Ok(Some(Item::Frame(frame)))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Item>, FrameError> {
        if let Some(item) = self.decode(src)? {
            return Ok(Some(item));
        }
        if !self.run.is_empty() {
            return Ok(Some(self.end_run(src)));
        }
        if src.is_empty() {
            return Ok(None);
        }
        let (have, want) = (src.len(), wanted(src).unwrap_or(HEADER_BYTES));
        src.clear();
        Err(FrameError::Torn { have, want })
    }
}

/// Returns the length of the frame that `src` begins with, header included, if the header is there.
fn wanted(src: &[u8]) -> Option<usize> {
    let header = src.first_chunk::<HEADER_BYTES>()?;
    Some(HEADER_BYTES + u32::from_be_bytes(*header) as usize)
}

/// Frames that are waiting to be written: a list of byte strings, several of which are written with
/// one system call, without copies.
#[derive(Default)]
pub struct SendBuffer(VecDeque<Bytes>);

impl SendBuffer {
    /// Appends one frame, which consists of these parts.
    ///
    /// # Panics
    /// If the parts together are empty or longer than [`MAX_FRAME_BYTES`]. The caller must check
    /// that first, and report it to its own caller.
    pub fn push_frame(&mut self, parts: impl IntoIterator<Item = Bytes>) {
        let header_at = self.0.len();
        self.0.push_back(Bytes::new());
        self.0.extend(parts.into_iter().filter(|part| !part.is_empty()));
        let len: usize = self.0.range(header_at..).map(Bytes::len).sum();
        assert!((1..=MAX_FRAME_BYTES).contains(&len), "a frame of {len} bytes");
        let header = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
        self.0[header_at] = Bytes::copy_from_slice(&header);
    }
}

impl Buf for SendBuffer {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn has_remaining(&self) -> bool {
        !self.0.is_empty()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let count = self.0.len().min(dst.len());
        for (slot, part) in dst.iter_mut().zip(&self.0) {
            *slot = IoSlice::new(part);
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(front) = self.0.front_mut() else {
                return;
            };
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            if front.is_empty() {
                self.0.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_all(chunks: &[&[u8]]) -> (Vec<Item>, Option<String>) {
        let mut decoder = FrameDecoder::default();
        let mut buffer = BytesMut::new();
        let mut items = Vec::new();
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(item)) => items.push(item),
                    Ok(None) => break,
                    Err(error) => return (items, Some(error.to_string())),
                }
            }
        }
        loop {
            match decoder.decode_eof(&mut buffer) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => return (items, None),
                Err(error) => return (items, Some(error.to_string())),
            }
        }
    }

    fn frame(bytes: &'static [u8]) -> Item {
        Item::Frame(Bytes::from_static(bytes))
    }

    #[test]
    fn reads_frames_in_one_piece_and_byte_by_byte() {
        let stream = b"\0\0\0\x02{}\0\0\0\x05hello";
        let expected = vec![frame(b"{}"), frame(b"hello")];
        assert_eq!(decode_all(&[stream]), (expected.clone(), None));
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(decode_all(&bytes), (expected, None));
    }

    #[test]
    fn skips_text_between_frames_and_describes_it() {
        let stream = b"debug: <domain>s3cr3t\n\0\0\0\x02{}bye";
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        for chunks in [vec![&stream[..]], bytes] {
            let (items, error) = decode_all(&chunks);
            assert_eq!(error, None);
            let [Item::Stray(first), second, Item::Stray(last)] = &items[..] else {
                panic!("unexpected {items:?}");
            };
            assert_eq!(first.to_string(), "22 bytes in 1 line, which look like text");
            assert_eq!(*second, frame(b"{}"));
            assert_eq!(last.to_string(), "3 bytes in 1 line, which look like text");
        }
    }

    #[test]
    fn half_a_frame_is_described_while_its_rest_is_missing() {
        let decoder = FrameDecoder::default();
        let half = |src: &[u8]| decoder.half_frame(src);
        assert_eq!(half(b""), None);
        assert_eq!(half(b"\0\0\0\x02{}"), None);
        assert_eq!(half(b"\0\0\0\x02{").unwrap(), "half a frame, 5 of 6 bytes");
    }

    #[test]
    fn fails_at_the_stray_limit_wherever_the_stream_was_split() {
        let flood = vec![b'x'; MAX_STRAY_BYTES + 500];
        let (whole, whole_error) = decode_all(&[&flood]);
        let pieces: Vec<&[u8]> = flood.chunks(4096).collect();
        let (split, split_error) = decode_all(&pieces);
        assert_eq!((whole, split), (vec![], vec![]));
        assert_eq!(
            whole_error.as_deref().unwrap(),
            "more than 65536 bytes of stray output, which look like text: print to stderr, use an \
             SDK, or run the hook with --mode exec"
        );
        assert_eq!(whole_error, split_error);

        let (allowed, error) = decode_all(&[&flood[..MAX_STRAY_BYTES]]);
        assert_eq!((allowed.len(), error), (1, None));
    }

    #[test]
    fn names_a_torn_frame_and_an_empty_one() {
        assert_eq!(
            decode_all(&[b"\0\0\0\x09torn"]).1.unwrap(),
            FrameError::Torn { have: 8, want: 13 }.to_string()
        );
        assert_eq!(
            decode_all(&[b"\0\0"]).1.unwrap(),
            FrameError::Torn { have: 2, want: 4 }.to_string()
        );
        assert!(decode_all(&[b"\0\0\0\0"]).1.unwrap().contains("length 0"));
    }

    #[test]
    fn send_buffer_writes_headers_and_parts_in_order_and_counts_down() {
        let mut send_buffer = SendBuffer::default();
        send_buffer.push_frame([
            Bytes::from_static(b"{\"a\":"),
            Bytes::new(),
            Bytes::from_static(b"1}"),
        ]);
        send_buffer.push_frame([Bytes::from_static(b"xml")]);
        assert_eq!(send_buffer.remaining(), 4 + 7 + 4 + 3);
        let mut slices = [IoSlice::new(&[]); 16];
        assert_eq!(send_buffer.chunks_vectored(&mut slices), 5);
        let mut written = Vec::new();
        while send_buffer.has_remaining() {
            let step = send_buffer.chunk().len().min(2);
            written.extend_from_slice(&send_buffer.chunk()[..step]);
            send_buffer.advance(step);
        }
        assert_eq!(written, b"\0\0\0\x07{\"a\":1}\0\0\0\x03xml");
    }
}
