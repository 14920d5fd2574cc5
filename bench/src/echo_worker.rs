//! A worker that returns each domain unchanged or one line break longer: the time of a call is the
//! transport's.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The fields of a request that are read.
#[derive(Deserialize)]
struct Request<'a> {
    id: u64,
    #[serde(borrow)]
    method: &'a str,
    #[serde(default, borrow)]
    attachments: Vec<&'a str>,
}

const DECLARED: &str =
    r#"{"protocolVersion":1,"hooks":["onDefineDomain"],"capabilities":{"attachments":true}}"#;

/// Bytes that the SDKs read from a pipe, or write to it, with one system call.
const STEP_BYTES: usize = 16 * 1024;

/// A pipe that is read and written in such steps.
struct Steps(File);

impl Read for Steps {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let step = into.len().min(STEP_BYTES);
        self.0.read(&mut into[..step])
    }
}

impl Write for Steps {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(STEP_BYTES)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut room = STEP_BYTES;
        let mut step = Vec::with_capacity(parts.len());
        for part in parts {
            let taken = part.len().min(room);
            step.push(IoSlice::new(&part[..taken]));
            room -= taken;
        }
        self.0.write_vectored(&step)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves until EOF.
pub fn run(longer: bool) -> Result<()> {
    // Without the standard library's buffers: one system call writes a message.
    let input = Steps(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    let mut input = BufReader::with_capacity(STEP_BYTES, input);
    let mut output = Steps(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    let (mut json, mut domain) = (Vec::new(), Vec::new());
    while !input.fill_buf()?.is_empty() {
        read_frame(&mut input, &mut json)?;
        let request: Request<'_> = serde_json::from_slice(&json)?;
        let id = request.id;
        if request.method == "initialize" {
            let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{DECLARED}}}"#);
            write_frames(&mut output, &[answer.as_bytes()])?;
            continue;
        }
        ensure!(request.method == "onDefineDomain", "an unknown method");
        ensure!(request.attachments == ["domain"], "the domain is not attached");
        read_frame(&mut input, &mut domain)?;
        domain.extend(longer.then_some(b'\n'));
        let answer =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}},"attachments":["domain"]}}"#);
        write_frames(&mut output, &[answer.as_bytes(), &domain])?;
    }
    Ok(())
}

pub fn read_frame(input: &mut impl Read, into: &mut Vec<u8>) -> Result<()> {
    let mut header = [0; 4];
    input.read_exact(&mut header)?;
    into.resize(u32::from_be_bytes(header) as usize, 0);
    input.read_exact(into).context("half a frame")
}

pub fn write_frames(output: &mut impl Write, frames: &[&[u8]]) -> Result<()> {
    let mut headers = Vec::new();
    for frame in frames {
        headers.push(u32::try_from(frame.len())?.to_be_bytes());
    }
    let mut slices: Vec<IoSlice<'_>> = Vec::new();
    for (header, frame) in headers.iter().zip(frames) {
        slices.extend([IoSlice::new(header), IoSlice::new(frame)]);
    }
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let written = output.write_vectored(rest)?;
        ensure!(written > 0, "stdout is closed");
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written() {
        let mut written = Vec::new();
        write_frames(&mut written, &[b"{}", b"<domain/>"]).unwrap();
        let mut input = &written[..];
        let mut frame = Vec::new();
        read_frame(&mut input, &mut frame).unwrap();
        assert_eq!(frame, b"{}");
        read_frame(&mut input, &mut frame).unwrap();
        assert_eq!(frame, b"<domain/>");
        assert!(input.is_empty());
        assert!(read_frame(&mut &written[..5], &mut frame).is_err());
    }
}
