//! A control group with limits on CPU time and memory, in the hierarchies of version 1 or in that of
//! version 2, whichever has both controllers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Where Linux systems mount them.
const ROOT: &str = "/sys/fs/cgroup";

/// The time that a share of a CPU is counted over: the kernel's default, and Kubernetes'.
const PERIOD_US: u64 = 100_000;

/// How often a group that ought to be empty is tried to be removed, a millisecond apart: its last
/// process may still be on its way out.
const REMOVE_TRIES: usize = 1000;

/// A group, removed when dropped.
pub struct Cgroup {
    /// Its directories: one for each hierarchy.
    directories: Vec<PathBuf>,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroup {
    /// Makes one with so many bytes of memory and so many thousandths of a CPU. Fails where that is
    /// not possible: not as root, or without the controllers.
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

    /// The same command, run in the group with all that it starts.
    pub fn wrap(&self, inner: &Command) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(
            r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@""#,
        );
        command.arg("sh").args(&self.directories).arg("--").arg(inner.get_program());
        command.args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// The most memory that was in use at once, what the kernel keeps for the group included.
    pub fn peak_memory(&self) -> Option<u64> {
        let name = match self.version {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        };
        fs::read_to_string(self.memory().join(name)).ok()?.trim().parse().ok()
    }

    /// In how many of the periods the group was stopped because its share was used up.
    pub fn throttled(&self) -> Option<u64> {
        let stat = fs::read_to_string(self.cpu().join("cpu.stat")).ok()?;
        stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse().ok())
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
