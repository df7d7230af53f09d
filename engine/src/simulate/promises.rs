//! The promises, one function each, as a reader would put them.

use super::history::{Content, Record, SECTORS_MAX, Version};
use super::host::{Asked, What};
use super::payload::{self, SECTOR, Value};
use super::tape::says_what_is_lost;
use super::world::World;
use super::{NAMES, Side};
use crate::clock::Clock;
use crate::error::{Error, Kind};
use crate::limits::Durability;
use crate::queue::{self, Content as Shape};
use crate::request::Ticket;
use crate::storage::FileName;
use crate::sync::lock;
use crate::table::location::Location;
use crate::unit::{Mode, Stamp};
use std::cell::Ref;
use std::ops::Range;

impl World {
    /// At every moment at most one device serves.
    pub(super) fn check_one_serves(&self) {
        let serves = |side: Side| self.device(side).is_some_and(|d| d.clk.epoch() != 0);
        for side in [0, 1] {
            if let Some(device) = self.device(side) {
                self.look_at_return(side, &device);
            }
        }
        if serves(0) && serves(1) {
            self.tape.broken("at most one device serves", "both devices serve".into());
        }
        self.check_consistent_copies();
    }

    /// A write issued after another was completed or seen is newer, whatever the clocks say; and
    /// nothing is published that is older than what is final already: shipped or in N. The sectors
    /// that a record does not write, it takes from the record before it.
    pub(super) fn published(&self, side: Side, mut asked: Option<&mut Asked>) {
        let Some(device) = self.device(side) else { return };
        let queue = &device.own.journal.queue;
        let machine = &self.machines[side];
        let mut open = std::mem::take(&mut *machine.unsettled_positions.borrow_mut());
        open.extend(machine.published.get()..queue.tail());
        machine.published.set(queue.tail());
        let mut left = Vec::new();
        for position in open {
            match queue.settled(position) {
                None => left.push(position),
                Some(false) => {}
                Some(true) => {
                    let record = queue.record(position);
                    match &mut asked {
                        Some(asked) => self.publish(side, &device, record, asked),
                        None => self.tape.broken(
                            "only hosts write",
                            format!("{} published {record:?} by itself", NAMES[side]),
                        ),
                    }
                }
            }
        }
        machine.unsettled_positions.borrow_mut().extend(left);
    }

    fn publish(
        &self,
        side: Side,
        device: &crate::Device,
        record: queue::Record,
        asked: &mut Asked,
    ) {
        let (name, number, stamp) = (NAMES[side], asked.number, record.stamp);
        let blocks = self.plan.blocks_of(record.extent());
        let block = blocks.start;
        let broken = |promise, story: String| {
            let extent = record.extent();
            self.tape.broken(promise, format!("{name} #{number} at block {extent}: {story}"));
        };
        let disk = &self.machines[side].disk;
        let content = match self.read_record(&record, |buf| {
            disk.if_sound(|| {
                // It may have died while it wrote the next batch.
                let place = record.place as usize;
                device.own.read(&record, buf).is_ok_and(|read| read)
                    || self.machines[side].is_dead()
                        && disk.peek(FileName::OwnLog, place, buf).is_some()
            })
        }) {
            Ok(content) => content,
            Err(story) => {
                self.spreads(side, asked, block);
                return broken("records hold what was written", story);
            }
        };
        let mut history = self.history.borrow_mut();
        if stamp <= asked.seen {
            let seen = asked.seen;
            broken(
                "a write is newer than what was seen before it",
                format!("{stamp}, seen: {seen}"),
            );
        }
        if history.find(stamp).is_some() {
            broken("stamps are unique", format!("{stamp}"));
        }
        for (at, machine) in self.machines.iter().enumerate() {
            if stamp <= machine.final_upto.get() {
                let upto = machine.final_upto.get();
                broken(
                    "nothing is older than what is final",
                    format!("{stamp}, and {} is final up to {upto}", NAMES[at]),
                );
            }
        }
        let version = Version { stamp, content, written: self.written(asked, block) };
        let value: Value = if asked.what == What::Write { asked.number } else { 0 };
        for block in blocks.clone() {
            let before = history.content(block, stamp);
            let next = history.next(block, stamp);
            for (k, is_written) in self.written(asked, block).into_iter().enumerate() {
                let expected = if is_written { value } else { before[k] };
                if content[k] != expected {
                    self.spreads(side, asked, block);
                    let story = format!("holds {content:?}, not {expected:?} in sector {k}");
                    broken("what is not written of a block stays", story);
                }
                if let Some(next) = next.filter(|n| !n.written[k] && n.content[k] != content[k]) {
                    let story = format!("{content:?} is below {next:?}, which has not read it");
                    broken("parts of blocks are ordered", story);
                }
            }
        }
        if blocks.len() > 1 {
            self.tape.count("records of many blocks");
        }
        self.check_session(side, asked, record.position);
        asked.records.push((stamp, blocks.clone()));
        let machine = &self.machines[side];
        let number = machine.count.replace(machine.count.get() + 1);
        machine.unpromised.borrow_mut().push_back((number, stamp));
        let request = asked.number;
        let fresh = Record {
            stamp,
            by: side,
            request,
            blocks,
            visible_at: None,
            completed: false,
            promised: false,
        };
        history.insert(fresh, version);
    }

    /// A record is not what it should be: if that is because a write of a part of a block has taken
    /// the rest from a rotten volume, nobody can tell, and the run is over.
    fn spreads(&self, side: Side, asked: &Asked, block: usize) {
        if asked.rotten.contains(&block) || self.is_rotten(side, block) {
            self.tape.count("rot of a volume written on");
            self.tape.judge_no_more();
            self.ended.set(true);
        }
    }

    /// A record's content as the disk or memory has it.
    pub(super) fn read_record(
        &self,
        record: &queue::Record,
        read: impl FnOnce(&mut [u8]) -> bool,
    ) -> Result<Content, String> {
        if record.content == Shape::Zero {
            return Ok([0; SECTORS_MAX]);
        }
        let mut buffer = self.buffer.borrow_mut();
        buffer.resize(self.plan.block_size, 0);
        if !read(&mut buffer) {
            return Err("cannot be read".into());
        }
        self.content_of(&buffer, self.plan.index(record.block))
    }

    pub(super) fn content_of(&self, bytes: &[u8], block: usize) -> Result<Content, String> {
        let mut content = [0; SECTORS_MAX];
        for ((value, sector), place) in
            content.iter_mut().zip(bytes.chunks_exact(SECTOR)).zip(self.plan.place(block)..)
        {
            *value = payload::value(sector, place)?;
        }
        Ok(content)
    }

    /// A completed write is there, whole: a record for every block, with consecutive stamps. Blocks
    /// that are to read as zeros and have none did so already, all those of one part of the request.
    pub(super) fn check_written(&self, side: Side, asked: &Asked) {
        let size = self.plan.block_sectors();
        let mut blocks = self.blocks_of(asked.volume, &asked.sectors);
        let first = blocks.start - (asked.sectors.start / size) as usize;
        let begin = first + asked.sectors.start.div_ceil(size) as usize;
        let whole = begin..(first + (asked.sectors.end / size) as usize).max(begin);
        if asked.what == What::Discard {
            blocks = whole.clone();
        }
        let mut wrote: Vec<usize> = asked.records.iter().flat_map(|r| r.1.clone()).collect();
        wrote.sort_unstable();
        wrote.dedup();
        let takes_none =
            asked.what != What::Write && !wrote.iter().any(|block| whole.contains(block));
        if takes_none {
            wrote.extend(whole.clone());
            wrote.sort_unstable();
        }
        let one_time = asked.records.windows(2).all(|w| w[0].0.time == w[1].0.time);
        let together = asked.what != What::Write || one_time;
        if !wrote.iter().copied().eq(blocks.clone()) || !together {
            let (name, number, records) = (NAMES[side], asked.number, &asked.records);
            let story = format!("{name} #{number} for {blocks:?} published {records:?}");
            self.tape.broken("a completed write is there, whole", story);
        }
        if takes_none && !whole.is_empty() {
            self.tape.count("requests without a record");
            for block in whole.filter(|block| !asked.rotten.contains(block)) {
                let promise = "what takes no record reads as zeros";
                self.check_shown(promise, side, asked, block, 0..size as usize, &[0; SECTORS_MAX]);
            }
        }
    }

    /// Reads are linearizable per block: a read returns a write that nothing completed or seen
    /// before the read was issued is newer than.
    pub(super) fn check_read(&self, side: Side, asked: &Asked, buffer: &[u8]) {
        let size = self.plan.block_sectors() as usize;
        let from = self.place(asked.volume, asked.sectors.start);
        let to = self.place(asked.volume, asked.sectors.end);
        let (name, number) = (NAMES[side], asked.number);
        let promise = "reads are linearizable per block";
        for block in self.blocks_of(asked.volume, &asked.sectors) {
            if asked.rotten.contains(&block) {
                continue;
            }
            let first = self.plan.place(block);
            let wanted = from.max(first)..to.min(first + size);
            let mut content = [0; SECTORS_MAX];
            for place in wanted.clone() {
                let sector = &buffer[(place - from) * SECTOR..][..SECTOR];
                match payload::value(sector, place) {
                    Ok(value) => content[place - first] = value,
                    Err(story) => {
                        return self.tape.broken(promise, format!("{name} #{number}: {story}"));
                    }
                }
            }
            let within = wanted.start - first..wanted.end - first;
            self.check_shown(promise, side, asked, block, within, &content);
        }
    }

    /// The request found `content` in the sectors `within` a block of its: that of a write that nothing
    /// completed or seen before the request was issued is newer than.
    fn check_shown(
        &self,
        promise: &'static str,
        side: Side,
        asked: &Asked,
        block: usize,
        within: Range<usize>,
        content: &Content,
    ) {
        let floor = asked.floors[block - self.blocks_of(asked.volume, &asked.sectors).start];
        let same = |held: &Content| held[within.clone()] == content[within.clone()];
        let history = self.history.borrow();
        let since = history.of(block).partition_point(|r| r.stamp < floor);
        let shown = history.of(block)[since..].iter().find(|v| same(&v.content));
        let stamp = match shown {
            Some(version) => version.stamp,
            None if floor == Stamp::ZERO && same(&[0; SECTORS_MAX]) => return,
            None => {
                let newest: Vec<Version> = history.of(block)[since..].to_vec();
                let (block, found) = (self.plan.block(block), &content[within.clone()]);
                let (name, number) = (NAMES[side], asked.number);
                drop(history);
                return self.tape.broken(promise, format!(
                    "{name} #{number} reads {found:?} from block {block}, whose sectors {within:?} \
                     since {floor} held {newest:?}"
                ));
            }
        };
        drop(history);
        self.saw(stamp);
    }

    /// The record was completed, or shown by a read: nobody may see older ones, or be stamped
    /// below it, from now on.
    fn saw(&self, stamp: Stamp) {
        let mut history = self.history.borrow_mut();
        let Some(record) = history.find_mut(stamp) else { return };
        record.visible_at.get_or_insert(self.tape.now());
        let blocks = record.blocks.clone();
        let mut floors = self.floors.borrow_mut();
        // A forced takeover may have given it up for some of its blocks.
        for block in blocks.filter(|&block| history.has(block, stamp)) {
            floors[block] = stamp.max(floors[block]);
        }
        self.seen.set(self.seen.get().max(stamp));
    }

    pub(super) fn completed(&self, records: &[(Stamp, Range<usize>)]) {
        for &(stamp, _) in records {
            self.saw(stamp);
            if let Some(record) = self.history.borrow_mut().find_mut(stamp) {
                record.completed = true;
            }
        }
    }

    /// Writes that wait to be admitted keep to the bound, unless one waits alone.
    pub(super) fn check_room(&self, side: Side) {
        let asked = self.machines[side].asked.borrow();
        let tickets = asked.iter().filter_map(|asked| asked.ticket.as_ref());
        let waiting: Vec<u64> = tickets.map(Ticket::waiting_bytes).filter(|&b| b > 0).collect();
        let most = self.plan.settings[side].waiting_bytes_max;
        if waiting.len() > 1 && waiting.iter().sum::<u64>() > most {
            let story = format!("{}: {waiting:?} bytes, at most {most}", NAMES[side]);
            self.tape.broken("what waits to be admitted is bounded", story);
        }
    }

    /// No write is delayed for longer than the bound because a journal is filling.
    pub(super) fn check_paced(&self, side: Side, asked: &mut Asked, ticket: &Ticket) {
        if !ticket.is_paced() {
            return;
        }
        let now = self.machines[side].clock.monotonic();
        if asked.paced_since.is_none() {
            self.tape.count("writes delayed");
        }
        let delayed = now - *asked.paced_since.get_or_insert(now);
        let most = self.plan.settings[side].pacing_max_ns;
        if delayed >= most {
            let (name, number) = (NAMES[side], asked.number);
            let story = format!("{name} #{number}: {delayed} ns, at most {most}");
            self.tape.broken("no write is delayed for longer than the bound", story);
        }
    }

    /// The link of a connection that is over is down at both ends, so that the peer learns it.
    pub(super) fn check_hung_up(&self, side: Side) {
        let machine = &self.machines[side];
        let Some(device) = self.device(side).filter(|_| !machine.is_dead()) else { return };
        let is_up = machine.wire.borrow().as_ref().is_some_and(|wire| wire.is_up());
        if is_up && lock(&device.failover).connection.session().is_none() {
            let story = format!("the connection of {} is over, and its line is up", NAMES[side]);
            self.tape.broken("a connection that ends ends its link", story);
        }
    }

    /// At rest the device that granted the tenure has heard that its peer serves, and that hosts reach
    /// it if its driver has said so.
    pub(super) fn check_heard(&self) {
        let Some(side) = self.serving() else { return };
        let (Some(serving), Some(other)) = (self.device(side), self.device(1 - side)) else {
            return;
        };
        let epoch = serving.clk.epoch();
        if lock(&other.tables).out.granted() != epoch {
            return;
        }
        let reached = lock(&serving.failover).role.reachable() == epoch;
        let heard = *lock(&self.machines[1 - side].heard.borrow());
        if heard[0] != epoch || reached && heard[1] != epoch {
            let story = format!("{} has heard {heard:?}, open is {epoch}", NAMES[1 - side]);
            self.tape.broken("a device hears that its peer serves, and that hosts reach it", story);
        }
    }

    pub(super) fn is_strict(&self, side: Side) -> bool {
        self.plan.settings[side].durability == Durability::Strict
    }

    /// The first `behind` records published at `side` were called durable.
    pub(super) fn promise(&self, side: Side, behind: u64) {
        let mut history = self.history.borrow_mut();
        let mut unpromised = self.machines[side].unpromised.borrow_mut();
        while let Some(&(_, stamp)) = unpromised.front().filter(|u| u.0 < behind) {
            if let Some(record) = history.find_mut(stamp) {
                record.promised = true;
            }
            unpromised.pop_front();
        }
    }

    /// A write that was to be durable has completed, and with it everything published before.
    pub(super) fn promise_records(&self, side: Side, asked: &Asked) {
        let behind = {
            let unpromised = self.machines[side].unpromised.borrow();
            let last = unpromised.iter().filter(|u| asked.records.iter().any(|r| r.0 == u.1));
            last.map(|u| u.0 + 1).max()
        };
        if let Some(behind) = behind {
            self.promise(side, behind);
        }
    }

    /// The received records are the other side's history, in order, each record once, with nothing
    /// left out.
    pub(super) fn check_received(&self, side: Side) {
        let Some(device) = self.device(side) else { return };
        let queue = &device.peer.recv.journal.queue;
        let machine = &self.machines[side];
        if self.has_parted(side) {
            return machine.received.set(queue.tail());
        }
        for position in machine.received.get()..queue.tail() {
            let due = self.history.borrow().next_of(1 - side, machine.hi.get()).cloned();
            self.check_arrival(side, &device, queue.record(position), due);
        }
        machine.received.set(queue.tail());
    }

    /// The record is the one that is due.
    pub(super) fn check_arrival(
        &self,
        side: Side,
        device: &crate::Device,
        record: queue::Record,
        due: Option<Record>,
    ) {
        let name = NAMES[side];
        let promise = "what arrives is the other side's history, in order";
        let blocks = self.plan.blocks_of(record.extent());
        let machine = &self.machines[side];
        let content = self.read_record(&record, |buf| {
            machine.disk.if_sound(|| device.peer.recv.read(&record, buf).is_ok_and(|read| read))
        });
        if blocks.len() > 1 && !machine.knows_extents.get() {
            let story = format!("{name} got {}", record.extent());
            self.tape.broken("a program gets only records that it knows", story);
        }
        let history = self.history.borrow();
        let is_due = |due: &Record| {
            let held = history.content(due.blocks.start, due.stamp);
            due.stamp == record.stamp && due.blocks == blocks && content.as_ref() == Ok(&held)
        };
        if !due.as_ref().is_some_and(is_due) {
            let (stamp, extent) = (record.stamp, record.extent());
            let story = format!("{name} got {stamp} for {extent} with {content:?}, due: {due:?}");
            self.tape.broken(promise, story);
        }
        machine.hi.set(record.stamp);
        machine.raise_final(record.stamp);
    }

    /// Each N is at every moment a prefix of the history.
    pub(super) fn check_volume(&self, side: Side, all: bool) {
        let Some(device) = self.device(side) else { return };
        let machine = &self.machines[side];
        // A device may halt between two writes to N, as it may die.
        if machine.is_dead() || device.halted.get().is_some() || self.has_parted(side) {
            return;
        }
        let reflected = lock(&device.tables).normal.reflected();
        machine.raise_final(reflected);
        if !self.says_prefix(side, &device) {
            return;
        }
        let history = self.history.borrow();
        let mut image = machine.image.borrow_mut();
        let mut all = all;
        if let Some(bound) = machine.replays_upto.get() {
            if reflected < bound {
                return;
            }
            machine.replays_upto.set(None);
            image.reset(&history, reflected.max(machine.collected.get()));
            all = true;
        }
        let reflected = reflected.max(machine.collected.get());
        let touched = image.advance_to(&history, reflected);
        let blocks = if all { (0..history.blocks()).collect() } else { touched };
        for block in blocks {
            let found = self.normal(side, block);
            if found.as_ref() != Ok(&image.blocks[block]) && !self.is_rotten(side, block) {
                let (name, at, expected) =
                    (NAMES[side], self.plan.block(block), &image.blocks[block]);
                let story = format!(
                    "N of {name} at {reflected}: block {at} holds {found:?}, not {expected:?}"
                );
                return self.tape.broken("N is at every moment a prefix of the history", story);
            }
        }
    }

    /// After an opening N, with everything that may go there while the peer is silent, is a prefix
    /// of the history: the peer may be silent for ever.
    pub(super) fn check_silent(&self, side: Side) {
        let Some(device) = self.device(side) else { return };
        let is_torn = lock(&device.tables).incoming.hi() < self.machines[side].torn_upto.get();
        if self.tape.is_faithless() || is_torn || !self.says_prefix(side, &device) {
            return;
        }
        let (records, ..) = device.oldest_reflectable(usize::MAX);
        let history = self.history.borrow();
        let mut blocks: Vec<_> = (0..history.blocks()).map(|b| self.normal(side, b)).collect();
        let collected = self.machines[side].collected.get();
        let mut upto = lock(&device.tables).normal.reflected().max(collected);
        for (_, record) in records {
            for block in self.plan.blocks_of(record.extent()) {
                blocks[block] = Ok(history.content(block, record.stamp));
            }
            upto = record.stamp;
        }
        let torn = |at| {
            let is_torn = |(block, held): &(usize, &Result<Content, String>)| {
                held.as_ref() != Ok(&history.content(*block, at)) && !self.is_rotten(side, *block)
            };
            blocks.iter().enumerate().find(is_torn)
        };
        // N may be ahead of what the tables say, as long as it is whole.
        let later = history.after(upto).iter().map(|r| r.stamp);
        if let Some((block, held)) = torn(upto)
            && later.into_iter().all(|at| torn(at).is_some())
        {
            let (name, expected) = (NAMES[side], history.content(block, upto));
            let at = self.plan.block(block);
            let story = format!(
                "N of {name} at {upto}: block {at} holds {held:?}, not {expected:?}, and no later \
                 state of the history fits"
            );
            self.tape.broken("N is a prefix after an opening, though the peer is silent", story);
        }
    }

    /// The content of a block in N, read past the device.
    pub(super) fn normal(&self, side: Side, block: usize) -> Result<Content, String> {
        self.content_of(&self.normal_bytes(side, block), block)
    }

    /// The same, byte by byte.
    pub(super) fn normal_bytes(&self, side: Side, block: usize) -> Ref<'_, Vec<u8>> {
        let at = self.plan.block(block);
        let byte = at.number * self.plan.block_size as u64;
        let file = FileName::Segment { volume: at.volume, index: (byte / 65_536) as u32 };
        let mut buffer = self.buffer.borrow_mut();
        buffer.clear();
        buffer.resize(self.plan.block_size, 0);
        let disk = &self.machines[side].disk;
        // Blocks that a forced takeover puts back are not there yet.
        let is_overlaid = |device: std::sync::Arc<crate::Device>, buffer: &mut [u8]| {
            device.volumes.read_overlaid(at, buffer).is_ok_and(|is_overlaid| is_overlaid)
        };
        if !self.device(side).is_some_and(|device| is_overlaid(device, &mut buffer)) {
            // A segment that does not exist is zeros.
            let _ = disk.peek(file, (byte % 65_536) as usize, &mut buffer);
        }
        drop(buffer);
        self.buffer.borrow()
    }

    /// Whether a sector of `block` in N has rotted: nothing there can tell.
    pub(super) fn is_rotten(&self, side: Side, block: usize) -> bool {
        let at = self.plan.block(block);
        let size = self.plan.block_size;
        let byte = at.number * size as u64;
        let segment = FileName::Segment { volume: at.volume, index: (byte / 65_536) as u32 };
        let within = (byte % 65_536) as usize..(byte % 65_536) as usize + size;
        self.machines[side].disk.is_rotten(|file, at| file == segment && within.contains(&at))
    }

    /// The new active device serves everything that the old one had; it asks for
    /// nothing that is here.
    pub(super) fn check_taken_over(&self, side: Side) {
        let Some(device) = self.device(side) else { return };
        let (reflected, hi) = {
            let tables = lock(&device.tables);
            (tables.normal.reflected(), tables.incoming.hi())
        };
        let by_table = device.peer.machine.mode() != Mode::Ordered;
        if by_table {
            self.check_taken_by_table(side, &device);
        } else if let Some(peer) = self.device(1 - side).filter(|_| !self.tape.is_faithless()) {
            let prototype: Vec<_> = peer.prototype().into_iter().filter(|e| e.1 > hi).collect();
            let told: Vec<_> = device.peer.owed.told().iter().collect();
            if told != prototype {
                let story = format!("{}: {told:?}, not {prototype:?}", NAMES[side]);
                self.tape.broken("what was told is the prototype", story);
            }
        }
        let history = self.history.borrow();
        for index in 0..history.blocks() {
            let block = self.plan.block(index);
            let Some(newest) = history.newest(index) else { continue };
            let location = device.location(block);
            let holds = match &location {
                Location::Remote if by_table => device.peer.machine.is_owed(block),
                // Copies are no records: N is looked at.
                Location::Normal if by_table => {
                    let content = history.content(index, newest);
                    self.normal(side, index) == Ok(content) || self.is_rotten(side, index)
                }
                Location::Remote => {
                    let owed = device.peer.owed.of(block);
                    owed == Some(newest) && newest > hi
                }
                Location::Own(r) | Location::Received(r) => r.stamp == newest,
                Location::Normal => newest <= reflected,
            };
            if !holds {
                let name = NAMES[side];
                let story =
                    format!("{name} finds block {block} at {location:?}, its newest is {newest}");
                self.tape.broken("a takeover takes everything over", story);
            }
        }
    }

    /// Hosts are refused for reasons that they know, and sent on or asked to wait.
    pub(super) fn check_refusal(&self, side: Side, error: &Error) {
        let excused = self.machines[side].may_halt()
            || is_over_saving(error)
            || self.is_over_loss(error)
            || self.is_over_rot(side, error);
        let is_lost = self.is_over_loss(error) && error.kind() == Kind::Damaged
            || error.kind() == Kind::LostWrites;
        if !(error.kind().is_retryable() || is_lost || excused && error.kind() == Kind::Halted) {
            let story = format!("{}: {error}", NAMES[side]);
            self.tape.broken("hosts are refused for reasons that they know", story);
        }
    }

    /// A device stops for good only if something of its broke.
    pub(super) fn check_halt(&self, side: Side, error: &Error) {
        let excused =
            is_over_saving(error) || self.is_over_loss(error) || self.is_over_rot(side, error);
        if !self.machines[side].may_halt() && !excused {
            let story = format!("{}: {error}", NAMES[side]);
            self.tape.broken("a device stops only if something of its broke", story);
        }
    }

    /// Whether a device has stopped over what a faithless disk lost, and says so.
    fn is_over_loss(&self, error: &Error) -> bool {
        self.tape.is_faithless() && says_what_is_lost(&error.to_string())
    }

    /// Whether a device has stopped over a record that has rotted, and names it.
    fn is_over_rot(&self, side: Side, error: &Error) -> bool {
        let said = error.to_string();
        let named = |file: FileName, at: usize| {
            let (at, size) = (at as u64, self.plan.block_size as u64);
            let (_, place) = said.split_once("reading record ").unwrap_or_default();
            let place = place.split(" at ").nth(1).and_then(|rest| rest.split(' ').next());
            let place = place.and_then(|place| place.parse::<u64>().ok());
            said.contains(&format!(" of {file}: checksum is "))
                && place.is_some_and(|place| (place..place + size).contains(&at))
        };
        self.machines[side].disk.is_rotten(named)
    }
}

/// The device stopped because what must be saved first could not be: a full disk has no room for it.
pub(super) fn is_over_saving(error: &Error) -> bool {
    let said = error.to_string();
    said.contains("side/salvage") || said.contains("side/unsaved")
}
