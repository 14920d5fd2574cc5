//! The shim with the limits that the sidecar of a VM with dedicated CPUs gets: 64 MB and 200m CPU
//! in all.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::contestant::{Baseline, Kind, Language, Parts};
use crate::documents::Documents;
use crate::load::dialled;
use crate::markdown::{Table, dash, in_ms, mib};
use crate::measure::ORDINARY_BYTES;
use crate::proc::{self, Memory};
use crate::server::Server;
use crate::stats::{Round, Summary, ms};

pub const MEMORY_BYTES: u64 = 64_000_000;

const MILLICPU: u64 = 200;

/// Between two calls: KubeVirt calls a few times for each boot, so that each call finds an unused
/// share of the CPU. Without a pause, as a node's daemon may be called, the calls use up the share
/// again and again.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::ZERO];

/// One mode with these limits.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConstrainedRow {
    pub contestant: String,
    pub label: String,
    /// Between two calls.
    pub pause_ms: f64,
    /// From start to socket.
    pub start_ms: f64,
    #[serde(flatten)]
    pub summary: Summary,
    /// Periods of 0.1 s in which the calls used up the share.
    pub throttled: Option<u64>,
    /// Peak of the group's memory, without pages of files that were in memory before.
    pub peak_bytes: Option<u64>,
    /// Resident memory at the end, pages of files included.
    pub memory: Memory,
}

/// A group with these limits.
pub fn group() -> Result<Cgroup> {
    Cgroup::new(MEMORY_BYTES, MILLICPU)
}

/// Measures both modes with the Python hook. The baseline shows what any call costs after such a
/// pause, with all caches cold.
pub async fn run(parts: &Parts, calls: usize) -> Result<Vec<ConstrainedRow>> {
    let mut rows = Vec::new();
    let kinds = [
        Kind::Baseline(Baseline::Plain),
        Kind::Persistent(Language::Python),
        Kind::Exec(Language::Python),
    ];
    for kind in &kinds {
        for pause in PAUSES {
            rows.push(measure(parts, kind, pause, calls).await?);
        }
    }
    Ok(rows)
}

async fn measure(
    parts: &Parts,
    kind: &Kind,
    pause: Duration,
    calls: usize,
) -> Result<ConstrainedRow> {
    eprintln!("{calls} calls of {} with limits, every {pause:?}", kind.id());
    let group = group()?;
    let server = Server::start(parts, kind, Some(&group))?;
    let documents = Documents::of_size(ORDINARY_BYTES)?;
    let mut round = Round { latencies: Vec::new(), elapsed: Duration::ZERO, cpu: Duration::ZERO };
    let throttled_before = group.throttled();
    let cpu_before = proc::cpu(server.pid())?;
    for _ in 0..calls.max(1) {
        tokio::time::sleep(pause).await;
        let (latency, answer) =
            dialled(&server.socket, &documents).await.with_context(|| server.log())?;
        documents.check(&answer, kind.expected(), true)?;
        round.latencies.push(latency);
        round.elapsed += latency;
    }
    round.cpu = proc::cpu(server.pid())?.saturating_sub(cpu_before);
    Ok(ConstrainedRow {
        contestant: kind.id(),
        label: kind.label(),
        pause_ms: ms(pause),
        start_ms: ms(server.start),
        summary: Summary::of(&[round]),
        throttled: group
            .throttled()
            .zip(throttled_before)
            .map(|(after, before)| after.periods - before.periods),
        peak_bytes: group.peak_memory(),
        memory: proc::memory(server.pid())?,
    })
}

/// As a table for people.
pub fn table(rows: &[ConstrainedRow]) -> Table {
    let heads = ["", "calls", "p50", "p99", "peak", "resident at the end", "start to socket"];
    let mut table = Table::new("constrained", heads);
    for measured in rows {
        table.row([
            measured.label.clone(),
            match measured.pause_ms {
                0.0 => "without a pause".to_owned(),
                pause => format!("{pause} ms apart"),
            },
            in_ms(measured.summary.p50_ms),
            measured.summary.p99_ms.map_or_else(dash, in_ms),
            measured.peak_bytes.map_or_else(dash, |peak| format!("{} MiB", mib(peak))),
            measured.memory.to_string(),
            in_ms(measured.start_ms),
        ]);
    }
    table
}
