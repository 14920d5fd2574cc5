//! Decodes streams of bytes for several of the tests.

use bytes::BytesMut;
use sidecar_shim::frame::{FrameDecoder, FrameError, Item};
use tokio_util::codec::Decoder;

/// Returns what the shim finds in a stream that arrives in these pieces, and its error.
pub(crate) fn items<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Item>, Option<FrameError>) {
    let mut decoder = FrameDecoder::default();
    let (mut buffer, mut items) = (BytesMut::new(), Vec::new());
    let mut pieces = pieces.into_iter();
    loop {
        let piece = pieces.next();
        buffer.extend_from_slice(piece.unwrap_or_default());
        loop {
            let item = match piece {
                Some(_) => decoder.decode(&mut buffer),
                None => decoder.decode_eof(&mut buffer),
            };
            match item {
                Ok(Some(item)) => items.push(item),
                Ok(None) if piece.is_none() => return (items, None),
                Ok(None) => break,
                Err(error) => return (items, Some(error)),
            }
        }
    }
}
