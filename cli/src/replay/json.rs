//! Everything that a replay has measured and checked, as one document (`--json`). The table on
//! the terminal is made from it too, so the two never differ.
//!
//! `docs/replay-json.md` describes it. Within a version, fields are added and never change their
//! meaning.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::meter::Metric;
use crate::results::Target;
use crate::signals::{self, Guard};

/// The version of the document.
pub const VERSION: u32 = 1;

/// A replay's results. Times are in nanoseconds, sizes in bytes, unless a name says otherwise.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md describes every field, once")]
pub struct Document {
    pub version: u32,
    pub program: String,
    pub held: bool,
    pub trace: TraceInfo,
    pub settings: Settings,
    pub requests: Requests,
    pub latency_ns: Latencies,
    pub takeovers: Vec<TakeoverInfo>,
    pub refused_takeovers: Vec<RefusedTakeover>,
    pub outages: Vec<OutageInfo>,
    pub lost_site: Option<LostSiteInfo>,
    pub journal_full: Lost,
    pub pacing: Lost,
    pub pace: Pace,
    pub verification: Verification,
}

/// The trace that was replayed.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct TraceInfo {
    pub files: Vec<String>,
    pub format: String,
    pub rows: u64,
    pub rows_read: u64,
    pub bad_rows: u64,
    pub empty_rows: u64,
    pub other_rows: u64,
    pub rounded_rows: u64,
    pub sections: u64,
    pub out_of_order_rows: u64,
    pub largest_step_back_ns: u64,
    pub warnings: Vec<String>,
    pub volumes: u64,
    pub volume_bytes: u64,
    pub span_ns: u64,
    pub has_time: bool,
    pub start_unix_ns: Option<u64>,
}

/// How it was replayed.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct Settings {
    pub passes: u32,
    pub depth: u32,
    /// `None`: as fast as possible.
    pub speed: Option<f64>,
    pub block_bytes: u64,
    pub journal_bytes: u64,
    pub link_bytes_per_s: Option<u64>,
    pub link_delay_ns: u64,
    pub skew_ns: i64,
    pub journal_full: String,
    pub pacing_max_ns: u64,
    pub durability: String,
    pub memory: bool,
    pub run: String,
    pub directory: Option<String>,
}

/// Requests and bytes of one kind.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct RequestCount {
    pub requests: u64,
    pub bytes: u64,
}

/// Requests by kind.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct Requests {
    pub read: RequestCount,
    pub write: RequestCount,
    pub discard: RequestCount,
    pub zero: RequestCount,
    pub flush: RequestCount,
    pub total: RequestCount,
}

/// The figures of a histogram.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct Latency {
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    #[serde(rename = "p99.9")]
    pub p999: u64,
    pub max: u64,
}

impl Latency {
    /// Sums up `values`.
    pub fn of(values: &Histogram<u64>) -> Latency {
        Latency {
            count: values.len(),
            mean: values.mean(),
            p50: values.value_at_quantile(0.5),
            p90: values.value_at_quantile(0.9),
            p99: values.value_at_quantile(0.99),
            p999: values.value_at_quantile(0.999),
            max: values.max(),
        }
    }
}

/// Latencies by metric.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct Latencies {
    pub write: Latency,
    pub flush: Latency,
    pub read_local: Latency,
    pub read_remote: Latency,
    pub lag: Latency,
    pub takeover: Latency,
}

impl Latencies {
    /// Takes them from wherever they are.
    pub fn from(mut of: impl FnMut(Metric) -> Latency) -> Latencies {
        Latencies {
            write: of(Metric::Write),
            flush: of(Metric::Flush),
            read_local: of(Metric::ReadLocal),
            read_remote: of(Metric::ReadRemote),
            lag: of(Metric::Lag),
            takeover: of(Metric::Takeover),
        }
    }

    /// The one of `metric`.
    pub fn get(&self, metric: Metric) -> &Latency {
        match metric {
            Metric::Write => &self.write,
            Metric::Flush => &self.flush,
            Metric::ReadLocal => &self.read_local,
            Metric::ReadRemote => &self.read_remote,
            Metric::Lag => &self.lag,
            Metric::Takeover => &self.takeover,
        }
    }
}

/// One takeover. Times count from the request to take over.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct TakeoverInfo {
    pub to: String,
    pub before_row: u64,
    pub at_ns: u64,
    pub epoch: u64,
    pub backlog_records: u64,
    pub backlog_blocks: u64,
    pub backlog_bytes: u64,
    pub reissued: u64,
    pub ready_ns: u64,
    pub first_remote_read_ns: Option<u64>,
    pub caught_up_ns: Option<u64>,
}

/// A takeover that was refused while the line was down.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct RefusedTakeover {
    pub to: String,
    pub before_row: u64,
    pub at_ns: u64,
    pub why: String,
}

/// An outage of the line. Times count from its beginning or its end.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct OutageInfo {
    pub before_row: u64,
    pub back_before_row: u64,
    pub at_ns: u64,
    pub back_at_ns: u64,
    pub early: bool,
    pub noticed_ns: Option<u64>,
    pub backlog_records: u64,
    pub backlog_bytes: u64,
    pub drained_ns: Option<u64>,
    pub waited: Lost,
}

/// The site that was lost, the forced takeover, and the hosts' loss.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct LostSiteInfo {
    pub device: String,
    pub before_row: u64,
    pub back_before_row: u64,
    pub at_ns: u64,
    pub back_at_ns: u64,
    pub epoch: u64,
    pub image: String,
    pub lost_mode: String,
    pub mode: String,
    pub mode_at_end: String,
    pub force_ns: u64,
    pub opening_ns: u64,
    pub received: String,
    pub told_records: u64,
    pub told_blocks: u64,
    pub given_up_records: u64,
    pub others_after_ns: Option<u64>,
    pub lost_blocks: u64,
    pub lost_blocks_told: u64,
    pub lost_blocks_given_up: u64,
    pub lost_blocks_not_listed: u64,
    pub salvaged_blocks: u64,
    pub salvaged_not_lost_blocks: u64,
    pub differing_blocks: u64,
    pub differing_bytes: u64,
    pub written_bytes: u64,
    pub copied_bytes: u64,
}

/// Time lost to full journals, or to those that are filling.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct Lost {
    pub requests: u64,
    pub longest_ns: u64,
    pub lost_ns: u64,
}

/// How fast it went.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct Pace {
    pub replay_ns: u64,
    pub drain_ns: u64,
    pub requests_per_s: f64,
    pub bytes_per_s: f64,
    /// Requests a second in every tenth of every pass.
    pub tenths: Vec<Vec<f64>>,
}

/// The checks, and those that did not hold.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct Verification {
    pub reads: u64,
    pub read_sectors: u64,
    pub read_zero_sectors: u64,
    pub stamps: u64,
    pub written_sectors: u64,
    pub devices: Vec<DeviceAtRest>,
    pub devices_equal: bool,
    pub violations: u64,
    pub first_violations: Vec<String>,
}

/// A device's volumes after the end.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "docs/replay-json.md")]
pub struct DeviceAtRest {
    pub name: String,
    pub data_sectors: u64,
    pub digest: String,
}

/// The file that a document goes to. Without a document there is no file, whatever stood there
/// before, so that the results of another run are not taken for those of one that failed.
pub struct Output {
    target: Target,
    file: File,
    is_written: bool,
    _guard: Option<Guard>,
}

impl Output {
    /// Makes the file, in place of what was there.
    ///
    /// # Errors
    /// Those of the file.
    pub fn create(target: &Target) -> std::io::Result<Output> {
        let file = target.create()?;
        let guard = match target {
            Target::Path(path) if is_file(path) => Some(signals::removing(path)),
            _ => None,
        };
        Ok(Output { target: target.clone(), file, is_written: false, _guard: guard })
    }

    /// Writes the document.
    ///
    /// # Errors
    /// Those of the file, which is then removed.
    pub fn finish(mut self, document: &Document) -> std::io::Result<()> {
        crate::output::json(document, &mut BufWriter::new(&self.file))?;
        self.is_written = true;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let Target::Path(path) = &self.target else { return };
        if !self.is_written && is_file(path) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A pipe or a terminal stays, or a link to one.
fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_file())
}
