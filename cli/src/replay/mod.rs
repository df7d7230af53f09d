//! `afterimage replay`: a real trace against a pair of devices, through takeovers, with proof.
//!
//! `pair` makes the devices and `plan` cuts the trace into pieces; `host` issues them, moves
//! from device to device, and tells `oracle` of everything that it does and sees. The payload
//! (`pattern`) names its write, so the oracle knows at once whether an answer can be right. At
//! the end `verify` compares the volumes. `meter` keeps the figures, `json` and `report`
//! give them to programs and to people, `hlog` to HdrHistogram's tools. `requests` tells outside
//! programs what the hosts did, as it happens, and `judge` what must have survived a crash.

mod hlog;
mod host;
pub mod json;
pub mod judge;
mod meter;
pub mod oracle;
mod pair;
pub mod pattern;
mod plan;
mod progress;
mod report;
pub mod requests;
mod stall;
mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use afterimage::internal::storage::{Directory, Storage};
use afterimage::internal::unit::Mode;
use afterimage::salvage;
use host::{Back, Down, Host, Interruptions, LostSite, Manner, Move, Refused};
use json::{
    DeviceAtRest, Document, Latencies, Latency, Lost, LostSiteInfo, OutageInfo, Pace,
    RefusedTakeover, RequestCount, Requests, TakeoverInfo, TraceInfo, Verification,
};
use meter::{Count, Meter, Waits};
use oracle::{Findings, Oracle};
use pair::Pair;
use plan::Plan;
use requests::{Event, Listener, NAMES, Nobody, RequestLog};
use verify::AtRest;

use crate::args::{DurabilityArg, ReplayArgs, Speed, TakeoverAt};
use crate::exit::{Exit, Failure};
use crate::output::shown;
use crate::results::{self, Target};
use crate::trace::{self, Input, Options, Trace};
use crate::words::duration;

/// The hosts' time when a trace that does not know its own begins: 2020-01-01.
const SOME_TIME_NS: u64 = 1_577_836_800_000_000_000;

/// Replays, verifies, and reports. A check that did not hold is [`Exit::NotHeld`], no
/// error.
///
/// # Errors
/// [`Exit::Usage`] and [`Exit::BadTrace`] before anything is written; [`Exit::Device`],
/// [`Exit::Refused`], [`Exit::Output`].
pub fn run(args: &ReplayArgs) -> Result<Exit, Failure> {
    let options = Options {
        format: args.format,
        skip_bad_rows: args.skip_bad_rows,
        limit_rows: args.limit_rows,
    };
    if args.traces.iter().filter(|input| **input == Input::Stdin).count() > 1 {
        let story = "- is given twice: the standard input can be read only once";
        return Err(Failure::new(Exit::Usage, story));
    }
    results::refuse_clashes(&named_results(args), &args.traces, &kept(args))?;
    refuse_existing(&kept(args))?;
    let trace = trace::read(&args.traces, &options)?;
    trace.warnings.iter().for_each(|warning| eprintln!("afterimage: warning: {warning}"));
    check(args, &trace)?;
    say_duration(args, &trace);
    // Made first: no replay should end in a result that cannot be written.
    let json = created(&args.json, json::Output::create)?;
    let hlog = created(&args.hlog, hlog::Hlog::create)?;
    let request_log = created(&args.request_log, RequestLog::append)?.map(Arc::new);
    let listener: Arc<dyn Listener> = match &request_log {
        None => Arc::new(Nobody),
        Some(log) => log.clone(),
    };
    let run = run_name(args);
    listener.note(&begun(args, run));
    let mut pair = Pair::new(args, &trace, u128::from(run), listener)?;
    let plan = Plan::new(&trace, args.passes);
    let began = pair.clock.monotonic();
    let mut host = host(args, &trace, &plan, &mut pair, run, Meter::new(hlog, began))?;
    host.replay().map_err(|failure| explained(&host, failure))?;
    let replayed = host.pair.clock.monotonic();
    host.drain().map_err(|failure| explained(&host, failure))?;
    let drained = host.pair.clock.monotonic();
    let outages = outages(&host, began);
    let Host { mut oracle, mut meter, moves, refused, tenths, mut lost_site, .. } = host;
    let mode = pair.status()[0].mode;
    pair.close()?;
    oracle.check_stamps_unique();
    if let Some(site) = &mut lost_site {
        complete(&pair, &mut oracle, site)?;
    }
    let at_rest = verify::verify(&pair, &mut oracle)?;
    let hlog_written = meter.finish();
    let held = oracle.findings().count() == 0;
    let directory = if held && !args.keep { None } else { pair.keep() };

    let document = Document {
        version: json::VERSION,
        program: concat!("afterimage ", env!("CARGO_PKG_VERSION")).into(),
        held,
        trace: trace_info(args, &trace),
        settings: json::Settings {
            directory: directory.map(|path| path.display().to_string()),
            ..settings(args, &trace, run)
        },
        requests: requests(&meter),
        latency_ns: Latencies::from(|metric| Latency::of(meter.total(metric))),
        takeovers: takeovers(&pair, &moves, began),
        refused_takeovers: refused_takeovers(&refused, began),
        outages,
        lost_site: lost_site.map(|site| lost_site_info(&site, mode, began)),
        journal_full: lost(meter.journal_full),
        pacing: lost(meter.pacing),
        pace: Pace {
            replay_ns: replayed - began,
            drain_ns: drained - replayed,
            requests_per_s: per_second(meter.counts.total().requests, replayed - began),
            bytes_per_s: per_second(moved_bytes(&meter), replayed - began),
            tenths: rates(&plan, &tenths),
        },
        verification: verification(&oracle, &at_rest),
    };
    show(args, &document)?;
    if let Some((log, target)) = request_log.zip(args.request_log.as_ref()) {
        written(target, log.finish())?;
    }
    if let Some(target) = &args.hlog {
        written(target, hlog_written)?;
    }
    // Last: where it stands, nothing else failed.
    if let Some((output, target)) = json.zip(args.json.as_ref()) {
        written(target, output.finish(&document))?;
    }
    Ok(if held { Exit::Held } else { Exit::NotHeld })
}

/// The results asked for in files, each with its flag.
fn named_results(args: &ReplayArgs) -> Vec<(&'static str, &Target)> {
    let all =
        [("--json", &args.json), ("--hlog", &args.hlog), ("--request-log", &args.request_log)];
    all.into_iter().filter_map(|(flag, target)| Some((flag, target.as_ref()?))).collect()
}

/// The directories in which devices will be left.
fn kept(args: &ReplayArgs) -> Vec<PathBuf> {
    let parent = args.dir.iter().filter(|_| args.keep);
    parent.flat_map(|parent| NAMES.map(|name| parent.join(name))).collect()
}

/// Refuses directories that hold a device already, before a result is made or the other device is.
fn refuse_existing(directories: &[PathBuf]) -> Result<(), Failure> {
    for path in directories {
        let found = Directory::open_read_only(path).and_then(|there| there.files());
        // A directory that cannot be listed cannot be made either, and then there is more to tell.
        if let Some(file) = found.unwrap_or_default().first() {
            let path = path.display();
            let story = format!("making the device {path}: {path} holds a device already: {file}");
            return Err(Failure::new(Exit::Refused, story));
        }
    }
    Ok(())
}

/// The file for a result, if one is asked for.
fn created<T>(
    target: &Option<Target>,
    create: impl FnOnce(&Target) -> std::io::Result<T>,
) -> Result<Option<T>, Failure> {
    let made = target
        .as_ref()
        .map(|target| create(target).map_err(|error| Failure::output(target, &error)));
    made.transpose()
}

fn written(target: &Target, outcome: std::io::Result<()>) -> Result<(), Failure> {
    match target {
        Target::Stdout => shown(outcome),
        Target::Path(_) => outcome.map_err(|error| Failure::output(target, &error)),
    }
}

/// The hosts of a replay on `pair`.
fn host<'a>(
    args: &ReplayArgs,
    trace: &Trace,
    plan: &'a Plan<'a>,
    pair: &'a mut Pair,
    run: u64,
    meter: Meter,
) -> Result<Host<'a>, Failure> {
    let manner = Manner {
        depth: args.depth() as usize,
        speed: args.speed,
        starts_at: trace.has_time.then(|| trace.start_unix_ns.unwrap_or(SOME_TIME_NS)),
        skew_ns: args.skew,
        strict: args.durability == DurabilityArg::Strict,
    };
    let oracle = Oracle::new(run, pair.device(0).limits().block_size);
    let interruptions = interruptions(args, plan)?;
    let takeovers = plan.takeovers(&args.takeover_at);
    Host::new(pair, plan, takeovers, interruptions, manner, oracle, meter)
}

/// When the line is down, and when a site is lost.
fn interruptions(args: &ReplayArgs, plan: &Plan<'_>) -> Result<Interruptions, Failure> {
    let planned = || {
        let outages = plan.outages(&args.outage)?;
        let absence = args.lose_site.map(|lose| plan.absence(lose)).transpose()?;
        let absence = absence.into_iter().flatten().collect();
        Ok(Interruptions { outages, absence, lose_in: args.lose_in.map(Into::into) })
    };
    planned().map_err(|story: String| Failure::new(Exit::Usage, story))
}

/// A lost connection explains whatever followed from it.
fn explained(host: &Host<'_>, failure: Failure) -> Failure {
    host.pair.disconnected().unwrap_or(failure)
}

/// Compares what both devices have salvaged with what the hosts lost.
fn complete(pair: &Pair, oracle: &mut Oracle, site: &mut LostSite) -> Result<(), Failure> {
    for (storage, name) in pair.storages.iter().zip(NAMES) {
        let failed = |e| Failure::device(format_args!("reading the salvage of device {name}"), &e);
        for file in salvage::list(&**storage).map_err(failed)? {
            let read = salvage::read(&**storage, file.number, |entry, data| {
                oracle.salvaged(&mut site.account, entry.block, entry.count, data);
                Ok(())
            });
            read.map_err(failed)?;
        }
    }
    oracle.close_account(&mut site.account);
    Ok(())
}

fn begun(args: &ReplayArgs, run: u64) -> Event {
    Event::Begun { run, block_size: u32::try_from(args.block_size).unwrap_or(u32::MAX) }
}

/// A replay, as `args` ask for it, of `trace` on two storages without files, to the clean close of
/// both devices, telling `listener` of everything; for tests of what lies below. The sectors that
/// any read showed are checked; the volumes are not.
///
/// # Errors
/// As [`run`], but for the output.
pub fn rehearse(
    args: &ReplayArgs,
    trace: &Trace,
    storages: [Arc<dyn Storage>; 2],
    listener: Arc<dyn Listener>,
) -> Result<Findings, Failure> {
    check(args, trace)?;
    let run = run_name(args);
    listener.note(&begun(args, run));
    let mut pair = Pair::on(storages, args, trace, u128::from(run), listener)?;
    let plan = Plan::new(trace, args.passes);
    let meter = Meter::new(None, pair.clock.monotonic());
    let mut host = host(args, trace, &plan, &mut pair, run, meter)?;
    host.replay().map_err(|failure| explained(&host, failure))?;
    host.drain().map_err(|failure| explained(&host, failure))?;
    let Host { mut oracle, .. } = host;
    pair.close()?;
    oracle.check_stamps_unique();
    Ok(oracle.into_findings())
}

/// Says how long the trace's own pace will take, if that is what was asked for.
fn say_duration(args: &ReplayArgs, trace: &Trace) {
    let Speed::Times(times) = args.speed else { return };
    let plan = Plan::new(trace, args.passes);
    let span = plan.row(plan.len() - 1).time_ns;
    let planned = duration((span as f64 / times) as u64);
    // Without a standard error nobody waits for it.
    let _ = writeln!(
        std::io::stderr(),
        "at {times} times the trace's own pace the replay takes {planned}"
    );
}

/// Refuses what only the trace can tell to be impossible.
fn check(args: &ReplayArgs, trace: &Trace) -> Result<(), Failure> {
    if trace.rows.is_empty() {
        let story = format!("{}: the trace has no requests to replay", files(args).join(" "));
        return Err(Failure::new(Exit::BadTrace, story));
    }
    let takeovers = args.takeover_at.iter().map(|&point| ("--takeover-at", point));
    let outages = args.outage.iter().flat_map(|at| [at.from, at.to]).map(|p| ("--outage", p));
    let absence = args.lose_site.iter().flat_map(|lose| [Some(lose.at), lose.back]).flatten();
    let absence = absence.map(|point| ("--lose-site", point));
    let mut times =
        takeovers.chain(outages).chain(absence).filter_map(|(flag, point)| match point {
            TakeoverAt::Time(time) => Some((flag, time)),
            TakeoverAt::Percent(_) => None,
        });
    let plan = Plan::new(trace, args.passes);
    if !trace.has_time {
        let flag = match (args.speed, times.next(), args.skew) {
            (Speed::Times(_), ..) => "--speed".into(),
            (_, Some((flag, _)), _) => format!("{flag} TIME"),
            (_, _, 1.. | ..=-1) => "--skew".into(),
            _ => return interruptions(args, &plan).map(drop),
        };
        let story =
            format!("{flag} needs a trace with times; this one ({}) has none", trace.format);
        return Err(Failure::new(Exit::Usage, story));
    }
    let end = plan.row(plan.len() - 1).time_ns;
    if let Some((flag, beyond)) = times.find(|&(_, time)| time > end) {
        let story = format!(
            "{flag} {}: the last request comes {} after the first; at the end is 100%",
            duration(beyond),
            duration(end),
        );
        return Err(Failure::new(Exit::Usage, story));
    }
    interruptions(args, &plan).map(drop)
}

/// The name of this run, in every payload.
fn run_name(args: &ReplayArgs) -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let seed = args.seed.unwrap_or_else(now);
    xxhash_rust::xxh3::xxh3_64(&seed.to_le_bytes()) | 1
}

/// Shows the table where no result is in its way.
fn show(args: &ReplayArgs, document: &Document) -> Result<(), Failure> {
    let table = report::Table(document);
    if named_results(args).iter().any(|(_, target)| **target == Target::Stdout) {
        // Without a standard error nobody waits for the table.
        let _ = write!(std::io::stderr(), "{table}");
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    shown(write!(out, "{table}").and_then(|()| out.flush()))
}

/// The trace's files, as named.
fn files(args: &ReplayArgs) -> Vec<String> {
    let file = |input: &Input| match input {
        Input::Stdin => "-".to_string(),
        Input::Path(path) => path.display().to_string(),
    };
    args.traces.iter().map(file).collect()
}

fn trace_info(args: &ReplayArgs, trace: &Trace) -> TraceInfo {
    TraceInfo {
        files: files(args),
        format: trace.format.to_string(),
        rows: trace.rows.len() as u64,
        rows_read: trace.rows_read,
        bad_rows: trace.bad_rows,
        empty_rows: trace.empty_rows,
        other_rows: trace.other_rows,
        rounded_rows: trace.rounded_rows,
        sections: trace.sections,
        out_of_order_rows: trace.out_of_order_rows,
        largest_step_back_ns: trace.largest_step_back_ns,
        warnings: trace.warnings.clone(),
        volumes: trace.volumes.len() as u64,
        volume_bytes: trace.volumes.iter().map(|volume| volume.bytes).sum(),
        span_ns: trace.rows.last().map_or(0, |row| row.time_ns),
        has_time: trace.has_time,
        start_unix_ns: trace.start_unix_ns,
    }
}

fn settings(args: &ReplayArgs, trace: &Trace, run: u64) -> json::Settings {
    json::Settings {
        passes: args.passes,
        depth: args.depth(),
        speed: match args.speed {
            Speed::Max => None,
            Speed::Times(times) => Some(times),
        },
        block_bytes: args.block_size,
        journal_bytes: plan::journal_bytes(args, trace),
        link_bytes_per_s: args.link_rate,
        link_delay_ns: args.link_delay,
        skew_ns: args.skew,
        journal_full: format!("{:?}", args.journal_full).to_lowercase(),
        pacing_max_ns: args.pacing_max,
        durability: format!("{:?}", args.durability).to_lowercase(),
        memory: args.memory,
        run: format!("{run:016x}"),
        directory: None,
    }
}

fn lost(waits: Waits) -> Lost {
    Lost { requests: waits.requests, longest_ns: waits.longest_ns, lost_ns: waits.lost_ns }
}

fn requests(meter: &Meter) -> Requests {
    let of = |Count { requests, bytes }| RequestCount { requests, bytes };
    let counts = &meter.counts;
    Requests {
        read: of(counts.read),
        write: of(counts.write),
        discard: of(counts.discard),
        zero: of(counts.zero),
        flush: of(counts.flush),
        total: of(counts.total()),
    }
}

/// Bytes of requests that carry data.
fn moved_bytes(meter: &Meter) -> u64 {
    meter.counts.read.bytes + meter.counts.write.bytes
}

fn takeovers(pair: &Pair, moves: &[Move], began: u64) -> Vec<TakeoverInfo> {
    let info = |at: usize| {
        let Move { to, takeover, .. } = moves[at];
        let requested_at = takeover.requested_at;
        let since = |moment: u64| moment.saturating_sub(requested_at);
        let caught_up = match takeover.owed_blocks {
            0 => Some(takeover.ready_at),
            _ => pair.watches[1 - to].acknowledged_at(moves[at].caught_up),
        };
        TakeoverInfo {
            to: NAMES[to].into(),
            before_row: moves[at].row,
            at_ns: requested_at - began,
            epoch: takeover.epoch,
            backlog_records: moves[at].backlog_records,
            backlog_blocks: takeover.owed_blocks,
            backlog_bytes: moves[at].backlog_bytes,
            reissued: moves[at].reissued,
            ready_ns: since(takeover.ready_at),
            first_remote_read_ns: moves[at].first_remote_read_at.map(since),
            caught_up_ns: caught_up.map(since),
        }
    };
    (0..moves.len()).map(info).collect()
}

fn refused_takeovers(refused: &[Refused], began: u64) -> Vec<RefusedTakeover> {
    let info = |Refused { to, row, at, why }: &Refused| RefusedTakeover {
        to: NAMES[*to].into(),
        before_row: *row,
        at_ns: at.saturating_sub(began),
        why: why.to_string(),
    };
    refused.iter().map(info).collect()
}

fn outages(host: &Host<'_>, began: u64) -> Vec<OutageInfo> {
    let info = |down: &Down| {
        let back: &Back = down.end.as_ref()?;
        Some(OutageInfo {
            before_row: down.row,
            back_before_row: back.row,
            at_ns: down.began_at - began,
            back_at_ns: back.at - began,
            early: back.early,
            noticed_ns: down.noticed_at.map(|at| at.saturating_sub(down.began_at)),
            backlog_records: back.backlog_records,
            backlog_bytes: back.backlog_bytes,
            drained_ns: host.caught_up_at(back).map(|at| at.saturating_sub(back.at)),
            waited: lost(down.full),
        })
    };
    host.downs.iter().filter_map(info).collect()
}

fn lost_site_info(site: &LostSite, mode: Mode, began: u64) -> LostSiteInfo {
    let LostSite { device, row, at, mode: lost_mode, ref forced, epoch, ref account, .. } = *site;
    let back = site.back.as_ref().expect("it returns before the end");
    let (sheet, counts) = (&forced.sheet, account.counts);
    LostSiteInfo {
        device: NAMES[device].into(),
        before_row: row,
        back_before_row: back.row,
        at_ns: at - began,
        back_at_ns: back.at - began,
        epoch,
        image: format!("{:?}", sheet.image).to_lowercase(),
        lost_mode: format!("{lost_mode:?}").to_lowercase(),
        mode: format!("{:?}", sheet.mode).to_lowercase(),
        mode_at_end: format!("{mode:?}").to_lowercase(),
        force_ns: forced.force_ns,
        opening_ns: forced.opening_ns,
        received: sheet.received.to_string(),
        told_records: sheet.told.len() as u64,
        told_blocks: sheet.told_blocks.iter().map(|(run, _)| run.count()).sum(),
        given_up_records: sheet.given_up.len() as u64,
        others_after_ns: sheet.others_after,
        lost_blocks: counts.lost,
        lost_blocks_told: counts.told,
        lost_blocks_given_up: counts.given_up,
        lost_blocks_not_listed: counts.others,
        salvaged_blocks: counts.salvaged,
        salvaged_not_lost_blocks: counts.not_lost,
        differing_blocks: back.differing_blocks,
        differing_bytes: back.differing_bytes,
        written_bytes: back.written_bytes,
        copied_bytes: back.copied_bytes.unwrap_or(0),
    }
}

fn per_second(number: u64, ns: u64) -> f64 {
    number as f64 * 1e9 / ns.max(1) as f64
}

/// Requests a second by tenths, pass by pass; none for traces too short to have tenths.
fn rates(plan: &Plan<'_>, began: &[u64]) -> Vec<Vec<f64>> {
    let rows = plan.rows_per_pass();
    if rows < 10 {
        return Vec::new();
    }
    let length = |tenth: u64| (tenth + 1) * rows / 10 - tenth * rows / 10;
    let rate = |(at, pair): (usize, &[u64])| per_second(length(at as u64 % 10), pair[1] - pair[0]);
    let rates: Vec<f64> = began.windows(2).enumerate().map(rate).collect();
    rates.chunks(10).map(<[f64]>::to_vec).collect()
}

fn verification(oracle: &Oracle, at_rest: &[AtRest; 2]) -> Verification {
    let (checked, findings) = (oracle.checked(), oracle.findings());
    let device = |(at_rest, name): (&AtRest, &str)| DeviceAtRest {
        name: name.into(),
        data_sectors: at_rest.sectors,
        digest: format!("{:016x}", at_rest.digest),
    };
    let devices: Vec<DeviceAtRest> = at_rest.iter().zip(NAMES).map(device).collect();
    Verification {
        reads: checked.reads,
        read_sectors: checked.sectors,
        read_zero_sectors: checked.zero_sectors,
        stamps: checked.stamps,
        written_sectors: oracle.written().count() as u64,
        devices_equal: devices[0].digest == devices[1].digest
            && devices[0].data_sectors == devices[1].data_sectors,
        devices,
        violations: findings.count(),
        first_violations: findings.first().iter().map(ToString::to_string).collect(),
    }
}
