//! What happens when something runs out: file descriptors, or the patience of who reads the log.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::support::{Client, DOMAIN, Shim, stat_fields, worker};

/// The time on a CPU that a process has taken.
fn cpu_time(pid: i32) -> Duration {
    let fields = stat_fields(u64::try_from(pid).unwrap()).unwrap();
    // In user and kernel mode: fields 14 and 15.
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).unwrap().unwrap()).unwrap();
    Duration::from_millis(ticks * 1000 / per_second)
}

#[tokio::test]
async fn without_file_descriptors_it_waits_without_burning_the_cpu_and_goes_on() {
    let words = ["sh", "-c", "ulimit -n 40; exec \"$@\"", "sh"];
    let worker = worker("");
    let args = ["--mode", "persistent", "--worker", &worker];
    let mut shim = Shim::spawn_under(&words, &args, |_, _| {});
    shim.serving().await;
    let mut clients = Vec::new();
    for _ in 0..60 {
        let mut client = UnixStream::connect(shim.socket()).await.unwrap();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        clients.push(client);
    }
    let line = shim.log_line("cannot accept a connection: ").await;
    assert!(line["msg"].as_str().unwrap().contains("Too many open files"), "{line}");
    let pid = shim.pid().as_raw();
    let (before, span) = (cpu_time(pid), Duration::from_secs(1));
    tokio::time::sleep(span).await;
    let burnt = cpu_time(pid).checked_sub(before).unwrap();
    assert!(burnt < span / 5, "it was busy for {burnt:?} of a second");
    shim.log_line("cannot accept a connection: ").await;
    drop(clients);
    shim.still_works().await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_delays_no_answer_and_says_what_it_lost() {
    const LINES_OF_A_CALL: usize = 400;
    let mut shim = Shim::persistent("", &[]).await;
    // From here on nobody reads. Each call has ten times what a pipe holds to say.
    let line = "x".repeat(1500) + "\n";
    let vmi = json!({"do": "stderr", "text": line, "times": LINES_OF_A_CALL});
    for _ in 0..5 {
        assert_eq!(shim.define(&vmi, DOMAIN).await.unwrap(), DOMAIN);
        // It has a second for this, as virt-launcher gives it.
        assert!(!shim.dial().await.info().await.versions.is_empty());
    }
    // Now somebody does, until nothing is queued any more: at its end the shim waits for nobody.
    let socket = shim.socket();
    let last = json!({"do": "stderr", "text": "last words\n"}).to_string();
    let calling = async {
        loop {
            let client = Client::dial(&socket).await;
            client.define("v1alpha3", last.clone(), DOMAIN).await.unwrap();
        }
    };
    tokio::select! {
        _ = shim.log_line("last words") => {}
        () = calling => {}
    }
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.ended().await.code(), Some(0));
    let said = shim.lines.iter().filter(|line| line["msg"].as_str().unwrap().starts_with("xxx"));
    let told = shim.lines.iter().filter_map(|line| line["dropped_lines"].as_u64()).sum::<u64>();
    let told = usize::try_from(told).unwrap();
    let said = said.count();
    assert!(told > 0 && said + told >= 5 * LINES_OF_A_CALL, "{said} were written, {told} dropped");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_without_waiting_is_whole_and_in_order() {
    const CALLS: usize = 50;
    let worker = worker("");
    let args = ["--mode", "persistent", "--worker", &worker];
    let words = ["sh", "-c", "exec \"$@\" 2>>\"$LOG\"", "sh"];
    let mut shim = Shim::spawn_under(&words, &args, |command, dir| {
        command.env("LOG", dir.join("log"));
    });
    shim.has_socket().await;
    for number in 0..CALLS {
        let vmi = json!({"do": "stderr", "text": format!("line {number}\n")});
        assert_eq!(shim.define(&vmi, DOMAIN).await.unwrap(), DOMAIN);
    }
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.ended().await.code(), Some(0));
    let log = std::fs::read_to_string(shim.dir.path().join("log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |text: &str| lines.iter().filter(|line| line["msg"] == text).count();
    assert_eq!(count("OnDefineDomain method has been called"), CALLS);
    assert_eq!(count("hook answered"), CALLS);
    let said = lines.iter().filter_map(|line| line["msg"].as_str()?.strip_prefix("line "));
    let numbers: Vec<usize> = said.map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers, (0..CALLS).collect::<Vec<_>>());
    let times: Vec<_> = lines.iter().map(|line| line["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{log}");
}
