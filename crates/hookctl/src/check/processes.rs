//! The processes of a worker, as the kernel shows them in `/proc`.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

/// A process.
pub(super) struct Process {
    pub(super) pid: u32,
    /// The name of its program, of which the kernel keeps 15 bytes.
    pub(super) name: String,
    parent: u32,
    group: u32,
    /// The letter of its state: `R` runs or waits for a CPU, `Z` has exited.
    state: char,
}

/// What the descendants of this process have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resources {
    pub(super) processes: usize,
    /// Processes that have exited and for which their parent has not waited.
    pub(super) zombies: usize,
    pub(super) threads: usize,
    pub(super) descriptors: usize,
}

impl Process {
    /// Reads `PID (NAME) STATE PARENT GROUP …`. The name may contain spaces and parentheses.
    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        let (pid_and_name, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let state = fields.next()?.chars().next()?;
        let name = pid_and_name.split_once('(')?.1.to_owned();
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        Some(Self { pid, name, parent, group, state })
    }

    /// Returns the bytes in RAM that no file holds: stacks and heaps.
    fn anonymous(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kilobytes.unwrap_or(0) * 1024
    }

    /// Whether its stdin is the pipe with this number.
    fn reads(&self, inode: u64) -> bool {
        let stdin = std::fs::metadata(format!("/proc/{}/fd/0", self.pid));
        stdin.is_ok_and(|stdin| stdin.ino() == inode)
    }

    fn entries(&self, directory: &str) -> usize {
        std::fs::read_dir(format!("/proc/{}/{directory}", self.pid)).map_or(0, Iterator::count)
    }
}

/// Returns the descendants of this process: workers, their children, and what these left behind.
fn descendants() -> Vec<Process> {
    let listed = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut others: Vec<Process> = pids.filter_map(Process::of).collect();
    let (mut found, mut parents) = (Vec::new(), BTreeSet::from([std::process::id()]));
    loop {
        let (children, rest): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|process| parents.contains(&process.parent));
        if children.is_empty() {
            return found;
        }
        parents = children.iter().map(|process| process.pid).collect();
        found.extend(children);
        others = rest;
    }
}

/// Returns the descendants whose stdin is the pipe with this number.
pub(super) fn readers(inode: u64) -> Vec<Process> {
    let mut readers = descendants();
    readers.retain(|process| process.reads(inode));
    readers
}

/// Returns the bytes that the descendants in a process group have in heaps and stacks.
pub(super) fn heap_of_group(group: i32) -> u64 {
    let mut group_members = descendants();
    group_members.retain(|process| i32::try_from(process.group) == Ok(group));
    group_members.iter().map(Process::anonymous).sum()
}

/// Whether a descendant in the process group runs, or waits for nothing but a CPU.
pub(super) fn computes(group: i32) -> bool {
    let mut computing = descendants().into_iter().filter(|process| process.state == 'R');
    computing.any(|process| i32::try_from(process.group) == Ok(group))
}

/// Returns what the descendants have now.
pub(super) fn resources() -> Resources {
    let (zombies, running): (Vec<_>, Vec<_>) =
        descendants().into_iter().partition(|process| process.state == 'Z');
    let sum = |directory| running.iter().map(|process| process.entries(directory)).sum();
    Resources {
        processes: running.len(),
        zombies: zombies.len(),
        threads: sum("task"),
        descriptors: sum("fd"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_parent_and_threads() {
        let this = Process::of(std::process::id()).unwrap();
        assert_eq!(this.parent, std::os::unix::process::parent_id());
        assert!(this.anonymous() > 0);
        assert!(this.state != 'Z' && this.entries("task") > 0 && this.entries("fd") > 2);
        assert!("hookctl".starts_with(&this.name[..7]), "{}", this.name);
    }

    #[test]
    fn a_pipe_is_known_by_its_number() {
        let this = Process::of(std::process::id()).unwrap();
        let stdin = std::fs::metadata("/proc/self/fd/0").unwrap().ino();
        assert!(this.reads(stdin));
        assert!(!this.reads(stdin + 1));
    }
}
