//! The targets of the numbers, and the wider limits that CI checks.

use crate::load::Connection::{Dialled, Kept};
use crate::measure::ORDINARY_BYTES;
use crate::results::Results;
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
const RATIOS: [RatioTarget; 11] = [
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
    ratio("exec / the same program run directly, Python",
        ("exec-python", "direct-python"), ORDINARY_BYTES, AtMost(1.15), AtMost(4.0)),
    ratio("exec / the same program run directly, Rust",
        ("exec-rust", "direct-rust"), ORDINARY_BYTES, AtMost(1.15), AtMost(4.0)),
    RatioTarget { less: Some("baseline"), ..ratio(
        "exec without a gRPC call (the baseline) / the same program run directly, Rust",
        ("exec-rust", "direct-rust"), ORDINARY_BYTES, AtMost(1.15), AtMost(4.0)) },
    ratio("exec / a bare server that runs the same program, Rust",
        ("exec-rust", "baseline-exec-rust"), ORDINARY_BYTES, AtMost(1.15), AtMost(3.0)),
    RatioTarget { bytes: (4 * MB, MB), ..ratio("transport only, 4 MB / 1 MB",
        ("echo", "echo"), MB, AtMost(4.5), AtMost(8.0)) },
];

/// All targets that these results have numbers for.
pub fn of(results: &Results) -> Vec<Target> {
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

fn memory(results: &Results) -> Vec<Target> {
    let row = |what: &str, mib: Option<f64>, wanted, tolerated| {
        let what = what.to_owned();
        Some(Target { what, wanted, tolerated, measured: mib?, spread: None, unit: "MiB" })
    };
    let python = results.memory_of("persistent-python", ORDINARY_BYTES);
    let shim = python.map(|memory| bytes(memory.server) / MIB);
    let both = python.map(|memory| bytes(memory.server + memory.workers) / MIB);
    [
        row("memory of the shim", shim, AtMost(5.0), AtMost(10.0)),
        row("memory of the shim and a Python worker", both, AtMost(16.0), AtMost(32.0)),
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
    use super::*;

    #[test]
    fn bounds_hold_on_their_own_side() {
        assert!(AtMost(1.5).holds(1.5) && !AtMost(1.5).holds(1.51));
        assert!(AtLeast(35.0).holds(35.0) && !AtLeast(35.0).holds(34.9));
    }

    #[test]
    fn what_ci_tolerates_is_never_narrower_than_what_is_wanted() {
        for target in &RATIOS {
            match (target.wanted, target.tolerated) {
                (AtMost(wanted), AtMost(tolerated)) => {
                    assert!(tolerated >= wanted, "{}", target.what)
                }
                (AtLeast(wanted), AtLeast(tolerated)) => {
                    assert!(tolerated <= wanted, "{}", target.what)
                }
                _ => panic!("{}: two sides", target.what),
            }
        }
    }
}
