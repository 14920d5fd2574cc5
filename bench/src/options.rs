//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::contestant::{Baseline, Echo, Kind, Language, Parts};
use crate::cpus::Cpus;
use crate::load::Connection;
use crate::measure::Plan;

/// Measures sidecar-shim beside what would be used in its place.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Options {
    #[command(subcommand)]
    pub action: Option<Action>,
    /// The program that is measured
    #[arg(long, global = true, default_value = "target/release/sidecar-shim", value_name = "PATH")]
    shim: PathBuf,
    /// The interpreter of the Python hook
    #[arg(long, global = true, default_value = "/usr/bin/python3", value_name = "PATH")]
    python: PathBuf,
    /// The hook in Python
    #[arg(long, global = true, default_value = "examples/python/smbios.py", value_name = "PATH")]
    python_hook: PathBuf,
    /// The hook in Rust
    #[arg(
        long,
        global = true,
        default_value = "target/release/examples/smbios",
        value_name = "PATH"
    )]
    rust_hook: PathBuf,
    /// The hook in Go; without it, no Go hook is measured
    #[arg(long, global = true, value_name = "PATH")]
    go_hook: Option<PathBuf>,
    /// An interpreter with grpcio; without it, no server in Python is measured
    #[arg(long, requires = "grpc_modules", value_name = "PATH")]
    grpc_python: Option<PathBuf>,
    /// The modules that `grpc_tools.protoc` has made of proto/
    #[arg(long, value_name = "DIR")]
    grpc_modules: Option<PathBuf>,
    /// Another shim, started as the Go shim is: PATH, or NAME=PATH. May be given several times
    #[arg(long, value_name = "[NAME=]PATH")]
    peer: Vec<String>,
    /// Lengths of the domain, such as 8kB
    #[arg(long, value_delimiter = ',', default_value = "4kB,8kB,128kB,1MB,4MB")]
    sizes: Vec<bytesize::ByteSize>,
    /// Clients at once
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    clients: Vec<usize>,
    /// How clients connect
    #[arg(long, value_delimiter = ',', default_value = "dialled,kept")]
    connections: Vec<Connection>,
    /// How often each contestant has its turn
    #[arg(long, default_value = "5")]
    rounds: usize,
    /// How long its turn is
    #[arg(long, default_value = "200ms")]
    round_time: humantime::Duration,
    /// Calls before memory is read
    #[arg(long, default_value = "1000")]
    memory_calls: usize,
    /// How often each server is started
    #[arg(long, default_value = "20")]
    starts: usize,
    /// Leaves it to the kernel which CPUs a client and its server run on
    #[arg(long)]
    together: bool,
    /// Only contestants whose name begins so
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Where performance.json and performance.svg go
    #[arg(long, global = true, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// A page whose tables are replaced
    #[arg(long, global = true, value_name = "FILE")]
    pub page: Option<PathBuf>,
    /// Fails if a ratio is far from what it should be
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Runs the shim in a control group of 64 MB and a fifth of a CPU
    Constrained {
        /// How many calls are made in each mode
        #[arg(long, default_value = "100")]
        calls: usize,
    },
    /// Makes tables, and the plot, of what was measured before
    Render {
        /// The file of an earlier run
        results: PathBuf,
    },
    /// Calls a server that runs already, for profilers to look at
    Drive {
        /// Its socket
        socket: PathBuf,
        /// The length of the domain
        #[arg(long, default_value = "8kB")]
        size: bytesize::ByteSize,
        /// How many calls each client makes
        #[arg(long, default_value = "1000")]
        calls: usize,
        /// Clients at once
        #[arg(long, default_value = "1")]
        clients: usize,
        /// How clients connect
        #[arg(long, value_enum, default_value = "dialled")]
        connection: Connection,
    },
    /// Serves as the baseline
    #[command(hide = true)]
    Baseline {
        socket: PathBuf,
        #[arg(long)]
        tuned: bool,
        /// The program that makes the answers
        #[arg(long)]
        run: Option<OsString>,
    },
    /// Runs as a worker that returns every domain
    #[command(hide = true)]
    EchoWorker {
        /// Adds a line break
        #[arg(long)]
        longer: bool,
    },
}

impl Options {
    /// What the contestants are made of.
    pub fn parts(&self) -> Result<Parts> {
        for path in [&self.shim, &self.python, &self.python_hook, &self.rust_hook] {
            there(path)?;
        }
        Ok(Parts {
            shim: std::path::absolute(&self.shim)?,
            python: std::path::absolute(&self.python)?,
            python_hook: std::path::absolute(&self.python_hook)?,
            rust_hook: std::path::absolute(&self.rust_hook)?,
            go_hook: self.go_hook.clone(),
            grpc_python: self.grpc_python.clone().zip(self.grpc_modules.clone()),
            python_server: Path::new(env!("CARGO_MANIFEST_DIR")).join("python_server.py"),
            busy_hook: Path::new(env!("CARGO_MANIFEST_DIR")).join("busy.py"),
            bench: std::env::current_exe()?,
        })
    }

    /// What is to be measured.
    pub fn plan(&self) -> Result<Plan> {
        let parts = self.parts()?;
        let mut kinds = vec![
            Kind::Baseline(Baseline::Plain),
            Kind::Baseline(Baseline::Tuned),
            Kind::Echo(Echo::Same),
            Kind::Echo(Echo::Longer),
            Kind::Echo(Echo::Unchecked),
        ];
        let languages = Language::ALL.into_iter();
        let languages: Vec<_> = languages
            .filter(|language| *language != Language::Go || parts.go_hook.is_some())
            .collect();
        kinds.extend(languages.iter().copied().map(Kind::Persistent));
        kinds.extend(parts.grpc_python.is_some().then_some(Kind::PythonServer));
        kinds.extend(languages.iter().copied().map(Kind::Exec));
        // The shortest program: with the others it makes no difference.
        kinds.push(Kind::Baseline(Baseline::Runs(Language::Rust)));
        for peer in &self.peer {
            let (name, path) = peer.split_once('=').unwrap_or(("peer", peer));
            let program = PathBuf::from(path);
            there(&program)?;
            for &hook in &languages {
                kinds.push(Kind::Peer { name: name.to_owned(), program: program.clone(), hook });
            }
        }
        kinds.extend(languages.iter().copied().map(Kind::Direct));
        kinds.retain(|kind| {
            self.only.is_empty() || self.only.iter().any(|only| kind.id().starts_with(only))
        });
        if kinds.is_empty() || self.rounds == 0 || self.starts == 0 || self.clients.contains(&0) {
            bail!("there is nothing to measure");
        }
        let mut skipped = Vec::new();
        if parts.go_hook.is_none() {
            skipped.push("hooks in Go (no --go-hook)".to_owned());
        }
        if parts.grpc_python.is_none() {
            skipped.push("the gRPC server in Python (no --grpc-python)".to_owned());
        }
        let sizes: Result<Vec<usize>, _> =
            self.sizes.iter().map(|size| usize::try_from(size.as_u64())).collect();
        Ok(Plan {
            parts,
            cpus: Cpus::new(!self.together)?,
            kinds,
            skipped,
            sizes: sizes?,
            clients: self.clients.clone(),
            connections: self.connections.clone(),
            rounds: self.rounds,
            round_time: Duration::from(self.round_time),
            memory_calls: self.memory_calls,
            starts: self.starts,
        })
    }
}

fn there(path: &Path) -> Result<()> {
    std::fs::metadata(path).with_context(|| {
        format!("{} is not there (bench/run builds what is needed)", path.display())
    })?;
    Ok(())
}
