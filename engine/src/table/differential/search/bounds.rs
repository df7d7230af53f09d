//! All rules in force: bounds that are searched to their end, and random walks beyond them.

use super::{Bounds, Options, PLAIN, explore, walk_of};

const VOLATILE: Options = Options { volatile: true, ..PLAIN };
const IMPLIED: Options = Options { implied: true, ..PLAIN };
const SIDE: Options = Options { side: true, ..PLAIN };
const ALWAYS: Options = Options { always: true, ..PLAIN };
const P6: Options = Options { p6: true, ..PLAIN };
const TELLS: Options = Options { tells: true, ..PLAIN };
const SUMS: Options = Options { sums: true, ..PLAIN };
const SLOW: Options = Options { slow: true, ..PLAIN };
const EVERY: Options = Options { volatile: true, implied: true, side: true, slow: true, ..PLAIN };

/// Bounds, options, and how many states there are.
type Row = (Bounds, Options, usize);

const fn of(b: [u8; 8]) -> Bounds {
    Bounds::of(b)
}

const fn withdrawn(b: [u8; 8], withdrawals: u8) -> Bounds {
    Bounds { withdrawals, ..Bounds::of(b) }
}

const fn checkpointed(b: [u8; 8]) -> Bounds {
    Bounds { checkpoints: 1, ..Bounds::of(b) }
}

/// Each is searched to its end, and has so many states.
fn search(rows: &[Row]) {
    let mut unlike = Vec::new();
    for &(bounds, options, states) in rows {
        let started = std::time::Instant::now();
        match explore(bounds, options) {
            Ok(found) => {
                println!("{found} states, {:?}: {bounds:?} {options:?}", started.elapsed());
                unlike.extend((found != states).then_some((bounds, options, states, found)));
            }
            Err(violation) => panic!("{bounds:?} {options:?}: {violation}"),
        }
    }
    assert!(unlike.is_empty(), "so many states are asserted, and found: {unlike:#?}");
}

#[test]
fn small_bounds_hold() {
    search(&[
        (of([1, 2, 0, 1, 1, 0, 0, 0]), PLAIN, 2_784),
        (of([1, 2, 1, 1, 1, 0, 0, 0]), PLAIN, 10_633),
        (of([1, 2, 0, 1, 1, 1, 0, 0]), PLAIN, 8_099),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), PLAIN, 8_537),
        (of([2, 3, 0, 1, 1, 0, 0, 0]), PLAIN, 32_076),
        (of([1, 2, 0, 0, 1, 0, 0, 1]), PLAIN, 11_634),
        (withdrawn([1, 2, 0, 1, 1, 0, 0, 0], 1), PLAIN, 4_749),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), VOLATILE, 12_721),
        (checkpointed([1, 2, 0, 1, 1, 0, 1, 0]), IMPLIED, 23_074),
        (of([1, 2, 0, 1, 0, 0, 1, 1]), ALWAYS, 9_760),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), SLOW, 9_823),
        (of([1, 2, 0, 1, 1, 0, 0, 0]), TELLS, 6_519),
        (of([1, 2, 0, 1, 1, 1, 0, 0]), TELLS, 31_628),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), TELLS, 31_431),
        (of([1, 2, 0, 1, 1, 0, 0, 0]), SUMS, 3_189),
        (of([1, 2, 0, 1, 1, 1, 0, 0]), SUMS, 9_070),
    ]);
}

/// The searches beyond what `cargo test` has time for:
/// `cargo test -p afterimage --profile sim --lib differential -- --ignored --nocapture`.
#[test]
#[ignore = "a minute, optimised: `.ci/run weaken` runs it"]
fn larger_bounds_hold() {
    search(&[
        (of([1, 2, 1, 1, 1, 0, 1, 0]), PLAIN, 31_106),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), PLAIN, 82_987),
        (of([1, 2, 1, 3, 1, 0, 0, 0]), PLAIN, 61_152),
        (of([2, 3, 0, 2, 1, 0, 0, 0]), PLAIN, 119_871),
        (of([2, 3, 0, 1, 1, 1, 0, 0]), PLAIN, 101_096),
        (of([1, 3, 1, 2, 1, 0, 0, 0]), PLAIN, 114_308),
        (of([2, 3, 1, 2, 1, 0, 0, 0]), PLAIN, 578_849),
        (of([1, 2, 1, 1, 1, 0, 1, 1]), PLAIN, 801_230),
        (of([2, 3, 0, 1, 2, 0, 0, 0]), P6, 169_740),
        (withdrawn([1, 2, 0, 2, 1, 0, 0, 0], 2), PLAIN, 45_112),
        (withdrawn([1, 2, 0, 2, 1, 0, 1, 0], 1), PLAIN, 74_507),
        (withdrawn([1, 2, 0, 1, 1, 0, 0, 1], 1), PLAIN, 142_159),
        (of([1, 2, 0, 2, 1, 0, 1, 0]), VOLATILE, 39_617),
        (of([2, 3, 0, 1, 1, 0, 1, 0]), VOLATILE, 173_234),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), VOLATILE, 106_817),
        (checkpointed([1, 2, 0, 2, 1, 0, 1, 0]), IMPLIED, 73_837),
        (of([2, 3, 0, 1, 1, 0, 1, 0]), IMPLIED, 135_856),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), IMPLIED, 86_693),
        (of([2, 3, 0, 0, 1, 0, 0, 1]), SIDE, 172_357),
        (of([2, 3, 0, 2, 0, 0, 1, 0]), ALWAYS, 33_716),
        (of([2, 3, 1, 2, 0, 1, 0, 0]), ALWAYS, 139_260),
        (of([2, 3, 0, 2, 1, 0, 0, 0]), SLOW, 167_518),
        (of([1, 3, 1, 2, 1, 0, 0, 0]), SLOW, 154_862),
        (of([1, 2, 0, 2, 1, 1, 1, 0]), SLOW, 75_087),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), SLOW, 106_341),
        (withdrawn([1, 2, 0, 1, 1, 0, 1, 0], 1), EVERY, 36_638),
        (of([1, 2, 1, 2, 1, 0, 0, 0]), TELLS, 73_523),
        (of([2, 3, 0, 1, 1, 0, 0, 0]), TELLS, 162_602),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), TELLS, 266_546),
        (withdrawn([1, 2, 0, 1, 1, 0, 1, 0], 1), TELLS, 53_156),
        (of([1, 2, 1, 2, 1, 0, 0, 0]), SUMS, 35_173),
        (of([2, 3, 0, 1, 1, 0, 0, 0]), SUMS, 56_775),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), SUMS, 93_183),
        (of([1, 2, 0, 2, 1, 0, 1, 0]), SUMS, 29_256),
    ]);
}

/// `LADDER_WALKS` says how many, if it is set.
#[test]
fn walks_hold() {
    let walks = std::env::var("LADDER_WALKS").map_or(1500, |n| n.parse().expect("a number"));
    let mut steps = 0;
    for seed in 1..=walks {
        match walk_of(seed) {
            Ok(taken) => steps += taken,
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    println!("{walks} walks, {steps} steps");
    assert!(steps as u64 > 50 * walks, "only {steps} steps");
}
