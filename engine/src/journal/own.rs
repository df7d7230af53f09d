//! The own log: host writes, committed in groups by the threads that wait for them (S1603–S1606).
//!
//! A caller that must wait for durability becomes the leader of a commit if none is under way:
//! it writes everything published so far and syncs once, for itself and for the threads that came
//! meanwhile. Waking a thread takes a system call and a switch: with a single writer none is woken.
//!
//! | atomic | writers | readers | ordering |
//! |---|---|---|---|
//! | `led` | a thread that would lead (swap); the leader, at the end (swap) | as writers | AcqRel: one leads at a time, and sees what the last one did; a leader that ends sees the wants of threads that could not lead |
//! | `begun` | the leader; a waiting thread (by adding 0) | the background | AcqRel read-modify-write: a commit that begins after the touch finds the records published before it |
//! | `done` | the leader | waiting threads | Release/Acquire: the records are marked durable before it |
//! | `ended` | the leader, after `done` and `led` | waiting threads, before `done` | AcqRel/Acquire: no end is slept through |
//! | `expected`, `overdue` | the leader | waiting threads | Release/Acquire: hints, a stale one costs a moment |
//! | `committed` | the leader | the background | Release/Acquire: the records are marked durable before it |
//! | `watched`, `wanted` | threads that wait or poll (max) | as writers, the background | AcqRel/Acquire: only ever raised |

use super::payload::Payloads;
use super::scan::Found;
use super::{Journal, Tail};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::format::batch::Log;
use crate::format::superblock::{LogState, Superblock};
use crate::limits::{Durability, Geometry, Settings};
use crate::queue::{Clk, Content, Gather, Insert, NO_PLACE, NewWrite, Record};
use crate::storage::Storage;
use crate::sync::{AtomicBool, AtomicU64, FutexWord, Ordering, lock};
use crate::unit::{Position, Stamp};
use crate::wake::{Key, Wakes};
use crate::weaken::{Clause, holds};
use rustix::io::Errno;
use rustix::thread::futex;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// The own log.
pub(crate) struct OwnLog {
    pub journal: Journal,
    payloads: Payloads,
    writer: Mutex<Writer>,
    /// Whether a commit is under way; the thread that sets it leads.
    led: AtomicBool,
    /// Commits begun and ended.
    begun: AtomicU64,
    done: AtomicU64,
    /// To sleep on, for the even and the odd commits: they change when one of them has ended, or
    /// when the other kind has and it is their turn to lead.
    ended: [FutexWord; 2],
    /// Where the tail will be once each writer that the last commit served has written again.
    expected: AtomicU64,
    /// Monotonic time from which a commit waits no longer for the writers that are not back.
    overdue: AtomicU64,
    /// The highest round that a waiting thread begins when the time is over.
    watched: AtomicU64,
    failed: OnceLock<Error>,
    /// The highest round that a request waits for without leading it.
    wanted: AtomicU64,
    /// How many positions commits have done with, counted as positions.
    committed: AtomicU64,
    wakes: Arc<Wakes>,
}

struct Writer {
    gather: Gather,
    tail: Tail,
    /// Reused from round to round.
    fresh: Vec<Position>,
    /// In the log file, and not marked durable yet.
    written: Vec<Position>,
    /// Every position below this is in the log file, or void.
    in_log: Position,
    /// Requests whose data the log has and memory still holds.
    logged: Vec<Position>,
}

/// The writer, locked. Its drop wakes those that have found it locked, or no places: they look again.
struct Locked<'a> {
    own: &'a OwnLog,
    /// Until it is dropped.
    writer: Option<MutexGuard<'a, Writer>>,
}

impl Deref for Locked<'_> {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        self.writer.as_ref().expect("until it is dropped")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("until it is dropped")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.writer = None;
        let waiters = &self.own.wakes.waiters;
        if waiters.are_there() {
            waiters.wake(Key::Written..=Key::Written);
            waiters.wake_places(self.own.journal.queue.free());
        }
    }
}

impl OwnLog {
    /// An empty log that promises no place before [`OwnLog::adopt_batches`].
    ///
    /// # Errors
    /// [`Kind::Config`] if the operating system refuses the address space.
    pub fn new(
        superblock: &Superblock,
        geometry: &Geometry,
        opened: u64,
        settings: &Settings,
        storage: Arc<dyn Storage>,
        wakes: Arc<Wakes>,
    ) -> Result<OwnLog> {
        let most = settings.batch_records_max;
        let journal = Journal::new(superblock, geometry, Log::Own, opened, most, storage)?;
        let first = journal.queue.tail();
        let cells = geometry.request_blocks_max().saturating_add(settings.unlogged_records_max);
        Ok(OwnLog {
            payloads: Payloads::new(cells.min(journal.queue.places())),
            writer: Mutex::new(Writer {
                gather: Gather::new(first),
                tail: Tail::new(&superblock.own, geometry, opened),
                fresh: Vec::new(),
                written: Vec::new(),
                in_log: first,
                logged: Vec::new(),
            }),
            led: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            ended: [FutexWord::new(0), FutexWord::new(0)],
            expected: AtomicU64::new(first),
            overdue: AtomicU64::new(0),
            watched: AtomicU64::new(0),
            failed: OnceLock::new(),
            wanted: AtomicU64::new(0),
            committed: AtomicU64::new(first),
            wakes,
            journal,
        })
    }

    fn locked(&self) -> Locked<'_> {
        Locked { own: self, writer: Some(lock(&self.writer)) }
    }

    /// `None` while another thread has the writer.
    fn try_locked(&self) -> Option<Locked<'_>> {
        let writer = self.writer.try_lock().ok()?;
        Some(Locked { own: self, writer: Some(writer) })
    }

    fn refresh_limit(&self, w: &Writer) {
        // A cell is used again when the log has what was in it.
        let mut most = Position::MAX;
        if holds(Clause::CellsLogged) {
            most = w.in_log + self.payloads.cells();
        }
        self.journal.refresh_limit(&w.tail, w.gather.collected(), most);
    }

    /// Takes a record found in the log at opening back into the queue.
    pub fn adopt(&self, record: &Record) -> Option<Position> {
        self.journal.queue.receive(record)
    }

    /// Takes the batches found in the log at opening, each with the highest position that a record
    /// of it was adopted at. Only now places are promised: what was promised stays so.
    pub fn adopt_batches(&self, batches: &[Found], last: &[Position]) {
        let mut w = self.locked();
        batches.iter().zip(last).for_each(|(found, &last)| w.tail.adopt(found, last));
        let Writer { gather, fresh, in_log, .. } = &mut *w;
        gather.run(&self.journal.queue, fresh);
        fresh.clear();
        *in_log = gather.settled();
        self.committed.store(gather.collected(), Ordering::Release);
        self.refresh_limit(&w);
    }

    /// An empty buffer with room for a write's data.
    pub fn buffer(&self, length: usize) -> Vec<u8> {
        self.payloads.buffer(length)
    }

    /// Takes back a buffer that is not needed any more.
    pub fn give(&self, buffer: Vec<u8>) {
        self.payloads.give(buffer);
    }

    /// Where the data of the request at `first` is, until the log has it.
    #[cfg(test)]
    pub fn address(&self, first: Position) -> Option<*const u8> {
        self.payloads.get(first).map(|data| data.as_ptr())
    }

    /// Admits a write with its data, if `may` says so once its places are taken; leaves the data
    /// where it is if it was not admitted. Zeros have none.
    pub fn insert(
        &self,
        clk: &Clk,
        epoch: u64,
        write: &NewWrite<'_>,
        may: impl Fn() -> bool,
        data: &mut Vec<u8>,
    ) -> Insert {
        // A time is sealed before its record can be seen (R2, rule 5 of the queue).
        let seal = |stamp: Stamp| {
            if holds(Clause::SealPublication) {
                clk.raise(stamp.time);
            }
            true
        };
        if data.is_empty() {
            let board = |_, stamp| seal(stamp);
            return self.journal.queue.insert_with(clk, epoch, write, |_| (), may, board);
        }
        let ready = |next| self.payloads.make(next);
        let board = |first, stamp| self.payloads.board(first, data) && seal(stamp);
        let outcome = self.journal.queue.insert_with(clk, epoch, write, ready, may, board);
        if matches!(outcome, Insert::Published { .. }) {
            self.payloads.give(std::mem::take(data));
        }
        outcome
    }

    /// Makes every batch in the log durable, also where commits do not.
    pub fn sync(&self) -> Result<()> {
        self.journal.sync_all(&mut self.locked().tail)
    }

    /// The highest log sequence number known durable.
    pub fn synced(&self) -> u64 {
        self.locked().tail.synced
    }

    /// Copies a record's data, from memory or from the log. `false`: it has been freed meanwhile.
    pub fn read(&self, record: &Record, buf: &mut [u8]) -> Result<bool> {
        if record.content == Content::Zero {
            buf.fill(0);
            return Ok(self.journal.queue.live(record.position).is_some());
        }
        if record.place == NO_PLACE {
            if let Some(data) = self.payloads.get(record.first()) {
                let at = record.index as usize * self.journal.block_size;
                buf.copy_from_slice(&data[at..][..buf.len()]);
                return Ok(self.journal.queue.live(record.position).is_some());
            }
            // The place is set before the data leaves memory, so it is there now.
            return match self.journal.queue.live(record.position) {
                Some(now) if now.place != NO_PLACE => self.journal.read_logged(&now, buf),
                _ => Ok(false),
            };
        }
        self.journal.read_logged(record, buf)
    }

    /// Bytes of data waiting for the log, as an upper bound; 0 while a commit is under way.
    pub fn unlogged(&self) -> u64 {
        let collected = self.try_locked().map(|w| w.gather.collected());
        let tail = self.journal.queue.tail();
        (tail - collected.unwrap_or(tail)) * self.journal.block_size as u64
    }

    /// The round that covers everything published before this call.
    pub fn round_wanted(&self) -> u64 {
        // A read-modify-write, as the leader's: a commit that begins after it finds what was
        // published before it (queue, rule 1).
        self.begun.fetch_add(0, Ordering::AcqRel) + 1
    }

    /// Whether `round` has ended; an error if the log has failed.
    pub fn round_done(&self, round: u64) -> Result<bool> {
        if self.done.load(Ordering::Acquire) >= round {
            return Ok(true);
        }
        self.failed.get().map_or(Ok(false), |error| Err(error.clone()))
    }

    /// A request waits for the end of `round` and will not lead it.
    pub fn want(&self, round: u64) {
        if self.wanted.fetch_max(round, Ordering::AcqRel) < round {
            self.wakes.commit.ring();
        }
    }

    /// How many positions commits have done with, counted as positions: [`OwnLog::journal`]'s tail
    /// if everything published is durable.
    pub fn committed(&self) -> Position {
        self.committed.load(Ordering::Acquire)
    }

    /// Wakes the background's commit if it sleeps until there is as much to commit as there is now.
    /// The caller has taken positions just now.
    pub fn notice(&self) {
        if self.wakes.commit_at.is_passed(self.journal.queue.tail()) {
            self.wakes.commit.ring();
        }
    }

    /// Whether a round is wanted that has not begun.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) > self.begun.load(Ordering::Acquire)
    }

    /// Waits until `round` has ended, leading it if no other thread does. With a clock, the threads
    /// that the last commit served get a moment to join; the last of them to come leads.
    pub fn wait_round(
        &self,
        round: u64,
        durability: Durability,
        linger: Option<&dyn Clock>,
    ) -> Result<()> {
        let (mut watches, mut overdue) = (false, false);
        loop {
            // Read before the rest: a round that ends after this look is not slept through.
            let ended = &self.ended[(round & 1) as usize];
            let seen = ended.load(Ordering::Acquire);
            if self.round_done(round)? {
                return Ok(());
            }
            let left = linger.filter(|_| !overdue).map_or(0, |clock| self.linger(clock));
            if left > 0 {
                watches |= self.watched.fetch_max(round, Ordering::AcqRel) < round;
                overdue = wait_for(ended, seen, watches.then_some(left));
            } else if self.led.swap(true, Ordering::AcqRel) {
                crate::moment::stuck("a commit waits for the one that leads it");
                atomic_wait::wait(ended, seen);
            } else {
                self.lead(durability, linger);
            }
            // A thread woken without being served may be the last waiter, so it watches the time.
            watches = true;
        }
    }

    /// How long to wait, in nanoseconds, for the writers that the last commit served: 0 once as many
    /// writes have come.
    fn linger(&self, clock: &dyn Clock) -> u64 {
        if self.journal.queue.tail() >= self.expected.load(Ordering::Acquire) {
            return 0;
        }
        self.overdue.load(Ordering::Acquire).saturating_sub(clock.monotonic())
    }

    /// Commits once, for every waiting thread; the caller has won `led`.
    fn lead(&self, durability: Durability, linger: Option<&dyn Clock>) {
        let this = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let end = EndOfRound { own: self, this };
        let began = linger.map(Clock::monotonic);
        if self.commit(durability).is_ok() {
            self.done.store(this, Ordering::Release);
        }
        if let (Some(clock), Some(began)) = (linger, began) {
            // Waiting for more writers than a commit takes would cost more than another commit.
            let now = clock.monotonic();
            self.overdue.store(now + now.saturating_sub(began), Ordering::Release);
        }
        drop(end);
    }

    /// Commits once if no commit is under way, and says whether it did: for the background (R10).
    pub fn try_round(&self, durability: Durability) -> Result<bool> {
        let leads = !self.led.swap(true, Ordering::AcqRel);
        if leads {
            self.lead(durability, None);
        }
        self.failed.get().map_or(Ok(leads), |error| Err(error.clone()))
    }

    /// Whether everything published is durable; `false` while a commit is under way.
    pub fn is_clean(&self) -> bool {
        let clean =
            |w: &Writer| w.gather.collected() == self.journal.queue.tail() && w.written.is_empty();
        self.try_locked().is_some_and(|w| clean(&w) && self.failed.get().is_none())
    }

    /// Writes everything published to the log and syncs it.
    fn commit(&self, durability: Durability) -> Result<()> {
        self.with_log(self.locked(), |w| self.commit_as(w, durability))
    }

    /// Gives everything published to the log file, without a sync (R20). It waits for a commit that is
    /// under way if it `may_wait`, else it returns `false` then.
    pub fn write_out(&self, may_wait: bool) -> Result<bool> {
        let w = match self.try_locked() {
            Some(w) => w,
            None if may_wait => self.locked(),
            None => return Ok(false),
        };
        self.with_log(w, |w| self.write_published(w)).map(|_| true)
    }

    /// Changes the log. After a failure nothing does again: what was being written then is lost to it.
    fn with_log<T>(
        &self,
        mut w: Locked<'_>,
        change: impl FnOnce(&mut Writer) -> Result<T>,
    ) -> Result<T> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        let outcome = change(&mut w);
        if let Err(error) = &outcome {
            // Set before the writer is unlocked, so that no other thread takes the log for sound.
            let _ = self.failed.set(error.clone());
        }
        outcome
    }

    fn commit_as(&self, w: &mut Writer, durability: Durability) -> Result<()> {
        let journal = &self.journal;
        let fresh = self.write_published(w)?;
        if !w.written.is_empty() {
            journal.sync(&mut w.tail, durability)?;
            w.written.drain(..).for_each(|position| journal.queue.set_durable(position));
        }
        self.committed.store(w.gather.collected(), Ordering::Release);
        self.expected.store(journal.queue.tail() + fresh, Ordering::Release);
        Ok(())
    }

    /// Writes everything published to the log file; returns how much there was, in positions.
    fn write_published(&self, w: &mut Writer) -> Result<u64> {
        let journal = &self.journal;
        let mut fresh = std::mem::take(&mut w.fresh);
        fresh.clear();
        w.gather.run(&journal.queue, &mut fresh);
        let written = self.write_batches(w, &fresh);
        if written.is_ok() {
            w.in_log = w.gather.settled();
            journal.queue.note(&fresh, w.in_log);
            // The data is in the log's pages: a reader finds it there from now on.
            let firsts = fresh.iter().filter(|&&position| journal.queue.group(position).0 == 0);
            w.logged.extend(firsts);
            w.logged.retain(|&first| !self.payloads.release(first));
        }
        self.refresh_limit(w);
        let count = fresh.len() as u64;
        w.written.extend(&fresh);
        w.fresh = fresh;
        written.map(|()| count)
    }

    fn write_batches(&self, w: &mut Writer, positions: &[Position]) -> Result<()> {
        let journal = &self.journal;
        let size = journal.block_size;
        for chunk in positions.chunks(journal.batch_rows) {
            let records: Vec<Record> = chunk.iter().map(|&p| journal.queue.record(p)).collect();
            let rows = records.iter().map(Into::into).collect();
            let last = records.iter().map(|r| r.position).max().expect("chunks are not empty");
            let has_data = |r: &&Record| r.content == Content::Data;
            let data = |record: &Record| {
                let data = self.payloads.get(record.first()).expect("only a commit takes it away");
                (record.index as usize * size, data)
            };
            let data: Vec<_> = records.iter().filter(has_data).map(data).collect();
            let blocks: Vec<&[u8]> = data.iter().map(|(at, data)| &data[*at..][..size]).collect();
            let mut place = journal.write_batch(&mut w.tail, Stamp::ZERO, rows, &blocks, last)?;
            for record in records.iter().filter(has_data) {
                journal.queue.set_place(record.position, place);
                place += size as u64;
            }
        }
        Ok(())
    }

    /// The furthest that positions may be freed for all the log's writer cares.
    pub fn settled(&self) -> Position {
        self.locked().gather.settled()
    }

    /// The state that the superblock must have before positions below `freed` are given up.
    pub fn state_without(&self, freed: Position) -> LogState {
        self.locked().tail.state_without(freed)
    }

    /// Gives up every position below `freed`; the superblock says so already (R9).
    pub fn free(&self, freed: Position) {
        let mut w = self.locked();
        self.journal.free(&mut w.tail, freed);
        self.refresh_limit(&w);
    }
}

/// Ends a commit, also one that fails or panics: the sleeping threads are woken.
struct EndOfRound<'a> {
    own: &'a OwnLog,
    this: u64,
}

impl Drop for EndOfRound<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what = "a commit of the own log panicked, which is a fault of this program: report it, \
                        with the panic's message";
            let _ = self.own.failed.set(Error::new(Kind::Halted, what));
        }
        self.own.led.swap(false, Ordering::AcqRel);
        let word = |round: u64| &self.own.ended[(round & 1) as usize];
        let (served, next) = (word(self.this), word(self.this + 1));
        served.fetch_add(1, Ordering::AcqRel);
        atomic_wait::wake_all(served);
        // Of the threads that wait for the next commit one must lead it, unless the log has failed.
        next.fetch_add(1, Ordering::AcqRel);
        match self.own.failed.get() {
            None => atomic_wait::wake_one(next),
            Some(_) => atomic_wait::wake_all(next),
        }
        self.wake_others();
    }
}

impl EndOfRound<'_> {
    /// Wakes the requests that this round served, and each background thread that waits until as many
    /// positions are committed.
    fn wake_others(&self) {
        let wakes = &self.own.wakes;
        let last = match self.own.failed.get() {
            None => self.own.done.load(Ordering::Acquire),
            Some(_) => u64::MAX,
        };
        wakes.waiters.wake(Key::Round(0)..=Key::Round(last));
        if self.own.is_wanted() {
            wakes.commit.ring();
        }
        let committed = self.own.committed();
        if wakes.ship_at.pass(committed) {
            wakes.ship.ring();
        }
        if wakes.reflect_at[0].pass(committed) {
            wakes.reflect.ring();
        }
    }
}

/// Sleeps on `word` while it is `seen`, for `timeout` nanoseconds if there is one; whether they
/// are over.
fn wait_for(word: &FutexWord, seen: u32, timeout: Option<u64>) -> bool {
    let Some(timeout) = timeout.map(Duration::from_nanos) else {
        atomic_wait::wait(word, seen);
        return false;
    };
    let timeout = timeout.try_into().ok();
    futex::wait(word, futex::Flags::PRIVATE, seen, timeout.as_ref()) == Err(Errno::TIMEDOUT)
}
