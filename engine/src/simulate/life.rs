//! How processes begin and end: clean closings, kills, power cuts, starts; and what must then be
//! there again.

use super::disk::Leaves;
use super::history::Record;
use super::ladder::has_ladder;
use super::promises::is_over_saving;
use super::random::Random;
use super::tape::Sort;
use super::world::World;
use super::{NAMES, Side};
use crate::device::Device;
use crate::error::{Error, Kind};
use crate::format::frame::{
    CHECKSUMS_FEATURE, EXTENTS_FEATURE, FEATURES, LADDER_WIRE, WIRE, WireRange,
};
use crate::sync::lock;
use crate::unit::Stamp;

pub(super) const ALL_LEAVES: [Leaves; 4] =
    [Leaves::Nothing, Leaves::All, Leaves::Writes, Leaves::Sectors];

impl World {
    /// Starts a process on the disk at `side`, if none runs there.
    pub fn start(&self, side: Side) {
        let machine = &self.machines[side];
        if machine.device.borrow().is_some() || self.sites.gone.get() == Some(side) {
            return;
        }
        let process = match machine.process.borrow().clone() {
            Some(armed) => armed,
            None => machine.disk.begin(),
        };
        *machine.process.borrow_mut() = Some(process.clone());
        let (clock, settings) = (machine.clock.clone(), self.plan.settings[side].clone());
        self.tape.event(Sort::Fault, format_args!("{} starts", NAMES[side]));
        let opened = Device::open(process, clock, settings);
        if machine.is_dead() {
            return self.bury(side);
        }
        match opened {
            Ok(device) => {
                self.choose_program(side, &device);
                self.hook(side, &device);
                *machine.device.borrow_mut() = Some(device);
                self.check_recovered(side);
            }
            Err(error) => self.check_refused_opening(side, &error),
        }
    }

    /// The program that has been started may be an older one, unless the superblock says that records
    /// of many blocks are known.
    fn choose_program(&self, side: Side, device: &Device) {
        let random = &mut Random::of(self.plan.seed, 8, self.tape.now());
        let is_newest = !self.plan.old_programs || self.upgraded.get();
        // One that has heard the other's hello may suspend before the other has heard its own.
        let may_suspend = self.device(1 - side).is_some_and(|other| has_ladder(&other));
        let knows_ladder = is_newest || may_suspend || has_ladder(device) || random.once_in(2);
        let knows_extents = knows_ladder || device.has_extents() || random.once_in(2);
        self.speak(side, device, knows_extents, knows_ladder);
    }

    /// From its next hello on the device is one of a program that knows records of many blocks, or not, and
    /// differential mode, or not.
    fn speak(&self, side: Side, device: &Device, knows_extents: bool, knows_ladder: bool) {
        self.machines[side].knows_extents.set(knows_extents);
        let unknown = if knows_extents { 0 } else { EXTENTS_FEATURE | CHECKSUMS_FEATURE };
        let wire = if knows_ladder { WIRE } else { WireRange { max: LADDER_WIRE - 1, ..WIRE } };
        lock(&device.failover).connection.speak(wire, FEATURES & !unknown);
        if !knows_extents || !knows_ladder {
            let name = NAMES[side];
            self.tape.set_old(side);
            self.tape.event(Sort::Fault, format_args!("the program of {name} is an older one"));
            self.tape.count("starts of an older program");
        }
    }

    /// Devices of an older program get the newest, and a new line.
    pub fn upgrade(&self) {
        self.upgraded.set(true);
        for side in [0, 1] {
            if let Some(device) = self.device(side)
                && lock(&device.failover).connection.range() != (WIRE, FEATURES)
            {
                self.hang_up();
                self.speak(side, &device, true, true);
            }
        }
    }

    /// A device opens again after every crash; what is damaged is refused, and named.
    fn check_refused_opening(&self, side: Side, error: &Error) {
        let said = error.to_string();
        let named = ["own.log", "recv.log", "superblock"].iter().any(|file| said.contains(file));
        // A disk that lies forgets, but what it has left is sound.
        let rotten = self.machines[side].rot.borrow().is_some();
        if rotten && error.kind() == Kind::Damaged && named {
            self.tape.event(Sort::Fault, format_args!("{} is refused: {said}", NAMES[side]));
            self.tape.count("damage refused by name");
            self.ended.set(true);
            return;
        }
        let story = format!("{}: {said}", NAMES[side]);
        self.tape.broken("a device opens again after every crash", story);
    }

    /// Starts a process that sometimes dies while it starts.
    pub fn start_or_fall(&self, side: Side, random: &mut Random) {
        let machine = &self.machines[side];
        if machine.device.borrow().is_some() || self.sites.gone.get() == Some(side) {
            return;
        }
        if random.once_in(6) && !self.plan.never.contains(&super::action::Kind::Trouble) {
            *machine.process.borrow_mut() = Some(machine.disk.begin());
            machine.disk.arm(random.within(0..6), super::disk::Trouble::Death, random.next());
        }
        self.start(side);
    }

    /// The device at `side` is closed as it should be.
    pub fn close(&self, side: Side) {
        let machine = &self.machines[side];
        let Some(device) = self.device(side) else { return };
        if device.halted.get().is_some() {
            return;
        }
        self.poll_all(side);
        machine.asked.borrow_mut().clear();
        let closed = device.close();
        if machine.is_dead() {
            return;
        }
        if let Err(error) = closed {
            return self.check_halt(side, &error);
        }
        self.check_volume(side, false);
        // Closing makes everything durable.
        self.promise(side, machine.count.get());
        self.tape.event(Sort::Fault, format_args!("{} is closed", NAMES[side]));
        self.tape.count("clean closings");
        self.end(side);
    }

    /// The process at `side` is killed, or the power fails (`leaves`: what that leaves).
    pub fn crash(&self, side: Side, leaves: Option<(Leaves, &mut Random)>) {
        let machine = &self.machines[side];
        let Some(device) = self.device(side) else { return };
        // The step that was under way may have brought N up to anything that was in the tables.
        {
            let tables = lock(&device.tables);
            let all = tables.newest_own().max(tables.incoming.hi());
            let owed = tables.is_behind();
            let upto = if owed { tables.incoming.hi().max(tables.normal.whole()) } else { all };
            let bound = machine.replays_upto.get().unwrap_or(Stamp::ZERO).max(upto);
            machine.replays_upto.set(Some(bound.max(tables.normal.reflected())));
        }
        match leaves {
            None => {
                self.tape.event(Sort::Fault, format_args!("{} is killed", NAMES[side]));
                self.tape.count("kills");
            }
            Some((leaves, random)) => {
                let name = NAMES[side];
                self.tape.event(Sort::Fault, format_args!("the power of {name} fails: {leaves:?}"));
                self.tape.count("power cuts");
                machine.power_failed.set(true);
                if machine.disk.cut(leaves, random) {
                    self.lied(side, Some(&device));
                }
            }
        }
        self.end(side);
    }

    pub fn power_cut(&self, side: Side, random: &mut Random) {
        let leaves = random.pick(&ALL_LEAVES);
        self.crash(side, Some((leaves, random)));
    }

    /// A process ends, and leaves its machine as it is.
    fn end(&self, side: Side) {
        let machine = &self.machines[side];
        if let Some(process) = machine.process.borrow_mut().take() {
            process.dead.store(true, crate::sync::Ordering::Relaxed);
        }
        machine.disk.disarm();
        machine.asked.borrow_mut().clear();
        machine.sessions.borrow_mut().clear();
        machine.returns.take();
        machine.comparison.take();
        machine.unsettled_positions.borrow_mut().clear();
        let wire = machine.wire.borrow_mut().take();
        if let Some(wire) = wire {
            // The frames that it had sent still arrive.
            wire.cut(|frames| frames, true);
        }
        let device = machine.device.borrow_mut().take();
        // The sectors that rotted while it ran did so beneath what its logs hold now.
        if device.is_some() && machine.rot.borrow().is_some() {
            let held = self.held(side);
            *machine.rot.borrow_mut() = Some(held.unwrap_or_default());
        }
        drop(device);
    }

    /// A process that died in an operation, or whose device stopped, is gone.
    pub fn bury(&self, side: Side) {
        let machine = &self.machines[side];
        let Some(process) = machine.process.borrow().clone() else { return };
        let halted = self.device(side).is_some_and(|d| d.halted.get().is_some());
        if !process.is_dead() && !halted {
            return;
        }
        let is_full =
            self.device(side).is_some_and(|device| device.halted.get().is_some_and(is_over_saving));
        if halted && !process.is_dead() && !process.has_failed() && !is_full {
            if self.machines[side].rot.borrow().is_some() {
                return self.check_stopped(side);
            }
            // It has stopped over what a faithless disk did, and stays so.
            self.tape.count("stopped over a faithless disk");
            if !self.tape.is_faithless() {
                let story = format!("{}, on a faithful disk", NAMES[side]);
                self.tape.broken("a device stops only if something of its broke", story);
            }
            return self.ended.set(true);
        }
        // The next action depends on the past ones, so that it is the same in every replay.
        let mut random = Random::of(self.plan.seed, 3, self.tape.now());
        // The process may die after a failed sync, too: the next one finds in the cache what is not
        // on the disk.
        let fails = random.once_in(2) && !self.plan.never_synced();
        if machine.device.borrow().is_none() {
            // It died while it started.
            if fails {
                machine.power_failed.set(true);
                if machine.disk.cut(random.pick(&ALL_LEAVES), &mut random) {
                    self.lied(side, None);
                }
            }
            self.tape.count("deaths while starting");
            return self.end(side);
        }
        match fails {
            true => self.power_cut(side, &mut random),
            false => self.crash(side, None),
        }
    }

    /// Checks the records after a start: nothing that was called durable is lost, and of the rest
    /// only a tail; what was received and acknowledged is there; nothing is there that nobody
    /// wrote.
    fn check_recovered(&self, side: Side) {
        let Some(device) = self.device(side) else { return };
        if self.check_forced(side, &device) {
            return;
        }
        let (machine, name) = (&self.machines[side], NAMES[side]);
        let (hi, acked, fl, kept_upto) = {
            let tables = lock(&device.tables);
            let superblock = device.superblock.get();
            (
                tables.incoming.hi(),
                tables.out.acked(),
                tables.normal.reflected(),
                superblock.fl.min(tables.out.floor()),
            )
        };
        if lock(&device.tables).is_behind() {
            // The step by which it was owed nothing is lost.
            machine.collected.set(Stamp::ZERO);
        }
        self.check_lost(side, &device, kept_upto);
        self.recount();
        machine.acked.set(acked);
        // The received records.
        let told = self.machines[1 - side].acked.get();
        let lied = machine.lied.get().is_some();
        if hi < told && (lied || self.is_unnamed(side, hi, told)) {
            machine.must_notice.set(true);
        } else if hi < told {
            let story = format!("{name} has received up to {hi}, and acknowledged {told}");
            self.tape.broken("what was acknowledged is there", story);
        }
        let queue = &device.peer.recv.journal.queue;
        machine.hi.set(Stamp::ZERO);
        machine.hi.set({
            let history = self.history.borrow();
            let first = (queue.freed() < queue.tail()).then(|| queue.record(queue.freed()).stamp);
            let after = first.map_or(hi, |first| first.min(fl));
            match first {
                // The one before the first that is there.
                Some(first) if first <= fl => {
                    let before = |r: &&Record| r.stamp < first && r.by != side;
                    let last = history.after(Stamp::ZERO).iter().rfind(before);
                    last.map_or(Stamp::ZERO, |r| r.stamp)
                }
                _ => after,
            }
        });
        for position in queue.freed()..queue.tail() {
            let record = queue.record(position);
            let due = {
                let history = self.history.borrow();
                // A record that had come before the other side's history was over is there still.
                let due = match history.is_left_to_bits(1 - side, record.stamp) {
                    true => history
                        .find(record.stamp)
                        .filter(|r| r.by != side && r.stamp > machine.hi.get()),
                    false => history.next_of(1 - side, machine.hi.get()),
                };
                due.cloned()
            };
            self.check_arrival(side, &device, record, due);
        }
        let next = self.history.borrow().next_of(1 - side, machine.hi.get()).map(|r| r.stamp);
        if machine.hi.get() > hi || next.is_some_and(|next| next <= hi) {
            let (last, story) = (machine.hi.get(), "received, as it says");
            let story = format!("{name} has {story}, up to {hi}; {last} is its last record");
            self.tape.broken("what was acknowledged is there", story);
        }
        machine.hi.set(hi);
        machine.received.set(queue.tail());
        if lied {
            machine.final_upto.set(fl.max(hi));
            let newest = lock(&device.tables).newest_own().max(hi);
            machine.replays_upto.set(Some(newest));
        }
        // The volume: a prefix at once, or once it is brought to where it stood.
        let mut image = machine.image.borrow_mut();
        image.reset(&self.history.borrow(), fl.max(machine.collected.get()));
        drop(image);
        if machine.replays_upto.get().is_none() && !self.ended.get() {
            self.check_volume(side, true);
        }
        self.check_silent(side);
        if !self.ended.get() {
            self.check_faith(side);
        }
    }

    /// Own records: those there must be known, those not there must be a tail.
    fn check_lost(&self, side: Side, device: &Device, kept_upto: Stamp) {
        let (machine, name) = (&self.machines[side], NAMES[side]);
        let queue = &device.own.journal.queue;
        let mut there = Vec::new();
        for position in queue.freed()..queue.tail() {
            let record = queue.record(position);
            let blocks = self.plan.blocks_of(record.extent());
            let content = self
                .read_record(&record, |buf| device.own.read(&record, buf).is_ok_and(|read| read));
            let history = self.history.borrow();
            let known = history.find(record.stamp).filter(|r| r.by == side && r.blocks == blocks);
            let held = known.map(|known| history.content(known.blocks.start, known.stamp));
            let past = || self.past(record.stamp, &blocks) == content.clone().ok();
            if content.is_err() || held != content.clone().ok() && !past() {
                let story =
                    format!("{name} finds {} with {content:?}, known is {known:?}", record.stamp);
                self.tape.broken("nothing is there that nobody wrote", story);
            }
            there.push((record.stamp, position));
        }
        there.sort_unstable();
        let mut history = self.history.borrow_mut();
        let is_lost = |stamp: Stamp| there.binary_search_by_key(&stamp, |t| t.0).is_err();
        let own = history.records_of(side, kept_upto).map(|r| r.stamp);
        let lost: Vec<Stamp> = own.filter(|&stamp| is_lost(stamp)).collect();
        if !lost.is_empty() {
            self.tape.count("crashes that lost a tail");
        }
        let lied = machine.lied.get().is_some();
        let rot = machine.rot.borrow();
        let mut taken_back = machine.taken_back.borrow_mut();
        for &stamp in &lost {
            let record = history.find(stamp).expect("just found");
            let peer = self.machines[1 - side].hi.get();
            let rotted = rot.as_ref().filter(|rot| rot.own.contains(&stamp));
            let story = if lied {
                taken_back.push(stamp);
                continue;
            } else if let Some(rot) = rotted {
                if rot.own_unnamed.contains(&stamp) {
                    // Rot in the last batch, which nothing names, looks like a tail that was never
                    // synced.
                    taken_back.push(stamp);
                    continue;
                }
                "has rotted, and nobody says so"
            } else if record.promised {
                "was called durable"
            } else if stamp <= peer {
                "was shipped"
            } else if stamp <= self.machines[0].image.borrow().at
                || stamp <= self.machines[1].image.borrow().at
            {
                "is in a normal volume"
            } else {
                continue;
            };
            let story = format!("{name} lost {stamp}, which {story}");
            self.tape.broken("nothing acknowledged as durable is lost", story);
        }
        // Of what was completed, only a tail: what was issued after a completion goes with it.
        let first = lost.iter().filter_map(|&s| history.find(s)?.visible_at.map(|at| (at, s)));
        if let Some((at, gone)) = first.min() {
            for &(stamp, _) in &there {
                let Some(record) = history.find(stamp) else { continue };
                if history.issued[record.request as usize] > at {
                    let story = format!(
                        "{name} lost {gone} and kept {stamp}, issued after it was completed"
                    );
                    self.tape.broken("of volatile completions only a tail is lost", story);
                }
            }
        }
        let is_completed = |&s: &Stamp| history.find(s).is_some_and(|r| r.completed);
        let gone = lost.iter().filter(|l| !taken_back.contains(l)).any(is_completed);
        self.check_mark(side, device, gone, history.issued.len());
        // Until it is known what the peer has, what was taken back is history all the same.
        let lost: Vec<_> = lost.into_iter().filter(|l| !taken_back.contains(l)).collect();
        if !self.tape.is_faithless() {
            self.check_mark_names(side, device, &lost);
        }
        history.lose(&lost);
        machine.published.set(queue.tail());
        let mut unpromised = machine.unpromised.borrow_mut();
        unpromised.clear();
        let is_open =
            |&&(stamp, _): &&(Stamp, u64)| history.find(stamp).is_some_and(|r| !r.promised);
        let mut open: Vec<_> = there.iter().filter(is_open).collect();
        open.sort_unstable_by_key(|t| t.1);
        for &&(stamp, _) in &open {
            let number = machine.count.replace(machine.count.get() + 1);
            unpromised.push_back((number, stamp));
        }
    }

    /// Counts anew what can still have been seen, now that some of it is lost.
    pub(super) fn recount(&self) {
        let history = self.history.borrow();
        let mut seen = Stamp::ZERO;
        for (block, floor) in self.floors.borrow_mut().iter_mut().enumerate() {
            let is_visible = |s: &Stamp| history.find(*s).is_some_and(|r| r.visible_at.is_some());
            let mut stamps = history.of(block).iter().rev().map(|v| v.stamp);
            *floor = stamps.find(is_visible).unwrap_or(Stamp::ZERO);
            seen = seen.max(*floor);
        }
        self.seen.set(seen);
    }
}
