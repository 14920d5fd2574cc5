//! Raises how much memory a VM may lock, to what its annotation memlock.example/limit says.
//!
//! QEMU gets the limit of the virtqemud that starts it. prlimit(2) needs `CAP_SYS_RESOURCE`.

use std::process::ExitCode;
use std::{env, fs};

use kubevirt_hook::{Call, Refusal, Result, Worker};
use rlimit::{prlimit, Resource};

fn main() -> ExitCode {
    let worker = Worker::new("memlock").version("1.0.0").node_hook("preVMStart", raise_limit);
    worker.node_hook("preMigrationTarget", raise_limit).run()
}

fn raise_limit(call: &Call, node: &str) -> Result<()> {
    let vmi = call.vmi();
    let Some(text) = vmi["metadata"]["annotations"]["memlock.example/limit"].as_str() else {
        return Ok(());
    };
    let max = variable("MEMLOCK_MAX", "64Gi");
    let wanted = size(text).filter(|wanted| Some(*wanted) <= size(&max)).ok_or_else(|| {
        let text = "annotation memlock.example/limit: a size such as 4Gi, and at most";
        Refusal::new(format!("{text} {max}"))
    })?;
    let pods = vmi["status"]["activePods"].as_object().into_iter().flatten();
    let pods = pods.filter(|(_, at)| *at == node).map(|(uid, _)| format!("pod{uid}"));
    let daemons = virtqemuds(&pods.collect::<Vec<_>>())?;
    for pid in &daemons {
        let (mut soft, mut hard) = (0, 0);
        prlimit(*pid, Resource::MEMLOCK, None, Some((&mut soft, &mut hard)))?;
        prlimit(*pid, Resource::MEMLOCK, Some((soft.max(wanted), hard.max(wanted))), None)?;
    }
    if daemons.is_empty() {
        let text = format!("no virtqemud of this VM is up on {node} yet: KubeVirt will try again");
        return Err(Refusal::new(text).into());
    }
    Ok(())
}

/// The processes of that name in the cgroups of these pods.
fn virtqemuds(pods: &[String]) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for process in fs::read_dir(variable("MEMLOCK_PROC", "/proc"))? {
        let path = process?.path();
        // One that cannot be read has ended.
        let read = |name| fs::read_to_string(path.join(name)).unwrap_or_default();
        if read("comm") != "virtqemud\n" {
            continue;
        }
        let cgroup = read("cgroup").replace('_', "-"); // systemd's names have no hyphens
        if pods.iter().any(|pod| cgroup.contains(pod)) {
            found.extend(path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok()));
        }
    }
    Ok(found)
}

/// The bytes of 512Mi or 4Gi, or none for what is no such size.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let shift = ["Ki", "Mi", "Gi", "Ti"].iter().position(|each| *each == unit)? * 10 + 10;
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
