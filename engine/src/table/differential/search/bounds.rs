//! All rules in force: bounds that are searched to their end, and random walks beyond them.

use super::{Bounds, Options, PLAIN, explore, walk_of};

const VOLATILE: Options = Options { volatile: true, ..PLAIN };
const IMPLIED: Options = Options { implied: true, ..PLAIN };
const SIDE: Options = Options { side: true, ..PLAIN };
const ALWAYS: Options = Options { always: true, ..PLAIN };
const P6: Options = Options { p6: true, ..PLAIN };
const EVERY: Options = Options { volatile: true, implied: true, side: true, ..PLAIN };

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
    for &(bounds, options, states) in rows {
        let started = std::time::Instant::now();
        match explore(bounds, options) {
            Ok(found) => {
                println!("{found} states, {:?}: {bounds:?} {options:?}", started.elapsed());
                assert_eq!(found, states, "{bounds:?} {options:?}");
            }
            Err(violation) => panic!("{bounds:?} {options:?}: {violation}"),
        }
    }
}

#[test]
fn small_bounds_hold() {
    search(&[
        (of([1, 2, 0, 1, 1, 0, 0, 0]), PLAIN, 2_784),
        (of([1, 2, 1, 1, 1, 0, 0, 0]), PLAIN, 10_633),
        (of([1, 2, 0, 1, 1, 1, 0, 0]), PLAIN, 8_105),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), PLAIN, 8_543),
        (of([2, 3, 0, 1, 1, 0, 0, 0]), PLAIN, 32_076),
        (of([1, 2, 0, 0, 1, 0, 0, 1]), PLAIN, 11_634),
        (withdrawn([1, 2, 0, 1, 1, 0, 0, 0], 1), PLAIN, 4_749),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), VOLATILE, 12_727),
        (checkpointed([1, 2, 0, 1, 1, 0, 1, 0]), IMPLIED, 22_957),
        (of([1, 2, 0, 1, 0, 0, 1, 1]), ALWAYS, 9_760),
    ]);
}

/// The searches beyond what `cargo test` has time for:
/// `cargo test -p afterimage --profile sim --lib differential -- --ignored --nocapture`.
#[test]
#[ignore = "minutes, even with optimisation"]
fn larger_bounds_hold() {
    search(&[
        (of([1, 2, 1, 1, 1, 0, 1, 0]), PLAIN, 27_432),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), PLAIN, 77_649),
        (of([1, 2, 1, 3, 1, 0, 0, 0]), PLAIN, 56_357),
        (of([2, 3, 0, 2, 1, 0, 0, 0]), PLAIN, 102_311),
        (of([2, 3, 0, 1, 1, 1, 0, 0]), PLAIN, 82_771),
        (of([1, 3, 1, 2, 1, 0, 0, 0]), PLAIN, 99_824),
        (of([2, 3, 1, 2, 1, 0, 0, 0]), PLAIN, 499_518),
        (of([1, 2, 1, 1, 1, 0, 1, 1]), PLAIN, 741_922),
        (of([2, 3, 0, 1, 2, 0, 0, 0]), P6, 151_522),
        (withdrawn([1, 2, 0, 2, 1, 0, 0, 0], 2), PLAIN, 42_038),
        (withdrawn([1, 2, 0, 2, 1, 0, 1, 0], 1), PLAIN, 68_364),
        (withdrawn([1, 2, 0, 1, 1, 0, 0, 1], 1), PLAIN, 132_989),
        (of([1, 2, 0, 2, 1, 0, 1, 0]), VOLATILE, 36_669),
        (of([2, 3, 0, 1, 1, 0, 1, 0]), VOLATILE, 149_628),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), VOLATILE, 99_978),
        (checkpointed([1, 2, 0, 2, 1, 0, 1, 0]), IMPLIED, 77_082),
        (of([2, 3, 0, 1, 1, 0, 1, 0]), IMPLIED, 123_731),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), IMPLIED, 84_251),
        (of([2, 3, 0, 0, 1, 0, 0, 1]), SIDE, 153_229),
        (of([2, 3, 0, 2, 0, 0, 1, 0]), ALWAYS, 24_154),
        (of([2, 3, 1, 2, 0, 1, 0, 0]), ALWAYS, 97_264),
        (withdrawn([1, 2, 0, 1, 1, 0, 1, 0], 1), EVERY, 29_038),
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
