//! Takes stdin, stdout and the worker's marker away from the hook before it runs.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;

use crate::output::complain;

/// Environment variable that marks a worker. Its value is the highest protocol version of the
/// shim; it is not needed, because `initialize` lists all versions.
const MARKER: &str = "KUBEVIRT_HOOK_PROTOCOL";

/// Takes over stdout. From now on, output of the hook and its children goes to stderr.
///
/// std cannot duplicate a descriptor to a given number; rustix can, with a safe function.
pub(crate) fn take_output() -> io::Result<File> {
    // The duplicate is close-on-exec.
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(output.into())
}

/// Takes over stdin. The hook and its children find it empty and cannot read the shim's messages.
pub(crate) fn take_input() -> io::Result<File> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(input.into())
}

/// Returns whether the shim started this process as a worker. Removes the marker from the
/// environment, so that programs started by a hook do not act as workers.
pub(crate) fn take_marker() -> bool {
    let is_worker = env::var_os(MARKER).is_some();
    if is_worker && is_single_threaded() {
        #[expect(clippy::disallowed_methods, reason = "there is no other thread")]
        env::remove_var(MARKER);
    } else if is_worker {
        complain(format_args!(
            "{MARKER} stays in the environment, because other threads are running: call run() \
             before starting threads, or use env_remove on each Command"
        ));
    }
    is_worker
}

/// Returns whether this is the only thread. Removing a variable while another thread reads the
/// environment, for example in C, is a data race.
fn is_single_threaded() -> bool {
    fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Returns the argument vector. The first entry is the path that the program was started with.
pub(crate) fn arguments() -> Vec<OsString> {
    env::args_os().collect()
}
