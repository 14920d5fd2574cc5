//! A node's mass boot: the node hooks of hundreds of VMs within a second, from one peer that
//! connects for each, through one shim in 64 MB.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sidecar_shim::service::client::Client;
use tokio::task::LocalSet;
use tokio::time::sleep_until;

use crate::cgroup::Cgroup;
use crate::constrained::MEMORY_BYTES;
use crate::contestant::{Launch, Parts};
use crate::documents::vmi_of_size;
use crate::load::CALL_TIMEOUT;
use crate::markdown::{Table, bytes, dash, in_ms, mib};
use crate::node_worker::HOOK_POINT;
use crate::proc::{self, Memory};
use crate::server::{Server, directory};
use crate::stats::{ms, quantile};

/// VMs whose hooks are called.
const VMS: u32 = 500;

/// Time in which all calls begin, one after the other.
const BEGIN_WITHIN: Duration = Duration::from_secs(1);

/// Workers, which is the shim's default, and the calls that may wait for them.
const WORKERS: usize = 4;
const QUEUE_LIMIT: usize = 1024;

/// Time that a hook takes: all calls then take a second and a quarter.
const WORK: Duration = Duration::from_millis(10);

/// A node's daemon has its share of the CPU, or more.
const MILLICPU: u64 = 2000;

/// How far a call may fall back behind later ones: a worker may be late to read its call by as many
/// as the others read meanwhile, and the shim reads from many connections at once.
const MOST_OVERTAKEN: usize = 64;

/// One mass boot.
#[derive(Debug, Serialize, Deserialize)]
pub struct MassRun {
    pub vmi_bytes: usize,
    pub workers: usize,
    pub work_ms: f64,
    pub limit_bytes: u64,
    /// The calls in the order in which they were made.
    pub calls: Vec<MassCall>,
    pub elapsed_ms: f64,
    /// Peak of the control group.
    pub peak_bytes: Option<u64>,
    /// Peaks of the processes.
    pub memory: Memory,
}

/// One VM's call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MassCall {
    /// Time of the call, connecting included, in milliseconds.
    pub took_ms: f64,
    /// Its place in the order in which workers read their calls, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl MassRun {
    /// Maximum number of places by which a call fell back.
    fn most_overtaken(&self) -> usize {
        let behind = |(number, call): (usize, &MassCall)| Some(call.place?.saturating_sub(number));
        self.calls.iter().enumerate().filter_map(behind).max().unwrap_or(0)
    }

    fn errors(&self) -> impl Iterator<Item = &str> {
        self.calls.iter().filter_map(|call| call.error.as_deref())
    }

    /// Fails if a call did, or if the calls were not first come, first served.
    pub fn check(&self) -> Result<()> {
        let (vmi, failed) = (bytes(self.vmi_bytes), self.errors().count());
        if let Some(error) = self.errors().next() {
            bail!("mass boot, VMIs of {vmi}: {failed} calls failed, the first: {error}");
        }
        let overtaken = self.most_overtaken();
        ensure!(
            overtaken <= MOST_OVERTAKEN,
            "mass boot, VMIs of {vmi}: a call fell back by {overtaken}"
        );
        Ok(())
    }
}

/// Boots a node with VMIs of each length.
pub async fn run(parts: &Parts, vmi_bytes: &[usize]) -> Result<Vec<MassRun>> {
    let mut runs = Vec::new();
    for &bytes in vmi_bytes {
        eprintln!("{VMS} node hooks within a second, VMIs of {bytes} bytes");
        runs.push(boot(parts, bytes).await?);
    }
    Ok(runs)
}

async fn boot(parts: &Parts, vmi_bytes: usize) -> Result<MassRun> {
    let group = Cgroup::new(MEMORY_BYTES, MILLICPU)?;
    let directory = directory()?;
    let order = directory.path().join("order");
    fs::write(&order, "")?;
    let launch = launch(parts, directory.path(), &order);
    let server = Server::launch(&launch, directory, Some(&group))?;
    let vmis: Result<Vec<Bytes>> =
        (0..VMS).map(|number| vmi_of_size(&number.to_string(), vmi_bytes)).collect();
    let began = Instant::now();
    let answered = call_all(&server.socket, vmis?, began).await.with_context(|| server.log())?;
    let elapsed_ms = ms(began.elapsed());
    let memory = proc::peak_memory(server.pid())?;
    let mut places = vec![None; VMS as usize];
    for (place, line) in fs::read_to_string(&order)?.lines().enumerate() {
        places[line.parse::<usize>()?] = Some(place);
    }
    let calls = answered.into_iter().zip(places);
    let calls = calls.map(|((took_ms, error), place)| MassCall { took_ms, place, error });
    Ok(MassRun {
        vmi_bytes,
        workers: WORKERS,
        work_ms: ms(WORK),
        limit_bytes: MEMORY_BYTES,
        calls: calls.collect(),
        elapsed_ms,
        peak_bytes: group.peak_memory(),
        memory,
    })
}

fn launch(parts: &Parts, directory: &Path, order: &Path) -> Launch {
    let mut command = Command::new(&parts.shim);
    command.arg("--plugin-socket").arg(directory.join("node.sock"));
    command.args(["--mode", "persistent", "--max-workers", &WORKERS.to_string()]);
    command.args(["--queue-limit", &QUEUE_LIMIT.to_string(), "--"]);
    command.arg(&parts.bench).arg("node-worker").arg(order);
    command.args(["--work", &humantime::format_duration(WORK).to_string()]);
    Launch { command, socket_dir: directory.to_owned() }
}

/// Calls the hook of every VM, each through a separate connection. Returns how long each took, and
/// why it failed.
async fn call_all(
    socket: &Path,
    vmis: Vec<Bytes>,
    began: Instant,
) -> Result<Vec<(f64, Option<String>)>> {
    let clients = LocalSet::new();
    let calls: Vec<_> = vmis
        .into_iter()
        .zip(0..)
        .map(|(vmi, number)| {
            let begin = began + BEGIN_WITHIN / VMS * number;
            let socket = socket.to_owned();
            clients.spawn_local(async move {
                sleep_until(begin.into()).await;
                let called = async {
                    let (point, node) = (HOOK_POINT.to_owned(), "node".to_owned());
                    let client = Client::dial(&socket).await?;
                    client.execute_node_hook(point, vmi, node, CALL_TIMEOUT).await
                };
                let error = called.await.err().map(|error| error.to_string());
                (ms(begin.elapsed()), error)
            })
        })
        .collect();
    clients.await;
    let mut answered = Vec::new();
    for call in calls {
        answered.push(call.await.context("a client has panicked")?);
    }
    Ok(answered)
}

/// As a table for people.
pub fn table(runs: &[MassRun]) -> Table {
    let heads = [
        "VMI",
        "failed",
        "fastest call",
        "median",
        "slowest",
        "fell back at most by",
        "shim",
        "workers",
        "control group",
    ];
    let mut table = Table::new("mass", heads);
    for run in runs {
        let mut took: Vec<f64> = run.calls.iter().map(|call| call.took_ms).collect();
        took.sort_by(f64::total_cmp);
        let peak = |bytes| format!("{} MiB", mib(bytes));
        table.row([
            bytes(run.vmi_bytes),
            run.errors().count().to_string(),
            in_ms(took[0]),
            in_ms(quantile(&took, 0.5)),
            in_ms(took[took.len() - 1]),
            format!("{} places", run.most_overtaken()),
            peak(run.memory.server),
            peak(run.memory.workers),
            run.peak_bytes.map_or_else(dash, peak),
        ]);
    }
    table
}
