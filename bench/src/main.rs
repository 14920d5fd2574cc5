//! Measures `sidecar-shim` beside its alternatives: one run, the same documents, all contestants in
//! turn. `bench/run` prepares everything and calls it; docs/performance.md has the results.

#![forbid(unsafe_code)]

mod baseline;
mod boot;
mod cgroup;
mod constrained;
mod contestant;
mod cost;
mod cpus;
mod created;
mod direct;
mod documents;
mod echo_worker;
mod fleet;
mod load;
mod log;
mod markdown;
mod mass;
mod measure;
mod node_worker;
mod options;
mod phases;
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

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::documents::{Documents, Expected};
use crate::load::Load;
use crate::markdown::Table;
use crate::mass::MassRun;
use crate::options::{Action, FleetOptions, MassOptions, Options};
use crate::results::Sections;
use crate::stats::Summary;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    // One thread, as the shim has: the other core is the server's.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match &options.action {
        Some(Action::Baseline { socket, tuned, run }) => {
            runtime.block_on(baseline::serve(socket, *tuned, run.clone()))?;
        }
        Some(Action::EchoWorker { longer }) => echo_worker::run(*longer)?,
        Some(Action::NodeWorker { order, work }) => node_worker::run(order, (*work).into())?,
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
        _ => measure(options, &runtime)?,
    }
    Ok(())
}

/// Measures the sections of a subcommand. Each is stored and shown as soon as it is there.
fn measure(options: &Options, runtime: &Runtime) -> Result<()> {
    options.check_page()?;
    let directory = server::directory()?;
    let copies = directory.path();
    let boot = |boots: usize| -> Result<Sections> {
        let (parts, kinds) = (options.parts(copies)?, options.booted(copies)?);
        let boots = runtime.block_on(boot::run(&parts, &kinds, boots, options.skipped_boots()))?;
        Ok(Sections { boot: Some(boots), ..Sections::default() })
    };
    let mass = |mass: &MassOptions| -> Result<Sections> {
        let sizes = mass.vmi_sizes.iter().map(|size| usize::try_from(size.as_u64()));
        let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
        let mass = runtime.block_on(mass::run(&options.parts(copies)?, &sizes))?;
        Ok(Sections { mass: Some(mass), ..Sections::default() })
    };
    let fleet = |fleet: &FleetOptions| -> Result<Sections> {
        let FleetOptions { sidecars, idle_timeout } = fleet;
        let parts = options.parts(copies)?;
        let fleet = runtime.block_on(fleet::run(&parts, *sidecars, (*idle_timeout).into()))?;
        Ok(Sections { fleet: Some(fleet), ..Sections::default() })
    };
    let calls = || -> Result<Sections> {
        let calls = runtime.block_on(options.plan(copies)?.run())?;
        Ok(Sections { calls: Some(calls), ..Sections::default() })
    };
    let constrained = |calls: usize| -> Result<Sections> {
        let rows = runtime.block_on(constrained::run(&options.parts(copies)?, calls))?;
        Ok(Sections { constrained: Some(rows), ..Sections::default() })
    };
    let shown = |sections: Sections| show(options, &sections).map(|()| sections);
    let limits = constrained::group().map(drop);
    let measured = match (&options.action, limits) {
        (Some(Action::Render { results }), _) => vec![shown(Sections::read(results)?)?],
        (Some(Action::Constrained { .. } | Action::Mass { .. }), Err(error)) => {
            println!("skipped: no control groups here: {error:#}");
            Vec::new()
        }
        (Some(Action::Constrained { calls }), Ok(())) => vec![shown(constrained(*calls)?)?],
        (Some(Action::Mass { mass: sizes }), Ok(())) => vec![shown(mass(sizes)?)?],
        (Some(Action::Boot { boots }), _) => vec![shown(boot(*boots)?)?],
        (Some(Action::Fleet { fleet: sidecars }), _) => vec![shown(fleet(sidecars)?)?],
        (
            Some(Action::All { boots, calls: in_each_mode, mass: sizes, fleet: sidecars }),
            limits,
        ) => {
            limits.context("all of it needs root and control groups")?;
            vec![
                shown(boot(*boots)?)?,
                shown(mass(sizes)?)?,
                shown(fleet(sidecars)?)?,
                shown(constrained(*in_each_mode)?)?,
                shown(calls()?)?,
            ]
        }
        _ => vec![shown(calls()?)?],
    };
    measured.iter().flat_map(|sections| &sections.mass).flatten().try_for_each(MassRun::check)?;
    if options.check { check(&measured) } else { Ok(()) }
}

/// Stores what was measured, and shows it. What is computed from several sections takes the others
/// from the file.
fn show(options: &Options, measured: &Sections) -> Result<()> {
    for table in &markdown::tables(measured) {
        println!("{}", table.text);
    }
    let Some(directory) = &options.out else {
        return update(options, &markdown::tables(measured));
    };
    fs::create_dir_all(directory)?;
    let file = directory.join("performance.json");
    measured.store(&file)?;
    let all = Sections::read(&file)?;
    update(options, &markdown::tables(&all))?;
    plot::draw_all(&all, directory)
}

fn update(options: &Options, tables: &[Table]) -> Result<()> {
    options.page.iter().try_for_each(|page| markdown::update(page, tables))
}

/// Fails on numbers that load on the machine does not explain.
fn check(measured: &[Sections]) -> Result<()> {
    let targets: Vec<_> = measured.iter().flat_map(targets::of).collect();
    let mut bad = Vec::new();
    for target in targets.iter().filter(|target| !target.tolerated.holds(target.measured)) {
        let (measured, unit) = (markdown::number(target.measured), target.unit);
        bad.push(format!("{}: {measured} {unit} exceeds {:?}", target.what, target.tolerated));
    }
    ensure!(bad.is_empty(), "{}", bad.join("\n"));
    println!("{} ratios, times and sizes are within their limits", targets.len());
    Ok(())
}
