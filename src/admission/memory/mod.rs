//! The budget of bytes: everything that a peer can make the shim hold is taken from it first.
//!
//! # Theory of operation
//! Who needs bytes takes a [`Share`], and gives it back by dropping it. What does not fit waits, in
//! order of arrival; only a call that needs little may pass larger ones that do not fit. A waiter
//! does not give up: its caller's deadline ends the wait.
//!
//! Some shares are held by a connection that waits for its peer: it has no call, its request is not
//! complete, or its response is not read. Such a connection is [`Reclaimable`]. If another one
//! needs the bytes, those that have waited longest lose theirs. So a peer that keeps the shim
//! waiting delays others by [`PATIENCE`] or by [`STALL_TIME`], and not by its own deadline.
//!
//! Hundreds of large calls may come at once, when a node boots. They wait for each other: a peer
//! that sends steadily does not keep the shim waiting, and a connection in the line loses its place
//! only when the line has stopped. The line may stop because those in it hold all of the memory.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Watched;

/// Time for which a connection may wait for its peer while a small call needs its bytes, or a new
/// connection its place. A peer that is running needs far less. virt-launcher gives `Info` one
/// second, of which connections that say nothing may take only a part.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// Time without any progress after which a connection loses its bytes to a large call. Several
/// large calls at once are slow for want of the CPU, and have to wait for each other.
const STALL_TIME: Duration = Duration::from_secs(1);

/// Time after which a line of large calls that does not move makes space for others. In the second
/// that virt-launcher gives `Info`, one of them still loses its place.
const LINE_TIME: Duration = Duration::from_millis(500);

/// A peer that sends at least this much in each [`PATIENCE`] does not keep the shim waiting. On one
/// machine that is slow: 1.3 MB in a second.
const STEADY_BYTES: usize = 128 * 1024;

/// A share that is at most this part of the budget is small: it may pass larger ones that do not
/// fit.
const SMALL_PART: usize = 16;

/// What is left for replies: this part of the budget, up to a maximum. If calls that wait for their
/// turn held everything, no call could finish that needs more for its reply.
const REPLIES_PART: usize = 8;
const MAX_REPLIES_BYTES: usize = 512 * 1024;

/// Counts bytes against a limit. Clones share the count.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

struct Shared {
    limit: usize,
    state: Mutex<State>,
    held: Watched<usize>,
}

#[derive(Default)]
struct State {
    held: usize,
    /// Reclaimed bytes that are still held.
    returning: usize,
    last_id: u64,
    /// When a large call had its turn at last.
    moved: Option<Instant>,
    /// By arrival.
    waiting: BTreeMap<u64, Waiting>,
    /// By the time since when they have waited for their peer.
    reclaimable: BTreeMap<u64, Idler>,
}

struct Waiting {
    bytes: usize,
    may_fit: Arc<Notify>,
}

/// What waits for its peer.
struct Idler {
    bytes: usize,
    kind: WaitsFor,
    since: Instant,
    /// When something came or went at last.
    progress: Instant,
    /// What has come since.
    received: usize,
    reclaimed: Option<Arc<Notify>>,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// A call: it is idle.
    Call,
    /// Its turn, with the beginning of a request. Only its place can be reclaimed.
    Turn,
    /// The rest of a request, or that its response is read.
    Peer,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.0.limit)
    }
}

impl Memory {
    /// Allows no more than `limit` bytes at a time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, state: Mutex::default(), held: Watched::default() }))
    }

    /// Returns the limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Returns the bytes that are held.
    #[must_use]
    pub fn held(&self) -> &Watched<usize> {
        &self.0.held
    }

    /// Returns a share that is empty.
    #[must_use]
    pub fn empty(&self) -> Share {
        Share { bytes: 0, memory: self.clone() }
    }

    /// Takes bytes when its turn has come. Waits forever for more than the limit. Cancel safe.
    pub async fn take(&self, bytes: usize) -> Share {
        let place = {
            let mut state = self.lock();
            let id = state.next_id();
            let may_fit = Arc::<Notify>::default();
            state.waiting.insert(id, Waiting { bytes, may_fit: may_fit.clone() });
            Place { id, may_fit, memory: self }
        };
        loop {
            if self.take_turn(place.id, bytes) {
                return Share { bytes, memory: self.clone() };
            }
            self.reclaim(bytes);
            // What is not yet to be reclaimed may be so later.
            let _ = timeout(PATIENCE / 2, place.may_fit.notified()).await;
        }
    }

    /// Counts what waits for its peer and may lose `bytes` to others.
    #[must_use]
    pub fn reclaimable(&self, bytes: usize, kind: WaitsFor) -> Reclaimable {
        let mut state = self.lock();
        let id = state.next_id();
        let notify = Arc::<Notify>::default();
        let reclaimed = Some(notify.clone());
        let since = Instant::now();
        state
            .reclaimable
            .insert(id, Idler { bytes, kind, since, progress: since, received: 0, reclaimed });
        Reclaimable { id, notify, memory: self.clone() }
    }

    /// Returns the number of connections that wait for a call and are not reclaimed.
    #[must_use]
    pub fn idle(&self) -> usize {
        let state = self.lock();
        state.reclaimable.values().filter(|idler| idler.is_idle()).count()
    }

    /// Reclaims the place of the connection that has waited longest for its peer, of all or of the
    /// idle ones. If none has, and the line of those that wait for their turn has stopped, the
    /// first of them makes space. Returns whether one has waited for long enough.
    #[must_use]
    pub fn reclaim_place(&self, only_idle: bool) -> bool {
        let mut state = self.lock();
        let State { reclaimable, returning, moved, .. } = &mut *state;
        let has_stopped = moved.is_none_or(|moved| moved.elapsed() >= LINE_TIME);
        let is_due = |idler: &Idler, kind: fn(&Idler) -> bool, time| {
            idler.reclaimed.is_some() && kind(idler) && idler.since.elapsed() >= time
        };
        let waits_for_peer: fn(&Idler) -> bool =
            if only_idle { Idler::is_idle } else { |idler| idler.kind != WaitsFor::Turn };
        let mut idlers = reclaimable.values_mut();
        let mut longest = idlers.find(|idler| is_due(idler, waits_for_peer, PATIENCE));
        if longest.is_none() && !only_idle && has_stopped {
            let in_line: fn(&Idler) -> bool = |idler| idler.kind == WaitsFor::Turn;
            longest = reclaimable.values_mut().find(|idler| is_due(idler, in_line, LINE_TIME));
        }
        let is_found = longest.is_some();
        if let Some(idler) = longest {
            idler.reclaim(returning);
        }
        is_found
    }

    /// Takes the bytes if they fit and no earlier waiter has to be first.
    fn take_turn(&self, id: u64, bytes: usize) -> bool {
        let mut state = self.lock();
        let free = self.free(&state);
        let mut earlier = state.waiting.range(..id).map(|(_, waiting)| waiting);
        let passes = earlier.all(|waiting| self.is_small(bytes) && waiting.bytes > free);
        if bytes > free || !passes {
            return false;
        }
        state.waiting.remove(&id);
        self.add(&mut state, bytes);
        true
    }

    /// Reclaims as much as `bytes` more would need, of those that have waited longest.
    fn reclaim(&self, bytes: usize) {
        let mut state = self.lock();
        let State { held, returning, reclaimable, .. } = &mut *state;
        let is_small = self.is_small(bytes);
        let mut idlers = reclaimable.values_mut().filter(|idler| {
            let is_due = if is_small {
                idler.since.elapsed() >= PATIENCE
            } else {
                idler.progress.elapsed() >= STALL_TIME
            };
            is_due && idler.reclaimed.is_some() && idler.kind != WaitsFor::Turn
        });
        let limit = self.turns_limit();
        while held.saturating_sub(*returning).saturating_add(bytes) > limit {
            let Some(idler) = idlers.next() else { break };
            idler.reclaim(returning);
        }
    }

    /// Returns the bytes that those who wait for their turn may take.
    fn free(&self, state: &State) -> usize {
        self.turns_limit().saturating_sub(state.held)
    }

    fn turns_limit(&self) -> usize {
        self.0.limit - (self.0.limit / REPLIES_PART).min(MAX_REPLIES_BYTES)
    }

    fn is_small(&self, bytes: usize) -> bool {
        bytes <= self.0.limit / SMALL_PART
    }

    fn add(&self, state: &mut State, bytes: usize) {
        state.held += bytes;
        self.changed(state);
    }

    fn subtract(&self, bytes: usize) {
        if bytes > 0 {
            let mut state = self.lock();
            state.held -= bytes;
            self.changed(&state);
        }
    }

    /// Wakes those whose turn may have come: the first, and the first small one that would fit.
    fn changed(&self, state: &State) {
        self.0.held.modify(|held| *held = state.held);
        let free = self.free(state);
        let mut waiting = state.waiting.values();
        if let Some(first) = waiting.next() {
            first.may_fit.notify_one();
            if first.bytes > free
                && let Some(small) =
                    waiting.find(|other| self.is_small(other.bytes) && other.bytes <= free)
            {
                small.may_fit.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl Idler {
    fn is_idle(&self) -> bool {
        self.kind == WaitsFor::Call && self.reclaimed.is_some()
    }

    fn reclaim(&mut self, returning: &mut usize) {
        if let Some(notify) = self.reclaimed.take() {
            notify.notify_one();
            *returning += self.bytes;
        }
    }
}

/// A place among those that wait. Dropping it lets the next one in.
struct Place<'a> {
    id: u64,
    may_fit: Arc<Notify>,
    memory: &'a Memory,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        state.waiting.remove(&self.id);
        self.memory.changed(&state);
    }
}

/// Bytes that were taken. Dropping it gives them back.
pub struct Share {
    bytes: usize,
    memory: Memory,
}

impl Share {
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the limit for all shares.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.memory.limit()
    }

    /// Takes `bytes` more, or nothing. It passes those that wait: what it belongs to will end
    /// sooner than they begin.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let mut state = self.memory.lock();
        let fits = state.held.saturating_add(bytes) <= self.memory.0.limit;
        if fits {
            self.memory.add(&mut state, bytes);
            self.bytes += bytes;
        }
        fits
    }

    /// Takes `bytes` more as soon as there are as many. Waits forever for more than the limit.
    pub async fn grow(&mut self, bytes: usize) {
        let memory = self.memory.clone();
        loop {
            let changes = memory.held().changes();
            if self.try_grow(bytes) {
                return;
            }
            memory.reclaim(bytes);
            let _ = timeout(PATIENCE / 2, memory.held().changed(changes)).await;
        }
    }

    /// Gives all but `bytes` back.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.memory.subtract(surplus);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.subtract(self.bytes);
    }
}

/// Counts as waiting for its peer until it is dropped.
pub struct Reclaimable {
    id: u64,
    notify: Arc<Notify>,
    memory: Memory,
}

impl Reclaimable {
    /// Counts bytes that have come.
    pub fn progress(&self, bytes: usize) {
        if let Some(idler) = self.memory.lock().reclaimable.get_mut(&self.id) {
            idler.progress = Instant::now();
            idler.received += bytes;
            if idler.received >= STEADY_BYTES {
                (idler.since, idler.received) = (idler.progress, 0);
            }
        }
    }

    /// It has what it waited for: its turn.
    pub fn had_its_turn(self) {
        self.memory.lock().moved = Some(Instant::now());
    }

    /// Completes when others need its bytes. Cancel safe.
    pub async fn reclaimed(&self) {
        self.notify.notified().await;
        // For those who ask again.
        self.notify.notify_one();
    }
}

impl Drop for Reclaimable {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        if let Some(idler) = state.reclaimable.remove(&self.id)
            && idler.reclaimed.is_none()
        {
            state.returning -= idler.bytes;
        }
    }
}
