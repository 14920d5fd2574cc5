//! The directory of the cases: what it may be, what it holds, and how a case gets there whole.
//!
//! # Theory of operation
//! The directory is opened once, and everything else is named relative to it, so nothing that
//! happens to its path later leads a case elsewhere. No symbolic link is followed.
//!
//! The directory has a mark, an empty file that is the shim's. When kubelet mounts a volume into a
//! pod with an `fsGroup`, as all of KubeVirt's have one, it lets the group write to every directory
//! in it. The shim takes that back from a directory that has its mark, and refuses others: they may
//! be meant for a group. A directory without the mark that others may only read is taken from them
//! if it is empty: of one that is not, programs may depend on it.
//!
//! A case is written under a name that begins with a dot, which `hookctl test` passes over, and
//! then renamed. While a shim writes it, it holds a lock on it. What a killed shim has left behind
//! has no lock, and the next start removes it.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, fchmod, flock, fstat, fsync, mkdirat,
    open, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// The file that says that a shim has claimed the directory.
const MARK: &str = ".sidecar-shim";

/// The beginning of the name of a case that is being written.
const PARTIAL: &str = ".partial-";

/// Maximum number of attempts to find a name for a case. Two cases of the same microsecond have the
/// same one only if they are about the same hook of the same VM.
const MAX_NAMES: u32 = 99;

/// Permissions: the documents of a VM are for their reader alone.
const DIRECTORY_MODE: Mode = Mode::RWXU;
const OF_OTHERS: Mode = Mode::RWXG.union(Mode::RWXO);
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A file of a case: its name and what is in it.
pub(super) type CaseFile = (&'static str, Vec<u8>);

/// A directory that this user alone can write to.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    /// The name of a case of this shim that is being written.
    partial: String,
}

/// What a directory holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) cases: usize,
    pub(super) bytes: u64,
}

impl Directory {
    /// Opens a directory, or creates it if only it is missing. Removes what killed shims have left
    /// there. The error is a clause that says why it cannot be used, and what to do.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        // Behind a slash at the end, the system would follow a link.
        let path: PathBuf = path.components().collect();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match open(&path, flags, Mode::empty()) {
            Err(Errno::NOENT) => rustix::fs::mkdir(&path, DIRECTORY_MODE)
                .and_then(|()| open(&path, flags, Mode::empty())),
            opened => opened,
        };
        let fd = opened.map_err(|error| explain(&path, error))?;
        claim(&path, &fd)?;
        let random = RandomState::new().hash_one(std::process::id());
        let directory = Self { fd, partial: format!("{PARTIAL}{random:016x}") };
        directory.try_write().map_err(|error| explain(&path, error))?;
        // A shim that has begun a case has no lock on that yet, but on the directory. It may hang.
        if flock(&directory.fd, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let removed = directory.remove_partial();
            directory.unlock();
            removed.map_err(|error| explain(&path, error))?;
        }
        Ok(directory)
    }

    /// Counts the cases, and the bytes in their files.
    pub(super) fn held(&self) -> Result<Held, Errno> {
        let mut held = Held::default();
        for name in self.names()? {
            let Some(case) = self.open_case(&name)? else { continue };
            held.cases += 1;
            for file in names(&case)? {
                let found = statat(&case, &*file, AtFlags::SYMLINK_NOFOLLOW)?;
                held.bytes += u64::try_from(found.st_size).unwrap_or_default();
            }
        }
        Ok(held)
    }

    /// Returns the number of cases.
    pub(super) fn cases(&self) -> Result<usize, Errno> {
        let is_directory = |name: &String| {
            statat(&self.fd, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::Directory)
        };
        Ok(self.names()?.iter().filter(|name| is_directory(name)).count())
    }

    /// Waits until no other shim counts and writes, so that all of them keep the limits. A disk
    /// without locks has no such order.
    pub(super) fn lock(&self) {
        let _ = flock(&self.fd, FlockOperation::LockExclusive);
    }

    pub(super) fn unlock(&self) {
        let _ = flock(&self.fd, FlockOperation::Unlock);
    }

    /// Writes a case, all of it or nothing.
    pub(super) fn write(&self, name: &str, files: &[CaseFile]) -> io::Result<()> {
        mkdirat(&self.fd, &*self.partial, DIRECTORY_MODE)?;
        let written = self.fill(files).and_then(|()| Ok(self.rename(name)?));
        if written.is_err() {
            // The first error is the one to report.
            let _ = self.remove(&self.partial);
        }
        written
    }

    fn fill(&self, files: &[CaseFile]) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let case = openat(&self.fd, &*self.partial, flags, Mode::empty())?;
        // Without locks, a leftover stays until someone removes it.
        let _ = flock(&case, FlockOperation::NonBlockingLockExclusive);
        for (name, bytes) in files {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&case, *name, flags, FILE_MODE)?);
            file.write_all(bytes)?;
            // A case whose node loses power is whole or missing, too.
            fsync(&file)?;
        }
        Ok(fsync(&case)?)
    }

    /// Gives the case its name, or a similar one if that is taken.
    fn rename(&self, name: &str) -> Result<(), Errno> {
        let mut candidate = name.to_owned();
        for number in 2..=MAX_NAMES {
            // A directory replaces none that has files.
            match renameat(&self.fd, &*self.partial, &self.fd, &*candidate) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {
                    candidate = format!("{name}-{number}");
                }
                renamed => return renamed.and_then(|()| fsync(&self.fd)),
            }
        }
        Err(Errno::EXIST)
    }

    /// Finds out whether a case could be written.
    fn try_write(&self) -> Result<(), Errno> {
        mkdirat(&self.fd, &*self.partial, DIRECTORY_MODE)?;
        unlinkat(&self.fd, &*self.partial, AtFlags::REMOVEDIR)
    }

    /// Removes the beginnings of cases that no shim writes.
    fn remove_partial(&self) -> Result<(), Errno> {
        for name in names(&self.fd)? {
            if name.starts_with(PARTIAL)
                && let Some(case) = self.open_case(&name)?
                && flock(&case, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Removes a case.
    fn remove(&self, name: &str) -> Result<(), Errno> {
        if let Some(case) = self.open_case(name)? {
            for file in names(&case)? {
                unlinkat(&case, &*file, AtFlags::empty())?;
            }
        }
        unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
    }

    /// Opens a directory in it. `None` if it is of another kind, or has gone.
    fn open_case(&self, name: &str) -> Result<Option<OwnedFd>, Errno> {
        let flags = OFlags::RDONLY
            | OFlags::DIRECTORY
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(case) => Ok(Some(case)),
            // `lost+found` of a volume is root's.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT | Errno::ACCESS) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the names of what may be a case, or the beginning of one.
    fn names(&self) -> Result<Vec<String>, Errno> {
        let mut all = names(&self.fd)?;
        all.retain(|name| name.starts_with(PARTIAL) || !name.starts_with('.'));
        all.retain(|name| name != "lost+found");
        Ok(all)
    }
}

/// Returns the names in a directory.
fn names(directory: impl AsFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        // Cases have names in ASCII.
        if let Ok(name) = entry?.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Claims a directory, or refuses it if others can change it: they could take a case away, or lay a
/// trap.
fn claim(path: &Path, fd: &OwnedFd) -> Result<(), String> {
    let failed = |error| explain(path, error);
    let found = fstat(fd).map_err(failed)?;
    let (user, owner) = (rustix::process::geteuid().as_raw(), found.st_uid);
    let advice = format!(
        "name a directory in it, which the shim creates for itself: {}",
        path.join("cases").display()
    );
    if owner != user {
        return Err(format!(
            "it belongs to user {owner}, and the shim runs as user {user}: {advice}"
        ));
    }
    let mode = Mode::from_raw_mode(found.st_mode);
    let is_marked = statat(fd, MARK, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|mark| {
        mark.st_uid == user && FileType::from_raw_mode(mark.st_mode) == FileType::RegularFile
    });
    if mode.contains(Mode::WOTH) || (mode.contains(Mode::WGRP) && !is_marked) {
        return Err(format!("other users may write to it: {advice}"));
    }
    if mode.intersects(OF_OTHERS) {
        if !is_marked && !names(fd).map_err(failed)?.is_empty() {
            return Err(format!(
                "other users may read it, and it has files that may be meant for them: {advice}, \
                 or take their permission away (chmod 700)"
            ));
        }
        fchmod(fd, DIRECTORY_MODE).map_err(failed)?;
        tracing::info!(
            directory = %path.display(),
            "other users had permissions for the directory of --record, and have none now: its \
             mode was {:04o} and is 0700",
            found.st_mode & 0o7777
        );
    }
    if is_marked {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(fd, MARK, flags, FILE_MODE).map(drop).map_err(failed)
}

fn explain(path: &Path, error: Errno) -> String {
    let parent = path.parent().unwrap_or(path).display();
    match error {
        Errno::NOENT => format!("{parent} does not exist: mount or create it"),
        Errno::LOOP => "it is a symbolic link, which the shim does not follow: name the directory \
                        itself"
            .to_owned(),
        // Linux returns this for a link if a directory is asked for.
        Errno::NOTDIR if path.is_symlink() => explain(path, Errno::LOOP),
        Errno::NOTDIR => "it is not a directory: name another one".to_owned(),
        Errno::ACCESS | Errno::PERM => {
            let user = rustix::process::geteuid().as_raw();
            format!("{error}; user {user} needs permission to write to {parent} and to it")
        }
        error => io::Error::from(error).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn of(directory: &Path) -> Result<Directory, String> {
        Directory::open(directory)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn listed(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_case_is_for_its_owner_alone_and_a_name_that_is_taken_gets_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cases/");
        let cases = of(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        for _ in 0..3 {
            cases.write("a", &[("vmi.json", b"{}".to_vec()), ("unchanged", vec![])]).unwrap();
        }
        fs::write(path.join("b"), "a file").unwrap();
        cases.write("b", &[("vmi.json", b"12345".to_vec())]).unwrap();
        assert_eq!(listed(&path), [MARK, "a", "a-2", "a-3", "b", "b-2"]);
        assert_eq!(listed(&path.join("a-3")), ["unchanged", "vmi.json"]);
        assert_eq!([mode(&path.join("a-3")), mode(&path.join("a-3/vmi.json"))], [0o700, 0o600]);
        assert_eq!(cases.held().unwrap(), Held { cases: 4, bytes: 3 * 2 + 5 });
        assert_eq!(cases.cases().unwrap(), 4);
    }

    #[test]
    fn a_case_that_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cases = of(&dir.path().join("cases")).unwrap();
        let failed = cases.write("a", &[("vmi.json", vec![]), ("no/such", vec![])]);
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(listed(&dir.path().join("cases")), [MARK]);
        cases.write("a", &[("vmi.json", vec![])]).unwrap();
    }

    #[test]
    fn what_a_killed_shim_left_is_removed_and_what_another_one_writes_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        for name in [".partial-1", ".partial-2", ".other", "case"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("vmi.json"), "half").unwrap();
        }
        // Another shim has begun one and has no lock on it yet.
        let lock = |path: &Path| {
            let locked = File::open(path).unwrap();
            flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
            locked
        };
        let begun = lock(dir.path());
        of(dir.path()).unwrap();
        assert_eq!(listed(dir.path()), [".other", ".partial-1", ".partial-2", MARK, "case"]);
        drop(begun);
        let _writing = lock(&dir.path().join(".partial-2"));
        let cases = of(dir.path()).unwrap();
        assert_eq!(listed(dir.path()), [".other", ".partial-2", MARK, "case"]);
        assert_eq!(cases.held().unwrap(), Held { cases: 2, bytes: 8 });
    }

    #[test]
    fn what_kubelet_gives_the_group_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cases");
        let set = |bits| fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        of(&path).unwrap();
        set(0o2770);
        of(&path).unwrap().write("a", &[("vmi.json", vec![])]).unwrap();
        assert_eq!(mode(&path), 0o700);
        set(0o777);
        assert!(of(&path).unwrap_err().starts_with("other users may write to it"));
        set(0o770);
        fs::remove_file(path.join(MARK)).unwrap();
        symlink("/etc/passwd", path.join(MARK)).unwrap();
        assert!(of(&path).unwrap_err().starts_with("other users may write to it"));
        set(0o700);
        assert!(of(&path).unwrap_err().contains("symbolic link"));
    }

    #[test]
    fn a_directory_that_others_may_read_is_taken_from_them_if_it_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bits) in [("all", 0o755), ("group", 0o750), ("enter", 0o711)] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            fs::write(path.join("file"), "").unwrap();
            let fault = of(&path).unwrap_err();
            assert!(fault.starts_with("other users may read it, and it has files"), "{fault}");
            assert_eq!((mode(&path), listed(&path)), (bits, vec!["file".to_owned()]));
            fs::remove_file(path.join("file")).unwrap();
            for _ in 0..2 {
                of(&path).unwrap();
                assert_eq!((mode(&path), listed(&path)), (0o700, vec![MARK.to_owned()]));
            }
        }
    }

    #[test]
    fn a_directory_that_others_can_change_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, bits) in [("group", 0o770), ("all", 0o707)] {
            fs::create_dir(at(name)).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(bits)).unwrap();
            let fault = of(&at(name)).unwrap_err();
            assert!(fault.starts_with("other users may write to it: name a directory"), "{fault}");
            assert!(fault.ends_with(&format!("{}/cases", at(name).display())), "{fault}");
            // The advice is good.
            of(&at(name).join("cases")).unwrap();
        }
        fs::write(at("file"), "").unwrap();
        symlink(at("group/cases"), at("link")).unwrap();
        for (path, expected) in [
            (at("no/cases"), "no does not exist: mount or create it"),
            (at("file"), "it is not a directory"),
            (at("link"), "it is a symbolic link, which the shim does not follow"),
            (at("link/"), "it is a symbolic link, which the shim does not follow"),
        ] {
            let fault = of(&path).unwrap_err();
            assert!(fault.contains(expected), "{}: {fault}", path.display());
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(at("group"), Some(107), None).unwrap();
            let fault = of(&at("group")).unwrap_err();
            assert!(
                fault.starts_with("it belongs to user 107, and the shim runs as user 0"),
                "{fault}"
            );
        }
    }
}
