//! Plays a worker, until it exits.

mod answer;

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, BytesMut};
use tokio::time::sleep_until;

use super::*;

/// Much later than any history lasts.
const NEVER: Duration = Duration::from_secs(1_000_000);

pub(super) struct Player {
    worker: FakeWorker,
    history: Arc<History>,
    dice: Dice,
    number: usize,
    /// What it has read and not used yet.
    unused: BytesMut,
    /// A message whose attachment it has not read.
    incomplete: Option<Value>,
    open: Vec<Open>,
    /// Number of calls that it has read.
    calls: usize,
    /// Bytes until it ends while it reads a call, with 0 before it reads any of it.
    ends_after: Option<usize>,
    /// When it reads on.
    reads_at: Instant,
    /// When something goes wrong, if it has no call.
    idle_until: Instant,
    /// Whether it reads whatever is there, not the message alone.
    greedy: bool,
}

/// A call that it has read.
struct Open {
    id: u64,
    call: usize,
    node: bool,
    cancelled: bool,
    at: Instant,
}

type Flow = ControlFlow<()>;

impl Player {
    pub(super) fn new(worker: FakeWorker, history: Arc<History>, seed: u64) -> Self {
        let number = history.new_worker(worker.stdin_record());
        let dice = Dice::new(seed, 1000 + number as u64);
        let now = Instant::now();
        let mut player = Self {
            worker,
            history,
            dice,
            number,
            unused: BytesMut::new(),
            incomplete: None,
            open: Vec::new(),
            calls: 0,
            ends_after: None,
            reads_at: now,
            idle_until: now + NEVER,
            greedy: false,
        };
        player.greedy = player.dice.one_in(2);
        player
    }

    fn happens(&mut self, fault: Fault) -> bool {
        self.history.happens(fault, &mut self.dice)
    }

    fn event(&self, what: &str) {
        self.history.event(|| format!("worker {}: {what}", self.number));
    }

    /// Exits, with any status or signal.
    fn end(&mut self, what: &str) -> Flow {
        let status = self.dice.pick(&[0, 0, 3, -1]);
        self.event(&format!("{what}: ends with {status}"));
        if status < 0 {
            self.worker.is_killed();
        } else {
            self.worker.exits(status);
        }
        ControlFlow::Break(())
    }

    pub(super) async fn play(mut self) {
        if self.start().await.is_break() {
            return;
        }
        self.after_a_message();
        while self.turn().await.is_continue() {
            // Who is first matters.
            for _ in 0..self.dice.roll(3) {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn start(&mut self) -> Flow {
        // The shim does not start without its first worker.
        let must_start = self.number == 1 && !self.history.plan.first_fails;
        if self.happens(Fault::IgnoresSigterm) {
            self.worker.ignores_sigterm();
        }
        if self.happens(Fault::Survives) {
            self.worker.shares_stdin();
        }
        if self.happens(Fault::IsSlowToStart) && !must_start {
            let time = self.dice.millis(80);
            if time >= self.history.plan.settings.start_timeout {
                self.history.failed_starts.fetch_add(1, Relaxed);
            }
            sleep(time).await;
        }
        if self.happens(Fault::DoesNotStart) && !must_start {
            self.fail_to_start().await;
            return ControlFlow::Break(());
        }
        self.event("starts");
        self.initialize(&["onDefineDomain", "preVMStart"]).await
    }

    async fn fail_to_start(&mut self) {
        self.history.failed_starts.fetch_add(1, Relaxed);
        self.worker.prints_to_stderr("no configuration file");
        let how = self.dice.roll(5);
        self.event(&format!("does not start, {how}"));
        match how {
            0 => {}
            1 => self.worker.write(b"\0\0\0\0").await,
            // What the first one declares is what all others have to.
            2 if self.number > 1 => {
                let _ = self.initialize(&["preVMStop"]).await;
            }
            3 => self.close_stdin(),
            _ => {
                let _ = self.end("at its start");
            }
        }
        self.worker.gone().await;
    }

    async fn initialize(&mut self, hooks: &[&str]) -> Flow {
        let gone = self.worker.gone();
        let initialize = async {
            let capabilities = self.history.plan.capabilities();
            let mut header = [0; 4];
            self.read_exactly(&mut header).await?;
            let mut json = vec![0; u32::from_be_bytes(header) as usize];
            self.read_exactly(&mut json).await?;
            self.worker.answer_initialize(1, hooks, capabilities).await;
            Flow::Continue(())
        };
        tokio::select! {
            biased;
            () = gone => ControlFlow::Break(()),
            flow = initialize => flow,
        }
    }

    async fn read_exactly(&mut self, mut into: &mut [u8]) -> Flow {
        while !into.is_empty() {
            let count = self.worker.read(into).await;
            if count == 0 {
                self.worker.exits(0);
                return ControlFlow::Break(());
            }
            into = &mut into[count..];
        }
        ControlFlow::Continue(())
    }

    /// Decides what comes next.
    fn after_a_message(&mut self) {
        let now = Instant::now();
        self.ends_after = None;
        if self.happens(Fault::EndsWhileItReads) {
            let within = self.dice.pick(&[1, 6, 300, 3 * PIPE_BYTES]);
            self.ends_after = Some(self.dice.roll(within));
        }
        self.idle_until = now + NEVER;
        for fault in [Fault::ExitsIdle, Fault::DiesIdle, Fault::ClosesStdin, Fault::BreaksRulesIdle]
        {
            if self.history.plan.has(fault) {
                self.idle_until = now + self.dice.millis(100);
            }
        }
    }

    async fn turn(&mut self) -> Flow {
        let now = Instant::now();
        let act_at = self.open.iter().map(|open| open.at).min();
        let mut wake = act_at.unwrap_or(self.idle_until);
        let waits = self.ends_after == Some(0);
        let reads = !waits && self.reads_at <= now;
        if !waits && !reads {
            wake = wake.min(self.reads_at);
        }
        let (gone, arrived) = (self.worker.gone(), self.worker.arrived());
        let mut step = [0; PIPE_BYTES];
        let most = self.wants().min(self.ends_after.unwrap_or(PIPE_BYTES));
        tokio::select! {
            biased;
            () = gone => ControlFlow::Break(()),
            () = sleep_until(wake) => self.act().await,
            () = arrived, if waits => self.end_while_it_reads(),
            count = self.worker.read(&mut step[..most]), if reads => self.on_read(&step[..count]),
        }
    }

    fn end_while_it_reads(&mut self) -> Flow {
        if self.history.peace.load(Relaxed) {
            self.ends_after = None;
            return ControlFlow::Continue(());
        }
        self.end("reads")
    }

    /// Number of bytes that it reads at once.
    fn wants(&self) -> usize {
        if self.greedy {
            return PIPE_BYTES;
        }
        let whole = self.unused.first_chunk().map_or(0, |&header| u32::from_be_bytes(header));
        (4 + whole as usize - self.unused.len()).min(PIPE_BYTES)
    }

    fn on_read(&mut self, bytes: &[u8]) -> Flow {
        if bytes.is_empty() {
            // EOF. It answers what it has read.
            if self.open.is_empty() {
                self.worker.exits(0);
                return ControlFlow::Break(());
            }
            self.reads_at = Instant::now() + NEVER;
            return ControlFlow::Continue(());
        }
        self.unused.extend_from_slice(bytes);
        if let Some(left) = &mut self.ends_after {
            *left -= bytes.len();
            if *left == 0 {
                self.end_while_it_reads()?;
            }
        }
        if self.happens(Fault::ReadsSlowly) {
            self.reads_at = Instant::now() + self.dice.millis(30);
        }
        while let Some(&header) = self.unused.first_chunk() {
            let length = u32::from_be_bytes(header) as usize;
            if self.unused.len() < 4 + length {
                break;
            }
            self.unused.advance(4);
            let frame = self.unused.split_to(length);
            if let Some(mut message) = self.incomplete.take() {
                message["params"]["domain"] = String::from_utf8(frame.to_vec()).unwrap().into();
                self.on_message(&message);
                continue;
            }
            let message: Value = serde_json::from_slice(&frame).unwrap();
            if message["attachments"].is_array() {
                self.incomplete = Some(message);
            } else {
                self.on_message(&message);
            }
        }
        ControlFlow::Continue(())
    }

    fn on_message(&mut self, message: &Value) {
        let plan = &self.history.plan;
        if message["method"] == "$/cancelRequest" {
            assert!(plan.cancel, "it has not declared that");
            let id = message["params"]["id"].as_u64();
            if let Some(open) = self.open.iter_mut().find(|open| Some(open.id) == id) {
                (open.cancelled, open.at) = (true, Instant::now());
            }
            return;
        }
        if message["method"].is_null() {
            return;
        }
        let request = Request::of(message);
        let text = message["params"]["vmi"]["token"].as_str().unwrap();
        let call = tokens(text.as_bytes()).next().unwrap();
        let node = request.method == "preVMStart";
        self.calls += 1;
        assert!(self.open.len() < plan.concurrency, "more calls than it takes");
        let max = plan.settings.max_requests.map_or(usize::MAX, |max| max as usize);
        assert!(self.calls <= max, "more calls than --max-requests");
        if !node {
            assert_eq!(tokens(request.domain.as_bytes()).next(), Some(call), "its own document");
        }
        if request.attempt == 2 || self.history.unread_by(call) > 0 {
            assert_eq!((request.id, self.open.len()), (2, 0), "alone, on a fresh worker");
        }
        assert!(self.calls == 1 || self.open.iter().all(|open| self.may_share(open)), "beside it");
        self.event(&format!("reads call {call}, attempt {}", request.attempt));
        let now = Instant::now();
        let at = if self.happens(Fault::Hangs) {
            now + NEVER
        } else if self.happens(Fault::IsSlow) {
            now + self.dice.millis(500)
        } else {
            now + self.dice.millis(4)
        };
        self.print(call);
        self.open.push(Open { id: request.id, call, node, cancelled: false, at });
        self.after_a_message();
    }

    /// Whether a call may have others beside it.
    fn may_share(&self, open: &Open) -> bool {
        self.history.unread_by(open.call) == 0
    }

    fn print(&mut self, call: usize) {
        if self.happens(Fault::Prints) {
            for _ in 0..self.dice.pick(&[1, 3, 70]) {
                self.worker.prints_to_stderr(&format!("about {}", token(call)));
            }
        }
    }

    /// Does what is due.
    async fn act(&mut self) -> Flow {
        let now = Instant::now();
        if let Some(due) = self.open.iter().position(|open| open.at <= now) {
            let open = self.open.swap_remove(due);
            self.answer(&open).await?;
            if self.open.is_empty() {
                self.after_a_message();
            }
            return ControlFlow::Continue(());
        }
        if self.idle_until > now {
            return ControlFlow::Continue(());
        }
        self.idle_until = now + NEVER;
        if !self.unused.is_empty() || self.incomplete.is_some() {
            return ControlFlow::Continue(());
        }
        if self.happens(Fault::ExitsIdle) {
            self.event("exits idle");
            self.worker.exits(0);
            return ControlFlow::Break(());
        }
        if self.happens(Fault::DiesIdle) {
            return self.end("dies idle");
        }
        if self.happens(Fault::ClosesStdin) {
            self.close_stdin();
        } else if self.happens(Fault::BreaksRulesIdle) {
            self.break_a_rule(1000).await;
        }
        ControlFlow::Continue(())
    }

    /// If a process that it started still has its stdin, the shim cannot see that it is closed.
    fn close_stdin(&mut self) {
        if !self.history.plan.has(Fault::Survives) {
            self.event("closes its stdin");
            self.worker.closes_stdin();
        }
    }

    async fn break_a_rule(&mut self, id: u64) {
        self.event("breaks a rule");
        match self.dice.roll(4) {
            0 => self.worker.write(b"\0\0\0\0").await,
            1 => self.worker.write(b"\0\0\0\x01{").await,
            2 => self.worker.reply(id + 1000, "whose?").await,
            _ => self.worker.closes_stdout(),
        }
    }
}
