//! The table that a person reads, made from the [`Document`].

use std::fmt::{self, Display, Formatter};

use super::json::{Document, Latency, RefusedTakeover, RequestCount, TakeoverInfo};
use super::meter::Metric;
use crate::words::{bytes, count, duration, moment, plural};

/// The document as a table.
pub struct Table<'a>(pub &'a Document);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let document = self.0;
        heading(f, document)?;
        requests(f, document)?;
        latencies(f, document)?;
        takeovers(f, document)?;
        outages(f, document)?;
        lost_site(f, document)?;
        pace(f, document)?;
        verdict(f, document)
    }
}

fn heading(f: &mut Formatter<'_>, document: &Document) -> fmt::Result {
    let trace = &document.trace;
    write!(
        f,
        "{}: {}, {}, {}, {} on the trace's clock",
        trace.files.join(" "),
        trace.format,
        plural(trace.rows, "request"),
        plural(trace.volumes, "volume"),
        duration(trace.span_ns),
    )?;
    if document.settings.passes > 1 {
        write!(f, ", {} passes", document.settings.passes)?;
    }
    writeln!(f)?;
    let odd = [
        (trace.bad_rows, "bad row", "left out"),
        (trace.empty_rows, "empty row", "left out"),
        (trace.rounded_rows, "row", "widened to whole sectors"),
    ];
    for (number, what, so) in odd.into_iter().filter(|(number, ..)| *number > 0) {
        writeln!(f, "{} {so}", plural(number, what))?;
    }
    if trace.sections > trace.files.len() as u64 {
        let sections = plural(trace.sections, "section");
        writeln!(f, "{sections} with clocks of their own, replayed in the files' order")?;
    }
    if trace.out_of_order_rows > 0 {
        let rows = plural(trace.out_of_order_rows, "row");
        let step = duration(trace.largest_step_back_ns);
        writeln!(f, "{rows} out of order, sorted; the largest step back {step}")?;
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
        ("zero", requests.zero),
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

fn outages(f: &mut Formatter<'_>, document: &Document) -> fmt::Result {
    for refused in &document.refused_takeovers {
        let RefusedTakeover { to, before_row, why, .. } = refused;
        let row = count(*before_row);
        writeln!(f, "\ntakeover to {to} after {row} requests refused, hosts stay: {why}")?;
    }
    if document.outages.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "\n{:10}{:>11}{:>11}{:>12}{:>11}{:>12}{:>12}{:>9}{:>11}",
        "outage", "begins", "lasts", "requests", "backlog", "bytes", "drained in", "waited", "lost"
    )?;
    for (number, outage) in document.outages.iter().enumerate() {
        writeln!(
            f,
            "{:10}{:>11}{:>11}{:>12}{:>11}{:>12}{:>12}{:>9}{:>11}{}",
            number + 1,
            duration(outage.at_ns),
            duration(outage.back_at_ns - outage.at_ns),
            count(outage.back_before_row - outage.before_row),
            count(outage.backlog_records),
            bytes(outage.backlog_bytes),
            outage.drained_ns.map_or("-".into(), duration),
            count(outage.waited.requests),
            duration(outage.waited.lost_ns),
            if outage.early { "  ended early: hosts could do nothing" } else { "" },
        )?;
    }
    Ok(())
}

fn lost_site(f: &mut Formatter<'_>, document: &Document) -> fmt::Result {
    let Some(site) = &document.lost_site else { return Ok(()) };
    writeln!(
        f,
        "\nthe site of {} was lost after {} requests ({}), and the other device forced in {} (its next \
         opening took {}); {} returned after {} requests",
        site.device,
        count(site.before_row),
        site.lost_mode,
        duration(site.force_ns),
        duration(site.opening_ns),
        site.device,
        count(site.back_before_row),
    )?;
    writeln!(
        f,
        "  the loss sheet ({} image, {} mode): {} and {} told and not received, {} of its own given up, {}",
        site.image,
        site.mode,
        plural(site.told_records, "record"),
        plural(site.told_blocks, "block"),
        plural(site.given_up_records, "record"),
        match site.others_after_ns {
            Some(time) => format!("every other lost write is later than {}", moment(time)),
            None => "nothing can be said of other lost writes".into(),
        },
    )?;
    writeln!(
        f,
        "  hosts lost the content of {}: {} told, {} given up, {} not listed; salvage has {} of them",
        plural(site.lost_blocks, "block"),
        count(site.lost_blocks_told),
        count(site.lost_blocks_given_up),
        count(site.lost_blocks_not_listed),
        count(site.salvaged_blocks),
    )?;
    writeln!(
        f,
        "  the resync sent {}; {} ({}) differed at the return, and {} of hosts' writes came meanwhile",
        bytes(site.copied_bytes),
        plural(site.differing_blocks, "block"),
        bytes(site.differing_bytes),
        bytes(site.written_bytes),
    )
}

fn pace(f: &mut Formatter<'_>, document: &Document) -> fmt::Result {
    let (pace, full, pacing) = (&document.pace, &document.journal_full, &document.pacing);
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
    if pacing.requests > 0 {
        writeln!(
            f,
            "pacing cost {}: {} delayed, the longest by {}",
            duration(pacing.lost_ns),
            plural(pacing.requests, "write"),
            duration(pacing.longest_ns),
        )?;
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
        "\nchecked {} with {}, {}, and {} on each device",
        plural(v.reads, "read"),
        plural(v.read_sectors, "sector"),
        plural(v.stamps, "stamp"),
        plural(v.written_sectors, "written sector"),
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
