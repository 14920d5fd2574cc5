//! Runs the cases of a hook, and compares what it returns with what they expect.
//!
//! # Theory of operation
//! Cases are read first, so that a broken one is reported even if the hook does not start. Then the
//! hook's command is started once, with the environment of the first case, to find out whether it
//! is a worker. `--jobs` cases run at a time, each in every [way](run::Way), one after the other.
//! Cases with the same environment share the [shims](shims::Shims), so they run one after the
//! other; the report has them in the order of their names. A worker may exit with status 2 in exec
//! mode because it is not a program: such a case is decided at the end, when it is known whether
//! the worker has run as a program.
//!
//! Everything that runs belongs to one future: dropped, as by Ctrl-C, it kills what it has started.

mod details;
mod exec;
mod junit;
mod libvirt;
mod report;
mod run;
mod says;
mod shims;
mod update;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ColorChoice;
use sidecar_shim::backend::{CommandLine, Settings};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::exec::Programs;
use self::libvirt::Libvirt;
use self::report::Report;
use self::run::{Demand, Fault, Outcome, Runner, Shared};
use self::shims::{Mode, Shims, with_variables};
use crate::cases::{self, Broken, Case};
use crate::detect::{Detected, detect};
use crate::{output, say};

/// The directory of cases that is not named.
pub(crate) const DEFAULT_CASES: &str = "cases";

/// What to test, and how.
pub(crate) struct TestConfig {
    pub(crate) cases: PathBuf,
    /// Text in the names of the cases to run.
    pub(crate) filter: Option<String>,
    /// Whether what the hook returns is written as what is expected.
    pub(crate) update: bool,
    /// File for a report in the form of `JUnit`.
    pub(crate) junit: Option<PathBuf>,
    /// Whether libvirt judges what hooks return.
    pub(crate) libvirt: bool,
    pub(crate) command: CommandLine,
    /// `None`: those that the hook can.
    pub(crate) persistent: Option<bool>,
    pub(crate) settings: Settings,
    /// Number of cases that run at a time.
    pub(crate) jobs: usize,
    /// When to colour the report.
    pub(crate) color: ColorChoice,
}

impl TestConfig {
    /// Returns the command line that writes what the hook does with these cases.
    fn command_for_update(&self) -> String {
        let mut words = vec!["hookctl".to_owned(), "test".to_owned()];
        if self.cases != Path::new(DEFAULT_CASES) {
            words.push(self.cases.display().to_string());
        }
        if let Some(filter) = &self.filter {
            words.extend(["--filter".to_owned(), filter.clone()]);
        }
        if let Some(persistent) = self.persistent {
            words
                .extend(["--mode", if persistent { "persistent" } else { "exec" }].map(Into::into));
        }
        words.push("--update".to_owned());
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        format!("{} -- {}", words.join(" "), self.command)
    }
}

fn quoted(word: &str) -> Cow<'_, str> {
    // Only a NUL cannot be quoted, which no argument has.
    shlex::try_quote(word).unwrap_or(Cow::Borrowed(word))
}

/// What became of all cases. The values are exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tested {
    Passed = 0,
    Failed = 1,
    /// A case is broken, or none can run.
    Broken = 2,
}

/// Why no case runs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CannotTest(String);

/// Indentation of what is said of a case.
const INDENT: &str = "    ";

/// A case that is done.
struct Done {
    /// Its place among the cases.
    index: usize,
    verdict: Verdict,
    took: Duration,
}

impl Done {
    fn outcome(&self) -> Option<&Outcome> {
        match &self.verdict {
            Verdict::Ran(outcome) | Verdict::Written(_, outcome) => Some(outcome),
            Verdict::Broken(_) => None,
        }
    }
}

enum Verdict {
    Ran(Outcome),
    /// The file that was written.
    Written(&'static str, Outcome),
    Broken(String),
}

/// Runs the cases, and reports each.
pub(crate) async fn run(config: &TestConfig) -> Result<Tested, CannotTest> {
    let started = Instant::now();
    if let Some(report) = &config.junit {
        cases::check_report(report, &config.cases).map_err(CannotTest)?;
    }
    let found = cases::find(&config.cases, config.filter.as_deref()).map_err(CannotTest)?;
    let names: Vec<_> = found.iter().map(|case| name_of(case).to_owned()).collect();
    let color = output::is_colored(config.color, &std::io::stdout());
    let update = config.command_for_update();
    let mut report = Report::new(names, color, (!config.update).then(|| update.clone()));
    let mut cases = Vec::new();
    for (index, case) in found.into_iter().enumerate() {
        match case {
            Ok(case) if case.expected.is_some() || config.update => cases.push((index, case)),
            Ok(case) => {
                let why = format!(
                    "has no expected file: `{update}` writes it ({})",
                    cases::FILES.join(", ")
                );
                report.end(broken(index, Broken { name: case.name, why }));
            }
            Err(bad) => report.end(broken(index, bad)),
        }
    }
    // Those with the same environment follow each other.
    cases.sort_by(|(_, a), (_, b)| a.variables.cmp(&b.variables));
    if let Some((_, first)) = cases.first() {
        let runner = Arc::new(runner(config, first, &cases).await?);
        run_all(config, &runner, cases, &mut report).await;
    }
    let took = started.elapsed();
    let tested = report.finish(took);
    if let Some(path) = &config.junit {
        junit::write(path, &report.cases(), took).map_err(|error| {
            CannotTest(format!("cannot write the report to {}: {error}", path.display()))
        })?;
    }
    Ok(tested)
}

fn name_of(case: &Result<Case, Broken>) -> &str {
    match case {
        Ok(case) => &case.name,
        Err(broken) => &broken.name,
    }
}

fn broken(index: usize, broken: Broken) -> Done {
    Done { index, verdict: Verdict::Broken(broken.why), took: Duration::ZERO }
}

/// Finds out how the hook runs.
async fn runner(
    config: &TestConfig,
    first: &Case,
    cases: &[(usize, Case)],
) -> Result<Runner, CannotTest> {
    let command = with_variables(&config.command, &first.variables);
    let (modes, is_worker) = match config.persistent {
        Some(true) => (vec![Mode::Persistent], true),
        Some(false) => (vec![Mode::Exec], false),
        None => match detect(&command).await.map_err(CannotTest)? {
            Detected::Worker => (vec![Mode::Persistent, Mode::Exec], true),
            Detected::Program(sign) => {
                say(format_args!(
                    "the command is not a worker ({sign}): the cases run in exec mode only \
                     (--mode persistent says why it does not start as one)"
                ));
                (vec![Mode::Exec], false)
            }
        },
    };
    let all = cases.iter().map(|(_, case)| case);
    let shims = Shims::new(config.command.clone(), config.settings.clone(), config.jobs, all);
    let libvirt =
        if config.libvirt { Some(Libvirt::find().await.map_err(CannotTest)?) } else { None };
    // Only a refusal can be mistaken for a program that cannot start.
    let refuses = cases.iter().any(|(_, case)| run::is_refusal(case.expected.as_ref()));
    let alone = if refuses && modes.contains(&Mode::Exec) {
        exec::failure_without_call(&command).await
    } else {
        None
    };
    Ok(Runner { shims, modes, is_worker, programs: Programs::default(), alone, libvirt })
}

/// Runs the cases, some at a time.
async fn run_all(
    config: &TestConfig,
    runner: &Shared,
    cases: Vec<(usize, Case)>,
    report: &mut Report,
) {
    // Dropped, it drops the tasks with their calls.
    let mut tasks = JoinSet::new();
    let (done, mut finished) = mpsc::channel(1);
    let mut waiting = cases.into_iter();
    for (index, case) in waiting.by_ref().take(config.jobs) {
        tasks.spawn(run_one(runner.clone(), config.update, index, case, done.clone()));
    }
    // Those of which only the end shows whether the worker is a program.
    let mut in_doubt = Vec::new();
    let mut end = |case: Done| {
        let is_in_doubt = case.outcome().is_some_and(|outcome| outcome.in_doubt.is_some());
        if is_in_doubt { in_doubt.push(case) } else { report.end(case) }
    };
    while !tasks.is_empty() {
        tokio::select! {
            Some(case) = finished.recv() => end(case),
            Some(_) = tasks.join_next() => {
                if let Some((index, case)) = waiting.next() {
                    tasks.spawn(run_one(runner.clone(), config.update, index, case, done.clone()));
                }
            }
        }
    }
    drop(done);
    while let Some(case) = finished.recv().await {
        end(case);
    }
    for mut case in in_doubt {
        if let Verdict::Ran(outcome) | Verdict::Written(_, outcome) = &mut case.verdict {
            outcome.settle(&runner.programs);
        }
        report.end(case);
    }
}

async fn run_one(runner: Shared, update: bool, index: usize, case: Case, done: mpsc::Sender<Done>) {
    let started = Instant::now();
    let verdict = match (update, &case.expected) {
        (true, _) => update::update(&runner, &case).await,
        (false, Some(expected)) => Verdict::Ran(runner.run(&case, Demand::OfCase(expected)).await),
        (false, None) => Verdict::Broken("has no expected file".to_owned()),
    };
    let took = started.elapsed();
    runner.shims.done(&case).await;
    // The receiver outlives the tasks.
    let _ = done.send(Done { index, verdict, took }).await;
}
