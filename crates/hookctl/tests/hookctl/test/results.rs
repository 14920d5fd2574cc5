//! What is written: expected files, and reports; and what libvirt says.

use serde_json::{Value, json};

use super::{Cases, DOMAIN, WITH_ARGUMENTS, tagged, vmi};
use crate::support::skipped;

#[tokio::test]
async fn update_writes_what_the_hook_does_if_it_always_does_that() {
    let cases = Cases::new();
    let new = |name: &str, asks: Value, domain: &str| {
        cases.add(name, &[("vmi.json", &vmi(&asks)), ("domain.xml", domain)])
    };
    new("changed", json!({"tag": "a"}), DOMAIN);
    new("same", json!({}), DOMAIN);
    new("refused", json!({"refuse": "for this reason\nand that"}), DOMAIN);
    new("grows", json!({"replace": r#"[["m</name", "mm</name"]]"#}), DOMAIN);
    cases.add(
        "cloud-init",
        &[
            ("vmi.json", &vmi(&json!({"tag": "x"}))),
            ("cloud-init.json", r#"{"UserData": "", "VolumeName": "v"}"#),
        ],
    );
    let kept = tagged("kept");
    let wrong = new("wrong", json!({"tag": "kept"}), DOMAIN);
    std::fs::write(wrong.join("unchanged"), "").unwrap();
    let passes = new("passes", json!({"tag": "kept"}), DOMAIN);
    std::fs::write(passes.join("expected.xml"), &kept).unwrap();

    let crashes = new("crashes", json!({"crash": "yes"}), DOMAIN);
    std::fs::write(crashes.join("expected.xml"), &kept).unwrap();

    let missing = cases.test(&["--filter", "same"]).await;
    let hook = crate::support::file("tests/fixtures/tested.py");
    let command = format!(
        "`hookctl test {} --filter same --update -- python3 {}`",
        cases.path().display(),
        hook.display()
    );
    missing.expect(2, &[&format!("has no expected file: {command} writes it")]);
    let updated = cases.test(&["--update"]).await;
    updated.expect(1, &["5 written, 2 failed", "changed/expected.xml", "not idempotent"]);
    assert!(cases.read("changed/expected.xml").contains("<entry name=\"tag\">a</entry>"));
    assert!(cases.has("same/unchanged"));
    let error = "FAILED_PRECONDITION\nfor this reason\nand that\n";
    assert_eq!(cases.read("refused/error.txt"), error);
    let json = "{\n  \"UserData\": \"# x\\n\",\n  \"VolumeName\": \"v\"\n}\n";
    assert_eq!(cases.read("cloud-init/expected.json"), json);
    assert!(cases.has("wrong/expected.xml") && !cases.has("wrong/unchanged"));
    assert_eq!(cases.read("passes/expected.xml"), kept, "what passes stays as it is");
    let files = std::fs::read_dir(cases.path().join("grows")).unwrap().count();
    assert_eq!(files, 2, "nothing is expected of a hook that is not idempotent");
    assert_eq!(cases.read("crashes/expected.xml"), kept, "a crash is not expected from now on");
    let refusals = "--update writes refusals only: if this failure is meant, write error.txt";
    updated.expect(1, &[refusals]);
    for failed in ["grows", "crashes"] {
        std::fs::remove_dir_all(cases.path().join(failed)).unwrap();
    }
    cases.test(&["--mode", "persistent"]).await.expect(0, &["6 cases: 6 passed"]);
}

#[tokio::test]
async fn numbers_and_keys_of_json_are_written_and_compared_as_they_are() {
    let cases = Cases::new();
    let sent = r#"{"big":123456789012345678901234567890,"UserData":"","twice":1,"twice":2}"#;
    let sends = |text: &str| format!("#!/bin/sh\ncat <<'END'\n{text}\nEND\n");
    let directory = tempfile::tempdir().unwrap();
    let hook = |name: &str, text: &str| {
        let path = crate::support::script(directory.path(), name, &sends(text));
        path.to_str().unwrap().to_owned()
    };
    cases.add("a", &[("vmi.json", &vmi(&json!({}))), ("cloud-init.json", r#"{"UserData": "x"}"#)]);
    let tested = cases.test_hook(&["--mode", "exec", "--update"], &[&hook("same", sent)]).await;
    tested.expect(0, &["1 written"]);
    let lines = "{\n  \"UserData\": \"\",\n  \"big\": 123456789012345678901234567890,\n  \
                 \"twice\": 1,\n  \"twice\": 2\n}\n";
    assert_eq!(cases.read("a/expected.json"), lines);
    for (name, old, new, line) in [
        ("digit", "67890,", "67891,", "+  \"big\": 123456789012345678901234567891,"),
        ("key", ",\"twice\":1", "", "-  \"twice\": 1,"),
    ] {
        let other = hook(name, &sent.replacen(old, new, 1));
        cases.test_hook(&["--mode", "exec"], &[&other]).await.expect(1, &[line, "1 failed"]);
    }
}

#[tokio::test]
async fn a_failed_update_says_why_nothing_is_written() {
    let cases = Cases::new();
    let new = |name: &str, asks: Value, domain: &str| {
        cases.add(name, &[("vmi.json", &vmi(&asks)), ("domain.xml", domain)])
    };
    let replace = |old: &str, new: &str| json!({"replace": json!([[old, new]]).to_string()});
    new("sidecar", replace("-old\"></qemu:arg", "-new\"></qemu:arg"), WITH_ARGUMENTS);
    new("plugin", replace("-old\"></arg", "-new\"></arg"), WITH_ARGUMENTS);
    new("grows", replace("m</name", "mm</name"), DOMAIN);
    new("crashes", json!({"crash": "yes"}), DOMAIN);
    let update = async |name: &str, parts: &[&str]| {
        let tested = cases.test(&["--update", "--filter", name, "--mode", "persistent"]).await;
        tested.expect(1, parts);
        for wrong in ["expected.xml", "if a difference is meant", "the case has", "+++ expected"] {
            assert!(!tested.stdout.contains(wrong), "{wrong}: {}", tested.stdout);
        }
    };
    let first = "(persistent mode, domain.xml as it stands)";
    let not_written = format!(
        "  not written: the hook does not do in these calls what it did in the first one {first}"
    );
    let differs = "the result differs from that of the first call\n";
    update("sidecar", &[&not_written, differs, "--- first\n", " · 4 calls"]).await;
    let differs =
        "the result differs from what was sent, which the hook returned in the first call\n";
    update("plugin", &[&not_written, differs, "--- sent\n", " · 3 calls"]).await;
    let not_written = "  not written: the hook does something else with its own result\n";
    update("grows", &[not_written, "is changed once more", "--- sent\n", " · 5 calls"]).await;
    update(
        "crashes",
        &[
            "    the hook fails: INTERNAL: hook onDefineDomain failed: ",
            "\n    --update writes refusals only: if this failure is meant, write error.txt with the \
             line INTERNAL\n",
            " · 1 call · ",
        ],
    )
    .await;
}

#[tokio::test]
async fn junit_has_a_test_for_each_case() {
    let cases = Cases::new();
    let good = vmi(&json!({}));
    cases.add("a<b/good", &[("vmi.json", &good), ("domain.xml", DOMAIN), ("unchanged", "")]);
    cases.add(
        "bad",
        &[
            ("vmi.json", &vmi(&json!({"refuse": "no \u{1b}[31m\u{ffff}]]>"}))),
            ("domain.xml", DOMAIN),
            ("unchanged", ""),
        ],
    );
    cases.add("broken", &[("vmi.json", &good)]);
    let report = cases.path().join(".report.xml");
    let tested = cases.test(&["--junit", report.to_str().unwrap()]).await;
    tested.expect(2, &["3 cases: 1 passed, 1 failed, 1 broken"]);
    let report = cases.read(".report.xml");
    let parsed = roxmltree::Document::parse(&report).unwrap();
    let suite = parsed.descendants().find(|node| node.has_tag_name("testsuite")).unwrap();
    for (name, value) in [("tests", "3"), ("failures", "1"), ("errors", "1")] {
        assert_eq!(suite.attribute(name), Some(value), "{report}");
        assert_eq!(parsed.root_element().attribute(name), Some(value), "{report}");
    }
    let outcomes: Vec<_> = suite
        .children()
        .filter(roxmltree::Node::is_element)
        .map(|test| {
            let outcome = test.first_element_child().map(|outcome| outcome.tag_name().name());
            (test.attribute("name").unwrap(), outcome)
        })
        .collect();
    assert_eq!(outcomes, [("good", None), ("bad", Some("failure")), ("broken", Some("error"))]);
    assert!(report.contains("no \\u{1b}[31m"), "{report}");
    let lost = cases.test(&["--junit", "/nowhere/report.xml"]).await;
    lost.expect(2, &["3 cases"]);
    assert!(lost.stderr.contains("cannot write the report to /nowhere/report.xml"));
}

#[tokio::test]
async fn libvirt_judges_results_and_not_what_was_sent() {
    let installed = |tool: &str| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(tool).exists())
    };
    if !installed("virt-xml-validate") || !installed("virsh") || !installed("xmllint") {
        skipped("libvirt's judgement of cases", "virt-xml-validate, virsh or xmllint is missing");
        return;
    }
    // KubeVirt's sample, in which the schema finds empty elements.
    let domain = include_str!("../../../src/samples/domain.xml");
    let cases = Cases::new();
    let replaces = |name: &str, old: &str, new: &str| {
        let replace = json!([[old, new]]).to_string();
        let expected = domain.replace(old, new);
        assert_ne!(expected, domain, "{old}");
        let files = [
            ("vmi.json", vmi(&json!({ "replace": replace }))),
            ("domain.xml", domain.to_owned()),
            ("expected.xml", expected),
        ];
        cases.add(name, &files.each_ref().map(|(name, contents)| (*name, contents.as_str())));
    };
    replaces("good", "<vcpu placement=\"static\">2<", "<vcpu placement=\"static\">3<");
    replaces("schema", "<bios></bios>", "<bios2 a=\"\"></bios2>");
    replaces("value", "bus=\"virtio\" dev=\"vda\"", "bus=\"no-such-bus\" dev=\"vda\"");
    let tested = cases.test(&["--mode", "persistent"]).await;
    tested.expect(0, &["3 cases: 3 passed"]);
    let tested = cases.test(&["--mode", "persistent", "--libvirt"]).await;
    tested.expect(
        1,
        &[
            "virt-xml-validate rejects the result, and not domain.xml:\n",
            "bios2",
            "no-such-bus",
            "3 cases: 1 passed, 2 failed",
        ],
    );
}

#[tokio::test]
async fn without_libvirt_its_judgement_is_an_error_that_says_what_to_install() {
    let cases = Cases::new();
    cases.add("a", &[("vmi.json", "{}"), ("domain.xml", DOMAIN), ("unchanged", "")]);
    let mut command = tokio::process::Command::new(crate::hookctl());
    command.arg("test").arg(cases.path()).args(["--mode", "exec", "--libvirt", "--", "/bin/true"]);
    let tested = super::run_with(command, |command| {
        command.env("PATH", cases.path());
    })
    .await;
    assert_eq!(tested.status, Some(2), "{}", tested.stderr);
    assert!(tested.stderr.contains("apt install libvirt-clients"), "{}", tested.stderr);
}
