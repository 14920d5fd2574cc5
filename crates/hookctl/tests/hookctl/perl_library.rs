//! What the library of a new hook in Perl does with a hook that misbehaves.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::hookctl;
use crate::support::perl;

/// Makes a hook in Perl, puts this code before its last statement, and calls it. Returns whether
/// that succeeded, the result, and what hookctl printed beside it.
fn call(scratch: &Path, code: &str, options: &[&str]) -> (bool, String, String) {
    let hook = scratch.join("hook");
    if !hook.exists() {
        let made = Command::new(hookctl())
            .current_dir(scratch)
            .args(["init", "hook", "--lang", "perl"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    let program = fs::read_to_string(hook.join("hook.pl")).unwrap();
    let changed = program.replace("    return $domain;\n", &format!("    {code}\n"));
    assert_ne!(program, changed);
    fs::write(hook.join("changed.pl"), changed).unwrap();
    let output = Command::new(hookctl())
        .current_dir(&hook)
        .args(["call", "onDefineDomain", "--mode", "persistent"])
        .args(["--vmi", "cases/asset-tag/vmi.json"])
        .args(options)
        .args(["--", "perl", "changed.pl"])
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_child_process_cannot_take_messages() {
    if perl("smbios").is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let code = "my $read = `cat`; system('cat'); return $domain =~ s{</domain>}{<!--[$read]--></domain>}r;";
    let (success, domain, printed) = call(scratch.path(), code, &["--timeout", "10s"]);
    assert!(success, "{printed}");
    assert!(domain.contains("<!--[]-->"), "{domain}");
}

#[test]
fn results_that_are_no_domain_are_errors_that_say_so() {
    if perl("smbios").is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (success, _, printed) = call(scratch.path(), "return '';", &[]);
    assert!(!success && printed.contains("domain is empty; it must be the whole"), "{printed}");
    let (success, _, printed) = call(scratch.path(), "return {};", &[]);
    assert!(!success && printed.contains("onDefineDomain must return a text"), "{printed}");
}

#[test]
fn a_fault_has_its_place_and_only_at_level_debug_its_text() {
    if perl("smbios").is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    for code in ["die 'secret';", "die \"a\\nsecret\\n\";", "JSON::PP::decode_json('[secret');"] {
        let (success, _, printed) = call(scratch.path(), code, &[]);
        assert!(!success && printed.contains("a fault in the hook's code"), "{printed}");
        assert!(!printed.contains("secret"), "{printed}");
        let has_place = code != "die \"a\\nsecret\\n\";";
        assert_eq!(printed.contains(" at changed.pl line 32 "), has_place, "{printed}");
        let (success, _, printed) = call(scratch.path(), code, &["--log-level", "debug"]);
        assert!(!success && printed.contains("secret"), "{printed}");
    }
}
