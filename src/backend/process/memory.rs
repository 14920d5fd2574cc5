//! The memory of processes.

use super::stat;

/// Returns the bytes in RAM of all processes in a group: a worker may run below a shell.
pub(super) fn of_group(group: i32) -> u64 {
    stat::all().filter(|process| process.group == group).map(|process| resident(process.pid)).sum()
}

/// Returns the bytes of one process in RAM. `None` if it does not exist.
#[must_use]
pub fn resident_bytes(pid: i32) -> Option<u64> {
    Some(resident(pid)).filter(|bytes| *bytes > 0)
}

/// Reads the line `VmRSS:    1234 kB`. Returns 0 for a process that has exited.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kilobytes: u64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    kilobytes * 1024
}

#[cfg(test)]
mod tests {
    use super::stat::Stat;
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_group() {
        let group = Stat::of(std::process::id().cast_signed()).unwrap().group;
        let before = of_group(group);
        let mut more = vec![0_u8; 64 << 20];
        more.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        // Other threads of this process come and go meanwhile.
        assert!(of_group(group) > before + (32 << 20), "{before} bytes before");
        assert_eq!(more.iter().step_by(4096).map(|&byte| usize::from(byte)).sum::<usize>(), 16384);
    }
}
