//! The program in `protocol.md` is a worker that passes `hookctl check`.

use std::process::Command;

use crate::hookctl;
use crate::support::{PYTHON, read, script};

#[test]
fn the_pages_program_passes_the_check() {
    let page = read("protocol.md");
    let programs: Vec<_> = page.split("```python\n").skip(1).collect();
    let [program] = &programs[..] else { panic!("the page has one program") };
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "worker.py", program.split("```").next().unwrap());
    let mut command = Command::new(hookctl());
    command.args(["check", "--timeout", "60s", "--kill-grace", "20s", "--", &PYTHON, "-IS"]);
    let output = command.arg(program).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains(" 0 failed, "), "{report}");
}
