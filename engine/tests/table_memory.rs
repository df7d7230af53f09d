//! Memory that a differential administration table takes: at most 64 bytes a run, nothing by the volumes' size.
#![cfg(target_os = "linux")]

mod common;

use afterimage::internal::table::differential::{Differential, Durable, Side};
use afterimage::internal::unit::{Blocks, Mode};
use common::resident;

#[test]
fn scattered_blocks_take_little() {
    const RUNS: u64 = 400_000;
    let stored = Durable { mode: Mode::Collecting, ..Durable::default() };
    let mut machine = Differential::restore(stored, Default::default(), Side::Active, [], []);
    let before = resident();
    for n in 0..RUNS {
        // No two are next to each other, over 64 TiB of blocks of 4 KiB.
        let number = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 30 & !1;
        let _ = machine.wrote(&Blocks { volume: 0, numbers: number..number + 1 });
    }
    let runs = machine.table().runs().count() as u64;
    assert!(runs > RUNS * 9 / 10, "{runs}");
    let each = resident().saturating_sub(before) as f64 / runs as f64;
    println!("{each:.1} bytes a run");
    assert!((8.0..64.0).contains(&each), "{each:.1} bytes a run");
}
