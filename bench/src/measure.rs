//! Measures calls: all contestants in turn, round by round, so that other load on the machine
//! affects all of them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::contestant::{Kind, Language, Launch, Parts};
use crate::cpus::Cpus;
use crate::direct::Direct;
use crate::documents::{Documents, Expected};
use crate::load::{Connection, Load};
use crate::proc;
use crate::results::{Cell, Machine, MemoryRow, Results, Settings, StartRow};
use crate::server::{Server, directory};
use crate::stats::{Round, Spread, Summary};

/// Length of an ordinary VM's domain, for what is measured with one length.
pub const ORDINARY_BYTES: usize = 8_000;

/// What to measure.
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
    /// Calls before memory is read. Exec mode is a hundred times slower, and makes a hundredth.
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
            machine: Machine::new(&self.parts.python)?,
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
                    _ => Running::Server(Server::start(&self.parts, kind, None)?),
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
        // The next servers inherit it.
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
                times.push(Server::start(&self.parts, kind, None)?.start);
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
        let server = Server::start(&self.parts, kind, None)?;
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
    async fn measure_scaling(&self) -> Result<Spread> {
        eprintln!("two workers against one");
        let worker = [self.parts.python.clone().into(), self.parts.busy_hook.clone().into()];
        let mut servers = Vec::new();
        for workers in ["1", "2"] {
            let directory = directory()?;
            let options = ["--max-workers", workers];
            let command = self.parts.persistent(directory.path(), &options, &worker);
            let launch = Launch { command, socket_dir: directory.path().to_owned() };
            servers.push(Server::launch(&launch, directory, None)?);
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
        Spread::of_ratios(&rates[1], &rates[0]).context("no rounds")
    }
}
