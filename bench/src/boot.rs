//! One boot of a VM, for which a sidecar lives: from its `exec` to its socket, `Info`, three times
//! `OnDefineDomain`, `Shutdown` and its exit. Each call has a connection, as virt-launcher's do.

use std::iter::once;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sidecar_shim::service::ApiVersion;

use crate::cgroup::{Cgroup, Throttled};
use crate::constrained;
use crate::contestant::{AGAINST, Kind, Parts};
use crate::documents::Documents;
use crate::load::{CALL_TIMEOUT, dial, dialled};
use crate::markdown::{Table, dash, machine_line, mib, number, range};
use crate::measure::ORDINARY_BYTES;
use crate::proc::{self, Memory};
use crate::process::Process;
use crate::results::Machine;
use crate::server::Server;
use crate::stats::{Spread, ms};

/// virt-launcher defines a domain one to three times for each boot.
const CALLS: usize = 3;

/// What a sidecar may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    Unrestricted,
    /// The limits of a sidecar of a VM with dedicated CPUs.
    Constrained,
}

/// All boots.
#[derive(Debug, Serialize, Deserialize)]
pub struct Boots {
    pub machine: Machine,
    pub rounds: usize,
    pub rows: Vec<BootRow>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

/// The boots of one contestant in one environment, one for each round.
#[derive(Debug, Serialize, Deserialize)]
pub struct BootRow {
    pub contestant: String,
    pub label: String,
    pub environment: Environment,
    pub boots: Vec<Boot>,
}

/// One boot. Times are in milliseconds, and count from the `exec`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Boot {
    /// `None` for the bare interpreter.
    pub calls: Option<Calls>,
    pub exit_ms: f64,
    /// User and system time of all processes.
    pub cpu_ms: f64,
    /// The share of the shim itself, which has one thread.
    pub shim_cpu_ms: Option<f64>,
    /// Peak of the control group.
    pub peak_bytes: Option<u64>,
    pub throttled: Option<Throttled>,
}

/// The phases of a server.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Calls {
    pub socket_ms: f64,
    pub info_ms: f64,
    pub answers_ms: [f64; CALLS],
    pub shutdown_ms: f64,
    /// Peaks of the processes that run after the last answer, without control group.
    pub memory: Option<Memory>,
}

/// Boots all contestants in turn, in both environments.
pub async fn run(
    parts: &Parts,
    kinds: &[Kind],
    rounds: usize,
    mut skipped: Vec<String>,
) -> Result<Boots> {
    let machine = Machine::new(&parts.python)?;
    let mut environments = vec![Environment::Unrestricted];
    match constrained::group() {
        Ok(_) => environments.push(Environment::Constrained),
        Err(error) => skipped.push(format!("boots with limits (no control groups: {error:#})")),
    }
    let documents = kinds.iter().map(|kind| Ok((kind, kind.documents(ORDINARY_BYTES)?)));
    let documents: Vec<_> = documents.collect::<Result<_>>()?;
    let of =
        |environment| documents.iter().map(move |(kind, documents)| (kind, documents, environment));
    let contestants: Vec<_> = environments.into_iter().flat_map(of).collect();
    let mut boots: Vec<Vec<Boot>> = contestants.iter().map(|_| Vec::new()).collect();
    // The first round brings files into memory, and is not counted.
    for round in 0..=rounds {
        eprintln!("boots, round {round} of {rounds}");
        for ((kind, documents, environment), boots) in contestants.iter().zip(&mut boots) {
            let boot = boot(parts, kind, *environment, documents).await;
            let boot = boot.with_context(|| format!("{} failed, {environment:?}", kind.id()))?;
            boots.extend((round > 0).then_some(boot));
        }
    }
    let rows = contestants.iter().zip(boots).map(|((kind, _, environment), boots)| BootRow {
        contestant: kind.id(),
        label: kind.label(),
        environment: *environment,
        boots,
    });
    Ok(Boots { machine, rounds, rows: rows.collect(), skipped })
}

async fn boot(
    parts: &Parts,
    kind: &Kind,
    environment: Environment,
    documents: &Documents,
) -> Result<Boot> {
    let group = match environment {
        Environment::Unrestricted => None,
        Environment::Constrained => Some(constrained::group()?),
    };
    let (exit, calls);
    if let Kind::Probe(probe) = kind {
        calls = None;
        exit = Process::start(&parts.probe(*probe), group.as_ref())?.exit().await?;
    } else {
        let mut server = Server::start(parts, kind, group.as_ref())?;
        let called = call(&mut server, kind, documents, group.is_none()).await;
        calls = Some(called.with_context(|| server.log())?);
        exit = server.process.exit().await?;
    }
    ensure!(exit.status.success(), "it exited: {}", exit.status);
    Ok(Boot {
        calls,
        exit_ms: ms(exit.age),
        cpu_ms: ms(exit.cpu),
        shim_cpu_ms: kind.is_shim().then(|| ms(exit.main_thread_cpu)),
        peak_bytes: group.as_ref().and_then(Cgroup::peak_memory),
        throttled: group.as_ref().and_then(Cgroup::throttled),
    })
}

async fn call(
    server: &mut Server,
    kind: &Kind,
    documents: &Documents,
    reads_memory: bool,
) -> Result<Calls> {
    let offer = dial(&server.socket).await?.info().await?;
    let info_ms = ms(server.process.age());
    ensure!(offer.version == ApiVersion::V1Alpha3, "it offers {} at most", offer.version);
    let mut answers = Vec::new();
    let mut answers_ms = [0.0; CALLS];
    for answered_ms in &mut answers_ms {
        answers.push(dialled(&server.socket, documents).await?.1);
        *answered_ms = ms(server.process.age());
    }
    let paused = Instant::now();
    let memory = if reads_memory { Some(proc::peak_memory(server.pid())?) } else { None };
    for answer in answers {
        documents.check(&answer, kind.expected(), true)?;
    }
    server.process.skip(paused.elapsed());
    dial(&server.socket).await?.shutdown(CALL_TIMEOUT).await?;
    let shutdown_ms = ms(server.process.age());
    Ok(Calls { socket_ms: ms(server.start), info_ms, answers_ms, shutdown_ms, memory })
}

/// A column of the tables: its head, and its value in a boot.
type Column = (&'static str, fn(&Boot) -> Option<f64>);

const COLUMNS: [Column; 7] = [
    ("socket", |boot| Some(boot.calls?.socket_ms)),
    ("1st result", |boot| Some(boot.calls?.answers_ms[0])),
    ("3rd result", |boot| Some(boot.calls?.answers_ms[CALLS - 1])),
    ("exit", |boot| Some(boot.exit_ms)),
    ("CPU", |boot| Some(boot.cpu_ms)),
    ("of it the shim", |boot| boot.shim_cpu_ms),
    ("throttled", |boot| Some(boot.throttled?.ms)),
];

/// As tables for people: one for each environment, in milliseconds.
pub fn tables(boots: &Boots) -> Vec<Table> {
    let rounds = format!("{} boots of each", boots.rounds);
    let text = machine_line(&boots.machine, &rounds, &boots.skipped);
    let mut tables = vec![Table { name: "boot-machine", text }];
    let names = [
        ("boot-unrestricted", Environment::Unrestricted),
        ("boot-constrained", Environment::Constrained),
    ];
    for (name, environment) in names {
        let of = |row: &&BootRow| row.environment == environment;
        let rows: Vec<_> = boots.rows.iter().filter(of).collect();
        if !rows.is_empty() {
            tables.push(table(name, &rows));
        }
    }
    tables.extend(crate::phases::table(boots));
    tables
}

fn table(name: &'static str, rows: &[&BootRow]) -> Table {
    let is_measured = |column: &&Column| rows.iter().any(|row| !row.values(column).is_empty());
    let columns: Vec<_> = COLUMNS.iter().filter(is_measured).collect();
    let heads = columns.iter().map(|column| column.0).chain(["memory"]);
    let mut table = Table::new(name, once("").chain(heads));
    for row in rows {
        let cells = columns.iter().map(|column| cell(Spread::of(&row.values(column))));
        table.row(once(row.label.clone()).chain(cells).chain([row.memory()]));
    }
    for other in rows {
        let id = other.contestant.strip_prefix(AGAINST);
        let find = |id| rows.iter().find(|row| row.contestant == id);
        let Some(row) = id.and_then(find) else { continue };
        let ratio = |column| Spread::of_ratios(&row.values(column), &other.values(column));
        let cells = columns.iter().map(|column| cell(ratio(column)));
        table.row(once(format!("{} / against", row.label)).chain(cells).chain([dash()]));
    }
    table
}

impl BootRow {
    fn values(&self, (_, of): &Column) -> Vec<f64> {
        self.boots.iter().filter_map(of).collect()
    }

    /// Maximum of all boots.
    fn memory(&self) -> String {
        let peak = self.boots.iter().filter_map(|boot| boot.peak_bytes).max();
        let running = self.boots.iter().filter_map(|boot| boot.calls?.memory);
        let running = running.max_by_key(|memory| memory.server + memory.workers);
        let peak = peak.map(|bytes| format!("{} MiB", mib(bytes)));
        peak.or(running.map(|memory| memory.to_string())).unwrap_or_else(dash)
    }
}

/// The median, with the least and the most.
fn cell(spread: Option<Spread>) -> String {
    match spread {
        Some(Spread { max: 0.0, .. }) => "0".to_owned(),
        // No ratio of 0 and 0.
        Some(spread) if (spread.min + spread.max).is_finite() => {
            format!("{} ({})", number(spread.median), range(spread))
        }
        _ => dash(),
    }
}
