//! What a history is made of, chosen from its seed.

use super::*;

/// What can go wrong. Each history has a few of them, so that each has histories in which it is
/// frequent, and others in which nothing hides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    // When a worker starts.
    DoesNotStart,
    IsSlowToStart,
    // While it has no call.
    ExitsIdle,
    DiesIdle,
    ClosesStdin,
    BreaksRulesIdle,
    // While it reads a call.
    EndsWhileItReads,
    ReadsSlowly,
    // When it answers.
    IsSlow,
    Hangs,
    Refuses,
    AsksForRetry,
    AnswersAndExits,
    Crashes,
    Tears,
    BreaksRules,
    AnswersTwice,
    ReturnsNonsense,
    ClosesPipes,
    Prints,
    Asks,
    // In how it takes signals.
    IgnoresSigterm,
    /// A process that it started has its stdin.
    Survives,
    // What callers do.
    CallersLeave,
    ShortDeadlines,
    LargeDocuments,
    SlowPeers,
}

use Fault::*;

const FAULTS: [Fault; 27] = [
    DoesNotStart,
    IsSlowToStart,
    ExitsIdle,
    DiesIdle,
    ClosesStdin,
    BreaksRulesIdle,
    EndsWhileItReads,
    ReadsSlowly,
    IsSlow,
    Hangs,
    Refuses,
    AsksForRetry,
    AnswersAndExits,
    Crashes,
    Tears,
    BreaksRules,
    AnswersTwice,
    ReturnsNonsense,
    ClosesPipes,
    Prints,
    Asks,
    IgnoresSigterm,
    Survives,
    CallersLeave,
    ShortDeadlines,
    LargeDocuments,
    SlowPeers,
];

#[expect(clippy::struct_excessive_bools, reason = "each is a separate choice")]
pub(super) struct Plan {
    pub(super) settings: Settings,
    pub(super) concurrency: usize,
    pub(super) attachments: bool,
    pub(super) cancel: bool,
    faults: u32,
    /// A fault that can happen happens one time in this many.
    pub(super) rarity: usize,
    pub(super) callers: usize,
    pub(super) calls_of_a_caller: usize,
    /// Pause of a caller between two calls, at most, in milliseconds.
    pub(super) pause: usize,
    pub(super) stop_at: Option<Duration>,
    /// Whether the pool has to serve once all faults have ended.
    pub(super) ends_in_peace: bool,
    pub(super) first_fails: bool,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 0);
        let mut faults = 0;
        for _ in 0..dice.roll(7) {
            faults |= 1 << dice.roll(FAULTS.len());
        }
        let max_workers = dice.pick(&[1, 1, 2, 3]);
        let settings = Settings {
            max_workers,
            min_workers: dice.pick(&[0, 0, 0, 1, max_workers]),
            idle_timeout: dice.pick(&[5, 50, 300_000]) * MILLISECOND,
            queue: Load {
                calls: dice.pick(&[0, 1, 3, 256, 256]),
                bytes: dice.pick(&[500, 1 << 30]),
            },
            max_requests: dice.pick(&[None, None, Some(1), Some(2), Some(4)]),
            start_timeout: dice.pick(&[50, 1000]) * MILLISECOND,
            kill_grace: dice.pick(&[5, 200]) * MILLISECOND,
            memory: Memory::new(dice.pick(&[10 * PIPE_BYTES, 1 << 20])),
            ..settings()
        };
        Self {
            settings,
            concurrency: dice.pick(&[1, 1, 1, 2, 3]),
            attachments: dice.one_in(2),
            cancel: dice.one_in(2),
            faults,
            rarity: dice.pick(&[1, 2, 4, 8]),
            callers: 1 + dice.roll(4),
            calls_of_a_caller: 1 + dice.roll(4),
            pause: dice.pick(&[1, 5, 50, 500]),
            stop_at: dice.one_in(4).then(|| dice.millis(200)),
            ends_in_peace: dice.one_in(2),
            first_fails: faults & (1 << DoesNotStart as u32) != 0 && dice.one_in(8),
        }
    }

    /// Whether this happens now.
    pub(super) fn happens(&self, fault: Fault, dice: &mut Dice) -> bool {
        self.faults & (1 << fault as u32) != 0 && dice.one_in(self.rarity)
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults & (1 << fault as u32) != 0
    }

    /// For the report of a failure.
    pub(super) fn describe(&self) -> String {
        let faults: Vec<_> = FAULTS.into_iter().filter(|fault| self.has(*fault)).collect();
        // The budget of bytes has no text.
        let Settings { max_workers, min_workers, max_requests, queue, .. } = &self.settings;
        let Settings { idle_timeout, start_timeout, kill_grace, .. } = &self.settings;
        format!(
            "faults {faults:?} one time in {}, {} callers × {} calls, concurrency {}, \
             attachments {}, cancel {}, stop at {:?}, {min_workers} to {max_workers} workers, \
             {max_requests:?} requests, {queue:?}, idle timeout {idle_timeout:?}, start timeout \
             {start_timeout:?}, kill grace {kill_grace:?}, memory {}",
            self.rarity,
            self.callers,
            self.calls_of_a_caller,
            self.concurrency,
            self.attachments,
            self.cancel,
            self.stop_at,
            self.settings.memory.limit(),
        )
    }

    pub(super) fn capabilities(&self) -> Value {
        json!({
            "concurrency": self.concurrency, "attachments": self.attachments, "cancel": self.cancel,
        })
    }
}
