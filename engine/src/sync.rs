//! The only import of atomics, so that loom drives the code that ships.
//!
//! Under `--cfg loom` these are loom's; everywhere else they are the standard library's. Locks and
//! condition variables guard what no loom model looks at and come from `std` directly.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// A word to sleep on, which the operating system looks at too: loom cannot model that.
pub use std::sync::atomic::AtomicU32 as FutexWord;
