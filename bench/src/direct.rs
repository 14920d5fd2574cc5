//! The program of exec mode without a shim, started by the client itself: the minimum that a call
//! costs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::contestant::{Language, PROGRAM, Parts};
use crate::documents::{Documents, Expected};
use crate::proc;
use crate::server::directory;
use crate::stats::Round;

/// The program of one language.
pub struct Direct {
    program: PathBuf,
    path: OsString,
    /// Removed when dropped.
    _directory: TempDir,
}

impl Direct {
    pub fn new(parts: &Parts, language: Language) -> Result<Self> {
        let directory = directory()?;
        let path = parts.path_with(language, directory.path())?;
        let program = directory.path().join("bin").join(PROGRAM);
        Ok(Self { program, path, _directory: directory })
    }

    /// Runs it for so long, or so often.
    pub fn run(&self, documents: &Documents, time: Duration, least_calls: usize) -> Result<Round> {
        documents.check(&self.call(documents)?, Expected::Edited, true)?;
        let cpu_before = proc::cpu(std::process::id())?;
        let started = Instant::now();
        let mut latencies = Vec::new();
        while started.elapsed() < time || latencies.len() < least_calls {
            let before = Instant::now();
            let answer = self.call(documents)?;
            latencies.push(before.elapsed());
            documents.check(&answer, Expected::Edited, false)?;
        }
        let elapsed = started.elapsed();
        let cpu = proc::cpu(std::process::id())?.saturating_sub(cpu_before);
        Ok(Round { latencies, elapsed, cpu })
    }

    fn call(&self, documents: &Documents) -> Result<Vec<u8>> {
        let output = Command::new(&self.program)
            .arg("--vmi")
            .arg(OsStr::from_bytes(&documents.vmi))
            .arg("--domain")
            .arg(OsStr::from_bytes(&documents.domain))
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()?;
        ensure!(
            output.status.success(),
            "{} exited: {}: {}",
            self.program.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }
}
