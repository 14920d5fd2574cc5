//! Measures `sidecar-shim` beside what would be used in its place: one run, the same documents, all
//! contestants in turn. `bench/run` prepares everything and calls it; docs/performance.md has what it
//! came to.

#![forbid(unsafe_code)]

mod baseline;
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
mod results;
mod server;
mod stats;
mod targets;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use crate::documents::{Documents, Expected};
use crate::load::Load;
use crate::options::{Action, Options};
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &options.action {
        Some(Action::Baseline { socket, tuned, run }) => {
            runtime.block_on(baseline::serve(socket, *tuned, run.clone()))?;
        }
        Some(Action::EchoWorker { longer }) => echo_worker::run(*longer)?,
        Some(Action::Render { results }) => {
            let text = fs::read_to_string(results)
                .with_context(|| format!("cannot read {}", results.display()))?;
            show(options, &serde_json::from_str(&text)?)?;
        }
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
            println!("{} calls, p50 {} ms", summary.calls, markdown::number(summary.p50_ms));
        }
        Some(Action::Constrained { calls }) => {
            let outcome = runtime.block_on(constrained::run(&options.parts()?, *calls))?;
            let constrained::Outcome::Measured(rows) = outcome else {
                return Ok(ExitCode::SUCCESS);
            };
            finish(options, &[constrained::table(&rows)])?;
            write_json(options, "constrained.json", &rows)?;
        }
        None => {
            let results = runtime.block_on(options.plan()?.run())?;
            // First of all: it is what took the time.
            write_json(options, "performance.json", &results)?;
            show(options, &results)?;
            if options.check {
                return Ok(check(&results));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Tables and plot.
fn show(options: &Options, results: &results::Results) -> Result<()> {
    finish(options, &markdown::tables(results))?;
    match &options.out {
        Some(directory) => plot::draw(results, &directory.join("performance.svg")),
        None => Ok(()),
    }
}

/// Shows tables, and puts them into the page that was named.
fn finish(options: &Options, tables: &[markdown::Table]) -> Result<()> {
    for table in tables {
        println!("{}", table.text);
    }
    match &options.page {
        Some(page) => markdown::update(page, tables),
        None => Ok(()),
    }
}

fn write_json(options: &Options, name: &str, value: &impl serde::Serialize) -> Result<()> {
    let Some(directory) = &options.out else { return Ok(()) };
    fs::create_dir_all(directory)?;
    let path = directory.join(name);
    let json = serde_json::to_string(value)? + "\n";
    fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
}

/// Fails on what no load of the machine explains.
fn check(results: &results::Results) -> ExitCode {
    let targets = targets::of(results);
    let bad: Vec<_> =
        targets.iter().filter(|target| !target.tolerated.holds(target.measured)).collect();
    for target in &bad {
        let (measured, unit) = (markdown::number(target.measured), target.unit);
        eprintln!("bench: {}: {measured} {unit}, tolerated is {:?}", target.what, target.tolerated);
    }
    if bad.is_empty() {
        println!("{} ratios and sizes are within what is tolerated", targets.len());
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
