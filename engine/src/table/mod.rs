//! The specification's tables, and how far each arrow has come along them: no I/O, no threads, only
//! which record stands where.
//!
//! | file | owns |
//! |---|---|
//! | `own.rs` | own records that are final: R and L share them |
//! | `out.rs` | R towards one peer: what is shipped, told of, acknowledged, granted |
//! | `incoming.rs` | what came from one peer: `hi`, and its records in L |
//! | `normal.rs` | N: what is reflected, and what R8 lets go there |
//! | `prototype.rs` | what one peer owes (`pend`) |
//! | `bits.rs` | nothing: a set of blocks, as differential tables are |
//! | `alike.rs` | which blocks with a bit the peer may have all the same |
//! | `announced.rs` | nothing: runs of blocks, each with the announcement that told of it |
//! | `differential/` | differential mode towards one peer: its table, rounds, what is owed and in flight |
//! | `location.rs` | where a block's newest data is |
//! | `runs.rs` | nothing: which record is the newest of each of many blocks |
//!
//! A cursor has one owner, whose fields are private: it moves by the owner's transitions only
//! (`engine/tests/layers.rs`). The state of one peer is a value of its own.

#[cfg(not(loom))]
pub(crate) mod alike;
#[cfg(loom)]
pub mod alike; // for the models
pub mod announced;
pub mod bits;
pub mod differential;
pub(crate) mod incoming;
pub mod location;
pub(crate) mod normal;
pub(crate) mod out;
pub(crate) mod own;
pub mod prototype;
pub mod runs;
pub mod unreflected;
