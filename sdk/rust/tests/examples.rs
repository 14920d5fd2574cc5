//! The vhost-user example on the cases of all languages, and hooks that are or are not idempotent.

#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::process::Command;

use kubevirt_hook::serde_json::{self, json, Value};
use kubevirt_hook::xml::Document;
use kubevirt_hook::{testing, Call, Result, Worker};

fn case(name: &str) -> String {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/cases/vhost-user");
    std::fs::read_to_string(cases.join(name)).unwrap()
}

fn vmi() -> Value {
    serde_json::from_str(&case("vmi.json")).unwrap()
}

/// Runs the example. Returns its result, or `None` if it failed, and its log.
fn vhost_user(vmi: &Value, domain: &str) -> (Option<String>, String) {
    let output = Command::new(support::program("vhost_user"))
        .args(["--vmi", &vmi.to_string(), "--domain", domain])
        .env_remove("KUBEVIRT_HOOK_PROTOCOL")
        .output()
        .unwrap();
    let result = output.status.success().then(|| String::from_utf8(output.stdout).unwrap());
    (result, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_vhost_user_disk_is_added_once() {
    let (before, after) = (case("domain.xml"), case("expected.xml"));
    assert_eq!(vhost_user(&vmi(), &before).0.as_ref(), Some(&after));
    assert_eq!(vhost_user(&vmi(), &after).0.as_ref(), Some(&after));
    let mut without = vmi();
    without["metadata"]["labels"] = Value::Null;
    assert_eq!(vhost_user(&without, &before), (Some(before), String::new()));
}

#[test]
fn a_vm_that_is_to_be_migrated_gets_a_warning() {
    let warning = "WARNING: a VM with a vhost-user disk cannot be live-migrated\n";
    for (strategy, log) in
        [("LiveMigrate", warning), ("LiveMigrateIfPossible", warning), ("None", "")]
    {
        let mut vmi = vmi();
        vmi["spec"]["evictionStrategy"] = strategy.into();
        assert_eq!(vhost_user(&vmi, "<domain><devices/></domain>").1, log, "{strategy}");
    }
}

#[test]
fn a_vhost_user_disk_needs_hugepages_and_a_name() {
    let mut small = vmi();
    small["spec"]["domain"]["memory"]["hugepages"] = Value::Null;
    let why = "label vhost-user.example/disk: a vhost-user disk needs spec.domain.memory.hugepages";
    let refused = (None, format!("vhost-user: {why}\n"));
    assert_eq!(vhost_user(&small, "<domain/>"), refused);
    let disk = |letter| format!("<disk><target dev='vd{letter}'/></disk>");
    let disks: String = ('a'..='z').map(disk).collect();
    let full = format!("<domain><devices>{disks}</devices></domain>");
    let (result, log) = vhost_user(&vmi(), &full);
    let why = "vhost-user: label vhost-user.example/disk: no name from vda to vdz is free\n";
    assert!(result.is_none() && log.ends_with(why), "{log}");
    let (result, _) = vhost_user(&vmi(), &full.replacen(&disk('y'), "", 1));
    assert!(result.unwrap().contains("dev=\"vdy\""));
}

fn call() -> Call {
    Call::builder(json!({})).build()
}

fn no_hpet(_: &Call, doc: &Document) -> Result<()> {
    doc.ensure("qemu:commandline/qemu:arg[@value='-no-hpet']")?;
    doc.ensure("sysinfo[@type='smbios']/baseBoard/entry[@name='a']")?.set_text("\"R & D\"\n")?;
    doc.ensure("os/smbios")?.set("mode", "it's")?;
    Ok(())
}

#[test]
fn a_hook_that_looks_for_names_is_idempotent() {
    let worker = Worker::new("no-hpet").edit_domain(no_hpet);
    for domain in ["<domain/>", &case("domain.xml"), &case("expected.xml")] {
        testing::assert_idempotent(&worker, &call(), domain);
    }
}

/// Adds an element unless this text is there.
fn assert_idempotent(unless: &str, added: &str) {
    let worker = Worker::new("by-text").on_define_domain(|_, domain| {
        let is_missing = !domain.contains(unless);
        Ok(is_missing.then(|| domain.replace("</domain>", &format!("{added}</domain>"))))
    });
    testing::assert_idempotent(&worker, &call(), "<domain><os/></domain>");
}

#[test]
#[should_panic(expected = "the hook changes its own result, as it was:")]
fn a_hook_that_adds_without_looking_is_not_idempotent() {
    assert_idempotent("<never/>", "<os/>");
}

#[test]
#[should_panic(expected = "the hook changes its own result, as the Plugins API spells it:")]
fn a_hook_that_looks_for_a_prefix_is_not_idempotent() {
    let uri = "http://libvirt.org/schemas/domain/qemu/1.0";
    assert_idempotent("<qemu:command", &format!("<qemu:commandline xmlns:qemu='{uri}'/>"));
}

#[test]
#[should_panic(
    expected = "the hook changes its own result, as the API of hook sidecars spells it:"
)]
fn a_hook_that_looks_for_spaces_is_not_idempotent() {
    assert_idempotent("\n  <a", "\n  <a></a>");
}

#[test]
#[should_panic(expected = "it has logged")]
fn a_hook_that_fails_is_not_idempotent() {
    let worker = Worker::new("fails").edit_domain(|_, _| Err("no".into()));
    testing::assert_idempotent(&worker, &call(), "<domain/>");
}
