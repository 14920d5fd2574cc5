//! What the tests share: a shim that runs as it does in a pod, clients that call it as KubeVirt does,
//! and the processes and files around both.

mod call;
mod client;
mod help;
mod process;
pub mod programs;
mod shim;
mod streams;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

pub use call::{Call, Gate, InFlight};
pub use client::Client;
pub use help::wordy_options;
pub use process::{children, descriptors, exists, gone, kill, stat, stat_fields};
pub use programs::{Language, Mode, Program, go, perl, python, rust, shell};
pub use shim::{Shim, ShimBuilder};
pub use streams::{Stream, exit_status};

/// Timeout for every wait: no test takes this long, but one that hangs must fail.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A small domain.
pub const DOMAIN: &str = "<domain type=\"kvm\">\n\t<name>vm</name>\n</domain>\n";

/// An argv-style hook that returns the document as it came.
pub const ECHO: &str = "#!/bin/sh\nprintf '%s' \"$4\"\n";

/// The program under test.
pub fn binary() -> PathBuf {
    program("sidecar-shim")
}

/// A program of this workspace, which `cargo test` builds next to the tests.
pub fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join(name);
    assert!(program.exists(), "{} is not built: run `cargo build` first", program.display());
    program
}

/// A file of this repository.
pub fn file(path: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().find(|directory| directory.join("protocol.md").exists());
    root.unwrap().join(path)
}

/// The text of a file of this repository.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fixture worker's command with these arguments. `-I` and `-S` skip what only costs time: the
/// user's settings and the directory of installed packages.
pub fn worker(args: &str) -> String {
    format!("{} -IS '{}' {args}", *PYTHON, file("tests/fixtures/worker.py").display())
}

/// The interpreter itself: `python3` in `$PATH` may be a slow wrapper.
pub static PYTHON: LazyLock<String> = LazyLock::new(|| {
    let mut command = std::process::Command::new("python3");
    let found = command.args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    assert!(found.status.success(), "the tests need python3");
    String::from_utf8(found.stdout).unwrap().trim().to_owned()
});

/// Prints why tests were skipped. It bypasses the test runner, which hides what a passing test prints.
pub fn skipped(what: &str, why: &str) {
    let note = format!("skipped {what}: {why}\n");
    std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes()).unwrap();
}

/// Waits for a condition that has no event, and fails with `what` if it never holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let polling = async {
        let mut pause = Duration::from_millis(1);
        while !holds() {
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(Duration::from_millis(20));
        }
    };
    let outcome = tokio::time::timeout(LIMIT, polling).await;
    assert!(outcome.is_ok(), "not within {LIMIT:?}: {what}");
}

/// Makes an executable file.
pub fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// `$PATH` with a directory in front.
pub fn path_with(dir: &Path) -> String {
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap())
}

/// A domain of exactly this many bytes.
pub fn domain_of(bytes: usize) -> String {
    let (head, tail) = ("<domain><description>", "</description></domain>");
    let filler = "line of text\n".repeat(bytes / 13 + 1);
    let domain = format!("{head}{}{tail}", &filler[..bytes - head.len() - tail.len()]);
    assert_eq!(domain.len(), bytes);
    domain
}

/// The JSON that the fixture worker returns in a comment.
pub fn comment(domain: &str) -> Value {
    let start = domain.find("<!-- ").unwrap() + 5;
    let end = domain.rfind(" -->").unwrap();
    serde_json::from_str(&domain[start..end]).unwrap()
}

/// Fails with both documents, one below the other, and the first line in which they differ.
#[track_caller]
pub fn assert_same_document(expected: &str, actual: &str, what: &str) {
    if expected == actual {
        return;
    }
    let lines = |text: &str| text.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>();
    let (left, right) = (lines(expected), lines(actual));
    let same = left.iter().zip(&right).take_while(|(left, right)| left == right).count();
    let line = same + 1;
    panic!(
        "{what}: line {line} differs\n\
         expected: {:?}\n  actual: {:?}\n\
         ~~~~ expected ~~~~\n{expected}\n~~~~ actual ~~~~\n{actual}\n~~~~",
        left.get(same),
        right.get(same),
    );
}
