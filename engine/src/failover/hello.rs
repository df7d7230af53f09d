//! Connecting: each device names itself and the last record that it has of the other (R10).

use super::connection::Peer;
use super::decide::{
    Alarm, Decision, Heard, Here, Kin, Occasion, Refusal, decide, has_lost, knows_of_loss,
};
use super::link_down;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::frame::{EXTENTS_FEATURE, Frame, Hello, LADDER_WIRE};
use crate::format::superblock::{Features, VolumeSpec};
use crate::limits::EPOCH_JUMP_MAX;
use crate::link::{Lane, Link};
use crate::sync::{Ordering, lock};
use crate::unit::{Mode, Round, Stamp};
use crate::weaken::{Clause, holds};
use std::sync::Arc;

/// Lineages have numbers below this one.
const LINEAGE_END: u64 = 1 << 62;

impl Device {
    /// Uses `link` from now on and says hello over it. The connection stands when the peer has
    /// said hello too ([`Event::Connected`]). An earlier connection ends here
    /// ([`Event::Disconnected`]).
    ///
    /// # Errors
    /// [`Kind::NoPeer`] if the link is down, [`Kind::Halted`].
    pub fn connect(&self, link: Arc<dyn Link>) -> Result<()> {
        let _telling = self.events.enter();
        // The hello is true when the connection begins: no takeover ends in between, as one by a file would.
        let _one = self.begin_step(&self.role)?;
        let nonce = self.nonce()?;
        let old = {
            let mut failover = lock(&self.failover);
            failover.role.end_grant();
            failover.connection.begin(nonce, link.clone(), self.clock.monotonic())
        };
        self.wakes.line.ring();
        if let Some(old) = old {
            if !Arc::ptr_eq(&old, &link) && holds(Clause::HangUp) {
                old.close();
            }
            let why = Error::new(Kind::NoPeer, "the connection was given up for a new one");
            self.tell(Event::Disconnected { link: old, why });
        }
        let hello = Frame::Hello(self.hello(nonce)).encode(nonce);
        link.send(Lane::Control, hello).map_err(link_down)
    }

    /// As [`Device::connect`], with the first control frame that has been received on `link`. Unless
    /// that is the hello of a device of this pair, the present connection stays as it is.
    ///
    /// # Errors
    /// Those of [`Device::connect`]; [`Kind::Protocol`] if it is another frame, or another pair's.
    pub(crate) fn connect_heard(&self, link: &Arc<dyn Link>, first: &[u8]) -> Result<()> {
        let _telling = self.events.enter();
        let (_, Frame::Hello(hello)) = Frame::decode(first)? else {
            let what =
                "the first frame of the connection is not a hello: is the other end a device?";
            return Err(Error::new(Kind::Protocol, what));
        };
        self.check_hello(&hello)?;
        // No step takes the frame behind the hello before it.
        let _one = self.begin_step(&self.peer.controlling)?;
        self.connect(link.clone())?;
        self.receive_hello(&hello, link).inspect_err(|error| self.disconnected(error, link))
    }

    pub(super) fn hello(&self, nonce: u64) -> Hello {
        let superblock = self.superblock.get();
        let (asking, (wire, features)) = {
            let failover = self.expire_and_lock();
            (failover.role.is_asking(), failover.connection.range())
        };
        let clk = self.clk_stamp();
        let mut tables = lock(&self.tables);
        // Records of which no step has taken note are records, too.
        self.sequence(&mut tables);
        let (hi, acked, need) = (tables.incoming.hi(), tables.out.acked(), tables.normal.need());
        let (reflected, newest) = (tables.normal.reflected(), tables.newest_own());
        Hello {
            wire,
            features,
            group: superblock.group,
            device: superblock.device,
            nonce,
            lineage: superblock.lineage,
            mode: superblock.mode,
            usable: superblock.usable,
            fenced: superblock.fenced,
            asking,
            epoch: superblock.epoch,
            hi,
            // Fenced or not: a stamp that this device knows of was sealed (R13).
            clk: [clk, newest, acked, need, reflected].into_iter().fold(hi, Stamp::max),
            newest,
            round: superblock.round,
            lost: superblock.lost,
            told: self.peer.owed.told().last(),
            told_max: self.settings.told_records_max,
            credit: self.credit(),
            block_size: superblock.block_size,
            volumes: superblock.volumes.clone(),
            alone: superblock.history.alone.is_some_and(|then| newest > then),
            ancestors: superblock.history.ancestors.clone(),
        }
    }

    pub(super) fn receive_hello(&self, hello: &Hello, from: &Arc<dyn Link>) -> Result<()> {
        let (session, known) = {
            let connection = &lock(&self.failover).connection;
            match connection.session().filter(|_| connection.is_over(from)) {
                None => return Ok(()), // of a connection given up meanwhile
                Some(session) => {
                    (session, connection.peer().is_some_and(|peer| peer.nonce == hello.nonce))
                }
            }
        };
        if known {
            {
                let _one = lock(&self.role);
                self.take_mark(hello)?;
            }
            // Said once more: places that came free meanwhile have not been told of otherwise.
            let newest = lock(&self.tables).newest_own();
            return self.receive_ack(hello.hi.min(newest), hello.credit);
        }
        let peer = self.check_hello(hello)?;
        let _one = lock(&self.role);
        if self.waits_for_branch(hello) {
            return Ok(());
        }
        let decision = self.decide_at(hello)?;
        lock(&self.failover).connection.hear_lineage(hello.lineage, &hello.ancestors);
        if decision == Decision::Return {
            self.return_to(hello)?;
        }
        self.take_mark(hello)?;
        self.agree(&peer, hello.device)?;
        self.expect_lost(hello)?;
        let records = {
            let mut tables = lock(&self.tables);
            if holds(Clause::AnnounceAfterTold) {
                tables.tell_after(hello.told);
            }
            tables.out.tell_at_most(hello.told_max);
            let mut records = Vec::new();
            if holds(Clause::Hello) {
                // Of a history that has parted the peer may know of records that are lost here.
                let newest = tables.newest_own();
                records = tables.rewind(&self.own.journal.queue, hello.hi.min(newest));
            }
            tables.out.credit(hello.credit);
            records
        };
        match decision {
            Decision::Serve => self.resume(hello.clk.max(hello.hi)),
            // The role that it held is in doubt.
            Decision::Ask => {
                lock(&self.failover).role.doubt();
                self.close_admission();
                self.wakes.waiters.wake_all();
            }
            _ => {}
        }
        if !hello.fenced {
            self.taken(hello.epoch);
        }
        let stands = {
            let mut failover = lock(&self.failover);
            // This hello agrees with the logs.
            failover.role.agree();
            failover.connection.establish(session, peer)
        };
        // The data lane is looked at from now on.
        self.wakes.line.ring();
        if stands {
            self.tell(Event::Connected { link: from.clone() });
        }
        if decision == Decision::Serve {
            self.tell_resumed();
        }
        self.tell_acknowledged(records);
        if !stands {
            return Ok(()); // given up just now: the next one has a hello of its own
        }
        // Said once more, in case the first was sent before the peer listened; it answers a hello
        // that it knows with nothing.
        self.send(Lane::Control, &Frame::Hello(self.hello(session)))?;
        self.say_reachable_again();
        self.ask_again();
        self.wakes.ship.ring();
        self.ask_at_hello(decision == Decision::Ask)
    }

    /// From now on the logs may have records of many blocks, if both programs know those (R19), and the
    /// pair may leave ordered mode, if both know differential mode. Frames that were on their way in the last
    /// connection are sent again, and the round is opened again (D2, D3). The peer is the one that this
    /// device's marks are about, and it is shown that no other was forced to take over.
    fn agree(&self, peer: &Peer, device: u64) -> Result<()> {
        let mut incompat = 0;
        if peer.features & EXTENTS_FEATURE != 0 || !holds(Clause::ExtentsAgreed) {
            incompat |= Features::EXTENTS;
        }
        let turn = &mut *self.peer.machine.turn();
        if peer.wire >= LADDER_WIRE {
            incompat |= Features::DIFFERENTIAL;
            self.peer.machine.hung_up(turn);
        }
        let now = self.superblock.get();
        let is_agreed = now.features.incompat & incompat == incompat;
        let history = &now.history;
        let is_settled = history.alone.is_none() && history.other.is_none();
        if !is_agreed || now.peer != device || !is_settled {
            self.store(|s| {
                s.features.incompat |= incompat;
                s.peer = device;
                (s.history.alone, s.history.other) = (None, None);
            })?;
        }
        if incompat & Features::EXTENTS != 0 {
            self.extents.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether records without data may be of many blocks (R19): the superblock says so.
    pub(crate) fn has_extents(&self) -> bool {
        self.extents.load(Ordering::Acquire)
    }

    /// Whether `hello` is from a device of this pair that can be understood.
    pub(super) fn check_hello(&self, hello: &Hello) -> Result<Peer> {
        let peer = lock(&self.failover).connection.meet(hello)?;
        let mine = self.superblock.get();
        let differ = |what: &str, here: String, there: String| {
            Err(Error::new(
                Kind::Protocol,
                format!(
                    "the peer belongs to another pair: {what} is {here} here and {there} there"
                ),
            ))
        };
        if hello.group != mine.group {
            return differ("group", format!("{:x}", mine.group), format!("{:x}", hello.group));
        }
        if hello.device == mine.device {
            return differ("device id", format!("{}", mine.device), "the same".into());
        }
        let is_forgotten = mine.history.forgotten != 0 && hello.device == mine.history.forgotten;
        if is_forgotten || mine.peer != 0 && hello.device != mine.peer {
            let why = match mine.peer {
                0 => "was forgotten as this device's peer".to_string(),
                peer => format!("is another than this device's peer, device {peer}"),
            };
            let what = format!(
                "device {} {why}: if it is to be the peer of device {} from now on, let the latter forget its \
                 present one (`afterimage forget-peer`) and make the former anew",
                hello.device, mine.device
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        if hello.block_size != mine.block_size {
            let (here, there) = (mine.block_size.to_string(), hello.block_size.to_string());
            return differ("block size", here, there);
        }
        if hello.volumes != mine.volumes {
            let (here, there) = (&mine.volumes, &hello.volumes);
            let same = here.iter().zip(there).take_while(|(here, there)| here == there).count();
            let show = |volumes: &[VolumeSpec]| match volumes.get(same) {
                Some(VolumeSpec { id, bytes }) => format!("volume {id} of {bytes} bytes"),
                None => "missing".into(),
            };
            let what = format!("entry {same} of the table of volumes");
            return differ(&what, show(here), show(there));
        }
        let is_known = peer.features & EXTENTS_FEATURE != 0;
        if self.has_extents() && !is_known && holds(Clause::ExtentsRefused) {
            let what = "the peer's program is an older one that does not know records of many blocks \
                        (wire feature 2), which this pair's logs may have: give the peer this version";
            return Err(Error::new(Kind::Protocol, what));
        }
        if self.geometry.differential && hello.mode == Mode::Ordered {
            let (here, there) = ("always differential".into(), "ordered".into());
            return differ("mode", here, there);
        }
        let is_old = peer.wire < LADDER_WIRE && self.peer.machine.mode() != Mode::Ordered;
        if is_old || peer.wire < LADDER_WIRE && hello.mode != Mode::Ordered {
            let what = "the peer's program is an older one that does not know differential mode (wire \
                        version 4), which this pair is in: give the peer this version";
            return Err(Error::new(Kind::Protocol, what));
        }
        if hello.epoch.saturating_sub(mine.epoch) > EPOCH_JUMP_MAX {
            let what = format!(
                "the peer names tenure {}, too far above tenure {}, the last one here",
                hello.epoch, mine.epoch
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        if hello.lineage.0 >= LINEAGE_END {
            let what = format!("the peer's lineage has number {}, which none has", hello.lineage.0);
            return Err(Error::new(Kind::Protocol, what));
        }
        let known = hello.hi.max(hello.newest);
        if hello.clk < known {
            let what = format!(
                "the peer's hello contradicts itself: its highest stamp is {}, but it has {known}",
                hello.clk
            );
            return Err(Error::new(Kind::Protocol, what));
        }
        Ok(peer)
    }

    /// The decision about the hello of a device of this pair, if it is not the end of the connection
    /// or of this device.
    fn decide_at(&self, hello: &Hello) -> Result<Decision> {
        // The records promised in a prototype are records of this device, too.
        self.sequence(&mut lock(&self.tables));
        let here = self.own_state();
        let Here { fenced, epoch, newest, acked, hi, need, .. } = here;
        let refused = |what: String| Err(Error::new(Kind::Protocol, what));
        let show = |round: Round| format!("{}.{}", round.generation, round.counter);
        let mut heard = self.heard(hello);
        // Of a tenure of this device's a fenced peer knows what it was told, which is durable here.
        if hello.fenced && !fenced && hello.clk.epoch == epoch {
            heard.told = heard.told.max(hello.clk);
        }
        match decide(here, Occasion::Hello(heard)) {
            Decision::Refuse(Refusal::Lineage) => {
                self.note_branch(hello)?;
                let show = |l: (u64, u64)| format!("{}.{:x}", l.0, l.1);
                let (here, there) = (show(self.superblock.get().lineage), show(hello.lineage));
                refused(format!(
                    "the two devices hold histories that have parted: here lineage {here}, tenure {epoch}, whose \
                     newest record is {newest}; at device {} lineage {there}, tenure {}, whose newest record is {}; \
                     nothing is discarded until one of them is chosen: close the one to be kept, and let it resolve \
                     this (`afterimage resolve`)",
                    hello.device, hello.epoch, hello.newest
                ))
            }
            Decision::Refuse(Refusal::LostThere) => {
                let then = self.outlive(hello)?;
                if heard.lost_round {
                    let (there, met) = (hello.round, self.superblock.get().history.met);
                    return refused(format!(
                        "the peer has lost what it had of this pair: it says it is in round {}, and it was in \
                         round {}; {then}",
                        show(there),
                        show(met)
                    ));
                }
                refused(format!(
                    "the peer has lost durable records: it says it received up to {}, wrote up to {} and \
                     granted {}, but it acknowledged {acked}, shipped or promised {} and granted {epoch}; \
                     {then}",
                    hello.hi,
                    hello.newest,
                    hello.epoch,
                    hi.max(need)
                ))
            }
            Decision::Halt(Alarm::BothUnfenced) => Err(self.halt(Error::new(
                Kind::Protocol,
                "both devices of the pair are unfenced, so each holds the host: stop both, and choose \
                 the one whose writes are to be kept",
            ))),
            Decision::Refuse(why @ (Refusal::LostHere | Refusal::Untrue)) => {
                let own = self.superblock.get().round;
                let story = format!(
                    "the peer says it has received up to {}, was told of {}, holds tenure {} and is in round {}, \
                     but the newest own record here is {newest}, the tenure is {epoch}, and the round {}",
                    hello.hi,
                    heard.told,
                    hello.epoch,
                    show(hello.round),
                    show(own)
                );
                Err(match why {
                    Refusal::Untrue => self.untrue(&story),
                    _ => self.lost_here(&story),
                })
            }
            other => Ok(other),
        }
    }

    /// Whether the peer admitted writes alone, though this device was forced: it makes a branch of them as it
    /// hears this device's hello, and ends the connection by that. Were it ended here, it might not hear.
    fn waits_for_branch(&self, hello: &Hello) -> bool {
        hello.alone && self.superblock.get().history.ancestors.contains(&hello.lineage)
    }

    /// The peer returns, and one of the two has lost durable records (R10): every block is copied. In ordered
    /// mode no peer returns but one that has lost its lineage with them.
    fn expect_lost(&self, hello: &Hello) -> Result<()> {
        let (here, heard) = (self.own_state(), self.heard(hello));
        if heard.kin != Kin::Below || here.fenced {
            return Ok(());
        }
        if self.peer.machine.mode() == Mode::Ordered {
            let then = self.outlive(hello)?;
            let what = format!("the peer has lost what it had of this pair; {then}");
            return Err(Error::new(Kind::Protocol, what));
        }
        match has_lost(here, heard) || knows_of_loss(here, heard) {
            true => self.expect_all(),
            false => Ok(()),
        }
    }

    /// The newest own record that was published, durable or not.
    pub(super) fn newest_published(&self) -> Stamp {
        let mut tables = lock(&self.tables);
        self.sequence(&mut tables);
        tables.own.newest_published().max(tables.newest_own())
    }

    /// The peer, as `hello` describes it.
    pub(super) fn heard(&self, hello: &Hello) -> Heard {
        let mine = self.superblock.get();
        let newest_own = self.newest_published();
        let is_branch = holds(Clause::AloneIsBranch);
        let wrote_alone = is_branch && mine.history.alone.is_some_and(|then| newest_own > then);
        let kin = match hello.lineage == mine.lineage {
            true => Kin::Same,
            _ if mine.history.ancestors.contains(&hello.lineage) && !(is_branch && hello.alone) => {
                Kin::Below
            }
            _ if hello.ancestors.contains(&mine.lineage) && !wrote_alone => Kin::Above,
            _ => Kin::Apart,
        };
        let Hello { fenced, asking, epoch, newest, hi, told, .. } = *hello;
        let is_below = hello.round < mine.history.met && holds(Clause::RoundMet);
        let lost_round = matches!(kin, Kin::Same | Kin::Below) && is_below;
        let is_above = hello.round > mine.round && holds(Clause::RoundBegun);
        let is_of_tenure = kin == Kin::Same && !mine.fenced && fenced && epoch == mine.epoch;
        let new_round = is_of_tenure && is_above;
        Heard { kin, fenced, asking, epoch, newest, hi, told, lost_round, new_round }
    }
}
