//! The hosts of a pair: requests that go on after every step until they are done, and go
//! into the history when they are.

use super::{A, B, Pair, SECTOR, Step, values_of};
use afterimage::internal::error::{Kind, Result};
use afterimage::internal::limits::Durability;
use afterimage::internal::request::{Op, Request, Ticket};
use afterimage::internal::table::location::Location;
use afterimage::internal::unit::{Block, Stamp};
use std::io::IoSlice;
use std::ops::Range;

/// A host's request. Sectors are those of the volume.
#[derive(Clone, Debug)]
pub enum Action {
    Write(Range<u64>, u64),
    Zeroes(Range<u64>),
    Discard(Range<u64>),
    Read(Range<u64>),
    Flush,
}

/// An action that a device has taken on.
pub struct Pending {
    at: usize,
    ticket: Ticket,
    volume: u32,
    action: Action,
    durable: bool,
    /// Records in the history when it began.
    since: usize,
    /// Goes on only when [`Pair::poll`] is called.
    pub(super) manual: bool,
}

/// How an action ended.
#[derive(Debug)]
pub struct Outcome {
    pub stamp: Option<Stamp>,
    /// A value for every sector read.
    pub values: Vec<u64>,
    pub remote_blocks: u32,
}

impl Pair {
    fn bytes(&self, sectors: &Range<u64>, value: u64) -> Vec<u8> {
        value.to_le_bytes().repeat((sectors.end - sectors.start) as usize * 64)
    }

    fn whole(&self, block: u64) -> Range<u64> {
        let size = u64::from(self.spec.block_size) / SECTOR;
        block * size..(block + 1) * size
    }

    /// Begins an action; its name is for [`Pair::outcome`]. It goes on after every step.
    pub fn submit(&mut self, at: usize, volume: u32, action: Action) -> u64 {
        self.submit_as(at, volume, action, None, false, false)
    }

    /// Begins an action. `durable`: with force unit access; `manual`: it goes on only when polled.
    pub fn submit_as(
        &mut self,
        at: usize,
        volume: u32,
        action: Action,
        host_time: Option<u64>,
        fua: bool,
        manual: bool,
    ) -> u64 {
        self.last += 1;
        let length = |s: &Range<u64>| (s.end - s.start) * SECTOR;
        let data = match &action {
            Action::Write(sectors, value) => self.bytes(sectors, *value),
            _ => Vec::new(),
        };
        let slices = [IoSlice::new(&data)];
        let (offset, op) = match &action {
            Action::Write(sectors, _) => (sectors.start, Op::Write(&slices)),
            Action::Zeroes(sectors) => (sectors.start, Op::WriteZeroes(length(sectors))),
            Action::Discard(sectors) => (sectors.start, Op::Discard(length(sectors))),
            Action::Read(s) => (s.start, Op::Read(vec![0xee; length(s) as usize])),
            Action::Flush => (0, Op::Flush),
        };
        let mut request = Request::new(volume, offset * SECTOR, op);
        (request.fua, request.host_time) = (fua, host_time);
        let since = self.oracle.records.len();
        match self.session(at).and_then(|session| session.submit(request)) {
            Err(error) => drop(self.outcomes.insert(self.last, Err(error))),
            Ok(ticket) => {
                let durable = fua || self.spec.settings.durability == Durability::Strict;
                let pending = Pending { at, ticket, volume, action, durable, since, manual };
                self.pending.insert(self.last, pending);
            }
        }
        self.poll(self.last);
        self.last
    }

    /// Lets an action go on; whether it has ended.
    pub fn poll(&mut self, name: u64) -> bool {
        let Some(mut p) = self.pending.remove(&name) else { return true };
        let mut outcome = p.ticket.poll();
        // Published, perhaps: history must know of it before anybody else can. The first commit
        // may have made the room in which it is published, the second one completes it.
        for _ in 0..2 {
            if outcome.is_none() && p.durable {
                self.devices[p.at].step_commit().unwrap();
                outcome = p.ticket.poll();
            }
        }
        let Some(outcome) = outcome else {
            self.pending.insert(name, p);
            return false;
        };
        let outcome = outcome.map(|mut done| {
            let mut values = Vec::new();
            match &p.action {
                Action::Write(sectors, value) => {
                    let stamp = done.stamp.expect("a write has a stamp");
                    self.oracle.wrote(p.at, stamp, p.volume, sectors, *value);
                }
                Action::Zeroes(s) => self.zeroed(&p, done.stamp, s.start..s.end),
                Action::Discard(s) => {
                    let size = u64::from(self.spec.block_size) / SECTOR;
                    let whole = s.start.next_multiple_of(size)..s.end / size * size;
                    self.zeroed(&p, done.stamp, whole);
                }
                Action::Read(sectors) => {
                    values = values_of(&done.buffer.take().expect("a read has its buffer"));
                    for (number, &value) in sectors.clone().zip(&values) {
                        let had = self.oracle.had(self.oracle.at(p.volume, number), p.since);
                        assert!(had.contains(&value), "{number}: read {value}, held {had:?}");
                    }
                }
                Action::Flush => {}
            }
            Outcome { stamp: done.stamp, values, remote_blocks: done.remote_blocks }
        });
        self.outcomes.insert(name, outcome);
        true
    }

    /// Zeros in up to three parts (both edges, and what is between them), each a request of its
    /// own, one right after the other; the completion names the last. Whole blocks may have taken no
    /// record: they read as zeros then, all of them.
    fn zeroed(&mut self, p: &Pending, last: Option<Stamp>, sectors: Range<u64>) {
        let size = u64::from(self.spec.block_size) / SECTOR;
        if sectors.is_empty() {
            return;
        }
        let Range { start, end } = sectors;
        let (first, behind) = (start.next_multiple_of(size), end / size * size);
        let parts = match first <= behind {
            true => vec![start..first, first..behind, behind..end],
            false => std::iter::once(start..end).collect(),
        };
        let takes_record = |part: &Range<u64>| {
            let block = Block { volume: p.volume, number: part.start / size };
            *part != (first..behind) || self.devices[p.at].location(block) != Location::Normal
        };
        if first < behind && !takes_record(&(first..behind)) {
            for sector in first..behind {
                let had = self.oracle.had(self.oracle.at(p.volume, sector), p.since);
                assert!(had.contains(&0), "no record for sector {sector}, which held {had:?}");
            }
        }
        let parts = parts.into_iter().filter(|part| !part.is_empty() && takes_record(part));
        let parts: Vec<_> = parts.collect();
        assert_eq!(last.is_some(), !parts.is_empty());
        let Some(last) = last else { return };
        for (k, part) in parts.iter().enumerate() {
            let later = &parts[k + 1..];
            let records = |part| self.oracle.extents(p.volume, part, true).count();
            let records: usize = parts[k..parts.len() - 1].iter().map(records).sum();
            let stamp = Stamp {
                time: last.time - later.len() as u64,
                sequence: last.sequence - records as u32,
                ..last
            };
            self.oracle.wrote(p.at, stamp, p.volume, part, 0);
        }
    }

    /// Lets every action go on; whether any ended.
    pub(super) fn sweep(&mut self) -> bool {
        let names: Vec<u64> = self.pending.iter().filter(|p| !p.1.manual).map(|p| *p.0).collect();
        names.into_iter().filter(|&name| self.poll(name)).count() > 0
    }

    /// How an action ended, once, if it has.
    pub fn outcome(&mut self, name: u64) -> Option<Result<Outcome>> {
        self.outcomes.remove(&name)
    }

    pub fn is_pending(&self, name: u64) -> bool {
        self.pending.contains_key(&name)
    }

    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Writes a whole block.
    pub fn write(&mut self, at: usize, block: u64, value: u64) -> Stamp {
        self.write_at(at, block, value, None)
    }

    /// Writes a whole block with a host's time.
    pub fn write_at(&mut self, at: usize, block: u64, value: u64, time: Option<u64>) -> Stamp {
        let action = Action::Write(self.whole(block), value);
        let name = self.submit_as(at, 0, action, time, false, false);
        let outcome = self.outcome(name).expect("completes at once").unwrap();
        outcome.stamp.unwrap()
    }

    /// How a write of a whole block is refused.
    pub fn refused(&mut self, at: usize, block: u64) -> Kind {
        let name = self.submit(at, 0, Action::Write(self.whole(block), 99));
        self.outcome(name).expect("refused at once").unwrap_err().kind()
    }

    /// Begins to read a whole block.
    pub fn begin_read(&mut self, at: usize, block: u64) -> u64 {
        self.submit(at, 0, Action::Read(self.whole(block)))
    }

    /// Reads a whole block, by the control lane if it must; the value, and whether it was remote.
    pub fn read(&mut self, at: usize, block: u64) -> (u64, bool) {
        let name = self.begin_read(at, block);
        for _ in 0..1000 {
            if let Some(outcome) = self.outcome(name) {
                let outcome = outcome.unwrap();
                let value = outcome.values[0];
                assert!(outcome.values.iter().all(|&v| v == value), "{:?}", outcome.values);
                return (value, outcome.remote_blocks > 0);
            }
            for at in [A, B] {
                self.step(at, Step::Control);
            }
        }
        panic!("the read does not return");
    }
}
