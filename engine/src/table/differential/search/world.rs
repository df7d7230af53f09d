//! The rest of two devices, one host, and the line between them, in the abstract.

mod dev;
mod enabled;
mod promises;
mod sent;

use super::super::{
    Consistent, Differential, Durable, Grant, Message, Mode, Ordered, Piece, Round, Side,
};
use super::super::{Request, Taken, Work};
use super::{Bounds, Options};
use crate::table::bits::{Bits, Blocks};
use crate::unit::{Block, Stamp};
use crate::weaken::{Clause, holds};
use dev::Dev;
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
    End(usize),
    Level(usize),
    Sync,
    Checkpoint(usize),
    /// The next message of the data lane arrives.
    Data(usize),
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
                | End(_)
                | Level(_)
                | Sync
                | Data(_)
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
            Sent::Ship(..) | Sent::Copy(..) => true,
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
        if work.voids_owed {
            let owed = dev.m.owed();
            dev.l.retain(|&(_, block)| !owed.contains(at(block)));
            (0..3).filter(|&block| owed.contains(at(block))).for_each(|block| dev.own[block] = 0);
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
            dev.checkpoint();
        }
        if work.store {
            dev.store();
        }
        if work.mark {
            let durable = dev.m.durable();
            (dev.kept.owing, dev.kept.consistent) = (durable.owing, durable.consistent);
        }
        let table = dev.m.table().clone();
        match work.send {
            Some(Message::Opened { round, cut }) if self.options.most > 1 => {
                let half = Block { volume: 0, number: 1 };
                let (first, rest) = (EVERY.start..half, half..EVERY.end);
                for (range, is_last) in [(first, false), (rest, true)] {
                    let runs = table.runs().flat_map(|run| numbers(&run).collect::<Vec<_>>());
                    let blocks = runs.filter(|&b| range.contains(&at(b))).map(one).collect();
                    self.send(1 - d, Sent::Opened(round, cut, Piece { range, blocks, is_last }));
                }
            }
            Some(Message::Opened { round, cut }) => {
                let piece = Piece { range: EVERY, blocks: table, is_last: true };
                self.send(1 - d, Sent::Opened(round, cut, piece));
            }
            Some(message) => self.send(1 - d, Sent::Said(message, table, with)),
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
            Sent::Request(m.request(), m.returned(&self.dev[y].ordered()), self.left.withdrawals);
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
        if dev.m.mode() == Mode::Ordered && dev.hi < dev.need {
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

    fn copy(&mut self, d: usize) {
        let blocks = self.next_copy(d).expect("there is one");
        let dev = &mut self.dev[d];
        dev.m.send(&blocks);
        let contents = numbers(&blocks).map(|block| dev.newest(block)).collect();
        let copy = Sent::Copy(dev.m.round(), blocks, contents);
        self.send(1 - d, copy);
    }

    fn next_copy(&self, d: usize) -> Option<Blocks> {
        let dev = &self.dev[d];
        let is_durable = |block| {
            let waits = |u: &Unsynced| at(u.record.1) == block;
            self.unsynced_at != d || !self.unsynced.iter().any(waits)
        };
        dev.m.next_to_send(dev.side(), EVERY.start, self.options.most, is_durable)
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

    fn fence(&mut self, d: usize, request: Request, m: &Bits, nonce: u8) {
        let dev = &mut self.dev[d];
        dev.fenced = true;
        let mut prototype = [0; 3];
        dev.r.iter().for_each(|&(w, block)| prototype[block] = w);
        let ordered = dev.ordered();
        let work = dev.m.grant(request, m, ordered);
        self.answer(d, work, (prototype, nonce));
        if self.active == Some(d) {
            // Its request was withdrawn; it asks before the next write.
            (self.active, self.asks, self.reading) = (None, Some(d), None);
            self.ask();
        }
    }

    fn granted(&mut self, y: usize, grant: Grant, table: Bits, prototype: Image) -> Held {
        let epoch = self.next_epoch();
        let dev = &mut self.dev[y];
        let (mode, ordered) = (dev.m.mode(), dev.ordered());
        let taken = dev.m.take(grant, table, epoch, ordered);
        if taken == Taken::AskAgain {
            self.ask();
            return Ok(());
        }
        dev.fenced = false;
        (self.active, self.asks) = (Some(y), None);
        match taken {
            Taken::Table(work) => self.work(y, work),
            _ if mode != Mode::Ordered => return Err("P7 a prototype, not in ordered mode".into()),
            _ => {
                dev.pend = prototype.map(|w| if w > dev.hi { w } else { 0 });
                let still = if dev.hi < dev.need { dev.need } else { 0 };
                dev.need = dev.pend.into_iter().fold(still, u8::max);
                dev.store(); // the tenure, by the rules of ordered mode
            }
        }
        Ok(())
    }

    fn next_epoch(&self) -> u64 {
        1 + self.dev.iter().map(|dev| dev.m.last_active).max().expect("there are two")
    }

    fn shipped(&mut self, y: usize, w: u8, block: usize) {
        let dev = &mut self.dev[y];
        if w > dev.hi {
            dev.hi = w;
            if dev.m.mode() == Mode::Ordered {
                let (older, newer) = dev.l.iter().partition(|&&(own, _)| own <= w);
                dev.l = older;
                dev.reflect_all();
                dev.l = newer;
                dev.pend = dev.pend.map(|pend| if pend <= w { 0 } else { pend });
            }
            dev.n[block] = w;
            if dev.own[block] < w {
                dev.own[block] = 0; // the logs are replayed in stamp order
            }
        }
        let ack = Sent::Ack(dev.m.round(), dev.hi);
        self.send(1 - y, ack);
    }

    fn copied(&mut self, y: usize, round: Round, blocks: Blocks, contents: Vec<u8>) {
        let dev = &mut self.dev[y];
        let Some(arrival) = dev.m.arrive(dev.side(), round, &blocks) else { return };
        let ack = Sent::CopyAck(dev.m.round(), blocks.clone());
        for run in &arrival.written {
            if dev.fenced {
                dev.stored.remove(run);
            }
            for block in numbers(run) {
                dev.n[block] = contents[block - numbers(&blocks).next().expect("not empty")];
            }
        }
        self.work(y, arrival.work);
        self.send(1 - y, ack);
    }

    fn receive(&mut self, y: usize, sent: Sent) -> Held {
        let dev = &mut self.dev[y];
        let (mode, side) = (dev.m.mode(), dev.side());
        match sent {
            Sent::Ship(round, w, block) => {
                if dev.m.is_of(round) && matches!(mode, Mode::Ordered | Mode::Copying) {
                    self.shipped(y, w, block);
                }
            }
            Sent::Ack(round, hi) if dev.m.is_of(round) || !holds(Clause::RoundCounts) => {
                let before = dev.r.len();
                dev.r.retain(|&(w, _)| w > hi);
                dev.sent = dev.sent.saturating_sub(before - dev.r.len());
                dev.acked = dev.acked.max(hi);
            }
            Sent::Ack(..) => {}
            Sent::Copy(round, blocks, contents) => self.copied(y, round, blocks, contents),
            Sent::CopyAck(round, blocks) => {
                for run in dev.m.copied(round, &blocks).runs() {
                    dev.stored.remove(&run);
                }
            }
            Sent::Ask(round, block) => {
                let of_r = || dev.r.iter().filter(|r| r.1 == block).map(|r| r.0).max();
                let newest = match mode {
                    _ if !dev.fenced || !dev.m.is_of(round) => None,
                    Mode::Ordered => of_r(),
                    _ => Some(dev.newest(block)),
                };
                self.send(1 - y, Sent::Answer(round, block, newest));
            }
            Sent::Answer(round, block, newest) => {
                let asked = |r: &&mut Reading| r.is_asked && r.block == block;
                let reading =
                    self.reading.as_mut().filter(|_| self.active == Some(y)).filter(asked);
                match (reading, newest) {
                    (None, _) => {}
                    (Some(_), Some(w)) if dev.m.is_of(round) => return self.got(w),
                    (Some(reading), _) => reading.is_asked = false,
                }
            }
            Sent::Request(request, m, nonce) => self.fence(y, request, &m, nonce),
            Sent::Opened(round, cut, piece) => {
                if let Some(work) = dev.m.hear_opened(side, (round, cut), &piece) {
                    self.work(y, work);
                }
            }
            Sent::Said(Message::Grant(grant), table, (prototype, nonce)) => {
                if self.asks == Some(y) && nonce == self.left.withdrawals {
                    return self.granted(y, grant, table, prototype);
                }
            }
            Sent::Said(message, ..) => self.said(y, side, message),
        }
        Ok(())
    }

    fn said(&mut self, y: usize, side: Side, message: Message) {
        let dev = &mut self.dev[y];
        let work = match message {
            Message::Open { round, mode, generation, cut } => {
                let (image, was_consistent) = (dev.n, dev.is_consistent());
                let ordered = dev.ordered();
                let work = dev.m.hear_open(side, (round, mode), generation, cut, ordered);
                let ends = self.options.side && was_consistent && !dev.is_consistent();
                if ends && mode != Mode::Collecting {
                    dev.side = Some(image);
                }
                work
            }
            Message::End { round, generation, consistent_at } => {
                dev.m.hear_end(side, round, generation, consistent_at, stamp(dev.hi))
            }
            Message::EndAck { round } => dev.m.hear_end_ack(side, round),
            Message::Level { round } => dev.m.hear_level(side, round),
            Message::Opened { .. } | Message::Grant(_) => None,
        };
        if let Some(work) = work {
            self.work(y, work);
            if matches!(message, Message::Open { .. }) {
                self.dev[y].m.said_opened();
            }
        }
    }

    fn hang_up(&mut self) {
        (self.data, self.control) = Default::default();
        for d in 0..2 {
            self.dev[d].m.hung_up();
            self.land(d);
        }
        if self.asks.is_some() {
            self.ask();
        }
    }

    /// Power is lost at `d`: of what is not synced the first `kept` records survive. The machine is
    /// then made of what is durable.
    fn lose(&mut self, d: usize, kept: usize) {
        let lost = match self.unsynced_at == d && !self.unsynced.is_empty() {
            true => std::mem::take(&mut self.unsynced).split_off(kept),
            false => Vec::new(),
        };
        let dev = &mut self.dev[d];
        let mut stored = Durable { table: dev.m.durable().table, ..dev.kept.clone() };
        for Unsynced { record, before, had_bit, own_before } in lost.iter().rev() {
            let (w, block) = *record;
            dev.r.retain(|r| r != record);
            dev.l.retain(|r| r != record);
            dev.wrote.retain(|r| r != record);
            if dev.n[block] == w {
                dev.n[block] = *before;
            }
            if !had_bit {
                stored.table.remove(&one(block));
            }
            if dev.own[block] == w {
                dev.own[block] = *own_before;
            }
        }
        if !lost.is_empty() {
            self.history.retain(|record| !lost.iter().any(|u| u.record == *record));
            self.newest = self.base;
            self.history.iter().for_each(|&(w, block)| self.newest[block] = w);
            self.reading = None;
        }
        let mut implied = Vec::new();
        if self.options.implied {
            stored.table = dev.stored.clone();
            if matches!(stored.mode, Mode::Collecting | Mode::Sending) {
                let above = |&block: &usize| stamp(dev.own[block]) > stored.cut;
                implied = (0..3).filter(above).map(one).collect();
            }
        }
        let volumes = (0..self.left.blocks).map(one);
        let side = if dev.dead { Side::Fenced } else { dev.side() };
        dev.m = Differential::restore(stored, side, implied, volumes);
    }

    /// A device is here again, with what is durable.
    fn restart(&mut self, d: usize) {
        let dev = &mut self.dev[d];
        for block in 0..3 {
            if dev.own[block] != 0 && !dev.l.iter().any(|&(_, b)| b == block) {
                dev.n[block] = dev.own[block];
            }
        }
        if !dev.fenced && dev.m.mode() == Mode::Ordered && dev.hi < dev.need {
            dev.pend = [0; 3];
            if self.active == Some(d) {
                (self.active, self.asks, self.reading) = (None, Some(d), None);
            }
        }
        self.hang_up();
    }

    fn force(&mut self, y: usize, how: Action) -> Held {
        let x = 1 - y;
        let epoch = self.next_epoch();
        let dev = &self.dev[y];
        let was_owed = !dev.m.owed().is_empty() || dev.pend != [0; 3];
        let peer_has_none = self.dev[x].r.is_empty() && self.dev[x].m.table().is_empty();
        let is_whole = peer_has_none && !was_owed && dev.m.mode() == Mode::Ordered;
        let gives_up = how == Action::ForceConsistent(y);
        let (mut put_back, mut image) = (Bits::default(), None);
        if how == Action::ForceSide(y) {
            let saved = dev.side.expect("there is one");
            if !self.is_prefix(&saved) {
                return Err("P3 the side file's image is no prefix".into());
            }
            put_back = (0..3).filter(|&b| dev.newest(b) != saved[b]).map(one).collect();
            image = Some(saved);
        }
        let dev = &mut self.dev[y];
        let ordered = dev.ordered();
        let work = dev.m.force(epoch, &put_back, gives_up, &ordered);
        self.work(y, work);
        let dev = &mut self.dev[y];
        dev.n = image.unwrap_or(dev.n);
        if image.is_none() && !gives_up && is_whole && dev.n != self.newest {
            return Err("P5 a write is lost that the dead peer owed nothing of".into());
        }
        (dev.fenced, dev.own) = (false, [0; 3]);
        (self.base, self.newest) = (dev.n, dev.n);
        self.history.clear();
        (self.active, self.asks, self.reading) = (Some(y), None, None);
        // The other device's image is of another history.
        self.dev[x].m.consistent = Consistent::No;
        self.dev[x].kept.consistent = Consistent::No;
        self.dev.iter_mut().for_each(|dev| dev.side = None);
        Ok(())
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
            Copy(d) => self.copy(d),
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
