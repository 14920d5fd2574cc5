//! What the kernel tells about processes.

use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Kills a process.
pub fn kill(pid: u64) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    #[expect(clippy::disallowed_methods, reason = "tests kill hooks and workers")]
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
}

/// Whether a process exists (a zombie does).
pub fn exists(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether a process has exited (a zombie has).
pub fn gone(pid: u64) -> bool {
    stat(pid).is_none_or(|(state, _)| state == 'Z')
}

/// The children of a process.
pub fn children(parent: u64) -> Vec<u64> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let numbers = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// The state and the parent of a process, if it exists.
pub fn stat(pid: u64) -> Option<(char, u64)> {
    let fields = stat_fields(pid)?;
    Some((fields.first()?.chars().next()?, fields.get(1)?.parse().ok()?))
}

/// The fields of `/proc/PID/stat` after the name, if the process exists. The first one is field 3 of
/// `proc(5)`.
pub fn stat_fields(pid: u64) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// The number of open descriptors of a process.
pub fn descriptors(pid: u64) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
