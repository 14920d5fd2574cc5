//! A pipe that is read and written in steps.

use std::io::{self, Read, Write};

/// What is read or written with one system call: a quarter of what a pipe holds. With all of it, this
/// process would sleep while the shim is at work, and the shim while this is.
pub(crate) const STEP_BYTES: usize = 16 * 1024;

/// One end of a pipe.
pub(crate) struct Steps<T>(pub(crate) T);

impl<T: Read> Read for Steps<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let step = into.len().min(STEP_BYTES);
        self.0.read(&mut into[..step])
    }
}

impl<T: Write> Write for Steps<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(STEP_BYTES)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
