//! The hand-over with a grant, piece by piece, from device to device (S805, S806; R4, R5, R18): a
//! value that the fence chooses, and that the role above carries without looking into it. It is the
//! prototype, as both devices keep order (`table/prototype.rs`).

use super::link_down;
use super::role::{Grant, Role};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::flow::Tables;
use crate::flow::announce::Told;
use crate::format::frame::{Frame, Ladder, Requester, TablePiece};
use crate::format::superblock::Superblock;
use crate::limits::PROTOTYPE_ROOM_MAX;
use crate::link::{Lane, Link};
use crate::queue::Queue;
use crate::sync::lock;
use crate::table::bits::Bits;
use crate::table::differential::{Differential, Grant as Granted, Message, Ordered, Request, Side};
use crate::table::unreflected::Index;
use crate::unit::{Block, Extent, Mode, Round, Stamp};
use crate::weaken::{Clause, holds};
use std::sync::Arc;

/// The rest that is to be handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HandOver {
    /// R as a prototype: the records before `end`, after those that the peer was told of.
    Prototype {
        /// The end of R.
        end: Index,
    },
    /// The table, from `from` on (D4).
    Table {
        /// The round that begins.
        round: Round,
        /// The lineage of this device.
        generation: u64,
        /// Whether the requester was active later than this device.
        later: bool,
        /// The last announcement, if what was told is left out; else 0.
        told: u64,
        /// The first address that is not handed over yet.
        from: Block,
    },
}

/// A piece of it.
pub(super) struct Piece {
    /// Entries that are still to come, this piece's included; 0 if it cannot be known.
    pub left: u64,
    /// The stamp told before the first entry.
    pub previous: Stamp,
    pub entries: Vec<(Extent, Stamp)>,
    /// Nothing follows.
    pub is_last: bool,
}

impl HandOver {
    /// The hand-over of a fenced device: the records told in this connection come before the
    /// answer, which goes on from there.
    pub fn rest(tables: &Tables) -> HandOver {
        HandOver::Prototype { end: tables.own.records().end() }
    }

    /// The next piece, of at most `most` entries. A record acknowledged before its piece is made need
    /// not be named. With `newest_only` a record is left out that a newer one of its block follows.
    fn next_told(
        end: Index,
        tables: &mut Tables,
        queue: &Queue,
        most: usize,
        newest_only: bool,
    ) -> Piece {
        let left = end.saturating_sub(tables.out.next_to_tell().0);
        let newest_only = newest_only && holds(Clause::NewestPerBlock);
        let Told { previous, entries } = tables.next_told(queue, end, most, newest_only);
        Piece { left, previous, entries, is_last: tables.out.next_to_tell().0 >= end }
    }
}

/// A takeover's merge, for the superblock.
pub(super) struct Merged {
    need: Stamp,
    whole: Stamp,
    hi: Stamp,
}

impl Merged {
    /// Says it in the superblock.
    pub fn note(&self, superblock: &mut Superblock) {
        superblock.need = self.need;
        superblock.whole = self.whole;
        // A received record that `whole` counts on and that is gone at an opening is missed there.
        if holds(Clause::HiWithWhole) {
            superblock.hi = superblock.hi.max(self.hi);
        }
    }
}

impl Device {
    /// Answers a takeover request, just fenced (D4): with a prototype if both keep order in one round, else
    /// with the table, which R becomes part of. Durable before the first piece of it goes out.
    ///
    /// `nonce` is the request's: what a requester that returned has said before it is taken in (D10).
    pub(super) fn grant(&self, nonce: u64, requester: Option<Requester>) -> Result<HandOver> {
        let Requester { mode, round, last_active, generation, told } =
            requester.unwrap_or_default();
        let request = Request { mode, round, last_active, generation, told };
        let mut granted = None;
        let turn = &mut *self.peer.machine.turn();
        let (of, differing) = std::mem::take(&mut turn.differing);
        let differing = if of == nonce { differing } else { Bits::default() };
        let step = |machine: &mut Differential, tables: &Tables| {
            let ordered = match machine.grants_prototype(&request) {
                true => Ordered::default(),
                false => self.ordered(tables),
            };
            self.peer.machine.expect_alike(machine, &differing);
            let work = machine.grant(request, &differing, ordered);
            granted = work.send;
            self.peer.machine.change_sides(Side::Fenced);
            Some(work)
        };
        self.turn(turn, step, |_| ())?;
        Ok(match granted {
            Some(Message::Grant(Granted::Table { round, generation, later, told })) => {
                HandOver::Table { round, generation, later, told, from: TablePiece::FIRST }
            }
            _ => HandOver::rest(&lock(&self.tables)),
        })
    }

    /// Sends the next piece of what is handed over, if there is one and the control lane of `link`
    /// holds little. Returns whether anything was done.
    pub(super) fn hand_over(&self, link: &Arc<dyn Link>) -> Result<bool> {
        let is_full = || holds(Clause::HandOverPaced) && self.is_full(link);
        if !lock(&self.failover).role.is_handing_over() || is_full() {
            return Ok(false);
        }
        let (link, piece) = {
            let mut tables = lock(&self.tables);
            let mut failover = lock(&self.failover);
            let wire = failover.connection.wire();
            let Some((session, link)) = failover.connection.standing() else { return Ok(false) };
            // Where the line takes time, only what the peer will keep; on a line without limit the
            // look at each block takes longer than the peer's.
            let newest_only = link.queued(Lane::Control) > 0;
            let piece = self.next_piece(&mut tables, &mut failover.role, newest_only);
            let Some(piece) = piece else { return Ok(false) };
            (link, piece.encode_in(wire, session))
        };
        link.send(Lane::Control, piece).map_err(link_down)?;
        Ok(true)
    }

    /// The next piece of the grant under way, if there is one; the grant ends with the last. With `newest_only` a
    /// prototype leaves out a record that a newer one of its block follows.
    pub(super) fn next_piece(
        &self,
        tables: &mut Tables,
        role: &mut Role,
        newest_only: bool,
    ) -> Option<Frame<'static>> {
        let Grant { nonce, tenure, what } = role.grant()?;
        let (nonce, grant) = (*nonce, *tenure);
        let end = match what {
            HandOver::Prototype { end } => *end,
            HandOver::Table { round, generation, later, told, from } => {
                let (round, generation, later, told) = (*round, *generation, *later, *told);
                let machine = self.peer.machine.read();
                let piece = TablePiece::next(*from, &mut machine.untold_from(*from).peekable());
                drop(machine);
                *from = piece.to;
                if piece.is_last {
                    role.end_grant();
                }
                let piece =
                    Ladder::GrantTable { nonce, grant, round, generation, later, told, piece };
                return Some(Frame::Ladder(piece));
            }
        };
        let (queue, most) = (&self.own.journal.queue, self.settings.piece_entries_max);
        let Piece { left, previous, entries, is_last } =
            HandOver::next_told(end, tables, queue, most, newest_only);
        if is_last {
            role.end_grant();
        }
        Some(Frame::Prototype { nonce, grant, left, is_last, previous, entries })
    }

    /// The peer announces records (R18).
    pub(super) fn receive_announced(
        &self,
        previous: Stamp,
        entries: &[(Extent, Stamp)],
    ) -> Result<()> {
        let _one = lock(&self.role);
        let takes = match self.peer.machine.mode() {
            Mode::Ordered => true,
            Mode::Copying => self.clk.epoch() == 0,
            Mode::Collecting | Mode::Sending => false,
        };
        if !takes {
            // The peer has not heard of this round: bits tell of its records.
            return Ok(());
        }
        if let Some(&(_, newest)) = entries.last() {
            self.check_tenure_known(newest)?;
        }
        let tenure = self.superblock.get().epoch.saturating_add(1);
        self.take_told(previous, entries, None, self.settings.told_records_max, tenure)
    }

    /// Notes down what the peer tells of (R18): records of tenures before `tenure`, which follow
    /// `previous`. `left` such may follow, unless these are the last.
    pub(super) fn take_piece(
        &self,
        previous: Stamp,
        entries: &[(Extent, Stamp)],
        left: Option<u64>,
        tenure: u64,
    ) -> Result<()> {
        let most = self.geometry.prototype_entries_max();
        let left = left.map(|left| left.min(PROTOTYPE_ROOM_MAX));
        if left.is_none() {
            self.peer.owed.end_pieces();
        }
        self.take_told(previous, entries, left, most, tenure)
    }

    /// As [`Device::take_piece`]; `most` may be held.
    fn take_told(
        &self,
        previous: Stamp,
        entries: &[(Extent, Stamp)],
        left: Option<u64>,
        most: u64,
        tenure: u64,
    ) -> Result<()> {
        let broken = |what: String| Err(Error::new(Kind::Protocol, what));
        let (mut volume, mut blocks) = (None, 0);
        if entries.iter().any(|entry| entry.0.level > 0) && !self.has_extents() {
            let what =
                "the peer tells of a record of many blocks (wire feature 2), which was not agreed";
            return broken(what.into());
        }
        for &(extent, stamp) in entries {
            if stamp.epoch >= tenure {
                return broken(format!(
                    "the peer tells of record {stamp}, which is not older than tenure {tenure}"
                ));
            }
            if stamp.time > Stamp::TIME_MAX {
                return broken(format!(
                    "the peer tells of record {stamp}, whose time is above {} ns",
                    Stamp::TIME_MAX
                ));
            }
            let number = extent.first.volume;
            if volume != Some(number) {
                (volume, blocks) = (Some(number), self.volumes.blocks(number));
            }
            if !extent.ends_within(blocks) {
                return broken(format!("the peer tells of block {extent}, which no volume has"));
            }
        }
        let tables = lock(&self.tables);
        let hi = tables.incoming.hi();
        let known = self.peer.owed.told().last().max(hi);
        if self.clk.epoch() != 0 && entries.last().is_some_and(|(_, stamp)| *stamp > known) {
            return broken(
                "the peer tells of a new record of its own while this device serves".into(),
            );
        }
        self.peer.owed.tell(previous, entries, left, hi, most).or_else(broken)
    }

    /// Everything is here: merges it (S807, R5). In force before it is durable: no record that
    /// `whole` leaves out may go to N meanwhile.
    pub(super) fn merge(&self) -> Merged {
        let mut tables = lock(&self.tables);
        // Received records count too: should a disk lose one, this device must not serve again.
        let need = self.peer.owed.told().last().max(tables.incoming.hi());
        tables.raise_need(need);
        // An older tenure's catching up does not belong to this `need` (I5).
        self.peer.owed.end();
        Merged { need, whole: tables.normal.whole(), hi: tables.incoming.hi() }
    }

    /// The merge is durable, and the tenure is about to open; returns how many blocks are
    /// owed.
    pub(super) fn begin_debt(&self) -> u64 {
        let mut tables = lock(&self.tables);
        tables.out.serve();
        let owed_blocks = self.peer.owed.told().len();
        let is_behind = tables.is_behind();
        assert!(is_behind != (owed_blocks == 0), "I5: hi >= need exactly if nothing is owed");
        self.peer.owed.begin(is_behind);
        owed_blocks
    }
}
