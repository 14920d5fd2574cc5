//! The program in `protocol.md` is a worker that passes `hookctl check`.

use std::process::Command;

use crate::hookctl;
use crate::support::{PYTHON, file, read, script};

/// What the page promises: a worker has fewer lines, and none is wider.
const LINES: usize = 40;
const COLUMNS: usize = 100;

#[test]
fn the_pages_program_passes_the_check() {
    let page = read("protocol.md");
    let programs: Vec<_> = page.split("```python\n").skip(1).collect();
    let [program] = &programs[..] else { panic!("the page has one program") };
    let program = program.split("```").next().unwrap();
    assert!(program.lines().count() < LINES, "{} lines", program.lines().count());
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "worker.py", program);
    let mut command = Command::new(hookctl());
    command.args(["check", "--timeout", "60s", "--kill-grace", "20s", "--", &PYTHON, "-IS"]);
    let output = command.arg(program).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains(" 0 failed, "), "{report}");
}

#[test]
fn workers_without_an_sdk_are_as_short_as_promised() {
    let workers: Vec<_> = std::fs::read_dir(file("examples/bare")).unwrap().collect();
    assert_eq!(workers.len(), 4, "one for each language that the page names");
    for worker in workers {
        let path = worker.unwrap().path();
        let name = path.display();
        let source = std::fs::read_to_string(&path).unwrap();
        assert!(source.lines().count() < LINES, "{name}: {} lines", source.lines().count());
        for line in source.lines() {
            assert!(line.chars().count() <= COLUMNS, "{name}: {line}");
        }
    }
}
