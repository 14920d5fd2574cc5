//! Shares, those that wait for them and those that lose them, on a paused clock.

use std::pin::pin;

use futures_util::FutureExt as _;
use tokio::time::{advance, sleep};

use super::*;

const LIMIT: usize = 1600;
/// Of this, those that wait for their turn can have 1400.
fn memory() -> Memory {
    Memory::new(LIMIT)
}

fn try_take(memory: &Memory, bytes: usize) -> Option<Share> {
    let mut share = memory.empty();
    share.try_grow(bytes).then_some(share)
}

/// At most this is small.
const SMALL: usize = 100;

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_waits_in_order_of_arrival() {
    let memory = memory();
    let first = memory.take(1000).await;
    assert_eq!(memory.held().get(), 1000);
    let (mut second, mut third) = (pin!(memory.take(700)), pin!(memory.take(300)));
    assert!(second.as_mut().now_or_never().is_none());
    assert!(third.as_mut().now_or_never().is_none(), "it would fit, but is not small");
    drop(first);
    let (second, third) = (second.await, third.await);
    assert_eq!(memory.held().get(), 1000);
    drop((second, third));
    assert_eq!(memory.held().get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_small_one_passes_larger_ones_that_do_not_fit_and_no_others() {
    let memory = memory();
    let first = memory.take(1000).await;
    let mut large = pin!(memory.take(700));
    assert!(large.as_mut().now_or_never().is_none());
    let _small = memory.take(SMALL).await;
    drop(first);
    // Now the large one would fit, and is first.
    let mut small = pin!(memory.take(SMALL));
    assert!(small.as_mut().now_or_never().is_none());
    let _large = large.await;
    let _small = small.await;
}

#[tokio::test(start_paused = true)]
async fn one_that_gives_up_lets_the_next_one_in() {
    let memory = memory();
    let _first = memory.take(1000).await;
    let mut second = Box::pin(memory.take(700));
    assert!(second.as_mut().now_or_never().is_none());
    let third = tokio::spawn({
        let memory = memory.clone();
        async move { memory.take(400).await.bytes() }
    });
    tokio::task::yield_now().await;
    drop(second);
    assert_eq!(third.await.unwrap(), 400);
}

#[tokio::test(start_paused = true)]
async fn a_share_grows_by_what_fits_and_shrinks() {
    let memory = memory();
    let mut share = try_take(&memory, 1000).unwrap();
    assert!(try_take(&memory, 601).is_none());
    assert!(!share.try_grow(601) && share.try_grow(600));
    share.shrink_to(200);
    assert_eq!((share.bytes(), memory.held().get()), (200, 200));
    share.shrink_to(300);
    assert_eq!(share.bytes(), 200);
}

/// A connection that gives its share back when it is reclaimed.
fn spawn_idler(memory: &Memory, bytes: usize, kind: WaitsFor) {
    let share = try_take(memory, bytes).unwrap();
    let waiting = memory.reclaimable(bytes, kind);
    tokio::spawn(async move {
        waiting.reclaimed().await;
        drop(share);
    });
}

#[tokio::test(start_paused = true)]
async fn a_small_call_takes_the_memory_of_those_that_have_waited_longest_for_their_peer() {
    let memory = memory();
    spawn_idler(&memory, 800, WaitsFor::Peer);
    advance(PATIENCE / 2).await;
    spawn_idler(&memory, 800, WaitsFor::Call);
    let started = Instant::now();
    let _small = memory.take(SMALL).await;
    let waited = started.elapsed();
    assert!(waited >= PATIENCE / 2 && waited <= PATIENCE, "{waited:?}");
    assert_eq!(memory.held().get(), 800 + SMALL, "no more than was needed");
    assert_eq!(memory.idle(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_large_call_waits_until_nothing_has_come_for_a_while() {
    let memory = memory();
    let share = try_take(&memory, 1000).unwrap();
    let waiting = memory.reclaimable(1000, WaitsFor::Peer);
    let busy = tokio::spawn(async move {
        for _ in 0..10 {
            sleep(STALL_TIME / 2).await;
            waiting.progress(1);
        }
        waiting.reclaimed().await;
        drop(share);
    });
    let started = Instant::now();
    let _large = memory.take(1000).await;
    assert!(started.elapsed() >= STALL_TIME * 6, "{:?}", started.elapsed());
    busy.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_its_turn_loses_only_its_place() {
    let memory = memory();
    spawn_idler(&memory, LIMIT, WaitsFor::Turn);
    advance(STALL_TIME * 2).await;
    assert!(timeout(STALL_TIME, memory.take(SMALL)).await.is_err());
    assert!(!memory.reclaim_place(true) && memory.reclaim_place(false));
    let _taken = memory.take(SMALL).await;
}

#[tokio::test(start_paused = true)]
async fn a_line_that_moves_keeps_its_places() {
    let memory = memory();
    spawn_idler(&memory, 1, WaitsFor::Turn);
    for _ in 0..10 {
        memory.reclaimable(1, WaitsFor::Turn).had_its_turn();
        advance(LINE_TIME.saturating_sub(Duration::from_millis(1))).await;
        assert!(!memory.reclaim_place(false), "the line moves");
    }
    advance(Duration::from_millis(1)).await;
    // Those who keep the shim waiting lose their place before.
    spawn_idler(&memory, 1, WaitsFor::Peer);
    advance(PATIENCE).await;
    assert!(memory.reclaim_place(false));
    tokio::task::yield_now().await;
    assert!(memory.reclaim_place(false), "the line has stopped");
    tokio::task::yield_now().await;
    assert!(!memory.reclaim_place(false), "no connection is left");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_steadily_does_not_keep_the_shim_waiting() {
    let memory = memory();
    let waiting = memory.reclaimable(1, WaitsFor::Peer);
    for _ in 0..10 {
        advance(PATIENCE / 2).await;
        waiting.progress(STEADY_BYTES / 2);
        assert!(!memory.reclaim_place(false));
    }
    for _ in 0..2 {
        assert!(!memory.reclaim_place(false));
        advance(PATIENCE / 2).await;
        waiting.progress(STEADY_BYTES / 2 - 1);
    }
    assert!(memory.reclaim_place(false), "it sends too slowly");
}
