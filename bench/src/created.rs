//! Waits for the sockets of servers to appear in their directories.

use std::cell::OnceCell;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

thread_local! {
    /// One instance has the watches of all servers. The kernel allows a user 128 instances, and
    /// more servers than that may run at once. It stays open, because to close it takes the kernel
    /// milliseconds. Servers do not inherit it.
    static INOTIFY: OnceCell<Rc<Inotify>> = const { OnceCell::new() };
}

/// Watches a directory until it is dropped.
pub struct Created {
    inotify: Rc<Inotify>,
    watch: WatchDescriptor,
    directory: PathBuf,
}

impl Created {
    pub fn watch(directory: &Path) -> Result<Self> {
        let inotify = instance().context("cannot use inotify")?;
        // Earlier events of a directory that is watched twice would be taken for new ones.
        read(&inotify)?;
        let watch = inotify
            .add_watch(directory, AddWatchFlags::IN_CREATE)
            .with_context(|| format!("cannot watch {}", directory.display()))?;
        Ok(Self { inotify, watch, directory: directory.to_owned() })
    }

    /// Waits for a file whose name ends in `.sock`, but not longer than this.
    pub fn socket(&self, limit: PollTimeout) -> Result<Option<PathBuf>> {
        poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], limit)?;
        let own = read(&self.inotify)?.into_iter().filter(|event| event.wd == self.watch);
        let mut paths = own.filter_map(|event| Some(self.directory.join(event.name?)));
        Ok(paths.find(|path| path.extension().is_some_and(|extension| extension == "sock")))
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        // The kernel has removed it already if the directory is gone.
        let _ = self.inotify.rm_watch(self.watch);
    }
}

fn instance() -> nix::Result<Rc<Inotify>> {
    INOTIFY.with(|cell| {
        if let Some(there) = cell.get() {
            return Ok(there.clone());
        }
        let new = Rc::new(Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?);
        Ok(cell.get_or_init(|| new).clone())
    })
}

/// All events so far.
fn read(inotify: &Inotify) -> Result<Vec<InotifyEvent>> {
    let mut all = Vec::new();
    loop {
        match inotify.read_events() {
            Ok(events) => all.extend(events),
            Err(Errno::EAGAIN) => return Ok(all),
            Err(error) => return Err(error).context("cannot read from inotify"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn more_directories_than_a_user_has_instances_each_report_their_own_socket() {
        let directory = tempfile::tempdir().unwrap();
        let paths = (0..300).map(|number| directory.path().join(number.to_string()));
        let watched: Vec<_> = paths
            .map(|path| {
                fs::create_dir(&path).unwrap();
                (Created::watch(&path).unwrap(), path)
            })
            .collect();
        for (created, path) in &watched {
            fs::write(path.join("other"), "").unwrap();
            assert_eq!(created.socket(PollTimeout::ZERO).unwrap(), None);
            fs::write(path.join("a.sock"), "").unwrap();
            assert_eq!(created.socket(PollTimeout::ZERO).unwrap(), Some(path.join("a.sock")));
        }
        // Events of another directory are not those of this one.
        fs::write(watched[0].1.join("b.sock"), "").unwrap();
        assert_eq!(watched[1].0.socket(PollTimeout::ZERO).unwrap(), None);
    }

    #[test]
    fn a_directory_that_is_watched_again_reports_what_is_new() {
        let directory = tempfile::tempdir().unwrap();
        let first = Created::watch(directory.path()).unwrap();
        fs::write(directory.path().join("first.sock"), "").unwrap();
        let second = Created::watch(directory.path()).unwrap();
        drop(first);
        assert_eq!(second.socket(PollTimeout::ZERO).unwrap(), None);
        let third = Created::watch(directory.path()).unwrap();
        fs::write(directory.path().join("third.sock"), "").unwrap();
        let found = third.socket(PollTimeout::ZERO).unwrap();
        assert_eq!(found, Some(directory.path().join("third.sock")));
    }
}
