//! The command line.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};

use crate::contestant::{Baseline, Binding, Echo, Kind, Language, Parts, Probe};
use crate::cpus::Cpus;
use crate::load::Connection;
use crate::measure::Plan;

/// Measures sidecar-shim beside its alternatives. Without a subcommand: calls to servers that run.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Options {
    #[command(subcommand)]
    pub action: Option<Action>,
    /// The program that is measured
    #[arg(long, global = true, default_value = "target/release/sidecar-shim", value_name = "PATH")]
    shim: PathBuf,
    /// Another build of it, measured in the same rounds, and the ratios of the two
    #[arg(long, global = true, value_name = "PATH")]
    against: Option<PathBuf>,
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
    /// The hook in shell
    #[arg(
        long,
        global = true,
        default_value = "examples/shell/onDefineDomain",
        value_name = "PATH"
    )]
    shell_hook: PathBuf,
    /// The network binding in Rust
    #[arg(
        long,
        global = true,
        default_value = "target/release/examples/network_binding",
        value_name = "PATH"
    )]
    binding_hook: PathBuf,
    /// KubeVirt's network-passt-binding; without it, no boots with network bindings are measured
    #[arg(long, global = true, value_name = "PATH")]
    passt: Option<PathBuf>,
    /// An interpreter with grpcio; without it, no server in Python is measured
    #[arg(long, global = true, requires = "grpc_modules", value_name = "PATH")]
    grpc_python: Option<PathBuf>,
    /// The modules that `grpc_tools.protoc` generates from proto/
    #[arg(long, global = true, value_name = "DIR")]
    grpc_modules: Option<PathBuf>,
    /// Another shim, started like the Go shim: PATH, or NAME=PATH. May be repeated
    #[arg(long, global = true, value_name = "[NAME=]PATH")]
    peer: Vec<String>,
    /// Only contestants whose name begins so
    #[arg(long, global = true, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Directory for performance.json and the plots
    #[arg(long, global = true, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// A page whose tables are replaced. May be repeated
    #[arg(long, global = true, value_name = "FILE")]
    pub page: Vec<PathBuf>,
    /// Lengths of the domain, such as 8kB
    #[arg(long, value_delimiter = ',', default_value = "4kB,8kB,128kB,1MB,4MB")]
    sizes: Vec<bytesize::ByteSize>,
    /// Concurrent clients
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    clients: Vec<usize>,
    /// How clients connect
    #[arg(long, value_delimiter = ',', default_value = "dialled,kept")]
    connections: Vec<Connection>,
    /// Rounds, in each of which every contestant has a turn
    #[arg(long, default_value = "5")]
    rounds: usize,
    /// Duration of a turn
    #[arg(long, default_value = "200ms")]
    round_time: humantime::Duration,
    /// Calls before memory is read
    #[arg(long, default_value = "1000")]
    memory_calls: usize,
    /// Starts of each server
    #[arg(long, default_value = "20")]
    starts: usize,
    /// Leaves it to the kernel which CPUs a client and its server run on
    #[arg(long)]
    together: bool,
    /// Fails if a ratio is far from its target
    #[arg(long, global = true)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub struct MassOptions {
    /// Lengths of the VMI
    #[arg(long, value_delimiter = ',', default_value = "8kB,1MB")]
    pub vmi_sizes: Vec<bytesize::ByteSize>,
}

#[derive(Debug, Args)]
pub struct FleetOptions {
    /// Sidecars of each kind
    #[arg(long, default_value = "200")]
    pub sidecars: usize,
    /// Time after which idle workers exit; all sidecars have to start in it
    #[arg(long, default_value = "60s")]
    pub idle_timeout: humantime::Duration,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Measures calls with the limits of a small sidecar: 64 MB and 200m CPU
    Constrained {
        /// Calls in each mode
        #[arg(long, default_value = "100")]
        calls: usize,
    },
    /// Measures one boot, from exec to exit, with and without those limits
    Boot {
        /// Boots of each contestant
        #[arg(long, default_value = "15")]
        boots: usize,
    },
    /// Measures a mass boot of a node: 500 node hooks within a second in 64 MB, as root
    Mass {
        #[command(flatten)]
        mass: MassOptions,
    },
    /// Measures the memory of many sidecars
    Fleet {
        #[command(flatten)]
        fleet: FleetOptions,
    },
    /// Measures everything: what docs/performance.md and bench/NOTES.md show, in 15 minutes
    All {
        /// Boots of each contestant
        #[arg(long, default_value = "15")]
        boots: usize,
        /// Calls in each mode with limits
        #[arg(long, default_value = "100")]
        calls: usize,
        #[command(flatten)]
        mass: MassOptions,
        #[command(flatten)]
        fleet: FleetOptions,
    },
    /// Makes tables, and the plots, from an earlier run
    Render {
        /// Its performance.json
        results: PathBuf,
    },
    /// Calls a server that runs already, for profilers
    Drive {
        /// Its socket
        socket: PathBuf,
        /// Length of the domain
        #[arg(long, default_value = "8kB")]
        size: bytesize::ByteSize,
        /// Calls of each client
        #[arg(long, default_value = "1000")]
        calls: usize,
        /// Concurrent clients
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
    /// Runs as a worker with a node hook
    #[command(hide = true)]
    NodeWorker {
        /// The file to which it appends the names of VMs
        order: PathBuf,
        /// Duration of a call
        #[arg(long)]
        work: humantime::Duration,
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
    /// Fails if a page would lose rows: some tables are of several sections, and those that are not
    /// measured now come from the file of `--out`.
    pub fn check_page(&self) -> Result<()> {
        let has_all = matches!(self.action, Some(Action::Render { .. })) || self.out.is_some();
        ensure!(
            has_all || self.page.is_empty(),
            "--page needs --out, with what was measured before"
        );
        Ok(())
    }

    /// What the contestants are made of. Programs are copied to `copies`: a copy starts faster than
    /// what a linker wrote, because its pages lie together, and images contain copies.
    pub fn parts(&self, copies: &Path) -> Result<Parts> {
        for path in [&self.python, &self.python_hook, &self.shell_hook] {
            check_exists(path)?;
        }
        let copy = |program: &Path, name| copy(program, &copies.join(name));
        let optional = |program: &Option<PathBuf>, name| {
            program.as_ref().map(|program| copy(program, name)).transpose()
        };
        Ok(Parts {
            shim: copy(&self.shim, "sidecar-shim")?,
            against: optional(&self.against, "against")?,
            python: std::path::absolute(&self.python)?,
            python_hook: std::path::absolute(&self.python_hook)?,
            rust_hook: copy(&self.rust_hook, "hook-rust")?,
            go_hook: optional(&self.go_hook, "hook-go")?,
            shell_hook: self.shell_hook.clone(),
            bindings: optional(&self.passt, "binding-kubevirt")?
                .map(|passt| {
                    Ok::<_, anyhow::Error>((copy(&self.binding_hook, "binding-rust")?, passt))
                })
                .transpose()?,
            grpc_python: self.grpc_python.clone().zip(self.grpc_modules.clone()),
            python_server: Path::new(env!("CARGO_MANIFEST_DIR")).join("python_server.py"),
            busy_hook: Path::new(env!("CARGO_MANIFEST_DIR")).join("busy.py"),
            bench: copy(&std::env::current_exe()?, "bench")?,
        })
    }

    /// What to measure of calls.
    pub fn plan(&self, copies: &Path) -> Result<Plan> {
        let mut kinds = vec![
            Kind::Baseline(Baseline::Plain),
            Kind::Baseline(Baseline::Tuned),
            Kind::Echo(Echo::Same),
            Kind::Echo(Echo::Longer),
            Kind::Echo(Echo::Unchecked),
        ];
        let languages = self.there_are([Language::Rust, Language::Python, Language::Go]);
        kinds.extend(languages.iter().copied().map(Kind::Persistent));
        kinds.push(Kind::PythonServer);
        kinds.extend(languages.iter().copied().map(Kind::Exec));
        // The shortest program: with the others it makes no difference.
        kinds.push(Kind::Baseline(Baseline::Runs(Language::Rust)));
        kinds.extend(self.peers(&languages, copies)?);
        kinds.extend(languages.iter().copied().map(Kind::Direct));
        if self.rounds == 0 || self.starts == 0 || self.clients.contains(&0) {
            bail!("there is nothing to measure");
        }
        let sizes: Result<Vec<usize>, _> =
            self.sizes.iter().map(|size| usize::try_from(size.as_u64())).collect();
        Ok(Plan {
            parts: self.parts(copies)?,
            cpus: Cpus::new(!self.together)?,
            kinds: self.select(kinds)?,
            skipped: self.skipped(),
            sizes: sizes?,
            clients: self.clients.clone(),
            connections: self.connections.clone(),
            rounds: self.rounds,
            round_time: Duration::from(self.round_time),
            memory_calls: self.memory_calls,
            starts: self.starts,
        })
    }

    /// Whose boots to measure.
    pub fn booted(&self, copies: &Path) -> Result<Vec<Kind>> {
        let workers = self.there_are([Language::Python, Language::Rust, Language::Go]);
        let programs = [&workers[..], &[Language::Shell]].concat();
        let mut kinds = Probe::ALL.map(Kind::Probe).to_vec();
        kinds.extend(workers.into_iter().map(Kind::Persistent));
        kinds.extend(programs.iter().copied().map(Kind::Exec));
        kinds.push(Kind::PythonServer);
        kinds.extend(self.peers(&programs, copies)?);
        if self.passt.is_some() {
            kinds.extend([Binding::Rust, Binding::KubeVirt].map(Kind::Binding));
        }
        self.select(kinds)
    }

    /// What can only be left out of the boots, and why.
    pub fn skipped_boots(&self) -> Vec<String> {
        let passt = "network bindings, in Rust and KubeVirt's in Go (no --passt)".to_owned();
        self.skipped().into_iter().chain(self.passt.is_none().then_some(passt)).collect()
    }

    /// Contestants that can only be left out, and why.
    pub fn skipped(&self) -> Vec<String> {
        let go = self.go_hook.is_none().then_some("hooks in Go (no --go-hook)");
        let server = self.grpc_python.is_none();
        let server = server.then_some("the gRPC server in Python (no --grpc-python)");
        go.into_iter().chain(server).map(str::to_owned).collect()
    }

    fn there_are(&self, languages: impl IntoIterator<Item = Language>) -> Vec<Language> {
        let is_there = |language: &Language| *language != Language::Go || self.go_hook.is_some();
        languages.into_iter().filter(is_there).collect()
    }

    fn peers(&self, hooks: &[Language], copies: &Path) -> Result<Vec<Kind>> {
        let mut kinds = Vec::new();
        for peer in &self.peer {
            let (name, path) = peer.split_once('=').unwrap_or(("peer", peer));
            let program = copy(Path::new(path), &copies.join(format!("peer-{name}")))?;
            kinds.extend(hooks.iter().map(|hook| Kind::Peer {
                name: name.to_owned(),
                program: program.clone(),
                hook: *hook,
            }));
        }
        Ok(kinds)
    }

    /// Those of the contestants that can be measured and were asked for. Each build of the shim has
    /// its turn beside the other's.
    fn select(&self, kinds: Vec<Kind>) -> Result<Vec<Kind>> {
        let mut selected = Vec::new();
        for kind in kinds {
            let id = kind.id();
            if (self.only.is_empty() || self.only.iter().any(|only| id.starts_with(only)))
                && (kind != Kind::PythonServer || self.grpc_python.is_some())
            {
                let against = (self.against.is_some() && kind.is_shim())
                    .then(|| Kind::Against(Box::new(kind.clone())));
                selected.push(kind);
                selected.extend(against);
            }
        }
        if selected.is_empty() {
            bail!("there is nothing to measure");
        }
        Ok(selected)
    }
}

fn copy(program: &Path, to: &Path) -> Result<PathBuf> {
    check_exists(program)?;
    fs::copy(program, to).with_context(|| format!("cannot copy {}", program.display()))?;
    Ok(to.to_owned())
}

fn check_exists(path: &Path) -> Result<()> {
    fs::metadata(path).with_context(|| {
        format!("{} does not exist (bench/run builds what is needed)", path.display())
    })?;
    Ok(())
}
