//! What a cluster pays for its hooks: computed from what was measured for one sidecar.

use crate::boot::Environment;
use crate::load::Connection;
use crate::markdown::{Table, dash, number};
use crate::measure::ORDINARY_BYTES;
use crate::results::Sections;
use crate::stats::median;

/// Running VMs of a large cluster.
const VMS: f64 = 100_000.0;

/// VMs of a node.
const VMS_OF_A_NODE: f64 = 100.0;

/// Calls of `OnDefineDomain`, or of its counterpart, for each boot.
const CALLS: f64 = 3.0;

/// Workers of a shim that serves all VMs of a node.
const WORKERS_OF_A_NODE: f64 = 4.0;

const GIB: f64 = (1_u64 << 30) as f64;

/// Time of a rolling restart of all VMs.
const RESTART_SECONDS: f64 = 3600.0;

/// The table, if boots and sidecars were measured.
pub fn table(sections: &Sections) -> Option<Table> {
    let (boots, fleet) = (sections.boot.as_ref()?, sections.fleet.as_ref()?);
    let heads = [
        "",
        "memory after the boots",
        "memory once idle",
        "CPU time of a restart",
        "CPUs, if that takes an hour",
    ];
    let mut table = Table::new("cost", heads);
    for row in fleet {
        let of = |boots: &&crate::boot::BootRow| {
            boots.contestant == row.contestant && boots.environment == Environment::Unrestricted
        };
        let boots = boots.rows.iter().find(of);
        let cpu = boots.map(|boots| {
            let each: Vec<f64> = boots.boots.iter().map(|boot| boot.cpu_ms).collect();
            median(&each) / 1000.0 * VMS
        });
        let memory = [row.busy_bytes, row.idle_bytes].map(|bytes| float(bytes) * VMS);
        add(&mut table, &format!("a sidecar: {}", row.label), memory, cpu);
    }
    // One shim and its workers for all VMs of a node.
    let shim = fleet.iter().find(|row| row.contestant == "persistent-python")?;
    let cpu = sections.calls.as_ref().and_then(|calls| {
        let cell = calls.cell("persistent-python", ORDINARY_BYTES, 1, Connection::Dialled)?;
        Some(cell.summary.cpu_ms / 1000.0 * CALLS * VMS)
    });
    let nodes = VMS / VMS_OF_A_NODE;
    let worker = float(shim.busy_bytes - shim.idle_bytes);
    let idle = float(shim.idle_bytes);
    let memory = [idle + WORKERS_OF_A_NODE * worker, idle].map(|bytes| bytes * nodes);
    add(&mut table, "a plugin on each node: persistent, Python hook", memory, cpu);
    Some(table)
}

fn add(table: &mut Table, label: &str, memory: [f64; 2], cpu: Option<f64>) {
    let [busy, idle] = memory.map(|bytes| format!("{} GiB", number(bytes / GIB)));
    let hours = cpu.map_or_else(dash, |seconds| format!("{} h", number(seconds / 3600.0)));
    let cpus = cpu.map_or_else(dash, |seconds| number(seconds / RESTART_SECONDS));
    table.row([label, &busy, &idle, &hours, &cpus]);
}

#[expect(clippy::cast_precision_loss, reason = "a process has less than 2^52 bytes")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}
