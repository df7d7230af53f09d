//! Measurements while a replay runs: latencies by kind, counts, and time lost.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::hlog::{Hlog, Interval};
use crate::trace::Action;

/// The kind of a latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// A host's write, discards and zeroes included.
    Write,
    /// A flush of its own; one that a write asks for first is part of the write.
    Flush,
    /// A read answered by the device alone.
    ReadLocal,
    /// A read that needed the other device.
    ReadRemote,
    /// From a record's admission until the peer has acknowledged it: the recovery point in time.
    Lag,
    /// From the request to take over until the device serves.
    Takeover,
}

impl Metric {
    /// All metrics, in the order of reports.
    pub const ALL: [Metric; 6] = [
        Metric::Write,
        Metric::Flush,
        Metric::ReadLocal,
        Metric::ReadRemote,
        Metric::Lag,
        Metric::Takeover,
    ];

    /// Its name in files.
    pub fn tag(self) -> &'static str {
        match self {
            Metric::Write => "write",
            Metric::Flush => "flush",
            Metric::ReadLocal => "read-local",
            Metric::ReadRemote => "read-remote",
            Metric::Lag => "lag",
            Metric::Takeover => "takeover",
        }
    }

    /// Its name in tables.
    pub fn label(self) -> &'static str {
        match self {
            Metric::Write => "host write",
            Metric::Flush => "flush",
            Metric::ReadLocal => "local read",
            Metric::ReadRemote => "remote read",
            Metric::Lag => "shipping lag",
            Metric::Takeover => "takeover",
        }
    }
}

/// The values of one metric: all of them, and those of the present interval.
#[derive(Debug)]
pub struct Track {
    total: Histogram<u64>,
    interval: Histogram<u64>,
}

impl Default for Track {
    fn default() -> Track {
        Track { total: histogram(), interval: histogram() }
    }
}

/// Three digits, from a nanosecond to whatever comes.
fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are possible")
}

impl Track {
    /// Adds a value in nanoseconds.
    pub fn record(&mut self, ns: u64) {
        self.interval.record(ns.max(1)).expect("a histogram that resizes takes any value");
    }

    /// All values of intervals that have ended.
    pub fn total(&self) -> &Histogram<u64> {
        &self.total
    }

    /// Ends the interval; its values, if it has any.
    pub fn end_interval(&mut self) -> Option<Histogram<u64>> {
        if self.interval.is_empty() {
            return None;
        }
        self.total.add(&self.interval).expect("a histogram that resizes takes any value");
        Some(std::mem::replace(&mut self.interval, histogram()))
    }
}

/// Requests and bytes of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub requests: u64,
    /// How many bytes they ask for.
    pub bytes: u64,
}

/// Requests and bytes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub read: Count,
    /// Writes.
    pub write: Count,
    /// Discards.
    pub discard: Count,
    /// Ranges to read as zeros.
    pub zero: Count,
    /// Flushes.
    pub flush: Count,
}

impl Counts {
    /// Adds a request.
    pub fn add(&mut self, action: Action) {
        let (count, bytes) = match action {
            Action::Read { length, .. } => (&mut self.read, length),
            Action::Write { length, .. } => (&mut self.write, length),
            Action::Discard { length, .. } => (&mut self.discard, length),
            Action::Zero { length, .. } => (&mut self.zero, length),
            Action::Flush => (&mut self.flush, 0),
        };
        count.requests += 1;
        count.bytes += bytes;
    }

    /// All together.
    pub fn total(&self) -> Count {
        let all = [self.read, self.write, self.discard, self.zero, self.flush];
        Count {
            requests: all.iter().map(|count| count.requests).sum(),
            bytes: all.iter().map(|count| count.bytes).sum(),
        }
    }
}

/// Time lost because a journal was full, or filling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Requests that had to wait.
    pub requests: u64,
    /// The longest wait, in nanoseconds.
    pub longest_ns: u64,
    /// Time during which at least one request was waiting.
    pub lost_ns: u64,
    /// Until when that has been counted.
    until: u64,
}

impl Waits {
    /// A request that had waited so long was admitted `now`; requests come in the order of `now`.
    pub fn add(&mut self, waited_ns: u64, now: u64) {
        if waited_ns == 0 {
            return;
        }
        self.requests += 1;
        self.longest_ns = self.longest_ns.max(waited_ns);
        self.lost_ns += now.saturating_sub(self.until.max(now.saturating_sub(waited_ns)));
        self.until = now;
    }
}

/// Everything measured by the host's side.
pub struct Meter {
    tracks: BTreeMap<Metric, Track>,
    /// Completed requests.
    pub counts: Counts,
    /// Time lost.
    pub journal_full: Waits,
    /// Time that the devices delayed writes for.
    pub pacing: Waits,
    hlog: Option<Hlog>,
    began_at: u64,
    interval_began_at: u64,
}

const INTERVAL_NS: u64 = 1_000_000_000;

impl Meter {
    /// Begins `now`, on the monotonic clock.
    pub fn new(hlog: Option<Hlog>, now: u64) -> Meter {
        Meter {
            tracks: Metric::ALL.map(|metric| (metric, Track::default())).into(),
            counts: Counts::default(),
            journal_full: Waits::default(),
            pacing: Waits::default(),
            hlog,
            began_at: now,
            interval_began_at: now,
        }
    }

    /// Adds a value.
    pub fn record(&mut self, metric: Metric, ns: u64) {
        self.tracks.get_mut(&metric).expect("every metric has a track").record(ns);
    }

    /// Whether it is time for [`Meter::end_interval`].
    pub fn is_interval_over(&self, now: u64) -> bool {
        now >= self.interval_began_at + INTERVAL_NS
    }

    /// Ends the interval for all metrics; `lags` are kept elsewhere, one a device.
    pub fn end_interval<'a>(&mut self, now: u64, lags: impl Iterator<Item = &'a mut Track>) {
        let start = Duration::from_nanos(self.interval_began_at - self.began_at);
        let length = Duration::from_nanos(now - self.interval_began_at);
        let send = |metric: Metric, track: &mut Track| {
            if let Some(values) = track.end_interval()
                && let Some(hlog) = &self.hlog
            {
                hlog.add(Interval { tag: metric.tag(), start, length, values });
            }
        };
        // Both directions' lags are one metric.
        let both = self.tracks.get_mut(&Metric::Lag).expect("every metric has a track");
        for lag in lags {
            if let Some(values) = lag.end_interval() {
                both.interval.add(values).expect("a histogram that resizes takes any value");
            }
        }
        for (&metric, track) in &mut self.tracks {
            send(metric, track);
        }
        self.interval_began_at = now;
    }

    /// The values of `metric` in all intervals that have ended.
    pub fn total(&self, metric: Metric) -> &Histogram<u64> {
        self.tracks[&metric].total()
    }

    /// Finishes the interval log.
    pub fn finish(&mut self) -> std::io::Result<()> {
        self.hlog.take().map_or(Ok(()), Hlog::finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_add_up() {
        let mut meter = Meter::new(None, 100);
        let mut lag = Track::default();
        meter.record(Metric::Write, 5);
        lag.record(7);
        assert!(!meter.is_interval_over(200) && meter.is_interval_over(100 + INTERVAL_NS));
        meter.end_interval(200, std::iter::once(&mut lag));
        meter.record(Metric::Write, 0);
        meter.end_interval(300, std::iter::once(&mut lag));
        assert_eq!((meter.total(Metric::Write).len(), meter.total(Metric::Write).min()), (2, 1));
        assert_eq!((meter.total(Metric::Lag).len(), meter.total(Metric::Lag).max()), (1, 7));
        assert!(meter.total(Metric::Flush).is_empty());
    }

    #[test]
    fn waits_that_overlap_are_lost_once() {
        let mut full = Waits::default();
        full.add(0, 50);
        full.add(10, 100);
        full.add(15, 105);
        full.add(5, 200);
        assert_eq!((full.requests, full.longest_ns, full.lost_ns), (3, 15, 10 + 5 + 5));
    }
}
