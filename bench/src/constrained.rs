//! The shim with the limits that the sidecar of a VM with dedicated CPUs gets: 64 MB and 200m CPU
//! in all.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cgroup::Cgroup;
use crate::contestant::{Baseline, Kind, Language, Parts};
use crate::documents::Documents;
use crate::load::dialled;
use crate::markdown::{Table, dash, mib, number, row};
use crate::measure::ORDINARY_BYTES;
use crate::proc::{self, Memory};
use crate::server::{Server, directory};
use crate::stats::{Round, Summary, ms};

const MEMORY_BYTES: u64 = 64_000_000;

const MILLICPU: u64 = 200;

/// Between two calls: KubeVirt calls a few times for each boot, so that each call finds a share of
/// the CPU that was not used up by the one before. Without a pause, as a node's daemon may be called,
/// the share is used up again and again.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::ZERO];

/// One mode with these limits.
#[derive(Debug, Serialize)]
pub struct ConstrainedRow {
    pub contestant: String,
    pub label: String,
    /// Between two calls.
    pub pause_ms: f64,
    /// From start to socket.
    pub start_ms: f64,
    #[serde(flatten)]
    pub summary: Summary,
    /// Periods of 0.1 s in which the share was used up, while calls were made.
    pub throttled: Option<u64>,
    /// The most memory at once. Pages of files are not part of it if they were in memory before.
    pub peak_bytes: Option<u64>,
    /// What is resident at the end, pages of files included.
    pub memory: Memory,
}

/// What came of it.
pub enum Outcome {
    Measured(Vec<ConstrainedRow>),
    /// Control groups are not available.
    Skipped,
}

/// Measures both modes with the Python hook. The baseline tells what a call costs after such a pause in
/// any case, with all caches cold.
pub async fn run(parts: &Parts, calls: usize) -> Result<Outcome> {
    let mut rows = Vec::new();
    let kinds = [
        Kind::Baseline(Baseline::Plain),
        Kind::Persistent(Language::Python),
        Kind::Exec(Language::Python),
    ];
    for (kind, pause) in
        kinds.into_iter().flat_map(|kind| PAUSES.map(|pause| (kind.clone(), pause)))
    {
        let cgroup = match Cgroup::new(MEMORY_BYTES, MILLICPU) {
            Ok(cgroup) => cgroup,
            Err(error) => {
                println!("constrained: skipped, no control groups here: {error:#}");
                return Ok(Outcome::Skipped);
            }
        };
        rows.push(measure(parts, &kind, &cgroup, pause, calls).await?);
    }
    Ok(Outcome::Measured(rows))
}

async fn measure(
    parts: &Parts,
    kind: &Kind,
    cgroup: &Cgroup,
    pause: Duration,
    calls: usize,
) -> Result<ConstrainedRow> {
    eprintln!("{calls} calls of {} with the limits, every {pause:?}", kind.id());
    let directory = directory()?;
    let mut launch = parts.launch(kind, directory.path())?;
    launch.command = cgroup.wrap(&launch.command);
    let server = Server::launch(launch, directory)?;
    let documents = Documents::of_size(ORDINARY_BYTES)?;
    let mut round = Round { latencies: Vec::new(), elapsed: Duration::ZERO, cpu: Duration::ZERO };
    let throttled_before = cgroup.throttled();
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
        throttled: cgroup.throttled().zip(throttled_before).map(|(after, before)| after - before),
        peak_bytes: cgroup.peak_memory(),
        memory: proc::memory(server.pid())?,
    })
}

/// As a table for people.
pub fn table(rows: &[ConstrainedRow]) -> Table {
    let heads = ["", "calls", "p50", "p99", "peak", "resident at the end", "start to socket"];
    let mut text = row(heads) + &row(["---", "---", "--:", "--:", "--:", "--:", "--:"]);
    for measured in rows {
        let Memory { server, workers, .. } = measured.memory;
        text += &row([
            measured.label.clone(),
            match measured.pause_ms {
                0.0 => "without a pause".to_owned(),
                pause => format!("{pause} ms apart"),
            },
            format!("{} ms", number(measured.summary.p50_ms)),
            measured.summary.p99_ms.map_or_else(dash, |p99| format!("{} ms", number(p99))),
            measured.peak_bytes.map_or_else(dash, |peak| format!("{} MiB", mib(peak))),
            format!("{} + {} MiB", mib(server), mib(workers)),
            format!("{} ms", number(measured.start_ms)),
        ]);
    }
    Table { name: "constrained", text }
}
