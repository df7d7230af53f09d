//! An operator fences a device here, and resumes it (R3): between the two it serves nobody, whatever comes.

use super::tape::Sort;
use super::world::World;
use super::{NAMES, Side};
use crate::device::Device;
use crate::error::Kind;

/// An operator's word that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct FencedHere {
    /// The tenure that the device kept.
    epoch: u64,
    lineage: (u64, u64),
    /// The operator has let it ask for the host since.
    may_ask: bool,
}

impl World {
    /// The operator at `side` fences the device.
    pub(super) fn fence_here(&self, side: Side) {
        if self.device(side).is_none_or(|device| device.superblock.get().fenced) {
            return;
        }
        let served = self.serving() == Some(side);
        if self.step(side, Device::fence_here).is_none() {
            return;
        }
        let Some(device) = self.device(side) else { return };
        let held = device.superblock.get();
        let word = FencedHere { epoch: held.epoch, lineage: held.lineage, may_ask: false };
        self.machines[side].fenced_here.set(Some(word));
        self.tape.event(Sort::Takeover, format_args!("{} is fenced here", NAMES[side]));
        self.tape.count(if served { "fenced here while serving" } else { "fenced here" });
        self.check_fenced_here(side);
    }

    /// The operator at `side` resumes it.
    pub(super) fn unfence(&self, side: Side) {
        let Some(device) = self.device(side).filter(|d| d.superblock.get().fenced_here) else {
            return;
        };
        if device.superblock.get().peer == 0 && !self.may_be_alone(side) {
            // It has met no peer, and takes the operator's word that none was forced.
            return;
        }
        // It may die while it notes the word down.
        let word = self.machines[side].fenced_here.take();
        let outcome = self.within(side, || device.unfence());
        if self.machines[side].is_dead() {
            return;
        }
        match outcome {
            Ok(()) => {
                self.tape.event(Sort::Takeover, format_args!("{} is resumed", NAMES[side]));
                self.tape.count("resumed by a hello");
            }
            Err(error) if error.kind() == Kind::Halted => self.check_halt(side, &error),
            Err(_) => self.machines[side].fenced_here.set(word),
        }
    }

    /// The operator at `side` lets the device ask for the host.
    pub(super) fn lets_ask(&self, side: Side) {
        let word = self.machines[side].fenced_here.get();
        let word = word.map(|word| FencedHere { may_ask: true, ..word });
        self.machines[side].fenced_here.set(word);
    }

    /// A device that an operator has fenced serves nobody, unless the host is granted, or an operator says otherwise.
    pub(super) fn check_fenced_here(&self, side: Side) {
        let machine = &self.machines[side];
        let (Some(word), Some(device)) = (machine.fenced_here.get(), self.device(side)) else {
            return;
        };
        let now = device.superblock.get();
        let is_over = now.epoch != word.epoch || now.lineage != word.lineage;
        let by_word = word.may_ask || now.lineage != word.lineage;
        if device.clk.epoch() != 0 && !(is_over && by_word) && !self.tape.is_faithless() {
            let story = format!("{} serves tenure {}, {word:?}", NAMES[side], now.epoch);
            self.tape.broken("a device that an operator has fenced serves nobody", story);
        }
        if is_over {
            machine.fenced_here.set(None);
        }
    }
}
