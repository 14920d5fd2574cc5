//! Workers that do not stop writing.

use std::ops::RangeInclusive;

use super::super::super::flood::LOG_REPORT_INTERVAL;
use super::*;

/// The time for which workers flood.
const TIME: Duration = Duration::from_secs(5);

/// What is logged in that time: the burst and 64 KiB per second, in lines of some 260 bytes.
const LINES: RangeInclusive<usize> = 4000..=6000;

/// Messages or lines in a burst.
const BURST: usize = 1000;

/// What a worker sends without being asked, and does not stop to.
async fn floods(worker: &mut FakeWorker, message: &serde_json::Value) {
    let start = Instant::now();
    while start.elapsed() < TIME {
        worker.send(message.clone()).await;
    }
}

/// Returns the most lines that the log got from one turn of another task to its next, while
/// something happens.
async fn most_lines_in_a_turn(logged: &Logged, happens: impl Future<Output = ()>) -> usize {
    let turns = async {
        let (mut before, mut most) = (0, 0);
        for turn in 1_u32.. {
            let lines = logged.beginning("flood").len();
            most = most.max(lines - before);
            before = lines;
            if lines >= BURST {
                break;
            }
            tokio::task::yield_now().await;
            // The paused clock goes on only when all tasks wait.
            if turn.is_multiple_of(100) {
                sleep(Duration::from_millis(1)).await;
            }
        }
        most
    };
    tokio::join!(soon(turns), happens).0
}

#[tokio::test(start_paused = true)]
async fn log_messages_without_end_are_counted_and_said() {
    let logged = Logged::start();
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let line = json!({"method": "$/log", "params": {"level": "info", "message": "flood"}});
    floods(&mut worker, &line).await;
    bench.stop();
    worker.stdin_closes().await;
    worker.exit(0);
    bench.exited().await;
    let lines = logged.beginning("flood").len();
    assert!(LINES.contains(&lines), "{lines} lines");
    let reports = logged.beginning("").iter().filter(|line| line.left_out.is_some()).count();
    let intervals = usize::try_from(TIME.as_secs() / LOG_REPORT_INTERVAL.as_secs()).unwrap();
    assert!((intervals - 1..=intervals + 1).contains(&reports), "{reports} reports");
    assert!(logged.left_out() > 50_000, "{} left out", logged.left_out());
}

#[tokio::test(start_paused = true)]
async fn lines_of_stderr_without_end_are_counted_and_said() {
    let logged = Logged::start();
    let (bench, worker) = Bench::start(json!({})).await;
    let start = Instant::now();
    let mut written = 0;
    while start.elapsed() < TIME {
        // As fast as the pipe takes them.
        while worker.stderr_has_space() {
            worker.prints_to_stderr("flood");
            written += 1;
        }
        sleep(Duration::from_millis(1)).await;
    }
    worker.exit(0);
    bench.exited().await;
    sleep(10 * SECOND).await;
    let lines = logged.beginning("flood").len();
    assert!(LINES.contains(&lines), "{lines} lines");
    assert_eq!(lines as u64 + logged.left_out(), written, "each is logged or counted");
}

#[tokio::test(start_paused = true)]
async fn other_tasks_have_their_turn_in_a_burst() {
    let logged = Logged::start();
    let (_bench, mut worker) = Bench::start(json!({})).await;
    let log = json!({"jsonrpc": "2.0", "method": "$/log", "params": {"message": "flood"}});
    let log = log.to_string();
    let frame = [&u32::try_from(log.len()).unwrap().to_be_bytes(), log.as_bytes()].concat();
    let burst = frame.repeat(BURST);
    let most = most_lines_in_a_turn(&logged, worker.write(&burst)).await;
    assert!(most <= 32, "{most} messages in a turn");

    let logged = Logged::start();
    let (_bench, worker) = Bench::start(json!({})).await;
    let most = most_lines_in_a_turn(&logged, async {
        (0..BURST).for_each(|_| worker.prints_to_stderr("flood"));
    });
    let most = most.await;
    assert!(most <= 64, "{most} lines of stderr in a turn");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_stop_sending_waits_in_the_end() {
    // None of them is logged.
    let log = json!({"method": "$/log", "params": {"level": "debug", "message": "flood"}});
    for message in [json!({"method": "$/progress"}), log] {
        let (_bench, mut worker) = Bench::start(json!({})).await;
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < SECOND {
            worker.send(message.clone()).await;
            sent += 1;
        }
        assert!((16_000..24_000).contains(&sent), "{sent} messages in a second");
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_before_an_answer_delays_nothing() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    let start = Instant::now();
    let reply = bench.call(domain_call(), LONG);
    let id = worker.request().await.id;
    for _ in 0..1000 {
        worker.send(json!({"method": "$/log", "params": {"message": "step", "id": id}})).await;
    }
    worker.reply(id, "done").await;
    assert_eq!(domain(result(reply).await), "<domain>done</domain>");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_flood_delays_no_deadline() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    let start = Instant::now();
    let reply = bench.call(domain_call(), SECOND);
    worker.request().await;
    let flood = tokio::spawn(async move {
        floods(&mut worker, &json!({"method": "$/progress"})).await;
    });
    failure(result(reply).await);
    assert_eq!(start.elapsed(), SECOND);
    flood.abort();
}
