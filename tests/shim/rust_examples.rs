//! The hooks of `examples/rust`, on documents as KubeVirt writes them, in both modes. What they
//! change is written down here to the byte.

use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{LIMIT, binary, file, path_with};

/// One of `examples/rust`, which `cargo test` has built.
pub fn example(name: &str) -> String {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built; run `cargo test`", path.display());
    path.display().to_string()
}

/// A document that `sidecar-shim call` has built in.
fn sample(name: &str) -> String {
    std::fs::read_to_string(file("src/commands/call/samples").join(name)).unwrap()
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
        let mut command = Command::new(binary());
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
    assert_eq!(SMBIOS.changes(None, &domain).await, domain);
    SMBIOS.refuses("a\nb", &domain, "a character that SMBIOS cannot hold").await;
}

const BOOT_DISK: Hook = Hook::of_domain("boot_disk", "boot.vm.kubevirt.io/disk");

#[tokio::test]
async fn boot_disk_comes_first_and_the_others_keep_their_order() {
    let domain = sample("domain.xml");
    let first = "\n\t\t\t<boot order=\"1\"/>";
    let (root, seed) =
        ("<alias name=\"ua-rootdisk\"></alias>", "<alias name=\"ua-cloudinitdisk\"></alias>");
    let wanted = with(&domain, &[(seed, &format!("{seed}{first}"))]);
    assert_eq!(BOOT_DISK.changes(Some("cloudinitdisk"), &domain).await, wanted);

    let (nic, rom) = ("<alias name=\"ua-default\"></alias>", "\n\t\t\t<boot order=\"2\"></boot>");
    let ordered = with(
        &domain,
        &[
            (root, &format!("<boot order=\"1\"></boot>{root}")),
            (nic, &format!("{nic}{rom}")),
            (seed, &format!("{seed}<boot order=\"3\"></boot>")),
            ("hvm</type>", "hvm</type>\n\t\t<boot dev=\"hd\"></boot>"),
        ],
    );
    let wanted = with(
        &domain,
        &[
            (root, &format!("<boot order=\"2\"></boot>{root}")),
            (nic, &format!("{nic}\n\t\t\t<boot order=\"3\"></boot>")),
            (seed, &format!("{seed}<boot order=\"1\"></boot>")),
        ],
    );
    assert_eq!(BOOT_DISK.changes(Some("cloudinitdisk"), &ordered).await, wanted);
    assert_eq!(
        BOOT_DISK.changes(Some("rootdisk"), &wanted).await,
        with(
            &ordered,
            &[
                ("\n\t\t<boot dev=\"hd\"></boot>", ""),
                ("order=\"2\"", "order=\"3\""),
                (&format!("{seed}<boot order=\"3\">"), &format!("{seed}<boot order=\"2\">"))
            ]
        )
    );
    assert_eq!(BOOT_DISK.changes(None, &ordered).await, ordered);
    BOOT_DISK.refuses("datadisk", &domain, "no such disk").await;
}

const QEMU_ARGS: Hook = Hook::of_domain("qemu_args", "qemu.vm.kubevirt.io/args");

#[tokio::test]
async fn qemu_args_are_added_once_and_their_namespace_too() {
    let domain = sample("domain.xml");
    let args = r#"["-fw_cfg", "name=opt/org.example/site,string=a\"<b>&c"]"#;
    let elements = "<qemu:arg value=\"-fw_cfg\"/>\
        <qemu:arg value=\"name=opt/org.example/site,string=a&quot;&lt;b&gt;&amp;c\"/>";
    let line = format!("</iothreads>\n\t<qemu:commandline>{elements}</qemu:commandline>");
    let wanted = with(&domain, &[("</iothreads>", &line)]);
    assert_eq!(QEMU_ARGS.changes(Some(args), &domain).await, wanted);

    let namespace = " xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\"";
    let plain = with(&domain, &[(namespace, "")]);
    assert_eq!(QEMU_ARGS.changes(Some(args), &plain).await, wanted);

    // Behind those that are there.
    let there =
        "</iothreads><qemu:commandline>\n\t\t<qemu:arg value=\"-x\"/>\n\t</qemu:commandline>";
    let more = format!(
        "</iothreads><qemu:commandline>\n\t\t<qemu:arg value=\"-x\"/>\n\t\t{elements}\n\t</qemu:commandline>"
    );
    let before = with(&domain, &[("</iothreads>", there)]);
    let wanted = with(&domain, &[("</iothreads>", &more)]);
    assert_eq!(QEMU_ARGS.changes(Some(args), &before).await, wanted);

    assert_eq!(QEMU_ARGS.changes(Some("[]"), &plain).await, plain);
    assert_eq!(QEMU_ARGS.changes(None, &plain).await, plain);
    for value in ["-fw_cfg", "[1]", r#"["a\u0000"]"#] {
        QEMU_ARGS.refuses(value, &domain, "not a JSON array of strings in plain text").await;
    }
}

const IOMMU: Hook = Hook::of_domain("iommu", "iommu.vm.kubevirt.io/model");

#[tokio::test]
async fn iommu_brings_its_interrupt_remapping() {
    let domain = sample("domain.xml");
    let wanted = with(
        &domain,
        &[
            ("<acpi></acpi>", "<acpi></acpi>\n\t\t<ioapic driver=\"qemu\"></ioapic>"),
            (
                "</rng>",
                "</rng>\n\t\t<iommu model=\"intel\"><driver intremap=\"on\"></driver></iommu>",
            ),
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
    let wanted = with(
        &domain,
        &[
            ("<acpi></acpi>", "<acpi></acpi><ioapic driver='qemu'/>"),
            ("</rng>", "</rng><iommu model='intel'><driver eim='on' intremap=\"on\"/></iommu>"),
        ],
    );
    assert_eq!(IOMMU.changes(Some("intel"), &before).await, wanted);
    assert_eq!(IOMMU.changes(None, &domain).await, domain);
    IOMMU.refuses("smmuv3", &domain, "the only model here is \"intel\"").await;
}

const CLOUD_INIT: Hook = Hook {
    example: "cloud_init",
    name: "preCloudInitIso",
    annotation: "cloud-init.vm.kubevirt.io/user-data",
};

/// The parts of user data that the example has put together.
fn parts(data: &str) -> Value {
    let data: Value = serde_json::from_str(data).unwrap();
    let archive = data["UserData"].as_str().unwrap();
    serde_json::from_str(archive.strip_prefix("#cloud-config-archive\n").unwrap()).unwrap()
}

#[tokio::test]
async fn cloud_init_adds_a_part_to_user_data_of_any_kind() {
    let sample = sample("cloud-init.json");
    let before: Value = serde_json::from_str(&sample).unwrap();
    let part = "#cloud-config\ntimezone: \"Etc/UTC\"\n";
    let result = CLOUD_INIT.changes(Some(part), &sample).await;
    assert_eq!(parts(&result), json!([before["UserData"], part]));
    let mut rest: Value = serde_json::from_str(&result).unwrap();
    rest["UserData"] = before["UserData"].clone();
    assert_eq!(rest, before);

    // A second hook of the kind adds a third part.
    let script = "#!/bin/sh\necho done\n";
    let result = CLOUD_INIT.changes(Some(script), &result).await;
    assert_eq!(parts(&result), json!([before["UserData"], part, script]));

    let none = r#"{"DataSource":"noCloud","UserData":""}"#;
    assert_eq!(parts(&CLOUD_INIT.changes(Some(part), none).await), json!([part]));
    assert_eq!(CLOUD_INIT.changes(None, &sample).await, sample);
    CLOUD_INIT.refuses("timezone: Etc/UTC", &sample, "its first line has to be").await;
    let mime = r#"{"UserData":"MIME-Version: 1.0\n"}"#;
    CLOUD_INIT.refuses(part, mime, "nothing can be added to user data of this form").await;
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
        let mut command = Command::new(binary());
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
