//! A takeover in the middle of a resync: 1 GiB is still to be copied, behind a line of 10 MiB/s whose data lane is
//! full. Once with all of it in one piece, once with blocks scattered over 64 TiB; and 10^6 of those on a line
//! without limit, for what the devices take themselves.

use super::{BLOCK, BYTE, Options, device, wait};
use afterimage::Mode;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::limits::Settings;
use afterimage::internal::link::{Lane, Line, Link, memory_link};
use afterimage_benches::figures::{Better, Figures};
use afterimage_benches::{Random, median};
use std::sync::Arc;
use std::time::Instant;

const VOLUME: u64 = 64 << 40;
const DELAY_NS: u64 = 25_000_000;
const LINE: Line = Line { rate: Some(10 << 20), delay_ns: DELAY_NS };

/// Milliseconds until the other device serves, and of its first read of a block that it is owed.
fn once(options: &Options, left: u64, scattered: bool, line: Line) -> [f64; 2] {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let settings = Settings::default();
    let journal = 64 << 20;
    let (a, a_threads) = device(&options.dir, 1, [VOLUME, journal], settings.clone(), &clock);
    let (b, b_threads) = device(&options.dir, 2, [VOLUME, journal], settings, &clock);
    let connect = |line| {
        let (end_a, end_b) = memory_link(line, clock.clone());
        a.connect(Arc::new(end_a.clone())).expect("connected");
        b.connect(Arc::new(end_b)).expect("connected");
        end_a
    };
    let first = connect(Line::default());
    wait("the peer is there", || a.status().connected && a.status().serving);
    let host = a.session().expect("A serves");
    first.cut();
    wait("the line is down", || !a.status().connected);
    a.suspend().expect("suspended");
    let (data, mut random) = (vec![BYTE; BLOCK as usize], Random::new(7));
    let mut last = 0;
    for n in 0..left + left / 64 {
        last = if scattered { random.draw() % (VOLUME / BLOCK) } else { n };
        host.write(0, last * BLOCK, &data).expect("written");
    }
    host.flush().expect("flushed");
    wait("all is in N", || a.status().unreflected_records == 0);
    let end = connect(line);
    end.hold(Lane::Data, line.rate.is_none());
    wait("the resync is in the middle", || {
        let status = a.status().differential;
        let is_in_the_middle = status.table_blocks <= left || line.rate.is_none();
        is_in_the_middle && status.flying_blocks > 0 && end.queued(Lane::Data) > 0
    });
    assert!(a.status().mode != Mode::Ordered);
    let began = Instant::now();
    let owed = b.takeover().expect("B serves").owed_blocks;
    let ready = began.elapsed().as_secs_f64() * 1e3;
    assert!(owed > left / 2, "{owed} of {left} blocks are owed");
    let host = b.session().expect("B serves");
    let mut found = vec![0; BLOCK as usize];
    let began = Instant::now();
    host.read(0, last * BLOCK, &mut found).expect("read");
    assert!(found == data);
    let read = began.elapsed().as_secs_f64() * 1e3;
    drop((a_threads, b_threads));
    for id in ["1", "2"] {
        std::fs::remove_dir_all(options.dir.join(id)).expect("removed");
    }
    [ready, read]
}

pub fn main(options: &Options, figures: &mut Figures) {
    let (rounds, left) = if options.quick { (1, 8_192) } else { (5, 1 << 18) };
    let free = Line::default();
    let cases = [
        (left, false, LINE, "in one piece"),
        (left, true, LINE, "scattered over 64 TiB"),
        (4 * left, true, free, "scattered over 64 TiB, on a line without limit"),
    ];
    for (left, scattered, line, name) in cases {
        let trip = 2.0 * line.delay_ns as f64 / 1e6;
        let found: Vec<_> = (0..rounds).map(|_| once(options, left, scattered, line)).collect();
        let [ready, read] = [0, 1].map(|k| median(&found.iter().map(|f| f[k]).collect::<Vec<_>>()));
        let mib = (left * BLOCK) >> 20;
        println!("{mib} MiB to copy, {name}; a round trip takes {trip} ms");
        // Of a long table the line's rate is part, until it is told before.
        let bound =
            if scattered { String::new() } else { format!(", bound {}", 2.0 * trip + 20.0) };
        println!("  ready after {ready:.1} ms{bound}");
        println!("  first read of an owed block: {read:.1} ms");
        figures.add(&format!("ready, {name}"), ready, "ms", Better::Less);
        figures.add(&format!("first read, {name}"), read, "ms", Better::Less);
    }
}
