//! Runs the script of `docs/migrating.md` and the worker that replaces it: they do the same,
//! through both of KubeVirt's APIs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::hookctl;
use crate::support::{PYTHON, file, path_with, read, script};

/// The page's script, and its worker next to the library.
fn hooks(dir: &Path) -> (String, String) {
    let page = read("docs/migrating.md");
    let blocks = page.split("```python\n").skip(1);
    let blocks: Vec<_> = blocks.map(|part| part.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2, "the page has lost its examples");
    fs::copy(file("sdk/python/kubevirt_hook.py"), dir.join("kubevirt_hook.py")).unwrap();
    let before = script(dir, "before.py", blocks[0]);
    let after = script(dir, "after.py", blocks[1]);
    // The interpreter itself: `python3` in `$PATH` may be a slow wrapper.
    std::os::unix::fs::symlink(&*PYTHON, dir.join("python3")).unwrap();
    (before.display().to_string(), after.display().to_string())
}

fn call(args: &[&str], domain: &Path, hook: &str) -> Output {
    let mut command = Command::new(hookctl());
    command.args(["call", "onDefineDomain", "--domain"]).arg(domain).args(args);
    command.env("PATH", path_with(domain.parent().unwrap()));
    let output = command.args(["--", hook]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn the_worker_does_what_the_script_did() {
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = hooks(dir.path());
    let tabs = read("crates/hookctl/src/samples/domain.xml");
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
            assert!(twice.stderr.starts_with("unchanged · ".as_bytes()), "the page says so");
        }
    }
}
