//! The command line of `test`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ColorChoice};
use sidecar_shim::admission::{Load, Memory};
use sidecar_shim::backend::Settings;
use sidecar_shim::cli::values::usage;
use sidecar_shim::cli::{LogOptions, Mode, WorkerOptions};
use sidecar_shim::error::StartError;
use sidecar_shim::hook::Checks;
use sidecar_shim::server::default_memory_budget;

use crate::test::{DEFAULT_CASES, TestConfig};

/// Longer than any test takes: a worker that is started again would cost a case's deadline.
const NEVER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Maximum number of cases at a time: each may have a process, and a shim with its sockets.
const MAX_JOBS: u16 = 256;

#[derive(Args)]
pub(super) struct TestArgs {
    /// Directory of a case, or of cases
    #[arg(default_value = DEFAULT_CASES)]
    cases: PathBuf,

    /// Only cases with this text in their paths
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Write the hook's results as the expected files
    #[arg(long)]
    update: bool,

    // As `help`, so that it has no backticks.
    #[arg(long, value_name = "FILE", help = "File for a JUnit report")]
    junit: Option<PathBuf>,

    /// Let libvirt's tools judge what the hook returns
    #[arg(long)]
    libvirt: bool,

    /// Number of cases at a time (default: one per CPU)
    #[arg(long, short = 'j', value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_JOBS)))]
    jobs: Option<u16>,

    /// Colours of the report: auto, always or never
    #[arg(
        long,
        value_name = "WHEN",
        hide_possible_values = true,
        default_value_t = ColorChoice::Auto
    )]
    color: ColorChoice,

    /// Worker, or program for each call
    #[arg(last = true, value_name = "HOOK")]
    words: Vec<OsString>,

    /// Hook's mode
    #[arg(long, value_enum, hide_possible_values = true)]
    mode: Option<Mode>,

    #[command(flatten)]
    worker: WorkerOptions,

    /// No new privileges by setuid or file capabilities
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new())]
    no_new_privs: bool,

    #[command(flatten)]
    log: LogOptions,
}

impl TestArgs {
    /// Returns whether hooks are denied new privileges, what is logged, and the rest.
    pub(super) fn resolve(self) -> Result<(bool, LogOptions, TestConfig), StartError> {
        let command = self.worker.command(self.words)?.ok_or_else(|| {
            let update = if self.update { " --update" } else { "" };
            usage(format!(
                "no hook: give its command after `--` (hookctl test{update} -- python3 hook.py)"
            ))
        })?;
        let settings = Settings {
            // Each shim has its numbers of workers.
            min_workers: 0,
            max_workers: 1,
            idle_timeout: NEVER,
            queue: Load { calls: usize::MAX, bytes: usize::MAX },
            max_requests: None,
            worker_memory: None,
            checks: Checks::WellFormed,
            start_timeout: self.worker.start_timeout,
            kill_grace: self.worker.kill_grace,
            memory: Memory::new(default_memory_budget()),
        };
        let jobs = self.jobs.map_or_else(
            || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            usize::from,
        );
        let config = TestConfig {
            cases: self.cases,
            filter: self.filter,
            update: self.update,
            junit: self.junit,
            libvirt: self.libvirt,
            command,
            persistent: self.mode.map(|mode| mode == Mode::Persistent),
            settings,
            jobs,
            color: self.color,
        };
        Ok((self.no_new_privs, self.log, config))
    }
}
