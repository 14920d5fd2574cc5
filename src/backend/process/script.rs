//! Which script a command runs, and its digest: what an administrator compares to know whether a
//! node runs the hook that was deployed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::digest::hexadecimal;
use super::program::CommandLine;

/// Maximum length of a script whose digest is computed: `ConfigMap`s hold 1 MiB, and that takes a
/// few milliseconds.
const MAX_SCRIPT_BYTES: u64 = 1 << 20;

/// What the kernel knows a script by.
const SCRIPT_BEGINNING: &[u8] = b"#!";

/// A script, and the SHA-256 of its contents in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Script {
    pub path: String,
    pub sha256: String,
}

impl CommandLine {
    /// Returns the scripts that the command runs: its program, if that begins with `#!`, and its
    /// first argument that is a file. Those are left out that cannot be read, or are longer than a
    /// script is.
    #[must_use]
    pub fn scripts(&self) -> Vec<Script> {
        let program = self.resolve().ok().and_then(|path| {
            let contents = read(&path, SCRIPT_BEGINNING)?;
            Some(Script::new(&path, &contents))
        });
        let argument =
            self.script_argument().and_then(|path| Some(Script::new(path, &read(path, b"")?)));
        program.into_iter().chain(argument).collect()
    }

    /// Returns the files that the command runs: its program and, of an interpreter, the script.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let argument = self.script_argument().map(Path::to_owned);
        self.resolve().into_iter().chain(argument).collect()
    }

    /// Makes a symbolic link to what the command runs, its script or its program, and returns the
    /// command with the link in its place: programs tell hooks apart by the name under which they
    /// are started.
    pub fn link(&self, link: &Path) -> std::io::Result<Self> {
        let found = |not_found: super::NotFound| std::io::Error::other(not_found.to_string());
        let script = self.args.iter().position(|word| Path::new(word).is_file());
        let mut command = self.clone();
        let (place, target) = match script {
            Some(at) => (&mut command.args[at], PathBuf::from(&self.args[at])),
            None => (&mut command.program, self.resolve().map_err(found)?),
        };
        std::os::unix::fs::symlink(std::path::absolute(target)?, link)?;
        *place = link.into();
        Ok(command)
    }

    fn script_argument(&self) -> Option<&Path> {
        self.args.iter().map(Path::new).find(|path| path.is_file())
    }
}

impl Script {
    fn new(path: &Path, contents: &[u8]) -> Self {
        let sha256 = hexadecimal(&Sha256::digest(contents));
        Self { path: path.display().to_string(), sha256 }
    }
}

/// Reads a file that begins so and is not too long. A FIFO in its place blocks nothing. Of other
/// programs no more than the beginning is read: the socket waits for this.
fn read(path: &Path, beginning: &[u8]) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty()).ok()?);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_SCRIPT_BYTES {
        return None;
    }
    let mut contents = vec![0; beginning.len()];
    file.read_exact(&mut contents).ok()?;
    if contents != beginning {
        return None;
    }
    file.take(MAX_SCRIPT_BYTES).read_to_end(&mut contents).ok()?;
    Some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_the_program_and_the_first_argument_that_is_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, contents: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, contents).unwrap();
            path.display().to_string()
        };
        let script = file("hook", b"#!/bin/sh\n");
        let python = file("hook.py", b"abc");
        let (binary, empty) = (file("binary", b"\x7fELF"), file("empty", b""));
        let long = file("long", &vec![b'#'; 2 << 20]);
        let of = |words: &[&str]| {
            let command = CommandLine::from_words(words.iter().map(Into::into)).unwrap();
            command.scripts()
        };
        let paths = |words: &[&str]| -> Vec<_> {
            of(words).into_iter().map(|script| script.path).collect()
        };
        // From FIPS 180.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let found = Script { path: python.clone(), sha256: abc.to_owned() };
        assert_eq!(of(&[&binary, "-IS", &python, &script]), [found]);
        assert_eq!(paths(&[&script, &python]), [script.as_str(), &python]);
        assert_eq!(paths(&[&script]), [script]);
        assert_eq!(paths(&[&empty, &empty]), [empty]);
        assert_eq!(paths(&[&binary, "-IS"]), [""; 0]);
        assert_eq!(paths(&[&binary, &long]), [""; 0]);
        assert_eq!(paths(&["/nowhere/hook"]), [""; 0]);
    }
}
