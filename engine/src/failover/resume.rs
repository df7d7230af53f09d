//! Beginning to serve under the epoch that is held already: after a restart, once peer or operator has
//! vouched for this device (R13). The decision is [`super::decide`]'s; here is what it needs and
//! what it leads to.

use super::decide::{Decision, Here, Occasion, Wait, decide};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::flow::Tables;
use crate::format::superblock::Superblock;
use crate::queue::Clk;
use crate::sync::lock;
use crate::unit::Stamp;
use crate::weaken::{Clause, holds};

/// A device's own decisions after a restart; durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// With both devices fenced, this one asks for the host.
    pub prefer: bool,
    /// It serves from its opening on without having heard from the peer, if it held the host and
    /// had caught up. Only where something else makes sure that this device is dead before the
    /// other is forced to take over: a cluster's fencing.
    pub resume_alone: bool,
}

impl Policy {
    /// The policy that a superblock has.
    pub(super) fn of(superblock: &Superblock) -> Policy {
        Policy { prefer: superblock.prefer, resume_alone: superblock.resume_alone }
    }

    /// Notes it down in `superblock`.
    pub(super) fn note(self, superblock: &mut Superblock) {
        superblock.prefer = self.prefer;
        superblock.resume_alone = self.resume_alone;
    }
}

impl Device {
    /// The operator's word that the other device does not serve and was not forced to (R13): this
    /// device, which held the host when it stopped, or when it was fenced here ([`Device::fence_here`]), serves
    /// again without having heard from it.
    ///
    /// # Errors
    /// [`Kind::Fenced`] if the host had moved away, [`Kind::NotProven`] if records or blocks are
    /// missing that only the other device has, [`Kind::Damaged`] if the peer has shown that this device lost
    /// durable records, [`Kind::NotReady`] while a takeover is open here, [`Kind::Halted`]. Serving
    /// already is none.
    pub fn resume_alone(&self) -> Result<()> {
        let _telling = self.events.enter();
        let _one = self.begin_step(&self.role)?;
        match decide(self.own_state(), Occasion::Operator) {
            Decision::Serve => {
                let newest = lock(&self.tables).newest_own();
                self.store(|s| {
                    s.history.note_alone(newest);
                    s.fenced_here = false;
                })?;
                self.resume(Stamp::ZERO);
            }
            Decision::GoOn => return Ok(()),
            Decision::Wait(why) => return Err(waiting(why)),
            other => unreachable!("{other:?} without a hello"),
        }
        self.tell_resumed();
        Ok(())
    }

    /// Undoes [`Device::fence_here`], as long as no grant has gone out: this device serves again at the next hello
    /// that shows that the other was not forced to take over meanwhile (R13). This call ends the connection, so that
    /// the hello is a new one; a device that has never met another serves at once. A device that serves is left as it
    /// is.
    ///
    /// # Errors
    /// With nothing changed: [`Kind::Fenced`] if the host was granted to the other device, or belongs there;
    /// [`Kind::NoPeer`] without a connection, where [`Device::resume_alone`] takes an operator's word;
    /// [`Kind::NotReady`], [`Kind::NotProven`] and [`Kind::Damaged`] as [`Device::resume_alone`]. Later:
    /// [`Kind::Halted`].
    pub fn unfence(&self) -> Result<()> {
        if self.superblock.get().peer == 0 {
            return self.resume_alone();
        }
        let _telling = self.events.enter();
        let one = self.begin_step(&self.role)?;
        let here = self.own_state();
        match decide(here, Occasion::Operator) {
            Decision::GoOn => return Ok(()),
            // It asks for the records that it lacks at the hello.
            Decision::Wait(Wait::Behind) | Decision::Serve if here.fenced_here => {}
            Decision::Wait(why) => return Err(waiting(why)),
            _ => return Err(waiting(Wait::Unproven)),
        }
        if self.connected_link().is_none() {
            let what = "the other device is not connected, so that nothing shows that it was not forced to take over: \
                        connect the two; or, if the other surely does not serve, let this one be resumed alone";
            return Err(Error::new(Kind::NoPeer, what));
        }
        self.store(|s| s.fenced_here = false)?;
        drop(one);
        let why =
            "this device is resumed: the other shows anew that it was not forced to take over";
        self.hang_up(&Error::new(Kind::NoPeer, why));
        Ok(())
    }

    /// This device's own decisions after a restart.
    pub fn policy(&self) -> Policy {
        Policy::of(&self.superblock.get())
    }

    /// Changes what this device does by itself after a restart, durably; it counts from the next
    /// hello or opening on.
    ///
    /// # Errors
    /// [`Kind::Halted`] if the superblock cannot be written, or the device is closed.
    pub fn set_policy(&self, policy: Policy) -> Result<()> {
        let _telling = self.events.enter();
        // Nothing follows the mark of a close, which holds `role`.
        let _one = self.begin_step(&self.role)?;
        self.store(|s| policy.note(s))
    }

    /// The state of this device that a decision looks at.
    pub(super) fn own_state(&self) -> Here {
        let marks = marks(&lock(&self.tables));
        let serving = self.clk.epoch() != 0;
        let (asking, served, lost) = {
            let role = &self.expire_and_lock().role;
            (role.is_asking(), role.served(), role.lost().is_some())
        };
        Here { serving, served, lost, asking, ..Here::opened(&self.superblock.get(), marks) }
    }

    /// Opens the tenure that is held, with every stamp of it that anybody may have seen sealed;
    /// `heard` is the newest that the peer knows of.
    pub(crate) fn resume(&self, heard: Stamp) {
        let epoch = self.superblock.get().epoch;
        let seen = {
            let tables = lock(&self.tables);
            let own = tables.newest_own();
            [
                own,
                tables.normal.reflected(),
                tables.out.acked(),
                tables.incoming.hi(),
                tables.normal.need(),
                heard,
            ]
        };
        let mut newest = 0;
        if holds(Clause::ClockRecovery) {
            let of_tenure = seen.iter().filter(|stamp| stamp.epoch == epoch);
            newest = of_tenure.map(|stamp| stamp.time).max().unwrap_or(0);
        }
        // A failure halts the device, which lets nobody in.
        let _ = self.note_durability();
        // It may have served before, and the tables not have what it took last.
        self.open_admission(|clk| clk.reopen(epoch, newest));
    }

    /// Tells that it serves what it held before.
    pub(super) fn tell_resumed(&self) {
        self.tell(Event::Ready { epoch: self.clk.epoch(), owed_blocks: 0 });
    }

    /// Lets hosts in.
    pub(super) fn open_admission(&self, open: impl FnOnce(&Clk)) {
        lock(&self.failover).role.serve();
        open(&self.clk);
        // A halting thread closes the gate after it has noted the halt.
        if self.check_halted().is_err() {
            self.clk.close();
        }
    }

    /// Why this device, which was found not to serve, does not.
    pub(crate) fn not_serving(&self) -> Error {
        if let Err(halted) = self.check_halted() {
            return halted;
        }
        let mut here = self.own_state();
        // A device that has served and does not any more is just being fenced.
        here.fenced |= lock(&self.failover).role.held();
        match decide(here, Occasion::Request) {
            Decision::Wait(why) => waiting(why),
            _ => Error::new(Kind::NotReady, "the device has begun to serve just now: try again"),
        }
    }
}

impl Here {
    /// A device with this superblock and these [`marks`] that does nothing yet.
    fn opened(superblock: &Superblock, [newest, acked, hi, need]: [Stamp; 4]) -> Here {
        Here {
            fenced: superblock.fenced,
            fenced_here: superblock.fenced_here,
            serving: false,
            served: false,
            lost: false,
            asking: false,
            prefer: superblock.prefer,
            resume_alone: superblock.resume_alone,
            epoch: superblock.epoch,
            newest,
            acked,
            hi,
            need,
            owed: superblock.owed,
        }
    }
}

/// `newest`, `acked`, `hi` and `need` of a [`Here`].
fn marks(tables: &Tables) -> [Stamp; 4] {
    [tables.newest_own(), tables.out.acked(), tables.incoming.hi(), tables.normal.need()]
}

/// Whether a device that is opened with this superblock and these tables serves at once.
pub(crate) fn serves_at_opening(superblock: &Superblock, tables: &Tables) -> bool {
    decide(Here::opened(superblock, marks(tables)), Occasion::Opening) == Decision::Serve
}

pub(super) fn waiting(why: Wait) -> Error {
    let (kind, what) = match why {
        Wait::Lost => (
            Kind::Damaged,
            "the other device has shown that this device lost durable records: this one serves no host \
             and must be resynchronised",
        ),
        Wait::Asking => (Kind::NotReady, "a takeover is under way here: try again soon"),
        Wait::Fenced => {
            (Kind::Fenced, "this device is fenced: the host belongs at the other device")
        }
        Wait::FencedHere => (
            Kind::Fenced,
            "this device was fenced by an operator, and serves nobody until it is resumed, or takes the host over",
        ),
        Wait::Behind => (
            Kind::NotProven,
            "the device was opened while records or blocks were missing that only the other device has: \
             connect the two, and the host is served again without a command",
        ),
        Wait::Unproven => (
            Kind::NotProven,
            "nothing has shown since the opening that the other device was not forced to take over: \
             connect the two; or, if the other surely does not serve, let the program that is to \
             serve this one resume it alone (`Device::resume_alone`, `Policy::resume_alone`)",
        ),
    };
    Error::new(kind, what)
}
