//! Watches files for changes.
//!
//! # Theory of operation
//! A file has changed when its [`Fingerprint`] has: what `stat` says of it. inotify only says when
//! to look, so that it does not matter how a file is replaced: editors write another file and
//! rename it, compilers truncate and write, and Kubernetes exchanges the symbolic link of a
//! directory above it. Therefore directories are watched, that of the name and that of the file
//! it leads to. Where inotify does not work (a network file system, a limit of the kernel that is
//! used up), the files are looked at every [`POLL_INTERVAL`].
//!
//! A change is reported once the files have been left alone for [`QUIET_TIME`], as a program that
//! is half written cannot run. That a file vanishes is reported as a change once it is there again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::Metadata;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout};

use crate::say;

/// Time without an event after which files are complete. Compilers and `rsync` pause for less.
const QUIET_TIME: Duration = Duration::from_millis(100);

/// Time after which a change is reported although there are still events, in a busy directory.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Interval between looks at the files without an event.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Size of the buffer for events: a few dozen of them. They are only counted.
const EVENT_BYTES: usize = 4096;

/// Maximum number of files that are named.
const MAX_NAMES: usize = 5;

/// Watches files, until it is dropped.
pub(crate) struct Watcher {
    /// None where inotify does not work.
    inotify: Option<AsyncFd<OwnedFd>>,
    files: BTreeMap<PathBuf, Option<Fingerprint>>,
}

/// What distinguishes one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    mode: u32,
    size: u64,
    modified: (i64, i64),
}

impl Fingerprint {
    fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|found| Self::new(&found))
    }

    fn new(of: &Metadata) -> Self {
        let modified = (of.mtime(), of.mtime_nsec());
        let (device, inode, mode, size) = (of.dev(), of.ino(), of.mode(), of.size());
        Self { device, inode, mode, size, modified }
    }
}

/// A file that has changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    path: PathBuf,
    was_there: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.was_there { "has changed" } else { "is there" };
        write!(f, "{} {what}", self.path.display())
    }
}

impl Watcher {
    pub(crate) fn new() -> Self {
        let opened = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        #[expect(deprecated, reason = "its successor is unsafe, and an OwnedFd stays open")]
        let inotify = opened.and_then(|fd| AsyncFd::new(fd).ok());
        Self { inotify, files: BTreeMap::new() }
    }

    /// Watches these files from now on, and those that it has watched before. The state of new ones
    /// is that of this moment.
    pub(crate) fn watch(&mut self, files: BTreeSet<PathBuf>) {
        for path in files {
            self.watch_directories(&path);
            self.files.entry(path).or_insert_with_key(|path| Fingerprint::of(path));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Returns the names of the files, for people.
    pub(crate) fn names(&self) -> String {
        let names = self.files.keys().take(MAX_NAMES).map(|path| path.display().to_string());
        let names = names.collect::<Vec<_>>().join(", ");
        match self.files.len().saturating_sub(MAX_NAMES) {
            0 => names,
            more => format!("{names} and {more} more"),
        }
    }

    /// Waits until files have changed, and returns them. Cancel safe: a change that was not
    /// returned is reported by the next call.
    pub(crate) async fn changed(&mut self) -> Vec<Change> {
        loop {
            if self.differ() {
                self.settle().await;
                let changes = self.take_changes();
                if !changes.is_empty() {
                    return changes;
                }
            }
            self.event(POLL_INTERVAL).await;
        }
    }

    fn differ(&self) -> bool {
        self.files.iter().any(|(path, before)| Fingerprint::of(path) != *before)
    }

    /// Waits until nothing more happens.
    async fn settle(&self) {
        let until = Instant::now() + MAX_WAIT;
        while Instant::now() < until && self.event(QUIET_TIME).await {}
    }

    /// Returns the files that have another state and exist, and reports those that are gone.
    fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (path, before) in &mut self.files {
            let now = Fingerprint::of(path);
            if now == *before {
                continue;
            }
            if now.is_some() {
                changes.push(Change { path: path.clone(), was_there: before.is_some() });
            } else {
                say(format_args!("{} is gone: waiting until it is there again", path.display()));
            }
            *before = now;
        }
        for change in &changes {
            // It may lead to a file in another directory now.
            self.watch_directories(&change.path);
        }
        changes
    }

    /// Waits for events, and discards them. Returns whether there were any.
    async fn event(&self, limit: Duration) -> bool {
        let Some(inotify) = &self.inotify else {
            sleep(limit).await;
            return false;
        };
        let Ok(Ok(mut ready)) = timeout(limit, inotify.readable()).await else { return false };
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = inotify::Reader::new(inotify.get_ref(), &mut buffer);
        while reader.next().is_ok() {}
        ready.clear_ready();
        true
    }

    /// Watches the directory of a name, and that of the file it leads to. One that is watched
    /// already stays so; one that is not there is found by looking.
    fn watch_directories(&self, path: &Path) {
        let Some(inotify) = &self.inotify else { return };
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB;
        let target = std::fs::canonicalize(path).ok();
        for file in [Some(path), target.as_deref()].into_iter().flatten() {
            let directory = match file.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let _ = inotify::add_watch(inotify.get_ref(), directory, flags);
        }
    }
}
