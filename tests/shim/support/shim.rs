//! The shim as a pod starts it, and its log.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tonic::Status;

use super::{Client, DOMAIN, Gate, LIMIT, binary, eventually, path_with, script, worker};

/// The plugin's socket, in the test's directory. The shim makes its parent.
const PLUGIN_SOCKET: &str = "plugin/hook.sock";

/// Timeout for reading the rest of a failed test's log: the shim has been killed by then.
const LAST_LOG_LIMIT: Duration = Duration::from_secs(1);

/// How a shim is started: in exec mode, with the API of hook sidecars, and with the test's own
/// programs in front of `$PATH`, unless it is told otherwise.
pub struct ShimBuilder {
    dir: TempDir,
    wrapper: Vec<OsString>,
    args: Vec<OsString>,
    version: Option<String>,
    without_arguments: bool,
    variables: Vec<(OsString, OsString)>,
    current_dir: Option<PathBuf>,
}

impl ShimBuilder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("hooks")).unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        Self {
            wrapper: Vec::new(),
            args: Vec::new(),
            version: Some("v1alpha3".to_owned()),
            without_arguments: false,
            variables: vec![("PATH".into(), path_with(&dir.path().join("bin")).into())],
            current_dir: None,
            dir,
        }
    }

    /// The test's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(dir.into());
        self
    }

    /// Adds a program to `$PATH`.
    pub fn program(self, name: &str, text: &str) -> Self {
        script(&self.dir.path().join("bin"), name, text);
        self
    }

    /// Adds a program to `$PATH` that is a link to another one.
    pub fn link(self, name: &str, to: impl AsRef<Path>) -> Self {
        std::os::unix::fs::symlink(to, self.dir.path().join("bin").join(name)).unwrap();
        self
    }

    /// Persistent mode with this worker.
    pub fn worker(self, command: &str) -> Self {
        self.args(["--mode", "persistent", "--worker", command])
    }

    /// The version of the hook sidecars' API.
    pub fn version(mut self, version: &str) -> Self {
        self.version = Some(version.to_owned());
        self
    }

    /// Without the API of hook sidecars.
    pub fn no_version(mut self) -> Self {
        self.version = None;
        self
    }

    /// With the Plugins API in place of that of hook sidecars.
    pub fn plugin(self) -> Self {
        self.both_apis().no_version()
    }

    /// With the Plugins API as well.
    pub fn both_apis(self) -> Self {
        let socket = self.dir.path().join(PLUGIN_SOCKET);
        self.args(["--plugin-socket".as_ref(), socket.as_os_str()])
    }

    /// With nothing but its environment, as KubeVirt starts the sidecar of a network binding.
    pub fn without_arguments(mut self) -> Self {
        self.without_arguments = true;
        let hooks = self.dir.path().join("hooks");
        self.no_version().env("SIDECAR_SHIM_SOCKET_DIR", hooks)
    }

    /// Started by another program, which gets the shim's command line as its last arguments.
    pub fn under(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(Into::into).collect();
        self
    }

    /// Starts the shim.
    pub fn spawn(self) -> Shim {
        let mut words = self.wrapper.into_iter().chain([binary().into_os_string()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).env_remove("CONTAINER_NAME");
        if self.without_arguments {
            command.env_clear();
        } else {
            command.arg("--socket-dir").arg(self.dir.path().join("hooks"));
        }
        // A pod's arguments come after those of the image.
        command.envs(self.variables).args(self.args);
        command.args(self.version.iter().flat_map(|version| ["--version", version]));
        if let Some(dir) = self.current_dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Shim {
            child,
            dir: self.dir,
            log: Some(log),
            lines: Vec::new(),
            gates: AtomicUsize::default(),
        }
    }

    /// Starts the shim, and waits until it serves.
    pub async fn start(self) -> Shim {
        let mut shim = self.spawn();
        shim.serving().await;
        shim
    }
}

/// A running shim. It is killed when it is dropped, and its log is printed if the test has failed.
pub struct Shim {
    pub child: Child,
    /// The test's directory: with the socket directory `hooks`, and `bin`, which is in `$PATH`.
    pub dir: TempDir,
    /// `None` once it was drained or printed.
    log: Option<Lines<BufReader<ChildStderr>>>,
    /// Every log line so far.
    pub lines: Vec<Value>,
    gates: AtomicUsize,
}

impl Shim {
    /// A shim whose hooks are the programs in `$PATH`.
    pub fn builder() -> ShimBuilder {
        ShimBuilder::new()
    }

    /// A shim in persistent mode with the fixture worker, which gets these arguments.
    pub fn persistent(worker_args: &str) -> ShimBuilder {
        Self::worker(&worker(worker_args))
    }

    /// A shim in persistent mode with this worker.
    pub fn worker(command: &str) -> ShimBuilder {
        Self::builder().worker(command)
    }

    /// A new gate in the test's directory.
    pub fn gate(&self) -> Gate {
        let number = self.gates.fetch_add(1, Ordering::Relaxed);
        Gate::new(self.dir.path().join(format!("gate-{number}")))
    }

    /// Waits for the log line that says it serves.
    pub async fn serving(&mut self) {
        self.log_line("serving").await;
    }

    /// Waits until it serves, without reading its log.
    pub async fn has_socket(&self) {
        // The file is there a moment before the shim listens.
        let accepts = |socket: &PathBuf| std::os::unix::net::UnixStream::connect(socket).is_ok();
        eventually("the shim serves", || self.sockets().first().is_some_and(accepts)).await;
    }

    /// Waits for a log line whose message contains `text`, and returns it.
    pub async fn log_line(&mut self, text: &str) -> Value {
        let found = tokio::time::timeout(LIMIT, self.find_line(text)).await;
        let found = found.unwrap_or_else(|_| panic!("no log line with {text:?} in {LIMIT:?}"));
        found.unwrap_or_else(|| panic!("the log ended without {text:?}"))
    }

    async fn find_line(&mut self, text: &str) -> Option<Value> {
        while let Some(line) = self.next_line().await {
            let message = line.get("msg").unwrap_or(&line).as_str().unwrap_or_default();
            if message.contains(text) {
                return Some(line);
            }
        }
        None
    }

    /// `None` at the end of the log.
    async fn next_line(&mut self) -> Option<Value> {
        let line = self.log.as_mut()?.next_line().await.unwrap()?;
        // What clap rejects, and a log of text, is not JSON.
        let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
        self.lines.push(line.clone());
        Some(line)
    }

    /// Reads the log to its end, without keeping it.
    pub async fn drain_log(&mut self) {
        let mut log = self.log.take().unwrap();
        while log.next_line().await.unwrap().is_some() {}
    }

    /// Reads the log to its end, and waits for the exit.
    pub async fn exited(&mut self) -> ExitStatus {
        tokio::time::timeout(LIMIT, async {
            while self.next_line().await.is_some() {}
            self.child.wait().await.unwrap()
        })
        .await
        .unwrap_or_else(|_| panic!("the shim has not exited in {LIMIT:?}"))
    }

    /// Everything that was logged, as one text.
    pub fn log_text(&self) -> String {
        self.lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
    }

    /// The number of log lines so far whose message contains `text`.
    pub fn count(&self, text: &str) -> usize {
        let is = |line: &&Value| line["msg"].as_str().is_some_and(|message| message.contains(text));
        self.lines.iter().filter(is).count()
    }

    /// Asserts that the log says something.
    #[track_caller]
    pub fn assert_logged(&self, text: &str) {
        let quoted = text.replace('"', "\\\"");
        assert!(self.log_text().contains(&quoted), "the log does not say {text:?}");
    }

    /// Asserts that the log does not say something.
    #[track_caller]
    pub fn assert_not_logged(&self, text: &str) {
        assert!(!self.log_text().contains(text), "the log says {text:?}");
    }

    /// The names in the socket directory.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join("hooks")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The one socket of hook sidecars.
    pub fn socket(&self) -> PathBuf {
        let sockets = self.sockets();
        assert_eq!(sockets.len(), 1, "{sockets:?}");
        sockets[0].clone()
    }

    /// The socket of the plugin.
    pub fn plugin_socket(&self) -> PathBuf {
        self.dir.path().join(PLUGIN_SOCKET)
    }

    /// Sends a signal to the shim alone.
    pub fn signal(&self, signal: Signal) {
        #[expect(clippy::disallowed_methods, reason = "tests signal the shim")]
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap())
    }

    /// A new connection, as virt-launcher makes one for every call.
    pub async fn dial(&self) -> Client {
        Client::dial(&self.socket()).await
    }

    /// A new connection to the plugin's socket.
    pub async fn dial_plugin(&self) -> Client {
        Client::dial(&self.plugin_socket()).await
    }

    /// Calls `OnDefineDomain` of v1alpha3.
    pub async fn define(&self, vmi: &Value, domain: &str) -> Result<String, Status> {
        let client = self.dial().await;
        client.define("v1alpha3", vmi.to_string(), domain.to_owned()).await
    }

    /// Makes the fixture worker do something, with a call that must fail.
    pub async fn fails(&self, vmi: &Value) -> Status {
        self.define(vmi, DOMAIN).await.expect_err("the call has succeeded")
    }

    /// Makes a call that hangs, with a deadline of one second.
    pub async fn hangs(&self) -> Status {
        let call = self.send_within(&json!({"do": "hang"}), Duration::from_secs(1)).await;
        call.await.unwrap().expect_err("the call has succeeded")
    }

    /// Asserts that the shim still works.
    pub async fn still_works(&self) {
        assert_eq!(self.define(&json!({}), DOMAIN).await.unwrap(), DOMAIN);
    }

    /// The log after what was read so far, up to the shim's end: it is killed for this.
    fn rest_of_log(&mut self) -> Option<String> {
        let stderr = self.log.take()?.into_inner();
        let mut rest = stderr.buffer().to_vec();
        self.child.start_kill().ok()?;
        let mut pipe = std::fs::File::from(stderr.into_inner().into_owned_fd().ok()?);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = pipe.read_to_end(&mut rest);
            sender.send(rest)
        });
        let rest = receiver.recv_timeout(LAST_LOG_LIMIT).ok()?;
        Some(String::from_utf8_lossy(&rest).into_owned())
    }
}

impl Drop for Shim {
    #[expect(clippy::print_stderr, reason = "a failed test shows what the shim logged")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let rest = self.rest_of_log().unwrap_or_default();
            eprintln!(
                "~~~~ the shim's log ~~~~\n{}\n~~~~ not read by the test ~~~~\n{rest}~~~~",
                self.log_text()
            );
        }
    }
}
