//! How long the requests of hosts take, by what they ask for: from their header until their answer is made.

use super::wire::command;
use crate::latency::Latency;
use std::time::Duration;

/// The counts of a server's requests that were answered.
#[derive(Debug, Default)]
pub struct Latencies {
    read: Latency,
    write: Latency,
    flush: Latency,
    trim: Latency,
    zeroes: Latency,
    cache: Latency,
}

impl Latencies {
    /// Of each kind, by its name.
    pub fn kinds(&self) -> [(&'static str, &Latency); 6] {
        [
            ("read", &self.read),
            ("write", &self.write),
            ("flush", &self.flush),
            ("trim", &self.trim),
            ("zeroes", &self.zeroes),
            ("cache", &self.cache),
        ]
    }

    pub(super) fn add(&self, asked: u16, time: Duration) {
        let of = match asked {
            command::READ => &self.read,
            command::WRITE => &self.write,
            command::FLUSH => &self.flush,
            command::TRIM => &self.trim,
            command::WRITE_ZEROES => &self.zeroes,
            command::CACHE => &self.cache,
            _ => return,
        };
        of.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}
