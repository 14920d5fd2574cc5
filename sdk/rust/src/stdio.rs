//! The streams and the environment of the process, put out of a hook's way before it runs.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;

use crate::output::complain;

/// In the environment of workers. Its value is the highest version that the shim speaks, which the
/// shim says once more, with all others, in `initialize`.
const MARKER: &str = "KUBEVIRT_HOOK_PROTOCOL";

/// Takes standard output for this crate alone: what the hook and its children print goes to
/// standard error from now on.
///
/// std can duplicate a descriptor, but not to a given number; rustix can, by a safe function.
pub(crate) fn take_output() -> io::Result<File> {
    // A duplicate is closed on exec.
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(output.into())
}

/// Takes standard input for this crate alone: the hook and its children find it empty, and cannot
/// read what the shim writes.
pub(crate) fn take_input() -> io::Result<File> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(input.into())
}

/// Whether the shim has started this process as a worker. The mark is taken out of the environment,
/// so that no program that a hook starts takes itself for a worker.
pub(crate) fn take_marker() -> bool {
    let is_worker = env::var_os(MARKER).is_some();
    if is_worker && is_single_threaded() {
        #[expect(clippy::disallowed_methods, reason = "there is no other thread")]
        env::remove_var(MARKER);
    } else if is_worker {
        complain(format_args!(
            "{MARKER} stays in the environment, because other threads run already: call run() \
             before they are started, or take it from each Command with env_remove"
        ));
    }
    is_worker
}

/// Removing a variable while another thread looks one up, in C say, is a data race. With one thread
/// there is none, and only that thread could start another.
fn is_single_threaded() -> bool {
    fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// The argument vector. The first is the name that the program was started by.
pub(crate) fn arguments() -> Vec<OsString> {
    env::args_os().collect()
}
