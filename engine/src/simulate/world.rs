//! The world of a run: two machines with their disks and clocks, the line between them, and the
//! history that all of it is held against.
//!
//! Everything is reached through `&self`, and nothing is borrowed while the engine is called: it
//! may call back, and whatever happens then happens to the same world.

use super::action::{Action, Kind};
use super::clock::SimClock;
use super::disk::{Disk, Process, Trouble};
use super::faithless::{Held, Tenure};
use super::fenced_here::FencedHere;
use super::force::Sites;
use super::history::{History, Image};
use super::host::{Asked, What};
use super::ladder::{Sent, Tenures, changed_to};
use super::line::Wire;
use super::plan::Plan;
use super::random::Random;
use super::returns::Returns;
use super::stall::Stall;
use super::tape::{Sort, Tape};
use super::variants::Moves;
use super::{NAMES, Side};
use crate::device::Device;
use crate::error::{Kind as ErrorKind, Result};
use crate::event::Event;
use crate::failover::Policy;
use crate::flow::compare::Comparison;
use crate::format::frame::Frame;
use crate::limits::Settings;
use crate::link::Lane;
use crate::moment::Moment;
use crate::request::Session;
use crate::sync::{AtomicBool, Ordering::Relaxed, lock};
use crate::unit::{Position, Round, Stamp};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// One side: a disk, a clock, and the process that runs a device on them, if one runs.
pub(super) struct Machine {
    pub disk: Arc<Disk>,
    pub clock: Arc<SimClock>,
    pub process: RefCell<Option<Arc<Process>>>,
    pub device: RefCell<Option<Arc<Device>>>,
    pub wire: RefCell<Option<Arc<Wire>>>,
    /// Newest last.
    pub sessions: RefCell<Vec<Session>>,
    pub returns: RefCell<Returns>,
    /// The comparison that was begun there.
    pub comparison: RefCell<Option<Comparison>>,
    /// Requests under way.
    pub asked: RefCell<Vec<Asked>>,
    /// The next position of the own queue to look at, and those looked at too early.
    pub published: Cell<Position>,
    pub unsettled_positions: RefCell<Vec<Position>>,
    /// Own records that nobody was told are durable.
    /// The first number says how many were published before.
    pub unpromised: RefCell<VecDeque<(u64, Stamp)>>,
    /// How many records it has published.
    pub count: Cell<u64>,
    /// The next position of the received queue to look at, and the newest stamp seen there.
    pub received: Cell<Position>,
    pub hi: Cell<Stamp>,
    /// Shipped frames that it has received.
    pub past: RefCell<VecDeque<Vec<u8>>>,
    /// Newest own stamp that the peer has acknowledged here.
    pub acked: Cell<Stamp>,
    /// Nothing at or below may be published any more: it is shipped, or in a normal volume.
    pub final_upto: Cell<Stamp>,
    /// The content that N should have.
    pub image: RefCell<Image>,
    /// After a crash: N may be ahead of what is reflected, up to here.
    pub replays_upto: Cell<Option<Stamp>>,
    /// Its disk took back what it had called durable, and the peer may know better: then the next
    /// hello must show it.
    pub must_notice: Cell<bool>,
    /// Records up to here were received and taken for a torn tail after rot; N may hold some of them
    /// already, and is whole again once they have come again.
    pub torn_upto: Cell<Stamp>,
    /// Its power has failed since its last start.
    pub power_failed: Cell<bool>,
    /// Own records that it took back.
    pub taken_back: RefCell<Vec<Stamp>>,
    /// Its disk has lied, and that came out: what its superblock said of its tenure before.
    pub lied: Cell<Option<Tenure>>,
    /// The tenures that its device has heard its peer to serve and to be reachable under.
    pub heard: RefCell<Arc<Mutex<[u64; 2]>>>,
    /// Its disk has rotted: what it would hold otherwise.
    pub rot: RefCell<Option<Held>>,
    /// Its program knows records of many blocks (R19).
    pub knows_extents: Cell<bool>,
    /// The round that its device was in when it was last looked at.
    pub round: Cell<Round>,
    /// N has everything up to here, from its peer by copies.
    pub collected: Cell<Stamp>,
    /// The operator's word that it is to serve nobody, while it counts.
    pub fenced_here: Cell<Option<FencedHere>>,
    /// A thread of it ships.
    pub is_shipping: Cell<bool>,
    /// A thread of it takes what comes in the control lane.
    pub is_controlling: Cell<bool>,
    /// N was no prefix when it was last looked at.
    pub is_scattered: Cell<bool>,
    /// The round and the connection in which blocks were sent last, and the newest own record that each
    /// could have.
    pub sent: RefCell<Sent>,
}

impl Machine {
    fn new(side: Side, plan: &Plan, tape: &Arc<Tape>) -> Machine {
        let (offset, grain) = plan.clocks[side];
        Machine {
            disk: Arc::new(Disk::new(side, tape.clone())),
            clock: Arc::new(SimClock::new(side, offset, grain)),
            process: RefCell::default(),
            device: RefCell::default(),
            wire: RefCell::default(),
            sessions: RefCell::default(),
            returns: RefCell::default(),
            comparison: RefCell::default(),
            asked: RefCell::default(),
            published: Cell::new(1),
            unsettled_positions: RefCell::default(),
            unpromised: RefCell::default(),
            count: Cell::default(),
            received: Cell::new(1),
            hi: Cell::default(),
            past: RefCell::default(),
            acked: Cell::default(),
            final_upto: Cell::default(),
            image: RefCell::new(Image::new(plan.blocks())),
            replays_upto: Cell::default(),
            must_notice: Cell::default(),
            torn_upto: Cell::default(),
            lied: Cell::default(),
            rot: RefCell::default(),
            knows_extents: Cell::default(),
            is_scattered: Cell::default(),
            round: Cell::default(),
            collected: Cell::default(),
            fenced_here: Cell::default(),
            is_shipping: Cell::default(),
            is_controlling: Cell::default(),
            sent: RefCell::default(),
            heard: RefCell::default(),
            power_failed: Cell::default(),
            taken_back: RefCell::default(),
        }
    }

    /// Whether the process has died in an operation and is not buried yet.
    pub fn is_dead(&self) -> bool {
        self.process.borrow().as_ref().is_none_or(|p| p.is_dead())
    }

    /// Whether something of its broke, so that it may stop for good.
    pub fn may_halt(&self) -> bool {
        self.process.borrow().as_ref().is_none_or(|p| p.is_dead() || p.has_failed())
    }

    pub fn raise_final(&self, stamp: Stamp) {
        self.final_upto.set(self.final_upto.get().max(stamp));
    }
}

pub(super) struct World {
    pub plan: Plan,
    pub tape: Arc<Tape>,
    pub machines: [Machine; 2],
    pub history: RefCell<History>,
    /// By block: the newest stamp that was completed or seen.
    pub floors: RefCell<Vec<Stamp>>,
    /// The newest of all.
    pub seen: Cell<Stamp>,
    /// How many requests were answered.
    pub served: Cell<u64>,
    /// Completed writes are lost, and nobody has accepted it: the number of the first request since.
    pub unaccepted: Cell<Option<usize>>,
    pub sites: Sites,
    pub tenures: Tenures,
    pub moves: Moves,
    /// The newest line.
    wire: RefCell<Arc<Wire>>,
    pub buffer: RefCell<Vec<u8>>,
    /// The run has come to its end: a device has stopped and said why.
    pub ended: Cell<bool>,
    /// Whose code is running.
    pub busy: Cell<Option<Side>>,
    pub stall: RefCell<Option<Stall>>,
    /// Threads that are stalled: what their device has noted is told when they go on.
    pub stalled: RefCell<Vec<(Side, Moment)>>,
    /// From now on only the newest program starts.
    pub upgraded: Cell<bool>,
    /// The request that it is about.
    pub asking: RefCell<Option<Asked>>,
}

/// Shipped frames that are kept to be shipped again.
const PAST_FRAMES: usize = 16;

/// The stamp of the last record of a shipped frame.
fn newest_shipped(frame: &[u8]) -> Option<Stamp> {
    match Frame::decode(frame) {
        Ok((_, Frame::Ship { records, .. })) => records.last().map(|last| last.row.stamp),
        _ => None,
    }
}

impl World {
    pub fn new(plan: Plan, tape: Arc<Tape>) -> World {
        let blocks = plan.blocks();
        let world = World {
            machines: [0, 1].map(|side| Machine::new(side, &plan, &tape)),
            history: RefCell::new(History::new(blocks)),
            floors: RefCell::new(vec![Stamp::ZERO; blocks]),
            seen: Cell::default(),
            served: Cell::default(),
            unaccepted: Cell::default(),
            sites: Sites::default(),
            wire: RefCell::new(Wire::new(tape.clone())),
            buffer: RefCell::default(),
            ended: Cell::default(),
            tenures: Tenures::default(),
            moves: Moves::default(),
            busy: Cell::default(),
            stall: RefCell::default(),
            stalled: RefCell::default(),
            upgraded: Cell::default(),
            asking: RefCell::default(),
            plan,
            tape,
        };
        for side in [0, 1] {
            let process = world.machines[side].disk.begin();
            let created = Device::create(&*process, &world.plan.geometry(side), side == 0);
            created.expect("a new device on a new disk");
            world.start(side);
            world.plug(side);
        }
        world
    }

    /// The device at `side`, if one runs there.
    pub fn device(&self, side: Side) -> Option<Arc<Device>> {
        self.machines[side].device.borrow().clone()
    }

    /// The device that serves.
    pub fn serving(&self) -> Option<Side> {
        [0, 1].into_iter().find(|&side| {
            let device = self.machines[side].device.borrow();
            device.as_ref().is_some_and(|d| d.clk.epoch() != 0)
        })
    }

    /// Does what `action` says, and looks at what may have come of it.
    pub fn act(&self, action: Action) {
        self.perform(action);
        self.go_on_moving();
        self.check_one_serves();
        for side in [0, 1] {
            self.bury(side);
            self.forget_rot(side);
            self.check_hung_up(side);
            self.check_fenced_here(side);
        }
    }

    /// Does what `action` says.
    pub fn perform(&self, action: Action) {
        let Action { kind, mut random, side } = action;
        let random = &mut random;
        match kind {
            Kind::Write => self.ask(What::Write, side, false, random),
            Kind::Read => self.ask(What::Read, side, false, random),
            Kind::Zeroes => self.ask(What::Zeroes, side, false, random),
            Kind::Discard => self.ask(What::Discard, side, false, random),
            Kind::Flush => self.ask(What::Flush, side, false, random),
            Kind::Late => self.ask(What::Write, side, true, random),
            Kind::Return => self.come_back(side, random.once_in(2)),
            Kind::Poll => self.poll(side, random),
            Kind::Receive => self.receive(side, 1 + random.below(4)),
            Kind::Control => drop(self.control(side)),
            Kind::Reflect => {
                let most = random.pick(&[1, 1, 2, 5, 100]);
                self.reflect(side, |d| d.step_reflect_some(most));
            }
            Kind::ReflectDue => self.reflect(side, Device::step_reflect_due),
            Kind::Commit => drop(self.step(side, Device::step_commit)),
            Kind::CommitDue => drop(self.step(side, Device::step_commit_due)),
            Kind::Sequence => drop(self.step(side, |d| Ok(d.step_sequence()))),
            Kind::Ship => {
                if random.once_in(4) {
                    self.guess(side);
                }
                self.ship(side);
            }
            Kind::Checkpoint => drop(self.step(side, Device::checkpoint_now)),
            Kind::CheckpointDue => drop(self.step(side, Device::step_checkpoint)),
            Kind::Ask => self.ask_for_host(side),
            Kind::AskBoth => [side, 1 - side].into_iter().for_each(|at| self.ask_for_host(at)),
            Kind::Alone => self.resume_alone(side),
            Kind::Plug if self.is_held_apart() => {}
            Kind::Plug => self.plug(side),
            Kind::Cut => self.cut_line(random),
            Kind::Tick => self.tick(random),
            Kind::StepClock => self.step_clock(side, random),
            Kind::Close => self.close(side),
            Kind::Start => self.start_or_fall(side, random),
            Kind::Kill => self.crash(side, None),
            Kind::PowerCut => self.power_cut(side, random),
            Kind::Trouble => self.trouble(side, random),
            Kind::Lie => self.lie(side),
            Kind::Rot => self.rot(side, random),
            Kind::RotVolume => self.rot_volume(random),
            Kind::Lose => self.lose_frame(side),
            Kind::Repeat => self.repeat_frame(side, random),
            Kind::Blackout => [0, 1].into_iter().for_each(|at| self.power_cut(at, random)),
            Kind::Accept => self.accept_loss(side),
            Kind::Policy => self.set_policy(side, random),
            Kind::Stall => self.arm_stall(random),
            Kind::Reachable => self.reachable(side),
            Kind::Upgrade if self.plan.old_programs => {
                self.close(side);
                self.start(side);
            }
            Kind::Upgrade => {}
            Kind::Compare => self.compare(side, random),
            Kind::Suspend => self.suspend(),
            Kind::Climb => drop(self.climb(side)),
            Kind::LoseSite => self.lose_site(side, random),
            Kind::Force => self.force(random),
            Kind::RecoverSite => self.recover_site(),
            Kind::Resolve => self.resolve(),
            Kind::MoveByFiles => self.move_by_files(side, random),
            Kind::Offer => self.offer_host(side),
            Kind::FenceHere => self.fence_here(side),
            Kind::Unfence => self.unfence(side),
        }
    }

    /// Calls the engine at `side`, which may come to a moment.
    pub fn within<T>(&self, side: Side, call: impl FnOnce() -> T) -> T {
        let before = self.busy.replace(Some(side));
        let done = call();
        self.busy.set(before);
        if let Some(process) = &*self.machines[side].process.borrow() {
            process.ending.store(false, Relaxed);
        }
        done
    }

    /// A step of the device at `side`; `None` if it did not come to its end.
    pub fn step<T>(&self, side: Side, step: impl FnOnce(&Device) -> Result<T>) -> Option<T> {
        let device = self.device(side)?;
        if device.halted.get().is_some() {
            return None;
        }
        let outcome = self.within(side, || step(&device));
        self.look_at_return(side, &device);
        self.says_prefix(side, &device);
        if self.machines[side].is_dead() {
            return None;
        }
        match outcome {
            Ok(done) => Some(done),
            Err(error) if error.kind() == ErrorKind::NoPeer => None,
            Err(error) => {
                self.check_halt(side, &error);
                None
            }
        }
    }

    fn reflect(&self, side: Side, step: impl FnOnce(&Device) -> Result<usize>) {
        if self.step(side, step).is_some_and(|count| count > 0) {
            self.check_volume(side, false);
        }
    }

    /// Lets up to `count` data frames arrive at `side`, and the device take them.
    pub fn receive(&self, side: Side, count: usize) {
        if !self.let_arrive(side, Lane::Data, count) {
            return;
        }
        let done = self.step(side, Device::step_receive).is_some();
        if done {
            self.check_received(side);
        }
        let wire = self.machines[side].wire.borrow().clone();
        let (Some(wire), Some(device)) = (wire, self.device(side)) else { return };
        // The records that it has, durably, may be shipped again.
        let hi = lock(&device.tables).incoming.hi();
        let mut past = self.machines[side].past.borrow_mut();
        for frame in wire.taken_in(side) {
            if newest_shipped(&frame).is_some_and(|newest| newest <= hi) {
                past.push_back(frame);
            }
        }
        while past.len() > PAST_FRAMES {
            past.pop_front();
        }
    }

    /// The sender has forgotten how far it was: it ships once more, in the connection that stands,
    /// what `side` has received, in this one or an earlier one.
    fn repeat_frame(&self, side: Side, random: &mut Random) {
        let machine = &self.machines[side];
        let (Some(device), Some(sender)) = (self.device(side), self.device(1 - side)) else {
            return;
        };
        let wire = machine.wire.borrow().clone().filter(|wire| wire.is_up());
        let (version, session) = {
            let connection = &lock(&sender.failover).connection;
            (connection.wire(), connection.standing().map(|(session, _)| session))
        };
        let (Some(wire), Some(session)) = (wire, session) else { return };
        let past = machine.past.borrow();
        if past.is_empty() || self.tape.is_faithless() {
            return;
        }
        let frame = &past[random.below(past.len())];
        // Its disk may have forgotten what it had.
        let hi = lock(&device.tables).incoming.hi();
        if newest_shipped(frame).is_none_or(|newest| newest > hi) {
            return;
        }
        let (_, shipped) = Frame::decode(frame).expect("it was sent");
        wire.repeat(side, shipped.encode_in(version, session));
        let name = NAMES[side];
        self.tape.event(Sort::Fault, format_args!("records are shipped to {name} again"));
        self.tape.count("frames shipped again");
    }

    /// Lets a control frame arrive at `side`, and the device take it or send what it owes;
    /// whether there were any.
    pub fn control(&self, side: Side) -> bool {
        let owes = |device: Arc<Device>| {
            device.owes_answers()
                || device.owes_checksums()
                || crate::sync::lock(&device.failover).role.is_handing_over()
        };
        if !self.let_arrive(side, Lane::Control, 1) && !self.device(side).is_some_and(owes) {
            return false;
        }
        self.note_all_rot(1 - side);
        let served = self.serving();
        let before = self.machines[side].is_controlling.replace(true);
        let took = self.step(side, Device::step_control);
        self.machines[side].is_controlling.set(before);
        let Some(took) = took else { return false };
        if served == Some(side) && self.serving().is_none() {
            self.tape.event(Sort::Takeover, format_args!("{} is fenced", NAMES[side]));
        }
        self.look_at_takeover(side);
        if let Some(device) = self.device(side) {
            self.machines[side].acked.set(lock(&device.tables).out.acked());
        }
        self.follow_hi(side);
        took
    }

    fn let_arrive(&self, side: Side, lane: Lane, count: usize) -> bool {
        let wire = self.machines[side].wire.borrow().clone();
        wire.is_some_and(|wire| {
            wire.let_arrive(side, lane, count);
            wire.has_news(side, lane)
        })
    }

    pub fn look_at_takeover(&self, side: Side) {
        let Some(device) = self.device(side) else { return };
        let name = NAMES[side];
        match device.poll_takeover() {
            None => {}
            Some(Ok(takeover)) => {
                let (epoch, owed) = (takeover.epoch, takeover.owed_blocks);
                self.tape.event(Sort::Takeover, format_args!("{name} serves {epoch}, owed {owed}"));
                self.tape.count("takeovers");
                if owed > 0 {
                    self.tape.count("takeovers with data still away");
                }
                self.check_taken_over(side);
            }
            Some(Err(error)) => {
                let kind = error.kind();
                self.tape.event(Sort::Takeover, format_args!("{name} does not serve: {kind:?}"));
                match kind {
                    ErrorKind::NotReady => self.tape.count("takeovers that crossed"),
                    ErrorKind::Timeout => self.tape.count("takeovers timed out"),
                    _ => self.check_halt(side, &error),
                }
            }
        }
    }

    pub fn ask_for_host(&self, side: Side) {
        let Some(device) = self.device(side) else { return };
        self.lets_ask(side);
        let asked = device.begin_takeover();
        if self.machines[side].is_dead() {
            return;
        }
        match asked {
            Ok(()) => {
                self.tape.event(Sort::Takeover, format_args!("{} asks for the host", NAMES[side]));
            }
            Err(e) if matches!(e.kind(), ErrorKind::Invalid | ErrorKind::NoPeer) => {}
            Err(e) if e.kind() == ErrorKind::Damaged => self.check_refusal(side, &e),
            Err(error) => self.check_halt(side, &error),
        }
    }

    /// The operator knows that the other device does not serve, and says so.
    pub fn resume_alone(&self, side: Side) {
        // Nobody can know that of a device whose disk forgets.
        let is_known = !self.tape.is_faithless() && self.may_be_alone(side);
        if self.serving().is_some() || !is_known {
            return;
        }
        let Some(device) = self.device(side) else { return };
        let word = self.machines[side].fenced_here.take();
        let resumed = device.resume_alone();
        if resumed.is_err() && !self.machines[side].is_dead() {
            self.machines[side].fenced_here.set(word);
        }
        if resumed.is_ok() {
            self.tape.event(Sort::Takeover, format_args!("{} serves alone", NAMES[side]));
            self.tape.count("resumed alone");
        }
    }

    /// The owner at `side` connects the device by a new line, if it has none that is up.
    pub fn plug(&self, side: Side) {
        let Some(device) = self.device(side) else { return };
        let machine = &self.machines[side];
        if device.halted.get().is_some() {
            return;
        }
        let stands = machine.wire.borrow().as_ref().is_some_and(|wire| wire.is_up());
        if stands && crate::sync::lock(&device.failover).connection.session().is_some() {
            return;
        }
        let wire = {
            let mut newest = self.wire.borrow_mut();
            if !newest.is_up() || newest.is_taken(side) {
                newest.cut(|_| 0, false);
                *newest = Wire::new(self.tape.clone());
            }
            newest.clone()
        };
        let Some(process) = machine.process.borrow().clone() else { return };
        let most = self.plan.settings[side].control_queue_bytes_max;
        let Some(end) = wire.take_end(side, process.dead.clone(), most) else { return };
        *machine.wire.borrow_mut() = Some(wire);
        if self.stalled.borrow().is_empty() {
            self.tape.set_lossy(side, false);
        }
        self.tape.event(Sort::Fault, format_args!("{} is connected", NAMES[side]));
        self.step(side, |d| d.connect(end));
    }

    /// The line is cut, with all that is on it.
    pub fn hang_up(&self) {
        self.wire.borrow().cut(|_| 0, false);
    }

    pub fn cut_line(&self, random: &mut Random) {
        let wire = self.wire.borrow().clone();
        if !wire.is_up() {
            return;
        }
        let silent = random.once_in(2);
        wire.cut(|frames| random.below(frames + 1), silent);
        self.tape.event(Sort::Fault, format_args!("the line is cut"));
        self.tape.count("cuts of the line");
    }

    fn lose_frame(&self, side: Side) {
        let wire = self.machines[side].wire.borrow().clone();
        if wire.is_some_and(|wire| wire.lose(side)) {
            let name = NAMES[side];
            self.tape.event(Sort::Fault, format_args!("a frame to {name} is lost on the line"));
            self.tape.count("lost frames");
            self.tape.set_lossy(side, true);
        }
    }

    /// Time passes: for both the same, but for what clocks do to it.
    fn tick(&self, random: &mut Random) {
        let most = random.pick(&[100_000, 1_000_000, 10_000_000, 10_000_000, 400_000_000]);
        let ns = random.within(0..most);
        self.machines.iter().for_each(|machine| machine.clock.pass(ns));
        [0, 1].into_iter().for_each(|side| self.look_at_takeover(side));
    }

    /// The operator says what a device does by itself after a restart. None is let go on alone whose
    /// disk may forget that it was fenced.
    fn set_policy(&self, side: Side, random: &mut Random) {
        let faithful = [Kind::Lie, Kind::Rot].iter().all(|kind| self.plan.never.contains(kind));
        let (prefer, alone) = (random.once_in(2), random.once_in(2));
        let alone = alone && faithful && self.may_be_alone(side);
        let policy = Policy { prefer, resume_alone: alone };
        if self.step(side, |d| d.set_policy(policy)).is_some() {
            self.tape.event(Sort::Host, format_args!("{} has {policy:?}", NAMES[side]));
        }
    }

    fn reachable(&self, side: Side) {
        if self.device(side).is_some_and(|device| device.status().serving)
            && self.step(side, |d| d.reachable()).is_some()
        {
            self.tape.event(Sort::Host, format_args!("hosts reach {}", NAMES[side]));
        }
    }

    fn step_clock(&self, side: Side, random: &mut Random) {
        let most = random.pick(&[1_000_000, 1_000_000_000, 3_600_000_000_000]);
        let ns = random.within(0..2 * most) as i64 - most as i64;
        self.machines[side].clock.step(ns);
        self.tape.event(Sort::Fault, format_args!("the clock of {} steps by {ns}", NAMES[side]));
        self.tape.count("steps of a clock");
    }

    /// The disk or the process at `side` is going to break in one of the next operations.
    pub(super) fn trouble(&self, side: Side, random: &mut Random) {
        if self.device(side).is_none() {
            return;
        }
        let troubles = [
            Trouble::Death,
            Trouble::Death,
            Trouble::Death,
            Trouble::BadWrite,
            Trouble::BadSync,
            Trouble::Full,
        ];
        let (after, trouble) = (random.within(0..12), random.pick(&troubles));
        let trouble = if self.plan.never_synced() { Trouble::Death } else { trouble };
        self.machines[side].disk.arm(after, trouble, random.next());
    }

    /// Told of by the device as it happens.
    pub(super) fn hook(&self, side: Side, device: &Arc<Device>) {
        let tape = self.tape.clone();
        let is_paced = AtomicBool::new(false);
        let Settings { pacing_from_percent: from, pacing_until_percent: until, .. } =
            self.plan.settings[side];
        let heard = Arc::<Mutex<[u64; 2]>>::default();
        *self.machines[side].heard.borrow_mut() = heard.clone();
        device.on_event(move |event| {
            let said = match *event {
                Event::PeerServes { epoch } => Some((0, epoch)),
                Event::PeerReachable { epoch } => Some((1, epoch)),
                _ => None,
            };
            if let Some((what, epoch)) = said {
                let mut heard = lock(&heard);
                let story = format!("{} hears {event:?} after {heard:?}", NAMES[side]);
                let before = std::mem::replace(&mut heard[what], epoch);
                if before >= epoch || heard[0] != epoch {
                    tape.broken(
                        "a device hears once that its peer serves, and then that hosts reach it",
                        story,
                    );
                }
                tape.count(["peers heard to serve", "peers heard to be reached"][what]);
            }
            if let Event::ModeChanged { mode } = *event {
                tape.count(changed_to(mode));
            }
            let rung = match event {
                Event::Paced { fill_percent } => Some((true, fill_percent)),
                Event::PacingEnded { fill_percent } => Some((false, fill_percent)),
                _ => None,
            };
            if let Some((paced, fill)) = rung {
                let fits = if paced { *fill >= from } else { *fill < until };
                if is_paced.swap(paced, Relaxed) == paced || !fits {
                    let story =
                        format!("{} says {event:?}, from {from}, until {until}", NAMES[side]);
                    tape.broken("each change of rung is told, and has its own threshold", story);
                }
                tape.count(if paced { "paced" } else { "paced no more" });
            }
            if let Event::Disconnected { why: error, .. } = event
                && error.kind() == ErrorKind::Protocol
            {
                let story = format!("{}: {error}", NAMES[side]);
                tape.refused(side, "devices that keep the rules understand each other", story);
            }
        });
    }
}
