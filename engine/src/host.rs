//! The hosts' side of a device: the session that may write, and the requests that wait.

use crate::flow::admission::Writers;
use crate::flow::pace::Pace;
use crate::flow::write::Turns;
use crate::limits::{Geometry, Settings};
use crate::request::{Calls, Room};
use std::sync::Arc;

/// See the module.
pub(crate) struct Host {
    /// The session that may write to each volume (R20).
    pub writers: Writers,
    /// Room for requests that wait to be admitted.
    pub room: Room,
    /// The delay of writes while the journal is filling.
    pub pace: Pace,
    /// Blocks that are kept for a partial write (R15).
    pub turns: Turns,
    /// Callbacks of requests that were woken, and handlers of superseded sessions.
    pub calls: Arc<Calls>,
}

impl Host {
    /// The host state of a device that has not served yet.
    pub fn new(geometry: &Geometry, settings: &Settings) -> Host {
        let ids = geometry.volumes.iter().map(|volume| volume.id);
        Host {
            writers: Writers::new(ids, &settings.shared_volumes),
            room: Room::new(settings.waiting_bytes_max),
            pace: Pace::new(settings),
            turns: Turns::default(),
            calls: Arc::default(),
        }
    }
}
