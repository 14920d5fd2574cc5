//! Measures `sidecar-shim` beside its alternatives: one run, the same documents, all contestants in
//! turn. `bench/run` prepares everything and calls it; docs/performance.md has the results.

#![forbid(unsafe_code)]

mod baseline;
mod boot;
mod cgroup;
mod constrained;
mod contestant;
mod cpus;
mod direct;
mod documents;
mod echo_worker;
mod load;
mod log;
mod markdown;
mod measure;
mod options;
mod plot;
mod proc;
mod process;
mod results;
mod server;
mod stats;
mod targets;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::documents::{Documents, Expected};
use crate::load::Load;
use crate::options::{Action, Options};
use crate::results::{Results, Sections};
use crate::stats::Summary;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    // One thread, as the shim has: the other core is the server's.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match &options.action {
        Some(Action::Baseline { socket, tuned, run }) => {
            runtime.block_on(baseline::serve(socket, *tuned, run.clone()))?;
        }
        Some(Action::EchoWorker { longer }) => echo_worker::run(*longer)?,
        Some(Action::Drive { socket, size, calls, clients, connection }) => {
            let load = Load {
                socket: socket.clone(),
                documents: Documents::of_size(usize::try_from(size.as_u64())?)?,
                expected: Expected::Any,
                connection: *connection,
                clients: *clients,
                time: Duration::ZERO,
                least_calls: *calls,
            };
            let summary = Summary::of(&[runtime.block_on(load.run(std::process::id()))?]);
            println!("{} calls, p50 {}", summary.calls, markdown::in_ms(summary.p50_ms));
        }
        _ => return measure(options, &runtime),
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures the section of a subcommand.
fn measure(options: &Options, runtime: &Runtime) -> Result<ExitCode> {
    let mut sections = Sections::default();
    let directory = server::directory()?;
    let copies = directory.path();
    match &options.action {
        Some(Action::Render { results }) => sections = Sections::read(results)?,
        Some(Action::Constrained { calls }) => {
            if let Err(error) = constrained::group() {
                println!("skipped: no control groups here: {error:#}");
                return Ok(ExitCode::SUCCESS);
            }
            let rows = runtime.block_on(constrained::run(&options.parts(copies)?, *calls))?;
            sections.constrained = Some(rows);
        }
        Some(Action::Boot { boots }) => {
            let (parts, kinds) = (options.parts(copies)?, options.booted(copies)?);
            let boots = boot::run(&parts, &kinds, *boots, options.skipped());
            sections.boot = Some(runtime.block_on(boots)?);
        }
        _ => sections.calls = Some(runtime.block_on(options.plan(copies)?.run())?),
    }
    show(options, &sections)?;
    match &sections.calls {
        Some(results) if options.check => Ok(check(results)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Stores what was measured, and shows it.
fn show(options: &Options, sections: &Sections) -> Result<()> {
    if let Some(directory) = &options.out {
        fs::create_dir_all(directory)?;
        sections.store(&directory.join("performance.json"))?;
    }
    let tables = markdown::tables(sections);
    for table in &tables {
        println!("{}", table.text);
    }
    if let Some(page) = &options.page {
        markdown::update(page, &tables)?;
    }
    match (&options.out, &sections.calls) {
        (Some(directory), Some(results)) => plot::draw(results, &directory.join("performance.svg")),
        _ => Ok(()),
    }
}

/// Fails on numbers that load on the machine does not explain.
fn check(results: &Results) -> ExitCode {
    let targets = targets::of(results);
    let bad: Vec<_> =
        targets.iter().filter(|target| !target.tolerated.holds(target.measured)).collect();
    for target in &bad {
        let (measured, unit) = (markdown::number(target.measured), target.unit);
        eprintln!("bench: {}: {measured} {unit} exceeds {:?}", target.what, target.tolerated);
    }
    if bad.is_empty() {
        println!("{} ratios and sizes are within their limits", targets.len());
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
