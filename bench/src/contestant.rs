//! Who is measured: what each contestant is, and how its server is started.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::documents::Expected;

/// The longest argument of a Linux program, which the documents of exec mode are.
const MAX_ARGUMENT_BYTES: usize = 131_071;

/// What exec mode runs.
pub const PROGRAM: &str = "onDefineDomain";

/// Sixteen of the longest documents are more than may wait for a worker by default.
const QUEUE_BYTES: &str = "128MiB";

/// Where the Go shim makes its socket; it takes no other place.
const GO_SHIM_SOCKETS: &str = "/var/run/kubevirt-hooks";

/// The language of a hook. All hooks make the same edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    Python,
    Go,
}

impl Language {
    pub const ALL: [Self; 3] = [Self::Rust, Self::Python, Self::Go];

    fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::Go => "Go",
        }
    }
}

/// What comes back from a worker that makes no edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// The domain as it came.
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
    /// It runs the program of exec mode, and returns what that prints.
    Runs(Language),
}

/// What serves the calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A gRPC server in Rust that does next to nothing.
    Baseline(Baseline),
    /// The shim with a worker that returns each domain as it came, or longer by a line break.
    Echo(Echo),
    /// The shim with a worker.
    Persistent(Language),
    /// The shim, with one process for each call.
    Exec(Language),
    /// The program that exec mode starts, started by the client itself, without a server.
    Direct(Language),
    /// A gRPC server written in Python that makes the edit itself.
    PythonServer,
    /// Another shim, that is started as the Go shim is.
    Peer { name: String, program: PathBuf, hook: Language },
}

impl Kind {
    /// Its name in the results, and for `--only`.
    pub fn id(&self) -> String {
        match self {
            Self::Baseline(Baseline::Plain) => "baseline".to_owned(),
            Self::Baseline(Baseline::Tuned) => "baseline-tuned".to_owned(),
            Self::Baseline(Baseline::Runs(language)) => {
                format!("baseline-exec-{}", language.name().to_lowercase())
            }
            Self::Echo(Echo::Same) => "echo".to_owned(),
            Self::Echo(Echo::Longer) => "echo-longer".to_owned(),
            Self::Echo(Echo::Unchecked) => "echo-unchecked".to_owned(),
            Self::Persistent(language) => format!("persistent-{}", language.name().to_lowercase()),
            Self::Exec(language) => format!("exec-{}", language.name().to_lowercase()),
            Self::Direct(language) => format!("direct-{}", language.name().to_lowercase()),
            Self::PythonServer => "python-server".to_owned(),
            Self::Peer { name, hook, .. } => format!("{name}-{}", hook.name().to_lowercase()),
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
            Self::Direct(language) => format!("{} program run directly", language.name()),
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
            _ => Expected::Edited,
        }
    }

    /// Whether it runs a process for each call.
    pub fn runs_programs(&self) -> bool {
        matches!(
            self,
            Self::Baseline(Baseline::Runs(_)) | Self::Exec(_) | Self::Direct(_) | Self::Peer { .. }
        )
    }

    /// Whether a domain of so many bytes can be sent through it.
    pub fn takes(&self, bytes: usize) -> bool {
        !self.runs_programs() || bytes <= MAX_ARGUMENT_BYTES
    }
}

/// What the contestants are made of.
#[derive(Debug, Clone)]
pub struct Parts {
    pub shim: PathBuf,
    /// The interpreter of the Python hook.
    pub python: PathBuf,
    pub python_hook: PathBuf,
    pub rust_hook: PathBuf,
    pub go_hook: Option<PathBuf>,
    /// An interpreter with grpcio, and the directory with the modules that were made of `proto/`.
    pub grpc_python: Option<(PathBuf, PathBuf)>,
    pub python_server: PathBuf,
    /// The hook in Python that is at work for some milliseconds.
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
    /// The command line of a worker.
    fn worker(&self, language: Language) -> Result<Vec<OsString>> {
        Ok(match language {
            Language::Rust => vec![self.rust_hook.clone().into()],
            Language::Python => vec![self.python.clone().into(), self.python_hook.clone().into()],
            Language::Go => vec![self.go_hook.clone().context("there is no Go hook")?.into()],
        })
    }

    /// Makes a directory that holds the hook as a program [`PROGRAM`], and returns a `$PATH` that
    /// begins with it.
    pub fn path_with(&self, language: Language, directory: &Path) -> Result<OsString> {
        let programs = directory.join("bin");
        std::fs::create_dir_all(&programs)?;
        let hook = match language {
            Language::Rust => self.rust_hook.clone(),
            Language::Python => self.python_hook.clone(),
            Language::Go => self.go_hook.clone().context("there is no Go hook")?,
        };
        link(&hook, &programs.join(PROGRAM))?;
        // The script asks `env` for this name; on some machines it is a shell script itself.
        link(&self.python, &programs.join("python3"))?;
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(programs).chain(std::env::split_paths(&rest));
        Ok(std::env::join_paths(all)?)
    }

    /// The shim with these options, in persistent mode with this worker.
    pub fn persistent(&self, directory: &Path, options: &[&str], worker: &[OsString]) -> Launch {
        let mut command = self.shim(directory, "persistent");
        command.args(options).arg("--").args(worker);
        Launch { command, socket_dir: directory.to_owned() }
    }

    fn shim(&self, directory: &Path, mode: &str) -> Command {
        let mut command = Command::new(&self.shim);
        command.args(["--version", "v1alpha3", "--mode", mode, "--queue-bytes", QUEUE_BYTES]);
        command.arg("--socket-dir").arg(directory);
        command
    }

    /// The server of a contestant, with its socket in `directory` if it can be told so.
    pub fn launch(&self, kind: &Kind, directory: &Path) -> Result<Launch> {
        let socket_dir = directory.to_owned();
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
                return Ok(self.persistent(directory, options, &worker));
            }
            Kind::Persistent(language) => {
                return Ok(self.persistent(directory, &[], &self.worker(*language)?));
            }
            Kind::Exec(language) => {
                let mut command = self.shim(directory, "exec");
                command.env("PATH", self.path_with(*language, directory)?);
                command
            }
            Kind::Direct(_) => bail!("it has no server"),
            Kind::PythonServer => {
                let Some((python, modules)) = &self.grpc_python else {
                    bail!("there is no grpcio")
                };
                let mut command = Command::new(python);
                command.arg(&self.python_server).arg(directory.join("python.sock"));
                command.arg(&self.python_hook).env("PYTHONPATH", modules);
                command
            }
            Kind::Peer { program, hook, .. } => {
                std::fs::create_dir_all(GO_SHIM_SOCKETS)?;
                let mut command = Command::new(program);
                command
                    .args(["--version", "v1alpha3"])
                    .env("PATH", self.path_with(*hook, directory)?);
                return Ok(Launch { command, socket_dir: GO_SHIM_SOCKETS.into() });
            }
        };
        Ok(Launch { command, socket_dir })
    }
}

fn link(to: &Path, at: &Path) -> Result<()> {
    let to = std::path::absolute(to)?;
    symlink(&to, at).with_context(|| format!("cannot link {} to {}", at.display(), to.display()))
}
