//! Every rule of the machine, left out.

use super::{Bounds, Options, PLAIN, explore, walk};
use crate::weaken::{Clause, without};

#[test]
#[ignore]
fn discover() {
    use Clause::*;
    let small: &[[u8; 8]] = &[
        [1, 2, 0, 1, 1, 0, 0, 0],
        [1, 2, 1, 1, 1, 0, 0, 0],
        [1, 2, 0, 1, 1, 1, 0, 0],
        [1, 2, 0, 1, 1, 0, 0, 1],
        [1, 2, 0, 1, 1, 0, 1, 0],
        [1, 2, 1, 1, 1, 0, 1, 0],
        [2, 3, 0, 1, 1, 0, 0, 0],
        [1, 2, 1, 2, 1, 0, 0, 0],
        [2, 3, 0, 0, 1, 0, 0, 1],
        [2, 3, 0, 2, 1, 0, 0, 0],
        [1, 3, 1, 2, 1, 0, 0, 0],
        [2, 3, 0, 1, 2, 0, 0, 0],
        [1, 2, 1, 2, 1, 0, 1, 0],
        [2, 3, 0, 1, 1, 1, 0, 0],
        [2, 3, 0, 1, 1, 0, 1, 0],
        [1, 3, 0, 3, 1, 0, 0, 0],
        [1, 2, 1, 1, 1, 0, 1, 1],
    ];
    let only = std::env::var("ONLY").unwrap_or_default();
    for &clause in Clause::SEARCHED
        .iter()
        .filter(|c| only.is_empty() || only.split(',').any(|o| o == c.name()))
    {
        without(Some(clause));
        let mut options = PLAIN;
        let mut withdrawals = 0;
        match clause {
            CollectFirst => options.p6 = true,
            TableCut | CheckpointBeforeCopy => options.implied = true,
            SideFileBits => options.side = true,
            LevelWhenSent | LevelAgain => options.always = true,
            GrantKind | KeepLater | GrantOfReturned | PrototypeFirst | AskAgainForGrant => {
                withdrawals = 1
            }
            CopyDurable | SuspendSync | OpenSync | EndSync | FenceSync | DropSync | OwedSync => {
                options.volatile = true
            }
            _ => {}
        }
        let start = std::time::Instant::now();
        let found = small.iter().find_map(|&b| {
            let bounds = Bounds { withdrawals, ..Bounds::of(b) };
            explore(bounds, options, 300_000).err().map(|v| (b, v))
        });
        match found {
            Some((b, violation)) => {
                println!("FOUND {} {b:?} {:?} {violation}", clause.name(), start.elapsed())
            }
            None => {
                let (mut best, mut n, start) =
                    (None::<(u64, super::Violation)>, 0, std::time::Instant::now());
                while start.elapsed().as_secs() < 20 {
                    let bounds = Bounds {
                        withdrawals: 2 * withdrawals,
                        ..Bounds::of([2, 7, 6, 5, 3, 2, 2, 1])
                    };
                    let wide = Options { window: 2, ..options };
                    if let Err(violation) = walk(n, bounds, wide, 250) {
                        if best
                            .as_ref()
                            .is_none_or(|(_, best)| best.path.len() > violation.path.len())
                        {
                            best = Some((n, violation))
                        }
                    }
                    n += 1;
                }
                match best {
                    Some((seed, violation)) => {
                        println!("WALK {} seed {seed} of {n} {violation}", clause.name())
                    }
                    None => println!("NOTHING {} in {n} walks", clause.name()),
                }
            }
        }
    }
    without(None);
}
