//! What is wanted of the numbers, and what CI holds them to.

use crate::load::Connection::{Dialled, Kept};
use crate::measure::ORDINARY_BYTES;
use crate::results::Results;
use crate::stats::Ratio;

const MIB: f64 = 1024.0 * 1024.0;

/// One number beside what is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub what: String,
    pub wanted: Bound,
    /// On a machine that does other things meanwhile, in short rounds: only what is broken fails.
    pub tolerated: Bound,
    pub measured: f64,
    /// Least and most of the rounds, for ratios.
    pub spread: Option<(f64, f64)>,
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
    /// Whose median is taken off that one first.
    less: Option<&'static str>,
    below: &'static str,
    bytes: (usize, usize),
    wanted: Bound,
    tolerated: Bound,
}

use Bound::{AtLeast, AtMost};

const RATIOS: [RatioTarget; 11] = [
    RatioTarget {
        what: "transport only / baseline, 8 kB",
        above: "echo",
        less: None,
        below: "baseline",
        bytes: (ORDINARY_BYTES, ORDINARY_BYTES),
        wanted: AtMost(1.5),
        tolerated: AtMost(4.0),
    },
    RatioTarget {
        what: "transport only / baseline, 1 MB",
        above: "echo",
        less: None,
        below: "baseline",
        bytes: (1_000_000, 1_000_000),
        wanted: AtMost(1.6),
        tolerated: AtMost(6.0),
    },
    RatioTarget {
        what: "transport only / baseline with the shim's windows and memory, 8 kB",
        above: "echo",
        less: None,
        below: "baseline-tuned",
        bytes: (ORDINARY_BYTES, ORDINARY_BYTES),
        wanted: AtMost(1.5),
        tolerated: AtMost(4.0),
    },
    RatioTarget {
        what: "transport only / baseline with the shim's windows and memory, 1 MB",
        above: "echo",
        less: None,
        below: "baseline-tuned",
        bytes: (1_000_000, 1_000_000),
        wanted: AtMost(1.6),
        tolerated: AtMost(6.0),
    },
    RatioTarget {
        what: "exec / persistent, same Python hook",
        above: "exec-python",
        less: None,
        below: "persistent-python",
        bytes: (ORDINARY_BYTES, ORDINARY_BYTES),
        wanted: AtLeast(35.0),
        tolerated: AtLeast(8.0),
    },
    RatioTarget {
        what: "gRPC server in Python / persistent Python worker, same edit",
        above: "python-server",
        less: None,
        below: "persistent-python",
        bytes: (ORDINARY_BYTES, ORDINARY_BYTES),
        wanted: AtLeast(1.6),
        tolerated: AtLeast(0.8),
    },
    RatioTarget {
        what: "exec / the same program run directly, Python",
        above: "exec-python",
        less: None,
        below: "direct-python",
        bytes: (ORDINARY_BYTES, ORDINARY_BYTES),
        wanted: AtMost(1.15),
        tolerated: AtMost(2.0),
    },
    RatioTarget {
        what: "exec / the same program run directly, Rust",
        above: "exec-rust",
        less: None,
        below: "direct-rust",
        bytes: (ORDINARY_BYTES, ORDINARY_BYTES),
        wanted: AtMost(1.15),
        tolerated: AtMost(4.0),
    },
    RatioTarget {
        what: "exec without a gRPC call (the baseline) / the same program run directly, Rust",
        above: "exec-rust",
        less: Some("baseline"),
        below: "direct-rust",
        bytes: (ORDINARY_BYTES, ORDINARY_BYTES),
        wanted: AtMost(1.15),
        tolerated: AtMost(4.0),
    },
    RatioTarget {
        what: "exec / a bare server that runs the same program, Rust",
        above: "exec-rust",
        less: None,
        below: "baseline-exec-rust",
        bytes: (ORDINARY_BYTES, ORDINARY_BYTES),
        wanted: AtMost(1.15),
        tolerated: AtMost(3.0),
    },
    RatioTarget {
        what: "transport only, 4 MB / 1 MB",
        above: "echo",
        less: None,
        below: "echo",
        bytes: (4_000_000, 1_000_000),
        wanted: AtMost(4.5),
        tolerated: AtMost(8.0),
    },
];

/// All that can be told from these results.
pub fn of(results: &Results) -> Vec<Target> {
    let mut targets = Vec::new();
    for connection in [Dialled, Kept] {
        for target in &RATIOS {
            // A program run directly has no connection; its counterpart dials, as virt-launcher does.
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
        spread: Some((ratio.min, ratio.max)),
        unit: "×",
    }));
    targets
}

impl Target {
    fn of_ratio(target: &RatioTarget, how: &str, ratio: Ratio) -> Self {
        Self {
            what: format!("{}, {how}", target.what),
            wanted: target.wanted,
            tolerated: target.tolerated,
            measured: ratio.median,
            spread: Some((ratio.min, ratio.max)),
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
