//! Starts the shim as a pod would, calls it as virt-launcher does, and reads its log.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sidecar_shim::service::proto::info::{InfoParams, InfoResult};
use sidecar_shim::service::proto::plugins::{
    ExecuteNodeHookRequest, ExecuteNodeHookResponse, MutateDomainRequest, MutateDomainResponse,
    NodeContext, SidecarContext,
};
use sidecar_shim::service::proto::v1alpha3::{
    OnDefineDomainParams, OnDefineDomainResult, PreCloudInitIsoParams, PreCloudInitIsoResult,
    ShutdownParams, ShutdownResult,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Nothing here takes this long; it only keeps a test that would hang from hanging.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A small domain.
pub const DOMAIN: &str = "<domain type=\"kvm\">\n\t<name>vm</name>\n</domain>\n";

/// Where a plugin's socket is made, in the directory of the test. Its own directory is missing.
const PLUGIN_SOCKET: &str = "plugin/hook.sock";

/// Takes back the version that tests have otherwise.
const NO_VERSION: [&str; 2] = ["--version", ""];

/// The program under test.
pub fn binary() -> PathBuf {
    program("sidecar-shim")
}

/// The tool for authors of hooks.
pub fn hookctl() -> PathBuf {
    program("hookctl")
}

/// A program of this workspace, which `cargo test` builds beside the tests.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join(name);
    assert!(program.exists(), "{} is not built: run `cargo build` first", program.display());
    program
}

/// One of `examples/rust`, which `cargo test` builds.
pub fn example(name: &str) -> String {
    program(&format!("examples/{name}")).display().to_string()
}

/// A file of this repository.
pub fn file(path: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().find(|directory| directory.join("protocol.md").exists());
    root.unwrap().join(path)
}

/// The fixture worker's command, with arguments.
pub fn worker(args: &str) -> String {
    format!("{} '{}' {args}", *PYTHON, file("tests/fixtures/worker.py").display())
}

/// The interpreter itself: what is in `$PATH` may be a slow wrapper.
pub static PYTHON: LazyLock<String> = LazyLock::new(|| {
    let mut command = std::process::Command::new("python3");
    let found = command.args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    assert!(found.status.success(), "the tests need python3");
    String::from_utf8(found.stdout).unwrap().trim().to_owned()
});

/// A VMI that tells the fixture worker what to do.
pub fn vmi(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// A running shim. Killed when dropped.
pub struct Shim {
    pub child: Child,
    pub dir: TempDir,
    log: Lines<BufReader<ChildStderr>>,
    /// Every log line so far.
    pub lines: Vec<Value>,
}

impl Shim {
    /// Starts the fixture worker in persistent mode.
    pub async fn persistent(worker_args: &str, args: &[&str]) -> Self {
        let worker = worker(worker_args);
        let mut all = vec!["--mode", "persistent", "--worker", &worker];
        all.extend(args);
        Self::start(&all, |_| {}).await
    }

    /// The same with a log that says too little to tell when it serves.
    pub async fn persistent_quietly(worker_args: &str, args: &[&str]) -> Self {
        let worker = worker(worker_args);
        let mut all = vec!["--mode", "persistent", "--worker", &worker];
        all.extend(args);
        let shim = Self::spawn(&all, |_, _| {});
        shim.has_socket().await;
        shim
    }

    /// Waits until it serves, without reading its log.
    pub async fn has_socket(&self) {
        let serving = async {
            while self.sockets().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LIMIT, serving).await.expect("it does not serve");
    }

    /// Reads the log to its end, and forgets it.
    pub async fn drain_log(&mut self) {
        while self.log.next_line().await.unwrap().is_some() {}
    }

    /// Starts exec mode with scripts as hook programs, and waits until it serves.
    pub async fn exec(scripts: &[(&str, &str)], args: &[&str]) -> Self {
        let mut shim = Self::spawn(args, |command, dir| {
            for (name, text) in scripts {
                script(&dir.join("bin"), name, text);
            }
            command.env("PATH", path_with(&dir.join("bin")));
        });
        shim.serving().await;
        shim
    }

    /// Starts the shim with a plugin's socket, and the API of hook sidecars only if `args` have a
    /// `--version`.
    pub async fn plugin(args: &[&str], with: impl FnOnce(&mut Command, &Path)) -> Self {
        let args = if args.contains(&"--version") { args } else { &[args, &NO_VERSION].concat() };
        let mut shim = Self::spawn(args, |command, dir| {
            command.arg("--plugin-socket").arg(dir.join(PLUGIN_SOCKET));
            with(command, dir);
        });
        shim.serving().await;
        shim
    }

    /// The same with the fixture worker.
    pub async fn plugin_worker(worker_args: &str, args: &[&str]) -> Self {
        let worker = worker(worker_args);
        let words = ["--mode", "persistent", "--worker", &worker];
        Self::plugin(&[&words, args].concat(), |_, _| {}).await
    }

    /// Where the plugin's socket is.
    pub fn plugin_socket(&self) -> PathBuf {
        self.dir.path().join(PLUGIN_SOCKET)
    }

    /// A new connection to the plugin's socket.
    pub async fn dial_plugin(&self) -> Client {
        Client::dial(&self.plugin_socket()).await
    }

    /// Starts the shim, and waits until it serves.
    pub async fn start(args: &[&str], with: impl FnOnce(&mut Command)) -> Self {
        let mut shim = Self::spawn(args, |command, _| with(command));
        shim.serving().await;
        shim
    }

    /// Starts the shim.
    pub fn spawn(args: &[&str], with: impl FnOnce(&mut Command, &Path)) -> Self {
        Self::spawn_under(&[], args, with)
    }

    /// Starts the shim with the help of another program.
    pub fn spawn_under(
        words: &[&str],
        args: &[&str],
        with: impl FnOnce(&mut Command, &Path),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("hooks")).unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        let binary = binary();
        let mut words = words.iter().map(OsStr::new).chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        // A pod gives its arguments after those of the image.
        command.arg("--socket-dir").arg(dir.path().join("hooks")).args(args);
        if !args.contains(&"--version") {
            command.args(["--version", "v1alpha3"]);
        }
        command.env_remove("CONTAINER_NAME");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        with(&mut command, dir.path());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, dir, log, lines: Vec::new() }
    }

    /// Waits for the log line that says it serves.
    pub async fn serving(&mut self) {
        self.log_line("serving").await;
    }

    /// Waits for a log line whose message contains `text`, and returns it.
    pub async fn log_line(&mut self, text: &str) -> Value {
        tokio::time::timeout(LIMIT, self.find_line(text)).await.unwrap_or_else(|_| {
            panic!("no line with {text:?} in time; there were {:#?}", self.lines)
        })
    }

    async fn find_line(&mut self, text: &str) -> Value {
        while let Some(line) = self.log.next_line().await.unwrap() {
            // Not JSON is what goes to the user's eyes when a start fails.
            let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
            self.lines.push(line.clone());
            let message = line.get("msg").unwrap_or(&line).as_str().unwrap_or_default();
            if message.contains(text) {
                return line;
            }
        }
        panic!("the log ended without {text:?}; it was {:#?}", self.lines)
    }

    /// Reads the log to its end, and waits for the exit.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(LIMIT, async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                self.lines.push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
            self.child.wait().await.unwrap()
        })
        .await
        .unwrap_or_else(|_| panic!("the shim did not end; its log was {:#?}", self.lines))
    }

    /// Everything that was logged, as one text.
    pub fn log_text(&self) -> String {
        self.lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
    }

    /// The names in the socket directory.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join("hooks")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The one socket.
    pub fn socket(&self) -> PathBuf {
        let sockets = self.sockets();
        assert_eq!(sockets.len(), 1, "{sockets:?}");
        sockets[0].clone()
    }

    /// A signal to the shim alone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        #[expect(clippy::disallowed_methods, reason = "tests signal the shim")]
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap())
    }

    /// A new connection, as virt-launcher makes one for every call.
    pub async fn dial(&self) -> Client {
        Client::dial(&self.socket()).await
    }

    /// Calls `OnDefineDomain` of v1alpha3.
    pub async fn define(&self, vmi: &Value, domain: &str) -> Result<String, Status> {
        let client = self.dial().await;
        client.define("v1alpha3", vmi.to_string(), domain.to_owned()).await
    }

    /// Calls `OnDefineDomain` with what the fixture worker shall do, which must fail.
    pub async fn fails(&self, vmi: &Value) -> Status {
        self.define(vmi, DOMAIN).await.expect_err("the call should have failed")
    }

    /// Lets a call hang for a second, which is its deadline.
    pub async fn hangs(&self) -> Status {
        let vmi = serde_json::json!({"do": "hang"}).to_string();
        let second = Duration::from_secs(1);
        let client = self.dial().await;
        client.define_within("v1alpha3", vmi, DOMAIN, second).await.expect_err("it hangs")
    }

    /// Asserts that the shim still works.
    pub async fn still_works(&self) {
        assert_eq!(self.define(&serde_json::json!({}), DOMAIN).await.unwrap(), DOMAIN);
    }
}

/// One connection to a shim.
#[derive(Clone)]
pub struct Client(Channel);

impl Client {
    pub async fn dial(socket: &Path) -> Self {
        let channel = Endpoint::from_shared(format!("unix:{}", socket.display()))
            .unwrap()
            .origin(Uri::from_static("http://localhost"))
            .connect()
            .await
            .unwrap();
        Self(channel)
    }

    pub async fn unary<P, R>(&self, path: &str, params: P, timeout: Duration) -> Result<R, Status>
    where
        P: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.unwrap();
        let mut request = Request::new(params);
        request.set_timeout(timeout);
        let codec = tonic_prost::ProstCodec::default();
        let path = PathAndQuery::try_from(path).unwrap();
        Ok(grpc.unary(request, path, codec).await?.into_inner())
    }

    pub async fn info(&self) -> InfoResult {
        let second = Duration::from_secs(1);
        self.unary("/kubevirt.hooks.info.Info/Info", InfoParams {}, second).await.unwrap()
    }

    pub async fn define(
        &self,
        version: &str,
        vmi: impl Into<Bytes>,
        domain: impl Into<Bytes>,
    ) -> Result<String, Status> {
        self.define_within(version, vmi, domain, LIMIT).await
    }

    pub async fn define_within(
        &self,
        version: &str,
        vmi: impl Into<Bytes>,
        domain: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<String, Status> {
        let params = OnDefineDomainParams { domain_xml: domain.into(), vmi: vmi.into() };
        let path = format!("/kubevirt.hooks.{version}.Callbacks/OnDefineDomain");
        let result: OnDefineDomainResult = self.unary(&path, params, timeout).await?;
        Ok(String::from_utf8(result.domain_xml.to_vec()).unwrap())
    }

    pub async fn cloud_init(
        &self,
        version: &str,
        vmi: &Value,
        data: &str,
        source: &str,
    ) -> Result<[String; 2], Status> {
        let params = PreCloudInitIsoParams {
            cloud_init_no_cloud_source: source.to_owned().into(),
            vmi: vmi.to_string().into(),
            cloud_init_data: data.to_owned().into(),
        };
        let path = format!("/kubevirt.hooks.{version}.Callbacks/PreCloudInitIso");
        let result: PreCloudInitIsoResult = self.unary(&path, params, LIMIT).await?;
        Ok([result.cloud_init_data, result.cloud_init_no_cloud_source]
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()))
    }

    /// Calls `MutateDomain` of the Plugins API.
    pub async fn mutate(
        &self,
        domain_type: &str,
        vmi: &Value,
        domain: &str,
        context: Option<&str>,
    ) -> Result<String, Status> {
        let request = MutateDomainRequest {
            domain_type: domain_type.to_owned(),
            domain: domain.to_owned().into(),
            vmi: vmi.to_string().into(),
            sidecar_context: context
                .map(|context| SidecarContext { invocation_context: context.to_owned() }),
        };
        let path = "/kubevirt.hooks.plugins.v1alpha1.DomainHookService/MutateDomain";
        let response: MutateDomainResponse = self.unary(path, request, LIMIT).await?;
        Ok(String::from_utf8(response.domain.to_vec()).unwrap())
    }

    /// Asks to be told the health of the whole server for as long as it lasts.
    pub async fn watch_health(&self) -> Streaming<HealthCheckResponse> {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::default();
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Watch");
        let request = Request::new(HealthCheckRequest::default());
        grpc.server_streaming(request, path, codec).await.unwrap().into_inner()
    }

    /// Calls `ExecuteNodeHook` of the Plugins API.
    pub async fn node_hook(&self, hook_point: &str, vmi: &Value) -> Result<(), Status> {
        let request = ExecuteNodeHookRequest {
            hook_point: hook_point.to_owned(),
            vmi: vmi.to_string().into(),
            node_context: Some(NodeContext { node_name: "node01".to_owned() }),
        };
        let path = "/kubevirt.hooks.plugins.v1alpha1.NodeHookService/ExecuteNodeHook";
        let ExecuteNodeHookResponse {} = self.unary(path, request, LIMIT).await?;
        Ok(())
    }

    pub async fn shutdown(&self) -> Result<(), Status> {
        let path = "/kubevirt.hooks.v1alpha3.Callbacks/Shutdown";
        let _: ShutdownResult = self.unary(path, ShutdownParams {}, LIMIT).await?;
        Ok(())
    }
}

/// A FIFO at which a test meets a process: whoever reads it waits until the test lets go.
pub struct Meeting(pub PathBuf);

impl Meeting {
    pub fn new(path: PathBuf) -> Self {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Self(path)
    }

    /// Waits until the other side is there. It goes on when what is returned is dropped.
    pub async fn joined(&self) -> tokio::net::unix::pipe::Sender {
        let joining = async {
            loop {
                // There is no event for this: opening fails until a reader is there.
                match tokio::net::unix::pipe::OpenOptions::new().open_sender(&self.0) {
                    Ok(sender) => return sender,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, joining).await.expect("nobody came to the meeting")
    }
}

/// Makes an executable file.
pub fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// `$PATH` with a directory before everything else.
pub fn path_with(dir: &Path) -> String {
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap())
}

/// A domain of exactly this many bytes.
pub fn domain_of(bytes: usize) -> String {
    let (head, tail) = ("<domain><description>", "</description></domain>");
    let filler = "line of text\n".repeat(bytes / 13 + 1);
    let domain = format!("{head}{}{tail}", &filler[..bytes - head.len() - tail.len()]);
    assert_eq!(domain.len(), bytes);
    domain
}

/// The JSON that the fixture worker puts into a comment.
pub fn comment(domain: &str) -> Value {
    let start = domain.find("<!-- ").unwrap() + 5;
    let end = domain.rfind(" -->").unwrap();
    serde_json::from_str(&domain[start..end]).unwrap()
}

/// Whether a process is there (a zombie counts).
pub fn exists(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The children of a process.
pub fn children(parent: u64) -> Vec<u64> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let numbers = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// A process's state and its parent, if it is there.
pub fn stat(pid: u64) -> Option<(char, u64)> {
    let fields = stat_fields(pid)?;
    Some((fields.first()?.chars().next()?, fields.get(1)?.parse().ok()?))
}

/// What the kernel counts of a process, if it is there: the fields of `/proc/PID/stat` behind the name,
/// of which the first is field 3 of `proc(5)`.
pub fn stat_fields(pid: u64) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u64) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
