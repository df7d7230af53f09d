//! afterimage
pub mod clock;
pub mod error;
pub mod format;
pub mod queue;
pub mod sync;
pub mod unit;
