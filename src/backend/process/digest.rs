//! Digests of the programs and scripts that run: computed when someone asks, in a thread, because
//! the files may be long and their disk slow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout};

/// The shim's own program, even if its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Maximum number of files: exec mode has a program for each hook.
const MAX_FILES: usize = 32;

/// Maximum length of all files together. Interpreters have a few megabytes, programs in Go a few
/// dozen.
const MAX_BYTES: u64 = 256 << 20;

/// Time for all digests. A CPU of a sidecar's share does about 100 MiB per second.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Time for which digests are remembered, however often someone asks.
const KEEP_FOR: Duration = Duration::from_secs(10);

const CHUNK_BYTES: usize = 64 * 1024;

/// Stack of the thread: a chunk, and little more.
const STACK_BYTES: usize = 256 * 1024;

/// A file, and the SHA-256 of its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigest {
    pub path: PathBuf,
    /// In hexadecimal digits, or why there is none.
    pub sha256: Result<String, String>,
}

/// The last digests, and those that are being computed.
#[derive(Debug, Default)]
pub(in crate::backend) struct Digests(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, Arc<[FileDigest]>)>,
    /// Of the thread that runs. There is one at most: it may be stuck in a read.
    coming: Option<oneshot::Receiver<Vec<FileDigest>>>,
}

impl Digests {
    /// Returns the digests of the shim's program and of these files, at most [`KEEP_FOR`] old.
    pub(in crate::backend) async fn of(&self, files: Vec<PathBuf>) -> Arc<[FileDigest]> {
        let mut state = self.0.lock().await;
        if let Some((at, digests)) = &state.last
            && at.elapsed() < KEEP_FOR
        {
            return digests.clone();
        }
        let all: Vec<_> = std::iter::once(OWN_PROGRAM.into()).chain(files).collect();
        let coming = state.coming.get_or_insert_with(|| start(all.clone()));
        let digests = match timeout(TIME_LIMIT * 2, coming).await {
            Ok(found) => {
                state.coming = None;
                found.unwrap_or_else(|_| none_of(&all, "no thread can be started to compute it"))
            }
            Err(_) => none_of(&all, "its disk does not answer"),
        };
        let digests: Arc<[_]> = digests.into();
        state.last = Some((Instant::now(), digests.clone()));
        digests
    }
}

fn none_of(files: &[PathBuf], why: &str) -> Vec<FileDigest> {
    let none = |path: &PathBuf| FileDigest { path: path.clone(), sha256: Err(why.to_owned()) };
    files.iter().take(MAX_FILES).map(none).collect()
}

/// Starts a thread that computes the digests. Nothing is received if there cannot be one.
fn start(files: Vec<PathBuf>) -> oneshot::Receiver<Vec<FileDigest>> {
    let (done, coming) = oneshot::channel();
    let thread = std::thread::Builder::new().name("digests".to_owned()).stack_size(STACK_BYTES);
    // Not tokio's: the end of the program would wait for one that is stuck.
    let _ = thread.spawn(move || {
        let _ = done.send(compute(&files, MAX_BYTES, std::time::Instant::now() + TIME_LIMIT));
    });
    coming
}

/// Computes digests of files, of each once. The shortest come first, so that a long one does not
/// take the time of all others.
fn compute(files: &[PathBuf], max_bytes: u64, until: std::time::Instant) -> Vec<FileDigest> {
    let mut seen = BTreeSet::new();
    let mut opened = Vec::new();
    for path in files.iter().take(MAX_FILES) {
        let found = open(path);
        if found.as_ref().is_ok_and(|found| !seen.insert(found.identity)) {
            continue;
        }
        let own = (path == Path::new(OWN_PROGRAM)).then(|| std::fs::read_link(path).ok());
        opened.push((opened.len(), own.flatten().unwrap_or_else(|| path.clone()), found));
    }
    opened.sort_by_key(|(_, _, found)| found.as_ref().map_or(0, |found| found.bytes));
    let mut left = max_bytes;
    let mut digests = BTreeMap::new();
    for (place, path, found) in opened {
        let sha256 = found.and_then(|found| digest(found.file, &mut left, until));
        digests.insert(place, FileDigest { path, sha256 });
    }
    digests.into_values().collect()
}

/// A file that was opened.
struct Opened {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    bytes: u64,
}

/// Opens a file. A FIFO in its place blocks nothing.
fn open(path: &Path) -> Result<Opened, String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map(File::from);
    let file = file.map_err(|error| std::io::Error::from(error).to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    let identity = (metadata.dev(), metadata.ino());
    Ok(Opened { file, identity, bytes: metadata.len() })
}

fn digest(mut file: File, left: &mut u64, until: std::time::Instant) -> Result<String, String> {
    let mut sha = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = file.read(&mut chunk).map_err(|error| error.to_string())?;
        if count == 0 {
            return Ok(hexadecimal(&sha.finalize()));
        }
        *left = left.saturating_sub(count as u64);
        if *left == 0 {
            return Err("the files are longer than 256 MiB in all".to_owned());
        }
        if std::time::Instant::now() > until {
            return Err("there was no time for it".to_owned());
        }
        sha.update(&chunk[..count]);
    }
}

/// Returns bytes in hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // From FIPS 180.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn later() -> std::time::Instant {
        std::time::Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn each_file_has_one_digest_or_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let [abc, link, fifo] = ["abc", "link", "fifo"].map(|name| dir.path().join(name));
        std::fs::write(&abc, "abc").unwrap();
        std::fs::hard_link(&abc, &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let files = [abc.clone(), link, fifo.clone(), dir.path().to_owned(), "/nowhere".into()];
        let digests = compute(&files, MAX_BYTES, later());
        let found: Vec<_> = digests.iter().map(|it| (&*it.path, it.sha256.as_deref())).collect();
        assert_eq!(found[0], (&*abc, Ok(ABC)));
        let not_a_file = Err("it is not a file");
        assert_eq!(found[1].1.map_err(String::as_str), not_a_file);
        assert_eq!(found[2].1.map_err(String::as_str), not_a_file);
        assert!(found[3].1.unwrap_err().starts_with("No such file"), "{found:?}");
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn neither_bytes_nor_time_are_unlimited() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("long");
        std::fs::write(&file, vec![0; 3 * CHUNK_BYTES]).unwrap();
        let files = [file];
        let reason = |max_bytes, until| compute(&files, max_bytes, until)[0].sha256.clone();
        assert!(reason(1 << 20, later()).is_ok());
        assert!(reason(2 * CHUNK_BYTES as u64, later()).unwrap_err().contains("256 MiB"));
        let past = std::time::Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        assert!(reason(1 << 20, past).unwrap_err().contains("no time"));
    }

    #[tokio::test]
    async fn the_own_program_is_the_first_and_digests_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hook");
        std::fs::write(&file, "abc").unwrap();
        let digests = Digests::default();
        let found = digests.of(vec![file.clone()]).await;
        assert_eq!(found[0].path, std::env::current_exe().unwrap());
        assert_eq!(found[1], FileDigest { path: file.clone(), sha256: Ok(ABC.to_owned()) });
        std::fs::write(&file, "abcd").unwrap();
        assert_eq!(digests.of(vec![file]).await, found);
    }
}
