//! Disks that lie about syncs, and disks that rot: what that does, and what must come of it.
//!
//! Nothing that a faithless disk did excuses anything for longer than until it is known what it
//! did: then the device says so and serves nothing, which ends the run, or nothing was lost that
//! anybody has, and all promises hold again.

use super::disk::Astray;
use super::random::Random;
use super::tape::Sort;
use super::world::World;
use super::{NAMES, Side};
use crate::device::Device;
use crate::format::batch::Log;
use crate::journal::scan::{Scan, Verify, scan};
use crate::superblock;
use crate::sync::lock;
use crate::unit::{Round, Stamp};

/// A superblock's tenure: its number, and whether the device is fenced.
pub(super) type Tenure = (u64, bool);

/// The stamps that the logs of a disk would hold if it had not rotted.
#[derive(Default)]
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
        // The mark of lost writes may be among what it takes back.
        self.unaccepted.set(None);
        self.tape.set_faithless(side, true);
        let lied = &self.machines[side].lied;
        let tenure = device.map(|device| {
            let superblock = device.superblock.get();
            (superblock.epoch, superblock.fenced)
        });
        // A device that was only starting has not changed it.
        lied.set(Some(lied.get().or(tenure).unwrap_or_default()));
        if self.machines.iter().any(|machine| machine.round.get() > Round::default()) {
            // It may have forgotten bits, of which no hello tells.
            self.tape.count("lies out of order");
            self.tape.judge_no_more();
            self.ended.set(true);
        }
    }

    /// The disk at `side` rots, or sends a write of a log astray; seldom while a process runs on it,
    /// or none would come far.
    pub fn rot(&self, side: Side, random: &mut Random) {
        let machine = &self.machines[side];
        let runs = machine.process.borrow().is_some();
        // No device knows any more what one disk forgets and the other has rotten.
        let lies = self.machines.iter().any(|machine| machine.disk.lies());
        if self.tape.is_faithless() || lies || runs && !random.once_in(30) {
            return;
        }
        let Some(held) = self.held(side) else { return };
        if runs && random.once_in(3) {
            machine.disk.send_astray(Astray::Log, random.next());
        } else {
            let Some(what) = machine.disk.rot(random) else { return };
            self.tape.event(Sort::Fault, format_args!("{what}"));
            self.tape.count("rotten sectors");
        }
        self.tape.set_faithless(side, true);
        *machine.rot.borrow_mut() = Some(held);
    }

    /// A sector of a normal volume rots, or the next write to one goes astray, always at the same
    /// device: of two that are wrong in the same way nobody could tell.
    pub fn rot_volume(&self, random: &mut Random) {
        let side = self.plan.rotting;
        let disk = &self.machines[side].disk;
        if self.device(side).is_none() || self.tape.is_faithless() {
            return;
        }
        if random.once_in(2) {
            disk.send_astray(Astray::Volume, random.next());
        } else if let Some(what) = disk.rot_volume(random) {
            self.tape.event(Sort::Fault, format_args!("{what}"));
            self.tape.count("rotten sectors of volumes");
        }
    }

    /// The sectors that have rotted at `side` while its device runs may be written over by now.
    pub fn forget_rot(&self, side: Side) {
        let machine = &self.machines[side];
        let gone = machine.rot.borrow().is_some()
            && machine.device.borrow().is_some()
            && machine.disk.is_sound();
        if gone {
            *machine.rot.borrow_mut() = None;
            self.tape.set_faithless(side, false);
            self.tape.count("rot written over");
        }
    }

    /// The stamps that the logs at `side` would hold if nothing were rotten.
    pub fn held(&self, side: Side) -> Option<Held> {
        let disk = &self.machines[side].disk;
        disk.if_sound(|| {
            let process = disk.process();
            let superblock = superblock::load(&process).ok()?;
            let read = |log| scan(&process, &superblock, log, Verify::Live, &mut |_| {}).ok();
            let (own, recv) = (read(Log::Own)?, read(Log::Recv)?);
            Some(Held {
                own: stamps(&own, 0),
                own_unnamed: stamps(&own, own.synced),
                recv_unnamed: stamps(&recv, recv.synced),
            })
        })
    }

    /// A device has met rot in its log and stopped: it says so again when it is started anew.
    pub fn check_stopped(&self, side: Side) {
        self.tape.count("stopped over rot");
        self.crash(side, None);
        self.start(side);
        if !self.ended.get() && !self.tape.is_broken() {
            let story = format!("{} opens over it", NAMES[side]);
            self.tape.broken("damage that was met once is refused by name", story);
        }
    }

    /// Whether all that `side` had received after `hi` and up to `told` was in a batch that
    /// nothing names, and has rotted.
    pub fn is_unnamed(&self, side: Side, hi: Stamp, told: Stamp) -> bool {
        let rot = self.machines[side].rot.borrow();
        let Some(held) = rot.as_ref() else { return false };
        let history = self.history.borrow();
        let mut missing = history.after(hi).iter().take_while(|r| r.stamp <= told);
        missing.all(|r| r.by == side || held.recv_unnamed.contains(&r.stamp))
    }

    /// After a start: what the disk at `side` did comes out.
    pub fn check_faith(&self, side: Side) {
        let machine = &self.machines[side];
        let (lied, rot) = (machine.lied.take(), machine.rot.take());
        if lied.is_none() && rot.is_none() {
            return;
        }
        let hidden = rot.is_some() && machine.disk.hides_rot();
        if hidden {
            *machine.rot.borrow_mut() = self.held(side);
        }
        if let Some(newest) = rot.as_ref().and_then(|held| held.recv_unnamed.iter().max()) {
            machine.torn_upto.set(machine.torn_upto.get().max(*newest));
        }
        self.let_all_arrive(1 - side);
        if self.ended.get() || self.tape.is_broken() {
            return;
        }
        let taken = machine.taken_back.take();
        if self.is_missing(side, &taken) {
            if !self.ended.get() {
                self.check_noticed(side);
            }
            return;
        }
        if lied.is_some() && self.has_suspended(side) {
            // Records that it had acknowledged were left out of the bits before anything durable said so.
            self.tape.count("losses that bits may hide");
            return self.ended.set(true);
        }
        if rot.is_some() && !taken.is_empty() {
            // Nobody but the hosts can know, and a normal volume may be ahead of the log.
            self.tape.count("rot taken for a torn tail");
            return self.ended.set(true);
        }
        let Some(device) = self.device(side) else { return };
        let superblock = device.superblock.get();
        // With a fence forgotten it may still come to an alarm.
        let same = lied.is_none_or(|tenure| tenure == (superblock.epoch, superblock.fenced));
        self.tape.set_faithless(side, !same || hidden);
    }

    /// The frames that the line still holds for `side` arrive.
    fn let_all_arrive(&self, side: Side) {
        self.machines[side].disk.disarm();
        self.start(side);
        for _ in 0..3 {
            self.receive(side, usize::MAX);
            while self.control(side) && !self.ended.get() {}
            self.poll_all(side);
        }
    }

    /// Whether `side` lost what its peer has, was told of, or was promised by a prototype; `taken` are
    /// its own records that are gone. Those that nobody has are history no more.
    fn is_missing(&self, side: Side, taken: &[Stamp]) -> bool {
        // The peer may have forgotten, too, and then it ships again.
        let told = self.machines[side].must_notice.take();
        let (Some(device), Some(peer)) = (self.device(side), self.device(1 - side)) else {
            return told;
        };
        let (known, acked, need) = {
            let tables = lock(&peer.tables);
            let known = tables.incoming.hi().max(peer.peer.owed.told().last());
            (known, tables.out.acked(), tables.normal.need())
        };
        let gone: Vec<_> = taken.iter().copied().filter(|&t| t > known).collect();
        self.history.borrow_mut().lose(&gone);
        self.recount();
        let (hi, kept) = {
            let tables = lock(&device.tables);
            (tables.incoming.hi(), tables.newest_own())
        };
        let is_missing = hi < acked || taken.iter().any(|&t| t <= known || t == need);
        // A record may stand in the log behind a newer one. A hello tells of the newest only.
        if is_missing && hi >= acked && kept >= known.max(need) {
            self.tape.count("losses that no hello tells of");
            self.ended.set(true);
        }
        is_missing
    }

    /// A record that a disk took back after it had called it durable, and that the peer has, is
    /// noticed by the next hello; the device serves nothing and says why. So does a peer that finds
    /// both of them unfenced, which hangs up: the device may never hear its hello.
    fn check_noticed(&self, side: Side) {
        self.upgrade();
        for _ in 0..100 {
            for at in [0, 1] {
                self.start(at);
                self.plug(at);
                while self.control(at) && !self.ended.get() {}
            }
            let halted = self.device(side).is_some_and(|d| d.halted.get().is_some());
            let unfenced = "both devices of the pair are unfenced";
            let peer = self.device(1 - side);
            let refused = peer.as_ref().and_then(|p| p.halted.get()).map(ToString::to_string);
            let halted = halted || refused.is_some_and(|why| why.contains(unfenced));
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
