//! Time-ordered journal replication for block storage.
//!
//! Two storage devices, one at each site. A host writes to one; the other follows in the
//! background, in the order of the hosts' timestamps, so that its volumes are at every moment an
//! exact earlier state of the first. When the host fails, another takes over at the other device
//! at once: it does not wait for the copy. What is still missing there is fetched on demand while
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
//! | embed a device | [`Device`], [`request::Session`], `examples/pair.rs` |
//! | bring your own disk, line, clock | [`storage::Storage`], [`link::Link`], [`clock::Clock`] |
//! | drive it yourself, step by step | the `step_*` methods of [`Device`], [`threads`] |
//! | follow a record | [`queue`], [`journal`], [`flow`] |
//! | follow a host | [`failover`] |
//! | read the specification's tables | [`table`] |
//! | compare two devices | [`compare`] |
//! | know the bytes | [`mod@format`] |
//!
//! A device starts no thread and opens no file, socket or clock of its own: everything outside
//! comes through the traits, and [`threads`], [`storage::Directory`] and
//! [`clock::SystemClock`] are the usual implementations of it.

pub mod clock;
pub mod compare;
pub mod device;
pub mod error;
pub mod event;
pub mod failover;
pub mod flow;
pub mod format;
#[cfg(all(any(test, feature = "fuzz"), not(loom)))]
#[doc(hidden)]
pub mod fuzz;
pub mod journal;
pub mod limits;
pub mod link;
mod listeners;
mod moment;
pub mod queue;
pub mod request;
#[cfg(feature = "simulate")]
pub mod simulate;
pub mod storage;
pub mod superblock;
pub mod sync;
pub mod table;
pub mod threads;
pub mod unit;
#[cfg(not(loom))]
mod wake;
#[cfg(loom)]
pub mod wake; // for the models
#[cfg(feature = "weaken")]
pub mod weaken;
#[cfg(not(feature = "weaken"))]
mod weaken;

pub use device::Device;
