//! What was measured, as the JSON file has it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

use crate::boot::Boots;
use crate::constrained::ConstrainedRow;
use crate::fleet::FleetRow;
use crate::load::Connection;
use crate::mass::MassRun;
use crate::proc::Memory;
use crate::stats::{Spread, Summary, median, ms};

/// Everything. Each subcommand measures one section, and leaves the others in the file as they are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sections {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<Results>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constrained: Option<Vec<ConstrainedRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boots>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mass: Option<Vec<MassRun>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<Vec<FleetRow>>,
}

impl Sections {
    pub fn read(file: &Path) -> Result<Self> {
        let failed = || format!("cannot read {}", file.display());
        let text = fs::read_to_string(file).with_context(failed)?;
        serde_json::from_str(&text).with_context(failed)
    }

    /// Replaces the sections of the file that were measured now.
    pub fn store(&self, file: &Path) -> Result<()> {
        let mut sections = match fs::read_to_string(file) {
            Ok(text) => serde_json::from_str(&text)?,
            Err(_) => serde_json::Map::new(),
        };
        if let serde_json::Value::Object(measured) = serde_json::to_value(self)? {
            sections.extend(measured);
        }
        let json = serde_json::to_string(&sections)? + "\n";
        fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Calls to servers that run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    pub settings: Settings,
    pub cells: Vec<Cell>,
    pub memory: Vec<MemoryRow>,
    pub starts: Vec<StartRow>,
    pub scaling: Option<Spread>,
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
    /// Load average of one minute at the start: 0 on a quiet machine.
    pub load_before: f64,
    pub python: String,
}

impl Machine {
    /// This one, with this interpreter.
    pub fn new(python: &Path) -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let version = Command::new(python).arg("--version").output();
        let version = version.with_context(|| format!("cannot run {}", python.display()))?;
        Ok(Self {
            cpu: cpu.map_or("unknown", |(_, name)| name).to_owned(),
            cores: available_parallelism()?.get(),
            kernel: uname()?.release().to_string_lossy().into_owned(),
            load_before: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            python: String::from_utf8_lossy(&version.stdout).trim().to_owned(),
        })
    }
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
    /// Length of the domains in the calls before.
    pub bytes: usize,
    pub calls: usize,
    #[serde(flatten)]
    pub memory: Memory,
}

/// Time from a contestant's start to its socket.
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

    /// The time of one contestant's calls in terms of another's, with one client. That of a third
    /// contestant may be subtracted from the former first.
    pub fn p50_ratio(
        &self,
        (above, less, below): (&str, Option<&str>, &str),
        (bytes_above, bytes_below): (usize, usize),
        connection: Connection,
    ) -> Option<Spread> {
        let p50 = |name, bytes| Some(&self.cell(name, bytes, 1, connection)?.summary.rounds_p50_ms);
        let mut above = p50(above, bytes_above)?.clone();
        if let Some(less) = less {
            let less = p50(less, bytes_above)?;
            above.iter_mut().zip(less).for_each(|(above, less)| *above -= less);
        }
        Spread::of_ratios(&above, p50(below, bytes_below)?)
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

    /// The median time from a contestant's start to its socket.
    pub fn start_of(&self, contestant: &str) -> Option<f64> {
        self.starts.iter().find(|row| row.contestant == contestant).map(|row| row.p50_ms)
    }
}
