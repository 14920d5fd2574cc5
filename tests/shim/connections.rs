//! Clients that connect and then do nothing, or too much.

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::support::{Client, DOMAIN, LIMIT, Meeting, Shim};

/// An argv-style hook that answers with the domain as it came.
const ECHO: &str = "#!/bin/sh\nprintf '%s' \"$4\"\n";

/// HTTP/2's first words from a client: the preface, and its settings, of which there are none.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A grace that is longer than a test may take: whoever waits for its end fails.
const GRACE: [&str; 2] = ["--shutdown-grace", "10m"];

/// Connects, and says hello without ever answering.
async fn greet(shim: &Shim) -> UnixStream {
    let mut stream = UnixStream::connect(shim.socket()).await.unwrap();
    stream.write_all(HELLO).await.unwrap();
    // The first frame of the server: by then it has read what came.
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
async fn a_client_that_says_nothing_delays_no_end() {
    let mut shim = Shim::exec(&[("onDefineDomain", ECHO)], &GRACE).await;
    let silent = UnixStream::connect(shim.socket()).await.unwrap();
    // Connections are taken in their order, so the silent one was taken when this is answered.
    shim.dial().await.info().await;
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.ended().await.code(), Some(0));
    closed(silent).await;
    assert!(!shim.log_text().contains("given up"), "{}", shim.log_text());
}

#[tokio::test]
async fn a_client_that_does_not_answer_delays_no_end() {
    let mut shim = Shim::exec(&[("onDefineDomain", ECHO)], &GRACE).await;
    let mute = greet(&shim).await;
    shim.dial().await.shutdown().await.unwrap();
    assert_eq!(shim.ended().await.code(), Some(0));
    closed(mute).await;
    assert!(!shim.log_text().contains("given up"), "{}", shim.log_text());
}

#[tokio::test]
async fn a_call_ends_though_another_client_does_not_answer() {
    let mut shim = Shim::persistent("", &GRACE).await;
    let _mute = greet(&shim).await;
    let meeting = Meeting::new(shim.dir.path().join("fifo"));
    let client = shim.dial().await;
    let vmi = json!({"do": "meet", "path": meeting.0}).to_string();
    let call = tokio::spawn(async move { client.define("v1alpha3", vmi, DOMAIN).await });
    let joined = meeting.joined().await;
    shim.signal(Signal::SIGTERM);
    shim.log_line("sidecar-shim received signal: terminated").await;
    // Longer than it waits when there is no call.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    drop(joined);
    assert!(call.await.unwrap().unwrap().contains("<domain>"));
    assert_eq!(shim.ended().await.code(), Some(0));
}

#[tokio::test]
async fn clients_that_say_nothing_do_not_hold_all_connections_for_ever() {
    let shim = Shim::exec(&[("onDefineDomain", ECHO)], &[]).await;
    let socket = shim.socket();
    let mut silent = Vec::new();
    for n in 0..256 {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        // Half of them begin to say something.
        stream.write_all(&HELLO[..n % 2 * 3]).await.unwrap();
        silent.push(stream);
    }
    let answer = Client::dial(&socket).await.define("v1alpha3", "{}", DOMAIN).await;
    assert_eq!(answer.unwrap(), DOMAIN);
    closed(silent.swap_remove(0)).await;
}

#[tokio::test]
async fn a_client_is_told_what_one_connection_may_hold() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const MAX_FRAME_SIZE: u16 = 5;
    let shim = Shim::exec(&[("onDefineDomain", ECHO)], &[]).await;
    let mut stream = UnixStream::connect(shim.socket()).await.unwrap();
    stream.write_all(HELLO).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let [a, b, c, kind, ..] = head;
    assert_eq!(kind, 4, "the first frame of a server holds its settings");
    let mut settings = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut settings).await.unwrap();
    let value_of = |name: u16| {
        let mut settings = settings.chunks_exact(6);
        let setting = settings.find(|setting| setting[..2] == name.to_be_bytes())?;
        Some(u32::from_be_bytes(setting[2..].try_into().unwrap()))
    };
    assert_eq!(value_of(MAX_CONCURRENT_STREAMS), Some(256));
    assert_eq!(value_of(INITIAL_WINDOW_SIZE), Some(4 << 20));
    assert_eq!(value_of(MAX_FRAME_SIZE), Some(1 << 20));
}
