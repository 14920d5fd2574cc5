//! The script of `docs/migrating.md` and the worker that takes its place, read out of the page and
//! run: they do the same, by both of KubeVirt's APIs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{file, hookctl, script};

/// The page's script, and its worker with the library beside it.
fn hooks(dir: &Path) -> (String, String) {
    let page = fs::read_to_string(file("docs/migrating.md")).unwrap();
    let blocks = page.split("```python\n").skip(1);
    let blocks: Vec<_> = blocks.map(|part| part.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2, "the page has lost its examples");
    fs::copy(file("sdk/python/kubevirt_hook.py"), dir.join("kubevirt_hook.py")).unwrap();
    let before = script(dir, "before.py", blocks[0]);
    let after = script(dir, "after.py", blocks[1]);
    (before.display().to_string(), after.display().to_string())
}

fn call(args: &[&str], domain: &Path, hook: &str) -> Output {
    let mut command = Command::new(hookctl());
    command.args(["call", "onDefineDomain", "--domain"]).arg(domain).args(args);
    let output = command.args(["--", hook]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn the_worker_does_what_the_script_did() {
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = hooks(dir.path());
    let tabs = fs::read_to_string(file("crates/hookctl/src/samples/domain.xml")).unwrap();
    // The Plugins API indents with spaces.
    for (name, document) in [("tabs", tabs.clone()), ("spaces", tabs.replace('\t', "  "))] {
        let domain = dir.path().join(name);
        fs::write(&domain, &document).unwrap();
        let wanted = call(&[], &domain, &before).stdout;
        assert_ne!(wanted, document.as_bytes(), "it changes nothing");
        for args in [
            &["--mode", "exec"][..],
            &["--mode", "persistent"],
            &["--mode", "exec", "--context", "Boot"],
            &["--mode", "persistent", "--context", "MigrationTarget"],
        ] {
            assert_eq!(call(args, &domain, &after).stdout, wanted, "{args:?}");
        }
        let once = dir.path().join("once");
        fs::write(&once, &wanted).unwrap();
        for hook in [&before, &after] {
            let twice = call(&["--mode", "exec", "--context", "Boot"], &once, hook);
            assert_eq!(twice.stdout, wanted);
            assert_eq!(twice.stderr, b"unchanged\n", "the page says so");
        }
    }
}
