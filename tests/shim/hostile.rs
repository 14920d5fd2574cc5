//! Clients that take what they can: while they do, and afterwards, the shim holds no more than its
//! budget and answers an ordinary call within a second.

#![cfg(all(target_env = "gnu", target_pointer_width = "64"))]

use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, ResponseFuture};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::raw::{ON_DEFINE_DOMAIN, RawClient, define_message, prefix, status};
use crate::support::{DOMAIN, LIMIT, Shim, eventually, exists};

/// The budget of these shims.
const BUDGET: usize = 16 << 20;

/// What a shim may hold beside its budget: connections that are idle, and its own code and data.
const BESIDE: usize = 24 << 20;

/// A field of the shim's status in bytes.
fn memory(shim: &Shim, field: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", shim.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let kilobytes = line.trim_matches([':', ' ', '\t']).strip_suffix(" kB").unwrap();
    kilobytes.parse::<usize>().unwrap() * 1024
}

/// Connections whose clients send without pause.
const FLOODING: usize = 16;

async fn start() -> Shim {
    let budget = BUDGET.to_string();
    Shim::persistent("--attachments").args(["--memory-budget", &budget]).start().await
}

/// Makes an ordinary call with a deadline of one second.
async fn ordinary_call(shim: &Shim) {
    let client = shim.dial().await;
    let answer = client.define_within("v1alpha3", "{}", DOMAIN, Duration::from_secs(1)).await;
    assert_eq!(answer.unwrap(), DOMAIN);
}

/// Checks that ordinary calls are answered and the peak of the memory is within the budget.
async fn holds(shim: &Shim) {
    for _ in 0..5 {
        ordinary_call(shim).await;
    }
    let peak = memory(shim, "VmHWM");
    assert!(peak <= BUDGET + BESIDE, "{peak} bytes");
}

type Call = (ResponseFuture, SendStream<Bytes>);

/// As many calls as one connection may have, of which only `body` is sent.
async fn half_sent(shim: &Shim, body: &Bytes, calls: usize) -> Vec<Call> {
    let mut client = RawClient::dial(&shim.socket()).await;
    let mut open = Vec::new();
    for _ in 0..calls {
        let (response, mut stream) = client.begin(ON_DEFINE_DOMAIN, &[]).await;
        stream.send_data(body.clone(), false).unwrap();
        open.push((response, stream));
    }
    open
}

#[tokio::test]
async fn announced_requests_that_never_come_take_nothing() {
    let shim = start().await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(half_sent(&shim, &prefix(7_000_000), 16).await);
        holds(&shim).await;
    }
    assert_eq!(open.iter().map(Vec::len).sum::<usize>(), 256);
}

#[tokio::test]
async fn half_sent_requests_are_dropped_when_others_need_their_memory() {
    let mut shim = start().await;
    // All but the last byte of a request that takes most of the budget.
    let body = Bytes::from([&prefix(7_000_000)[..], &vec![b'x'; 6_999_999]].concat());
    let mut open = Vec::new();
    for _ in 0..8 {
        open.extend(half_sent(&shim, &body, 1).await);
        holds(&shim).await;
    }
    // Of the second one something has come after the first lost its memory, at the latest.
    shim.log_line("the request did not arrive in time for other calls that needed its memory")
        .await;
    drop(open);
    holds(&shim).await;
}

#[tokio::test]
async fn responses_that_are_not_read_are_cut_when_others_need_their_memory() {
    let mut shim = start().await;
    let mut reluctant = Builder::new();
    reluctant.initial_window_size(0);
    let domain = format!("<domain>{}</domain>", "x".repeat(3_500_000));
    let body = define_message("{}", &domain);
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut client = RawClient::with(&reluctant, &shim.socket()).await;
        for _ in 0..2 {
            let (response, mut stream) = client.begin(ON_DEFINE_DOMAIN, &[]).await;
            stream.send_data(body.clone(), true).unwrap();
            open.push((client.begin(ON_DEFINE_DOMAIN, &[]).await, response, stream));
        }
        holds(&shim).await;
    }
    shim.log_line("cut a response: the client did not read it, and others need its memory").await;
    drop(open);
    holds(&shim).await;
    // What was held is given back.
    eventually("memory is returned", || memory(&shim, "VmRSS") < 24 << 20).await;
}

#[tokio::test]
async fn connections_with_open_calls_make_space_for_others() {
    let shim = start().await;
    let mut open = Vec::new();
    for _ in 0..200 {
        open.extend(timeout(LIMIT, half_sent(&shim, &Bytes::new(), 1)).await.unwrap());
    }
    holds(&shim).await;
}

#[tokio::test]
async fn requests_in_tiny_pieces_end_their_connection() {
    let shim = start().await;
    for piece in [&b"\0\0\x01\0\0\0\0\0\x01x"[..], b"\0\0\0\0\0\0\0\0\x01"] {
        let mut stream = UnixStream::connect(shim.socket()).await.unwrap();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        // `:method POST`, `:scheme http`, `:path /`: the stream is open while it is refused.
        bytes.extend_from_slice(b"\0\0\x03\x01\x04\0\0\0\x01\x83\x86\x84");
        bytes.extend(piece.iter().copied().cycle().take(piece.len() * 200_000));
        let writing = tokio::spawn(async move {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        holds(&shim).await;
        timeout(LIMIT, writing).await.expect("the connection is still open").unwrap();
    }
}

#[tokio::test]
async fn clients_that_send_frames_without_pause_do_not_keep_others_from_their_turn() {
    let shim = start().await;
    // HTTP/2 takes any number of each: a window opened by one byte, a priority, a frame of a type
    // that no one knows.
    let frames: [&[u8]; 3] = [
        b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
        b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\x03\x10",
        b"\0\0\0\x77\0\0\0\0\0",
    ];
    for frame in frames {
        let mut flood = JoinSet::new();
        let (sending, mut are_sending) = mpsc::channel(FLOODING);
        for _ in 0..FLOODING {
            let mut stream = UnixStream::connect(shim.socket()).await.unwrap();
            let sending = sending.clone();
            flood.spawn(async move {
                let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
                let frames = frame.repeat(8000);
                stream.write_all(preface).await?;
                stream.write_all(&frames).await?;
                let _ = sending.try_send(());
                loop {
                    stream.write_all(&frames).await?;
                }
                #[expect(unreachable_code, reason = "the type of the block")]
                std::io::Result::Ok(())
            });
        }
        for _ in 0..FLOODING {
            timeout(LIMIT, are_sending.recv()).await.expect("the flood is read").unwrap();
        }
        holds(&shim).await;
    }
}

#[tokio::test]
async fn after_a_burst_of_large_calls_the_memory_is_returned() {
    let shim = start().await;
    let domain = format!("<domain>{}</domain>", "x".repeat(3_700_000));
    let calls: Vec<_> = (0..24)
        .map(|_| {
            let (socket, body) = (shim.socket(), define_message("{}", &domain));
            tokio::spawn(async move {
                RawClient::dial(&socket).await.call(ON_DEFINE_DOMAIN, &[], body).await.code
            })
        })
        .collect();
    for call in calls {
        assert_eq!(timeout(LIMIT, call).await.unwrap().unwrap(), "0", "they wait for each other");
    }
    holds(&shim).await;
    eventually("memory is returned", || memory(&shim, "VmRSS") < 24 << 20).await;
}

#[tokio::test]
async fn calls_on_one_connection_do_not_wait_for_each_others_windows() {
    let shim = start().await;
    let mut client = RawClient::dial(&shim.socket()).await;
    let domain = format!("<domain>{}</domain>", "x".repeat(2_000_000));
    let mut responses = Vec::new();
    for _ in 0..16 {
        let (response, mut stream) = client.begin(ON_DEFINE_DOMAIN, &[]).await;
        stream.send_data(define_message("{}", &domain), true).unwrap();
        responses.push(tokio::spawn(status(response)));
    }
    for response in responses {
        let answer = timeout(LIMIT, response).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.code, "0", "{answer:?}");
    }
}

#[tokio::test]
async fn a_stopping_shim_waits_for_the_client_to_read_its_response() {
    let mut shim = start().await;
    let mut slow = Builder::new();
    slow.initial_window_size(0);
    let mut client = RawClient::with(&slow, &shim.socket()).await;
    let (response, mut stream) = client.begin(ON_DEFINE_DOMAIN, &[]).await;
    stream.send_data(define_message("{}", DOMAIN), true).unwrap();
    let (_, body) = timeout(LIMIT, response).await.unwrap().unwrap().into_parts();
    shim.signal(Signal::SIGTERM);
    shim.log_line("sidecar-shim received signal: terminated").await;
    // Longer than the shim waits for clients that have no call.
    sleep(Duration::from_millis(700)).await;
    assert!(exists(shim.pid().as_raw().try_into().unwrap()), "the response was cut");
    drop((body, client));
    assert_eq!(shim.exited().await.code(), Some(0));
    shim.assert_not_logged("calls in flight are dropped");
}
