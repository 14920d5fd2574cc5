//! The memory limit of the container: the smallest one of the process's cgroup and those above it.

use std::fs;
use std::path::{Path, PathBuf};

/// The smallest number that cgroup v1 shows where there is no limit: the largest multiple of the
/// page size, which is 64 KiB at most.
const V1_NO_LIMIT: u64 = i64::MAX.cast_unsigned() & !0xffff;

/// The budget where the container has no limit: a call of 16 MiB and thirty ordinary ones.
const BUDGET_WITHOUT_LIMIT: u64 = 64 << 20;

/// The least that a call with small documents can run with: a mebibyte, and as much for the
/// connections of others.
pub const MIN_MEMORY_BUDGET: u64 = 2 << 20;

/// Returns the budget of bytes for connections and calls if none is given: 3/8 of the container's
/// limit. The rest is for the shim itself and for its workers.
#[must_use]
pub fn default_memory_budget() -> usize {
    let budget = memory_limit().map_or(BUDGET_WITHOUT_LIMIT, |limit| limit / 8 * 3);
    usize::try_from(budget.max(MIN_MEMORY_BUDGET)).unwrap_or(usize::MAX)
}

/// Returns the memory limit in bytes, if there is one.
fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    smallest(&groups, Path::new("/sys/fs/cgroup"))
}

/// `groups` has a line `ID:CONTROLLERS:PATH` for each hierarchy; version 2's has no controllers.
fn smallest(groups: &str, mounts: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next().unwrap_or_default();
        let path = fields.next().unwrap_or_default();
        let (mount, file) = if controllers.is_empty() {
            (mounts.to_owned(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (mounts.join("memory"), "memory.limit_in_bytes")
        } else {
            return Vec::new();
        };
        // In a container the mount may begin at the container's own group, whose path here is
        // that of the host: the directories that exist are those that count.
        let below = PathBuf::from(path.trim_start_matches('/'));
        below.ancestors().filter_map(|group| limit(&mount.join(group).join(file))).collect()
    });
    limits.min()
}

fn limit(file: &Path) -> Option<u64> {
    // "max" is not a number.
    let limit = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < V1_NO_LIMIT).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(mounts: &Path, file: &str, limit: &str) {
        let file = mounts.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("{limit}\n")).unwrap();
    }

    #[test]
    fn the_smallest_limit_up_the_path_counts() {
        let mounts = tempfile::tempdir().unwrap();
        let mounts = mounts.path();
        write(mounts, "a/memory.max", "300000000");
        write(mounts, "a/b/memory.max", "64000000");
        write(mounts, "a/b/c/memory.max", "max");
        assert_eq!(smallest("0::/a/b/c\n", mounts), Some(64_000_000));
        assert_eq!(smallest("0::/a\n", mounts), Some(300_000_000));
        assert_eq!(smallest("0::/\n", mounts), None);
    }

    #[test]
    fn version_1_has_a_number_for_no_limit_and_paths_of_the_host() {
        let mounts = tempfile::tempdir().unwrap();
        let mounts = mounts.path();
        write(mounts, "memory/memory.limit_in_bytes", "64000000");
        write(mounts, "memory/pod/memory.limit_in_bytes", "9223372036854771712");
        let groups = "12:cpu,cpuacct:/pod\n5:memory:/pod\n";
        assert_eq!(smallest(groups, mounts), Some(64_000_000));
        assert_eq!(smallest("5:memory:/kubepods/pod1/container2", mounts), Some(64_000_000));
        // With pages of 4 KiB, and of 64 KiB, which some kernels for arm64 have.
        for no_limit in ["9223372036854771712", "9223372036854710272"] {
            write(mounts, "memory/memory.limit_in_bytes", no_limit);
            assert_eq!(smallest(groups, mounts), None, "{no_limit}");
        }
        assert_eq!(smallest("1:name=systemd:/x", mounts), None);
    }
}
