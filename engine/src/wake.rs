//! How a waiting request learns that it may go on, and a background thread that it has work.
//!
//! A request that cannot go on enters a [`Waker`] under the thing that it waits for ([`Key`]) and
//! then looks once more. The thing's owner changes the state first and calls [`Waiters::wake`]
//! afterwards. A background thread sleeps at its [`Bell`]; where a bell would ring too often, the
//! thread leaves a [`Mark`], and the bell rings when positions pass it.
//!
//! | atomic | writers | readers | ordering |
//! |---|---|---|---|
//! | `Waiters::count` | a waiter that enters or leaves; an owner (by adding 0) | an owner | AcqRel read-modify-write: of the waiter's and the owner's, the second sees the first. So the owner finds the waiter, or the waiter's second look finds the new state |
//! | `Bell::rung` | an owner | the sleeper | AcqRel/Acquire: the state has changed before the bell rang |
//! | `Bell::waiting` | the sleeper; an owner (by adding 0) | an owner | AcqRel read-modify-write: as `count` |
//! | `Mark` | the sleeper (swap); an owner (by adding 0, or swap) | an owner | AcqRel read-modify-write: as `count`; a host's write only loads it, see [`Mark::is_passed`] |

use crate::sync::{AtomicU64, Ordering, lock};
use crate::unit::{Block, Position};
use crate::weaken::{Clause, holds};
use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

/// The things that requests wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// That the own log's writer is free: the request can be given to the log file then (R20).
    Written,
    /// The end of this commit, or of a later one.
    Round(u64),
    /// Free places in the own log (R9).
    Places,
    /// The end of a partial write's turn on this block (R15).
    Turn(Block),
    /// The peer's answer to the question of this number (R7).
    Reply(u64),
    /// The outcome of the takeover asked for.
    Takeover,
    /// Room among the writes that wait to be admitted.
    Room,
    /// The end of pacing.
    Paced,
    /// This moment of the monotonic clock, in nanoseconds.
    Time(u64),
}

impl Key {
    /// Every key.
    const ALL: RangeInclusive<Key> = Key::Written..=Key::Time(u64::MAX);
}

/// The wakers of the requests that wait, by the thing that each waits for.
#[derive(Debug, Default)]
pub struct Waiters {
    count: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// The newest waiter's number.
    last: u64,
    waiting: BTreeMap<(Key, u64), Waiting>,
    /// Places that woken waiters have neither taken nor left yet: no other waiter is woken for them.
    claims: HashMap<u64, u64>,
    claimed: u64,
}

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    places: u64,
}

impl Waiters {
    /// A number for a waiter, later than all before it.
    pub fn number(&self) -> u64 {
        let mut table = lock(&self.table);
        table.last += 1;
        table.last
    }

    /// Enters the waiter `number` under `key`, or changes its waker there. `places`: how many it
    /// needs of [`Key::Places`]. Whether it is new there: it must look again then.
    pub fn enter(&self, key: Key, number: u64, places: u64, waker: &Waker) -> bool {
        let waiting = Waiting { waker: waker.clone(), places };
        // Counted first, so that the count is never below the number of waiters in the table.
        self.count.fetch_add(1, Ordering::AcqRel);
        let is_new = lock(&self.table).waiting.insert((key, number), waiting).is_none();
        // Touched once more if new: an owner that came in between has not found it.
        self.count.fetch_sub(u64::from(!is_new), Ordering::AcqRel);
        is_new
    }

    /// Takes the waiter `number` out, if it is still there.
    pub fn leave(&self, key: Key, number: u64) {
        if lock(&self.table).waiting.remove(&(key, number)).is_some() {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The waiter `number` has used the places that it was woken for, or does not want them.
    pub fn unclaim(&self, number: u64) {
        let mut table = lock(&self.table);
        let claim = table.claims.remove(&number).unwrap_or(0);
        table.claimed -= claim;
    }

    /// Whether anybody waits; the caller has changed the state before.
    pub fn are_there(&self) -> bool {
        // A read-modify-write, so that it is ordered against the waiter's.
        self.count.fetch_add(0, Ordering::AcqRel) > 0
    }

    /// Wakes every waiter for one of `keys`, which the caller has made true.
    pub fn wake(&self, keys: RangeInclusive<Key>) {
        if !self.are_there() {
            return;
        }
        let (first, last) = keys.into_inner();
        let mut woken = Vec::new();
        {
            let waiting = &mut lock(&self.table).waiting;
            let range = (first, 0)..=(last, u64::MAX);
            while let Some((&next, _)) = waiting.range(range.clone()).next() {
                woken.extend(waiting.remove(&next));
            }
        }
        self.call(woken);
    }

    /// Wakes the first waiter for `key`, which wakes the next one when it needs no more.
    pub fn wake_first(&self, key: Key) {
        if !self.are_there() {
            return;
        }
        let first = {
            let waiting = &mut lock(&self.table).waiting;
            let next = waiting.range((key, 0)..=(key, u64::MAX)).next().map(|(&next, _)| next);
            next.and_then(|next| waiting.remove(&next))
        };
        self.call(first.into_iter().collect());
    }

    /// Wakes every waiter: each looks whether its request goes on or has ended.
    pub fn wake_all(&self) {
        self.wake(Key::ALL);
    }

    /// Wakes as many waiters for places, the first first, as `free` places are enough for.
    /// Read `free` after [`Waiters::are_there`].
    pub fn wake_places(&self, free: u64) {
        let mut woken = Vec::new();
        {
            let mut table = lock(&self.table);
            let mut left = free.saturating_sub(table.claimed);
            let places = (Key::Places, 0)..=(Key::Places, u64::MAX);
            while let Some((&key, first)) = table.waiting.range(places.clone()).next()
                && first.places <= left
            {
                let first = table.waiting.remove(&key).expect("just seen");
                left -= first.places;
                table.claimed += first.places;
                table.claims.insert(key.1, first.places);
                woken.push(first);
            }
        }
        self.call(woken);
    }

    fn call(&self, woken: Vec<Waiting>) {
        if !woken.is_empty() {
            self.count.fetch_sub(woken.len() as u64, Ordering::AcqRel);
            if holds(Clause::Wake) {
                woken.into_iter().for_each(|waiting| waiting.waker.wake());
            }
        }
    }

    /// The earliest moment that a request waits for, by the monotonic clock.
    pub fn next_time(&self) -> Option<u64> {
        let table = lock(&self.table);
        match table.waiting.range((Key::Time(0), 0)..).next() {
            Some(((Key::Time(time), _), _)) => Some(*time),
            _ => None,
        }
    }

    /// How many places the first in line waits for; 0 if nobody does.
    pub fn places_wanted(&self) -> u64 {
        if !self.are_there() {
            return 0;
        }
        let table = lock(&self.table);
        let places = (Key::Places, 0)..=(Key::Places, u64::MAX);
        table.waiting.range(places).next().map_or(0, |(_, first)| first.places)
    }

    /// How many wait for places, or were woken for some and have not looked yet.
    #[cfg(any(all(test, not(loom)), feature = "simulate"))]
    pub fn in_line(&self) -> usize {
        let table = lock(&self.table);
        let places = (Key::Places, 0)..=(Key::Places, u64::MAX);
        table.waiting.range(places).count() + table.claims.len()
    }
}

/// Wakes one background thread, and costs next to nothing while it is awake.
#[derive(Debug)]
pub struct Bell {
    rung: AtomicU64,
    waiting: AtomicU64,
    gate: Mutex<()>,
    wake: Condvar,
}

impl Default for Bell {
    fn default() -> Bell {
        let zero = || AtomicU64::new(0);
        Bell { rung: zero(), waiting: zero(), gate: Mutex::new(()), wake: Condvar::new() }
    }
}

impl Bell {
    /// How often it has rung; to be read before looking at what the bell is about.
    pub fn heard(&self) -> u64 {
        self.rung.load(Ordering::Acquire)
    }

    /// The state that it is about has changed.
    pub fn ring(&self) {
        self.rung.fetch_add(1, Ordering::AcqRel);
        // A read-modify-write, so that it is ordered against the sleeper's.
        if self.waiting.fetch_add(0, Ordering::AcqRel) > 0 {
            drop(lock(&self.gate));
            self.wake.notify_all();
        }
    }

    /// Sleeps until it has rung since `heard`, or for `timeout`.
    pub fn wait(&self, heard: u64, timeout: Option<Duration>) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let guard = lock(&self.gate);
        if self.heard() == heard {
            match timeout {
                Some(timeout) => drop(self.wake.wait_timeout(guard, timeout)),
                None => drop(self.wake.wait(guard)),
            }
        }
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A position behind which a sleeper wants to be woken; none while it is awake.
#[derive(Debug)]
pub struct Mark(AtomicU64);

impl Default for Mark {
    fn default() -> Mark {
        Mark(AtomicU64::new(Mark::NONE))
    }
}

impl Mark {
    /// Nothing is behind it.
    pub const NONE: Position = Position::MAX;

    /// Sets the mark; the sleeper looks once more before it sleeps.
    pub fn set(&self, at: Position) {
        self.0.swap(at, Ordering::AcqRel);
    }

    /// Whether positions have come `upto` a place behind the mark, which is taken away then; the
    /// caller has changed the state before.
    pub fn pass(&self, upto: Position) -> bool {
        upto > self.0.fetch_add(0, Ordering::AcqRel)
            && self.0.swap(Mark::NONE, Ordering::AcqRel) < upto
    }

    /// As [`Mark::pass`], for a caller that has just taken positions by a read-modify-write of the
    /// tail that the sleeper touches by one as well (`Queue::horizon`) between the mark and its last
    /// look: of the two, the second sees the first. It takes a load while nobody sleeps.
    pub fn is_passed(&self, upto: Position) -> bool {
        upto > self.0.load(Ordering::Acquire) && self.0.swap(Mark::NONE, Ordering::AcqRel) < upto
    }
}

/// The wakers of the requests and the background of one device.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// Requests that wait.
    pub waiters: Waiters,
    /// A commit is wanted, or due.
    pub commit: Bell,
    /// The mark of the own queue's tail.
    pub commit_at: Mark,
    /// Something may be shipped, or asked for.
    pub ship: Bell,
    /// The mark of the committed positions.
    pub ship_at: Mark,
    /// Something may be reflected, or a checkpoint free places.
    pub reflect: Bell,
    /// The marks of the committed positions, and of the received queue's tail.
    pub reflect_at: [Mark; 2],
    /// There is a link, or the peer has said hello, or the connection is over.
    pub line: Bell,
    /// The peer has answered for checksums.
    pub compare: Bell,
}

impl Wakes {
    /// The background looks at everything.
    pub fn ring_all(&self) {
        for bell in [&self.commit, &self.ship, &self.reflect, &self.line, &self.compare] {
            bell.ring();
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static UNPARK: Waker = Waker::from(Arc::new(Unpark(std::thread::current())));
}

/// Calls `poll` with a waker that unparks this thread, until it breaks off with an outcome. In
/// between the thread is parked: until it is woken, or for the nanoseconds that `poll` says.
pub(crate) fn block_on<T>(mut poll: impl FnMut(&Waker) -> ControlFlow<T, Option<u64>>) -> T {
    UNPARK.with(|waker| {
        loop {
            match poll(waker) {
                ControlFlow::Break(outcome) => return outcome,
                ControlFlow::Continue(Some(left)) => {
                    std::thread::park_timeout(Duration::from_nanos(left));
                }
                ControlFlow::Continue(None) => std::thread::park(),
            }
        }
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn stand<const N: usize>(waiters: &Waiters, places: [u64; N]) -> [Arc<Count>; N] {
        let mut number = 0;
        places.map(|places| {
            let count = Arc::new(Count::default());
            number += 1;
            assert!(waiters.enter(Key::Places, number, places, &Waker::from(count.clone())));
            count
        })
    }

    fn woken<const N: usize>(counts: &[Arc<Count>; N]) -> [u64; N] {
        counts.each_ref().map(|count| count.0.load(Ordering::Acquire))
    }

    /// A woken waiter keeps its places from the others until it has looked; what it leaves is for the
    /// next.
    #[test]
    fn places_wake_as_many_as_they_are_enough_for() {
        let waiters = Waiters::default();
        let all = stand(&waiters, [2, 1, 4, 1]);
        waiters.wake_places(1);
        assert_eq!(woken(&all), [0; 4], "the first needs two");
        waiters.wake_places(3);
        assert_eq!(woken(&all), [1, 1, 0, 0]);
        waiters.wake_places(3);
        assert_eq!(woken(&all), [1, 1, 0, 0], "the three are claimed");
        // The first is dropped with its places, the second takes its one, and two come free.
        waiters.unclaim(1);
        waiters.unclaim(2);
        waiters.wake_places(4);
        assert_eq!(woken(&all), [1, 1, 1, 0]);
        waiters.leave(Key::Places, 4);
        assert!(!waiters.are_there());
    }

    #[test]
    fn a_round_wakes_those_that_it_served() {
        let waiters = Waiters::default();
        let counts: [_; 4] = std::array::from_fn(|_| Arc::new(Count::default()));
        for (number, count) in (0..).zip(&counts) {
            waiters.enter(Key::Round(number), number, 0, &Waker::from(count.clone()));
        }
        assert!(!waiters.enter(Key::Round(3), 3, 0, &Waker::from(counts[3].clone())));
        waiters.wake(Key::Round(0)..=Key::Round(2));
        waiters.wake(Key::Round(0)..=Key::Round(2));
        assert_eq!(woken(&counts), [1, 1, 1, 0]);
        waiters.enter(Key::Time(9), 7, 0, &Waker::from(counts[0].clone()));
        assert_eq!(waiters.next_time(), Some(9));
        waiters.wake_all();
        assert_eq!(woken(&counts), [2, 1, 1, 1]);
        assert!(!waiters.are_there() && waiters.next_time().is_none());
    }
}
