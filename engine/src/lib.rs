//! afterimage
mod bell;
pub mod clock;
pub mod device;
pub mod error;
pub mod event;
pub mod failover;
pub mod flow;
pub mod format;
pub mod journal;
pub mod limits;
pub mod link;
pub mod queue;
pub mod request;
pub mod storage;
pub mod superblock;
pub mod sync;
pub mod table;
pub mod threads;
pub mod unit;

pub use device::Device;
