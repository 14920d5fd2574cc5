//! System calls that no safe wrapper offers as they are needed here. No other file may contain
//! unsafe code.

#![expect(unsafe_code, reason = "each block says why it is sound")]

use rustix::process::Pid;

/// Returns a child that has exited and is not reaped yet, and leaves it unreaped. While there are
/// several the kernel shows the same one.
///
/// rustix's `waitid` keeps the process id to itself. nix's fails on a child that a real-time signal
/// has killed.
pub(crate) fn exited_child() -> Option<Pid> {
    let look = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the structure consists of integers and raw pointers, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for writes, and the kernel keeps nothing of it.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, look) } != 0 {
        // There are no children.
        return None;
    }
    // SAFETY: the field is an integer, that of a child or still the zero from above.
    Pid::from_raw(unsafe { info.si_pid() })
}

/// Sets an environment variable, if no other thread runs yet that could read or change them.
/// Returns whether it did.
pub(crate) fn set_variable(name: &str, value: &str) -> bool {
    let alone = std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    if alone {
        // SAFETY: the calling thread is the only one.
        unsafe { std::env::set_var(name, value) };
    }
    alone
}

/// Makes glibc's allocator take blocks of up to `largest_block` bytes from its heap rather than
/// from the system, and keep up to `free_end` unused bytes at the end of the heap.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_heap(largest_block: i32, free_end: i32) {
    // SAFETY: both set a number in the allocator, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, largest_block);
        libc::mallopt(libc::M_TRIM_THRESHOLD, free_end);
    }
}

/// Gives the free memory of glibc's heap back to the system.
#[cfg(target_env = "gnu")]
pub(crate) fn trim_heap() {
    // SAFETY: it touches memory only that is free, under the allocator's own lock.
    unsafe { libc::malloc_trim(0) };
}
