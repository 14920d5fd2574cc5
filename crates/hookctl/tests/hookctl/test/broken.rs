//! Cases that cannot be run, and command lines without cases.

use std::os::unix::fs::symlink;

use serde_json::json;
use tokio::process::Command;

use super::{Cases, DOMAIN, run, vmi};
use crate::hookctl;

#[tokio::test]
async fn broken_cases_are_named_with_their_fault() {
    let cases = Cases::new();
    let good = vmi(&json!({}));
    let files = |more: &[(&'static str, &'static str)]| {
        let mut files = vec![("vmi.json", good.as_str()), ("domain.xml", DOMAIN)];
        files.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
        files.extend(more);
        files
    };
    for (name, more, fault) in [
        (
            "typo",
            &[("expectd.xml", DOMAIN)][..],
            "has expectd.xml, which does not belong to a case",
        ),
        (
            "two",
            &[("unchanged", ""), ("error.txt", "INTERNAL")],
            "has both unchanged and error.txt",
        ),
        ("json", &[("vmi.json", "{"), ("unchanged", "")], "vmi.json: it is not JSON"),
        ("xml", &[("domain.xml", "<domain>"), ("unchanged", "")], "domain.xml: domain"),
        (
            "other",
            &[("expected.json", "{}")],
            "has expected.json, but this hook returns expected.xml",
        ),
        ("expected", &[("expected.xml", "<domain")], "expected.xml: domain"),
        ("text", &[("unchanged", "yes")], "unchanged must be empty, and has text in it"),
        ("status", &[("error.txt", "NO")], "error.txt, line 1: \"NO\" must be the gRPC status"),
        ("ok", &[("error.txt", "OK")], "error.txt, line 1: \"OK\" must be"),
        ("key", &[("args.toml", "\nhooks = \"a\"")], "args.toml, line 2: unknown field `hooks`"),
        ("toml", &[("args.toml", "hook")], "args.toml, line 1: "),
        (
            "hook",
            &[("args.toml", "hook = \"preVMStart\"")],
            "preVMStart does not go with domain.xml",
        ),
        ("node", &[("args.toml", "node = \"n\"")], "args.toml: node goes with node hooks only"),
        ("time", &[("args.toml", "deadline = \"5\"")], "deadline = \"5\" cannot be read as a time"),
        (
            "context",
            &[("args.toml", "context = \"boot\"")],
            "args.toml: context = \"boot\" must be Boot, MigrationSource or MigrationTarget",
        ),
        (
            "env",
            &[("args.toml", "[env]\n\"A=B\" = \"\"")],
            "[env] \"A=B\" cannot be an environment",
        ),
        (
            "reserved",
            &[("args.toml", "env = {KUBEVIRT_HOOK_PROTOCOL = \"1\"}")],
            "KUBEVIRT_HOOK_PROTOCOL is set by the shim: leave it out",
        ),
    ] {
        cases.add(name, &files(more));
        let tested = cases.test(&["--filter", name]).await;
        tested.expect(2, &[fault, "1 case: 1 broken"]);
    }
    let directory = cases.add("files", &[("vmi.json", &good), ("unchanged", "")]);
    let domain = directory.join("domain.xml");
    let expect = async |fault: &str| {
        cases.test(&["--filter", "files"]).await.expect(2, &[fault, "1 case: 1 broken"]);
        let _ = std::fs::remove_file(&domain);
    };
    expect("has neither domain.xml nor cloud-init.json; for a node hook, args.toml names it").await;
    std::fs::write(&domain, b"<domain>\xff</domain>").unwrap();
    expect("not UTF-8").await;
    symlink("/etc/passwd", &domain).unwrap();
    expect("domain.xml is a symbolic link to a file outside of the directory of cases").await;
    symlink("domain.xml", &domain).unwrap();
    expect("cannot read domain.xml: ").await;
    nix::unistd::mkfifo(&domain, nix::sys::stat::Mode::S_IRWXU).unwrap();
    expect("domain.xml is not a regular file").await;
    std::fs::File::create(&domain).unwrap().set_len(1 << 34).unwrap();
    expect("domain.xml is longer than 16777215 bytes").await;
    std::fs::create_dir(&domain).unwrap();
    cases.test(&["--filter", "files"]).await.expect(2, &["domain.xml is not a regular file"]);
}

#[tokio::test]
async fn a_directory_whose_name_begins_with_readme_is_a_case() {
    let cases = Cases::new();
    let files =
        [("vmi.json", &*vmi(&json!({}))), ("domain.xml", DOMAIN), ("error.txt", "INTERNAL\n")];
    cases.add("README-of-guest", &files);
    cases.add(".hidden", &files);
    cases.test(&["--mode", "exec"]).await.expect(1, &["FAILED ", "README-of-guest", "1 case: 1"]);
}

#[tokio::test]
async fn a_context_of_a_later_kubevirt_is_accepted() {
    let cases = Cases::new();
    let vmi = vmi(&json!({"context": "yes"}));
    for (name, context) in [("a", "MigrationAbort"), ("b", "Reboot")] {
        let text = format!("context = \"{context}\"");
        let error = format!("FAILED_PRECONDITION\nthe context is {context}");
        cases.add(
            name,
            &[
                ("vmi.json", &vmi),
                ("domain.xml", DOMAIN),
                ("args.toml", &text),
                ("error.txt", &error),
            ],
        );
    }
    cases.test(&["--mode", "persistent"]).await.expect(0, &["2 cases: 2 passed"]);
}

#[tokio::test]
async fn a_report_overwrites_no_file_of_a_case() {
    let cases = Cases::new();
    let good = vmi(&json!({}));
    let case = cases.add("a", &[("vmi.json", &good), ("domain.xml", DOMAIN), ("unchanged", "")]);
    cases.add("b", &[("vmi.json", &good), ("domain.xml", DOMAIN), ("unchanged", "")]);
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("report.xml");
    symlink(case.join("unchanged"), &link).unwrap();
    for report in [case.join("vmi.json"), case.join("report.xml"), link] {
        let path = report.to_str().unwrap();
        // Nor one that does not run.
        let tested = cases.test(&["--filter", "b", "--mode", "exec", "--junit", path]).await;
        assert_eq!(tested.status, Some(2), "{}", tested.stdout);
        let why = "--junit: it would be in the case ";
        assert!(tested.stderr.contains(why), "{path}: {}", tested.stderr);
    }
    assert_eq!(cases.read("a/vmi.json"), good);
    assert_eq!(case.read_dir().unwrap().count(), 3);
    let among = cases.path().join("report.xml");
    let tested = cases.test(&["--mode", "exec", "--junit", among.to_str().unwrap()]).await;
    assert_eq!(tested.status, Some(2), "{}", tested.stdout);
    assert!(tested.stderr.contains("--junit: it would be among the cases"), "{}", tested.stderr);
    assert!(!among.exists());
}

#[tokio::test]
async fn a_case_beside_others_may_use_their_files() {
    let cases = Cases::new();
    cases.add(
        "shared/a",
        &[("vmi.json", &vmi(&json!({}))), ("domain.xml", DOMAIN), ("unchanged", "")],
    );
    let other = cases.add("b", &[("unchanged", "")]);
    for name in ["vmi.json", "domain.xml"] {
        symlink(format!("../shared/a/{name}"), other.join(name)).unwrap();
    }
    cases.test(&["--mode", "persistent"]).await.expect(0, &["2 cases: 2 passed"]);
    symlink("..", cases.path().join("loop")).unwrap();
    let fault = "has loop, which";
    let tested = cases.test(&["--mode", "persistent"]).await;
    tested.expect(2, &["loop is a symbolic link to a directory, which is not followed"]);
    assert!(!tested.stdout.contains(fault), "{}", tested.stdout);
}

#[tokio::test]
async fn without_a_case_or_a_hook_the_exit_status_is_2() {
    let cases = Cases::new();
    let none = cases.test(&[]).await;
    assert_eq!(none.status, Some(2));
    assert!(none.stderr.contains("there is no case in "), "{}", none.stderr);
    cases.add("empty", &[]);
    cases.test(&[]).await.expect(2, &["is empty: a case has vmi.json or vmi.yaml"]);
    let other = cases.test(&["--filter", "nothing"]).await;
    assert!(other.stderr.contains("none of the 1 cases in "), "{}", other.stderr);
    assert_eq!(other.status, Some(2));
    let file = cases.add("c", &[("vmi.json", "{}")]).join("vmi.json");
    let mut command = Command::new(hookctl());
    command.arg("test").arg(file).args(["--", "true"]);
    let tested = run(command).await;
    assert_eq!(tested.status, Some(2), "{}", tested.stdout);
    let path = cases.path().display();
    let why = format!("{path}/c/vmi.json is a file: give its directory, {path}/c");
    assert!(tested.stderr.contains(&why), "{}", tested.stderr);
    for args in [&["test"][..], &["test", "/nowhere", "--", "true"]] {
        let mut command = Command::new(hookctl());
        command.args(args);
        let tested = run(command).await;
        assert_eq!(tested.status, Some(2), "{}", tested.stderr);
    }
}
