//! Which CPUs client and server run on.
//!
//! With one client, one side waits while the other works, and by chance the kernel lets shim and
//! worker share a CPU or not. On a virtual machine a call over two idle CPUs takes 1.5 times as
//! long. So the client has one CPU, and the server with its processes another, if there are two.
//! Several clients, and two workers, have all CPUs.

use std::fs;

use anyhow::Result;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::proc;

/// The calling thread.
const SELF: Pid = Pid::from_raw(0);

/// The CPUs of the measurement.
pub struct Cpus {
    all: CpuSet,
    /// One for the client, and one for the server.
    apart: Option<(CpuSet, CpuSet)>,
}

impl Cpus {
    /// Those that this process may use, `apart` if there are two.
    pub fn new(apart: bool) -> Result<Self> {
        let all = sched_getaffinity(SELF)?;
        let mut numbers = Vec::new();
        for number in 0..CpuSet::count() {
            if all.is_set(number)? {
                numbers.push(number);
            }
        }
        let apart = match numbers[..] {
            [server, .., client] if apart => Some((one(client)?, one(server)?)),
            _ => None,
        };
        Ok(Self { all, apart })
    }

    /// Whether a client and its server have a CPU each.
    pub fn are_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// Sets the CPUs of a server while it has this many clients.
    pub fn place_server(&self, server: u32, clients: usize) -> Result<()> {
        let cpus = match &self.apart {
            Some((_, server)) if clients == 1 => server,
            _ => &self.all,
        };
        for process in proc::tree(server)? {
            for thread in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
                if let Some(Ok(thread)) = thread.file_name().to_str().map(str::parse) {
                    // It may have exited meanwhile.
                    let _ = sched_setaffinity(Pid::from_raw(thread), cpus);
                }
            }
        }
        Ok(())
    }

    /// Sets the CPUs of this thread, which runs this many clients.
    pub fn place_clients(&self, clients: usize) -> Result<()> {
        let cpus = match &self.apart {
            Some((client, _)) if clients == 1 => client,
            _ => &self.all,
        };
        Ok(sched_setaffinity(SELF, cpus)?)
    }
}

fn one(number: usize) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    set.set(number)?;
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_one_cpu_and_several_have_all() {
        let cpus = Cpus::new(true).unwrap();
        let own = || {
            let set = sched_getaffinity(SELF).unwrap();
            (0..CpuSet::count()).filter(|number| set.is_set(*number).unwrap()).count()
        };
        let all = own();
        assert_eq!(cpus.are_apart(), all > 1);
        cpus.place_clients(1).unwrap();
        assert_eq!(own(), 1);
        cpus.place_clients(4).unwrap();
        assert_eq!(own(), all);
    }
}
