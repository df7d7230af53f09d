//! A device's news for the outside: events as they happen, and a snapshot of where it stands.

use crate::compare::{CompareReport, Differing};
use crate::error::Error;
use crate::format::superblock::Lost;
use crate::image::ImageStatus;
use crate::link::Link;
use crate::unit::{Mode, Round, Stamp};
use std::sync::Arc;

/// Something that happened. Listeners are told in the order in which it happened, one event at a time,
/// by a thread that is about to leave the device and holds no lock of its: they may call the device,
/// and must be quick, as that thread may be one of the background's.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection to the peer stands.
    Connected {
        /// The link given to [`crate::Device::connect`]: `Arc::ptr_eq` tells connections apart.
        link: Arc<dyn Link>,
    },
    /// A connection, or one that was begun, is gone or was given up.
    Disconnected {
        /// The link that [`crate::Device::connect`] was given.
        link: Arc<dyn Link>,
        /// Why.
        why: Error,
    },
    /// The device serves: a takeover ended here, or it was opened again and has now shown that
    /// it may (R13). While [`Status::lost_writes`] is set it refuses sessions all the same
    /// ([`crate::Kind::LostWrites`]), until [`crate::Device::accept_loss`], after which no event follows.
    Ready {
        /// The tenure.
        epoch: u64,
        /// Blocks whose newest data is still at the peer.
        owed_blocks: u64,
    },
    /// The host has been granted to the peer: the device serves no more.
    Fenced {
        /// The tenure granted to the peer.
        epoch: u64,
        /// Whether it served until now. If not, the peer has asked again: it has not taken the host
        /// under the grant before, see [`Status::awaits_taker`].
        served: bool,
    },
    /// An operator has fenced the device here ([`crate::Device::fence_here`]): it serves no more, and nobody else
    /// does.
    FencedHere {
        /// The tenure, which it keeps.
        epoch: u64,
        /// Whether it served until now.
        served: bool,
    },
    /// The peer is heard to serve under the tenure that this device granted it: the host has moved.
    /// Once for each tenure since the opening.
    PeerServes {
        /// The tenure.
        epoch: u64,
    },
    /// The peer says that hosts reach it ([`crate::Device::reachable`]); after
    /// [`Event::PeerServes`] of that tenure, and once.
    PeerReachable {
        /// The tenure.
        epoch: u64,
    },
    /// The peer has shown that this device lost durable records: it serves nobody until a hello
    /// agrees with its logs again, and must be resynchronised ([`Status::lost`]).
    LostRecords(Error),
    /// Everything the peer owed at the takeover has arrived.
    CaughtUp,
    /// No consistent copy at either site: the normal volumes of neither device are a state that the hosts' data
    /// had once, until [`Event::CaughtUp`] of the device that serves, which tells of it
    /// ([`DifferentialStatus::no_consistent_copy`]). A forced takeover would be of the newest data, or of
    /// the last consistent image, where that is kept ([`Status::image`]). It comes of a second takeover before the
    /// first has caught up: prefer to wait with it until no block is owed.
    NoConsistentCopy,
    /// Host writes reach the peer in another way from now on: the device has suspended, opens a round or
    /// follows the peer into one, or is back in ordered mode.
    ModeChanged {
        /// The new mode.
        mode: Mode,
    },
    /// The peer has made these own records durable (S1504).
    Acknowledged {
        /// Of each record, in stamp order: its stamp, and when it was written, in nanoseconds on the
        /// monotonic clock; for what was written before the opening, when that was.
        records: Vec<(Stamp, u64)>,
        /// Now, in nanoseconds on the monotonic clock.
        at: u64,
    },
    /// A checkpoint is durable.
    Checkpoint {
        /// Everything up to this stamp is in the normal volumes, durably.
        fl: Stamp,
    },
    /// The own journal is filling, and writes are delayed from now on ([`Rung::Paced`]).
    Paced {
        /// How full it is: at least [`crate::Settings::pacing_from_percent`].
        fill_percent: u64,
    },
    /// The own journal has room again, and writes are delayed no more.
    PacingEnded {
        /// How full it is: less than [`crate::Settings::pacing_until_percent`].
        fill_percent: u64,
    },
    /// A comparison of the running pair has found a first range that differs
    /// ([`crate::Device::begin_compare`]): one of the two normal volumes is damaged there. Nothing is
    /// changed by that.
    Differs(Differing),
    /// The normal volumes are no state of the hosts' data any more, or are one again, and the last one that they
    /// were is kept, or is not, and why ([`Status::image`]).
    LastImage(ImageStatus),
    /// Salvage has no room, for the first time since the opening ([`Status::salvage_full`]).
    SalvageFull(Error),
    /// A comparison of the running pair is over.
    Compared(CompareReport),
    /// The device stopped for good.
    Halted(Error),
}

/// How far a device is from standing still for want of room in its own journal. Later versions have
/// more rungs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rung {
    /// Writes are admitted as they come.
    Ordered,
    /// Each write is delayed.
    Paced {
        /// Nanoseconds that a write is delayed that comes now.
        delay_ns: u64,
    },
}

/// A device's opening: findings and repairs (R13).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// It had been closed: nothing was in doubt.
    pub clean: bool,
    /// Writes that hosts were told had completed may be lost, and this opening found it out (R20).
    pub lost_writes: bool,
    /// The fault of one copy of the superblock; it was written anew.
    pub superblock_repaired: Option<String>,
    /// The own log.
    pub own: LogRecovery,
    /// The received log.
    pub recv: LogRecovery,
}

/// The findings of an opening in one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogRecovery {
    /// Records taken over: not surely in the normal volume, or not surely at the peer.
    pub live_records: u64,
    /// Records found at the end that had not been made durable, so that no host had been promised
    /// them; they are gone. Those of a torn header are not counted: it does not say how many they are.
    pub cut_records: u64,
}

/// Where differential mode stands (LADDER 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DifferentialStatus {
    /// The round that both devices are in, or are to be.
    pub round: Round,
    /// Whether both are in it, as this device knows.
    pub is_open: bool,
    /// Blocks written here whose newest content may not be at the peer: the differential administration
    /// table, with the blocks that are on their way.
    pub table_blocks: u64,
    /// Blocks that were sent and are not acknowledged.
    pub flying_blocks: u64,
    /// Data of the copies that were sent since the opening, and checksums in its place, in bytes; blocks of
    /// zeros have none.
    pub copied_bytes: u64,
    /// Blocks that the peer owes, as bits tell.
    pub owed_blocks: u64,
    /// Whether the normal volumes are a state that the hosts' data had once, with the unreflected records.
    pub is_consistent: bool,
    /// Whether there is no consistent copy at either site: at the device that serves, as the other has said in
    /// this round ([`Event::NoConsistentCopy`]).
    pub no_consistent_copy: bool,
    /// Whether the active device has said that the peer has everything (D7).
    pub is_level: bool,
}

/// Where a device stands. Stamps are named by what happened to the records up to them; `acked` is
/// never above the newest own one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// This device's number.
    pub device: u64,
    /// How host writes reach the peer.
    pub mode: Mode,
    /// Bits tell of these, in modes other than the ordered one; all zero there.
    pub differential: DifferentialStatus,
    /// Whether the last consistent image of the normal volumes is kept while they are none
    /// ([`crate::Settings::image_bytes_max`]).
    pub image: ImageStatus,
    /// Since the opening salvage had no room ([`crate::Settings::salvage_bytes_max`]), or its file failed, and for
    /// what: a resync stops there; records of the peer that are reflected, and the last consistent image on its way
    /// back, go on, and what they replace is lost.
    pub salvage_full: Option<Error>,
    /// Whether it serves a host, or would, but for [`Status::lost_writes`].
    pub serving: bool,
    /// Whether an operator has fenced it ([`crate::Device::fence_here`]), and nobody has taken the host since.
    pub fenced_here: bool,
    /// Whether a connection to the peer stands.
    pub connected: bool,
    /// Whether it has granted the host and the peer has not been heard to hold that tenure since
    /// this opening: the peer may ask again. If not, and it does not serve, the host has moved.
    pub awaits_taker: bool,
    /// The proof that it lost durable records, from a hello or a shipped record, if any: it serves
    /// nobody and must be resynchronised.
    pub lost: Option<Error>,
    /// The mark that writes may be lost that hosts were told had completed (R20): until
    /// [`crate::Device::accept_loss`] the device that holds the host serves nobody.
    pub lost_writes: Option<Lost>,
    /// How often since its opening the connection was dropped because the peer said what this
    /// device knows to be untrue.
    pub untrue: u64,
    /// The highest tenure it granted or held.
    pub epoch: u64,
    /// The last tenure in which it held the host; 0 if it never has.
    pub last_active: u64,
    /// Highest stamp received.
    pub hi: Stamp,
    /// Newest stamp owed or received when this device last became active.
    pub need: Stamp,
    /// Newest own record.
    pub newest_own: Stamp,
    /// Highest own stamp acknowledged by the peer.
    pub acked: Stamp,
    /// Highest stamp in the normal volumes.
    pub reflected: Stamp,
    /// Durable own records that the peer has not acknowledged.
    pub backlog_records: u64,
    /// Their data, in bytes: whole blocks; zeros have none.
    pub backlog_bytes: u64,
    /// Data of the own records that the peer has acknowledged since the opening, in bytes: whole blocks.
    pub acked_bytes: u64,
    /// When the oldest of them was written, in nanoseconds on the monotonic clock of this opening;
    /// for what was written before it, when the device was opened.
    pub oldest_written_at: Option<u64>,
    /// Blocks that the peer owes.
    pub owed_blocks: u64,
    /// Blocks whose newest data is still at the peer, as far as the peer has told (R18): all of
    /// them while this device serves.
    pub told_blocks: u64,
    /// Their data, in bytes: whole blocks, though zeros have none.
    pub told_bytes: u64,
    /// The last stamp that the peer has told of.
    pub told: Stamp,
    /// Records waiting for their turn to the normal volume.
    pub unreflected_records: u64,
    /// Whether writes are delayed, and how long.
    pub rung: Rung,
    /// How full the own journal is: its places or its bytes, whichever are fuller, whatever holds them:
    /// what the peer lacks, and what no checkpoint has given up.
    pub own_fill_percent: u64,
    /// Nanoseconds until the own journal is full if it goes on filling as in the last seconds; `None` if
    /// it has not been filling.
    pub own_full_in_ns: Option<u64>,
    /// Nanoseconds until the next rung: in ordered mode pacing, its end or a suspension, in the others the next
    /// mode of the device that serves. By the rates of the last one to four seconds, at which the journal
    /// fills, or blocks are collected or sent; by the settings, where a time is set. `None` if nothing leads
    /// there now, or the other device serves. With neither pacing nor suspension it is
    /// [`Status::own_full_in_ns`].
    pub next_rung_in_ns: Option<u64>,
    /// Places left in the own log's queue.
    pub own_free_places: u64,
    /// Bytes of the own log that are held.
    pub own_used_bytes: u64,
    /// Places left in the received log's queue: the credit.
    pub recv_free_places: u64,
    /// Bytes of the received log that are held.
    pub recv_used_bytes: u64,
    /// Volumes to which several sessions may write at once ([`crate::limits::Settings::shared_volumes`]).
    pub shared_volumes: Vec<u32>,
    /// Where the comparison stands that was begun at this device, while there is one.
    pub comparison: Option<CompareReport>,
    /// Why it stopped, if it did.
    pub halted: Option<Error>,
}
