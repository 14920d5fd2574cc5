//! Thousands of calls, while much goes wrong: what must hold holds whatever the order of events.

use std::sync::atomic::Ordering::Relaxed;

use super::*;

const CLIENTS: u64 = 8;
const CALLS_OF_A_CLIENT: u64 = 60;
const MAX_WORKERS: usize = 3;

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        // The constants of SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)) >> 16) % sides
    }

    fn time(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(f64::from(u32::try_from(self.roll(1000)).unwrap()) / 1000.0)
    }
}

/// What a worker does with a call.
#[derive(Clone, Copy, PartialEq)]
enum Deed {
    Reply,
    FailRetryably,
    ReplyAndExit,
    Crash,
    Tear,
    BreakARule,
    CloseStdin,
    Hang,
}

impl Deed {
    fn choose(dice: &mut Dice) -> Self {
        match dice.roll(100) {
            0..3 => Self::FailRetryably,
            3..5 => Self::ReplyAndExit,
            5..8 => Self::Crash,
            8..10 => Self::Tear,
            10..12 => Self::BreakARule,
            12..14 => Self::CloseStdin,
            14..17 => Self::Hang,
            _ => Self::Reply,
        }
    }
}

struct Open {
    request: Request,
    deed: Deed,
    at: Instant,
}

/// Plays a worker until it exits.
async fn play(mut worker: FakeWorker, mut dice: Dice, concurrency: usize) {
    sleep(dice.time(SECOND)).await;
    match dice.roll(20) {
        0 => return worker.exit(1),
        1 => worker.ignores_sigterm(),
        _ => {}
    }
    worker.initialize(json!({"concurrency": concurrency, "cancel": true})).await;
    let mut open: Vec<Open> = Vec::new();
    loop {
        let next = open.iter().min_by_key(|call| call.at);
        let act_at = next.map_or_else(|| Instant::now() + LONG, |call| call.at);
        let gone = worker.gone();
        tokio::select! {
            () = gone => return,
            frame = worker.try_frame() => {
                let Some(frame) = frame else { return worker.exit(0) };
                let message: Value = serde_json::from_slice(&frame).unwrap();
                if message["method"] == "$/cancelRequest" {
                    continue;
                }
                let request = Request::of(&message);
                assert!(open.len() < concurrency, "more calls than it takes");
                assert!(open.iter().all(|call| call.request.attempt == 1), "beside a retry");
                if request.attempt == 2 {
                    assert_eq!((request.id, open.len()), (2, 0), "alone, on an unused worker");
                }
                assert!(request.attempt <= 2);
                // Most answers are quick; some are later than any deadline.
                let longest = if dice.roll(20) == 0 { 4 * SECOND } else { 20 * MILLISECOND };
                let (deed, at) = (Deed::choose(&mut dice), Instant::now() + dice.time(longest));
                open.push(Open { request, deed, at });
            }
            () = tokio::time::sleep_until(act_at) => {
                let now = Instant::now();
                let Some(due) = open.iter().position(|call| call.at <= now) else { continue };
                let Open { request, deed, .. } = open.swap_remove(due);
                if act(&mut worker, &request, deed).await {
                    return worker.exit(i32::from(deed != Deed::ReplyAndExit));
                }
                if deed == Deed::Hang {
                    open.push(Open { request, deed, at: now + LONG });
                }
            }
        }
    }
}

/// Returns whether the worker exits.
async fn act(worker: &mut FakeWorker, request: &Request, deed: Deed) -> bool {
    match deed {
        Deed::Reply | Deed::ReplyAndExit if request.domain.is_empty() => {
            worker.send(json!({"id": request.id, "result": {}})).await;
        }
        Deed::Reply | Deed::ReplyAndExit => {
            worker.reply(request.id, &format!("answer to {}", request.domain.len())).await;
        }
        Deed::FailRetryably => worker.fail_retryably(request.id).await,
        Deed::Tear => worker.write(b"\0\0\x01\0{\"js").await,
        Deed::BreakARule => worker.reply(request.id + 1000, "whose?").await,
        Deed::CloseStdin => worker.closes_stdin(),
        Deed::Crash | Deed::Hang => {}
    }
    matches!(deed, Deed::ReplyAndExit | Deed::Crash | Deed::Tear)
}

/// Makes calls. Returns how many were answered.
async fn call_on_and_on(pool: Arc<Pool>, mut dice: Dice) -> u64 {
    let mut answered = 0;
    for _ in 0..CALLS_OF_A_CLIENT {
        // The length of its domain tells a call from all others.
        let length = usize::try_from(dice.roll(8_000)).unwrap();
        let text = format!("<domain>{}</domain>", "x".repeat(length));
        let expected = format!("<domain>answer to {}</domain>", text.len());
        let node = dice.roll(10) == 0;
        let call = if node { node_call() } else { domain_call_with(text.into()) };
        let start = Instant::now();
        let time = SECOND + dice.time(SECOND);
        let call = pool.call(call, start + time);
        if dice.roll(20) == 0 {
            // The caller leaves.
            let _ = tokio::time::timeout(dice.time(SECOND), call).await;
        } else {
            let result = soon(call).await;
            assert!(start.elapsed() <= time + BACKSTOP, "{:?} of {time:?}", start.elapsed());
            match result {
                Ok(_) if node => answered += 1,
                Ok(reply) => {
                    assert_eq!(reply.or("".into()), expected, "another call's answer");
                    answered += 1;
                }
                Err(failure) => assert!(!failure.to_string().contains("internal"), "{failure}"),
            }
        }
        sleep(dice.time(SECOND / 10)).await;
    }
    answered
}

#[tokio::test(start_paused = true)]
async fn each_call_gets_its_own_answer_or_an_error_in_time_whatever_workers_do() {
    for (seed, concurrency) in [(1, 1), (2, 1), (3, 3), (4, 3)] {
        let (spawner, mut started) = FakeSpawner::new();
        let alive = spawner.alive();
        let settings = Settings {
            max_workers: MAX_WORKERS,
            min_workers: usize::try_from(seed % 2).unwrap(),
            idle_timeout: SECOND,
            max_requests: Some(5),
            ..settings()
        };
        let (command, pools_down) = (command(), watch::Sender::default());
        let first = async {
            let mut worker = started.next().await;
            worker.initialize(json!({"concurrency": concurrency, "cancel": true})).await;
            worker.exit(0);
        };
        let (pool, ()) =
            tokio::join!(Pool::start(spawner, &command, &settings, &pools_down), first);
        let pool = Arc::new(pool.unwrap());
        let players = tokio::spawn(async move {
            let mut players = tokio::task::JoinSet::new();
            for number in 0.. {
                tokio::select! {
                    Some(worker) = started.recv() => {
                        assert!(alive.load(Relaxed) <= MAX_WORKERS, "too many at once");
                        players.spawn(play(worker, Dice(seed << 32 | number), concurrency));
                    }
                    Some(played) = players.join_next() => played.unwrap(),
                    else => return alive.load(Relaxed),
                }
            }
            unreachable!()
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| tokio::spawn(call_on_and_on(pool.clone(), Dice(seed << 16 | client))))
            .collect();
        let mut answered = 0;
        for client in clients {
            answered += client.await.unwrap();
        }
        let start = Instant::now();
        pool.stop();
        soon(pool.stopped()).await;
        let most = 2 * KILL_GRACE + SECOND;
        assert!(start.elapsed() <= most, "{:?}", start.elapsed());
        drop(pool);
        assert_eq!(soon(players).await.unwrap(), 0, "children that are left");
        let calls = CLIENTS * CALLS_OF_A_CLIENT;
        assert!(answered > calls / 3, "of {calls} calls {answered} were answered");
    }
}
