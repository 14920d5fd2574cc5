//! A listening socket's file: where it may be, what is done with what stands there, and that it goes
//! when its shim does.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::process::umask;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use crate::error::StartError;

/// A Unix socket takes a path of at most this many bytes.
const MAX_PATH_BYTES: usize = 107;

/// How long it may take to find out whether somebody listens. The kernel answers at once.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// How long to wait for other shims that look after sockets in the same directory. Each needs
/// milliseconds.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// How long to wait before the lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What is wrong with the path of a directory.
const A_DIRECTORY: &str = "it is a directory: name a socket in it";

/// A socket's permissions: who may connect is who may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(Mode);

impl SocketMode {
    /// From octal digits, `0660`. `None` if they are no permissions.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777)?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| Self(Mode::from_raw_mode(bits)))
    }

    /// Makes a file that has these permissions from its first moment on.
    fn apply<T>(self, bind: impl FnOnce() -> T) -> T {
        // The mask is the whole process's. There is one thread, and it does nothing else meanwhile.
        let mask = umask(Mode::from_raw_mode(0o777 & !self.0.as_raw_mode()));
        let bound = bind();
        umask(mask);
        bound
    }
}

/// A listening socket that removes its file, if that is still its own.
pub struct Socket {
    pub(super) listener: Option<UnixListener>,
    path: PathBuf,
    identity: Option<Identity>,
}

impl Socket {
    /// Binds a new socket at `path`, which must not exist.
    pub fn bind(path: PathBuf, mode: Option<SocketMode>) -> Result<Self, StartError> {
        check_path(&path)?;
        let bind = || UnixListener::bind(&path);
        match mode.map_or_else(bind, |mode| mode.apply(bind)) {
            Ok(listener) => {
                let identity = Identity::of(&path).ok();
                Ok(Self { listener: Some(listener), path, identity })
            }
            Err(error) => Err(StartError::Listen { path, why: explain(&error) }),
        }
    }

    /// Binds a socket at a path that stays the same over the lives of many shims. Its directory is
    /// made if it is missing, and the file of a shim that is gone is replaced. One that somebody
    /// listens at is not, nor is anything that is no socket.
    pub async fn claim(path: PathBuf, mode: Option<SocketMode>) -> Result<Self, StartError> {
        check_path(&path)?;
        let failed = |why| StartError::Listen { path: path.clone(), why };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(directory).map_err(|error| {
            failed(format!("its directory cannot be made: {}", explain(&error)))
        })?;
        // Of two shims that start at once, one would remove the other's new socket for the old one.
        let lock = lock(directory).await.map_err(|error| failed(explain(&error)))?;
        if let Some(why) = clear(&path).await {
            return Err(failed(why));
        }
        let bound = Self::bind(path, mode);
        drop(lock);
        bound
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file.
    pub(super) fn remove(&mut self) {
        let Some(identity_at_bind) = self.identity.take() else { return };
        if Identity::of(&self.path).is_ok_and(|now| now == identity_at_bind)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), "cannot remove the socket: {error}");
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Refuses a path that cannot be bound.
pub fn check_path(path: &Path) -> Result<(), StartError> {
    let bytes = path.as_os_str().as_bytes();
    let why = if bytes.len() > MAX_PATH_BYTES {
        let bytes = bytes.len();
        format!("its path is {bytes} bytes long, at most {MAX_PATH_BYTES} can be bound")
    } else if bytes.ends_with(b"/") {
        A_DIRECTORY.to_owned()
    } else {
        return Ok(());
    };
    Err(StartError::Listen { path: path.to_owned(), why })
}

/// What the system said, and of a lack of permission, who lacks it: a container's user is rarely the
/// one who made the directory.
fn explain(error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error.to_string();
    }
    let user = rustix::process::geteuid();
    format!("{error}; user {user} has to be able to read and write the directory")
}

/// Which file it is, whatever its name.
#[derive(PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        std::fs::symlink_metadata(path).map(|found| Self::from(&found))
    }
}

impl From<&std::fs::Metadata> for Identity {
    fn from(found: &std::fs::Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

/// Locks a directory, until the file is dropped.
async fn lock(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    let limit = Instant::now() + LOCK_LIMIT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < limit => sleep(LOCK_PAUSE).await,
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::other("another process holds a lock on its directory"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes the file of a shim that is gone. Whatever else is there stays, and is what is in the way.
async fn clear(path: &Path) -> Option<String> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(explain(&error)),
    };
    if found.is_dir() {
        return Some(A_DIRECTORY.to_owned());
    }
    if found.is_symlink() {
        return Some("it is a symbolic link, and those are not followed: remove it".to_owned());
    }
    if !found.file_type().is_socket() {
        return Some("there is something that is no socket: move it away".to_owned());
    }
    let in_use = |by: String| {
        Some(format!("{by} listens there, and is not replaced: stop it, or name another socket"))
    };
    match timeout(PROBE_LIMIT, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => {
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).filter(|pid| *pid > 0);
            return in_use(pid.map_or("a process".to_owned(), |pid| format!("process {pid}")));
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return None,
        // It has more connections waiting than it takes.
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            return in_use("a process".to_owned());
        }
        Ok(Err(error)) => {
            return Some(format!(
                "whether somebody listens there is unknown: {error}; if nobody does, remove it"
            ));
        }
        Err(_) => return in_use("a process".to_owned()),
    }
    if Identity::of(path).is_ok_and(|now| now != Identity::from(&found)) {
        return in_use("a process".to_owned());
    }
    tracing::info!(path = %path.display(), "the socket of a process that is gone is replaced");
    std::fs::remove_file(path)
        .err()
        .map(|error| format!("its old socket cannot be removed: {}", explain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_permission_is_told_with_the_user_who_lacks_it() {
        let user = rustix::process::geteuid();
        let expected = format!("user {user} has to be able to read and write the directory");
        assert!(explain(&io::Error::from(Errno::ACCESS)).ends_with(&expected));
        assert!(!explain(&io::Error::from(Errno::NOSPC)).contains("user"));
    }

    #[test]
    fn a_mode_is_octal_permissions() {
        for (text, bits) in [("660", 0o660), ("0666", 0o666), ("0", 0), ("777", 0o777)] {
            assert_eq!(SocketMode::parse(text), Some(SocketMode(Mode::from_raw_mode(bits))));
        }
        for text in ["", "8", "1777", "0o660", "+660", "-1", "rw"] {
            assert_eq!(SocketMode::parse(text), None, "{text:?}");
        }
    }
}
