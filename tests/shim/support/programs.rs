//! The examples that people copy, as commands.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use super::{PYTHON, file, program, skipped};

/// A language of the examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Python,
    Rust,
    Go,
    Perl,
    Shell,
}

/// A way to run a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Exec,
    Persistent,
}

/// One example in one language.
pub struct Program {
    pub language: Language,
    pub words: Vec<String>,
    pub modes: &'static [Mode],
}

impl Program {
    fn new(language: Language, words: &[&str]) -> Self {
        let modes: &[Mode] = match language {
            Language::Python | Language::Rust | Language::Go => &[Mode::Persistent, Mode::Exec],
            Language::Perl => &[Mode::Persistent],
            Language::Shell => &[Mode::Exec],
        };
        Self { language, words: words.iter().map(|&word| word.to_owned()).collect(), modes }
    }

    /// The command, as a shell and `--worker` read it.
    pub fn command(&self) -> String {
        let quoted = self.words.iter().map(|word| format!("'{word}'"));
        quoted.collect::<Vec<_>>().join(" ")
    }
}

/// `-E` and `-S` skip what only costs time: the variables of the interpreter, and the directory of
/// installed packages.
pub fn python(name: &str) -> Program {
    let script = file(&format!("examples/python/{name}.py")).display().to_string();
    Program::new(Language::Python, &[&PYTHON, "-ES", &script])
}

/// `cargo test` builds the examples in Rust.
pub fn rust(name: &str) -> Program {
    let path = program(&format!("examples/{name}")).display().to_string();
    Program::new(Language::Rust, &[&path])
}

/// `None` without a Go toolchain.
pub fn go(name: &str) -> Option<Program> {
    // Go's names of packages have no underscores.
    let path = GO_PROGRAMS.as_ref()?.join(name.replace('_', "")).display().to_string();
    Some(Program::new(Language::Go, &[&path]))
}

/// `None` without perl and its core modules.
pub fn perl(name: &str) -> Option<Program> {
    let found = Command::new("perl").args(["-MJSON::PP", "-e", "1"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        skipped("the worker in Perl", "there is no perl with JSON::PP (Debian's package perl)");
        return None;
    }
    let script = file(&format!("examples/perl/{name}.pl")).display().to_string();
    Some(Program::new(Language::Perl, &["perl", &script]))
}

/// The example in shell has its hook's name.
pub fn shell(_name: &str) -> Program {
    let script = file("examples/shell/onDefineDomain").display().to_string();
    Program::new(Language::Shell, &[&script])
}

/// The Go command, if it can build the examples.
pub fn go_command() -> Option<String> {
    let named = std::env::var("SHIM_TEST_GO");
    let command = named.clone().unwrap_or_else(|_| "go".to_owned());
    let version = Command::new(&command).args(["env", "GOVERSION"]).output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let minor =
        |version: &str| version.trim().strip_prefix("go1.")?.split('.').next()?.parse().ok();
    if version.is_ok_and(|version| minor(&version).is_some_and(|minor: u32| minor >= 22)) {
        return Some(command);
    }
    assert!(named.is_err(), "SHIM_TEST_GO does not name Go 1.22 or later");
    skipped("the examples in Go", "there is no Go 1.22 or later");
    None
}

/// The directory of the examples in Go, which are built once.
static GO_PROGRAMS: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let programs = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go");
    std::fs::create_dir_all(&programs).unwrap();
    let mut build = Command::new(go_command()?);
    build.args(["build", "-C"]).arg(file("examples/go")).arg("-o").arg(&programs).arg("./...");
    // The build needs no other toolchain and no modules, so it must not fetch any.
    let output = build.env("GOTOOLCHAIN", "local").env("GOPROXY", "off").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(programs)
});
