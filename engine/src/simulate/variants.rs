//! The variants of a takeover: a planned move by two files while the line is down, and the word of the device whose
//! host is gone. A host's first request begins one by a setting ([`super::plan`]).

use super::action::Kind as Action;
use super::random::Random;
use super::tape::Sort;
use super::world::World;
use super::{NAMES, Side};
use crate::device::Device;
use crate::error::{Kind, Result};
use crate::sync::lock;
use std::cell::RefCell;

/// The next step of an operator.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Request,
    Grant,
    Take,
}

/// A planned move under way.
struct Move {
    /// The device that is to serve.
    to: Side,
    random: Random,
    stage: Stage,
    /// Actions until the operator goes on.
    rest: u64,
    /// How often a step is tried again that was refused.
    patience: u64,
    /// The line stays down.
    is_apart: bool,
}

/// An operator's move, and the files of it and of earlier ones.
#[derive(Default)]
pub(super) struct Moves {
    under_way: RefCell<Option<Move>>,
    /// By device that asks: its requests, the newest last.
    requests: [RefCell<Vec<Vec<u8>>>; 2],
    /// The grants that answer it, the newest last.
    grants: [RefCell<Vec<Vec<u8>>>; 2],
}

/// Files of each kind that are kept.
const FILES: usize = 4;

fn keep(files: &RefCell<Vec<Vec<u8>>>, file: Vec<u8>) {
    let mut files = files.borrow_mut();
    if files.len() == FILES {
        files.remove(0);
    }
    files.push(file);
}

/// The newest of the files as a rule; an older one, or a torn one, which is said.
fn choose(files: &RefCell<Vec<Vec<u8>>>, random: &mut Random) -> Option<(Vec<u8>, bool)> {
    let files = files.borrow();
    let older = if random.once_in(6) { random.below(FILES) } else { 0 };
    let mut file = files.get(files.len().checked_sub(1 + older)?)?.clone();
    let is_torn = random.once_in(10);
    if is_torn {
        let at = random.below(file.len());
        match random.once_in(2) {
            true => file.truncate(at),
            false => file[at] ^= 1 << random.below(8),
        }
    }
    Some((file, is_torn))
}

impl World {
    /// Whether an operator has the line down for a move.
    pub(super) fn is_held_apart(&self) -> bool {
        self.moves.under_way.borrow().as_ref().is_some_and(|next| next.is_apart)
    }

    /// Moves end as they are.
    pub(super) fn end_moves(&self) {
        self.moves.under_way.take();
    }

    /// An operator moves the host away from the device that serves, or to `side` if none does, and begins by having
    /// the line down.
    pub(super) fn move_by_files(&self, side: Side, random: &mut Random) {
        if self.moves.under_way.borrow().is_some() {
            return;
        }
        let to = self.serving().map_or(side, |serving| 1 - serving);
        self.cut_line(random);
        let (rest, patience) = (random.within(0..16), random.within(4..16));
        let is_apart = !random.once_in(6);
        let (stage, random) = (Stage::Request, random.clone());
        let next = Move { to, random, stage, rest, patience, is_apart };
        *self.moves.under_way.borrow_mut() = Some(next);
    }

    /// The next step of the operator who moves the host, when it is time for it.
    pub(super) fn go_on_moving(&self) {
        let Some(mut next) = self.moves.under_way.take() else { return };
        let at = if matches!(next.stage, Stage::Grant) { 1 - next.to } else { next.to };
        if next.rest > 0 {
            next.rest -= 1;
        } else if self.may_come_between(Action::Control, at) {
            let random = &mut next.random;
            if random.once_in(12) {
                next.is_apart = false;
            }
            if random.once_in(12) && !self.plan.never.contains(&Action::Trouble) {
                self.trouble(at, random);
            }
            let is_done = match next.stage {
                Stage::Request => self.request_by_file(next.to),
                Stage::Grant => self.grant_by_file(next.to, random),
                Stage::Take => self.take_grant(next.to, random),
            };
            next.rest = random.within(0..24);
            // The last file was lost, or is there twice.
            let again = random.once_in(8);
            next.stage = match (next.stage, is_done) {
                (Stage::Request, true) => Stage::Grant,
                (Stage::Grant, true) if again => random.pick(&[Stage::Request, Stage::Grant]),
                (Stage::Grant, true) => Stage::Take,
                (Stage::Take, true) if again => random.pick(&[Stage::Grant, Stage::Take]),
                (Stage::Take, true) => return,
                (stage, false) if next.patience > 0 => {
                    next.patience -= 1;
                    // A request that is not granted, or whose grant is not taken, is written anew.
                    if again { Stage::Request } else { stage }
                }
                (_, false) => return self.tape.count("moves by files given up"),
            };
        }
        *self.moves.under_way.borrow_mut() = Some(next);
    }

    /// The call of an operator at `side`. One that is refused changes nothing.
    fn by_file<T>(&self, side: Side, call: impl FnOnce(&Device) -> Result<T>) -> Option<T> {
        let device = self.device(side).filter(|device| device.halted.get().is_none())?;
        let stands = || {
            let superblock = device.superblock.get();
            (device.clk.epoch(), superblock.epoch, superblock.fenced)
        };
        let before = stands();
        let outcome = self.within(side, || call(&device));
        self.look_at_return(side, &device);
        self.says_prefix(side, &device);
        if self.machines[side].is_dead() {
            return None;
        }
        self.machines[side].acked.set(lock(&device.tables).out.acked());
        self.follow_hi(side);
        let error = match outcome {
            Ok(done) => return Some(done),
            Err(error) => error,
        };
        if error.kind() == Kind::Halted {
            self.check_halt(side, &error);
        } else if stands() != before {
            let story = format!("{}: {error}; {before:?}, then {:?}", NAMES[side], stands());
            self.tape.broken("a file that is refused changes nothing", story);
        }
        let (name, kind) = (NAMES[side], error.kind());
        self.tape.event(Sort::Takeover, format_args!("{name} refuses a file: {kind:?}"));
        self.tape.count("files of a move refused");
        None
    }

    fn request_by_file(&self, to: Side) -> bool {
        self.lets_ask(to);
        let Some(request) = self.by_file(to, Device::request_by_file) else { return false };
        self.tape.event(Sort::Takeover, format_args!("{} asks by a file", NAMES[to]));
        keep(&self.moves.requests[to], request);
        true
    }

    fn grant_by_file(&self, to: Side, random: &mut Random) -> bool {
        let Some((file, is_torn)) = choose(&self.moves.requests[to], random) else { return false };
        let (from, name) = (1 - to, NAMES[1 - to]);
        let Some(grant) = self.by_file(from, |device| device.grant_by_file(&file)) else {
            return false;
        };
        self.tape.event(Sort::Takeover, format_args!("{name} is fenced by a file"));
        self.tape.count("grants in a file");
        self.check_taken_whole(from, is_torn);
        let is_fenced = |device: &Device| device.clk.epoch() == 0 && device.superblock.get().fenced;
        if !self.device(from).is_some_and(|device| is_fenced(&device)) {
            let story = format!("{name} has granted the host in a file");
            self.tape.broken("a device is fenced before its grant can be read", story);
        }
        keep(&self.moves.grants[to], grant);
        true
    }

    fn take_grant(&self, to: Side, random: &mut Random) -> bool {
        let Some((file, is_torn)) = choose(&self.moves.grants[to], random) else { return false };
        let Some(takeover) = self.by_file(to, |device| device.take_grant(&file)) else {
            return false;
        };
        let (name, epoch, owed) = (NAMES[to], takeover.epoch, takeover.owed_blocks);
        self.tape
            .event(Sort::Takeover, format_args!("{name} serves {epoch} by a file, owed {owed}"));
        self.tape.count("moves by files");
        if owed > 0 {
            self.tape.count("moves by files with data still away");
        }
        self.check_taken_whole(to, is_torn);
        self.check_taken_over(to);
        true
    }

    fn check_taken_whole(&self, side: Side, is_torn: bool) {
        if is_torn {
            let story = format!("{} has taken a file that is torn", NAMES[side]);
            self.tape.broken("a file is taken whole or not at all", story);
        }
    }

    /// The driver at `side` says that its host is gone.
    pub(super) fn offer_host(&self, side: Side) {
        let Some(device) = self.device(side).filter(|device| device.clk.epoch() != 0) else {
            return;
        };
        let offered = self.within(side, || device.offer_host());
        if self.machines[side].is_dead() {
            return;
        }
        match offered {
            Ok(()) => {
                let name = NAMES[side];
                self.tape.event(Sort::Takeover, format_args!("{name} offers its host"));
                self.tape.count("offers of the host");
            }
            // The peer's program does not know offers.
            Err(error) if error.kind() == Kind::Invalid => {}
            Err(error) => self.check_refusal(side, &error),
        }
    }
}
