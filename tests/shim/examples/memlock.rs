//! The node hook that people copy, in Python and in Rust, as a worker and as a program. It changes
//! limits of real processes, of which a made-up `/proc` says that they are those of VMs.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rlimit::Resource;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::vmi;
use crate::support::{Mode, PYTHON, Program, Shim, ShimBuilder, python, rust};

const POD: &str = "e2a7c64d-0b1f-4f83-95d8-3c6b7e90a241";
const OTHER_POD: &str = "77e05d0f-6c0a-4e0c-b6d7-1e5b6a2d9f10";
const ANNOTATION: &str = "memlock.example/limit";

/// The limit of the processes before any call. Any user may raise it from there to the hard limit,
/// which is 64 KiB or more everywhere.
const BEFORE: u64 = 4096;

/// A node on which VMs run, and the shim that serves its hook.
struct Node {
    shim: Shim,
    mode: Mode,
    /// Names the program and the mode in failures.
    name: String,
    proc: PathBuf,
    processes: Vec<Child>,
}

impl Node {
    async fn start(program: &Program, mode: Mode) -> Self {
        let builder = match mode {
            Mode::Persistent => Shim::worker(&program.command()),
            // In exec mode the program finds out by its name which hook it is.
            Mode::Exec => in_path(Shim::builder(), program),
        };
        let proc = builder.dir().join("proc");
        fs::create_dir_all(proc.join("self")).unwrap();
        // A process that exits while the hook looks at it.
        fs::create_dir_all(proc.join("4194304")).unwrap();
        let builder = builder.env("MEMLOCK_PROC", &proc).env("MEMLOCK_MAX", "1Gi");
        let shim = builder.plugin().start().await;
        let name = format!("{:?}, {mode:?}", program.language);
        Self { shim, mode, name, proc, processes: Vec::new() }
    }

    /// Starts a process with this name and cgroup, and returns its pid.
    fn process(&mut self, name: &str, cgroup: &str) -> i32 {
        let mut sleep = Command::new("sleep");
        let child = sleep.arg("600").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.processes.push(child);
        rlimit::prlimit(pid, Resource::MEMLOCK, Some((BEFORE, limits(pid).1)), None).unwrap();
        let path = self.proc.join(pid.to_string());
        fs::create_dir(&path).unwrap();
        fs::write(path.join("comm"), format!("{name}\n")).unwrap();
        fs::write(path.join("cgroup"), cgroup).unwrap();
        pid
    }

    /// Calls the hook for the VM, which may have the annotation.
    async fn call(&self, node: &str, limit: Option<&str>) -> Result<(), Status> {
        let annotations = limit.map_or(Value::Null, |limit| json!({ANNOTATION: limit}));
        let mut vmi = vmi(annotations);
        assert_eq!(vmi["status"]["activePods"], json!({POD: "node-a"}));
        vmi["status"]["activePods"][OTHER_POD] = json!("node-b"); // it migrates
        self.shim.dial_plugin().await.node_hook_on(node, "PreVMStart", &vmi).await
    }

    fn assert_refused(&self, answer: Result<(), Status>, words: &[&str]) {
        let status = answer.expect_err(&self.name);
        for word in words {
            assert!(status.message().contains(word), "{}: no {word:?} in {status:?}", self.name);
        }
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

/// Puts the program into `$PATH` under the name of its hook, and the interpreter, which is slow to
/// start if `python3` is a wrapper.
fn in_path(builder: ShimBuilder, program: &Program) -> ShimBuilder {
    let path = program.words.last().unwrap();
    builder.link("preVMStart", path).link("python3", &*PYTHON)
}

/// The soft and the hard limit of a process.
fn limits(pid: i32) -> (u64, u64) {
    let (mut soft, mut hard) = (0, 0);
    rlimit::prlimit(pid, Resource::MEMLOCK, None, Some((&mut soft, &mut hard))).unwrap();
    (soft, hard)
}

/// A node for each language and each mode.
async fn nodes() -> Vec<Node> {
    let mut nodes = Vec::new();
    for program in [python("memlock"), rust("memlock")] {
        for mode in program.modes {
            nodes.push(Node::start(&program, *mode).await);
        }
    }
    nodes
}

#[tokio::test]
async fn it_raises_the_limit_of_the_vms_own_virtqemud_only() {
    for mut node in nodes().await {
        let ours = node.process("virtqemud", &format!("0::/kubepods/burstable/pod{POD}/4b1d\n"));
        let others = [
            node.process("virtqemud", &format!("0::/kubepods/burstable/pod{OTHER_POD}/9c2e\n")),
            node.process("virtlogd", &format!("0::/kubepods/burstable/pod{POD}/4b1d\n")),
            node.process("virtqemud", "0::/system.slice/virtqemud.service\n"),
        ];
        let hard = limits(ours).1;
        node.call("node-a", None).await.unwrap();
        assert_eq!(limits(ours), (BEFORE, hard), "{}: without the annotation", node.name);
        for _ in 0..2 {
            node.call("node-a", Some("16Ki")).await.unwrap();
            assert_eq!(limits(ours), (16 << 10, hard), "{}", node.name);
        }
        node.call("node-a", Some("8Ki")).await.unwrap();
        assert_eq!(limits(ours), (16 << 10, hard), "{}: a limit is never lowered", node.name);
        for other in others {
            assert_eq!(limits(other).0, BEFORE, "{}: another process", node.name);
        }
    }
}

#[tokio::test]
async fn it_finds_the_pod_by_its_name_in_systemd() {
    let uid = POD.replace('-', "_");
    for mut node in nodes().await {
        let ours = node.process(
            "virtqemud",
            &format!("0::/../../kubepods-burstable-pod{uid}.slice/cri-containerd-4b1d.scope\n"),
        );
        node.call("node-a", Some("16Ki")).await.unwrap();
        assert_eq!(limits(ours).0, 16 << 10, "{}", node.name);
    }
}

#[tokio::test]
async fn it_explains_what_is_wrong_with_the_annotation() {
    for mut node in nodes().await {
        let ours = node.process("virtqemud", &format!("0::/kubepods/pod{POD}/4b1d\n"));
        for wrong in ["2Gi", "16", "16KiB", "-1Ki", "", "99999999999999999999Ki", "unlimited"] {
            let answer = node.call("node-a", Some(wrong)).await;
            if node.mode == Mode::Persistent {
                let code = answer.as_ref().map_err(Status::code);
                assert_eq!(code, Err(Code::FailedPrecondition), "{}: {wrong}", node.name);
                node.assert_refused(answer.clone(), &["hook preVMStart refused"]);
            }
            node.assert_refused(answer, &["not a size up to 1Gi, such as 4Gi", ANNOTATION]);
        }
        assert_eq!(limits(ours).0, BEFORE, "{}", node.name);
    }
}

#[tokio::test]
async fn for_a_vm_that_is_not_up_yet_kubevirt_retries() {
    for mut node in nodes().await {
        let ours = node.process("virtqemud", &format!("0::/kubepods/pod{POD}/4b1d\n"));
        let answer = node.call("node-b", Some("16Ki")).await;
        node.assert_refused(answer, &["on node-b yet", "KubeVirt will retry"]);
        assert_eq!(limits(ours).0, BEFORE, "{}: the process is on another node", node.name);
    }
}

#[tokio::test]
async fn an_invalid_maximum_of_the_administrator_fails_the_start() {
    let worker = python("memlock").command();
    let mut shim = Shim::worker(&worker).plugin().env("MEMLOCK_MAX", "64GB").spawn();
    assert_eq!(shim.exited().await.code(), Some(1));
    for word in ["cannot start hook worker", "MEMLOCK_MAX", "64GB"] {
        shim.assert_logged(word);
    }
}
