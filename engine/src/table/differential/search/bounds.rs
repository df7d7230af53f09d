//! All rules in force: bounds that are searched to their end, and random walks beyond them.

use super::{Bounds, Options, PLAIN, explore, walk_of};

const VOLATILE: Options = Options { volatile: true, ..PLAIN };
const IMPLIED: Options = Options { implied: true, ..PLAIN };
const SIDE: Options = Options { side: true, ..PLAIN };
const ALWAYS: Options = Options { always: true, ..PLAIN };
const P6: Options = Options { p6: true, ..PLAIN };
const TELLS: Options = Options { tells: true, ..PLAIN };
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
        (of([1, 2, 0, 1, 1, 0, 0, 0]), PLAIN, 2_804),
        (of([1, 2, 1, 1, 1, 0, 0, 0]), PLAIN, 10_719),
        (of([1, 2, 0, 1, 1, 1, 0, 0]), PLAIN, 8_452),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), PLAIN, 10_032),
        (of([2, 3, 0, 1, 1, 0, 0, 0]), PLAIN, 32_215),
        (of([1, 2, 0, 0, 1, 0, 0, 1]), PLAIN, 11_965),
        (withdrawn([1, 2, 0, 1, 1, 0, 0, 0], 1), PLAIN, 4_769),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), VOLATILE, 14_668),
        (checkpointed([1, 2, 0, 1, 1, 0, 1, 0]), IMPLIED, 26_840),
        (of([1, 2, 0, 1, 0, 0, 1, 1]), ALWAYS, 11_585),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), SLOW, 11_322),
        (of([1, 2, 0, 1, 1, 0, 0, 0]), TELLS, 6_545),
        (of([1, 2, 0, 1, 1, 1, 0, 0]), TELLS, 32_023),
        (of([1, 2, 0, 1, 1, 0, 1, 0]), TELLS, 32_949),
    ]);
}

/// The searches beyond what `cargo test` has time for:
/// `cargo test -p afterimage --profile sim --lib differential -- --ignored --nocapture`.
#[test]
#[ignore = "a minute, optimised: `.ci/run weaken` runs it"]
fn larger_bounds_hold() {
    search(&[
        (of([1, 2, 1, 1, 1, 0, 1, 0]), PLAIN, 36_520),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), PLAIN, 85_144),
        (of([1, 2, 1, 3, 1, 0, 0, 0]), PLAIN, 62_998),
        (of([2, 3, 0, 2, 1, 0, 0, 0]), PLAIN, 121_380),
        (of([2, 3, 0, 1, 1, 1, 0, 0]), PLAIN, 104_196),
        (of([1, 3, 1, 2, 1, 0, 0, 0]), PLAIN, 116_427),
        (of([2, 3, 1, 2, 1, 0, 0, 0]), PLAIN, 586_777),
        (of([1, 2, 1, 1, 1, 0, 1, 1]), PLAIN, 879_673),
        (of([2, 3, 0, 1, 2, 0, 0, 0]), P6, 171_239),
        (withdrawn([1, 2, 0, 2, 1, 0, 0, 0], 2), PLAIN, 45_816),
        (withdrawn([1, 2, 0, 2, 1, 0, 1, 0], 1), PLAIN, 86_542),
        (withdrawn([1, 2, 0, 1, 1, 0, 0, 1], 1), PLAIN, 145_672),
        (of([1, 2, 0, 2, 1, 0, 1, 0]), VOLATILE, 45_099),
        (of([2, 3, 0, 1, 1, 0, 1, 0]), VOLATILE, 197_493),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), VOLATILE, 109_584),
        (checkpointed([1, 2, 0, 2, 1, 0, 1, 0]), IMPLIED, 84_986),
        (of([2, 3, 0, 1, 1, 0, 1, 0]), IMPLIED, 153_511),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), IMPLIED, 88_871),
        (of([2, 3, 0, 0, 1, 0, 0, 1]), SIDE, 176_724),
        (of([2, 3, 0, 2, 0, 0, 1, 0]), ALWAYS, 37_312),
        (of([2, 3, 1, 2, 0, 1, 0, 0]), ALWAYS, 144_703),
        (of([2, 3, 0, 2, 1, 0, 0, 0]), SLOW, 169_205),
        (of([1, 3, 1, 2, 1, 0, 0, 0]), SLOW, 157_321),
        (of([1, 2, 0, 2, 1, 1, 1, 0]), SLOW, 84_917),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), SLOW, 108_583),
        (withdrawn([1, 2, 0, 1, 1, 0, 1, 0], 1), EVERY, 40_918),
        (of([1, 2, 1, 2, 1, 0, 0, 0]), TELLS, 74_239),
        (of([2, 3, 0, 1, 1, 0, 0, 0]), TELLS, 162_804),
        (of([1, 2, 0, 1, 1, 0, 0, 1]), TELLS, 269_158),
        (withdrawn([1, 2, 0, 1, 1, 0, 1, 0], 1), TELLS, 55_990),
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
