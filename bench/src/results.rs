//! What was measured, as the JSON file has it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::load::Connection;
use crate::proc::Memory;
use crate::stats::{Ratio, Summary, median, ms};

/// Everything.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    pub settings: Settings,
    pub cells: Vec<Cell>,
    pub memory: Vec<MemoryRow>,
    pub starts: Vec<StartRow>,
    pub scaling: Option<Ratio>,
    pub binary_bytes: u64,
    /// Contestants that were left out, and why.
    pub skipped: Vec<String>,
}

/// Where it was measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// Processes that were running at the start, on average of one minute: 0 on a quiet machine.
    pub load_before: f64,
    pub python: String,
}

/// How it was measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    pub rounds: usize,
    pub round_ms: u64,
    /// One client and its server had a CPU each.
    pub cpus_apart: bool,
}

/// One contestant under one load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cell {
    pub contestant: String,
    pub label: String,
    pub bytes: usize,
    pub clients: usize,
    pub connection: Connection,
    #[serde(flatten)]
    pub summary: Summary,
}

/// Memory of one contestant.
#[derive(Debug, Serialize, Deserialize)]
pub struct MemoryRow {
    pub contestant: String,
    pub label: String,
    /// The length of the domains that it was called with.
    pub bytes: usize,
    pub calls: usize,
    #[serde(flatten)]
    pub memory: Memory,
}

/// How long a contestant takes to its socket.
#[derive(Debug, Serialize, Deserialize)]
pub struct StartRow {
    pub contestant: String,
    pub label: String,
    pub starts: usize,
    pub p50_ms: f64,
    pub max_ms: f64,
}

impl StartRow {
    /// Of at least one start.
    pub fn new(contestant: String, label: String, times: &[Duration]) -> Self {
        let times: Vec<f64> = times.iter().copied().map(ms).collect();
        let max_ms = times.iter().copied().fold(0.0, f64::max);
        Self { contestant, label, starts: times.len(), p50_ms: median(&times), max_ms }
    }
}

impl Results {
    /// The cell of a contestant under a load.
    pub fn cell(
        &self,
        contestant: &str,
        bytes: usize,
        clients: usize,
        connection: Connection,
    ) -> Option<&Cell> {
        self.cells.iter().find(|cell| {
            cell.contestant == contestant
                && (cell.bytes, cell.clients, cell.connection) == (bytes, clients, connection)
        })
    }

    /// How many times as long one contestant's calls take as another's, with one client. What a
    /// third one's take may be taken off the former first.
    pub fn p50_ratio(
        &self,
        (above, less, below): (&str, Option<&str>, &str),
        (bytes_above, bytes_below): (usize, usize),
        connection: Connection,
    ) -> Option<Ratio> {
        let p50 = |name, bytes| Some(&self.cell(name, bytes, 1, connection)?.summary.rounds_p50_ms);
        let mut above = p50(above, bytes_above)?.clone();
        if let Some(less) = less {
            let less = p50(less, bytes_above)?;
            above.iter_mut().zip(less).for_each(|(above, less)| *above -= less);
        }
        Ratio::of(&above, p50(below, bytes_below)?)
    }

    /// The contestants, in the order in which they were measured first.
    pub fn contestants(&self) -> Vec<(&str, &str)> {
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for cell in &self.cells {
            if !seen.iter().any(|(id, _)| *id == cell.contestant) {
                seen.push((&cell.contestant, &cell.label));
            }
        }
        seen
    }

    /// The memory of a contestant after calls with domains of this length.
    pub fn memory_of(&self, contestant: &str, bytes: usize) -> Option<Memory> {
        let row = |row: &&MemoryRow| row.contestant == contestant && row.bytes == bytes;
        self.memory.iter().find(row).map(|row| row.memory)
    }

    /// How long a contestant takes to its socket.
    pub fn start_of(&self, contestant: &str) -> Option<f64> {
        self.starts.iter().find(|row| row.contestant == contestant).map(|row| row.p50_ms)
    }
}
