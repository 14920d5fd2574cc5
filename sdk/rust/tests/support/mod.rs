//! The programs that `cargo test` builds for these tests.

use std::path::PathBuf;

/// Returns the path of one of `tests/programs`.
pub fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built; run `cargo test`", path.display());
    path
}
