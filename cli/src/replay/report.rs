//! The table that a person reads, made from the [`Document`].

use std::fmt::{self, Display, Formatter};

use super::json::{Document, Latency, RequestCount, TakeoverInfo};
use super::meter::Metric;

/// The document as a table.
pub struct Table<'a>(pub &'a Document);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let document = self.0;
        heading(f, document)?;
        requests(f, document)?;
        latencies(f, document)?;
        takeovers(f, document)?;
        pace(f, document)?;
        verdict(f, document)
    }
}

fn heading(f: &mut Formatter<'_>, document: &Document) -> fmt::Result {
    let trace = &document.trace;
    write!(
        f,
        "{}: {}, {} requests, {}, {} on the trace's clock",
        trace.files.join(" "),
        trace.format,
        count(trace.rows),
        plural(trace.volumes, "volume"),
        duration(trace.span_ns),
    )?;
    if document.settings.passes > 1 {
        write!(f, ", {} passes", document.settings.passes)?;
    }
    writeln!(f)?;
    let odd = [
        (trace.bad_rows, "bad rows left out"),
        (trace.empty_rows, "empty rows left out"),
        (trace.rounded_rows, "rows widened to whole sectors"),
    ];
    for (number, what) in odd.iter().filter(|(number, _)| *number > 0) {
        writeln!(f, "{} {what}", count(*number))?;
    }
    let s = &document.settings;
    let rate = s.link_bytes_per_s.map_or("no limit".into(), |rate| format!("{}/s", bytes(rate)));
    writeln!(
        f,
        "block {}, journal {}, durability {}, link {rate} and {} delay, {} in flight",
        bytes(s.block_bytes),
        bytes(s.journal_bytes),
        s.durability,
        duration(s.link_delay_ns),
        s.depth,
    )
}

fn requests(f: &mut Formatter<'_>, document: &Document) -> fmt::Result {
    let requests = &document.requests;
    writeln!(f, "\n{:14}{:>12}{:>12}", "", "requests", "bytes")?;
    let rows = [
        ("read", requests.read),
        ("write", requests.write),
        ("discard", requests.discard),
        ("flush", requests.flush),
        ("total", requests.total),
    ];
    for (name, RequestCount { requests, bytes: size }) in rows {
        if requests > 0 || name == "total" {
            writeln!(f, "{name:14}{:>12}{:>12}", count(requests), bytes(size))?;
        }
    }
    Ok(())
}

fn latencies(f: &mut Formatter<'_>, document: &Document) -> fmt::Result {
    write!(f, "\n{:14}{:>12}", "", "count")?;
    for name in ["50%", "90%", "99%", "99.9%", "max"] {
        write!(f, "{name:>11}")?;
    }
    writeln!(f)?;
    for metric in Metric::ALL {
        let Latency { count: number, p50, p90, p99, p999, max, .. } =
            *document.latency_ns.get(metric);
        write!(f, "{:14}{:>12}", metric.label(), count(number))?;
        for value in [p50, p90, p99, p999, max] {
            let shown = if number == 0 { "-".into() } else { duration(value) };
            write!(f, "{shown:>11}")?;
        }
        writeln!(f)?;
    }
    Ok(())
}

fn takeovers(f: &mut Formatter<'_>, document: &Document) -> fmt::Result {
    if document.takeovers.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "\n{:10}{:>12}{:>10}{:>12}{:>11}{:>13}{:>11}{:>18}",
        "takeover",
        "backlog",
        "blocks",
        "bytes",
        "ready",
        "remote read",
        "caught up",
        "waiting would be"
    )?;
    for (number, takeover) in document.takeovers.iter().enumerate() {
        let TakeoverInfo { to, backlog_records, backlog_blocks, backlog_bytes, .. } = takeover;
        let optional = |ns: Option<u64>| ns.map_or("-".into(), duration);
        let waiting = takeover.caught_up_ns.map_or("-".into(), |ns| {
            let times = ns as f64 / takeover.ready_ns.max(1) as f64;
            format!("{} ({times:.0}x)", duration(ns))
        });
        writeln!(
            f,
            "{:10}{:>12}{:>10}{:>12}{:>11}{:>13}{:>11}{:>18}",
            format!("{} to {to}", number + 1),
            count(*backlog_records),
            count(*backlog_blocks),
            bytes(*backlog_bytes),
            duration(takeover.ready_ns),
            optional(takeover.first_remote_read_ns),
            optional(takeover.caught_up_ns),
            waiting,
        )?;
    }
    Ok(())
}

fn pace(f: &mut Formatter<'_>, document: &Document) -> fmt::Result {
    let (pace, full) = (&document.pace, &document.journal_full);
    writeln!(
        f,
        "\nreplayed in {} ({} requests/s, {}/s), drained in {}",
        duration(pace.replay_ns),
        count(pace.requests_per_s as u64),
        bytes(pace.bytes_per_s as u64),
        duration(pace.drain_ns),
    )?;
    match full.requests {
        0 => writeln!(f, "no time lost to a full journal")?,
        requests => writeln!(
            f,
            "a full journal cost {}: {} waited, the longest {}",
            duration(full.lost_ns),
            plural(requests, "write"),
            duration(full.longest_ns),
        )?,
    }
    if pace.tenths.len() > 1 {
        for (pass, tenths) in pace.tenths.iter().enumerate() {
            write!(f, "pass {}, requests/s by tenth:", pass + 1)?;
            for rate in tenths {
                write!(f, " {}", count(*rate as u64))?;
            }
            writeln!(f)?;
        }
    }
    Ok(())
}

fn verdict(f: &mut Formatter<'_>, document: &Document) -> fmt::Result {
    let v = &document.verification;
    writeln!(
        f,
        "\nchecked {} with {} sectors, {}, and {} written sectors on each device",
        plural(v.reads, "read"),
        count(v.read_sectors),
        plural(v.stamps, "stamp"),
        count(v.written_sectors),
    )?;
    if document.held {
        return writeln!(
            f,
            "verified: every read was right, and both devices hold what was written"
        );
    }
    writeln!(f, "NOT VERIFIED: {}", plural(v.violations, "violation"))?;
    for violation in &v.first_violations {
        writeln!(f, "  {violation}")?;
    }
    let more = v.violations - v.first_violations.len() as u64;
    if more > 0 {
        writeln!(f, "  and {} more", count(more))?;
    }
    if let Some(directory) = &document.settings.directory {
        writeln!(f, "the devices are in {directory}")?;
    }
    Ok(())
}

/// A number with its thousands set apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number of things.
fn plural(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A size, in the largest unit of which there is one.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let power = (size.ilog2() / 10).min(UNITS.len() as u32);
    let number = size as f64 / 1024f64.powi(power as i32);
    let unit = UNITS[power as usize - 1];
    match number.fract() == 0.0 {
        true => format!("{number} {unit}"),
        false => format!("{number:.1} {unit}"),
    }
}

/// A time, in three digits or so.
pub fn duration(ns: u64) -> String {
    let shown = |number: f64, unit: &str| match number {
        _ if number < 10.0 => format!("{number:.2} {unit}"),
        _ if number < 100.0 => format!("{number:.1} {unit}"),
        _ => format!("{number:.0} {unit}"),
    };
    match ns {
        0 => "0 s".into(),
        1..1_000 => format!("{ns} ns"),
        1_000..999_500 => shown(ns as f64 / 1e3, "µs"),
        999_500..999_500_000 => shown(ns as f64 / 1e6, "ms"),
        _ => shown(ns as f64 / 1e9, "s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plural(1, "read"), "1 read");
        assert_eq!(plural(2000, "read"), "2,000 reads");
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(4096), "4 KiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(bytes(5 << 50), "5120 TiB");
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(duration(0), "0 s");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_500), "1.50 µs");
        assert_eq!(duration(12_345_678), "12.3 ms");
        assert_eq!(duration(999_600_000), "1.00 s");
        assert_eq!(duration(4_073_024_447_000), "4073 s");
    }
}
