//! Completed writes that a crash takes (R20): they are said to be lost, and hosts come back only once
//! somebody has accepted that.

use super::tape::Sort;
use super::world::World;
use super::{NAMES, Side};
use crate::device::Device;
use crate::limits::Durability;
use crate::unit::Stamp;

impl World {
    /// The operator accepts at `side` what is lost.
    pub fn accept_loss(&self, side: Side) {
        let Some(device) = self.device(side) else { return };
        let superblock = device.superblock.get();
        if superblock.lost.is_none() || superblock.fenced || self.has_parted(side) {
            return;
        }
        // The word counts, also if the device dies while it notes it down.
        self.unaccepted.set(None);
        if self.step(side, Device::accept_loss).is_some() {
            self.tape.event(Sort::Host, format_args!("a loss is accepted at {}", NAMES[side]));
            self.tape.count("accepted losses");
        }
    }

    /// The mark, if it stands, is true of the records that an opening found `gone`.
    pub(super) fn check_mark_names(&self, side: Side, device: &Device, gone: &[Stamp]) {
        let Some(lost) = device.superblock.get().lost else { return };
        let story = |what: &str| format!("{}: {what}, and {lost:?} is said", NAMES[side]);
        if let Some(older) = gone.iter().find(|stamp| stamp.time < lost.since) {
            let story = story(&format!("{older} is gone"));
            self.tape.broken("nothing older than is said is lost", story);
        }
        let is_named = device.recovery().lost_writes && lost.first != Stamp::ZERO;
        if is_named && !gone.is_empty() && !gone.contains(&lost.first) {
            self.tape.broken("the first record dropped is named", story("another is gone"));
        }
        if !gone.is_empty() && lost.since > 0 {
            self.tape.count("losses that say since when");
        }
    }

    /// After a start that found completed writes gone if `is_missing`, before the request `next`: the device says so, and it
    /// says nothing of the kind if its durability outlived what happened to it.
    pub(super) fn check_mark(&self, side: Side, device: &Device, is_missing: bool, next: usize) {
        let (machine, name) = (&self.machines[side], NAMES[side]);
        let power_failed = machine.power_failed.take();
        let is_marked = device.superblock.get().lost.is_some();
        if is_missing {
            self.tape.count("crashes that took completed writes");
            self.unaccepted.set(Some(next));
        }
        if is_missing && !is_marked {
            let story = format!("{name} lost completed writes, and does not say so");
            self.tape.broken("completed writes that are lost are said to be", story);
        }
        let survives = match self.plan.settings[side].durability {
            Durability::Strict => true,
            Durability::Written => !power_failed,
            Durability::VolatileCache | Durability::Never => false,
        };
        let is_fenced = device.superblock.get().fenced;
        let is_faithful = !self.tape.is_faithless();
        if device.recovery().lost_writes && (survives || is_fenced) && is_faithful {
            let story = format!("{name} says that it may have lost completed writes");
            self.tape.broken("nothing is said to be lost that cannot be", story);
        }
        if survives && !device.recovery().clean {
            self.tape.count("crashes that took nothing completed");
        }
    }

    /// No host is served while completed writes are lost and nobody has accepted it; what was asked for
    /// before may come to its end, at a device that has lost nothing.
    pub(super) fn check_accepted(&self, side: Side, number: u32) {
        if self.unaccepted.get().is_some_and(|first| number as usize >= first) {
            let story = format!("{} #{number} is done", NAMES[side]);
            self.tape.broken("hosts are served once a loss is accepted", story);
        }
    }
}
