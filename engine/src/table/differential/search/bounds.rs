//! All rules in force: bounds that are searched to their end, and random walks beyond them.

use super::{Bounds, Options, PLAIN, explore, walk_of};

const VOLATILE: Options = Options { volatile: true, ..PLAIN };
const IMPLIED: Options = Options { implied: true, ..PLAIN };
const SIDE: Options = Options { side: true, ..PLAIN };
const ALWAYS: Options = Options { always: true, ..PLAIN };
const P6: Options = Options { p6: true, ..PLAIN };
const TELLS: Options = Options { tells: true, ..PLAIN };
const IMPLIED_TELLS: Options = Options { implied: true, tells: true, ..PLAIN };
const ALWAYS_TELLS: Options = Options { always: true, tells: true, ..PLAIN };
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
        (of([1, 2, 0, 1, 1, 0, 0, 0]), PLAIN, 3_342),
        (of([1, 2, 1, 1, 1, 0, 0, 0]), PLAIN, 12_769),
        (of([1, 2, 0, 1, 1, 1, 0, 0]), PLAIN, 10_029),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), PLAIN, 11_982),
        (of([2, 3, 0, 1, 1, 0, 0, 0]), PLAIN, 39_060),
        (of([1, 2, 0, 0, 1, 0, 0, 1]), PLAIN, 11_965),
        (withdrawn([1, 2, 0, 1, 1, 0, 0, 0], 1), PLAIN, 5_530),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), VOLATILE, 17_348),
        (checkpointed([1, 2, 0, 1, 1, 0, 1, 0]), IMPLIED, 32_323),
        (of([1, 2, 0, 1, 0, 0, 1, 1]), ALWAYS, 14_571),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), SLOW, 13_590),
        (of([1, 2, 0, 1, 1, 0, 0, 0]), TELLS, 8_053),
        (of([1, 2, 1, 1, 0, 0, 0, 0]), ALWAYS_TELLS, 4_043),
        (of([1, 2, 0, 1, 1, 1, 0, 0]), TELLS, 38_565),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), TELLS, 40_096),
        (of([1, 2, 0, 1, 1, 0, 0, 0]), SUMS, 3_827),
        (of([1, 2, 0, 1, 1, 1, 0, 0]), SUMS, 11_180),
    ]);
}

/// The searches beyond what `cargo test` has time for:
/// `cargo test -p afterimage --profile sim --lib differential -- --ignored --nocapture`.
#[test]
#[ignore = "a minute, optimised: `.ci/run weaken` runs it"]
fn larger_bounds_hold() {
    search(&[
        (of([1, 2, 1, 1, 1, 0, 1, 0]), PLAIN, 43_043),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), PLAIN, 94_603),
        (of([1, 2, 1, 3, 1, 0, 0, 0]), PLAIN, 77_648),
        (of([2, 3, 0, 2, 1, 0, 0, 0]), PLAIN, 154_687),
        (of([2, 3, 0, 1, 1, 1, 0, 0]), PLAIN, 124_905),
        (of([1, 3, 1, 2, 1, 0, 0, 0]), PLAIN, 141_735),
        (of([2, 3, 1, 2, 1, 0, 0, 0]), PLAIN, 724_347),
        (of([1, 2, 1, 1, 1, 0, 1, 1]), PLAIN, 986_245),
        (of([2, 3, 0, 1, 2, 0, 0, 0]), P6, 200_220),
        (withdrawn([1, 2, 0, 2, 1, 0, 0, 0], 2), PLAIN, 58_325),
        (withdrawn([1, 2, 0, 2, 1, 0, 1, 0], 1), PLAIN, 107_938),
        (withdrawn([1, 2, 0, 1, 1, 0, 0, 1], 1), PLAIN, 159_051),
        (of([1, 2, 0, 2, 1, 0, 1, 0]), VOLATILE, 56_565),
        (of([2, 3, 0, 1, 1, 0, 1, 0]), VOLATILE, 237_908),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), VOLATILE, 121_381),
        (checkpointed([1, 2, 0, 2, 1, 0, 1, 0]), IMPLIED, 108_457),
        (of([2, 3, 0, 1, 1, 0, 1, 0]), IMPLIED, 189_219),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), IMPLIED, 99_119),
        (checkpointed([1, 2, 0, 2, 1, 0, 1, 0]), IMPLIED_TELLS, 370_295),
        (of([2, 3, 0, 0, 1, 0, 0, 1]), SIDE, 176_724),
        (of([2, 3, 0, 2, 0, 0, 1, 0]), ALWAYS, 54_020),
        (of([2, 3, 1, 2, 0, 1, 0, 0]), ALWAYS, 194_984),
        (of([2, 3, 0, 2, 1, 0, 0, 0]), SLOW, 217_256),
        (of([1, 3, 1, 2, 1, 0, 0, 0]), SLOW, 194_344),
        (of([1, 2, 0, 2, 1, 1, 1, 0]), SLOW, 107_409),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), SLOW, 120_225),
        (withdrawn([1, 2, 0, 1, 1, 0, 1, 0], 1), EVERY, 47_510),
        (of([1, 2, 1, 1, 0, 1, 1, 0]), ALWAYS_TELLS, 90_488),
        (of([1, 2, 1, 2, 1, 0, 0, 0]), TELLS, 98_703),
        (of([2, 3, 0, 1, 1, 0, 0, 0]), TELLS, 199_378),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), TELLS, 296_505),
        (withdrawn([1, 2, 0, 1, 1, 0, 1, 0], 1), TELLS, 68_104),
        (of([1, 2, 1, 2, 1, 0, 0, 0]), SUMS, 44_414),
        (of([2, 3, 0, 1, 1, 0, 0, 0]), SUMS, 68_910),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), SUMS, 105_839),
        (of([1, 2, 0, 2, 1, 0, 1, 0]), SUMS, 42_480),
    ]);
}

/// LADDER 4: without an auxiliary area one takeover leaves a consistent copy at one of two living devices (the
/// rows with `P6`), and a second one before the peer has sent what it owes may leave none. That is the
/// shortest way; the device that serves says so (P10).
#[test]
fn two_takeovers_may_leave_no_consistent_copy() {
    for (options, steps) in [(P6, 10), (Options { always: true, ..P6 }, 9)] {
        let one = explore(of([2, 3, 0, 1, 1, 0, 0, 0]), options).expect("a copy is consistent");
        println!("{one} states with one takeover: {options:?}");
        let violation = explore(of([2, 3, 0, 2, 1, 0, 0, 0]), options).expect_err("it may");
        println!("{options:?}: {violation}");
        assert!(violation.promise.starts_with("P6"), "{violation}");
        assert_eq!(violation.path.len(), steps, "{violation}");
    }
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
