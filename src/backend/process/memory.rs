//! The memory of processes.

use std::path::Path;

/// Returns the bytes in RAM of all processes in a group: a worker may run below a shell.
pub(super) fn of_group(group: i32) -> u64 {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    let members = processes.flatten().map(|process| process.path());
    members
        .filter(|process| group_of(process) == Some(group))
        .map(|process| resident(&process))
        .sum()
}

/// Reads the group from `PID (NAME) STATE PARENT GROUP …`. `None` if the process does not exist.
fn group_of(process: &Path) -> Option<i32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()
}

/// Reads the line `VmRSS:    1234 kB`. Returns 0 for a process that has exited.
fn resident(process: &Path) -> u64 {
    let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kilobytes: u64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    kilobytes * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_group() {
        let group = group_of(Path::new("/proc/self")).unwrap();
        let before = of_group(group);
        let mut more = vec![0_u8; 64 << 20];
        more.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        // Other threads of this process come and go meanwhile.
        assert!(of_group(group) > before + (32 << 20), "{before} bytes before");
        assert_eq!(more.iter().step_by(4096).map(|&byte| usize::from(byte)).sum::<usize>(), 16384);
    }
}
