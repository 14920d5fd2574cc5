//! A control group with limits on CPU time and memory, of cgroup v1 or v2, whichever has both
//! controllers.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Where Linux systems mount the hierarchies.
const ROOT: &str = "/sys/fs/cgroup";

/// CFS period: the default of the kernel and of Kubernetes.
const PERIOD_US: u64 = 100_000;

/// Attempts to remove a group, a millisecond apart: its last process may still be exiting.
const REMOVE_TRIES: usize = 1000;

/// A group, removed when dropped.
pub struct Cgroup {
    /// One directory for each hierarchy.
    directories: Vec<PathBuf>,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// How often, and for how long in all, a group had used up its share of the CPU.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Throttled {
    pub periods: u64,
    /// Summed over the CPUs that were throttled.
    pub ms: f64,
}

impl Cgroup {
    /// Makes a group with limits in bytes and thousandths of a CPU. Fails without root, and where
    /// the controllers are missing.
    pub fn new(memory: u64, millicpu: u64) -> Result<Self> {
        let name = format!("sidecar-shim-bench-{}", std::process::id());
        let root = Path::new(ROOT);
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let has = |name| controllers.split_ascii_whitespace().any(|controller| controller == name);
        let (version, directories) = if has("cpu") && has("memory") {
            (Version::Two, vec![root.join(&name)])
        } else if root.join("cpu/cpu.cfs_quota_us").exists() || root.join("memory/tasks").exists() {
            (Version::One, vec![root.join("cpu").join(&name), root.join("memory").join(&name)])
        } else {
            bail!("{ROOT} has no controllers for CPU time and memory");
        };
        let group = Self { directories, version };
        if version == Version::Two {
            write(&root.join("cgroup.subtree_control"), "+cpu +memory")?;
        }
        for directory in &group.directories {
            fs::create_dir(directory).with_context(|| {
                format!("cannot make the control group {}", directory.display())
            })?;
        }
        let quota = millicpu * PERIOD_US / 1000;
        match version {
            Version::One => {
                write(&group.cpu().join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                write(&group.cpu().join("cpu.cfs_quota_us"), &quota.to_string())?;
                write(&group.memory().join("memory.limit_in_bytes"), &memory.to_string())?;
            }
            Version::Two => {
                write(&group.cpu().join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
                write(&group.memory().join("memory.max"), &memory.to_string())?;
            }
        }
        Ok(group)
    }

    fn cpu(&self) -> &Path {
        &self.directories[0]
    }

    fn memory(&self) -> &Path {
        self.directories.last().unwrap_or(&self.directories[0])
    }

    /// Moves a process into the group. Its children will be in it too.
    pub fn add(&self, pid: u32) -> Result<()> {
        let procs = self.directories.iter().map(|directory| directory.join("cgroup.procs"));
        procs.into_iter().try_for_each(|procs| write(&procs, &pid.to_string()))
    }

    /// Peak of the memory that the group was charged with, kernel memory included.
    pub fn peak_memory(&self) -> Option<u64> {
        let name = match self.version {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        };
        fs::read_to_string(self.memory().join(name)).ok()?.trim().parse().ok()
    }

    pub fn throttled(&self) -> Option<Throttled> {
        Throttled::parse(&fs::read_to_string(self.cpu().join("cpu.stat")).ok()?)
    }
}

impl Throttled {
    /// Reads `cpu.stat` of either version.
    fn parse(stat: &str) -> Option<Self> {
        let field = |name| {
            let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            value.parse::<u64>().ok()
        };
        let v1 = || field("throttled_time").map(Duration::from_nanos);
        let time = field("throttled_usec").map(Duration::from_micros).or_else(v1)?;
        Some(Self { periods: field("nr_throttled")?, ms: crate::stats::ms(time) })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for directory in &self.directories {
            for _ in 0..REMOVE_TRIES {
                if fs::remove_dir(directory).is_ok() || !directory.exists() {
                    break;
                }
                sleep(Duration::from_millis(1));
            }
        }
    }
}

fn write(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("cannot write {value} to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_statistics_of_both_versions() {
        let v1 = "nr_periods 9\nnr_throttled 4\nthrottled_time 310500000\nnr_bursts 0\n";
        let v2 = "usage_usec 7\nnr_periods 9\nnr_throttled 4\nthrottled_usec 310500\n";
        for stat in [v1, v2] {
            assert_eq!(Throttled::parse(stat), Some(Throttled { periods: 4, ms: 310.5 }));
        }
        // Without the controller, cgroup v2 counts usage alone.
        assert_eq!(Throttled::parse("usage_usec 7\n"), None);
    }
}
