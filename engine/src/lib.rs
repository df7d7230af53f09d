//! afterimage
pub mod clock;
pub mod error;
pub mod queue;
pub mod sync;
pub mod unit;
