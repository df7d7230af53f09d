//! The hosts: what they ask, and what they make of the answers.

use super::history::Sectors;
use super::payload::{self, SECTOR};
use super::random::Random;
use super::tape::Sort;
use super::world::World;
use super::{NAMES, Side};
use crate::clock::Clock;
use crate::device::Device;
use crate::error::Kind as ErrorKind;
use crate::request::{Completion, Op, Request, Session, Ticket};
use crate::sync::{AtomicBool, Ordering::Relaxed};
use crate::table::location::Location;
use crate::unit::{Block, Stamp};
use std::io::IoSlice;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// The kinds of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Read,
    Write,
    Zeroes,
    Discard,
    Flush,
}

/// A host's request before it is submitted.
pub(super) struct Order {
    pub what: What,
    pub volume: u32,
    pub sectors: Range<u64>,
    pub fua: bool,
    pub late: bool,
    pub time: Option<u64>,
    /// It is looked at at once.
    pub soon: bool,
}

/// A request under way.
pub(super) struct Asked {
    pub number: u32,
    pub what: What,
    pub volume: u32,
    /// The sectors of the volume that it concerns.
    pub sectors: Range<u64>,
    pub fua: bool,
    /// Whether it was asked under a tenure that is over.
    pub late: bool,
    /// The tenure it was asked under.
    pub epoch: u64,
    /// The number of its session.
    pub session: u64,
    /// Newest stamp that anybody had seen when it was issued.
    pub seen: Stamp,
    /// The same for each of its blocks.
    pub floors: Vec<Stamp>,
    /// Which of its blocks had rotten sectors in N when it was looked at.
    pub rotten: Vec<usize>,
    /// How many records were published before it.
    pub behind: u64,
    /// Since when it is known to be delayed because a journal is filling.
    pub paced_since: Option<u64>,
    /// Its published records: stamp and blocks.
    pub records: Vec<(Stamp, Range<usize>)>,
    pub ticket: Option<Ticket>,
    /// Whether it was polled, and whether it was woken since.
    pub is_waiting: bool,
    pub woken: Arc<Woken>,
}

/// The waker of a request.
#[derive(Default)]
pub(super) struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl World {
    /// A host asks for something at `side`.
    pub(super) fn ask(&self, what: What, side: Side, late: bool, random: &mut Random) {
        // Hosts mostly know where they belong.
        let side = match self.serving() {
            Some(serving) if !late && !random.once_in(16) => serving,
            _ => side,
        };
        if self.machines[side].asked.borrow().len() >= self.plan.depth {
            return self.poll(side, random);
        }
        let Some(device) = self.device(side) else { return };
        let session = if late {
            let old = self.machines[side].sessions.borrow();
            let Some(newest) = old.len().checked_sub(1) else { return };
            let is_over = old[newest].epoch() != device.clk.epoch();
            let known = newest + usize::from(is_over);
            if known == 0 {
                return;
            }
            old[random.below(known)].clone()
        } else if what == What::Read && random.once_in(16) {
            // A second connection, which only reads.
            let Ok(other) = self.open_session(side) else { return };
            other
        } else {
            match self.session(side) {
                Some(session) => session,
                None => return,
            }
        };
        let volume = random.below(self.plan.volumes.len()) as u32;
        let sectors = self.range(what, volume, &device.limits(), random);
        let fua = what != What::Read && random.once_in(10);
        let time = self.host_time(random);
        let soon = !random.once_in(4);
        let late = late && session.epoch() != device.clk.epoch();
        self.issue(side, session, Order { what, volume, sectors, fua, late, time, soon });
    }

    /// A host gives `order` to `side`.
    pub(super) fn issue(&self, side: Side, session: Session, order: Order) {
        let Order { what, volume, sectors, fua, late, time, soon } = order;
        let blocks = self.blocks_of(volume, &sectors);
        let (number, seen, floors) = {
            let mut history = self.history.borrow_mut();
            history.issued.push(self.tape.now());
            let floors = self.floors.borrow();
            let floors = blocks.map(|b| floors[b]).collect();
            (history.issued.len() as u32 - 1, self.seen.get(), floors)
        };
        let name = NAMES[side];
        let of = format_args!("{volume}:{}+{}", sectors.start, sectors.end - sectors.start);
        let more = if late {
            " late"
        } else if fua {
            " fua"
        } else {
            ""
        };
        self.tape
            .event(Sort::Host, format_args!("{name} #{number} {what:?} {of} at {time:?}{more}"));
        let behind = self.machines[side].count.get();
        let asked = Asked {
            number,
            what,
            volume,
            sectors,
            fua,
            late,
            epoch: session.epoch(),
            session: session.number(),
            seen,
            floors,
            rotten: Vec::new(),
            behind,
            paced_since: None,
            records: Vec::new(),
            ticket: None,
            is_waiting: false,
            woken: Arc::default(),
        };
        let mut asked = asked;
        self.note_rot(side, &mut asked);
        self.claims(side, &asked);
        let (mut asked, submitted) = self.submit(side, &session, asked, time);
        self.note_rot(side, &mut asked);
        self.published(side, Some(&mut asked));
        match submitted {
            Ok(ticket) => asked.ticket = Some(ticket),
            Err(error) if error.kind() == ErrorKind::Busy && asked.records.is_empty() => {
                // The host asks again later, or for something else.
                self.tape.event(Sort::Host, format_args!("{name} #{number} Busy"));
                return self.tape.count("requests without room to wait");
            }
            Err(error) => {
                let story = format!("{name} #{number} was refused outright: {error}");
                return self.tape.broken("requests within the limits are taken", story);
            }
        }
        self.machines[side].asked.borrow_mut().push(asked);
        self.check_room(side);
        if soon {
            let asked = self.machines[side].asked.borrow_mut().pop().expect("just pushed");
            self.look(side, asked);
        }
    }

    fn submit(
        &self,
        side: Side,
        session: &Session,
        asked: Asked,
        time: Option<u64>,
    ) -> (Asked, crate::error::Result<Ticket>) {
        let bytes = (asked.sectors.end - asked.sectors.start) * SECTOR as u64;
        let mut data = Vec::new();
        let slices;
        let op = match asked.what {
            What::Read => Op::Read(vec![0xee; bytes as usize]),
            What::Write => {
                data.resize(bytes as usize, 0);
                let place = self.place(asked.volume, asked.sectors.start);
                payload::fill(&mut data, place, asked.number);
                slices = [IoSlice::new(&data)];
                Op::Write(&slices)
            }
            What::Zeroes => Op::WriteZeroes(bytes),
            What::Discard => Op::Discard(bytes),
            What::Flush => Op::Flush,
        };
        let offset = asked.sectors.start * SECTOR as u64;
        let Asked { volume, fua, .. } = asked;
        let request = Request { volume, offset, op, fua, host_time: time };
        self.asking(side, asked, || session.submit(request))
    }

    /// Calls the engine for a request, which may publish some of its records and be stalled.
    fn asking<T>(&self, side: Side, asked: Asked, call: impl FnOnce() -> T) -> (Asked, T) {
        let before = self.asking.replace(Some(asked));
        let done = self.within(side, call);
        let asked = self.asking.replace(before).expect("only calls within replace it");
        (asked, done)
    }

    /// The session of the open tenure; older ones are kept for late commands.
    pub(super) fn session(&self, side: Side) -> Option<Session> {
        let device = self.device(side)?;
        let last = self.machines[side].sessions.borrow().last().cloned();
        if let Some(last) = last.filter(|s| s.epoch() == device.clk.epoch()) {
            return Some(last);
        }
        match self.open_session(side) {
            Ok(session) => {
                self.keep_session(side, session.clone());
                Some(session)
            }
            Err(error) => {
                if error.kind() == ErrorKind::NotReady
                    && self.plan.settings[side].takeover_at_first_request
                {
                    self.tape.count("hosts that came while a takeover was under way");
                }
                self.check_refusal(side, &error);
                None
            }
        }
    }

    /// Sectors of a volume within what a request may have: whole blocks as often as not.
    fn range(
        &self,
        what: What,
        volume: u32,
        limits: &crate::limits::Limits,
        random: &mut Random,
    ) -> Range<u64> {
        if what == What::Flush {
            return 0..0;
        }
        let size = self.plan.volumes[volume as usize];
        let block = self.plan.block_sectors();
        let most = match what {
            What::Zeroes | What::Discard => limits.zero_bytes_max,
            _ => limits.request_bytes_max,
        };
        let most = (most / SECTOR as u64).min(size);
        let lengths: &[u64] = match what {
            What::Zeroes | What::Discard => &[1, 3, 8, 16, 32, 160],
            _ => &[1, 1, 3, 8],
        };
        let length = random.pick(lengths) * block;
        let length = 1 + random.within(0..most.min(length));
        // In a large volume around the end of its first segment, in a middling one around the middle
        // as often as not: else few requests would meet.
        let from = match length / block {
            16.. => 0,
            _ if size > 128 * block => 124 * block,
            _ if size > 12 * block && random.once_in(2) => size / block / 2 * block - 3 * block,
            _ => 0,
        };
        let room = (size - from).min(if from > 0 { 8 * block } else { size });
        let start = from + random.within(0..room - length.min(room) + 1);
        let end = (start + length).min(size);
        if random.once_in(2) {
            return start..end;
        }
        let start = start / block * block;
        start..(start + length.next_multiple_of(block).min((most / block * block).max(1))).min(size)
    }

    fn host_time(&self, random: &mut Random) -> Option<u64> {
        use crate::clock::Clock;
        let now = self.machines[random.below(2)].clock.wall();
        match random.within(0..8) {
            0 => None,
            1 => Some(u64::MAX - random.within(0..9)),
            2 => Some(1000),
            _ => Some(now.saturating_sub(random.within(0..20_000_000))),
        }
    }

    /// Looks at one or all of the requests under way at `side`.
    pub(super) fn poll(&self, side: Side, random: &mut Random) {
        let count = self.machines[side].asked.borrow().len();
        if count == 0 {
            return;
        }
        if random.once_in(2) {
            return self.poll_all(side);
        }
        let asked = self.machines[side].asked.borrow_mut().remove(random.below(count));
        self.look(side, asked);
    }

    pub(super) fn poll_all(&self, side: Side) {
        let all = std::mem::take(&mut *self.machines[side].asked.borrow_mut());
        for asked in all {
            if self.device(side).is_none() {
                return;
            }
            self.look(side, asked);
        }
    }

    /// The oracle cannot judge data that a request takes from rotten sectors, even if they are written
    /// before it is done: notes which blocks have any. Called before and after each step of the
    /// request, as sectors may rot while its thread is stalled.
    fn note_rot(&self, side: Side, asked: &mut Asked) {
        if self.machines.iter().any(|machine| machine.disk.is_rotten(|_, _| true)) {
            let blocks = self.blocks_of(asked.volume, &asked.sectors);
            asked.rotten.extend(blocks.filter(|&block| self.takes_rot(side, block)));
        }
    }

    /// The same for all requests under way at `side`, before the peer answers them.
    pub(super) fn note_all_rot(&self, side: Side) {
        let mut all = self.machines[side].asked.borrow_mut();
        all.iter_mut().for_each(|asked| self.note_rot(side, asked));
    }

    /// Whether a request at `side` takes the content of `block` from a rotten N: its own, or the peer's if
    /// the block is still there.
    fn takes_rot(&self, side: Side, block: usize) -> bool {
        let is_remote = |device: Arc<Device>| {
            matches!(device.location(self.plan.block(block)), Location::Remote)
        };
        self.is_rotten(side, block)
            || self.is_rotten(1 - side, block) && self.device(side).is_some_and(is_remote)
    }

    /// Polls a request; keeps it if it is not done. If it is, it was woken before.
    fn look(&self, side: Side, mut asked: Asked) {
        let Some(mut ticket) = asked.ticket.take() else { return };
        self.note_rot(side, &mut asked);
        // A request that has waited too long is woken by this.
        let (mut asked, _) = self.asking(side, asked, || ticket.device().step_calls());
        let may_sleep = !asked.is_waiting || ticket.may_sleep();
        let began = self.machines[side].clock.monotonic();
        let waker = Waker::from(asked.woken.clone());
        let was_woken = asked.woken.0.swap(false, Relaxed);
        asked.is_waiting = true;
        let (mut asked, outcome) = self
            .asking(side, asked, || Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker)));
        self.note_rot(side, &mut asked);
        self.published(side, Some(&mut asked));
        if self.machines[side].is_dead() {
            return;
        }
        let was_woken = was_woken || asked.woken.0.load(Relaxed);
        // Its time may be over while its thread is stalled in the poll.
        let may_sleep = may_sleep || self.machines[side].clock.monotonic() > began;
        if outcome.is_ready() && !was_woken && !may_sleep {
            let (name, number) = (NAMES[side], asked.number);
            let story = format!("{name} #{number} has come to its end, and slept on");
            return self.tape.broken("a request that can go on is woken", story);
        }
        match outcome {
            Poll::Pending => {
                self.check_paced(side, &mut asked, &ticket);
                asked.ticket = Some(ticket);
                self.machines[side].asked.borrow_mut().push(asked);
            }
            Poll::Ready(Ok(done)) => self.done(side, &asked, done),
            Poll::Ready(Err(error)) => {
                let (name, number) = (NAMES[side], asked.number);
                self.tape.event(Sort::Host, format_args!("{name} #{number} {:?}", error.kind()));
                self.tape.count("requests refused");
                match error.kind() {
                    ErrorKind::Superseded => {
                        // Its owner may be told only now.
                        (asked, _) = self.asking(side, asked, || ticket.device().step_calls());
                        self.check_superseded(side, &asked, &error);
                    }
                    _ => self.check_refusal(side, &error),
                }
                let whole = asked.what == What::Write || asked.what == What::Discard;
                let ended = [ErrorKind::Fenced, ErrorKind::Superseded].contains(&error.kind());
                if ended && whole && !asked.records.is_empty() {
                    let story = format!("{name} #{number} is refused, and was published before");
                    self.tape.broken("what was admitted is finished", story);
                }
            }
        }
    }

    fn done(&self, side: Side, asked: &Asked, done: Completion) {
        self.check_accepted(side, asked.number);
        self.served.set(self.served.get() + 1);
        let (name, number) = (NAMES[side], asked.number);
        self.tape.event(Sort::Host, format_args!("{name} #{number} done {:?}", done.stamp));
        if asked.late {
            let story = format!("{name} #{number} was taken");
            self.tape.broken("commands of a tenure that is over are refused", story);
        }
        let now = self.device(side).map_or(0, |device| device.clk.epoch());
        if asked.what == What::Read && done.remote_blocks > 0 && now != asked.epoch {
            let story = format!("{name} #{number} of {}, and {now} is open", asked.epoch);
            self.tape.broken("a read that waits for the other device ends with its tenure", story);
        }
        if done.remote_blocks > 0 {
            self.tape.count("answers from the other device");
        }
        match asked.what {
            What::Read => {
                let buffer = done.buffer.unwrap_or_default();
                self.check_read(side, asked, &buffer);
            }
            What::Flush => self.promise(side, asked.behind),
            _ => {
                self.check_written(side, asked);
                self.completed(&asked.records);
                if asked.fua || self.is_strict(side) {
                    self.promise_records(side, asked);
                }
            }
        }
    }

    /// The blocks of the group that `sectors` of a volume touch.
    pub(super) fn blocks_of(&self, volume: u32, sectors: &Range<u64>) -> Range<usize> {
        let size = self.plan.block_sectors();
        let first = self.plan.index(Block { volume, number: 0 });
        let end = if sectors.is_empty() { sectors.start } else { sectors.end.div_ceil(size) };
        let begin = if sectors.is_empty() { end } else { sectors.start / size };
        first + begin as usize..first + end as usize
    }

    /// The group's number of a sector.
    pub(super) fn place(&self, volume: u32, sector: u64) -> usize {
        self.plan.place(self.plan.index(Block { volume, number: 0 })) + sector as usize
    }

    /// The sectors of a block that a request writes.
    pub(super) fn written(&self, asked: &Asked, block: usize) -> Sectors {
        let first = self.plan.place(block);
        let from = self.place(asked.volume, asked.sectors.start);
        let to = self.place(asked.volume, asked.sectors.end);
        let size = self.plan.block_sectors() as usize;
        std::array::from_fn(|k| k < size && (from..to).contains(&(first + k)))
    }
}
