//! The normal volumes of a running pair, compared by checksums: hosts go on, nothing is changed, and
//! a block that is not at rest at both devices is never called equal or different
//! ([`super::checksums`] has the rule).
//!
//! The caller's thread walks the blocks in pieces, one question under way at a time. A block that
//! was not at rest is looked at again in a later round, and is `undecided` after the last. With the
//! connection a question is lost, and asked anew over the next. Memory is bounded: the looks of
//! a piece, [`LATER_MAX`] stretches for the next round, and the ranges of the report.

use super::checksums::Look;
use crate::compare::{CompareLimits, CompareReport, Differing};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::frame::{CHECKSUMS_FEATURE, Frame, SUM_BYTES, SUMS_MAX, Seen, Sum};
use crate::link::{Lane, Link};
use crate::sync::{AtomicU64, Ordering, lock};
use crate::unit::Block;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Most bytes of blocks of one question.
const PIECE_BYTES: u64 = if cfg!(feature = "simulate") { 16 << 10 } else { 4 << 20 };

/// Most stretches of blocks that wait for the next round; what is beyond them is undecided.
const LATER_MAX: usize = 65_536;

/// How long an answer, a connection or room in the lane is waited for at a time, in nanoseconds.
const POLL_NS: u64 = 10_000_000;

/// The state that the control lane shares with the comparison.
#[derive(Default)]
pub(crate) struct Comparing {
    /// The newest question's number.
    last: u64,
    /// The question under way.
    open: Option<Open>,
    reply: Option<Vec<Sum>>,
    /// Where the comparison stands, while there is one.
    report: Option<CompareReport>,
}

struct Open {
    id: u64,
    count: u64,
    absent: u64,
}

impl Comparing {
    /// Takes the answer to the question `id`; one that is not under way any more has none.
    pub fn take_reply(&mut self, id: u64, sums: Vec<Sum>) -> std::result::Result<(), String> {
        let Some(open) = self.open.take_if(|open| open.id == id) else { return Ok(()) };
        let blocks: u64 = sums.iter().map(|sum| u64::from(sum.blocks)).sum();
        let has_absent = sums.iter().any(|sum| sum.seen == Seen::Absent);
        let fits = match has_absent {
            true => sums.len() == 1 && blocks <= open.absent,
            false => blocks == open.count,
        };
        if !fits {
            return Err(format!(
                "the peer was asked for the checksums of {} blocks, and whether {} are absent, and \
                 answers {blocks}",
                open.count, open.absent
            ));
        }
        self.reply = Some(sums);
        Ok(())
    }

    /// Where the comparison stands, while there is one.
    pub fn report(&self) -> Option<&CompareReport> {
        self.report.as_ref()
    }
}

/// The next thing to do with a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The next step at once.
    Goes,
    /// A step has nothing to do before this moment of the monotonic clock, in nanoseconds, unless an
    /// answer comes.
    Waits(u64),
    /// It is over ([`Event::Compared`]).
    Done(CompareReport),
}

/// A comparison under way at a device. It ends when this is dropped.
#[derive(Debug)]
pub struct Comparison {
    device: Arc<Device>,
    limits: CompareLimits,
    bytes_per_second: AtomicU64,
    walk: Mutex<Walk>,
}

/// Neighbouring blocks: the first, and how many.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: Block,
    blocks: u64,
}

/// A question under way.
struct Piece {
    /// The connection in which it was asked.
    session: u64,
    looks: Vec<Look>,
}

/// How far the comparison has come.
#[derive(Default)]
struct Walk {
    /// The stretches that are to be looked at in this round.
    left: VecDeque<Stretch>,
    /// The blocks that were not at rest in it.
    later: Vec<Stretch>,
    /// Rounds that are over.
    rounds: u32,
    /// No question before this moment of the monotonic clock.
    not_before: u64,
    piece: Option<Piece>,
    report: CompareReport,
    is_done: bool,
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} in round {}", self.report, self.rounds)
    }
}

impl Device {
    /// Begins to compare the normal volumes of this device and its peer, whether it serves or not, while
    /// hosts go on. [`Comparison::run`] does it in the caller's thread, or [`Comparison::step`] a
    /// piece at a time. Nothing is ever changed by it.
    ///
    /// # Errors
    /// [`Kind::Config`] for limits out of range; [`Kind::Invalid`] if the range is not within a volume,
    /// if there is a comparison at this device already, or if the peer's program does not know of it;
    /// [`Kind::NoPeer`] without a connection; [`Kind::Halted`].
    pub fn begin_compare(self: &Arc<Self>, limits: CompareLimits) -> Result<Comparison> {
        self.check_halted()?;
        if limits.bytes_per_second == 0 || limits.looks == 0 {
            let what =
                "a comparison of 0 bytes a second, or with 0 looks, would never come to an end";
            return Err(Error::new(Kind::Config, what));
        }
        let left = self.stretches(limits.range.as_ref())?;
        let no_peer = || Error::new(Kind::NoPeer, "there is no connection to the other device");
        self.asked_over()?.ok_or_else(no_peer)?;
        let blocks = left.iter().map(|stretch| stretch.blocks).sum();
        let report = CompareReport { blocks, ..CompareReport::default() };
        {
            let mut comparing = lock(&self.peer.comparing);
            if comparing.report.is_some() {
                let what = "a comparison is under way at this device: wait for its end, or drop it";
                return Err(Error::new(Kind::Invalid, what));
            }
            comparing.report = Some(report.clone());
        }
        let walk = Mutex::new(Walk { left, report, ..Walk::default() });
        let bytes_per_second = AtomicU64::new(limits.bytes_per_second);
        Ok(Comparison { device: self.clone(), limits, bytes_per_second, walk })
    }

    fn stretches(&self, range: Option<&(u32, std::ops::Range<u64>)>) -> Result<VecDeque<Stretch>> {
        let whole = |volume| Stretch {
            first: Block { volume, number: 0 },
            blocks: self.volumes.blocks(volume),
        };
        let Some((volume, bytes)) = range else {
            let mut ids: Vec<u32> = self.geometry.volumes.iter().map(|v| v.id).collect();
            ids.sort_unstable();
            return Ok(ids.into_iter().map(whole).filter(|stretch| stretch.blocks > 0).collect());
        };
        let within = self.volumes.size(*volume).is_some_and(|size| bytes.end <= size);
        if !within || bytes.is_empty() {
            let what = format!("bytes {bytes:?} of volume {volume} are not within it, or none");
            return Err(Error::new(Kind::Invalid, what));
        }
        let size = u64::from(self.geometry.block_size);
        let number = bytes.start / size;
        let first = Block { volume: *volume, number };
        Ok([Stretch { first, blocks: bytes.end.div_ceil(size) - number }].into())
    }

    /// The session and link over which the peer can be asked for checksums, if a connection stands.
    fn asked_over(&self) -> Result<Option<(u64, Arc<dyn Link>)>> {
        let failover = lock(&self.failover);
        let peer = failover.connection.peer();
        if peer.is_some_and(|peer| peer.features & CHECKSUMS_FEATURE == 0) {
            let what = "the peer's program is an older one that knows no comparison (wire feature 8): \
                        give the peer this version";
            return Err(Error::new(Kind::Invalid, what));
        }
        Ok(failover.connection.standing())
    }
}

impl Drop for Comparison {
    fn drop(&mut self) {
        let mut comparing = lock(&self.device.peer.comparing);
        (comparing.open, comparing.reply, comparing.report) = (None, None, None);
    }
}

impl Comparison {
    /// From now on this device reads at most so many bytes of blocks in a second, 1 at least.
    pub fn limit(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second.max(1), Ordering::Relaxed);
    }

    /// Whether it is one of this device's.
    #[cfg(feature = "simulate")]
    pub(crate) fn is_of(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }

    /// Compares in the caller's thread until it is over; somebody else drives the devices' steps. Without a
    /// connection it waits for one, for ever.
    ///
    /// # Errors
    /// As [`Comparison::step`].
    pub fn run(&self) -> Result<CompareReport> {
        loop {
            let heard = self.device.wakes.compare.heard();
            match self.step()? {
                Compare::Goes => {}
                Compare::Waits(until) => {
                    let left = until.saturating_sub(self.device.clock.monotonic());
                    let left = Duration::from_nanos(left.min(POLL_NS));
                    self.device.wakes.compare.wait(heard, Some(left));
                }
                Compare::Done(report) => return Ok(report),
            }
        }
    }

    /// Asks for the next piece, or takes the answer. Never waits but for the storage's reads.
    ///
    /// # Errors
    /// [`Kind::Halted`]; [`Kind::Invalid`] if the peer has got an older program that knows no
    /// comparison. The comparison goes no further then.
    pub fn step(&self) -> Result<Compare> {
        let device = &self.device;
        let _telling = device.events.enter();
        device.check_halted()?;
        let mut walk = lock(&self.walk);
        let done = |walk: &Walk| Ok(Compare::Done(walk.report.clone()));
        if walk.is_done {
            return done(&walk);
        }
        let now = device.clock.monotonic();
        let over = device.asked_over()?;
        if let Some(piece) = walk.piece.take() {
            let reply = lock(&device.peer.comparing).reply.take();
            match reply {
                Some(sums) => self.judge(&mut walk, &piece, &sums),
                None if over.is_some_and(|(session, _)| session == piece.session) => {
                    walk.piece = Some(piece);
                    return Ok(Compare::Waits(now.saturating_add(POLL_NS)));
                }
                // The question is lost with its connection.
                None => {}
            }
            return Ok(Compare::Goes);
        }
        if walk.left.is_empty() && !self.next_round(&mut walk, now) {
            walk.is_done = true;
            let report = walk.report.clone();
            lock(&device.peer.comparing).report = None;
            device.tell(Event::Compared(report));
            return done(&walk);
        }
        if now < walk.not_before {
            return Ok(Compare::Waits(walk.not_before));
        }
        match over.filter(|(_, link)| !device.is_full(link)) {
            Some((session, _)) => self.ask(&mut walk, session, now),
            None => return Ok(Compare::Waits(now.saturating_add(POLL_NS))),
        }
        Ok(Compare::Goes)
    }

    /// Begins the next round, if one is needed and allowed; what waited for it is undecided otherwise.
    fn next_round(&self, walk: &mut Walk, now: u64) -> bool {
        walk.rounds += 1;
        let later = std::mem::take(&mut walk.later);
        let waiting = std::mem::take(&mut walk.report.waiting);
        if waiting > 0 && walk.rounds < self.limits.looks {
            walk.left = later.into();
            walk.not_before = walk.not_before.max(now.saturating_add(self.limits.again_after_ns));
            return true;
        }
        walk.report.undecided += waiting;
        false
    }

    /// Asks the peer for the next piece, once it has been looked at here.
    fn ask(&self, walk: &mut Walk, session: u64, now: u64) {
        let device = &self.device;
        let Stretch { first, blocks } = walk.left[0];
        let most = (PIECE_BYTES / u64::from(device.geometry.block_size)).clamp(1, SUMS_MAX.into());
        let count = most.min(blocks);
        let absent = device.absent_blocks(first, blocks);
        let mut looks = Vec::new();
        let bytes = device.look(first, count, &mut looks);
        walk.report.read_bytes += bytes;
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        let takes = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        walk.not_before = now.saturating_add(u64::try_from(takes).unwrap_or(u64::MAX));
        let id = {
            let mut comparing = lock(&device.peer.comparing);
            comparing.last += 1;
            comparing.reply = None;
            comparing.open = Some(Open { id: comparing.last, count, absent });
            comparing.last
        };
        let question = Frame::ChecksumRequest { id, block: first, count: count as u32, absent };
        walk.report.line_bytes += QUESTION_BYTES;
        walk.piece = Some(Piece { session, looks });
        // A connection that has ended is found at the next step.
        let _ = device.send(Lane::Control, &question);
    }

    /// The peer has answered: each block that was at rest at both is held against the other's.
    fn judge(&self, walk: &mut Walk, piece: &Piece, sums: &[Sum]) {
        let device = &self.device;
        walk.report.line_bytes += REPLY_BYTES + (sums.len() * SUM_BYTES) as u64;
        let stretch = &mut walk.left[0];
        let first = stretch.first;
        let answered = sums.iter().map(|sum| u64::from(sum.blocks)).sum::<u64>();
        stretch.first.number += answered;
        stretch.blocks -= answered;
        if stretch.blocks == 0 {
            walk.left.pop_front();
        }
        if let [Sum { seen: Seen::Absent, .. }] = sums {
            walk.report.skipped += answered;
            return self.publish(walk);
        }
        let theirs = sums.iter().flat_map(|sum| (0..sum.blocks).map(|_| sum.seen));
        for ((look, theirs), number) in piece.looks.iter().zip(theirs).zip(first.number..) {
            let block = Block { number, ..first };
            // Behind the answer: the rule's second half.
            let rests = device.is_unchanged(block, look);
            match (look.seen, theirs) {
                (mine, theirs) if !rests || [mine, theirs].contains(&Seen::Moving) => {
                    walk.look_later(block);
                }
                (Seen::Checksum(mine), Seen::Checksum(theirs)) if mine == theirs => {
                    walk.report.equal += 1;
                }
                (Seen::Checksum(_), Seen::Checksum(_)) => self.differs(walk, block),
                _ => walk.report.unreadable += 1,
            }
        }
        debug_assert!(piece.looks.len() as u64 == answered);
        self.publish(walk);
    }

    fn publish(&self, walk: &Walk) {
        lock(&self.device.peer.comparing).report = Some(walk.report.clone());
    }

    fn differs(&self, walk: &mut Walk, block: Block) {
        let offset = block.number * u64::from(self.device.geometry.block_size);
        let bytes = self.device.volumes.bytes_within(block);
        let differing = Differing { volume: block.volume, offset, bytes };
        let report = &mut walk.report;
        report.different += 1;
        if report.different == 1 {
            self.device.tell(Event::Differs(differing));
        }
        let has_room = report.ranges.len() < self.limits.ranges_max;
        match report.ranges.last_mut() {
            Some(last) if last.volume == block.volume && last.offset + last.bytes == offset => {
                last.bytes += bytes;
            }
            _ if has_room => report.ranges.push(differing),
            _ => {}
        }
    }
}

/// Bytes of a question's frame, and of an answer's without its runs.
const QUESTION_BYTES: u64 = 64;
const REPLY_BYTES: u64 = 44;

impl Walk {
    fn look_later(&mut self, block: Block) {
        let has_room = self.later.len() < LATER_MAX;
        match self.later.last_mut() {
            Some(Stretch { first, blocks })
                if *first == (Block { number: block.number.wrapping_sub(*blocks), ..block }) =>
            {
                *blocks += 1;
            }
            _ if has_room => {
                self.later.push(Stretch { first: block, blocks: 1 });
            }
            _ => {
                self.report.undecided += 1;
                return;
            }
        }
        self.report.waiting += 1;
    }
}
