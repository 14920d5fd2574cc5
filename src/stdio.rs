//! Writes to stdout and stderr, whichever kind of file they are. A write that fails is an error,
//! never a panic: `print!` and `eprintln!` panic when the file is full or its reader has gone, and
//! the program would lose the exit status that it documents.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};

/// Writes all of `text`. After an error, `text` is what was not written.
///
/// Waits while a pipe or a terminal accepts nothing, also if it is set not to block: any process
/// that shares it may have set that.
pub fn write_all(stream: impl AsFd, text: &mut &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match write(&stream, text) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *text = &text[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(&stream)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until the file accepts bytes, or its reader has gone.
fn wait(stream: impl AsFd) -> io::Result<()> {
    match poll(&mut [PollFd::new(&stream, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn all_is_written_to_a_pipe_that_does_not_block() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let text: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                write_all(&writer, &mut &text[..]).unwrap();
                drop(writer);
            });
            reader.read_to_end(&mut read).unwrap();
        });
        assert_eq!(read.len(), text.len());
        assert!(read == text, "the bytes are in order");
    }

    #[test]
    fn what_was_not_written_is_left() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut text = &b"text"[..];
        let error = write_all(full, &mut text).unwrap_err();
        assert_eq!((error.kind(), text), (io::ErrorKind::StorageFull, &b"text"[..]));

        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let error = write_all(writer, &mut text).unwrap_err();
        assert_eq!((error.kind(), text), (io::ErrorKind::BrokenPipe, &b"text"[..]));
    }
}
