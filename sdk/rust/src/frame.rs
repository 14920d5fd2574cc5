//! Frames: a 32-bit big-endian length, then that many bytes.

use std::io::{self, Read, Write};

use crate::steps::STEP_BYTES;

/// 16 MiB − 1. The first byte of a frame is therefore zero, which distinguishes it from text.
pub(crate) const MAX_FRAME_BYTES: usize = 0x00ff_ffff;

/// Reads the next frame; `None` at EOF. After an error the stream cannot be resynchronized.
pub(crate) fn read(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut header = Vec::with_capacity(4);
    input.take(4).read_to_end(&mut header)?;
    if header.is_empty() {
        return Ok(None);
    }
    let Ok(header) = <[u8; 4]>::try_from(&header[..]) else {
        return Err(torn("EOF inside the length of a frame"));
    };
    let length = u32::from_be_bytes(header) as usize;
    if !(1..=MAX_FRAME_BYTES).contains(&length) {
        return Err(broken(&format!(
            "invalid frame length {header:02x?}: a frame holds 1 to {MAX_FRAME_BYTES} bytes"
        )));
    }
    let mut frame = Vec::with_capacity(length);
    input.take(length as u64).read_to_end(&mut frame)?;
    if frame.len() < length {
        return Err(torn(&format!("EOF after {} of a frame's {length} bytes", frame.len())));
    }
    Ok(Some(frame))
}

/// Writes one message: its JSON, then its attachment. Each of them must fit a frame.
pub(crate) fn write(
    output: &mut (impl Write + ?Sized),
    json: &str,
    attached: Option<&[u8]>,
) -> io::Result<()> {
    let attachment = attached.unwrap_or_default();
    let mut head = Vec::with_capacity(json.len() + 8 + attachment.len().min(STEP_BYTES));
    head.extend(header(json.len())?);
    head.extend(json.as_bytes());
    if attached.is_some() {
        head.extend(header(attachment.len())?);
    }
    if attachment.len() <= STEP_BYTES {
        // Copying costs less than a second write.
        head.extend(attachment);
        output.write_all(&head)?;
    } else {
        output.write_all(&head)?;
        output.write_all(attachment)?;
    }
    output.flush()
}

fn header(length: usize) -> io::Result<[u8; 4]> {
    if !(1..=MAX_FRAME_BYTES).contains(&length) {
        return Err(broken(&format!("a frame cannot hold {length} bytes")));
    }
    u32::try_from(length).map(u32::to_be_bytes).map_err(io::Error::other)
}

fn torn(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

fn broken(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{json, Value};

    use super::*;

    /// A stream that delivers one byte per read.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    /// Returns all frames and the fault that ended them, in the terms of the vectors.
    fn read_all(mut stream: impl Read) -> (Vec<Vec<u8>>, Value) {
        let mut frames = Vec::new();
        loop {
            match read(&mut stream) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Value::Null),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return (frames, json!("torn"));
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
                    return (frames, json!("length"));
                }
            }
        }
    }

    fn payload(value: &Value) -> Vec<u8> {
        if let Some(text) = value["text"].as_str() {
            return text.as_bytes().to_vec();
        }
        let hex = value["hex"].as_str().unwrap().split_whitespace();
        hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    #[test]
    fn frames_are_read_and_written_as_the_vectors_say() {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocol/vectors/frames");
        let mut tried = 0;
        for entry in vectors.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let expected: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let stream = std::fs::read(path.with_extension("bin")).unwrap();
            let payloads = expected["payloads"].as_array().unwrap().iter().map(payload);
            let wanted = (payloads.collect(), expected["fault"].clone());
            assert_eq!(read_all(&stream[..]), wanted, "{}", path.display());
            assert_eq!(read_all(Trickle(&stream)), wanted, "{}, in bytes", path.display());
            if wanted.1.is_null() {
                let mut written = Vec::new();
                for payload in &wanted.0 {
                    written.extend(header(payload.len()).unwrap());
                    written.extend(payload);
                }
                assert_eq!(written, stream, "{}, written", path.display());
            }
            tried += 1;
        }
        assert!(tried >= 10, "there are only {tried} vectors");
    }

    #[test]
    fn a_frame_is_neither_empty_nor_longer_than_its_first_byte_allows() {
        assert_eq!(header(1).unwrap(), [0, 0, 0, 1]);
        assert_eq!(header(MAX_FRAME_BYTES).unwrap(), [0, 0xff, 0xff, 0xff]);
        assert!(header(0).is_err() && header(MAX_FRAME_BYTES + 1).is_err());
    }
}
