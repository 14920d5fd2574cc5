//! Replies are taken from the budget of bytes before they are received.

use super::*;
use crate::admission::Memory;

const BUDGET: usize = 4 << 20;

async fn start() -> (Bench, FakeWorker, Memory) {
    let memory = Memory::new(BUDGET);
    let (mut bench, mut worker) =
        Bench::start_with(Settings { memory: memory.clone(), ..settings() }).await;
    worker.initialize(json!({})).await;
    assert!(matches!(bench.report().await, Report::Ready(_)));
    (bench, worker, memory)
}

#[tokio::test(start_paused = true)]
async fn a_long_reply_waits_for_its_memory_and_gives_it_back() {
    let (mut bench, mut worker, memory) = start().await;
    let mut others = memory.empty();
    assert!(others.try_grow(7 << 19));
    let reply = bench.call(domain_call(), LONG);
    let request = worker.request().await;
    let text = "x".repeat(1 << 20);
    let expected = format!("<domain>{text}</domain>");
    let sending = tokio::spawn(async move {
        worker.reply(request.id, &text).await;
        worker
    });
    settle().await;
    assert!(!sending.is_finished(), "it is received");
    assert_eq!(memory.held().get(), 7 << 19);
    drop(others);
    let _worker = sending.await.unwrap();
    assert!(domain(result(reply).await) == expected);
    bench.finished().await;
    settle().await;
    assert_eq!(memory.held().get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_never_fits_fails_its_call_with_the_option_that_helps() {
    let (bench, mut worker, memory) = start().await;
    let reply = bench.call(domain_call(), LONG);
    worker.request().await;
    worker.write(&u32::try_from(BUDGET + (128 << 10)).unwrap().to_be_bytes()).await;
    let failure = failure(result(reply).await);
    assert!(failure.contains("a frame of 4325380 bytes"), "{failure}");
    assert!(failure.contains("(--memory-budget)"), "{failure}");
    drop(worker);
    bench.exited().await;
    assert_eq!(memory.held().get(), 0);
}
