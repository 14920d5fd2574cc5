//! The measurement: all contestants in turn, round by round, so that what happens on the machine
//! meanwhile happens to all of them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::utsname::uname;

use crate::contestant::{Kind, Language, Parts};
use crate::cpus::Cpus;
use crate::direct::Direct;
use crate::documents::{Documents, Expected};
use crate::load::{Connection, Load};
use crate::proc;
use crate::results::{Cell, Machine, MemoryRow, Results, Settings, StartRow};
use crate::server::{Server, directory};
use crate::stats::{Ratio, Round, Summary};

/// The domain's length where one length has to do: about that of an ordinary VM.
pub const ORDINARY_BYTES: usize = 8_000;

/// What is to be measured.
pub struct Plan {
    pub parts: Parts,
    pub cpus: Cpus,
    pub kinds: Vec<Kind>,
    pub skipped: Vec<String>,
    pub sizes: Vec<usize>,
    pub clients: Vec<usize>,
    pub connections: Vec<Connection>,
    pub rounds: usize,
    pub round_time: Duration,
    /// Calls before memory is read; processes are a hundred times slower, and take a hundredth.
    pub memory_calls: usize,
    pub starts: usize,
}

/// A contestant that is up.
enum Running {
    Server(Server),
    Direct(Direct),
}

impl Plan {
    /// Measures everything.
    pub async fn run(&self) -> Result<Results> {
        let mut results = Results {
            machine: self.machine()?,
            settings: Settings {
                rounds: self.rounds,
                round_ms: u64::try_from(self.round_time.as_millis())?,
                cpus_apart: self.cpus.are_apart(),
            },
            cells: Vec::new(),
            memory: Vec::new(),
            starts: Vec::new(),
            scaling: None,
            binary_bytes: fs::metadata(&self.parts.shim)?.len(),
            skipped: self.skipped.clone(),
        };
        results.starts = self.measure_starts()?;
        for kind in self.kinds.iter().filter(|kind| !matches!(kind, Kind::Direct(_))) {
            results.memory.push(self.measure_memory(kind).await?);
        }
        for &bytes in &self.sizes {
            self.measure_size(bytes, &mut results).await?;
        }
        if self.kinds.contains(&Kind::Persistent(Language::Python)) {
            results.scaling = Some(self.measure_scaling().await?);
        }
        Ok(results)
    }

    async fn measure_size(&self, bytes: usize, results: &mut Results) -> Result<()> {
        let documents = Documents::of_size(bytes)?;
        let mut running = Vec::new();
        for kind in self.kinds.iter().filter(|kind| kind.takes(bytes)) {
            running.push((
                kind,
                match kind {
                    Kind::Direct(language) => Running::Direct(Direct::new(&self.parts, *language)?),
                    _ => Running::Server(Server::start(&self.parts, kind)?),
                },
            ));
        }
        for &connection in &self.connections {
            for &clients in &self.clients {
                eprintln!("{bytes} bytes, {clients} clients, {connection:?}");
                self.cpus.place_clients(clients)?;
                for (_, running) in &running {
                    if let Running::Server(server) = running {
                        self.cpus.place_server(server.pid(), clients)?;
                    }
                }
                let mut rounds: Vec<Vec<Round>> = running.iter().map(|_| Vec::new()).collect();
                for _ in 0..self.rounds {
                    for ((kind, running), rounds) in running.iter().zip(&mut rounds) {
                        if matches!(running, Running::Direct(_))
                            && (clients, connection) != (1, Connection::Dialled)
                        {
                            continue;
                        }
                        let round =
                            self.round(kind, running, &documents, clients, connection).await;
                        rounds.push(round.with_context(|| format!("{} failed", kind.id()))?);
                    }
                }
                let measured = running.iter().zip(rounds).filter(|(_, rounds)| !rounds.is_empty());
                results.cells.extend(measured.map(|((kind, _), rounds)| Cell {
                    contestant: kind.id(),
                    label: kind.label(),
                    bytes,
                    clients,
                    connection,
                    summary: Summary::of(&rounds),
                }));
            }
        }
        // What is started next inherits it.
        self.cpus.place_clients(usize::MAX)
    }

    async fn round(
        &self,
        kind: &Kind,
        running: &Running,
        documents: &Documents,
        clients: usize,
        connection: Connection,
    ) -> Result<Round> {
        match running {
            Running::Direct(program) => program.run(documents, self.round_time, 1),
            Running::Server(server) => {
                let load = Load {
                    socket: server.socket.clone(),
                    documents: documents.clone(),
                    expected: kind.expected(),
                    connection,
                    clients,
                    time: self.round_time,
                    least_calls: 1,
                };
                load.run(server.pid()).await.with_context(|| server.log())
            }
        }
    }

    fn measure_starts(&self) -> Result<Vec<StartRow>> {
        let kinds: Vec<_> =
            self.kinds.iter().filter(|kind| !matches!(kind, Kind::Direct(_))).collect();
        let mut times: Vec<Vec<Duration>> = kinds.iter().map(|_| Vec::new()).collect();
        eprintln!("{} starts", self.starts);
        for _ in 0..self.starts {
            for (kind, times) in kinds.iter().zip(&mut times) {
                times.push(Server::start(&self.parts, kind)?.start);
            }
        }
        let rows = kinds.iter().zip(&times);
        Ok(rows.map(|(kind, times)| StartRow::new(kind.id(), kind.label(), times)).collect())
    }

    async fn measure_memory(&self, kind: &Kind) -> Result<MemoryRow> {
        let (contestant, label, bytes) = (kind.id(), kind.label(), ORDINARY_BYTES);
        let slower = if kind.runs_programs() { 100 } else { 1 };
        let calls = self.memory_calls.div_ceil(slower);
        eprintln!("memory of {contestant} after {calls} calls");
        let server = Server::start(&self.parts, kind)?;
        let load = Load {
            socket: server.socket.clone(),
            documents: Documents::of_size(bytes)?,
            expected: kind.expected(),
            connection: Connection::Dialled,
            clients: 1,
            time: Duration::ZERO,
            least_calls: calls,
        };
        load.run(server.pid()).await.with_context(|| server.log())?;
        let memory = proc::memory(server.pid())?;
        Ok(MemoryRow { contestant, label, bytes, calls, memory })
    }

    /// Calls for each second of two busy Python workers, in terms of those of one.
    async fn measure_scaling(&self) -> Result<Ratio> {
        eprintln!("two workers against one");
        let worker = [self.parts.python.clone().into(), self.parts.busy_hook.clone().into()];
        let mut servers = Vec::new();
        for workers in ["1", "2"] {
            let directory = directory()?;
            let launch =
                self.parts.persistent(directory.path(), &["--max-workers", workers], &worker);
            servers.push(Server::launch(launch, directory)?);
        }
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..self.rounds {
            for (server, rates) in servers.iter().zip(&mut rates) {
                let load = Load {
                    socket: server.socket.clone(),
                    documents: Documents::of_size(ORDINARY_BYTES)?,
                    expected: Expected::Same,
                    connection: Connection::Dialled,
                    clients: 4,
                    time: 2 * self.round_time,
                    least_calls: 1,
                };
                let round = load.run(server.pid()).await?;
                rates.push(Summary::of(&[round]).calls_per_s);
            }
        }
        Ratio::of(&rates[1], &rates[0]).context("no rounds")
    }

    fn machine(&self) -> Result<Machine> {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Machine {
            cpu: cpu.map_or("unknown", |(_, name)| name).to_owned(),
            cores: available_parallelism()?.get(),
            kernel: uname()?.release().to_string_lossy().into_owned(),
            load_before: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            python: version(&self.parts.python)?,
        })
    }
}

fn version(python: &Path) -> Result<String> {
    let output = Command::new(python).arg("--version").output();
    let output = output.with_context(|| format!("cannot run {}", python.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
