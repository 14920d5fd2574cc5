//! `hookctl call --watch`, and signals.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::hookctl;
use crate::support::{ECHO, LIMIT, eventually, gone, script};

/// A running `hookctl call onDefineDomain`.
struct Call {
    child: Child,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Call {
    fn start(dir: &Path, args: &[&str]) -> Self {
        Self::of(dir, &[&["call", "onDefineDomain"], args].concat())
    }

    fn of(dir: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(hookctl());
        command.args(args).current_dir(dir);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stderr }
    }

    /// Waits for a line with this text.
    async fn line(&mut self, part: &str) -> String {
        let found = async {
            while let Some(line) = self.stderr.next_line().await.unwrap() {
                if line.contains(part) {
                    return line;
                }
            }
            panic!("it ended without a line with {part:?}");
        };
        timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("no line with {part:?}"))
    }

    #[expect(clippy::disallowed_methods, reason = "it was started here")]
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    async fn exited(&mut self) -> ExitStatus {
        timeout(LIMIT, self.child.wait()).await.unwrap().unwrap()
    }

    /// Interrupts it, and checks how it ends.
    async fn interrupt(&mut self) {
        self.signal(Signal::SIGINT);
        assert_eq!(self.exited().await.code(), Some(130));
        self.line("hookctl: interrupted").await;
    }
}

/// Replaces a file as editors do.
fn replace(path: &Path, text: &str) {
    let dir = path.parent().unwrap();
    let new = script(dir, "new file", text);
    std::fs::rename(new, path).unwrap();
}

const FAILING: &str = "#!/bin/sh\nexit 7\n";

#[tokio::test]
async fn a_change_of_the_hook_or_of_a_document_calls_again() {
    let dir = tempfile::tempdir().unwrap();
    let hook = script(dir.path(), "hook", ECHO);
    let domain = dir.path().join("domain.xml");
    std::fs::write(&domain, "<domain><name>a</name></domain>").unwrap();
    let args =
        ["--watch", "--domain", "domain.xml", "--mode", "exec", "-o", "out.xml", "--", "./hook"];
    let mut call = Call::start(dir.path(), &args);
    call.line("unchanged · ").await;
    assert_eq!(call.line("watching").await, "hookctl: watching ./hook, domain.xml; Ctrl-C ends");

    replace(&hook, FAILING);
    call.line("./hook has changed: calling again").await;
    call.line("exited with status 7").await;
    std::fs::write(&hook, ECHO).unwrap();
    call.line("./hook has changed: calling again").await;
    call.line("unchanged · ").await;

    std::fs::write(&domain, "<domain><name>b</name></domain>").unwrap();
    call.line("domain.xml has changed: calling again").await;
    call.line("unchanged · ").await;
    // Its own output does not count as a change: the next line is about the domain.
    let out = dir.path().join("out.xml");
    let has_result = || std::fs::read_to_string(&out).is_ok_and(|it| it.contains("<name>b</name>"));
    eventually("the result is written", has_result).await;

    std::fs::remove_file(&domain).unwrap();
    call.line("domain.xml is gone: waiting until it is there again").await;
    std::fs::write(&domain, "<domain").unwrap();
    call.line("domain.xml is there: calling again").await;
    call.line("unchanged · ").await;
    call.interrupt().await;
}

#[tokio::test]
async fn a_link_of_a_directory_above_may_change() {
    // As in the volume of a ConfigMap.
    let dir = tempfile::tempdir().unwrap();
    for (version, text) in [("v1", ECHO), ("v2", FAILING)] {
        std::fs::create_dir(dir.path().join(version)).unwrap();
        script(&dir.path().join(version), "hook", text);
    }
    let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, dir.path().join(at)).unwrap();
    link("v1", "..data");
    link("..data/hook", "hook");
    let mut call = Call::start(dir.path(), &["--watch", "--mode", "exec", "--", "./hook"]);
    call.line("watching ./hook").await;
    link("v2", "..tmp");
    std::fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
    call.line("./hook has changed: calling again").await;
    call.line("exited with status 7").await;
    call.interrupt().await;
}

#[tokio::test]
async fn a_change_ends_a_call_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let hanging = "#!/bin/sh\necho hangs >&2\nexec sleep 1000\n";
    let hook = script(dir.path(), "hook", hanging);
    let mut call = Call::start(dir.path(), &["--watch", "--mode", "exec", "--", "./hook"]);
    call.line("hangs").await;
    replace(&hook, ECHO);
    call.line("./hook has changed: calling again").await;
    call.line("unchanged · ").await;
    call.interrupt().await;
}

#[tokio::test]
async fn without_a_file_there_is_nothing_to_watch() {
    let dir = tempfile::tempdir().unwrap();
    let mut call = Call::start(dir.path(), &["--watch", "--socket", "/no/such.sock"]);
    call.line("there is no file to watch").await;
    assert_eq!(call.exited().await.code(), Some(1));
}

#[tokio::test]
async fn an_interrupt_ends_the_program_and_all_that_it_has_started() {
    let hook = "#!/bin/sh
trap '' TERM INT HUP
(setsid sh -c 'trap \"\" TERM INT HUP; echo $$ >orphan.new; mv orphan.new orphan; exec sleep 1000' &)
echo $$ >hook.new
mv hook.new hook.pid
while :; do sleep 1; done
";
    for how in
        [&["--mode", "exec"][..], &["--mode", "persistent"], &[], &["--mode", "exec", "--watch"]]
    {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let dir = tempfile::tempdir().unwrap();
            script(dir.path(), "hook", hook);
            // It must not wait for the grace, which is longer than the test may take.
            let args = [how, &["--kill-grace", "1h", "--", "./hook"]].concat();
            let mut call = Call::start(dir.path(), &args);
            let files = ["hook.pid", "orphan"].map(|name| dir.path().join(name));
            eventually("the hook runs", || files.iter().all(|file| file.exists())).await;
            let pids =
                files.map(|file| std::fs::read_to_string(file).unwrap().trim().parse().unwrap());
            call.signal(signal);
            assert_eq!(call.exited().await.code(), Some(128 + signal as i32), "{how:?}");
            assert!(pids.into_iter().all(gone), "{how:?}: {pids:?}");
        }
    }
}

#[tokio::test]
async fn an_interrupt_ends_what_waits_for_others() {
    // No process writes the VMI, and none reads the result.
    let dir = tempfile::tempdir().unwrap();
    script(dir.path(), "hook", ECHO);
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut call = Call::start(dir.path(), &["-o", "fifo", "--mode", "exec", "--", "./hook"]);
    call.line("unchanged · ").await;
    call.interrupt().await;

    for command in [&["call", "onDefineDomain"][..], &["check"]] {
        let args = [command, &["--vmi", "fifo", "--", "./hook"]].concat();
        let mut call = Call::of(dir.path(), &args);
        // Once it is open, hookctl reads.
        let fifo = fifo.clone();
        let open = move || std::fs::OpenOptions::new().write(true).open(fifo);
        let opened = tokio::task::spawn_blocking(open);
        let writer = timeout(LIMIT, opened).await.unwrap().unwrap().unwrap();
        call.interrupt().await;
        drop(writer);
    }
}
