//! The examples in Go, on the same documents. They need a Go toolchain; the tests say so where there is none.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use crate::examples::{Bench, Example};
use crate::support::{LIMIT, file, hookctl};

const SMBIOS: Example = Example {
    name: "smbios",
    hook: "onDefineDomain",
    annotation: "smbios.vm.kubevirt.io/baseBoardManufacturer",
    value: "Bell & Öre <3",
    brings: &["Bell &amp; Öre &lt;3</entry>"],
    lines: [2, 2],
    refuses: &[("Bell\u{7}", "a character that SMBIOS cannot hold")],
};

const QEMU_ARGUMENTS: Example = Example {
    name: "qemuarguments",
    hook: "onDefineDomain",
    annotation: "qemu.vm.kubevirt.io/options",
    value: r#"{"-rtc":"base=localtime","-global":"ICH9-LPC.disable_s3=0"}"#,
    brings: &[
        "<qemu:arg value=\"-global\"></qemu:arg>",
        "<qemu:arg value=\"ICH9-LPC.disable_s3=0\"></qemu:arg>",
        "<qemu:arg value=\"-rtc\"></qemu:arg>",
        "<qemu:arg value=\"base=localtime\"></qemu:arg>",
    ],
    lines: [1, 4],
    refuses: &[
        ("-rtc base=localtime", "not a JSON object of strings"),
        ("[]", "not a JSON object of strings"),
        (r#"{"-drive":"file=/etc/passwd"}"#, r#"only ["-boot" "-global" "-rtc"] are allowed"#),
        (r#"{"-rtc":7}"#, "not a JSON object of strings"),
    ],
};

/// The Go command, if there is one that can build the examples.
fn go() -> Option<String> {
    let named = std::env::var("SIDECAR_SHIM_TEST_GO");
    let command = named.clone().unwrap_or_else(|_| "go".to_owned());
    let version = Command::new(&command).args(["env", "GOVERSION"]).output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let minor =
        |version: &str| version.trim().strip_prefix("go1.")?.split('.').next()?.parse().ok();
    if version.is_ok_and(|version| minor(&version).is_some_and(|minor: u32| minor >= 22)) {
        return Some(command);
    }
    assert!(named.is_err(), "SIDECAR_SHIM_TEST_GO does not name Go 1.22 or later");
    let note = "skipped: the tests of the examples in Go, because there is no Go 1.22 or later\n";
    std::io::stderr().write_all(note.as_bytes()).unwrap();
    None
}

/// Where the examples' programs are, built once.
static PROGRAMS: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let programs = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go");
    std::fs::create_dir_all(&programs).unwrap();
    let mut build = Command::new(go()?);
    build.args(["build", "-C"]).arg(file("examples/go")).arg("-o").arg(&programs).arg("./...");
    // Neither another toolchain nor modules are fetched: none are needed.
    let output = build.env("GOTOOLCHAIN", "local").env("GOPROXY", "off").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(programs)
});

async fn check_domains(example: &'static Example) {
    if let Some(programs) = &*PROGRAMS {
        let bench = Bench::of(example, vec![programs.join(example.name).into()]);
        bench.check_domains().await;
        bench.keeps_the_protocol().await;
    }
}

#[tokio::test]
async fn smbios() {
    check_domains(&SMBIOS).await;
}

#[tokio::test]
async fn qemu_arguments() {
    check_domains(&QEMU_ARGUMENTS).await;
}

#[tokio::test]
async fn a_node_hook_refuses_while_the_file_is_there() {
    let Some(programs) = &*PROGRAMS else { return };
    let dir = tempfile::tempdir().unwrap();
    // A program that serves several node hooks is told by its name which one it is.
    let program = dir.path().join("preVMStart");
    std::os::unix::fs::symlink(programs.join("nodegate"), &program).unwrap();
    let gate = dir.path().join("closed");
    let call = async |mode| {
        let mut call = tokio::process::Command::new(hookctl());
        call.args(["call", "preVMStart", "--node", "node01", "--mode", mode, "--"]).arg(&program);
        let output = call.env("NODEGATE_FILE", &gate).kill_on_drop(true).output();
        let output = tokio::time::timeout(LIMIT, output).await.unwrap().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    for mode in ["exec", "persistent"] {
        let (passes, report) = call(mode).await;
        assert!(passes, "{mode}: {report}");
    }
    std::fs::write(&gate, "new firmware until noon\n").unwrap();
    for (mode, status) in [("exec", "INTERNAL"), ("persistent", "FAILED_PRECONDITION")] {
        let (passes, report) = call(mode).await;
        let refusal = "node node01 does not accept VMs: new firmware until noon";
        assert!(!passes && report.contains(refusal) && report.contains(status), "{mode}: {report}");
    }
}
