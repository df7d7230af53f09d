//! The specification's tables: no I/O, no threads, only who stands where.

pub mod location;
pub mod prototype;
pub mod unreflected;
