//! Decoding a stream gives the same frames or the same error wherever it is split, and takes no
//! more memory than one frame needs.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sidecar_shim::frame::{FrameDecoder, Item, MAX_FRAME_BYTES};
use tokio_util::codec::Decoder;

/// The items of a stream and its error.
type Decoded = (Vec<Item>, Option<String>);

// The first byte is the number of the following bytes that are sizes of pieces.
fuzz_target!(|data: &[u8]| {
    let Some((&count, rest)) = data.split_first() else { return };
    let (cuts, stream) = rest.split_at(usize::from(count % 16).min(rest.len()));
    let whole = decode(stream, &[]);
    assert_eq!(whole, decode(stream, cuts));
    if stream.len() < 512 {
        assert_eq!(whole, decode(stream, &[1]));
    }
});

/// Decodes a stream that arrives in pieces of these sizes, in a cycle.
fn decode(stream: &[u8], sizes: &[u8]) -> Decoded {
    let mut decoder = FrameDecoder::default();
    let (mut buffer, mut items) = (BytesMut::new(), Vec::new());
    let mut sizes = sizes.iter().cycle();
    let mut rest = stream;
    loop {
        let size =
            sizes.next().map_or(rest.len(), |size| usize::from(*size).max(1)).min(rest.len());
        let (piece, after) = rest.split_at(size);
        let at_end = rest.is_empty();
        rest = after;
        buffer.extend_from_slice(piece);
        assert!(buffer.capacity() <= MAX_FRAME_BYTES + stream.len() + 64 * 1024);
        loop {
            let item =
                if at_end { decoder.decode_eof(&mut buffer) } else { decoder.decode(&mut buffer) };
            match item {
                Ok(Some(item)) => items.push(item),
                Ok(None) if at_end => return (items, None),
                Ok(None) => break,
                Err(error) => return (items, Some(error.to_string())),
            }
        }
    }
}
