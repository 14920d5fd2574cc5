//! A hook that starts a program and reports what the program inherited.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "this is for tests alone")]

use std::process::{Command, ExitCode};

use kubevirt_hook::{refuse, Call, Result, Worker};

/// Checks the inherited stdin and environment.
const SCRIPT: &str = r#"
echo printed by a child
read -r line && exit 3
[ -z "${KUBEVIRT_HOOK_PROTOCOL+set}" ] || exit 4
"#;

fn on_define_domain(_: &Call, _: &str) -> Result<Option<String>> {
    println!("printed by the hook");
    let status = Command::new("sh").args(["-c", SCRIPT]).status()?;
    refuse!("the child ended with {}", status.code().unwrap())
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "threads") {
        std::thread::spawn(std::thread::park);
    }
    Worker::new("children").on_define_domain(on_define_domain).run()
}
