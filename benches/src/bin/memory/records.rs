//! Bytes of resident memory for each place of a journal that is not used, for each record in a queue,
//! and for each record told and not received.
//!
//! Each row is measured in a process of its own, as the growth of what is resident. Blocks have 4 KiB,
//! volumes and logs are nowhere, and the steps are taken by hand: the writer's records are committed
//! 1,024 at a time or each by itself, stay in R and L, and are told or shipped to a second device, which
//! does not reflect them. A device takes some memory once, its cells and buffers for example: that is
//! there before records are counted. Fails if a bound is exceeded.
//!
//! Told records are counted where an index has just doubled, too, and by the debt alone where entries
//! have come round to all of the room of their list: an entry takes no more than there.

use crate::BLOCK;
use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::table::prototype::Debt;
use afterimage::internal::unit::{Block, Stamp};
use afterimage_benches::resident;
use afterimage_benches::split::Split;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// Bytes for a place that is not used, for a record in a queue, its place's bytes among them, and for one
/// told.
const PLACE_BOUND: f64 = 8.0;
const RECORD_BOUND: f64 = 128.0;
const TOLD_BOUND: f64 = 64.0;
/// Records of a commit.
const COMMIT: u64 = 1024;
/// Records before those that are counted, all of one block: a device has made each of its cells then
/// ([`Settings::unlogged_records_max`]), and whatever else it needs once. A quick run has no time for so
/// many, and nothing holds its figures against a bound.
fn before(records: u64) -> u64 {
    if records < 100_000 { COMMIT } else { 72 * COMMIT }
}
/// Bytes of a device with journals of 64 GiB.
const IDLE_BOUND: u64 = 300_000_000;

/// The parent starts a child for each row: `idle BYTES`, and `shipped RECORDS`, `singly RECORDS`,
/// `told RECORDS` or `turned RECORDS`.
pub fn main(quick: bool, arguments: &[String]) {
    if let [row, number] = arguments {
        let number = number.parse().expect("a number");
        let good = match row.as_str() {
            "idle" => idle(number),
            "told" => pending(number, COMMIT, true),
            "turned" => turned(number),
            "singly" => pending(number, 1, false),
            _ => pending(number, COMMIT, false),
        };
        std::process::exit(i32::from(!good));
    }
    let journals = [64 * MIB, 4096 * MIB, 65_536 * MIB].map(|bytes| ("idle", bytes));
    let counts = if quick { [2_000, 20_000] } else { [100_000, 1_000_000] };
    let rows = ["shipped", "singly", "told"];
    let records = counts.into_iter().flat_map(|n| rows.map(|row| (row, n)));
    // A little more than a power of two: whatever doubles has just done so.
    let doubled = counts.map(|n: u64| n.next_power_of_two() + n / 1000);
    let doubled = doubled.into_iter().flat_map(|n| ["told", "turned"].map(|row| (row, n)));
    let program = std::env::current_exe().expect("this program");
    let mut good = true;
    for (row, number) in journals.into_iter().chain(records).chain(doubled) {
        let mut child = Command::new(&program);
        let child = child.args(["--records", row, &number.to_string()]);
        good &= child.status().expect("this program again").success() || quick;
    }
    std::process::exit(i32::from(!good));
}

/// The directory of a device, removed at the end.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("removed");
    }
}

fn device(
    id: u64,
    journal_bytes: u64,
    blocks: u64,
    settings: Settings,
    clock: &Arc<dyn Clock>,
) -> (Dir, Arc<Device>) {
    let name = format!("afterimage-records-{}-{id}", std::process::id());
    let dir = Dir(std::env::temp_dir().join(name));
    let storage = Split::create(dir.0.clone(), &[]).expect("a directory").without_volumes();
    let storage = Arc::new(storage);
    let volumes = vec![VolumeSpec { id: 0, bytes: blocks * BLOCK }];
    let geometry = Geometry { journal_bytes, ..Geometry::new(1, id, volumes) };
    Device::create(&*storage, &geometry, id == 1).expect("a device");
    let device = Device::open(storage.clone(), clock.clone(), settings).expect("a device");
    storage.forget_logs(7);
    (dir, device)
}

fn grown(before: u64) -> f64 {
    resident().saturating_sub(before) as f64
}

/// Whether `bytes` are within `bound`, and says so.
fn within(what: &str, bytes: f64, bound: f64) -> bool {
    println!("{what}: {bytes:.1} bytes, bound {bound}");
    bytes <= bound
}

fn idle(journal_bytes: u64) -> bool {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let mut kept = Vec::new();
    // The program's own pages come with the first, what any device has with the second.
    let sizes = [8 * MIB, 8 * MIB, journal_bytes];
    let [_, [small, few], [large, many]] = sizes.map(|bytes| {
        let before = resident();
        let device = device(kept.len() as u64 + 1, bytes, 1 << 20, Settings::default(), &clock);
        let grown = grown(before);
        let places = 2.0 * device.1.geometry().places() as f64;
        kept.push(device);
        [grown, places]
    });
    let place = (large - small).max(0.0) / (many - few);
    let (mib, all) = (journal_bytes / MIB, resident());
    println!("idle, journals of {mib} MiB: {large} bytes resident of {all} of the process");
    within("  a place that is not used", place, PLACE_BOUND) && all < IDLE_BOUND
}

/// The debt of a device by itself, as it is after so many entries were told, and after as many more
/// were told as were received meanwhile, three times over.
fn turned(entries: u64) -> bool {
    const PIECE: u64 = 512;
    let stamp = |time| Stamp { epoch: 1, time, sequence: 0 };
    let block = |n: u64| Block { volume: 0, number: n * 2_654_435_761 % (2 * entries) };
    let before = resident();
    let (mut debt, mut told) = (Debt::default(), 0);
    let mut good = true;
    for (what, until) in [("told", entries), ("told, after three turns", 4 * entries)] {
        while told < until {
            let arrived = stamp((told + PIECE).saturating_sub(entries));
            debt.pay(arrived);
            let piece: Vec<_> =
                (told + 1..=told + PIECE).map(|n| (block(n).into(), stamp(n))).collect();
            debt.extend(stamp(told), &piece, arrived, u64::MAX).expect("in order");
            told += PIECE;
        }
        let bytes = grown(before) / debt.len() as f64;
        good &= within(&format!("an entry of {} {what}", debt.len()), bytes, TOLD_BOUND);
    }
    good
}

/// Records of the writer, committed `each` at a time, and then told or shipped, as many at a time.
fn pending(records: u64, each: u64, is_told: bool) -> bool {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let first = before(records);
    // A record by itself takes a page beside its block.
    let log_bytes = if each == 1 { 2 * BLOCK } else { BLOCK };
    let journal_bytes =
        ((first + records) * log_bytes * 5 / 4).max(64 * MIB).next_multiple_of(BLOCK);
    let usual = Settings { suspend_from_percent: 0, ..Settings::default() };
    let ship_bytes_max = if each == 1 { 1 } else { usual.ship_bytes_max };
    let shipping = Settings { ship_bytes_max, ..usual };
    let told =
        Settings { told_records_max: if is_told { u64::MAX } else { 0 }, ..shipping.clone() };
    let (_a, a) = device(1, journal_bytes, first + records, shipping, &clock);
    let (_b, b) = device(2, journal_bytes, first + records, told, &clock);
    a.resume_alone().expect("A serves");
    let host = a.session().expect("A serves");
    // A place's bucket is the record's once the place is used.
    let unused = a.geometry().places().next_power_of_two() - records;
    let unused = PLACE_BOUND * unused as f64;
    let record = |bytes: f64| (bytes - unused).max(0.0) / records as f64;
    let named = |whose: &str| match each {
        1 => format!("{whose} record of {records}, each committed by itself"),
        _ => format!("{whose} record of {records}"),
    };

    let mut before = 0;
    for n in 0..first + records {
        if n == first {
            before = resident();
        }
        // Then every block once, in an order that is none: 2,654,435,761 is a prime.
        let block = n.saturating_sub(first) * 2_654_435_761 % records;
        host.write(0, block * BLOCK, &[7; BLOCK as usize]).expect("written");
        if n % (if n < first { COMMIT } else { each }) == each - 1 || n + 1 == first + records {
            a.step_commit().expect("committed");
            a.step_sequence();
        }
    }
    assert_eq!(a.status().backlog_records, first + records);
    let mut good = true;
    if !is_told {
        let bytes = record(grown(before));
        good &= within(&named("an own"), bytes, RECORD_BOUND);
    }

    let (end_a, end_b) = memory_link(Line::default(), clock);
    a.connect(Arc::new(end_a)).expect("connected");
    b.connect(Arc::new(end_b)).expect("connected");
    let step = |device: &Device| device.step_control().expect("a step");
    before = resident();
    while step(&a) | step(&b) {}
    if is_told {
        let status = b.status();
        assert_eq!(status.told_blocks, records, "{status:?}");
        let bytes = grown(before) / records as f64;
        return within(&format!("a record told, of {records}"), bytes, TOLD_BOUND) && good;
    }
    let (mut received, mut idle) = (0, 0);
    while idle < 3 {
        let moved = a.step_ship().expect("shipped");
        // Records that are shipped together are one batch there.
        let new = b.step_receive().expect("received") as u64;
        if received < first && received + new >= first {
            before = resident();
        }
        received += new;
        idle = if step(&a) | step(&b) | (moved > 0) | (new > 0) { 0 } else { idle + 1 };
    }
    let status = b.status();
    assert_eq!(status.unreflected_records, first + records, "{status:?}");
    let bytes = record(grown(before));
    within(&named("a received"), bytes, RECORD_BOUND) && good
}
