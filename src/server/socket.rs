//! The file of a listening socket: where it may be, what may be replaced there, and its removal
//! when the shim stops.

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

/// Maximum length of a Unix socket's path: the kernel's 108 bytes, less the terminating NUL.
const MAX_PATH_BYTES: usize = 107;

/// Timeout for finding out whether a process listens. The kernel answers at once.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Timeout for the lock that other shims hold while they bind sockets in the same directory. Each
/// needs milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between attempts to take the lock.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The obstacle if the path is a directory's.
const IS_DIRECTORY: &str = "it is a directory: name a socket in it";

/// The permissions of a socket's file. To connect takes the permission to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(Mode);

impl SocketMode {
    /// Parses octal digits, `0660`. Returns `None` unless they are permissions.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777)?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| Self(Mode::from_raw_mode(bits)))
    }

    /// Calls `bind`, whose file has these permissions from its creation on.
    fn apply<T>(self, bind: impl FnOnce() -> T) -> T {
        // The mask belongs to the whole process, whose one thread creates no other file meanwhile.
        let mask = umask(Mode::from_raw_mode(0o777 & !self.0.as_raw_mode()));
        let bound = bind();
        umask(mask);
        bound
    }
}

/// A listening socket. It removes its file when it is dropped, unless another shim has replaced it.
pub struct Socket {
    pub(super) listener: Option<UnixListener>,
    path: PathBuf,
    identity: Option<Identity>,
}

impl Socket {
    /// Binds a socket at `path`, which must not exist.
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

    /// Binds a socket at a path that every instance of a shim uses. Creates its directory if it is
    /// missing, and replaces the stale socket of a shim that has gone. Replaces nothing else:
    /// neither a socket that a process listens on nor another kind of file.
    pub async fn bind_replacing_stale(
        path: PathBuf,
        mode: Option<SocketMode>,
    ) -> Result<Self, StartError> {
        check_path(&path)?;
        let failed = |why| StartError::Listen { path: path.clone(), why };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(directory)
            .map_err(|error| failed(format!("cannot create its directory: {}", explain(&error))))?;
        // Of two shims that start at once, one would take the other's new socket for the stale one.
        let lock = lock(directory).await.map_err(|error| failed(explain(&error)))?;
        if let Some(why) = remove_stale(&path).await {
            return Err(failed(why));
        }
        let bound = Self::bind(path, mode);
        drop(lock);
        bound
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, unless another shim has replaced it.
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

/// Rejects a path that no socket can have.
pub fn check_path(path: &Path) -> Result<(), StartError> {
    let bytes = path.as_os_str().as_bytes();
    let why = if bytes.len() > MAX_PATH_BYTES {
        let bytes = bytes.len();
        format!("its path is {bytes} bytes long; the maximum is {MAX_PATH_BYTES}")
    } else if bytes.ends_with(b"/") {
        IS_DIRECTORY.to_owned()
    } else {
        return Ok(());
    };
    Err(StartError::Listen { path: path.to_owned(), why })
}

/// Returns the system's reason and, if it is a lack of permission, the user who lacks it: a
/// container's user is rarely the one who created the directory.
fn explain(error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error.to_string();
    }
    let user = rustix::process::geteuid();
    format!("{error}; user {user} needs permission to read and write the directory")
}

/// Tells files of the same name apart.
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

/// Locks a directory until the returned file is dropped.
async fn lock(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(LOCK_RETRY_INTERVAL).await,
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::other("another process holds a lock on its directory"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes a socket that no process listens on. Anything else is left in place and returned as the
/// obstacle.
async fn remove_stale(path: &Path) -> Option<String> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(explain(&error)),
    };
    if found.is_dir() {
        return Some(IS_DIRECTORY.to_owned());
    }
    if found.is_symlink() {
        return Some("it is a symbolic link, which the shim does not follow: remove it".to_owned());
    }
    if !found.file_type().is_socket() {
        return Some("a file that is not a socket is there: move it away".to_owned());
    }
    let in_use =
        |by: String| Some(format!("{by} listens there: stop it, or choose another socket"));
    match timeout(PROBE_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => {
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).filter(|pid| *pid > 0);
            return in_use(pid.map_or("a process".to_owned(), |pid| format!("process {pid}")));
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return None,
        // Its backlog is full.
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            return in_use("a process".to_owned());
        }
        Ok(Err(error)) => {
            return Some(format!(
                "cannot find out whether a process listens there: {error}; if none does, remove it"
            ));
        }
        Err(_) => return in_use("a process".to_owned()),
    }
    if Identity::of(path).is_ok_and(|now| now != Identity::from(&found)) {
        return in_use("a process".to_owned());
    }
    tracing::info!(path = %path.display(), "replacing a stale socket: no process listens there");
    std::fs::remove_file(path)
        .err()
        .map(|error| format!("cannot remove the stale socket: {}", explain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_permission_names_the_user_who_lacks_it() {
        let user = rustix::process::geteuid();
        let expected = format!("user {user} needs permission to read and write the directory");
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
