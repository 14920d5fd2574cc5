//! The examples in Python, on domains as KubeVirt and libvirt write them, in both modes; and what such tests
//! of other languages have in common.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{LIMIT, file, hookctl};

/// What one example does.
pub struct Example {
    pub name: &'static str,
    pub hook: &'static str,
    pub annotation: &'static str,
    pub value: &'static str,
    /// What its result has and what went in has not.
    pub brings: &'static [&'static str],
    /// Lines of the diff of each domain: KubeVirt's and libvirt's.
    pub lines: [usize; 2],
    /// Values that are refused, with words of the refusal.
    pub refuses: &'static [(&'static str, &'static str)],
}

const DOMAIN_EXAMPLES: [Example; 4] = [
    Example {
        name: "smbios",
        hook: "onDefineDomain",
        annotation: "smbios.vm.kubevirt.io/baseBoardManufacturer",
        value: "Bell & Öre <3",
        brings: &["Bell &amp; Öre &lt;3</entry>"],
        lines: [2, 2],
        refuses: &[("Bell\u{7}", "a character that SMBIOS cannot hold")],
    },
    Example {
        name: "boot_disk",
        hook: "onDefineDomain",
        annotation: "bootdisk.vm.kubevirt.io/order",
        value: "cloudinitdisk, rootdisk",
        brings: &["<boot order=\"1\"></boot>", "<boot order=\"2\"></boot>"],
        lines: [2, 4],
        refuses: &[
            ("", "name each disk once, out of rootdisk, cloudinitdisk"),
            ("rootdisk,rootdisk", "name each disk once"),
            ("rootdisk,nosuchdisk", "name each disk once"),
        ],
    },
    Example {
        name: "qemu_arguments",
        hook: "onDefineDomain",
        annotation: "qemu.vm.kubevirt.io/options",
        value: r#"{"-global":"ICH9-LPC.disable_s3=0","-rtc":"base=localtime"}"#,
        brings: &[
            "<qemu:arg value=\"-global\"></qemu:arg>",
            "<qemu:arg value=\"ICH9-LPC.disable_s3=0\"></qemu:arg>",
            "<qemu:arg value=\"-rtc\"></qemu:arg>",
            "<qemu:arg value=\"base=localtime\"></qemu:arg>",
        ],
        lines: [1, 4],
        refuses: &[
            ("-rtc base=localtime", "not a JSON object"),
            ("[]", "not a JSON object"),
            (r#"{"-drive":"file=/etc/passwd"}"#, "allowed are strings for -boot, -global, -rtc"),
            (r#"{"-rtc":7}"#, "strings"),
        ],
    },
    Example {
        name: "iommu",
        hook: "onDefineDomain",
        annotation: "iommu.vm.kubevirt.io/model",
        value: "intel",
        brings: &[
            "<iommu model=\"intel\"><driver intremap=\"on\" caching_mode=\"on\"></driver></iommu>",
            "<ioapic driver=\"qemu\"></ioapic>",
        ],
        lines: [2, 2],
        refuses: &[("smmuv3", "only intel on machine type q35 works")],
    },
];

const CLOUD_INIT_EXAMPLE: Example = Example {
    name: "cloud_init",
    hook: "preCloudInitIso",
    annotation: "timezone.vm.kubevirt.io/name",
    value: "America/Port-au-Prince",
    brings: &["\\ntimezone: America/Port-au-Prince\\n"],
    lines: [2, 2],
    refuses: &[("Europe/Lisbon\nruncmd: [halt]", "not the name of a time zone")],
};

/// Files for calls of one example.
pub struct Bench {
    dir: TempDir,
    example: &'static Example,
    program: Vec<OsString>,
}

impl Bench {
    /// For an example in Python.
    fn new(example: &'static Example) -> Self {
        let script = file(&format!("examples/python/{}.py", example.name));
        Self::of(example, vec!["python3".into(), script.into()])
    }

    /// For an example that is started with this command.
    pub fn of(example: &'static Example, program: Vec<OsString>) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), example, program }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The sample VM with the example's annotation.
    fn vmi(&self, value: Option<&str>) -> PathBuf {
        let sample = std::fs::read(file("crates/hookctl/src/samples/vmi.json")).unwrap();
        let mut vmi: Value = serde_json::from_slice(&sample).unwrap();
        vmi["metadata"]["annotations"] = match value {
            Some(value) => json!({"another": "one", self.example.annotation: value}),
            None => Value::Null,
        };
        self.write("vmi.json", &vmi.to_string())
    }

    /// Calls the example. Standard output and error, and whether it succeeded.
    async fn call(&self, mode: &str, vmi: &Path, document: &Path) -> (String, String, bool) {
        let hook = self.example.hook;
        let flag = if hook == "onDefineDomain" { "--domain" } else { "--cloud-init" };
        let mut command = Command::new(hookctl());
        command.args(["call", hook, "--mode", mode, flag]).arg(document).arg("--vmi").arg(vmi);
        command.arg("--").args(&self.program).kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&output.stdout), text(&output.stderr), output.status.success())
    }

    /// The answer, which has to be the same in both modes.
    async fn both(&self, vmi: &Path, document: &Path) -> (String, String) {
        let persistent = self.call("persistent", vmi, document).await;
        let exec = self.call("exec", vmi, document).await;
        assert!(persistent.2 && exec.2, "{}{}", persistent.1, exec.1);
        assert_eq!(persistent.0, exec.0, "{}", self.example.name);
        (persistent.0, persistent.1)
    }

    /// Everything that holds of an example and one document.
    async fn check(&self, sent: &str, lines: usize) {
        let name = self.example.name;
        let document = self.write("sent", sent);
        let (answer, diff) = self.both(&self.vmi(Some(self.example.value)), &document).await;
        for new in self.example.brings {
            assert_eq!(sent.matches(new).count(), 0, "{name}: {new}");
            assert_eq!(answer.matches(new).count(), 1, "{name}: {new} in {answer}");
        }
        let changed = diff.lines().filter(|line| {
            line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---")
        });
        // Everything else, white space and comments included, is as it was.
        assert_eq!(changed.count(), lines, "{name}: {diff}");
        for declared in sent.split_whitespace().filter(|word| word.starts_with("xmlns")) {
            let double = |text: &str| text.trim_end_matches('>').replace('\'', "\"");
            assert_eq!(
                double(&answer).matches(&double(declared)).count(),
                1,
                "{name}: {declared} in {answer}"
            );
        }

        let again = self.write("again", &answer);
        let (second, report) = self.both(&self.vmi(Some(self.example.value)), &again).await;
        assert_eq!((second, report.as_str()), (answer, "unchanged\n"), "{name} is not idempotent");
        let (without, report) = self.both(&self.vmi(None), &document).await;
        assert_eq!((without.as_str(), report.as_str()), (sent, "unchanged\n"), "{name}");
    }

    /// Everything that holds of an example for domains.
    pub async fn check_domains(&self) {
        let [of_kubevirt, of_libvirt] = self.example.lines;
        let kubevirt = sample("domain.xml");
        self.check(&kubevirt, of_kubevirt).await;
        // The plugin API's form.
        self.check(&kubevirt.replace('\t', "  "), of_kubevirt).await;
        let libvirt = std::fs::read_to_string(file("tests/fixtures/domains/libvirt.xml")).unwrap();
        self.check(&libvirt, of_libvirt).await;
        self.check_refusals(&kubevirt).await;
    }

    /// The example does what protocol.md demands, with a VMI for which it has something to do.
    pub async fn keeps_the_protocol(&self) {
        let mut command = Command::new(hookctl());
        command.args(["check", "--json", "--vmi"]).arg(self.vmi(Some(self.example.value)));
        command.arg("--").args(&self.program).kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success() && report["passed"] == json!(true), "{report:#}");
        for check in report["checks"].as_array().unwrap() {
            let passed = check["status"] == json!("passed");
            assert!(passed || check["name"] == json!("concurrency"), "{check:#}");
        }
    }

    async fn check_refusals(&self, sent: &str) {
        let document = self.write("sent", sent);
        for (value, words) in self.example.refuses {
            for (mode, status) in [("persistent", "FAILED_PRECONDITION"), ("exec", "INTERNAL")] {
                let (output, report, succeeded) =
                    self.call(mode, &self.vmi(Some(value)), &document).await;
                assert!(!succeeded && output.is_empty(), "{value:?} passes");
                for part in [status, self.example.annotation, words] {
                    assert!(report.contains(part), "{value:?}, {mode}: {report}");
                }
                assert!(!report.contains("Traceback"), "{report}");
            }
        }
    }
}

fn sample(name: &str) -> String {
    std::fs::read_to_string(file(&format!("crates/hookctl/src/samples/{name}"))).unwrap()
}

async fn check_domain_example(example: &'static Example) {
    Bench::new(example).check_domains().await;
}

#[tokio::test]
async fn smbios() {
    check_domain_example(&DOMAIN_EXAMPLES[0]).await;
}

#[tokio::test]
async fn boot_disk() {
    check_domain_example(&DOMAIN_EXAMPLES[1]).await;
}

#[tokio::test]
async fn boot_disk_puts_what_else_boots_behind() {
    let bench = Bench::new(&DOMAIN_EXAMPLES[1]);
    let sent = sample("domain.xml").replacen("<alias", "<boot order=\"1\"></boot><alias", 2);
    let document = bench.write("sent", &sent.replacen("order=\"1\"", "order=\"2\"", 1));
    let (answer, _) = bench.both(&bench.vmi(Some("cloudinitdisk")), &document).await;
    let orders: Vec<_> =
        answer.match_indices("boot order=").map(|(at, _)| &answer[at..at + 14]).collect();
    // The interface, the root disk, the disk that was named.
    assert_eq!(orders, ["boot order=\"3\"", "boot order=\"2\"", "boot order=\"1\""], "{answer}");
}

#[tokio::test]
async fn qemu_arguments() {
    check_domain_example(&DOMAIN_EXAMPLES[2]).await;
}

#[tokio::test]
async fn qemu_arguments_declares_the_namespace_where_it_is_missing() {
    let bench = Bench::new(&DOMAIN_EXAMPLES[2]);
    let document = bench.write("sent", "<domain>\n</domain>");
    let (answer, _) = bench.both(&bench.vmi(Some(r#"{"-boot":"menu=on"}"#)), &document).await;
    let namespace = "xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\"";
    let arguments = "<qemu:arg value=\"-boot\"></qemu:arg><qemu:arg value=\"menu=on\"></qemu:arg>";
    let line = format!("<qemu:commandline>{arguments}</qemu:commandline>");
    assert_eq!(answer, format!("<domain {namespace}>\n{line}</domain>"));
}

#[tokio::test]
async fn iommu() {
    check_domain_example(&DOMAIN_EXAMPLES[3]).await;
}

#[tokio::test]
async fn iommu_refuses_other_machines() {
    let bench = Bench::new(&DOMAIN_EXAMPLES[3]);
    let document = bench.write("sent", &sample("domain.xml").replace("q35", "virt"));
    let (_, report, succeeded) =
        bench.call("persistent", &bench.vmi(Some("intel")), &document).await;
    assert!(!succeeded && report.contains("only intel on machine type q35 works"), "{report}");
}

#[tokio::test]
async fn cloud_init() {
    let bench = Bench::new(&CLOUD_INIT_EXAMPLE);
    let sent = sample("cloud-init.json");
    bench.check(&sent, CLOUD_INIT_EXAMPLE.lines[0]).await;
    bench.check_refusals(&sent).await;

    let vmi = bench.vmi(Some(CLOUD_INIT_EXAMPLE.value));
    let mut data: Value = serde_json::from_str(&sent).unwrap();
    let zone = "timezone: America/Port-au-Prince\n";
    for (user_data, wanted) in [
        (json!("#cloud-config\r\nusers: []"), format!("#cloud-config\r\nusers: []\n{zone}")),
        (
            json!("#cloud-config\nwrite_files:\n- content: |\n    timezone: x\n\n\n"),
            format!("#cloud-config\nwrite_files:\n- content: |\n    timezone: x\n\n\n{zone}"),
        ),
        (json!(""), format!("#cloud-config\n{zone}")),
        (Value::Null, format!("#cloud-config\n{zone}")),
    ] {
        data["UserData"] = user_data;
        let (answer, _) = bench.both(&vmi, &bench.write("sent", &data.to_string())).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        data["UserData"] = json!(wanted);
        assert_eq!(answer, data);
    }
    for script in ["#!/bin/sh\ntrue\n", "## template: jinja\n#cloud-config\n"] {
        data["UserData"] = json!(script);
        let document = bench.write("sent", &data.to_string());
        let (_, report, succeeded) = bench.call("persistent", &vmi, &document).await;
        assert!(!succeeded && report.contains("the user data is not #cloud-config"), "{report}");
    }
}

#[test]
fn every_example_is_short() {
    let mut seen = 0;
    for entry in std::fs::read_dir(file("examples/python")).unwrap() {
        let entry = entry.unwrap();
        // The library is here as a link.
        if entry.file_type().unwrap().is_file() {
            let lines = std::fs::read_to_string(entry.path()).unwrap().lines().count();
            assert!(lines < 40, "{}: {lines} lines", entry.path().display());
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen} examples");
}
