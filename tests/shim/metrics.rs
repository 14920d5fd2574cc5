//! Metrics of a node's shim, as Prometheus and a kubelet's probes ask for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::json;
use std::io::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Gate, LIMIT, Shim, ShimBuilder, read, skipped};

/// What Prometheus sends.
const ACCEPT: &str = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.1\r\n";

/// A shim with metrics, and their address.
pub struct Metrics {
    pub shim: Shim,
    address: String,
}

/// An HTTP response.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Metrics {
    pub async fn start(builder: ShimBuilder) -> Self {
        Self::of(builder.args(["--metrics-listen", "127.0.0.1:0"]).plugin().spawn()).await
    }

    async fn of(mut shim: Shim) -> Self {
        let line = shim.log_line("serving metrics").await;
        let address = line["address"].as_str().unwrap().to_owned();
        shim.serving().await;
        Self { shim, address }
    }

    async fn send(&self, request: &str) -> Answer {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        timeout(LIMIT, converse(stream, request)).await.expect("no answer")
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: shim\r\n\r\n")).await
    }

    /// The metrics in the format without extras.
    pub async fn scrape(&self) -> String {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("\r\ncontent-type: text/plain; version=0.0.4;"));
        answer.body
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    // The shim may have answered, and closed its end, before all of it is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// The value of each sample, by its name with labels.
fn samples(page: &str) -> BTreeMap<&str, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn calls_are_counted_by_hook_and_status() {
    let metrics = Metrics::start(Shim::persistent("--hooks preVMStart,postVMStop")).await;
    let client = metrics.shim.dial_plugin().await;
    for does in ["echo", "echo", "nothing that it knows"] {
        let _ = client.node_hook("PreVMStart", &json!({"do": does})).await;
    }
    client.node_hook("PreVMStart", &json!({"do": "retryable at first"})).await.unwrap();
    let exit = json!({"do": "exit", "status": 3});
    client.node_hook("PreVMStart", &exit).await.unwrap_err();
    client.node_hook("Unknown", &json!({})).await.unwrap_err();
    let page = metrics.scrape().await;
    let samples = samples(&page);
    for (name, expected) in [
        ("sidecar_shim_calls_total{hook=\"preVMStart\",code=\"OK\"}", 3.0),
        ("sidecar_shim_calls_total{hook=\"preVMStart\",code=\"INVALID_ARGUMENT\"}", 1.0),
        ("sidecar_shim_calls_total{hook=\"postVMStop\",code=\"OK\"}", 0.0),
        ("sidecar_shim_calls_total{hook=\"_other\",code=\"UNIMPLEMENTED\"}", 1.0),
        ("sidecar_shim_call_duration_seconds_count{hook=\"preVMStart\"}", 5.0),
        ("sidecar_shim_call_duration_seconds_bucket{hook=\"preVMStart\",le=\"+Inf\"}", 5.0),
        ("sidecar_shim_queue_seconds_count{hook=\"preVMStart\"}", 5.0),
        ("sidecar_shim_retries_total{hook=\"preVMStart\"}", 1.0),
        ("sidecar_shim_refusals_total{why=\"not_served\"}", 1.0),
        ("sidecar_shim_refusals_total{why=\"queue\"}", 0.0),
        ("sidecar_shim_calls_total{hook=\"preVMStart\",code=\"INTERNAL\"}", 1.0),
        ("sidecar_shim_worker_exits_total{reason=\"call\"}", 1.0),
        ("sidecar_shim_calls_running", 0.0),
        ("sidecar_shim_max_workers", 4.0),
    ] {
        assert_eq!(samples.get(name), Some(&expected), "{name}");
    }
    assert!(samples["sidecar_shim_worker_starts_total"] >= 2.0);
    let buckets = samples.iter().filter(|(name, _)| name.contains("bucket{hook=\"preVMStart\""));
    assert_eq!(buckets.count(), 2 * 17);
    let took = samples["sidecar_shim_call_duration_seconds_sum{hook=\"preVMStart\"}"];
    let queued = samples["sidecar_shim_queue_seconds_sum{hook=\"preVMStart\"}"];
    assert!(0.0 < queued && queued < took, "{queued} of {took}");
    assert!(samples["sidecar_shim_memory_used_bytes"] > 0.0);
    assert!(samples["process_resident_memory_bytes"] > f64::from(1 << 20));
}

#[tokio::test]
async fn workers_that_hang_start_and_fail_are_counted_as_such() {
    let builder = Shim::persistent("--hooks preVMStart --start once:mark --wait-for gate");
    let dir = builder.dir().to_owned();
    let gate = Gate::new(dir.join("gate"));
    let args = ["--metrics-listen", "127.0.0.1:0", "--max-workers", "2"];
    let shim = builder.args(args).plugin().current_dir(&dir).spawn();
    drop(gate.reached().await);
    let mut metrics = Metrics::of(shim).await;
    let shim = &metrics.shim;
    let hanging = shim.node_hook_in_flight(|at| json!({"do": "wait", "path": at.0})).await;
    let waiting = shim.send_node_hook(json!({})).await;
    let starting = gate.reached().await;
    let page = metrics.scrape().await;
    let expected = [
        ("sidecar_shim_workers{state=\"busy\"}", 1.0),
        ("sidecar_shim_workers{state=\"starting\"}", 1.0),
        ("sidecar_shim_workers{state=\"ready\"}", 0.0),
        ("sidecar_shim_calls_running", 1.0),
        ("sidecar_shim_calls_waiting", 1.0),
        ("sidecar_shim_pools{state=\"serving\"}", 1.0),
    ];
    let found = samples(&page);
    for (name, value) in expected {
        assert_eq!(found.get(name), Some(&value), "{name}");
    }
    assert!(found["sidecar_shim_waiting_bytes"] > 0.0);
    assert_eq!(metrics.get("/readyz").await.status, 200);
    // No worker starts from now on.
    std::fs::remove_file(&gate.0).unwrap();
    std::fs::write(&gate.0, "").unwrap();
    drop(starting);
    hanging.finish().await.unwrap();
    waiting.await.unwrap().unwrap();
    let client = metrics.shim.dial_plugin().await;
    client.node_hook("PreVMStart", &json!({"do": "kill"})).await.unwrap_err();
    metrics.shim.log_line("hook workers keep failing").await;
    let page = metrics.scrape().await;
    let found = samples(&page);
    assert!(found["sidecar_shim_pools{state=\"down\"}"] > 0.0);
    assert!(found["sidecar_shim_worker_exits_total{reason=\"failed_start\"}"] >= 5.0);
    let ready = metrics.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("workers keep failing"), "{}", ready.body);
    assert_eq!(metrics.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_shim_that_shuts_down_is_alive_and_not_ready() {
    let mut metrics = Metrics::start(Shim::persistent("--hooks preVMStart")).await;
    let call = metrics.shim.node_hook_in_flight(|gate| json!({"do": "wait", "path": gate.0})).await;
    metrics.shim.signal(Signal::SIGTERM);
    metrics.shim.log_line("Exiting").await;
    assert_eq!(metrics.get("/readyz").await.status, 503);
    assert_eq!(metrics.get("/healthz").await.status, 200);
    call.finish().await.unwrap();
    assert_eq!(metrics.shim.exited().await.code(), Some(0));
    assert!(TcpStream::connect(&metrics.address).await.is_err());
}

#[tokio::test]
async fn prometheus_gets_the_format_that_it_prefers() {
    let metrics = Metrics::start(Shim::persistent("")).await;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: shim\r\n{ACCEPT}\r\n");
    let open = metrics.send(&request).await;
    assert!(open.head.contains("application/openmetrics-text; version=1.0.0"), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n"));
    assert!(open.body.contains("\n# UNIT sidecar_shim_queue_seconds seconds\n"));
    assert!(!metrics.scrape().await.contains("# EOF"));
    for head in ["HEAD /metrics HTTP/1.1\r\nHost: shim\r\n\r\n", "HEAD /healthz HTTP/1.0\r\n\r\n"] {
        let answer = metrics.send(head).await;
        assert_eq!((answer.status, &*answer.body), (200, ""));
    }
}

#[tokio::test]
async fn promtool_finds_no_fault() {
    let metrics = Metrics::start(Shim::persistent("--hooks preVMStart")).await;
    metrics.shim.dial_plugin().await.node_hook("PreVMStart", &json!({})).await.unwrap();
    let page = metrics.scrape().await;
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let Ok(mut judge) = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
        return skipped("promtool's check of the metrics", "there is no promtool (prometheus)");
    };
    judge.stdin.take().unwrap().write_all(page.as_bytes()).await.unwrap();
    let verdict = judge.wait_with_output().await.unwrap();
    assert!(verdict.status.success(), "{}", String::from_utf8_lossy(&verdict.stderr));
    assert!(verdict.stderr.is_empty() && verdict.stdout.is_empty(), "{verdict:?}");
}

#[tokio::test]
async fn other_requests_get_an_http_error() {
    let metrics = Metrics::start(Shim::persistent("")).await;
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let mut many = String::from("GET /metrics HTTP/1.1\r\n");
    for number in 0..100 {
        write!(many, "X-{number}: x\r\n").unwrap();
    }
    many += "\r\n";
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: shim\r\n\r\n", 404),
        ("GET /metrics/ HTTP/1.1\r\nHost: shim\r\n\r\n", 404),
        ("POST /metrics HTTP/1.1\r\nHost: shim\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("DELETE /metrics HTTP/1.1\r\nHost: shim\r\n\r\n", 405),
        ("GET /metrics\r\n\r\n", 400),
        (&long, 431),
        (&many, 431),
    ] {
        let answer = metrics.send(request).await;
        let first = request.lines().next().unwrap();
        assert_eq!(answer.status, status, "{first}: {}", answer.head);
    }
    assert_eq!(metrics.get("/metrics?name[]=x").await.status, 200, "a query changes nothing");
}

#[tokio::test]
async fn clients_that_stall_do_not_keep_others_out() {
    let metrics = Metrics::start(Shim::persistent("")).await;
    let mut stalled = Vec::new();
    // So many that their own time limit, of eight at a time, does not help.
    for half in ["", "GET /metrics HTTP/1.1\r\nX: "].into_iter().cycle().take(128) {
        let mut stream = TcpStream::connect(&metrics.address).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    assert_eq!(metrics.get("/healthz").await.status, 200);
    let newest = stalled.last().unwrap().try_read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(newest, Err(ErrorKind::WouldBlock), "only the oldest has to go");
    metrics
        .shim
        .dial_plugin()
        .await
        .mutate("libvirt", &json!({}), "<domain/>", None)
        .await
        .unwrap();
}

#[tokio::test]
async fn metrics_are_served_on_a_unix_socket_too() {
    let builder = Shim::persistent("").plugin();
    let path = builder.dir().join("metrics/m.sock");
    let address = format!("unix:{}", path.display());
    let mut metrics = Metrics::of(builder.args(["--metrics-listen", &address]).spawn()).await;
    let stream = UnixStream::connect(&path).await.unwrap();
    let answer = converse(stream, "GET /metrics HTTP/1.1\r\nHost: shim\r\n\r\n").await;
    assert!(answer.body.contains("sidecar_shim_build_info{version="), "{}", answer.body);
    metrics.shim.signal(Signal::SIGTERM);
    metrics.shim.exited().await;
    assert!(!path.exists(), "the socket is left");
}

#[tokio::test]
async fn only_a_node_s_plugin_has_metrics() {
    let address = ["--metrics-listen", "127.0.0.1:0"];
    for builder in [Shim::persistent(""), Shim::persistent("").both_apis()] {
        let mut shim = builder.args(address).spawn();
        assert_eq!(shim.exited().await.code(), Some(1));
        shim.assert_logged("--metrics-listen serves the metrics of a node's plugin, and --version");
        shim.assert_logged("`sidecar-shim status` works for both");
    }
    let mut shim = Shim::persistent("").plugin().args(["--metrics-listen", "9105"]).spawn();
    assert_eq!(shim.exited().await.code(), Some(2));
    shim.assert_logged("write IP:PORT, such as 0.0.0.0:9105");
    let first = Metrics::start(Shim::persistent("")).await;
    let taken = ["--metrics-listen", &*first.address];
    let mut second = Shim::persistent("").plugin().args(taken).spawn();
    assert_eq!(second.exited().await.code(), Some(1));
    let text = format!("cannot listen on {}: Address already in use", first.address);
    second.assert_logged(&text);
    let builder = Shim::persistent("").plugin();
    let same = format!("unix:{}", builder.dir().join("plugin/hook.sock").display());
    let mut same = builder.args(["--metrics-listen", &same]).spawn();
    assert_eq!(same.exited().await.code(), Some(1));
    same.assert_logged("--plugin-socket and --metrics-listen name the same socket: use two");
    let mut without = Shim::persistent("").plugin().start().await;
    without.signal(Signal::SIGTERM);
    without.exited().await;
    without.assert_not_logged("metrics");
}

#[tokio::test]
async fn the_metrics_are_those_of_the_page() {
    let metrics = Metrics::start(Shim::persistent("")).await;
    let scraped = metrics.scrape().await;
    let kinds = scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let found: BTreeSet<_> = kinds.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
    let page = read("docs/observing.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Metrics\n")).unwrap();
    let mut documented = BTreeSet::new();
    for line in section.lines() {
        let mut cells = line.split(" | ");
        let Some(names) = cells.next().and_then(|cell| cell.strip_prefix("| `")) else { continue };
        let kind = cells.next().unwrap().trim();
        for name in names.trim_end_matches('`').split("`, `") {
            let name = name.split('{').next().unwrap();
            documented.insert((name.to_owned(), kind.to_owned()));
        }
    }
    assert_eq!(found, documented);
}
