//! What happens when something runs out: file descriptors, or space in the log's pipe.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::support::{Client, DOMAIN, PYTHON, Shim, ShimBuilder, stat_fields};

/// The CPU time of a process.
fn cpu_time(pid: i32) -> Duration {
    let fields = stat_fields(u64::try_from(pid).unwrap()).unwrap();
    // Fields 14 and 15: in user and in kernel mode.
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).unwrap().unwrap()).unwrap();
    Duration::from_millis(ticks * 1000 / per_second)
}

#[tokio::test]
async fn without_file_descriptors_it_waits_without_using_the_cpu_and_recovers() {
    let words = ["sh", "-c", "ulimit -n 40; exec \"$@\"", "sh"];
    let mut shim = Shim::persistent("").under(&words).start().await;
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
    let used = cpu_time(pid).checked_sub(before).unwrap();
    assert!(used < span / 5, "it used the CPU for {used:?} of a second");
    shim.log_line("cannot accept a connection: ").await;
    drop(clients);
    shim.still_works().await;
}

#[tokio::test]
async fn a_stalled_log_reader_delays_no_answer_and_the_log_counts_dropped_lines() {
    stall_the_log_reader(Shim::persistent("")).await;
}

/// Any process that shares the pipe may have made it so.
#[tokio::test]
async fn no_line_is_torn_in_a_pipe_that_does_not_block() {
    let script = "import os, sys\nos.set_blocking(2, False)\nos.execvp(sys.argv[1], sys.argv[1:])";
    let words = [PYTHON.as_str(), "-IS", "-c", script];
    stall_the_log_reader(Shim::persistent("").under(&words)).await;
}

/// Each line of the log is whole, and written or counted.
async fn stall_the_log_reader(builder: ShimBuilder) {
    const LINES_OF_A_CALL: usize = 400;
    let mut shim = builder.start().await;
    // From here on the log is not read. Each call writes ten times as much as fits into a pipe.
    let line = "x".repeat(1500) + "\n";
    let vmi = json!({"do": "stderr", "text": line, "times": LINES_OF_A_CALL});
    for _ in 0..5 {
        assert_eq!(shim.define(&vmi, DOMAIN).await.unwrap(), DOMAIN);
        // It gets one second, as from virt-launcher.
        assert!(!shim.dial().await.info().await.versions.is_empty());
    }
    // Now it is read until the queue is empty: a shim that exits does not wait for its reader.
    let socket = shim.socket();
    let last = json!({"do": "stderr", "text": "last line\n"}).to_string();
    let calling = async {
        loop {
            let client = Client::dial(&socket).await;
            client.define("v1alpha3", last.clone(), DOMAIN).await.unwrap();
        }
    };
    tokio::select! {
        _ = shim.log_line("last line") => {}
        () = calling => {}
    }
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.exited().await.code(), Some(0));
    let torn = shim.lines.iter().find(|line| !line.is_object());
    assert_eq!(torn, None, "a line is torn");
    let written = shim.lines.iter().filter(|line| line["msg"].as_str().unwrap().starts_with("xxx"));
    let sum = |name: &str| shim.lines.iter().filter_map(|line| line[name].as_u64()).sum::<u64>();
    let (written, dropped, left_out) = (written.count(), sum("dropped_lines"), sum("left_out"));
    let counted = written + usize::try_from(dropped + left_out).unwrap();
    assert!(
        dropped > 0 && counted >= 5 * LINES_OF_A_CALL,
        "{written} lines were written, {dropped} dropped, {left_out} left out"
    );
}

#[tokio::test]
async fn a_log_whose_writes_may_block_is_complete_and_in_order() {
    const CALLS: usize = 50;
    // The kernel offers no write to a file that does not block.
    let words = ["sh", "-c", "exec \"$@\" 2>>\"$LOG\"", "sh"];
    let builder = Shim::persistent("").under(&words);
    let path = builder.dir().join("log");
    let mut shim = builder.env("LOG", &path).spawn();
    shim.has_socket().await;
    for number in 0..CALLS {
        let vmi = json!({"do": "stderr", "text": format!("line {number}\n")});
        assert_eq!(shim.define(&vmi, DOMAIN).await.unwrap(), DOMAIN);
    }
    shim.signal(Signal::SIGTERM);
    assert_eq!(shim.exited().await.code(), Some(0));
    let log = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |text: &str| lines.iter().filter(|line| line["msg"] == text).count();
    assert_eq!(count("OnDefineDomain method has been called"), CALLS);
    assert_eq!(count("hook answered"), CALLS);
    let written = lines.iter().filter_map(|line| line["msg"].as_str()?.strip_prefix("line "));
    let numbers: Vec<usize> = written.map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers, (0..CALLS).collect::<Vec<_>>());
    let times: Vec<_> = lines.iter().map(|line| line["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{log}");
}
