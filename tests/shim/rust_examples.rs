//! The hooks of `examples/rust`, on documents as KubeVirt writes them, in both modes. What they
//! change is written down here to the byte.

use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{LIMIT, example, file, hookctl, path_with};

/// A document that `hookctl call` has built in.
fn sample(name: &str) -> String {
    std::fs::read_to_string(file("crates/hookctl/src/samples").join(name)).unwrap()
}

/// A domain as libvirt gives it back, with metadata of others in it.
fn of_libvirt() -> String {
    std::fs::read_to_string(file("tests/fixtures/domains/libvirt.xml")).unwrap()
}

/// One example and the annotation that it reads.
struct Hook {
    example: &'static str,
    name: &'static str,
    annotation: &'static str,
}

impl Hook {
    const fn of_domain(example: &'static str, annotation: &'static str) -> Self {
        Self { example, name: "onDefineDomain", annotation }
    }

    async fn call(&self, mode: &str, value: Option<&str>, document: &str) -> Output {
        let mut vmi: Value = serde_json::from_str(&sample("vmi.json")).unwrap();
        let annotations = vmi["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.remove("smbios.vm.kubevirt.io/baseBoardManufacturer");
        annotations.extend(value.map(|value| (self.annotation.to_owned(), json!(value))));
        let dir = tempfile::tempdir().unwrap();
        let (vmi_file, subject) = (dir.path().join("vmi"), dir.path().join("subject"));
        std::fs::write(&vmi_file, vmi.to_string()).unwrap();
        std::fs::write(&subject, document).unwrap();
        let option = if self.name == "onDefineDomain" { "--domain" } else { "--cloud-init" };
        let mut command = Command::new(hookctl());
        command.args(["call", self.name, "--mode", mode, "--vmi"]).arg(vmi_file);
        command.arg(option).arg(subject).arg("--").arg(example(self.example));
        command.kill_on_drop(true);
        tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap()
    }

    /// The document after the hook, which has to be the same in both modes and after one call more.
    async fn changes(&self, value: Option<&str>, document: &str) -> String {
        let mut results: Vec<String> = Vec::new();
        for mode in ["persistent", "exec"] {
            for again in [false, true] {
                let before = if again { &results[results.len() - 1] } else { document };
                let output = self.call(mode, value, before).await;
                let log = String::from_utf8(output.stderr).unwrap();
                assert!(output.status.success(), "{mode}: {log}");
                results.push(String::from_utf8(output.stdout).unwrap());
            }
        }
        let first = results.swap_remove(0);
        for (result, what) in results.iter().zip(["exec again", "persistent again", "exec"]) {
            assert_eq!(*result, first, "{}, {what}", self.example);
        }
        first
    }

    /// What the owner of the VM is told, in both modes.
    async fn refuses(&self, value: &str, document: &str, reason: &str) {
        for mode in ["persistent", "exec"] {
            let output = self.call(mode, Some(value), document).await;
            let log = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && output.stdout.is_empty(), "{mode}: {log}");
            let reason = format!("annotation {}: {reason}", self.annotation);
            assert!(log.contains(&reason), "{mode}: no {reason:?} in {log}");
        }
    }
}

/// A document with these pieces replaced, each of which it has once.
fn with(document: &str, pieces: &[(&str, &str)]) -> String {
    pieces.iter().fold(document.to_owned(), |document, (old, new)| {
        assert_eq!(document.matches(old).count(), 1, "{old}");
        document.replace(old, new)
    })
}

const SMBIOS: Hook = Hook::of_domain("smbios", "smbios.vm.kubevirt.io/baseBoardManufacturer");

#[tokio::test]
async fn smbios_sets_the_manufacturer() {
    let domain = sample("domain.xml");
    let entry = "<entry name=\"manufacturer\">Gebr. &lt;Müller&gt; &amp; Söhne</entry>";
    let wanted =
        with(&domain, &[("<baseBoard></baseBoard>", &format!("<baseBoard>{entry}</baseBoard>"))]);
    assert_eq!(SMBIOS.changes(Some("Gebr. <Müller> & Söhne"), &domain).await, wanted);
    // As the Plugins API writes it, and with little there.
    let bare = "<domain type='kvm'>\n  <name>vm</name>\n  <os/>\n</domain>";
    let wanted = "<domain type='kvm'>\n  <name>vm</name>\n  <os><smbios mode=\"sysinfo\"></smbios></os>\n  \
        <sysinfo type=\"smbios\"><baseBoard><entry name=\"manufacturer\">ACME</entry></baseBoard></sysinfo>\n</domain>";
    assert_eq!(SMBIOS.changes(Some("ACME"), bare).await, wanted);
    let wanted = with(&of_libvirt(), &[(">Tin Ferry<", ">ACME<")]);
    assert_eq!(SMBIOS.changes(Some("ACME"), &of_libvirt()).await, wanted);
    assert_eq!(SMBIOS.changes(None, &domain).await, domain);
    SMBIOS.refuses("a\nb", &domain, "a character that SMBIOS cannot hold").await;
}

const BOOT_DISK: Hook = Hook::of_domain("boot_disk", "bootdisk.vm.kubevirt.io/order");

#[tokio::test]
async fn boot_disk_puts_the_named_disks_first_and_the_rest_behind() {
    let domain = sample("domain.xml");
    let (nic, root) =
        ("<alias name=\"ua-default\"></alias>", "<alias name=\"ua-rootdisk\"></alias>");
    let seed = "<alias name=\"ua-cloudinitdisk\"></alias>";
    let added = |alias: &str, order: u32| format!("{alias}\n\t\t\t<boot order=\"{order}\"/>");
    let wanted = with(&domain, &[(seed, &added(seed, 1))]);
    assert_eq!(BOOT_DISK.changes(Some("cloudinitdisk"), &domain).await, wanted);
    let backing = "</backingStore>"; // the root disk's, and its last element
    let wanted = with(&domain, &[(seed, &added(seed, 1)), (backing, &added(backing, 2))]);
    assert_eq!(BOOT_DISK.changes(Some("cloudinitdisk, rootdisk"), &domain).await, wanted);

    // With orders of its own, in numbers that do not sort as text, and with an <os> of before.
    let there = |alias: &str, order: u32| format!("<boot order=\"{order}\"></boot>{alias}");
    let ordered = with(
        &domain,
        &[
            (nic, &there(nic, 10)),
            (root, &there(root, 9)),
            ("hvm</type>", "hvm</type>\n\t\t<boot dev=\"hd\"></boot>"),
        ],
    );
    let wanted =
        with(&domain, &[(nic, &there(nic, 3)), (root, &there(root, 2)), (seed, &added(seed, 1))]);
    assert_eq!(BOOT_DISK.changes(Some("cloudinitdisk"), &ordered).await, wanted);

    let address = |bus, order: &str| {
        format!(
            "<address type='pci' domain='0x0000' bus='{bus}' slot='0x00' function='0x0'/>{order}"
        )
    };
    let added = |order: u32| format!("\n      <boot order=\"{order}\"/>");
    let wanted = with(
        &of_libvirt(),
        &[
            ("\n    <boot dev='hd'/>\n    <boot dev='network'/>", ""),
            (&address("0x04", ""), &address("0x04", &added(2))),
            (&address("0x05", ""), &address("0x05", &added(1))),
        ],
    );
    let names = Some("cloudinitdisk,rootdisk");
    assert_eq!(BOOT_DISK.changes(names, &of_libvirt()).await, wanted);
    assert_eq!(BOOT_DISK.changes(None, &ordered).await, ordered);
    for value in ["datadisk", "rootdisk,rootdisk", "", "default"] {
        BOOT_DISK.refuses(value, &domain, "name disks of the VM, each of them once").await;
    }
}

const QEMU_ARGUMENTS: Hook = Hook::of_domain("qemu_arguments", "qemu.vm.kubevirt.io/options");

#[tokio::test]
async fn qemu_arguments_are_added_once_and_their_namespace_too() {
    let domain = sample("domain.xml");
    let options = r#"{"-rtc": "base=localtime", "-global": "a.b=\"<&>"}"#;
    let global = "<qemu:arg value=\"-global\"/><qemu:arg value=\"a.b=&quot;&lt;&amp;&gt;\"/>";
    let rtc = "<qemu:arg value=\"-rtc\"/><qemu:arg value=\"base=localtime\"/>";
    let line =
        |inside: &str| format!("</iothreads>\n\t<qemu:commandline>{inside}</qemu:commandline>");
    let wanted = with(&domain, &[("</iothreads>", &line(&format!("{global}{rtc}")))]);
    assert_eq!(QEMU_ARGUMENTS.changes(Some(options), &domain).await, wanted);

    let namespace = " xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\"";
    let plain = with(&domain, &[(namespace, "")]);
    assert_eq!(QEMU_ARGUMENTS.changes(Some(options), &plain).await, wanted);

    // Behind those that are there, and only what is missing.
    let there = format!("\n\t\t<qemu:arg value=\"-x\"/>{rtc}\n\t");
    let before = with(&domain, &[("</iothreads>", &line(&there))]);
    let more = format!("\n\t\t<qemu:arg value=\"-x\"/>{rtc}{global}\n\t");
    let wanted = with(&domain, &[("</iothreads>", &line(&more))]);
    assert_eq!(QEMU_ARGUMENTS.changes(Some(options), &before).await, wanted);

    let last = "string=kept'/>";
    let wanted = with(&of_libvirt(), &[(last, &format!("{last}\n    {global}{rtc}"))]);
    assert_eq!(QEMU_ARGUMENTS.changes(Some(options), &of_libvirt()).await, wanted);
    assert_eq!(QEMU_ARGUMENTS.changes(Some("{}"), &plain).await, plain);
    assert_eq!(QEMU_ARGUMENTS.changes(None, &plain).await, plain);
    for value in ["-rtc", "[]", r#"{"-rtc":7}"#, r#"{"-drive":"x"}"#, r#"{"-rtc":"a\u0000"}"#] {
        let reason = "not a JSON object of strings for [\"-boot\", \"-global\", \"-rtc\"]";
        QEMU_ARGUMENTS.refuses(value, &domain, reason).await;
    }
}

const IOMMU: Hook = Hook::of_domain("iommu", "iommu.vm.kubevirt.io/model");

#[tokio::test]
async fn iommu_brings_its_interrupt_remapping() {
    let domain = sample("domain.xml");
    let driver = "<driver intremap=\"on\" caching_mode=\"on\"></driver>";
    let wanted = with(
        &domain,
        &[
            ("<acpi></acpi>", "<acpi></acpi>\n\t\t<ioapic driver=\"qemu\"></ioapic>"),
            ("</rng>", &format!("</rng>\n\t\t<iommu model=\"intel\">{driver}</iommu>")),
        ],
    );
    assert_eq!(IOMMU.changes(Some("intel"), &domain).await, wanted);
    // What is there keeps what else it says.
    let before = with(
        &domain,
        &[
            ("<acpi></acpi>", "<acpi></acpi><ioapic driver='kvm'/>"),
            ("</rng>", "</rng><iommu model='virtio'><driver eim='on'/></iommu>"),
        ],
    );
    let driver = "<driver eim='on' intremap=\"on\" caching_mode=\"on\"/>";
    let wanted = with(
        &domain,
        &[
            ("<acpi></acpi>", "<acpi></acpi><ioapic driver='qemu'/>"),
            ("</rng>", &format!("</rng><iommu model='intel'>{driver}</iommu>")),
        ],
    );
    assert_eq!(IOMMU.changes(Some("intel"), &before).await, wanted);
    let (balloon, driver) = (
        "<memballoon model='virtio-non-transitional' freePageReporting='on'/>",
        "<driver intremap=\"on\" caching_mode=\"on\"></driver>",
    );
    let wanted = with(
        &of_libvirt(),
        &[
            ("<acpi/>", "<acpi/>\n    <ioapic driver=\"qemu\"></ioapic>"),
            (balloon, &format!("{balloon}\n    <iommu model=\"intel\">{driver}</iommu>")),
        ],
    );
    assert_eq!(IOMMU.changes(Some("intel"), &of_libvirt()).await, wanted);
    assert_eq!(IOMMU.changes(None, &domain).await, domain);
    let reason = "only intel on machine type q35 works";
    IOMMU.refuses("smmuv3", &domain, reason).await;
    let old = with(&domain, &[("machine=\"q35\"", "machine=\"pc-i440fx-9.0\"")]);
    IOMMU.refuses("intel", &old, reason).await;
}

const CLOUD_INIT: Hook = Hook {
    example: "cloud_init",
    name: "preCloudInitIso",
    annotation: "timezone.vm.kubevirt.io/name",
};

#[tokio::test]
async fn cloud_init_sets_the_time_zone_and_leaves_the_rest() {
    let sample = sample("cloud-init.json");
    let with_user_data = |text: &str| {
        let mut data: Value = serde_json::from_str(&sample).unwrap();
        data["UserData"] = text.into();
        data.to_string()
    };
    for (before, after) in [
        ("#cloud-config\ntimezone: UTC\na: b\n", "#cloud-config\ntimezone: Europe/Lisbon\na: b\n"),
        ("#cloud-config\na: b", "#cloud-config\na: b\ntimezone: Europe/Lisbon\n"),
        (
            "#cloud-config\r\nb:\n  timezone: x\n",
            "#cloud-config\r\nb:\n  timezone: x\ntimezone: Europe/Lisbon\n",
        ),
        ("", "#cloud-config\ntimezone: Europe/Lisbon\n"),
    ] {
        let result = CLOUD_INIT.changes(Some("Europe/Lisbon"), &with_user_data(before)).await;
        assert_eq!(result, with_user_data(after), "{before:?}");
    }
    // As it came, and not as it would be written here.
    assert_eq!(CLOUD_INIT.changes(Some("Etc/UTC"), &sample).await, sample);
    assert_eq!(CLOUD_INIT.changes(None, &sample).await, sample);
    for name in ["", "/", "Etc/", "UTC\nruncmd: [halt]", "Ü"] {
        CLOUD_INIT.refuses(name, &sample, "not the name of a time zone").await;
    }
    let script = with_user_data("#!/bin/sh\n");
    CLOUD_INIT.refuses("UTC", &script, "the user data is not #cloud-config").await;
}

/// Installed under the name of its hook, a program needs no other configuration.
#[tokio::test]
async fn a_link_in_path_is_the_hook_that_it_is_named_after() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(example("iommu"), dir.path().join("onDefineDomain")).unwrap();
    let vmi = dir.path().join("vmi.json");
    let annotations = json!({"iommu.vm.kubevirt.io/model": "intel"});
    std::fs::write(&vmi, json!({"metadata": {"annotations": annotations}}).to_string()).unwrap();
    let mut results = Vec::new();
    for mode in ["persistent", "exec"] {
        let mut command = Command::new(hookctl());
        command.args(["call", "onDefineDomain", "--mode", mode, "--vmi"]).arg(&vmi);
        command.env("PATH", path_with(dir.path())).kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        results.push(String::from_utf8(output.stdout).unwrap());
    }
    assert!(results[0].contains("<iommu model=\"intel\">"), "{}", results[0]);
    assert_eq!(results[0], results[1]);
}

#[test]
fn the_examples_are_as_short_as_promised() {
    let examples = file("examples/rust").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut seen = 0;
    for path in examples {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < 40, "{} has {lines} lines", path.display());
        seen += 1;
    }
    assert!(seen >= 5, "{seen} examples");
}
