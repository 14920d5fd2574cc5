//! The shim in the box that the sidecar of a VM with dedicated CPUs gets: 64 MB and 200m CPU in all.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cgroup::Cgroup;
use crate::contestant::{Kind, Language, Parts};
use crate::documents::Documents;
use crate::load::dialled;
use crate::markdown::{Table, number};
use crate::measure::ORDINARY_BYTES;
use crate::proc;
use crate::server::{Server, directory};
use crate::stats::{Round, Summary, ms};

const MEMORY_BYTES: u64 = 64_000_000;

const MILLICPU: u64 = 200;

/// Between two calls: KubeVirt calls a few times for each boot, so that each call finds a share of
/// the CPU that was not used up by the one before.
const PAUSE: Duration = Duration::from_millis(300);

/// One mode in the box.
#[derive(Debug, Serialize)]
pub struct BoxRow {
    pub contestant: String,
    pub label: String,
    /// From start to socket.
    pub start_ms: f64,
    #[serde(flatten)]
    pub summary: Summary,
    /// Periods of 0.1 s in which the share was used up, while calls were made.
    pub throttled: Option<u64>,
    /// The most memory at once.
    pub peak_bytes: Option<u64>,
}

/// What came of it.
pub enum Outcome {
    Measured(Vec<BoxRow>),
    /// There can be no box here.
    Skipped,
}

/// Measures both modes with the Python hook.
pub async fn run(parts: &Parts, calls: usize) -> Result<Outcome> {
    let mut rows = Vec::new();
    for kind in [Kind::Persistent(Language::Python), Kind::Exec(Language::Python)] {
        let cgroup = match Cgroup::new(MEMORY_BYTES, MILLICPU) {
            Ok(cgroup) => cgroup,
            Err(error) => {
                println!("box: skipped, because there can be no control group here: {error:#}");
                return Ok(Outcome::Skipped);
            }
        };
        rows.push(measure(parts, &kind, &cgroup, calls).await?);
    }
    Ok(Outcome::Measured(rows))
}

async fn measure(parts: &Parts, kind: &Kind, cgroup: &Cgroup, calls: usize) -> Result<BoxRow> {
    eprintln!("{calls} calls of {} in a box", kind.id());
    let directory = directory()?;
    let mut launch = parts.launch(kind, directory.path())?;
    launch.command = cgroup.wrap(&launch.command);
    let server = Server::launch(launch, directory)?;
    let documents = Documents::of_size(ORDINARY_BYTES)?;
    let mut round = Round { latencies: Vec::new(), elapsed: Duration::ZERO, cpu: Duration::ZERO };
    let throttled_before = cgroup.throttled();
    let cpu_before = proc::cpu(server.pid())?;
    for _ in 0..calls.max(1) {
        tokio::time::sleep(PAUSE).await;
        let (latency, answer) =
            dialled(&server.socket, &documents).await.with_context(|| server.log())?;
        documents.check(&answer, kind.expected(), true)?;
        round.latencies.push(latency);
        round.elapsed += latency;
    }
    round.cpu = proc::cpu(server.pid())?.saturating_sub(cpu_before);
    Ok(BoxRow {
        contestant: kind.id(),
        label: kind.label(),
        start_ms: ms(server.start),
        summary: Summary::of(&[round]),
        throttled: cgroup.throttled().zip(throttled_before).map(|(after, before)| after - before),
        peak_bytes: cgroup.peak_memory(),
    })
}

/// As a table for people.
pub fn table(rows: &[BoxRow]) -> Table {
    let mut text =
        "| | p50 | p99 | peak of memory | start to socket |\n|---|--:|--:|--:|--:|\n".to_owned();
    for row in rows {
        let p99 = row.summary.p99_ms.map_or("–".to_owned(), |p99| format!("{} ms", number(p99)));
        #[expect(clippy::cast_precision_loss, reason = "it is under 64 MB")]
        let peak = row
            .peak_bytes
            .map_or("–".to_owned(), |bytes| format!("{:.1} MB", bytes as f64 / 1e6));
        text += &format!(
            "| {} | {} ms | {p99} | {peak} | {} ms |\n",
            row.label,
            number(row.summary.p50_ms),
            number(row.start_ms)
        );
    }
    Table { name: "box", text }
}
