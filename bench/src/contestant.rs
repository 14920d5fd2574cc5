//! Who is measured: what each contestant is, and how its server is started.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::documents::{Documents, Expected};

/// The longest argument of a Linux program; exec mode passes documents as arguments.
const MAX_ARGUMENT_BYTES: usize = 131_071;

/// What exec mode runs.
pub const PROGRAM: &str = "onDefineDomain";

/// Sixteen of the longest documents exceed the default limit of calls that wait for a worker.
const QUEUE_BYTES: &str = "128MiB";

/// Where the Go shim and KubeVirt's network binding make their sockets; they have no option for
/// another place.
const FIXED_SOCKETS: &str = "/var/run/kubevirt-hooks";

/// Prefix of the contestants of `--against`.
pub const AGAINST: &str = "against-";

/// The language of a hook. All hooks make the same edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    Python,
    Go,
    /// Exec mode only: a shell cannot read the binary length of a frame.
    Shell,
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::Go => "Go",
            Self::Shell => "shell",
        }
    }
}

/// What a worker that makes no edit returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// The domain unchanged.
    Same,
    /// The domain and a line break, which the shim checks.
    Longer,
    /// The same, without the check.
    Unchecked,
}

/// What a bare server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// It returns each domain at once, with the library's defaults ...
    Plain,
    /// ... or with the shim's windows, and memory that is kept.
    Tuned,
    /// It runs the program of exec mode, and returns its stdout.
    Runs(Language),
}

/// What an interpreter runs to show where the time of a boot goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It starts and exits at once.
    Bare,
    /// It imports the SDK, and exits at once.
    Sdk,
    /// It imports what every hook needs, and finalizes: the limit for hooks in Python.
    Json,
}

impl Probe {
    pub const ALL: [Self; 3] = [Self::Bare, Self::Sdk, Self::Json];

    pub const fn id(self) -> &'static str {
        match self {
            Self::Bare => "interpreter-bare",
            Self::Sdk => "interpreter-sdk",
            Self::Json => "interpreter",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Bare => "import os; os._exit(0)",
            Self::Sdk => "import kubevirt_hook, kubevirt_xml, os; os._exit(0)",
            Self::Json => "import json",
        }
    }
}

/// A hook that binds a VM to the pod network with passt. It makes another edit than the other hooks
/// do, in the domain of another VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The example in Rust, as a worker of the shim.
    Rust,
    /// KubeVirt's own sidecar: a gRPC server in Go.
    KubeVirt,
}

/// What serves the calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A gRPC server in Rust that does next to nothing.
    Baseline(Baseline),
    /// The shim with a worker that returns each domain unchanged or one line break longer.
    Echo(Echo),
    /// The shim with a worker.
    Persistent(Language),
    /// The shim, with one process for each call.
    Exec(Language),
    /// A network binding.
    Binding(Binding),
    /// One of those above with the shim of `--against`.
    Against(Box<Self>),
    /// The program that exec mode starts, started by the client itself, without a server.
    Direct(Language),
    /// Nothing but the start of the interpreter.
    Probe(Probe),
    /// A gRPC server written in Python that makes the edit itself.
    PythonServer,
    /// Another shim, started like the Go shim.
    Peer { name: String, program: PathBuf, hook: Language },
}

impl Kind {
    /// Its name in the results, and for `--only`.
    pub fn id(&self) -> String {
        let of =
            |what: &str, language: &Language| format!("{what}-{}", language.name().to_lowercase());
        match self {
            Self::Baseline(Baseline::Plain) => "baseline".to_owned(),
            Self::Baseline(Baseline::Tuned) => "baseline-tuned".to_owned(),
            Self::Baseline(Baseline::Runs(language)) => of("baseline-exec", language),
            Self::Echo(Echo::Same) => "echo".to_owned(),
            Self::Echo(Echo::Longer) => "echo-longer".to_owned(),
            Self::Echo(Echo::Unchecked) => "echo-unchecked".to_owned(),
            Self::Persistent(language) => of("persistent", language),
            Self::Exec(language) => of("exec", language),
            Self::Binding(Binding::Rust) => "binding-rust".to_owned(),
            Self::Binding(Binding::KubeVirt) => "binding-kubevirt".to_owned(),
            Self::Against(kind) => format!("{AGAINST}{}", kind.id()),
            Self::Direct(language) => of("direct", language),
            Self::Probe(probe) => probe.id().to_owned(),
            Self::PythonServer => "python-server".to_owned(),
            Self::Peer { name, hook, .. } => of(name, hook),
        }
    }

    /// Its name for people.
    pub fn label(&self) -> String {
        match self {
            Self::Baseline(Baseline::Plain) => "baseline: a bare server in Rust".to_owned(),
            Self::Baseline(Baseline::Tuned) => {
                "baseline, with the shim's windows and memory".to_owned()
            }
            Self::Baseline(Baseline::Runs(language)) => {
                format!("baseline that runs the program, {} hook", language.name())
            }
            Self::Echo(Echo::Same) => "persistent, echo".to_owned(),
            Self::Echo(Echo::Longer) => "persistent, echo, longer".to_owned(),
            Self::Echo(Echo::Unchecked) => "persistent, echo, longer, `--validate none`".to_owned(),
            Self::Persistent(language) => format!("persistent, {} hook", language.name()),
            Self::Exec(language) => format!("exec, {} hook", language.name()),
            Self::Binding(Binding::Rust) => "persistent, network binding in Rust".to_owned(),
            Self::Binding(Binding::KubeVirt) => {
                "KubeVirt's network binding: a gRPC server in Go".to_owned()
            }
            Self::Against(kind) => format!("against: {}", kind.label()),
            Self::Direct(language) => format!("{} program run directly", language.name()),
            Self::Probe(probe) => format!("`python3 -c '{}'`", probe.code()),
            Self::PythonServer => "gRPC server in Python".to_owned(),
            Self::Peer { name, hook, .. } => format!("{name}, {} hook", hook.name()),
        }
    }

    /// What has to come back.
    pub fn expected(&self) -> Expected {
        match self {
            Self::Baseline(Baseline::Plain | Baseline::Tuned) | Self::Echo(Echo::Same) => {
                Expected::Same
            }
            Self::Echo(_) => Expected::Longer,
            Self::Binding(_) => Expected::Bound,
            Self::Against(kind) => kind.expected(),
            _ => Expected::Edited,
        }
    }

    /// What it is called with, with a domain of this many bytes.
    pub fn documents(&self, bytes: usize) -> Result<Documents> {
        match self {
            Self::Binding(_) => Documents::with_binding(bytes),
            Self::Against(kind) => kind.documents(bytes),
            _ => Documents::of_size(bytes),
        }
    }

    /// Whether it runs a process for each call.
    pub fn runs_programs(&self) -> bool {
        match self {
            Self::Against(kind) => kind.runs_programs(),
            Self::Baseline(Baseline::Runs(_)) | Self::Exec(_) => true,
            Self::Direct(_) | Self::Peer { .. } => true,
            _ => false,
        }
    }

    pub fn is_shim(&self) -> bool {
        match self {
            Self::Echo(_) | Self::Persistent(_) | Self::Exec(_) | Self::Against(_) => true,
            Self::Binding(binding) => *binding == Binding::Rust,
            _ => false,
        }
    }

    /// Whether a domain of this many bytes can be sent through it.
    pub fn takes(&self, bytes: usize) -> bool {
        !self.runs_programs() || bytes <= MAX_ARGUMENT_BYTES
    }
}

/// What the contestants are made of.
#[derive(Debug, Clone)]
pub struct Parts {
    pub shim: PathBuf,
    /// The shim that it is compared with.
    pub against: Option<PathBuf>,
    /// The interpreter of the Python hook.
    pub python: PathBuf,
    pub python_hook: PathBuf,
    pub rust_hook: PathBuf,
    pub go_hook: Option<PathBuf>,
    pub shell_hook: PathBuf,
    /// The network binding in Rust, and KubeVirt's sidecar.
    pub bindings: Option<(PathBuf, PathBuf)>,
    /// An interpreter with grpcio, and the directory of the modules generated from `proto/`.
    pub grpc_python: Option<(PathBuf, PathBuf)>,
    pub python_server: PathBuf,
    /// The Python hook that computes for some milliseconds.
    pub busy_hook: PathBuf,
    /// This program.
    pub bench: PathBuf,
}

/// A command that makes a socket, and where.
pub struct Launch {
    pub command: Command,
    pub socket_dir: PathBuf,
}

impl Parts {
    fn hook(&self, language: Language) -> Result<&Path> {
        Ok(match language {
            Language::Rust => &self.rust_hook,
            Language::Python => &self.python_hook,
            Language::Go => self.go_hook.as_ref().context("there is no Go hook")?,
            Language::Shell => &self.shell_hook,
        })
    }

    /// Makes a directory that holds the hook as a program [`PROGRAM`], and returns a `$PATH` that
    /// begins with it.
    pub fn path_with(&self, language: Language, directory: &Path) -> Result<OsString> {
        let programs = directory.join("bin");
        std::fs::create_dir_all(&programs)?;
        link(self.hook(language)?, &programs.join(PROGRAM))?;
        // The script asks `env` for this name; on some machines it is a shell script itself.
        link(&self.python, &programs.join("python3"))?;
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(programs).chain(std::env::split_paths(&rest));
        Ok(std::env::join_paths(all)?)
    }

    /// The shim with these options, in persistent mode with this worker.
    pub fn persistent(&self, directory: &Path, options: &[&str], worker: &[OsString]) -> Command {
        let mut command = self.shim(directory, "persistent");
        command.args(options).arg("--").args(worker);
        command
    }

    fn shim(&self, directory: &Path, mode: &str) -> Command {
        let mut command = Command::new(&self.shim);
        command.args(["--version", "v1alpha3", "--mode", mode, "--queue-bytes", QUEUE_BYTES]);
        command.arg("--socket-dir").arg(directory);
        command
    }

    /// Starts an interpreter that runs nothing but this.
    pub fn probe(&self, probe: Probe) -> Command {
        let mut command = Command::new(&self.python);
        // As the hook is run, whose directory has the SDK.
        let sdk = self.python_hook.parent().unwrap_or(Path::new("."));
        command.args(["-c", probe.code()]).env("PYTHONPATH", sdk);
        // As the shim starts it, which the SDK takes into account.
        command.env("KUBEVIRT_HOOK_PROTOCOL", "1");
        command
    }

    /// The server of a contestant, with its socket in `directory` if that can be chosen.
    pub fn launch(&self, kind: &Kind, directory: &Path) -> Result<Launch> {
        let mut socket_dir = directory.to_owned();
        let command = match kind {
            Kind::Baseline(baseline) => {
                let mut command = Command::new(&self.bench);
                command.arg("baseline").arg(directory.join("baseline.sock"));
                match baseline {
                    Baseline::Plain => &mut command,
                    Baseline::Tuned => command.arg("--tuned"),
                    Baseline::Runs(language) => {
                        let path = self.path_with(*language, directory)?;
                        command.args(["--run", PROGRAM]).env("PATH", path)
                    }
                };
                command
            }
            Kind::Echo(echo) => {
                let options: &[&str] = match echo {
                    Echo::Unchecked => &["--validate", "none"],
                    Echo::Same | Echo::Longer => &[],
                };
                let mut worker = vec![self.bench.clone().into(), "echo-worker".into()];
                worker.extend((*echo != Echo::Same).then(|| "--longer".into()));
                self.persistent(directory, options, &worker)
            }
            Kind::Persistent(language) => {
                let mut worker: Vec<OsString> = vec![self.hook(*language)?.into()];
                if *language == Language::Python {
                    worker.insert(0, self.python.clone().into());
                }
                self.persistent(directory, &[], &worker)
            }
            Kind::Exec(language) => {
                let mut command = self.shim(directory, "exec");
                command.env("PATH", self.path_with(*language, directory)?);
                command
            }
            Kind::Binding(binding) => {
                let (rust, kubevirt) = self.bindings.as_ref().context("there is no binding")?;
                match binding {
                    Binding::Rust => self.persistent(directory, &[], &[rust.into()]),
                    Binding::KubeVirt => {
                        socket_dir = fixed_sockets()?;
                        Command::new(kubevirt)
                    }
                }
            }
            Kind::Against(kind) => {
                let shim = self.against.clone().context("there is no shim to compare with")?;
                return Self { shim, ..self.clone() }.launch(kind, directory);
            }
            Kind::Direct(_) | Kind::Probe(_) => bail!("it has no server"),
            Kind::PythonServer => {
                let (python, modules) = self.grpc_python.as_ref().context("there is no grpcio")?;
                let mut command = Command::new(python);
                command.arg(&self.python_server).arg(directory.join("python.sock"));
                command.arg(&self.python_hook).env("PYTHONPATH", modules);
                command
            }
            Kind::Peer { program, hook, .. } => {
                socket_dir = fixed_sockets()?;
                let mut command = Command::new(program);
                command
                    .args(["--version", "v1alpha3"])
                    .env("PATH", self.path_with(*hook, directory)?);
                command
            }
        };
        Ok(Launch { command, socket_dir })
    }
}

/// Makes the directory for sockets that is not chosen. `bench/run` makes it private.
fn fixed_sockets() -> Result<PathBuf> {
    let made = std::fs::create_dir_all(FIXED_SOCKETS);
    made.with_context(|| format!("cannot make {FIXED_SOCKETS}"))?;
    Ok(FIXED_SOCKETS.into())
}

fn link(to: &Path, at: &Path) -> Result<()> {
    let to = std::path::absolute(to)?;
    symlink(&to, at).with_context(|| format!("cannot link {} to {}", at.display(), to.display()))
}
