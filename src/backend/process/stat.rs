//! What the kernel says of a process in `/proc/PID/stat`.

use std::fs::File;
use std::io::Read;

/// Maximum number of bytes of the file that are read: the fields up to the process group, behind a
/// name of up to 64 bytes.
const MAX_BYTES: u64 = 256;

/// `PID (NAME) STATE PARENT GROUP …`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
}

impl Stat {
    /// `None` if the process does not exist.
    pub(super) fn of(pid: i32) -> Option<Self> {
        Self::read(File::open(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `None` if the process does not exist any more.
    pub(super) fn read(file: File) -> Option<Self> {
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    fn parse(text: &str) -> Option<Self> {
        let pid = text.split(' ').next()?.parse().ok()?;
        // The name may contain spaces and parentheses, and nothing behind it does.
        let mut fields = text.rsplit_once(") ")?.1.split(' ').skip(1);
        let mut number = || fields.next()?.parse().ok();
        Some(Self { pid, parent: number()?, group: number()? })
    }
}

/// Returns all processes that exist. One that is listed may have exited since.
pub(super) fn all() -> impl Iterator<Item = Stat> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| Stat::of(process.file_name().to_str()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_fields() {
        let stat = Stat::parse("7 (a) S 1 (b) S 3 4 5 -1 4194560").unwrap();
        assert_eq!(stat, Stat { pid: 7, parent: 3, group: 4 });
        assert_eq!(Stat::parse("7 (a) S 3"), None);
    }

    #[test]
    fn this_process_is_listed_with_its_parent() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let parent = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        let listed: Vec<Stat> = all().filter(|stat| stat.pid == pid).collect();
        assert_eq!(listed.iter().map(|stat| stat.parent).collect::<Vec<_>>(), [parent]);
    }
}
