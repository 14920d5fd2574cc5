//! What the kernel says of this process, for the metrics that all programs have.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Numbers of this process. What cannot be read is 0.
#[derive(Debug, Default)]
pub(super) struct ThisProcess {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
}

impl ThisProcess {
    pub(super) fn read() -> Self {
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = statm.split(' ').map_while(|field| field.parse::<u64>().ok());
        let mut bytes = || pages.next().unwrap_or(0) * rustix::param::page_size() as u64;
        let (virtual_bytes, resident_bytes) = (bytes(), bytes());
        Self {
            cpu_seconds: cpu_seconds().unwrap_or(0.0),
            resident_bytes,
            virtual_bytes,
            // The directory that is being read is one of them.
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64 - 1),
            // A process without a limit has none.
            max_fds: getrlimit(Resource::Nofile).current.unwrap_or(0),
        }
    }
}

/// Returns the time that the process has run on a CPU.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Fields 14 and 15, of which the third stands behind the name.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Some((f64::from(ticks()?) + f64::from(ticks()?)) / f64::from(per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_some_of_everything() {
        let mut work = 0_u64;
        while cpu_seconds().unwrap() == 0.0 {
            work = work.wrapping_add(1);
        }
        let ThisProcess { cpu_seconds, resident_bytes, virtual_bytes, open_fds, max_fds } =
            ThisProcess::read();
        assert!(cpu_seconds > 0.0 && cpu_seconds < 3600.0, "{cpu_seconds} after {work} rounds");
        assert!(1 << 20 < resident_bytes && resident_bytes < virtual_bytes, "{resident_bytes}");
        assert!(3 <= open_fds && open_fds <= max_fds, "{open_fds}");
    }
}
