//! `hookctl`, run as authors of hooks run it.

#![expect(clippy::disallowed_types, reason = "tests start processes themselves")]
#![expect(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test may panic")]

#[path = "../../../../tests/shim/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests of the shim use the rest")]
mod support;

mod call;
mod call_options;
mod check;
mod check_faults;
mod detect;
mod exit_status;
mod generate;
mod harmless;
mod help;
mod init;
mod migrating_page;
mod perl_library;
mod protocol_page;
mod recorded;
mod test;
mod watch;

use std::path::PathBuf;

/// The program under test.
fn hookctl() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_hookctl"))
}

/// One of the examples in Rust.
fn example(name: &str) -> String {
    support::rust(name).words.remove(0)
}

#[test]
fn the_help_of_an_option_is_read_at_a_glance() {
    assert_eq!(support::wordy_options(&hookctl()), Vec::<String>::new());
}
