//! Disks that lie about syncs, and disks that rot: what that does, and what must come of it.
//!
//! Nothing that a faithless disk did excuses anything for longer than until it is known what it
//! did: then the device says so and serves nothing, which ends the run, or nothing was lost that
//! anybody has, and all promises hold again.

use super::random::Random;
use super::tape::Sort;
use super::world::World;
use super::{NAMES, Side};
use crate::device::Device;
use crate::format::batch::Log;
use crate::journal::lock;
use crate::journal::scan::{Scan, Verify, scan};
use crate::superblock;
use crate::unit::Stamp;

/// What a superblock says of the tenure: its number, and whether the device is fenced.
pub(super) type Tenure = (u64, bool);

/// What the logs of a disk held before it rotted: stamps.
pub(super) struct Held {
    pub own: Vec<Stamp>,
    /// Of the last batch, if nothing else on the disk says that it was synced.
    pub own_unnamed: Vec<Stamp>,
    recv_unnamed: Vec<Stamp>,
}

fn stamps(scan: &Scan, above: u64) -> Vec<Stamp> {
    let batches = scan.batches.iter().filter(|batch| batch.end() - 1 > above);
    batches.flat_map(|batch| batch.header.rows.iter().map(|row| row.stamp)).collect()
}

impl World {
    /// The disk at `side` begins to lie.
    pub fn lie(&self, side: Side) {
        if self.tape.is_faithless() {
            return;
        }
        let name = NAMES[side];
        self.tape.event(Sort::Fault, format_args!("the disk of {name} lies from now on"));
        self.machines[side].disk.lie();
    }

    /// The power has failed at `side`, and what was called durable is gone.
    pub fn lied(&self, side: Side, device: Option<&Device>) {
        self.tape.count("lies that came out");
        self.tape.set_faithless(side, true);
        let lied = &self.machines[side].lied;
        let tenure = device.map(|device| {
            let superblock = lock(&device.superblock);
            (superblock.get().epoch, superblock.get().fenced)
        });
        // A device that was only starting has not changed it.
        lied.set(Some(lied.get().or(tenure).unwrap_or_default()));
    }

    /// The disk at `side` rots while no process runs on it.
    pub fn rot(&self, side: Side, random: &mut Random) {
        let machine = &self.machines[side];
        if machine.process.borrow().is_some() || self.tape.is_faithless() {
            return;
        }
        let Some(held) = self.held(side) else { return };
        if let Some(what) = machine.disk.rot(random) {
            self.tape.event(Sort::Fault, format_args!("{what}"));
            self.tape.count("rotten sectors");
            self.tape.set_faithless(side, true);
            *machine.rot.borrow_mut() = Some(held);
        }
    }

    /// What the logs at `side` hold.
    fn held(&self, side: Side) -> Option<Held> {
        let process = self.machines[side].disk.begin();
        let superblock = superblock::load(&*process).ok()?;
        let read = |log| scan(&*process, &superblock, log, Verify::Live, &mut |_| {}).ok();
        let (own, recv) = (read(Log::Own)?, read(Log::Recv)?);
        Some(Held {
            own: stamps(&own, 0),
            own_unnamed: stamps(&own, own.synced),
            recv_unnamed: stamps(&recv, recv.synced),
        })
    }

    /// Whether all that `side` had received after `hi` and up to `told` was in a batch that
    /// nothing names, and has rotted.
    pub fn is_unnamed(&self, side: Side, hi: Stamp, told: Stamp) -> bool {
        let rot = self.machines[side].rot.borrow();
        let Some(held) = rot.as_ref() else { return false };
        let history = self.history.borrow();
        let mut missing = history.after(hi).iter().take_while(|o| o.0 <= told);
        missing.all(|o| o.1 == side || held.recv_unnamed.contains(&o.0))
    }

    /// After a start: what the disk at `side` did comes out.
    pub fn check_faith(&self, side: Side) {
        let machine = &self.machines[side];
        let (lied, rot) = (machine.lied.take(), machine.rot.take());
        if lied.is_none() && rot.is_none() {
            return;
        }
        self.let_all_arrive(1 - side);
        if self.ended.get() || self.tape.is_broken() {
            return;
        }
        let taken = machine.taken_back.take();
        if self.is_missing(side, &taken) {
            return self.check_noticed(side);
        }
        if rot.is_some() && !taken.is_empty() {
            // Nobody but the hosts can know, and a normal volume may be ahead of the log.
            self.tape.count("rot taken for a torn tail");
            return self.ended.set(true);
        }
        let Some(device) = self.device(side) else { return };
        let superblock = lock(&device.superblock).get().clone();
        // With a fence forgotten it may still come to an alarm.
        let same = lied.is_none_or(|tenure| tenure == (superblock.epoch, superblock.fenced));
        self.tape.set_faithless(side, !same);
    }

    /// What the line still holds for `side` arrives.
    fn let_all_arrive(&self, side: Side) {
        self.machines[side].disk.disarm();
        self.start(side);
        for _ in 0..3 {
            self.receive(side, usize::MAX);
            while self.control(side) && !self.ended.get() {}
            self.poll_all(side);
        }
    }

    /// Whether `side` lost what its peer has, or was promised by a prototype; `taken` are its own
    /// records that are gone. Those that nobody has are history no more.
    fn is_missing(&self, side: Side, taken: &[(Stamp, usize)]) -> bool {
        // The peer may have forgotten, too, and then it ships again.
        let told = self.machines[side].must_notice.take();
        let (Some(device), Some(peer)) = (self.device(side), self.device(1 - side)) else {
            return told;
        };
        let (known, acked, need) = {
            let tables = lock(&peer.tables);
            (tables.hi, tables.acked, tables.need)
        };
        let gone: Vec<_> = taken.iter().copied().filter(|t| t.0 > known).collect();
        self.history.borrow_mut().lose(&gone);
        self.recount();
        lock(&device.tables).hi < acked || taken.iter().any(|t| t.0 <= known || t.0 == need)
    }

    /// What a disk took back after it had called it durable, and the peer has, is noticed by the
    /// next hello; the device serves nothing and says why.
    fn check_noticed(&self, side: Side) {
        for _ in 0..100 {
            for at in [0, 1] {
                self.start(at);
                self.plug(at);
                while self.control(at) && !self.ended.get() {}
            }
            let halted = self.device(side).is_some_and(|d| d.halted.get().is_some());
            if halted || self.tape.is_refused() {
                self.tape.count("lost durable records noticed");
                self.ended.set(true);
            }
            if self.ended.get() || self.tape.is_broken() {
                break;
            }
        }
        if self.serving() == Some(side) || !self.ended.get() {
            let story = format!("{} goes on without records that its peer has", NAMES[side]);
            self.tape.broken("lost durable records are noticed by the next hello", story);
        }
        self.ended.set(true);
    }
}
