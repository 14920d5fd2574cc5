//! `hookctl`, run as authors of hooks run it.

#![expect(clippy::disallowed_types, reason = "tests start processes themselves")]
#![expect(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test may panic")]

#[path = "../../../../tests/shim/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests of the shim use the rest")]
mod support;

mod call;
mod check;
mod detect;

/// Whether there is a perl with its core modules. If not, says what is left out.
#[expect(clippy::print_stderr, reason = "a test that is left out has to say so")]
fn has_perl(what: &str) -> bool {
    let mut perl = std::process::Command::new("perl");
    let found = perl.args(["-MJSON::PP", "-e", "1"]).output().is_ok_and(|it| it.status.success());
    if !found {
        eprintln!("skipped {what}: there is no perl with JSON::PP (Debian's package perl)");
    }
    found
}
