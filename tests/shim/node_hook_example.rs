//! The node hook that people copy, in Python and in Rust, as a worker and as a program of one call.
//! It changes limits of real processes, which a made-up `/proc` says are those of VMs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rlimit::Resource;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{example, file, hookctl, path_with};

const POD: &str = "e2a7c64d-0b1f-4f83-95d8-3c6b7e90a241";
const OTHER_POD: &str = "77e05d0f-6c0a-4e0c-b6d7-1e5b6a2d9f10";
const ANNOTATION: &str = "memlock.example/limit";
/// Where the limits of the processes here begin. Any user may raise one from there to the hard
/// limit, which is nowhere below 64 KiB.
const BEFORE: u64 = 4096;

/// A node on which VMs run.
struct Node {
    root: TempDir,
    processes: Vec<Child>,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        // One that ends while it is looked at.
        fs::create_dir_all(root.path().join("proc/4194304")).unwrap();
        Self { root, processes: Vec::new() }
    }

    /// Starts a process of that name, in that pod; returns its number.
    fn start(&mut self, name: &str, cgroup: &str) -> i32 {
        let mut sleep = Command::new("sleep");
        let child = sleep.arg("600").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.processes.push(child);
        rlimit::prlimit(pid, Resource::MEMLOCK, Some((BEFORE, limits(pid).1)), None).unwrap();
        let path = self.root.path().join("proc").join(pid.to_string());
        fs::create_dir(&path).unwrap();
        fs::write(path.join("comm"), format!("{name}\n")).unwrap();
        fs::write(path.join("cgroup"), cgroup).unwrap();
        pid
    }

    /// Calls the hook for a VM with that annotation, or without.
    fn call(&self, how: &How, node: &str, limit: Option<&str>) -> Output {
        let path = self.root.path().join("vmi.json");
        fs::write(&path, vmi(limit).to_string()).unwrap();
        let mut command = Command::new(hookctl());
        command.args(["call", "preVMStart", "--node", node, "--vmi"]).arg(&path);
        command.env("MEMLOCK_PROC", self.root.path().join("proc")).env("MEMLOCK_MAX", "1Gi");
        how.add_to(&mut command, &self.root);
        command.output().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The shim's own sample, with the annotation.
fn vmi(limit: Option<&str>) -> Value {
    let text = fs::read_to_string(file("crates/hookctl/src/samples/vmi.json")).unwrap();
    let mut vmi: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(vmi["status"]["activePods"], json!({POD: "node-a"}));
    vmi["status"]["activePods"][OTHER_POD] = json!("node-b"); // it migrates
    if let Some(limit) = limit {
        vmi["metadata"]["annotations"][ANNOTATION] = json!(limit);
    }
    vmi
}

/// A process's soft and hard limit.
fn limits(pid: i32) -> (u64, u64) {
    let (mut soft, mut hard) = (0, 0);
    rlimit::prlimit(pid, Resource::MEMLOCK, None, Some((&mut soft, &mut hard))).unwrap();
    (soft, hard)
}

/// One program, and one way to run it.
#[derive(Debug)]
struct How {
    mode: &'static str,
    program: PathBuf,
}

impl How {
    fn all() -> Vec<Self> {
        let programs = [file("examples/python/memlock.py"), example("memlock").into()];
        let modes = ["persistent", "exec"];
        programs
            .into_iter()
            .flat_map(|program| modes.map(|mode| Self { mode, program: program.clone() }))
            .collect()
    }

    fn add_to(&self, command: &mut Command, directory: &TempDir) {
        command.args(["--mode", self.mode]);
        if self.mode == "exec" {
            // A program in $PATH, which is called by the hook's name.
            let bin = directory.path().join("bin");
            if fs::create_dir(&bin).is_ok() {
                symlink(&self.program, bin.join("preVMStart")).unwrap();
            }
            command.env("PATH", path_with(&bin));
        } else {
            command.arg("--").arg(&self.program);
        }
    }
}

fn assert_refused(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn raises_the_limit_of_the_vms_own_virtqemud_alone() {
    for how in How::all() {
        let mut node = Node::new();
        let ours = node.start("virtqemud", &format!("0::/kubepods/burstable/pod{POD}/4b1d\n"));
        let others = [
            node.start("virtqemud", &format!("0::/kubepods/burstable/pod{OTHER_POD}/9c2e\n")),
            node.start("virtlogd", &format!("0::/kubepods/burstable/pod{POD}/4b1d\n")),
            node.start("virtqemud", "0::/system.slice/virtqemud.service\n"),
        ];
        let hard = limits(ours).1;
        assert_done(&node.call(&how, "node-a", None));
        assert_eq!(limits(ours), (BEFORE, hard), "{how:?}: nothing was asked for");
        for _ in 0..2 {
            assert_done(&node.call(&how, "node-a", Some("16Ki")));
            assert_eq!(limits(ours), (16 << 10, hard), "{how:?}");
        }
        assert_done(&node.call(&how, "node-a", Some("8Ki")));
        assert_eq!(limits(ours), (16 << 10, hard), "{how:?}: a limit is never lowered");
        for other in others {
            assert_eq!(limits(other).0, BEFORE, "{how:?}");
        }
    }
}

#[test]
fn finds_the_pod_as_systemd_names_it() {
    let uid = POD.replace('-', "_");
    for how in How::all() {
        let mut node = Node::new();
        let ours = node.start(
            "virtqemud",
            &format!("0::/../../kubepods-burstable-pod{uid}.slice/cri-containerd-4b1d.scope\n"),
        );
        assert_done(&node.call(&how, "node-a", Some("16Ki")));
        assert_eq!(limits(ours).0, 16 << 10, "{how:?}");
    }
}

#[test]
fn tells_the_owner_what_is_wrong_with_the_annotation() {
    for how in How::all() {
        let mut node = Node::new();
        let ours = node.start("virtqemud", &format!("0::/kubepods/pod{POD}/4b1d\n"));
        for wrong in ["2Gi", "16", "16KiB", "-1Ki", "", "99999999999999999999Ki", "unlimited"] {
            let output = node.call(&how, "node-a", Some(wrong));
            let refused = ["not a size up to 1Gi, such as 4Gi", ANNOTATION];
            assert_refused(&output, &refused);
            if how.mode == "persistent" {
                assert_refused(&output, &["FAILED_PRECONDITION: hook preVMStart refused"]);
            }
        }
        assert_eq!(limits(ours).0, BEFORE);
    }
}

#[test]
fn a_vm_that_is_not_up_yet_is_tried_again() {
    for how in How::all() {
        let mut node = Node::new();
        let ours = node.start("virtqemud", &format!("0::/kubepods/pod{POD}/4b1d\n"));
        let output = node.call(&how, "node-b", Some("16Ki"));
        assert_refused(&output, &["on node-b yet", "KubeVirt will retry"]);
        assert_eq!(limits(ours).0, BEFORE, "the VM's process is on another node");
    }
}

#[test]
fn a_limit_of_the_administrators_that_is_no_size_ends_the_start() {
    let mut command = Command::new(hookctl());
    command.args(["call", "preVMStart", "--mode", "persistent", "--"]);
    command.arg(file("examples/python/memlock.py")).env("MEMLOCK_MAX", "64GB");
    let output = command.output().unwrap();
    assert_refused(&output, &["cannot start hook worker", "MEMLOCK_MAX", "64GB"]);
}
