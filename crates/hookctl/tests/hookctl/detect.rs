//! How `hookctl call` finds out whether a command is a worker or a program for each call. No
//! process of it survives, nor does one of `hookctl check`.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::call::{call, text};
use crate::support::{Gate, LIMIT, file, script, worker};
use crate::{example, hookctl};

/// Set for hookctl, so that all processes that it leaves behind can be found.
const RUN: &str = "HOOKCTL_TEST_RUN";

/// What a hook program does with the arguments of a domain hook.
const ANSWERS: &str = "[ $# = 4 ] && { printf '%s' \"$4\"; exit; }\n";

/// Commands without arguments that are not workers, and how that shows. With arguments they are
/// hook programs.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("exits", "exit 0", "it exited with status 0"),
    ("fails", "exit 2", "it exited with status 2"),
    ("is killed", "kill -KILL $$", "it was killed by SIGKILL"),
    ("leaves a child", "sleep 1000 & exit 3", "it exited with status 3"),
    ("leaves a daemon", "setsid sleep 1000 & sleep 0.1; exit 3", "it exited with status 3"),
    ("closes stdout", "exec >&-; sleep 1000", "it closed its stdout"),
    ("prints", "echo hello", "it wrote something else to stdout"),
    ("prints half a frame", r"printf '\000\000\000\011{'", "it wrote something else to stdout"),
    ("prints an empty frame", r"printf '\000\000\000\000'; sleep 1000", "it wrote something else"),
    ("echoes", "exec cat", "it wrote something else to stdout"),
    ("floods stdout", "exec yes", "it wrote something else to stdout"),
    ("is silent", "exec sleep 1000", "it sent no frame within 5 s"),
    ("reads stdin", "while read -r _; do :; done", "it sent no frame within 5 s"),
    ("closes stdin", "exec <&-; exec sleep 1000", "it sent no frame within 5 s"),
    ("prints and waits", "echo hello; exec sleep 1000", "it sent no frame within 5 s"),
    ("floods stderr", "yes >&2", "it sent no frame within 5 s"),
    ("ignores SIGTERM", "trap '' TERM; while :; do sleep 1; done", "it sent no frame within 5 s"),
];

/// Commands that send a frame. It is not a response, so they cannot be started as workers.
const BAD_WORKERS: &[(&str, &str)] = &[
    ("exits", r"printf '\000\000\000\002{}'"),
    ("starts slowly", r"sleep 4; printf '\000\000\000\002{}'; read -r _"),
    ("cannot be stopped", r"trap '' TERM; printf '\000\000\000\002{}'; while :; do sleep 1; done"),
    ("leaves a daemon", r"setsid sleep 1000 & printf '\000\000\000\002{}'; read -r _"),
];

/// Calls a hook, and returns whether it succeeded, what hookctl said, and the whole stderr.
async fn run(args: &[&str]) -> (bool, Vec<String>, String) {
    let run = unique();
    let output = call(args, |command| {
        command.env(RUN, &run);
    })
    .await;
    assert_eq!(processes_of(&run), [0; 0], "{args:?} left processes behind");
    let stderr = text(&output.stderr);
    let own = stderr.lines().filter_map(|line| line.strip_prefix("hookctl: "));
    (output.status.success(), own.map(str::to_owned).collect(), stderr)
}

fn unique() -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.path().display().to_string()
}

/// The processes that have this value of [`RUN`] in their environment.
fn processes_of(run: &str) -> Vec<u32> {
    let variable = format!("{RUN}={run}");
    let has_it = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|each| each == variable.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    let numbers = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers.filter(has_it).collect()
}

#[tokio::test]
async fn what_is_no_worker_runs_as_a_program() {
    let mut runs = JoinSet::new();
    for &(name, behaviour, sign) in PROGRAMS {
        runs.spawn(async move {
            let dir = tempfile::tempdir().unwrap();
            let hook = script(dir.path(), "hook", &format!("#!/bin/sh\n{ANSWERS}{behaviour}\n"));
            let (success, lines, all) =
                run(&["onDefineDomain", "--", hook.to_str().unwrap()]).await;
            assert!(success, "{name}: {all}");
            assert_eq!(lines.len(), 1, "{name}: {all}");
            assert!(lines[0].contains(&format!("({sign}")), "{name}: {all}");
            assert!(lines[0].ends_with("it runs as a program for each call (--mode exec)"));
            // Nothing of the first start's stderr is shown.
            let (said, summary) = all.trim_end().split_once('\n').unwrap();
            assert_eq!(said, format!("hookctl: {}", lines[0]), "{name}");
            assert!(summary.starts_with("unchanged · ") && summary.ends_with(" ms"), "{all}");
        });
    }
    while let Some(run) = runs.join_next().await {
        run.unwrap();
    }
}

#[tokio::test]
async fn only_the_calls_own_output_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let noisy = script(dir.path(), "noisy", "#!/bin/sh\necho $# arguments >&2\necho no domain\n");
    let (success, lines, all) = run(&["onDefineDomain", "--", noisy.to_str().unwrap()]).await;
    assert!(!success && lines.len() == 2, "{all}");
    assert!(lines[1].starts_with("onDefineDomain failed: INTERNAL"), "{all}");
    assert_eq!((all.matches("0 arguments").count(), all.matches("4 arguments").count()), (0, 1));
}

#[tokio::test]
async fn a_frame_makes_it_a_worker() {
    let mut runs = JoinSet::new();
    for &(name, behaviour) in BAD_WORKERS {
        runs.spawn(async move {
            let dir = tempfile::tempdir().unwrap();
            let hook = script(dir.path(), "hook", &format!("#!/bin/sh\n{behaviour}\n"));
            let (success, lines, all) =
                run(&["onDefineDomain", "--", hook.to_str().unwrap()]).await;
            assert!(!success && lines.len() == 2, "{name}: {all}");
            assert!(lines[0].contains("responds to initialize"), "{name}: {all}");
            assert!(lines[0].ends_with("(--mode persistent)"), "{name}: {all}");
            assert!(lines[1].starts_with("cannot start hook worker: "), "{name}: {all}");
        });
    }
    while let Some(run) = runs.join_next().await {
        run.unwrap();
    }

    let smbios = file("examples/python/smbios.py").display().to_string();
    let rust = example("smbios");
    let banner = format!("echo ready; exec python3 '{smbios}'");
    for command in [&["python3", &*smbios][..], &[&*rust], &["sh", "-c", &banner]] {
        let (success, lines, all) = run(&[&["onDefineDomain", "--"], command].concat()).await;
        assert!(success && lines.len() == 1, "{command:?}: {all}");
        assert!(lines[0].ends_with("(--mode persistent)"), "{command:?}: {all}");
    }
}

#[tokio::test]
async fn a_worker_that_fails_shows_why_with_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let fails = "[ $KUBEVIRT_HOOK_PROTOCOL ] && echo 'no module named hooks' >&2; exit 1";
    let hook = script(dir.path(), "hook", &format!("#!/bin/sh\n{fails}\n"));
    let hook = hook.to_str().unwrap();
    let (success, lines, all) = run(&["onDefineDomain", "--", hook]).await;
    assert!(!success && lines.len() == 2, "{all}");
    assert!(lines[0].contains("(it exited with status 1)"), "{all}");
    let hint = "\nif the command is a worker, see with --mode persistent why it does not start\n";
    assert!(all.ends_with(hint), "{all}");
    let (success, _, all) = run(&["onDefineDomain", "--mode", "persistent", "--", hook]).await;
    assert!(!success && all.contains("no module named hooks"), "{all}");
}

#[tokio::test]
async fn a_fault_says_how_to_see_its_text() {
    let sdk = file("sdk/python").display().to_string();
    let program = format!(
        "import sys; sys.path.insert(0, {sdk:?}); from kubevirt_hook import Refused, Worker\n\
         hook = Worker('h')\n\
         @hook.on_define_domain\n\
         def fails(vmi, domain):\n    raise {{}}\n\
         hook.run()\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let hint = "\nto see the text of the fault, which may quote documents: ";
    let text = "ValueError: the reason";
    for (raised, is_fault) in [("ValueError('the reason')", true), ("Refused('no')", false)] {
        let hook = script(dir.path(), "hook.py", &program.replace("{}", raised));
        let hook = ["--", "python3", hook.to_str().unwrap()];
        for (mode, options) in
            [("persistent", "--log-level debug"), ("exec", "--mode persistent --log-level debug")]
        {
            let (success, _, all) =
                run(&[&["onDefineDomain", "--mode", mode], &hook[..]].concat()).await;
            assert!(!success && !all.contains(text), "{all}");
            assert_eq!(all.ends_with(&format!("{hint}{options}\n")), is_fault, "{all}");
            let options: Vec<_> = options.split(' ').collect();
            let (success, _, all) =
                run(&[&["onDefineDomain"], &options[..], &hook[..]].concat()).await;
            assert!(!success && !all.contains(hint), "{all}");
            assert_eq!(all.contains(text), is_fault, "{all}");
        }
    }
}

#[tokio::test]
async fn a_command_that_cannot_run_is_named() {
    let (success, lines, _) = run(&["onDefineDomain", "--", "/no/such/program"]).await;
    assert!(!success);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("cannot run /no/such/program: "), "{lines:?}");
}

#[tokio::test]
async fn a_worker_may_declare_a_hook_of_any_name_and_a_program_may_not_have_one() {
    let own = worker("--hooks postRestore");
    let (success, _, all) = run(&["postRestore", "--worker", &own]).await;
    assert!(success, "{all}");
    let dir = tempfile::tempdir().unwrap();
    let hook = script(dir.path(), "hook", "#!/bin/sh\nexit 7\n");
    let (success, lines, all) = run(&["postRestore", "--", hook.to_str().unwrap()]).await;
    assert!(!success && lines.len() == 1, "{all}");
    let expected = "the command is not a worker (it exited with status 7); unknown hook";
    assert!(lines[0].starts_with(&format!("{expected} \"postRestore\": ")), "{all}");
}

#[tokio::test]
async fn an_interrupted_call_leaves_no_process_behind() {
    for (mode, signal) in [
        (&[][..], Signal::SIGINT),
        (&[], Signal::SIGTERM),
        (&[], Signal::SIGHUP),
        (&["--mode", "persistent"], Signal::SIGINT),
        (&["--mode", "exec"], Signal::SIGINT),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::new(dir.path().join("gate"));
        let behaviour = "echo noise >&2; setsid sleep 1000 & : <\"$GATE\"; exec sleep 1000";
        let hook = script(dir.path(), "hook", &format!("#!/bin/sh\n{behaviour}\n"));
        let run = unique();
        let child = Command::new(hookctl())
            .args(["call", "onDefineDomain", "--log-level", "error"])
            .args(mode)
            .arg("--")
            .arg(&hook)
            .env("GATE", &gate.0)
            .env(RUN, &run)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let opener = gate.reached().await;
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
        #[expect(clippy::disallowed_methods, reason = "tests signal hookctl")]
        kill(pid, signal).unwrap();
        drop(opener);
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
        let expected = 128 + signal as i32;
        assert_eq!(output.status.code(), Some(expected), "{mode:?} {signal}");
        assert_eq!(text(&output.stderr), "hookctl: interrupted\n", "{mode:?} {signal}");
        assert_eq!(processes_of(&run), [0; 0], "{mode:?} {signal} left processes behind");
    }
}

#[tokio::test]
async fn a_checked_worker_leaves_no_process_behind() {
    let dir = tempfile::tempdir().unwrap();
    // The daemon holds stdout open, which must not hide the exit.
    let code = "#!/bin/sh\nsetsid sleep 1000 &\nsleep 0.1\necho failed >&2\nexit 9\n";
    let hook = script(dir.path(), "hook", code);
    let run = unique();
    let mut command = Command::new(hookctl());
    command.args(["check", "--"]).arg(hook).env(RUN, &run).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
    assert_eq!(processes_of(&run), [0; 0], "check left processes behind");
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    let seen = "it exited with status 9 before it responded to initialize (request 1)";
    // The table breaks long lines.
    let words: Vec<_> = table.split_whitespace().collect();
    assert!(words.join(" ").contains(seen), "{table}");
}
