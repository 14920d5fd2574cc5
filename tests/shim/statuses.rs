//! Every status that a caller gets for its request alone, before a hook is involved: the code, the
//! text, and one line in the log.

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::raw::{ON_DEFINE_DOMAIN, RawClient, define_message, prefix, status};
use crate::support::{DOMAIN, ECHO, LIMIT, Shim, eventually};

/// A path, headers, a body, and the status with a part of its text.
type Case =
    (&'static str, &'static [(&'static str, &'static str)], Bytes, (&'static str, &'static str));

const HEALTH: &str = "/grpc.health.v1.Health/Check";

#[tokio::test]
async fn a_request_that_is_no_call_gets_a_status_that_says_why() {
    let mut shim = Shim::persistent("").both_apis().start().await;
    let whole = define_message("{}", DOMAIN);
    let twice = Bytes::from([&whole[..], &whole].concat());
    let torn = whole.slice(..whole.len() - 1);
    let no_protobuf = Bytes::from_static(b"\0\0\0\0\x03\xff\xff\xff");
    let unknown = Bytes::from_static(b"\0\0\0\0\x05\x0a\x03xyz");
    let gzip = Bytes::from_static(b"\x01\0\0\0\0");
    let text = Bytes::from_static(b"hello world");
    let huge = prefix(40_000_000);
    let plugins = "/kubevirt.hooks.plugins.v1alpha1.LauncherHookService/PreBoot";
    let later = concat!(
        "this sidecar-shim ",
        env!("CARGO_PKG_VERSION"),
        " does not know LauncherHookService/PreBoot; it serves DomainHookService/MutateDomain, \
         LauncherHookService/GuestDefinition, NodeHookService/ExecuteNodeHook: take this hook \
         point out of the Plugin, or use a later version"
    );
    let cases: [Case; 14] = [
        (ON_DEFINE_DOMAIN, &[], Bytes::new(), ("3", "the request has no message")),
        (
            ON_DEFINE_DOMAIN,
            &[],
            Bytes::from_static(b"\0\0"),
            ("3", "the request ended after 2 of 5"),
        ),
        (ON_DEFINE_DOMAIN, &[], torn, ("3", "the request ended after ")),
        (ON_DEFINE_DOMAIN, &[], twice, ("3", "the request has more than one message")),
        (ON_DEFINE_DOMAIN, &[], text, ("3", "not a gRPC message: it begins with the byte 104")),
        (ON_DEFINE_DOMAIN, &[], no_protobuf, ("3", "the request cannot be decoded: ")),
        (ON_DEFINE_DOMAIN, &[], gzip, ("12", "the request is compressed: configure")),
        (ON_DEFINE_DOMAIN, &[], huge, ("8", "the request is 40000000 bytes long; this method")),
        (ON_DEFINE_DOMAIN, &[("content-type", "text/html")], whole, ("3", "is not gRPC")),
        ("/kubevirt.hooks.info.Info/Nope", &[], prefix(0), ("12", "Info/Nope is not served here")),
        (plugins, &[], prefix(0), ("12", later)),
        ("/kubevirt.hooks.plugins.v1alpha1x/Y", &[], prefix(0), ("12", "x/Y is not served here")),
        ("/kubevirt.hooks.info.Info/Info", &[], prefix(5000), ("8", "accepts at most 4096 bytes")),
        (HEALTH, &[], unknown, ("5", "the service \"xyz\" is not served here")),
    ];
    for (path, headers, body, expected) in cases {
        let (code, text) = expected;
        let socket =
            if [HEALTH, plugins].contains(&path) { shim.plugin_socket() } else { shim.socket() };
        let answer = RawClient::dial(&socket).await.call(path, headers, body).await;
        assert_eq!(answer.code, code, "{text}: {answer:?}");
        assert!(answer.message.replace("%22", "\"").contains(text), "{text}: {answer:?}");
        assert_eq!(answer.http, if text == "is not gRPC" { 415 } else { 200 });
        let line = shim.log_line(text).await;
        assert_eq!(line["level"], "error", "{line}");
    }
    shim.still_works().await;
}

#[tokio::test]
async fn in_exec_mode_a_request_that_no_argument_holds_is_refused_as_it_is_announced() {
    let mut shim = Shim::builder().program("onDefineDomain", ECHO).start().await;
    let answer =
        RawClient::dial(&shim.socket()).await.call(ON_DEFINE_DOMAIN, &[], prefix(264_000)).await;
    assert_eq!(answer.code, "8", "{answer:?}");
    assert!(answer.message.contains("--mode persistent has no such limit"), "{answer:?}");
    shim.log_line("--mode exec passes its documents as arguments").await;
    shim.still_works().await;
}

#[tokio::test]
async fn the_memory_budget_is_named_by_what_does_not_fit_into_it() {
    let builder = Shim::persistent("").args(["--memory-budget", "4MiB"]);
    let mut shim = builder.start().await;
    // Twice its length and 1 MiB.
    let fits = (4 << 20) / 2 - (1 << 19);
    let mut client = RawClient::dial(&shim.socket()).await;
    let answer = client.call(ON_DEFINE_DOMAIN, &[], prefix(fits + 1)).await;
    assert_eq!(answer.code, "8", "{answer:?}");
    assert!(answer.message.contains("raise --memory-budget"), "{answer:?}");
    shim.log_line("does not fit into the memory budget of 4194304 bytes").await;
    // One that fits is received.
    let domain = format!("<domain>{}</domain>", "x".repeat(fits - 100));
    let vmi = serde_json::json!({});
    let answer = shim.define(&vmi, &domain).await;
    assert!(answer.unwrap().len() > fits - 100);
}

#[tokio::test]
async fn a_request_that_does_not_arrive_is_answered_by_its_deadline() {
    let mut shim = Shim::persistent("").start().await;
    for body in [Bytes::new(), Bytes::from_static(b"\0\0"), prefix(100_000)] {
        let mut client = RawClient::dial(&shim.socket()).await;
        let (response, mut stream) =
            client.begin(ON_DEFINE_DOMAIN, &[("grpc-timeout", "100m")]).await;
        stream.send_data(body, false).unwrap();
        let answer = timeout(LIMIT, status(response)).await.unwrap().unwrap();
        assert_eq!(answer.code, "4", "{answer:?}");
        assert!(answer.message.contains("the request did not arrive within 0.080 s"), "{answer:?}");
        shim.log_line("the request did not arrive within").await;
    }
    shim.still_works().await;
}

#[tokio::test]
async fn a_call_without_time_runs_no_hook_and_says_so() {
    let exec = Shim::builder().program("onDefineDomain", ECHO);
    for builder in [Shim::persistent(""), exec] {
        let mut shim = builder.start().await;
        // The shim replies at least 20 ms before the deadline.
        for deadline in ["0n", "15m"] {
            let mut client = RawClient::dial(&shim.socket()).await;
            let body = define_message("{}", DOMAIN);
            let answer = client.call(ON_DEFINE_DOMAIN, &[("grpc-timeout", deadline)], body).await;
            assert_eq!(answer.code, "4", "{answer:?}");
            assert!(answer.message.contains("was not called: no time was left"), "{answer:?}");
            let line = shim.log_line("call failed: hook onDefineDomain was not called").await;
            assert_eq!(line.get("attempt"), None, "{line}");
        }
        shim.still_works().await;
    }
}

/// Sends a request whose authority is a socket's path, as many clients make it, and waits for its
/// end.
async fn send_bad_authority(shim: &Shim) {
    let mut stream = UnixStream::connect(shim.socket()).await.unwrap();
    let authority = b"/run/x.sock";
    // HEADERS with `:method POST`, `:scheme http` and `:path /`.
    let mut block = vec![0x83, 0x86, 0x84, 0x01, u8::try_from(authority.len()).unwrap()];
    block.extend_from_slice(authority);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    stream.write_all(&bytes).await.unwrap();
    // RST_STREAM of stream 1 with PROTOCOL_ERROR.
    let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let mut seen = Vec::new();
    while !seen.windows(reset.len()).any(|window| window == reset) {
        let read = timeout(LIMIT, stream.read_buf(&mut seen)).await.unwrap().unwrap();
        assert!(read > 0, "closed without a reset: {seen:?}");
    }
}

#[tokio::test]
async fn a_bad_authority_is_logged_with_what_the_client_has_to_set() {
    let mut shim = Shim::persistent("").start().await;
    send_bad_authority(&shim).await;
    let line = shim.log_line("grpc.default_authority").await;
    assert_eq!(line["level"], "warning", "{line}");
    assert!(line["msg"].as_str().unwrap().contains("/run/x.sock"), "{line}");
}

#[tokio::test]
async fn a_log_of_errors_has_no_warning_about_an_authority() {
    let mut shim = Shim::persistent("").args(["--log-level", "error"]).spawn();
    eventually("it serves", || !shim.sockets().is_empty()).await;
    send_bad_authority(&shim).await;
    shim.signal(Signal::SIGTERM);
    shim.exited().await;
    assert_eq!(shim.log_text(), "");
}

#[tokio::test]
async fn a_request_that_finds_no_memory_by_its_deadline_says_what_to_raise() {
    let builder = Shim::persistent("").args(["--memory-budget", "4MiB"]);
    let mut shim = builder.start().await;
    let gate = shim.gate();
    let vmi = serde_json::json!({"do": "wait", "path": gate.0}).to_string();
    let domain = format!("<domain>{}</domain>", "x".repeat(1_400_000));
    let socket = shim.socket();
    let message = define_message(&vmi, &domain);
    let holding = tokio::spawn(async move {
        RawClient::dial(&socket).await.call(ON_DEFINE_DOMAIN, &[], message).await.code
    });
    let waiting = gate.reached().await;
    let mut client = RawClient::dial(&shim.socket()).await;
    let message = define_message("{}", &domain);
    let answer = client.call(ON_DEFINE_DOMAIN, &[("grpc-timeout", "300m")], message).await;
    assert_eq!(answer.code, "8", "{answer:?}");
    assert!(answer.message.contains("other calls held the memory budget"), "{answer:?}");
    shim.log_line("until its deadline: raise --memory-budget").await;
    drop(waiting);
    assert_eq!(timeout(LIMIT, holding).await.unwrap().unwrap(), "0");
}

#[tokio::test]
async fn a_request_that_has_not_arrived_when_the_shim_is_forced_to_stop_is_answered() {
    let mut shim = Shim::persistent("").start().await;
    let mut client = RawClient::dial(&shim.socket()).await;
    let (response, mut stream) = client.begin(ON_DEFINE_DOMAIN, &[]).await;
    stream.send_data(prefix(100), false).unwrap();
    // Its headers have arrived when a later call is answered.
    client.call("/kubevirt.hooks.info.Info/Info", &[], prefix(0)).await;
    for _ in 0..2 {
        shim.signal(Signal::SIGTERM);
        shim.log_line("sidecar-shim received signal: terminated").await;
    }
    let answer = timeout(LIMIT, status(response)).await.unwrap().unwrap();
    assert_eq!(answer.code, "14", "{answer:?}");
    assert!(answer.message.contains("the request did not arrive in time"), "{answer:?}");
}

#[tokio::test]
async fn headers_that_are_too_long_are_refused_by_http2() {
    let shim = Shim::persistent("").start().await;
    let mut client = RawClient::dial(&shim.socket()).await;
    let long = "x".repeat(9000);
    let (response, _stream) = client.begin(ON_DEFINE_DOMAIN, &[("x-long", &long)]).await;
    assert_eq!(timeout(LIMIT, response).await.unwrap().unwrap().status().as_u16(), 431);
    shim.still_works().await;
}
