//! Sidecars of many VMs on one machine: what each adds to its memory, pages that they share counted
//! once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::contestant::{Kind, Language, Parts};
use crate::documents::Documents;
use crate::load::dialled;
use crate::markdown::{Table, dash, mib};
use crate::measure::ORDINARY_BYTES;
use crate::proc;
use crate::server::{Server, directory};

/// The servers in Python are a few only: each takes as much as ten sidecars.
const SERVERS_PART: usize = 5;

/// Calls of each sidecar.
const CALLS: usize = 3;

/// Memory of one contestant's sidecars, in bytes for each, with its share of pages that others use
/// too (`Pss`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FleetRow {
    pub contestant: String,
    pub label: String,
    pub sidecars: usize,
    /// After the last call of a boot.
    pub busy_bytes: u64,
    /// Once idle workers have exited.
    pub idle_bytes: u64,
}

/// Starts this many sidecars of each kind. Their idle workers exit after this time, in which all of
/// them have to start.
pub async fn run(parts: &Parts, sidecars: usize, idle_timeout: Duration) -> Result<Vec<FleetRow>> {
    let mut kinds = vec![
        Kind::Exec(Language::Python),
        Kind::Persistent(Language::Rust),
        Kind::Persistent(Language::Python),
    ];
    kinds.extend(parts.grpc_python.is_some().then_some(Kind::PythonServer));
    let mut rows = Vec::new();
    for kind in kinds {
        let count = if kind == Kind::PythonServer { sidecars / SERVERS_PART } else { sidecars };
        rows.push(measure(parts, &kind, count.max(1), idle_timeout).await?);
    }
    Ok(rows)
}

async fn measure(
    parts: &Parts,
    kind: &Kind,
    count: usize,
    idle_timeout: Duration,
) -> Result<FleetRow> {
    eprintln!("{count} sidecars: {}", kind.id());
    let documents = Documents::of_size(ORDINARY_BYTES)?;
    let mut servers = Vec::new();
    for _ in 0..count {
        let directory = directory()?;
        let mut launch = parts.launch(kind, directory.path())?;
        let time = humantime::format_duration(idle_timeout).to_string();
        launch.command.env("SIDECAR_SHIM_IDLE_TIMEOUT", time);
        servers.push(Server::launch(&launch, directory, None)?);
    }
    for server in &servers {
        for _ in 0..CALLS {
            let (_, answer) =
                dialled(&server.socket, &documents).await.with_context(|| server.log())?;
            documents.check(&answer, kind.expected(), true)?;
        }
    }
    let last_call = Instant::now();
    let has_workers = matches!(kind, Kind::Persistent(_));
    let (busy, workers) = pss(&servers)?;
    let expected = if has_workers { count } else { 0 };
    ensure!(workers == expected, "{workers} workers, not {expected}: the machine is too slow");
    let mut idle = busy;
    if has_workers {
        // It is over when the last worker has gone.
        while {
            let workers;
            (idle, workers) = pss(&servers)?;
            workers > 0
        } {
            ensure!(last_call.elapsed() < 2 * idle_timeout, "idle workers do not exit");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let each = |sum: u64| sum / count as u64;
    Ok(FleetRow {
        contestant: kind.id(),
        label: kind.label(),
        sidecars: count,
        busy_bytes: each(busy),
        idle_bytes: each(idle),
    })
}

/// The memory of all of them, and the number of their workers.
fn pss(servers: &[Server]) -> Result<(u64, usize)> {
    let (mut bytes, mut workers) = (0, 0);
    for server in servers {
        let memory = proc::shared_memory(server.pid())?;
        bytes += memory.server + memory.workers;
        workers += memory.worker_count;
    }
    Ok((bytes, workers))
}

/// As a table for people.
pub fn table(rows: &[FleetRow]) -> Table {
    let mut table = Table::new("fleet", ["", "sidecars", "after a boot", "once idle"]);
    for row in rows {
        let each = |bytes| format!("{} MiB", mib(bytes));
        let idle = if row.idle_bytes == row.busy_bytes { dash() } else { each(row.idle_bytes) };
        table.row([row.label.clone(), row.sidecars.to_string(), each(row.busy_bytes), idle]);
    }
    table
}
