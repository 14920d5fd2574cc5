//! Limits that a process is held to by the kernel.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Limits what a process, and each that it starts, may allocate for its data. An allocation beyond
/// that fails in the process; a limit on the whole container would end the shim with it.
pub(super) fn data(pid: Pid, bytes: u64) -> std::io::Result<()> {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    prlimit(Some(pid), Resource::Data, limit)?;
    Ok(())
}
