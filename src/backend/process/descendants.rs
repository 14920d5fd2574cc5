//! The descendants of a child that have left its process group, by `setsid` or `setpgid`.
//!
//! # Theory of operation
//! The kernel lists the children of each thread in `/proc/PID/task/TID/children`. A process id may
//! be reused as soon as its process is reaped, and only the shim's own children stay unreaped while
//! it looks at them. So a descendant is held by its directory in `/proc`: reading through it fails
//! once that process is reaped, and the kernel accepts it as a pidfd, so a signal reaches that
//! process or none.
//!
//! The list is not a snapshot. What a descendant forks meanwhile, and a process whose parent has
//! exited (a daemon), are missed: they become children of the shim. See
//! [`orphans`](super::orphans).

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::stat::Stat;

/// Maximum number of files and directories that are opened to find them. Each takes about 10 µs on
/// the one thread, so a child with hundreds of processes or threads delays other calls by 3 ms.
/// Of one parent's children, the first 126 are found.
const MAX_OPENED: usize = 256;

/// Maximum number of bytes read of one list: the ids of about 500 children, more than are held.
const MAX_LIST_BYTES: u64 = 4096;

/// The descendants that were found so far. Signals reach those that have left the group.
#[derive(Default)]
pub(super) struct Descendants(Vec<Held>);

/// A process by its directory in `/proc`.
struct Held {
    pid: i32,
    directory: OwnedFd,
    left_group: bool,
}

impl Descendants {
    /// Looks for more descendants of `child`, which leads or led `group`, and is not reaped.
    pub(super) fn find(&mut self, child: Pid) {
        let group = child.as_raw_pid();
        let mut opened = 0;
        let Some(root) = Held::open(group, &mut opened) else { return };
        // Those of before are looked at again: they may have children by now.
        let before = std::mem::take(&mut self.0);
        let mut unread: Vec<Held> = before.into_iter().chain([root]).collect();
        while let Some(parent) = unread.pop() {
            let mut children = Vec::new();
            for pid in parent.children(&mut opened) {
                if self.0.iter().chain(&unread).any(|held| held.pid == pid) {
                    continue;
                }
                let Some(child) = Held::open(pid, &mut opened) else { break };
                if let Some(stat) = child.stat(&mut opened).filter(|stat| stat.parent == parent.pid)
                {
                    children.push(Held { left_group: stat.group != group, ..child });
                }
            }
            // Read after the children: until here the parent's id was the parent's. It is not
            // counted, or what was opened at the limit would be lost.
            if !children.is_empty() && parent.stat(&mut 0).is_some() {
                unread.extend(children);
            }
            if parent.pid != group {
                self.0.push(parent);
            }
        }
    }

    /// Signals those that have left the group and are not reaped. SIGKILL is for all of them: they
    /// may leave it at any time.
    pub(super) fn signal(&self, signal: Signal) {
        for held in self.0.iter().filter(|held| held.left_group || signal == Signal::KILL) {
            // An error means that it was reaped, or runs as another user.
            let _ = pidfd_send_signal(&held.directory, signal);
        }
    }
}

impl Held {
    fn open(pid: i32, opened: &mut usize) -> Option<Self> {
        let directory = open(CWD, &format!("/proc/{pid}"), OFlags::DIRECTORY, opened)?;
        Some(Self { pid, directory, left_group: false })
    }

    fn stat(&self, opened: &mut usize) -> Option<Stat> {
        Stat::read(open(&self.directory, "stat", OFlags::empty(), opened)?.into())
    }

    /// Returns the process ids of its children.
    fn children(&self, opened: &mut usize) -> Vec<i32> {
        let mut children = Vec::new();
        let tasks = open(&self.directory, "task", OFlags::DIRECTORY, opened);
        let Some(tasks) = tasks.and_then(|tasks| Dir::new(tasks).ok()) else { return children };
        for thread in tasks.flatten() {
            let Ok(thread) = thread.file_name().to_str() else { continue };
            if thread.starts_with('.') {
                continue;
            }
            let list = format!("task/{thread}/children");
            let Some(list) = open(&self.directory, &list, OFlags::empty(), opened) else { break };
            let mut text = String::new();
            let _ = File::from(list).take(MAX_LIST_BYTES).read_to_string(&mut text);
            // Each id has a space behind it; one that was cut off does not.
            let whole = text.rsplit_once(' ').map_or("", |(whole, _)| whole);
            children.extend(whole.split(' ').filter_map(|pid| pid.parse::<i32>().ok()));
        }
        children
    }
}

/// Opens a file, unless too many were opened.
fn open(
    at: impl std::os::fd::AsFd,
    path: &str,
    flags: OFlags,
    opened: &mut usize,
) -> Option<OwnedFd> {
    *opened += 1;
    if *opened > MAX_OPENED {
        return None;
    }
    openat(at, path, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::{Child as _, CommandLine, Launch, Process};
    use super::*;

    /// Starts processes, each in a separate session, and returns when they run.
    async fn with_descendants(count: usize) -> Process {
        let script = format!(
            "for i in $(seq {count}); do setsid sh -c 'printf x; exec sleep 60' & done; wait"
        );
        let command = &CommandLine::from_words(["sh".into(), "-c".into(), script.into()]).unwrap();
        let launch = Launch {
            command,
            documents: &[],
            protocol: None,
            context: None,
            stdin: false,
            span: None,
            memory: None,
        };
        let (process, mut pipes) =
            Process::spawn(&launch).map_err(|error| error.to_string()).unwrap();
        pipes.stdout.read_exact(&mut vec![0; count]).await.unwrap();
        process
    }

    /// Kills them, and waits until the shell has reaped them.
    async fn kill_all(descendants: &mut Descendants, child: Pid) {
        loop {
            descendants.find(child);
            descendants.signal(Signal::KILL);
            descendants.0.retain(|held| held.stat(&mut 0).is_some());
            if descendants.0.is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_in_other_sessions_are_found_each_once_and_signalled() {
        let process = with_descendants(3).await;
        let child = Pid::from_raw(process.pid()).unwrap();
        let mut descendants = Descendants::default();
        for _ in 0..2 {
            descendants.find(child);
            assert_eq!(descendants.0.len(), 3);
            assert!(descendants.0.iter().all(|held| held.left_group));
        }
        kill_all(&mut descendants, child).await;
    }

    #[tokio::test]
    async fn of_many_some_are_found_at_a_time_and_no_more_files_are_opened() {
        let process = with_descendants(300).await;
        let child = Pid::from_raw(process.pid()).unwrap();
        let mut descendants = Descendants::default();
        descendants.find(child);
        let found = descendants.0.len();
        assert!((100..=MAX_OPENED).contains(&found), "{found}");
        kill_all(&mut descendants, child).await;
    }
}
