//! The rest of two devices, one host, and the line between them, in the abstract.

mod arrivals;
mod dev;
mod enabled;
mod faults;
mod promises;
mod sent;

use super::super::{Announcement, Request, Taken, Work};
use super::super::{
    Consistent, Differential, Durable, Grant, Message, Mode, Opened, Ordered, Piece, Round, Side,
};
use super::{Bounds, Options};
use crate::table::announced::Announced;
use crate::table::bits::{Bits, Blocks};
use crate::unit::{Block, Stamp};
use crate::weaken::{Clause, holds};
use dev::{Dev, Landing};
use sent::Sent;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

/// The newest write to each block; 0 is none.
type Image = [u8; 3];
/// A write and its block.
type Written = (u8, usize);
type Held = Result<(), String>;

/// One step. A number is a device, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The host writes this block.
    Write(usize),
    /// The host reads this block.
    Read(usize),
    Look,
    Move,
    Withdraw,
    Suspend(usize),
    Open(usize, Mode),
    Ship(usize),
    Copy(usize),
    /// The checksums of what would be copied next.
    Sum(usize),
    /// The next of its bits is announced.
    Tell(usize),
    End(usize),
    Level(usize),
    Sync,
    Checkpoint(usize),
    /// The next message of the data lane arrives.
    Data(usize),
    /// A copy that arrived is in N.
    Land(usize),
    /// The next message of the control lane arrives.
    Control(usize),
    Cut,
    /// A restart; so many un-synced records survive.
    Restart(usize, usize),
    Die(usize, usize),
    Return(usize),
    ForceNewest(usize),
    ForceConsistent(usize),
    ForceSide(usize),
}

impl Action {
    /// Whether it is neither host work nor a fault.
    pub fn is_progress(&self) -> bool {
        use Action::*;
        matches!(
            self,
            Look | Open(..)
                | Ship(_)
                | Copy(_)
                | Sum(_)
                | Tell(_)
                | End(_)
                | Level(_)
                | Sync
                | Data(_)
                | Land(_)
                | Control(_)
                | Return(_)
        )
    }
}

#[derive(Clone, Debug, Hash)]
struct Unsynced {
    record: Written,
    before: u8,
    had_bit: bool,
    own_before: u8,
}

#[derive(Clone, Debug, Hash)]
struct Reading {
    block: usize,
    floor: u8,
    is_asked: bool,
}

#[derive(Clone, Debug)]
pub struct World {
    options: Options,
    dev: [Dev; 2],
    data: [VecDeque<Sent>; 2],
    control: [VecDeque<Sent>; 2],
    /// The device where the host is, or the one that asks for it.
    active: Option<usize>,
    asks: Option<usize>,
    /// The newest completed writes; those from `base` on in `history`.
    newest: Image,
    base: Image,
    history: Vec<Written>,
    reading: Option<Reading>,
    clock: u8,
    left: Bounds,
    /// The records of one device that are not durable.
    unsynced: Vec<Unsynced>,
    unsynced_at: usize,
}

/// Two blocks of one volume are neighbours; the third is of another volume.
fn at(block: usize) -> Block {
    Block { volume: block as u32 / 2, number: block as u64 % 2 }
}

fn one(block: usize) -> Blocks {
    let Block { volume, number } = at(block);
    Blocks { volume, numbers: number..number + 1 }
}

fn numbers(blocks: &Blocks) -> impl Iterator<Item = usize> + use<> {
    let volume = blocks.volume as usize;
    blocks.numbers.clone().map(move |number| 2 * volume + number as usize)
}

fn stamp(w: u8) -> Stamp {
    Stamp { epoch: 0, time: u64::from(w), sequence: 0 }
}

const EVERY: std::ops::Range<Block> =
    Block { volume: 0, number: 0 }..Block { volume: u32::MAX, number: u64::MAX };

impl World {
    pub fn new(bounds: Bounds, options: Options) -> World {
        let mut dev = [Dev::default(), Dev { fenced: true, ..Dev::default() }];
        dev[0].m.last_active = 1;
        dev[0].store();
        if options.always {
            for dev in &mut dev {
                (dev.m.mode, dev.m.stage) = (Mode::Sending, super::super::Stage::Said);
                dev.store();
            }
        }
        World {
            options,
            dev,
            data: Default::default(),
            control: Default::default(),
            active: Some(0),
            asks: None,
            newest: [0; 3],
            base: [0; 3],
            history: Vec::new(),
            reading: None,
            clock: 0,
            left: bounds,
            unsynced: Vec::new(),
            unsynced_at: 0,
        }
    }

    /// States with the same key behave alike: rounds and tenures are compared, and nothing else.
    pub fn key(&self) -> u64 {
        let mut world = self.clone();
        let mut rounds: Vec<Round> = Vec::new();
        world.each_round(&mut |round| rounds.push(*round));
        rounds.sort();
        rounds.dedup();
        world.each_round(&mut |round| {
            let rank = rounds.binary_search(round).expect("it was collected");
            *round = Round { generation: 0, counter: rank as u64 };
        });
        let mut tenures: Vec<u64> = Vec::new();
        world.each_tenure(&mut |tenure| tenures.push(*tenure));
        tenures.sort();
        tenures.dedup();
        world.each_tenure(&mut |tenure| {
            *tenure = tenures.binary_search(tenure).expect("it was collected") as u64;
        });
        for dev in &mut world.dev {
            (dev.wrote, dev.acked) = (Vec::new(), 0);
            // It moves nothing.
            dev.m.told.earlier = Announced::default();
        }
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        let World { dev, data, control, active, asks, newest, base, .. } = &world;
        (dev, data, control, active, asks, newest, base).hash(&mut hasher);
        let World { history, reading, clock, left, unsynced, unsynced_at, .. } = &world;
        (history, reading, clock, left, unsynced, unsynced_at).hash(&mut hasher);
        hasher.finish()
    }

    fn messages(&mut self) -> impl Iterator<Item = &mut Sent> {
        self.data.iter_mut().chain(&mut self.control).flatten()
    }

    fn each_round(&mut self, look: &mut dyn FnMut(&mut Round)) {
        self.dev.iter_mut().for_each(|dev| {
            look(&mut dev.m.round);
            look(&mut dev.kept.round);
            dev.landing.iter_mut().for_each(|landing| look(&mut landing.round));
        });
        self.messages().for_each(|sent| look(sent.round()));
    }

    fn each_tenure(&mut self, look: &mut dyn FnMut(&mut u64)) {
        self.dev.iter_mut().for_each(|dev| {
            look(&mut dev.m.last_active);
            look(&mut dev.kept.last_active);
        });
        for sent in self.messages() {
            if let Sent::Request(request, ..) = sent {
                look(&mut request.last_active);
            }
        }
    }

    fn are_both_up(&self) -> bool {
        !self.dev.iter().any(|dev| dev.dead)
    }

    fn send(&mut self, to: usize, sent: Sent) {
        use Message::{End, Level};
        let is_data = match &sent {
            Sent::Ship(..) | Sent::Copy(..) | Sent::Sum(..) => true,
            Sent::Said(message, ..) => matches!(message, End { .. } | Level { .. }),
            _ => false,
        };
        if self.are_both_up() {
            let lane = if is_data { &mut self.data } else { &mut self.control };
            lane[to].push_back(sent);
        }
    }

    fn is_unsynced(&self, d: usize, w: u8) -> bool {
        self.unsynced_at == d && self.unsynced.iter().any(|u| u.record.0 == w)
    }

    fn sync(&mut self, d: usize) {
        if self.unsynced_at == d {
            self.unsynced.clear();
        }
    }

    /// The work that a step of `d`'s machine asks for, in its order.
    fn work(&mut self, d: usize, work: Work) {
        self.answer(d, work, ([0; 3], 0));
    }

    /// The same; with a grant go the prototype and the request's nonce.
    fn answer(&mut self, d: usize, work: Work, with: (Image, u8)) {
        if work.sync {
            self.sync(d);
        }
        if work.leaves_order {
            self.land(d);
        }
        let dev = &mut self.dev[d];
        if work.gives_up {
            dev.l.clear();
        }
        if work.leaves_order {
            dev.r.clear();
            (dev.pend, dev.need) = ([0; 3], 0);
            dev.reflect_all();
        }
        if let Some(hi) = work.hi {
            dev.hi = dev.hi.max(hi.time as u8);
        }
        if work.checkpoint {
            dev.reflect_all();
            dev.checkpoint();
        }
        if work.store {
            dev.store();
        }
        if work.keeps_table {
            dev.kept = dev.m.durable();
        }
        if work.mark {
            let durable = dev.m.durable();
            (dev.kept.owing, dev.kept.consistent) = (durable.owing, durable.consistent);
        }
        let table = dev.m.table().clone();
        match work.send {
            Some(Message::Opened(opened)) if self.options.most > 1 => {
                let half = Block { volume: 0, number: 1 };
                let (first, rest) = (EVERY.start..half, half..EVERY.end);
                for (range, is_last) in [(first, false), (rest, true)] {
                    let runs = table.runs().flat_map(|run| numbers(&run).collect::<Vec<_>>());
                    let blocks = runs.filter(|&b| range.contains(&at(b))).map(one).collect();
                    self.send(1 - d, Sent::Opened(opened, Piece { range, blocks, is_last }));
                }
            }
            Some(Message::Opened(opened)) => {
                let piece = Piece { range: EVERY, blocks: table, is_last: true };
                self.send(1 - d, Sent::Opened(opened, piece));
            }
            Some(message) => {
                let table = match message {
                    Message::Grant(_) => dev.m.untold(),
                    _ => table,
                };
                self.send(1 - d, Sent::Said(message, table, with));
            }
            None => {}
        }
    }

    fn land(&mut self, d: usize) {
        self.dev[d].sent = 0;
        if let Some(reading) = self.reading.as_mut().filter(|_| self.active == Some(d)) {
            reading.is_asked = false;
        }
    }

    fn got(&mut self, w: u8) -> Held {
        let Reading { block, floor, .. } = self.reading.take().expect("the host reads");
        match w < floor {
            true => Err(format!("P1 a stale read: of block {block} w{w}, completed was w{floor}")),
            false => Ok(()),
        }
    }

    fn ask(&mut self) {
        let y = self.asks.expect("a device asks");
        let m = &self.dev[y].m;
        let request =
            Sent::Request(m.request(), m.differing(&self.dev[y].ordered()), self.left.withdrawals);
        self.send(1 - y, request);
    }

    fn write(&mut self, block: usize) {
        let d = self.active.expect("the host is here");
        self.clock += 1;
        self.left.writes -= 1;
        let w = self.clock;
        let dev = &mut self.dev[d];
        if self.options.volatile && dev.m.mode() != Mode::Ordered {
            let had_bit = dev.m.table().contains(at(block)) || dev.m.flying().contains(at(block));
            let (before, own_before) = (dev.newest(block), dev.own[block]);
            self.unsynced_at = d;
            self.unsynced.push(Unsynced { record: (w, block), before, had_bit, own_before });
        }
        if self.options.implied {
            dev.own[block] = w;
        }
        dev.wrote.push((w, block));
        self.newest[block] = w;
        self.history.push((w, block));
        if matches!(dev.m.mode(), Mode::Ordered | Mode::Copying) {
            dev.r.push((w, block));
        }
        if dev.m.mode() == Mode::Ordered && dev.hi < dev.need || dev.landing.is_some() {
            dev.l.push((w, block));
        } else {
            dev.n[block] = w;
        }
        let work = dev.m.wrote(&one(block));
        self.work(d, work);
    }

    fn look(&mut self) -> Held {
        let d = self.active.expect("the host is here");
        let reading = self.reading.as_mut().expect("the host reads");
        let (block, dev) = (reading.block, &self.dev[d]);
        if !dev.is_away(block) {
            let newest = dev.newest(block);
            return self.got(newest);
        }
        reading.is_asked = true;
        let round = dev.m.round();
        self.send(1 - d, Sent::Ask(round, block));
        Ok(())
    }

    fn copy(&mut self, d: usize, kind: fn(Round, u64, Blocks, Vec<u8>) -> Sent) {
        let blocks = self.next_copy(d).expect("there is one");
        let dev = &mut self.dev[d];
        let said = dev.m.send(&blocks);
        let contents = numbers(&blocks).map(|block| dev.newest(block)).collect();
        let copy = kind(dev.m.round(), said, blocks, contents);
        self.send(1 - d, copy);
    }

    fn next_copy(&self, d: usize) -> Option<Blocks> {
        let dev = &self.dev[d];
        let is_durable = |blocks: &Blocks| {
            self.unsynced_at != d
                || !numbers(blocks).any(|block| self.unsynced.iter().any(|u| u.record.1 == block))
        };
        dev.m.next_to_send(dev.side(), EVERY.start, self.options.most).filter(is_durable)
    }

    fn open(&mut self, d: usize, mode: Mode) {
        let dev = &mut self.dev[d];
        let newest = dev.ordered().newest;
        let round = dev.m.round();
        let work = dev.m.open(mode, newest).expect("it may");
        if dev.m.round() != round {
            self.land(d);
        }
        self.work(d, work);
    }

    /// Takes a step; what does not hold after it.
    pub fn step(&mut self, action: Action) -> Held {
        use Action::*;
        match action {
            Write(block) => self.write(block),
            Read(block) => {
                self.left.reads -= 1;
                let floor = self.newest[block];
                self.reading = Some(Reading { block, floor, is_asked: false });
            }
            Look => self.look()?,
            Move => {
                self.left.takeovers -= 1;
                let y = 1 - self.active.expect("the host is somewhere");
                (self.active, self.asks, self.reading) = (None, Some(y), None);
                self.ask();
            }
            Withdraw => {
                self.left.withdrawals -= 1;
                let y = 1 - self.asks.expect("a device asks");
                if !self.dev[y].fenced && !self.dev[y].forgot() {
                    (self.asks, self.active) = (None, Some(y));
                } else {
                    self.asks = Some(y);
                    self.ask();
                }
            }
            Suspend(d) => {
                self.left.suspends -= 1;
                let ordered = self.dev[d].ordered();
                let work = self.dev[d].m.suspend(ordered).expect("it may");
                self.work(d, work);
            }
            Open(d, mode) => self.open(d, mode),
            Ship(d) => {
                let dev = &mut self.dev[d];
                let (w, block) = dev.r[dev.sent];
                dev.sent += 1;
                let ship = Sent::Ship(dev.m.round(), w, block);
                self.send(1 - d, ship);
            }
            Copy(d) => self.copy(d, Sent::Copy),
            Sum(d) => self.copy(d, Sent::Sum),
            Tell(d) => {
                let told = self.dev[d].m.tell(0, 1).expect("it may");
                self.send(1 - d, Sent::Told(told));
            }
            End(d) => {
                let newest = self.dev[d].r.last().map(|&(w, _)| stamp(w));
                let work = self.dev[d].m.end(newest).expect("it may");
                self.work(d, work);
            }
            Level(d) => {
                let work = self.dev[d].m.level().expect("it may");
                self.work(d, work);
            }
            Sync => self.unsynced.clear(),
            Checkpoint(d) => {
                self.left.checkpoints -= 1;
                self.sync(d);
                self.dev[d].checkpoint();
            }
            Data(d) => {
                let sent = self.data[d].pop_front().expect("there is one");
                self.receive(d, sent)?;
            }
            Land(d) => self.landed(d),
            Control(d) => {
                let sent = self.control[d].pop_front().expect("there is one");
                self.receive(d, sent)?;
            }
            Cut => {
                self.left.cuts -= 1;
                self.hang_up();
            }
            Restart(d, kept) => {
                self.left.restarts -= 1;
                self.lose(d, kept);
                self.restart(d);
            }
            Die(d, kept) => {
                self.left.deaths -= 1;
                self.dev[d].dead = true;
                self.lose(d, kept);
                self.hang_up();
            }
            Return(d) => {
                let of_peer = self.dev[1 - d].m.generation();
                let dev = &mut self.dev[d];
                dev.fenced |= dev.m.returns_below(of_peer);
                dev.dead = false;
                self.lose(d, 0);
                self.restart(d);
            }
            ForceNewest(y) | ForceConsistent(y) | ForceSide(y) => self.force(y, action)?,
        }
        self.check()
    }
}
