//! Raises the locked-memory limit of a VM to its annotation memlock.example/limit. It changes the
//! VM's virtqemud, from which QEMU inherits the limit. prlimit(2) needs `CAP_SYS_RESOURCE`.

use std::{env, fs, process::ExitCode};

use kubevirt_hook::{Call, Refused, Result, Worker};
use rlimit::{prlimit, Resource};

fn size(text: &str) -> Option<u64> {
    let unit = ["Ki", "Mi", "Gi", "Ti"].iter().position(|unit| text.ends_with(unit))?;
    text[..text.len() - 2].parse::<u64>().ok()?.checked_mul(1 << (10 * unit + 10))
}

fn raise_limit(call: &Call, node: &str) -> Result<()> {
    let Some(text) = call.vmi().annotation("memlock.example/limit") else { return Ok(()) };
    let max = env::var("MEMLOCK_MAX").unwrap_or("64Gi".into());
    let why = format!("annotation memlock.example/limit: not a size up to {max}, such as 4Gi");
    let wanted = size(text).filter(|_| size(text) <= size(&max)).ok_or(Refused::new(why))?;
    let pods = call.vmi()["status"]["activePods"].as_object().into_iter().flatten();
    let pods: Vec<_> = pods.filter(|pod| pod.1 == node).map(|pod| pod.0).collect();
    let mut result = Err(format!("no virtqemud of this VM on {node} yet: KubeVirt will retry"));
    for process in fs::read_dir(env::var("MEMLOCK_PROC").unwrap_or("/proc".into()))? {
        let path = process?.path(); // systemd's names have no hyphens; missing files: it has exited
        let read = |name| fs::read_to_string(path.join(name)).unwrap_or_default().replace('_', "-");
        if read("comm") == "virtqemud\n" && pods.iter().any(|pod| read("cgroup").contains(*pod)) {
            let pid = path.file_name().unwrap_or_default().to_string_lossy().parse()?;
            let (mut soft, mut hard) = (0, 0);
            prlimit(pid, Resource::MEMLOCK, None, Some((&mut soft, &mut hard)))?;
            prlimit(pid, Resource::MEMLOCK, Some((soft.max(wanted), hard.max(wanted))), None)?;
            result = Ok(());
        }
    }
    Ok(result.map_err(Refused::new)?)
}

fn main() -> ExitCode {
    let worker = Worker::new("memlock").version("1.0.0").on_node("preVMStart", raise_limit);
    worker.on_node("preMigrationTarget", raise_limit).run()
}
