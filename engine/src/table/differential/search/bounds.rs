//! The bounds that are searched, and random walks beyond them.

use super::{Bounds, Options, PLAIN, explore, walk};

/// Searches all of it; there are `states`.
fn complete(b: [u8; 8], options: Options, change: impl FnOnce(&mut Bounds), states: usize) {
    let mut bounds = Bounds::of(b);
    change(&mut bounds);
    let start = std::time::Instant::now();
    match explore(bounds, options, usize::MAX) {
        Ok(found) => {
            println!("{bounds:?} {options:?}: {found:?} {:?}", start.elapsed());
            if states > 0 {
                assert_eq!(found, (states, true), "{bounds:?} {options:?}")
            }
        }
        Err(violation) => panic!("{bounds:?} {options:?}: {violation}"),
    }
}
const VOLATILE: Options = Options { volatile: true, ..PLAIN };
const IMPLIED: Options = Options { implied: true, ..PLAIN };
const SIDE: Options = Options { side: true, ..PLAIN };
const ALWAYS: Options = Options { always: true, ..PLAIN };
const ALL: Options = Options { volatile: true, implied: true, side: true, ..PLAIN };

#[test]
#[ignore]
fn measure() {
    let no = |_: &mut Bounds| {};
    let w = |b: &mut Bounds| b.withdrawals = 1;
    let c = |b: &mut Bounds| b.checkpoints = 1;
    complete([1, 2, 0, 2, 1, 0, 0, 0], PLAIN, |b| b.withdrawals = 2, 0);
    complete([1, 2, 0, 2, 1, 0, 1, 0], PLAIN, w, 0);
    complete([1, 2, 0, 1, 1, 0, 0, 1], PLAIN, w, 0);
    complete([1, 2, 0, 2, 1, 0, 1, 0], VOLATILE, no, 0);
    complete([1, 2, 0, 1, 1, 0, 0, 1], VOLATILE, no, 0);
    complete([2, 3, 0, 1, 1, 0, 1, 0], VOLATILE, no, 0);
    complete([1, 2, 0, 2, 1, 0, 1, 0], IMPLIED, no, 0);
    complete([1, 2, 0, 2, 1, 0, 1, 0], IMPLIED, c, 0);
    complete([2, 3, 0, 1, 1, 0, 1, 0], IMPLIED, no, 0);
    complete([1, 2, 0, 1, 1, 0, 0, 1], IMPLIED, no, 0);
    complete([1, 2, 0, 1, 1, 0, 0, 1], SIDE, no, 0);
    complete([2, 3, 0, 0, 1, 0, 0, 1], SIDE, no, 0);
    complete([2, 3, 0, 2, 0, 0, 1, 0], ALWAYS, no, 0);
    complete([2, 3, 1, 2, 0, 1, 0, 0], ALWAYS, no, 0);
    complete([1, 2, 0, 1, 0, 0, 1, 1], ALWAYS, no, 0);
    complete([2, 3, 0, 1, 2, 0, 0, 0], Options { p6: true, ..PLAIN }, no, 0);
    complete([1, 2, 1, 3, 1, 0, 0, 0], PLAIN, no, 0);
    complete([2, 3, 0, 2, 1, 0, 0, 0], PLAIN, no, 0);
    complete([1, 2, 0, 1, 1, 0, 1, 0], ALL, w, 0);
}
#[test]
#[ignore]
fn walks() {
    let bounds = Bounds { withdrawals: 3, checkpoints: 3, ..Bounds::of([3, 10, 6, 6, 3, 3, 3, 2]) };
    let start = std::time::Instant::now();
    let mut total = 0;
    for seed in 0..std::env::var("WALKS").unwrap().parse().unwrap() {
        let options = Options {
            window: 2,
            most: 1 + seed % 2,
            volatile: seed & 2 != 0,
            implied: seed & 4 != 0,
            side: seed & 8 != 0,
            always: seed % 5 == 0,
            p6: false,
        };
        match walk(seed, bounds, options, 400) {
            Ok(n) => total += n,
            Err(violation) => panic!("seed {seed} {options:?}: {violation}"),
        }
    }
    println!("{total} steps {:?}", start.elapsed());
}
