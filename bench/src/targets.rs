//! The targets of the numbers, and the wider limits that CI checks.

use crate::boot::{Boot, Environment};
use crate::load::Connection::{Dialled, Kept};
use crate::measure::ORDINARY_BYTES;
use crate::proc::Memory;
use crate::results::{Results, Sections};
use crate::stats::Spread;

const MIB: f64 = 1024.0 * 1024.0;

/// One number beside its target.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub what: String,
    pub wanted: Bound,
    /// For short rounds on a busy machine: only a real fault exceeds it.
    pub tolerated: Bound,
    pub measured: f64,
    /// Of the rounds, for ratios.
    pub spread: Option<Spread>,
    pub unit: &'static str,
}

/// A limit on one side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

/// A ratio of two contestants' medians.
struct RatioTarget {
    what: &'static str,
    above: &'static str,
    /// The contestant to subtract from the one above first.
    less: Option<&'static str>,
    below: &'static str,
    bytes: (usize, usize),
    wanted: Bound,
    tolerated: Bound,
}

use Bound::{AtLeast, AtMost};

/// Of two contestants with domains of this length, and what is wanted and tolerated.
const fn ratio(
    what: &'static str,
    (above, below): (&'static str, &'static str),
    bytes: usize,
    wanted: Bound,
    tolerated: Bound,
) -> RatioTarget {
    RatioTarget { what, above, less: None, below, bytes: (bytes, bytes), wanted, tolerated }
}

const MB: usize = 1_000_000;

#[rustfmt::skip] // one target, two lines
const RATIOS: [RatioTarget; 12] = [
    ratio("transport only / baseline, 8 kB",
        ("echo", "baseline"), ORDINARY_BYTES, AtMost(1.5), AtMost(4.0)),
    ratio("transport only / baseline, 1 MB",
        ("echo", "baseline"), MB, AtMost(1.6), AtMost(6.0)),
    ratio("transport only / baseline with the shim's windows and memory, 8 kB",
        ("echo", "baseline-tuned"), ORDINARY_BYTES, AtMost(1.5), AtMost(4.0)),
    ratio("transport only / baseline with the shim's windows and memory, 1 MB",
        ("echo", "baseline-tuned"), MB, AtMost(1.6), AtMost(6.0)),
    ratio("exec / persistent, same Python hook",
        ("exec-python", "persistent-python"), ORDINARY_BYTES, AtLeast(35.0), AtLeast(8.0)),
    ratio("gRPC server in Python / persistent Python worker, same edit",
        ("python-server", "persistent-python"), ORDINARY_BYTES, AtLeast(1.6), AtLeast(0.8)),
    ratio("gRPC server in Python / persistent Python worker, same edit, 128 kB",
        ("python-server", "persistent-python"), 128_000, AtLeast(1.0), AtLeast(0.5)),
    ratio("exec / the same program run directly, Python",
        ("exec-python", "direct-python"), ORDINARY_BYTES, AtMost(1.15), AtMost(4.0)),
    ratio("exec / the same program run directly, Rust",
        ("exec-rust", "direct-rust"), ORDINARY_BYTES, AtMost(1.2), AtMost(4.0)),
    RatioTarget { less: Some("baseline"), ..ratio(
        "exec without a gRPC call (the baseline) / the same program run directly, Rust",
        ("exec-rust", "direct-rust"), ORDINARY_BYTES, AtMost(1.15), AtMost(4.0)) },
    ratio("exec / a bare server that runs the same program, Rust",
        ("exec-rust", "baseline-exec-rust"), ORDINARY_BYTES, AtMost(1.15), AtMost(3.0)),
    RatioTarget { bytes: (4 * MB, MB), ..ratio("transport only, 4 MB / 1 MB",
        ("echo", "echo"), MB, AtMost(4.5), AtMost(8.0)) },
];

/// What a boot takes, alone or in terms of another contestant's boots.
struct BootTarget {
    what: &'static str,
    environment: Environment,
    contestant: &'static str,
    below: Option<&'static str>,
    of: fn(&Boot) -> Option<f64>,
    wanted: Bound,
    tolerated: Bound,
}

const CPU: fn(&Boot) -> Option<f64> = |boot| Some(boot.cpu_ms);

const BOOTS: [BootTarget; 5] = [
    BootTarget {
        what: "a boot with a Python hook / `python3 -c 'import json'`, CPU",
        environment: Environment::Unrestricted,
        contestant: "persistent-python",
        below: Some("interpreter"),
        of: CPU,
        wanted: AtMost(1.22),
        tolerated: AtMost(3.0),
    },
    BootTarget {
        what: "a boot with a Python hook at a fifth of a CPU, until the third result",
        environment: Environment::Constrained,
        contestant: "persistent-python",
        below: None,
        of: |boot| boot.calls?.answers_ms.last().copied(),
        wanted: AtMost(18.0),
        tolerated: AtMost(1000.0),
    },
    BootTarget {
        what: "a boot with a Rust hook, CPU",
        environment: Environment::Unrestricted,
        contestant: "persistent-rust",
        below: None,
        of: CPU,
        wanted: AtMost(3.2),
        tolerated: AtMost(30.0),
    },
    BootTarget {
        what: "a boot with a Rust hook, until the exit",
        environment: Environment::Unrestricted,
        contestant: "persistent-rust",
        below: None,
        of: |boot| Some(boot.exit_ms),
        wanted: AtMost(5.0),
        tolerated: AtMost(300.0),
    },
    BootTarget {
        what: "a boot with a network binding in Rust / KubeVirt's in Go, CPU",
        environment: Environment::Unrestricted,
        contestant: "binding-rust",
        below: Some("binding-kubevirt"),
        of: CPU,
        wanted: AtMost(0.25),
        tolerated: AtMost(1.0),
    },
];

/// All targets that these sections have numbers for.
pub fn of(sections: &Sections) -> Vec<Target> {
    let boots = BOOTS.iter().filter_map(|target| of_boots(sections, target));
    boots.chain(sections.calls.iter().flat_map(of_calls)).collect()
}

fn of_boots(sections: &Sections, target: &BootTarget) -> Option<Target> {
    let boots = sections.boot.as_ref()?;
    let values = |contestant: &str| {
        boots.rows.iter().find_map(|row| {
            let is_it = row.contestant == contestant && row.environment == target.environment;
            is_it.then(|| row.boots.iter().filter_map(target.of).collect::<Vec<f64>>())
        })
    };
    let own = values(target.contestant)?;
    let spread = match target.below {
        Some(below) => Spread::of_ratios(&own, &values(below)?)?,
        None => Spread::of(&own)?,
    };
    Some(Target {
        what: target.what.to_owned(),
        wanted: target.wanted,
        tolerated: target.tolerated,
        measured: spread.median,
        spread: Some(spread),
        unit: if target.below.is_some() { "×" } else { "ms" },
    })
}

fn of_calls(results: &Results) -> Vec<Target> {
    let mut targets = Vec::new();
    for connection in [Dialled, Kept] {
        for target in &RATIOS {
            // A program run directly has no connection; its counterpart dials for each call.
            let ratio = results.p50_ratio(
                (target.above, target.less, target.below),
                target.bytes,
                connection,
            );
            let how = if connection == Dialled { "dialled" } else { "connection kept" };
            targets.extend(ratio.map(|ratio| Target::of_ratio(target, how, ratio)));
        }
    }
    targets.extend(memory(results));
    targets.push(Target {
        what: "the program's file".to_owned(),
        wanted: AtMost(4.0),
        tolerated: AtMost(5.0),
        measured: bytes(results.binary_bytes) / 1e6,
        spread: None,
        unit: "MB",
    });
    targets.extend(["exec-rust", "exec-python"].into_iter().find_map(|name| {
        Some(Target {
            what: "from start to socket, exec mode".to_owned(),
            wanted: AtMost(3.0),
            tolerated: AtMost(50.0),
            measured: results.start_of(name)?,
            spread: None,
            unit: "ms",
        })
    }));
    targets.extend(results.scaling.map(|ratio| Target {
        what: "calls/s of two CPU-bound Python workers / of one".to_owned(),
        wanted: AtLeast(1.7),
        tolerated: AtLeast(0.3),
        measured: ratio.median,
        spread: Some(ratio),
        unit: "×",
    }));
    targets
}

impl Target {
    fn of_ratio(target: &RatioTarget, how: &str, ratio: Spread) -> Self {
        Self {
            what: format!("{}, {how}", target.what),
            wanted: target.wanted,
            tolerated: target.tolerated,
            measured: ratio.median,
            spread: Some(ratio),
            unit: "×",
        }
    }
}

/// Resident after the calls.
fn memory(results: &Results) -> Vec<Target> {
    let row = |what: &str, contestant, of: fn(Memory) -> u64, wanted, tolerated| {
        let memory = results.memory_of(contestant, ORDINARY_BYTES)?;
        Some(Target {
            what: what.to_owned(),
            wanted: AtMost(wanted),
            tolerated: AtMost(tolerated),
            measured: bytes(of(memory)) / MIB,
            spread: None,
            unit: "MiB",
        })
    };
    let all = |memory: Memory| memory.server + memory.workers;
    let shim = |memory: Memory| memory.server;
    [
        row("memory of the shim", "persistent-python", shim, 3.3, 10.0),
        row("memory of the shim and a Rust worker", "persistent-rust", all, 5.7, 16.0),
        row("memory of the shim and a Python worker", "persistent-python", all, 13.8, 32.0),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[expect(clippy::cast_precision_loss, reason = "sizes of files and processes are below 2^52")]
fn bytes(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::boot::{BootRow, Boots};
    use crate::results::Machine;

    #[test]
    fn bounds_hold_on_their_own_side() {
        assert!(AtMost(1.5).holds(1.5) && !AtMost(1.5).holds(1.51));
        assert!(AtLeast(35.0).holds(35.0) && !AtLeast(35.0).holds(34.9));
    }

    #[test]
    fn what_ci_tolerates_is_never_narrower_than_what_is_wanted() {
        let ratios = RATIOS.iter().map(|target| (target.what, target.wanted, target.tolerated));
        let boots = BOOTS.iter().map(|target| (target.what, target.wanted, target.tolerated));
        for (what, wanted, tolerated) in ratios.chain(boots) {
            match (wanted, tolerated) {
                (AtMost(wanted), AtMost(tolerated)) => assert!(tolerated >= wanted, "{what}"),
                (AtLeast(wanted), AtLeast(tolerated)) => assert!(tolerated <= wanted, "{what}"),
                _ => panic!("{what}: two sides"),
            }
        }
    }

    /// Boots that took this much CPU time, in milliseconds.
    fn row(contestant: &str, environment: Environment, cpu: &[f64]) -> BootRow {
        let boot = |cpu_ms: &f64| Boot {
            calls: None,
            exit_ms: 10.0,
            cpu_ms: *cpu_ms,
            shim_cpu_ms: None,
            peak_bytes: None,
            throttled: None,
        };
        BootRow {
            contestant: contestant.to_owned(),
            label: contestant.to_owned(),
            environment,
            boots: cpu.iter().map(boot).collect(),
        }
    }

    #[test]
    fn targets_of_boots_are_ratios_of_the_same_round_in_the_same_environment() {
        let machine = Machine::new(Path::new("true")).unwrap();
        let rows = vec![
            row("binding-rust", Environment::Unrestricted, &[2.0, 6.0, 3.0]),
            row("binding-kubevirt", Environment::Unrestricted, &[10.0, 20.0, 10.0]),
            row("binding-kubevirt", Environment::Constrained, &[1.0, 1.0, 1.0]),
            row("persistent-rust", Environment::Constrained, &[1.0, 1.0, 1.0]),
        ];
        let boot = Some(Boots { machine, rounds: 3, rows, skipped: Vec::new() });
        let targets = of(&Sections { boot, ..Sections::default() });
        let [binding] = &targets[..] else { panic!("{targets:?}") };
        assert_eq!(binding.spread, Some(Spread { median: 0.3, min: 0.2, max: 0.3 }));
        assert!(
            !binding.wanted.holds(binding.measured) && binding.tolerated.holds(binding.measured)
        );
    }
}
