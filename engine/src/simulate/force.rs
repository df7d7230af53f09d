//! Sites that are lost: the other device is forced to take over (D10), the loss sheet tells what that
//! gives up, and what comes back is its target.

use super::history::{Content, History, Record, SECTORS_MAX};
use super::random::Random;
use super::tape::Sort;
use super::world::World;
use super::{NAMES, Side};
use crate::device::Device;
use crate::error::{Kind as ErrorKind, Result};
use crate::failover::{Closed, Forced, Image, LossSheet};
use crate::image::ImageStatus;
use crate::queue;
use crate::salvage;
use crate::storage::Storage;
use crate::superblock;
use crate::sync::{Ordering::Relaxed, lock};
use crate::table::differential::Consistent;
use crate::table::location::Location;
use crate::unit::{Mode, Stamp};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// A device was forced, and was not opened since.
pub(super) struct Word {
    sheet: LossSheet,
    accepted: bool,
}

/// The state of sites that are lost, and of histories that are over.
#[derive(Default)]
pub(super) struct Sites {
    /// The device whose site is lost.
    pub gone: Cell<Option<Side>>,
    /// By device: its history is over, and it is a target when it returns.
    parted: [Cell<bool>; 2],
    /// By device that has parted: it has been opened since.
    is_known: [Cell<bool>; 2],
    /// By device that has parted: it has writes that it admitted alone, and an operator chooses.
    is_branch: [Cell<bool>; 2],
    words: [RefCell<Option<Word>>; 2],
    /// By device: it took over right after it had returned, and some of its blocks are still of the history
    /// that is over.
    is_mixed: [Cell<bool>; 2],
    /// Records that the device which took them may have lost the history of.
    past: RefCell<BTreeMap<Stamp, (Range<usize>, Content)>>,
    /// The lineage that is served.
    lineage: Cell<(u64, u64)>,
    /// Blocks whose newest content was the forced device's own, and is in its salvage: the other one may have
    /// older content of them.
    put_aside: RefCell<BTreeSet<usize>>,
    /// By device: blocks whose content nobody else ever had.
    alone: [RefCell<Vec<(usize, Content)>>; 2],
}

impl World {
    /// Whether the device's history is over: nobody is served by it.
    pub(super) fn has_parted(&self, side: Side) -> bool {
        self.sites.parted[side].get()
    }

    /// Whether an operator's word that the other device does not serve may be given to `side`.
    pub(super) fn may_be_alone(&self, side: Side) -> bool {
        !self.has_parted(side) && self.sites.words.iter().all(|word| word.borrow().is_none())
    }

    /// The site at `side` is lost for a while. One that would serve by itself is not given up.
    pub fn lose_site(&self, side: Side, random: &mut Random) {
        let may_serve = |device: &Arc<Device>| device.policy().resume_alone;
        let Some(device) = self.device(side).filter(|device| !may_serve(device)) else { return };
        let is_forced = self.sites.words.iter().any(|word| word.borrow().is_some());
        let is_gone = self.sites.gone.get().is_some();
        if is_gone || is_forced || device.halted.get().is_some() || self.plan.old_programs {
            return;
        }
        drop(device);
        self.stop(side, random);
        if self.device(side).is_some() {
            return;
        }
        self.sites.gone.set(Some(side));
        self.tape.event(Sort::Fault, format_args!("the site of {} is lost", NAMES[side]));
        self.tape.count("lost sites");
    }

    fn stop(&self, side: Side, random: &mut Random) {
        match random.below(3) {
            0 => self.close(side),
            1 if !self.plan.never_synced() => self.power_cut(side, random),
            _ => self.crash(side, None),
        }
    }

    /// The site that was lost can be reached again.
    pub fn recover_site(&self) {
        if self.sites.words.iter().any(|word| word.borrow().is_some()) {
            return;
        }
        if let Some(side) = self.sites.gone.take() {
            self.tape.event(Sort::Fault, format_args!("the site of {} is back", NAMES[side]));
        }
    }

    /// An operator forces the device that is left, if it does not serve.
    pub fn force(&self, random: &mut Random) {
        let Some(gone) = self.sites.gone.get() else { return };
        let side = 1 - gone;
        if self.serving().is_some() || !self.may_be_alone(side) {
            return;
        }
        self.stop(side, random);
        self.start(side);
        self.machines[side].disk.disarm();
        let Some(device) = self.device(side) else { return };
        let is_over = self.ended.get() || self.tape.is_broken();
        if self.serving().is_some() || self.machines[side].may_halt() || is_over {
            return;
        }
        let Some(expected) = self.sheet(side, &device, random) else { return };
        drop(device);
        self.crash(side, None);
        let before = self.lineage_on_disk(side);
        let machine = &self.machines[side];
        let process = machine.disk.begin();
        if random.once_in(2) {
            let after = random.within(0..12);
            machine.disk.arm(after, super::disk::Trouble::Death, random.next());
        }
        let accepted = random.once_in(2);
        let word = Forced { image: expected.image, accept_loss: accepted };
        let (clock, settings) = (machine.clock.clone(), self.plan.settings[side].clone());
        let outcome = Device::force(process.clone(), clock, settings, word);
        machine.disk.disarm();
        let died = process.is_dead();
        process.dead.store(true, Relaxed);
        if died && !self.plan.never_synced() && random.once_in(2) {
            let leaves = random.pick(&super::life::ALL_LEAVES);
            machine.power_failed.set(true);
            machine.disk.cut(leaves, random);
        }
        let is_forced = self.lineage_on_disk(side) != before;
        let name = NAMES[side];
        self.tape.event(Sort::Takeover, format_args!("{name} is forced: {is_forced} {died}"));
        self.check_forcing(side, &expected, &outcome, is_forced, died);
        if is_forced {
            self.tape.count(if died { "deaths behind a force" } else { "forced takeovers" });
            let word = Word { sheet: expected, accepted };
            *self.sites.words[side].borrow_mut() = Some(word);
        } else {
            self.tape.count("deaths before a force");
        }
        self.start(side);
    }

    /// The loss sheet, of the one image or the other; `None` if the device has resumed alone.
    fn sheet(&self, side: Side, device: &Arc<Device>, random: &mut Random) -> Option<LossSheet> {
        let image = random.pick(&[Image::Consistent, Image::Newest]);
        let has_image = matches!(device.image.status(), ImageStatus::Kept { .. });
        let refused = |image| match device.loss_sheet(image) {
            Ok(sheet) => Ok(sheet),
            Err(error) if error.kind() == ErrorKind::Invalid => Err(error),
            Err(error) => {
                self.check_halt(side, &error);
                Err(error)
            }
        };
        match refused(image) {
            Ok(sheet) => Some(sheet),
            Err(_) if image == Image::Consistent && refused(Image::Newest).is_ok() => {
                self.tape.count("forces refused without a consistent image");
                if device.peer.machine.read().consistent() != Consistent::Yes && !has_image {
                    return refused(Image::Newest).ok();
                }
                let story = format!("{} is not forced, and has a consistent image", NAMES[side]);
                self.tape.broken("a force is refused where it must be", story);
                None
            }
            // Its disk failed meanwhile.
            Err(_) if device.halted.get().is_some() => None,
            Err(error) => {
                // An operator's word, which a fence of an operator's ends by.
                self.machines[side].fenced_here.set(None);
                if device.resume_alone().is_err() {
                    let story = format!("{}: {error}", NAMES[side]);
                    self.tape.broken("a device is forced or resumed alone", story);
                }
                self.tape.count("forces of devices that lack nothing");
                None
            }
        }
    }

    fn lineage_on_disk(&self, side: Side) -> (u64, u64) {
        let disk = self.machines[side].disk.process();
        superblock::load(&disk).map(|superblock| superblock.lineage).unwrap_or_default()
    }

    /// A force is done or not, whenever its process dies; and the loss sheet was known before.
    fn check_forcing(
        &self,
        side: Side,
        expected: &LossSheet,
        outcome: &Result<LossSheet>,
        is_forced: bool,
        died: bool,
    ) {
        let is_same = |sheet: &LossSheet| {
            // An opening before it took what bits had told, which no longer counts for another.
            let of = |sheet: &LossSheet| LossSheet {
                made_at: 0,
                told_blocks: Vec::new(),
                ..sheet.clone()
            };
            of(sheet) == of(expected)
        };
        let holds = match outcome {
            Ok(sheet) => is_forced && is_same(sheet),
            Err(_) => died,
        };
        if !holds {
            let story = format!("{}: {outcome:?}, expected {expected:?}", NAMES[side]);
            self.tape.broken("a force does what its sheet says, or nothing", story);
        }
    }

    /// The two histories have parted for good, and an operator keeps the one that is served.
    pub fn resolve(&self) {
        let Some(side) = [0, 1].into_iter().find(|&side| self.has_parted(1 - side)) else { return };
        let Some(device) = self.device(side) else { return };
        let has_met = device.superblock.get().history.other.is_some();
        drop(device);
        if !has_met || self.has_parted(side) || self.sites.words[side].borrow().is_some() {
            return;
        }
        self.close(side);
        if self.device(side).is_some() {
            return;
        }
        let machine = &self.machines[side];
        let process = machine.disk.begin();
        let (clock, settings) = (machine.clock.clone(), self.plan.settings[side].clone());
        let resolved = Closed::resolve(process.clone(), clock, settings);
        process.dead.store(true, Relaxed);
        if let Err(error) = resolved {
            let story = format!("{}: {error}", NAMES[side]);
            return self.tape.broken("of two branches one can be chosen", story);
        }
        self.tape.event(Sort::Host, format_args!("the history of {} is kept", NAMES[side]));
        self.tape.count("branches given up by a word");
        self.sites.is_branch[1 - side].set(false);
        self.start(side);
    }

    /// After an opening: if the device was forced, its content is the history from now on. Returns whether
    /// the device has parted, so that nothing more is to be said of its records.
    pub(super) fn check_forced(&self, side: Side, device: &Arc<Device>) -> bool {
        let word = self.sites.words[side].take();
        if let Some(word) = word {
            self.begin_history(side, device, &word);
        }
        if !self.has_parted(side) {
            self.sites.lineage.set(device.superblock.get().lineage);
            if !self.sites.alone[side].borrow().is_empty() {
                self.tape.count("restarts before everything was saved");
            }
            return false;
        }
        if !self.sites.is_known[side].replace(true) {
            self.note_alone(side, device);
        }
        self.skip(side, device);
        true
    }

    fn begin_history(&self, side: Side, device: &Arc<Device>, word: &Word) {
        let peer = 1 - side;
        let name = NAMES[side];
        let blocks = self.history.borrow().blocks();
        let found: std::result::Result<Vec<Content>, String> =
            (0..blocks).map(|block| self.served(side, device, block)).collect();
        let found = match found {
            Ok(found) => found,
            Err(story) => {
                let story = format!("{name}: {story}");
                return self.tape.broken("a forced device serves every block", story);
            }
        };
        let had_parted = self.sites.parted[peer].replace(true);
        self.sites.is_known[peer].set(false);
        self.sites.alone[side].take();
        let is_mixed = self.sites.is_mixed[side].take();
        let mut history = self.history.borrow_mut();
        let mut past = self.sites.past.borrow_mut();
        for record in history.after(Stamp::ZERO).iter().filter(|record| record.by == peer) {
            let content = history.content(record.blocks.start, record.stamp);
            past.entry(record.stamp).or_insert((record.blocks.clone(), content));
        }
        drop(past);
        let lost = match word.sheet.image {
            Image::Consistent | Image::Last => {
                let lost = self.lost_of_prefix(side, &history, &found, &word.sheet);
                let stamps: Vec<Stamp> = lost.iter().map(|record| record.stamp).collect();
                history.lose(&stamps);
                lost
            }
            Image::Newest => {
                if !is_mixed {
                    self.check_newest(side, &history, &found, &word.sheet);
                }
                let is_ordered = word.sheet.mode == Mode::Ordered;
                let received = word.sheet.received;
                history.rebase(&found, |by, stamp| by == side || !is_ordered || stamp <= received)
            }
        };
        let next = history.issued.len();
        drop(history);
        let mut newest = BTreeMap::new();
        for record in lost.iter().filter(|_| word.sheet.image == Image::Last) {
            newest.extend(record.blocks.clone().map(|block| (block, record.by)));
        }
        let own = newest.into_iter().filter(|&(_, by)| by == side).map(|(block, _)| block);
        let mut put_aside = self.sites.put_aside.borrow_mut();
        if !had_parted {
            // A peer that has yet to return from an earlier force has the same older content as then.
            put_aside.clear();
        }
        put_aside.extend(own);
        drop(put_aside);
        let mark = device.superblock.get().lost;
        let is_missing = lost.iter().any(|record| record.completed);
        if is_missing {
            self.tape.count("forces that gave completed writes up");
        }
        self.unaccepted.set((is_missing && !word.accepted).then_some(next));
        if is_missing && !word.accepted && mark.is_none() {
            let story = format!("{name} is forced, and does not say that writes are lost");
            self.tape.broken("completed writes that are lost are said to be", story);
        }
        if let Some((mark, older)) = mark.zip(lost.iter().map(|r| r.stamp).min_by_key(|s| s.time))
            && older.time < mark.since
            && !word.accepted
        {
            let story = format!("{name}: {older} is lost, and {mark:?} is said");
            self.tape.broken("nothing older than is said is lost", story);
        }
        self.recount();
        let machine = &self.machines[side];
        let newest = {
            let tables = lock(&device.tables);
            tables.newest_own().max(tables.incoming.hi())
        };
        if word.sheet.mode != Mode::Ordered || word.sheet.image != Image::Consistent {
            let history = self.history.borrow();
            let theirs = history.after(Stamp::ZERO).iter().rfind(|record| record.by == peer);
            machine.collected.set(theirs.map_or(Stamp::ZERO, |record| record.stamp));
        }
        machine.replays_upto.set(Some(newest));
        machine.is_scattered.set(false);
        machine.final_upto.set(Stamp::ZERO);
        self.machines[peer].final_upto.set(Stamp::ZERO);
        self.machines[peer].acked.set(Stamp::ZERO);
        if let Some(peer_device) = self.device(peer) {
            self.skip(peer, &peer_device);
        }
    }

    /// The consistent image is an earlier state of the history, with all that had come; the sheet has every
    /// record that is known to be lost. Returns those that are.
    fn lost_of_prefix(
        &self,
        side: Side,
        history: &History,
        found: &[Content],
        sheet: &LossSheet,
    ) -> Vec<Record> {
        let name = NAMES[side];
        let is_state = |at: Stamp| {
            found.iter().enumerate().all(|(block, held)| history.content(block, at) == *held)
        };
        let all = history.after(Stamp::ZERO);
        // Everything that was here is in it: for the last consistent one, everything of then.
        let received = sheet.image_of.map_or(sheet.received, |point| {
            let of_then = all.iter().rfind(|record| record.stamp <= point.upto);
            of_then.map_or(Stamp::ZERO, |record| record.stamp)
        });
        let first_missing = history.next_of(1 - side, received);
        let kept = match sheet.mode {
            Mode::Ordered if sheet.image == Image::Consistent => first_missing
                .map_or(all.len(), |first| {
                    all.partition_point(|record| record.stamp < first.stamp)
                }),
            _ => {
                // A record that is given up is lost, though its content may be as it was before.
                let given_up = sheet.given_up.iter().map(|entry| entry.1).min();
                let most = given_up
                    .map_or(all.len(), |first| all.partition_point(|record| record.stamp < first));
                (0..=most).rev().find(|&kept| is_state(upto(all, kept))).unwrap_or_default()
            }
        };
        let at = upto(all, kept);
        if !is_state(at) || at < received {
            let torn = (0..found.len()).find(|&block| history.content(block, at) != found[block]);
            let story = format!("{name} at {at}, received {received}: block {torn:?} is another");
            self.tape.broken("the consistent image is an earlier state of the history", story);
        }
        let lost = all[kept..].to_vec();
        if sheet.image == Image::Last {
            self.tape.count("forces to the last consistent image");
            if !lost.is_empty() {
                self.tape.count("forces to an earlier image than the newest");
            }
        } else if sheet.mode == Mode::Ordered {
            self.check_sheet(side, &lost, sheet);
        }
        lost
    }

    /// In ordered mode the sheet has exactly the own records that are lost, and of the other device's those
    /// that it had told of; all others are later.
    fn check_sheet(&self, side: Side, lost: &[Record], sheet: &LossSheet) {
        let own: Vec<Stamp> = lost.iter().filter(|r| r.by == side).map(|r| r.stamp).collect();
        let given_up: Vec<Stamp> = sheet.given_up.iter().map(|entry| entry.1).collect();
        let broken = |story: String| {
            let story = format!("{}: {story}", NAMES[side]);
            self.tape.broken("the loss sheet tells what is lost", story);
        };
        if own != given_up {
            broken(format!("own records {own:?} are lost, {given_up:?} are listed"));
        }
        let theirs: Vec<&Record> = lost.iter().filter(|r| r.by != side).collect();
        let told = |block: usize, from: Stamp| {
            sheet.told.iter().any(|&(extent, stamp)| {
                stamp >= from && self.plan.blocks_of(extent).contains(&block)
            })
        };
        for &(extent, stamp) in &sheet.told {
            if !theirs.iter().any(|record| record.stamp == stamp) {
                broken(format!("{stamp} of {extent} is listed, and is not lost"));
            }
        }
        for record in theirs {
            let is_listed = record.blocks.clone().all(|block| told(block, record.stamp));
            let is_later = sheet.others_after.is_none_or(|after| record.stamp.time >= after);
            if !is_listed && !is_later {
                broken(format!("{record:?} is lost, and not listed"));
            }
        }
        if !sheet.told.is_empty() {
            self.tape.count("loss sheets with records that were told");
        }
        if !given_up.is_empty() {
            self.tape.count("loss sheets with own records");
        }
    }

    /// The newest image has of each block at least what was received, or written here.
    fn check_newest(&self, side: Side, history: &History, found: &[Content], sheet: &LossSheet) {
        for (block, held) in found.iter().enumerate() {
            let is_ordered = sheet.mode == Mode::Ordered;
            let is_here = |stamp: Stamp| {
                let by = history.find(stamp).map(|record| record.by);
                by == Some(side) || is_ordered && stamp <= sheet.received
            };
            let versions = history.of(block);
            let floor = versions.iter().rposition(|version| is_here(version.stamp));
            let since = &versions[floor.unwrap_or(0)..];
            let is_base = floor.is_none() && *held == [0; SECTORS_MAX];
            if !is_base && !since.iter().any(|version| version.content == *held) {
                let (name, at) = (NAMES[side], self.plan.block(block));
                let story = format!("{name} serves {held:?} of block {at}, not of {since:?}");
                self.tape.broken("the newest image is as new as what is here", story);
            }
        }
    }

    /// The content of a block that the device would serve.
    fn served(
        &self,
        side: Side,
        device: &Device,
        block: usize,
    ) -> std::result::Result<Content, String> {
        let at = self.plan.block(block);
        let read = |record: &queue::Record, own: bool| {
            self.read_record(record, |buf| match own {
                true => device.own.read(record, buf).is_ok_and(|read| read),
                false => device.peer.recv.read(record, buf).is_ok_and(|read| read),
            })
        };
        match device.location(at) {
            Location::Normal => self.normal(side, block),
            Location::Own(record) => read(&record, true),
            Location::Received(record) => read(&record, false),
            Location::Remote => Err(format!("block {at} is at the other device")),
        }
    }

    /// A device that has parted is opened for the first time: what it alone has, and whether it is a branch.
    fn note_alone(&self, side: Side, device: &Arc<Device>) {
        let newest = lock(&device.tables).newest_own();
        let alone = device.superblock.get().history.alone;
        if alone.is_some_and(|then| newest > then) {
            self.sites.is_branch[side].set(true);
        }
        let history = self.history.borrow();
        let mut all = self.sites.alone[side].borrow_mut();
        all.clear();
        // Of what is still owed there nobody knows any more.
        if self.sites.is_mixed[side].get() {
            return;
        }
        let put_aside = self.sites.put_aside.borrow();
        for block in (0..history.blocks()).filter(|block| !put_aside.contains(block)) {
            let Ok(content) = self.served(side, device, block) else { continue };
            let is_known = |k: usize, value| {
                value == 0 || history.of(block).iter().any(|version| version.content[k] == value)
            };
            if !content.iter().enumerate().all(|(k, &value)| is_known(k, value)) {
                all.push((block, content));
            }
        }
        if !all.is_empty() {
            self.tape.count("returns with content that nobody else has");
        }
    }

    /// The world looks no further at the records of `side` so far.
    fn skip(&self, side: Side, device: &Device) {
        let machine = &self.machines[side];
        let (own, recv) = (&device.own.journal.queue, &device.peer.recv.journal.queue);
        machine.published.set(own.tail());
        machine.unsettled_positions.borrow_mut().clear();
        machine.unpromised.borrow_mut().clear();
        machine.received.set(recv.tail());
        machine.hi.set(lock(&device.tables).incoming.hi());
        machine.final_upto.set(Stamp::ZERO);
        machine.collected.set(Stamp::ZERO);
        machine.replays_upto.set(None);
    }

    /// A device that has parted is of the served history again once it has its lineage.
    pub(super) fn look_at_return(&self, side: Side, device: &Device) {
        if !self.has_parted(side) || self.machines[side].is_dead() {
            return;
        }
        let serving = self.device(1 - side).map(|device| device.superblock.get().lineage);
        if device.superblock.get().lineage == serving.unwrap_or(self.sites.lineage.get()) {
            self.sites.parted[side].set(false);
            let before = self.history.borrow_mut().leave_to_bits(side);
            if self.sites.is_branch[side].take() {
                let story = format!("{} has given its own up", NAMES[side]);
                self.tape.broken("nothing of a branch is given up without a word", story);
            }
            self.skip(side, device);
            match device.superblock.get().fenced {
                // Every block has come, and with it what stands of its own.
                true => {
                    self.machines[side].collected.set(before);
                    self.check_salvage(side);
                }
                false => self.sites.is_mixed[side].set(true),
            }
            self.machines[side].is_scattered.set(true);
            let name = NAMES[side];
            self.tape.event(Sort::Takeover, format_args!("{name} is of the served history"));
            self.tape.count("devices that returned");
        } else if device.clk.epoch() != 0 {
            let story = format!("{} serves a history that was given up", NAMES[side]);
            self.tape.broken("a device whose history is over serves nobody", story);
        }
    }

    /// N is a prefix of the served history.
    pub(super) fn is_whole_again(&self, side: Side) {
        self.sites.is_mixed[side].set(false);
    }

    /// The record as it was in a history that is over.
    pub(super) fn past(&self, stamp: Stamp, blocks: &Range<usize>) -> Option<Content> {
        let past = self.sites.past.borrow();
        past.get(&stamp).filter(|record| record.0 == *blocks).map(|record| record.1)
    }

    /// Once the peer's content has come over it, the content that only a returned device had is in its salvage.
    pub(super) fn check_salvage(&self, side: Side) {
        let alone = self.sites.alone[side].take();
        if alone.is_empty() {
            return;
        }
        if self.device(1 - side).is_none_or(|device| device.image.is_put_back()) {
            // It has put aside some of it, and saves that when it goes back.
            return self.tape.count("returns before an image was back");
        }
        let mut saved = Vec::new();
        for machine in &self.machines {
            match self.saved(&machine.disk.process()) {
                Ok(more) => saved.extend(more),
                Err(error) => {
                    let story = format!("{}: {error}", NAMES[side]);
                    return self.tape.broken("salvage can be read", story);
                }
            }
        }
        if let Some((block, content)) = alone.iter().find(|entry| !saved.contains(entry)) {
            let (name, at) = (NAMES[side], self.plan.block(*block));
            let story = format!("{name} alone had {content:?} of block {at}");
            return self.tape.broken("what a returned device alone has is saved", story);
        }
        self.tape.count("salvage that has everything");
    }

    fn saved(&self, disk: &dyn Storage) -> Result<Vec<(usize, Content)>> {
        let mut saved = Vec::new();
        for file in salvage::list(disk)? {
            let read = salvage::read(disk, file.number, |entry, data| {
                let block = self.plan.index(entry.block);
                if let Ok(content) = self.content_of(data, block) {
                    saved.push((block, content));
                }
                Ok(())
            });
            match read {
                // The power failed as it was written, and a later file has all of it.
                Err(error) if error.to_string().contains("the mark of a power cut") => {}
                other => other?,
            }
        }
        Ok(saved)
    }
}

/// The stamp of the last of the first `count` records.
fn upto(records: &[Record], count: usize) -> Stamp {
    count.checked_sub(1).map_or(Stamp::ZERO, |last| records[last].stamp)
}
