//! A stalled thread: at one of the engine's moments other actions come in between, as other threads
//! would, and then the interrupted step goes on as if nothing had happened.

use super::action::{Action, Kind, Kind::*};
use super::random::Random;
use super::tape::Sort;
use super::world::World;
use super::{NAMES, Side};
use crate::moment::Moment;
use crate::sync::Ordering::Relaxed;

/// A stall at one of the next moments.
pub(super) struct Stall {
    /// So many moments pass before.
    after: u64,
    actions: u64,
    random: Random,
}

/// The actions that can come in between.
const BETWEEN: [Kind; 36] = [
    Write, Write, Write, Write, Zeroes, Discard, Discard, Stall, Read, Read, Flush, Late, Return,
    Poll, Poll, Commit, Commit, Sequence, Ship, Ship, Receive, Receive, Control, Control, Control,
    Reflect, Reflect, Checkpoint, Ask, Plug, Cut, Tick, StepClock, Suspend, Climb, Climb,
];

impl World {
    /// At one of the next moments the thread that comes there is stalled.
    pub fn arm_stall(&self, random: &mut Random) {
        let after = random.pick(&[0, 0, 1, 2, 3, 8]);
        let actions = random.pick(&[1, 2, 4, 8, 16, 32]);
        *self.stall.borrow_mut() = Some(Stall { after, actions, random: random.clone() });
    }

    /// A step of a device has come to `moment`.
    pub fn at(&self, moment: Moment) {
        let Some(side) = self.busy.get() else { return };
        if self.machines[side].is_controlling.get()
            && matches!(moment, Moment::Looking | Moment::Located)
        {
            // An answer that was begun as the lane had room goes out, whatever comes into it meanwhile.
            return;
        }
        let Some(mut stall) = self.stall.take() else { return };
        if stall.after > 0 {
            stall.after -= 1;
            *self.stall.borrow_mut() = Some(stall);
            return;
        }
        // The records that it has published so far can be seen.
        let asking = self.asking.take();
        let asking = asking.map(|mut asked| {
            self.published(side, Some(&mut asked));
            asked
        });
        let name = NAMES[side];
        self.tape.event(Sort::Fault, format_args!("a thread of {name} is stalled: {moment:?}"));
        self.tape.count("stalled threads");
        self.stalled.borrow_mut().push((side, moment));
        for _ in 0..stall.actions {
            let random = &mut stall.random;
            let (kind, other) = (random.pick(&BETWEEN), random.below(2));
            let action = Action { kind, random: Random::new(random.next()), side: other };
            if !self.plan.never.contains(&kind) && self.may_come_between(kind, other) {
                self.perform(action);
                self.check_one_serves();
            }
            self.go_on_moving();
        }
        self.stalled.borrow_mut().pop();
        self.tape.event(Sort::Fault, format_args!("the thread of {name} goes on"));
        if let Some(process) = &*self.machines[side].process.borrow() {
            process.ending.store(process.has_failed(), Relaxed);
        }
        *self.asking.borrow_mut() = asking;
    }

    /// Whether a step would not wait, in the one thread that there is, for a stalled one.
    pub(super) fn may_come_between(&self, kind: Kind, at: Side) -> bool {
        let waits = |moment| match moment {
            // A fence waits for what is being admitted, and a control step for one under way.
            Moment::Reserved | Moment::Linked => kind == Control,
            Moment::Comparing => kind == Control,
            // No step of the simulation rests.
            Moment::Resting => false,
            Moment::Published | Moment::Looking | Moment::Located => false,
            // Copies wait for a reflection.
            Moment::Reflecting | Moment::Reflected => {
                kind == Reflect || kind == Receive && self.has_suspended(at)
            }
            // No mode comes or goes while records are taken in.
            Moment::Received => matches!(kind, Receive | Control | Climb | Suspend),
            Moment::Shipping => kind == Ship,
            Moment::Checkpointing | Moment::Checkpointed => kind == Checkpoint,
        };
        let machine = &self.machines[at];
        if machine.is_controlling.get() && kind == Control {
            return false;
        }
        if machine.is_shipping.get() && matches!(kind, Ship | Climb | Suspend) {
            return false;
        }
        let stalled = self.stalled.borrow();
        stalled.iter().all(|&(side, moment)| at != side || !waits(moment))
    }
}
