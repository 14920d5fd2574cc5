//! CPU time and memory of a server and the processes that it has started, from `/proc`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

use crate::markdown::mib;

/// Memory of a server, in bytes of resident pages. Pages that processes share count for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// The server itself.
    pub server: u64,
    /// Sum of all processes that it has started.
    pub workers: u64,
    pub worker_count: usize,
}

impl fmt::Display for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worker_count {
            0 => write!(formatter, "{} MiB", mib(self.server)),
            _ => write!(formatter, "{} + {} MiB", mib(self.server), mib(self.workers)),
        }
    }
}

/// CPU time so far of a process, of its descendants, and of those that have exited and were waited
/// for.
pub fn cpu(root: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for pid in tree(root)? {
        // One that exits meanwhile is counted with its parent next time.
        total += running(pid).unwrap_or_default();
        total += reaped(pid).unwrap_or_default();
    }
    Ok(total)
}

/// Memory now.
pub fn memory(root: u32) -> Result<Memory> {
    read_memory(root, "status", "VmRSS:")
}

/// The peak of each process that runs now.
pub fn peak_memory(root: u32) -> Result<Memory> {
    read_memory(root, "status", "VmHWM:")
}

/// Memory now, in which a page that several processes share counts for each with its part only.
pub fn shared_memory(root: u32) -> Result<Memory> {
    read_memory(root, "smaps_rollup", "Pss:")
}

fn read_memory(root: u32, file: &str, field: &str) -> Result<Memory> {
    let read = |pid| -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
        Ok(kib(&status, field).with_context(|| format!("it has no {field}"))? * 1024)
    };
    let mut memory = Memory { server: read(root)?, ..Memory::default() };
    for pid in tree(root)?.into_iter().filter(|pid| *pid != root) {
        if let Ok(bytes) = read(pid) {
            memory.workers += bytes;
            memory.worker_count += 1;
        }
    }
    Ok(memory)
}

/// A process and its descendants.
pub fn tree(root: u32) -> Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Ok(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(found)
}

/// Fields of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time of children that were waited for, in clock ticks.
    reaped: u64,
}

impl Stat {
    fn read(pid: u32) -> Result<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
    }

    fn parse(stat: &str) -> Result<Self> {
        // The name in brackets may hold anything.
        let (_, fields) = stat.rsplit_once(") ").context("no name in it")?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // The first of them is the third in proc(5), which counts from 1.
        let field = |number: usize| fields.get(number - 3).context("a field is missing");
        Ok(Self {
            parent: field(4)?.parse()?,
            reaped: field(16)?.parse::<u64>()? + field(17)?.parse::<u64>()?,
        })
    }
}

/// CPU time of all threads that a process has now, to the nanosecond (`stat` has hundredths of a
/// second). Of a process that has exited and was not waited for, that of its main thread.
pub fn running(pid: u32) -> Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        total += text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

fn reaped(pid: u32) -> Result<Duration> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?.context("the kernel has no clock tick")?;
    let ticks = u64::try_from(ticks)?;
    Ok(Duration::from_nanos(Stat::read(pid)?.reaped * 1_000_000_000 / ticks))
}

/// A line such as `VmRSS:      4912 kB`.
fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194304 100 0 0 0 11 12 13 14 20 0 1 0 5000 1 1";
        assert_eq!(Stat::parse(stat).unwrap(), Stat { parent: 7, reaped: 27 });
        assert!(Stat::parse("42 (a) S 7").is_err());
    }

    #[test]
    fn reads_memory_by_name() {
        let status = "Name:\tx\nVmPeak:\t 9 kB\nVmRSS:\t    4912 kB\n";
        assert_eq!(kib(status, "VmRSS:"), Some(4912));
        assert_eq!(kib(status, "VmHWM:"), None);
    }

    #[test]
    fn a_child_is_part_of_the_tree_and_its_time_is_counted() {
        let own = std::process::id();
        let before = cpu(own).unwrap();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo; read x"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It has done its work once it says so.
        let mut said = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert!(tree(own).unwrap().contains(&child.id()));
        assert!(memory(own).unwrap().worker_count >= 1);
        let (own_part, all) = (shared_memory(own).unwrap().server, memory(own).unwrap().server);
        assert!(own_part > 0 && own_part <= all, "{own_part} of {all}");
        let alive = cpu(own).unwrap();
        assert!(alive > before);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!tree(own).unwrap().contains(&child.id()));
        // Now it is counted in ticks.
        assert!(cpu(own).unwrap() + Duration::from_millis(20) > alive);
    }
}
