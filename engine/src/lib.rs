//! Time-ordered journal replication for block storage.
//!
//! Two storage devices, one at each site. A host writes to one; the other follows in the
//! background, in the order of the hosts' timestamps, so that its volumes are at every moment an
//! exact earlier state of the first. When the host fails, another takes over at the other device
//! at once: it does not wait for the copy. Blocks still missing there are fetched on demand while
//! the ordered copy goes on, and the host may move back and forth with copies pending both ways.
//!
//! ```text
//!   host ── write ──▶ queue ── commit ──▶ own log ── ship ──▶ link ── receive ──▶ received log
//!    ▲                  │                                                             │
//!    └──── read ◀───────┴──────────── reflect, in stamp order ──▶ normal volume ◀─────┘
//! ```
//!
//! | to … | look at |
//! |---|---|
//! | embed a device | `docs/embedding.md`, [`Device`], [`Session`], `examples/pair.rs` |
//! | run it in two processes | [`Threads`], [`Connector`], `tcp` (feature `tcp`), `examples/tcp_pair.rs` |
//! | bring your own disk, line, clock | [`Storage`], [`Link`], [`Clock`] |
//! | drive it yourself, step by step | the `step_*` methods of [`Device`] |
//! | follow a record | `queue/`, `journal/`, `flow/` |
//! | follow a host | `failover/` |
//! | read the specification's tables | `table/` |
//! | know the bytes | `format/`, `docs/format.md` |
//!
//! A device starts no thread and opens no file, socket or clock of its own: everything outside
//! comes through the traits, and [`Threads`], [`Directory`] and
//! [`SystemClock`] are the usual implementations of it.
//!
//! The items named here are those that an embedding program needs, kept stable. [`internal`] is
//! not: it is there for this project's own tools, tests and measurements, and changes with any
//! version.

#[doc(hidden)]
#[path = "."]
pub mod internal {
    //! The parts, for this project's own tools: no promise is made of anything in here.

    pub(crate) mod chunks;
    pub mod clock;
    pub mod compare;
    pub mod device;
    pub mod error;
    pub mod event;
    pub mod failover;
    pub mod flow;
    pub mod format;
    #[cfg(all(any(test, feature = "fuzz"), not(loom)))]
    pub mod fuzz;
    pub(crate) mod host;
    pub mod image;
    pub mod journal;
    pub mod limits;
    pub mod link;
    pub(crate) mod listeners;
    pub(crate) mod moment;
    pub(crate) mod opening;
    pub(crate) mod peer;
    pub mod queue;
    pub mod request;
    pub mod salvage;
    pub(crate) mod saved;
    #[cfg(feature = "simulate")]
    pub mod simulate;
    pub mod storage;
    pub mod superblock;
    pub mod sync;
    pub mod table;
    pub mod table_file;
    pub mod threads;
    pub mod unit;
    #[cfg(not(loom))]
    pub(crate) mod wake;
    #[cfg(loom)]
    pub mod wake; // for the models
    #[cfg(feature = "weaken")]
    pub mod weaken;
    #[cfg(not(feature = "weaken"))]
    pub(crate) mod weaken;
}

// The parts name each other from the crate's root, as if they lay there.
use internal::weaken;
use internal::{
    chunks, clock, compare, device, error, event, failover, flow, format, host, image, journal,
    limits, link, listeners, moment, peer, queue, request, saved, storage, superblock, sync, table,
    table_file, threads, unit, wake,
};

pub use internal::salvage;

pub use clock::{Clock, SystemClock};
pub use compare::{CompareLimits, CompareReport, Differing};
pub use device::Device;
pub use error::{Error, Kind, Result};
pub use event::{DifferentialStatus, Event, LogRecovery, Recovery, Rung, Status};
pub use failover::{BranchSheet, Closed, Forced, Image, LossSheet, Policy, Takeover};
pub use flow::compare::{Compare, Comparison};
pub use format::frame::FRAME_BYTES_MAX;
pub use format::image::ImagePoint;
pub use format::superblock::{Branch, Lost, VolumeSpec};
pub use image::ImageStatus;
pub use limits::{Durability, Geometry, Limits, Settings};
#[cfg(feature = "tcp")]
pub use link::tcp;
pub use link::{Connector, Lane, Line, Link, MemoryLink, memory_link};
pub use request::{Completion, Located, Op, Place, Request, Session, Ticket};
pub use storage::{Directory, FileName, Fill, Memory, SideKind, Storage};
pub use threads::Threads;
pub use unit::{Mode, Round, Stamp};
