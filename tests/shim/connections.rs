//! Clients that connect and then do nothing, or too much.

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::support::{Client, DOMAIN, ECHO, LIMIT, Shim};

/// HTTP/2's preface, and a `SETTINGS` frame without settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A grace period longer than any test: a shim that waits for its end fails the test.
const GRACE: [&str; 2] = ["--shutdown-grace", "10m"];

/// Connects, sends the preface, and never sends anything else.
async fn connect_mute(shim: &Shim) -> UnixStream {
    let mut stream = UnixStream::connect(shim.socket()).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    // Once the server has sent its first frame, it has read the preface.
    stream.read_exact(&mut [0; 9]).await.unwrap();
    stream
}

/// Reads until the shim closes the connection.
async fn closed(mut stream: UnixStream) {
    let mut rest = Vec::new();
    let reading = stream.read_to_end(&mut rest);
    let _ = timeout(LIMIT, reading).await.expect("the connection was not closed");
}

#[tokio::test]
async fn a_client_that_sends_nothing_does_not_delay_the_shutdown() {
    let mut shim = Shim::builder().program("onDefineDomain", ECHO).args(GRACE).start().await;
    let silent = UnixStream::connect(shim.socket()).await.unwrap();
    // Connections are accepted in order: when this one is served, the silent one was accepted.
    shim.dial().await.info().await;
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.exited().await.code(), Some(0));
    closed(silent).await;
    shim.assert_not_logged("calls in flight are dropped");
}

#[tokio::test]
async fn a_client_that_stops_answering_does_not_delay_the_shutdown() {
    let mut shim = Shim::builder().program("onDefineDomain", ECHO).args(GRACE).start().await;
    let mute = connect_mute(&shim).await;
    shim.dial().await.shutdown().await.unwrap();
    assert_eq!(shim.exited().await.code(), Some(0));
    closed(mute).await;
    shim.assert_not_logged("calls in flight are dropped");
}

#[tokio::test]
async fn a_call_finishes_although_another_client_has_stopped_answering() {
    let mut shim = Shim::persistent("").args(GRACE).start().await;
    let _mute = connect_mute(&shim).await;
    let call = shim.call_in_flight().await;
    shim.signal(Signal::SIGTERM);
    shim.log_line("sidecar-shim received signal: terminated").await;
    // Longer than the shim waits for such a client when no call is in flight.
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert!(call.finish().await.unwrap().contains("<domain>"));
    assert_eq!(shim.exited().await.code(), Some(0));
}

#[tokio::test]
async fn silent_clients_cannot_occupy_all_connections_for_long() {
    let shim = Shim::builder().program("onDefineDomain", ECHO).start().await;
    let socket = shim.socket();
    let mut silent = Vec::new();
    for n in 0..256 {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        // Half of them send the beginning of a preface.
        stream.write_all(&PREFACE[..n % 2 * 3]).await.unwrap();
        silent.push(stream);
    }
    let answer = Client::dial(&socket).await.define("v1alpha3", "{}", DOMAIN).await;
    assert_eq!(answer.unwrap(), DOMAIN);
    closed(silent.swap_remove(0)).await;
}

#[tokio::test]
async fn the_server_announces_the_limits_of_a_connection() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const MAX_FRAME_SIZE: u16 = 5;
    let shim = Shim::builder().program("onDefineDomain", ECHO).start().await;
    let mut stream = UnixStream::connect(shim.socket()).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let [a, b, c, kind, ..] = head;
    assert_eq!(kind, 4, "a server's first frame contains its settings");
    let mut settings = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut settings).await.unwrap();
    let value_of = |name: u16| {
        let mut settings = settings.chunks_exact(6);
        let setting = settings.find(|setting| setting[..2] == name.to_be_bytes())?;
        Some(u32::from_be_bytes(setting[2..].try_into().unwrap()))
    };
    assert_eq!(value_of(MAX_CONCURRENT_STREAMS), Some(16));
    assert_eq!(value_of(INITIAL_WINDOW_SIZE), Some(65_535));
    assert_eq!(value_of(MAX_FRAME_SIZE), Some(64 << 10));
}
