//! Limits that the kernel enforces on a process.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Limits the memory that a process, and each process that it starts, may allocate for its data. An
/// allocation beyond the limit fails in that process; a limit of the container would kill the shim
/// as well.
pub(super) fn data(pid: Pid, bytes: u64) -> std::io::Result<()> {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    prlimit(Some(pid), Resource::Data, limit)?;
    Ok(())
}
