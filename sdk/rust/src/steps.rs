//! A pipe that is read and written in small steps.

use std::io::{self, Read, Write};

/// Maximum number of bytes per system call: a quarter of a pipe's capacity. With larger steps, the
/// shim and this process would take turns sleeping instead of working at the same time.
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
