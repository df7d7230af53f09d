//! The ladder searched: two of these machines, the rest of two devices around them in the abstract, and
//! every order of messages, host work and faults within small bounds, or random ones at length.
//!
//! An image is the number of the newest write to each block; a write is its number, its stamp and its
//! data at once. The promises are in [`world::World::check`] and [`world::World::at_rest`].

#[cfg(feature = "weaken")]
mod ablation;
mod bounds;
mod world;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use world::{Action, World};

/// How much of everything may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Bounds {
    blocks: usize,
    writes: u8,
    reads: u8,
    takeovers: u8,
    suspends: u8,
    cuts: u8,
    restarts: u8,
    deaths: u8,
    /// Times that the host asks at the other device while a request is open.
    withdrawals: u8,
    /// Checkpoints at moments of no importance.
    checkpoints: u8,
}

/// Other things that are in the world.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// Records of R under way at a time.
    window: usize,
    /// Blocks of one copy.
    most: u64,
    /// Own records are durable after a sync only: a restart is a power cut.
    volatile: bool,
    /// Bits become durable with bulk steps only; records imply the others, and are replayed.
    implied: bool,
    /// The target keeps its last consistent image.
    side: bool,
    /// The group rests in mode s.
    always: bool,
    /// Other steps come in between while a copy is written to N.
    slow: bool,
    /// One of two living devices is consistent.
    p6: bool,
    /// Bits are announced.
    tells: bool,
    /// Copies may go as checksums first.
    sums: bool,
}

const PLAIN: Options = Options {
    window: 1,
    most: 1,
    volatile: false,
    implied: false,
    side: false,
    always: false,
    slow: false,
    p6: false,
    tells: false,
    sums: false,
};

impl Bounds {
    /// Blocks, writes, reads, takeovers, suspends, cuts, restarts, deaths.
    const fn of(b: [u8; 8]) -> Bounds {
        let [blocks, writes, reads, takeovers, suspends, cuts, restarts, deaths] = b;
        let blocks = blocks as usize;
        let (withdrawals, checkpoints) = (0, 0);
        Bounds {
            blocks,
            writes,
            reads,
            takeovers,
            suspends,
            cuts,
            restarts,
            deaths,
            withdrawals,
            checkpoints,
        }
    }
}

/// A promise that broke, and the way to it.
#[derive(Debug)]
struct Violation {
    promise: String,
    path: Vec<Action>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} ({} steps)", self.promise, self.path.len())?;
        (1..).zip(&self.path).try_for_each(|(n, action)| writeln!(f, "  {n:2}. {action:?}"))
    }
}

/// Every state, breadth first: how many there are, or the shortest way to a violation.
fn explore(bounds: Bounds, options: Options) -> Result<usize, Violation> {
    let first = World::new(bounds, options);
    let mut seen: HashMap<u64, Option<(u64, Action)>> = HashMap::from([(first.key(), None)]);
    let mut todo = VecDeque::from([(first.key(), first)]);
    while let Some((key, world)) = todo.pop_front() {
        let way = |last: Option<Action>| {
            let mut path: Vec<_> = last.into_iter().collect();
            let mut at = key;
            while let Some(&Some((before, action))) = seen.get(&at) {
                path.push(action);
                at = before;
            }
            path.reverse();
            path
        };
        let actions = world.enabled();
        if !actions.iter().any(|action| action.is_progress())
            && let Err(promise) = world.at_rest()
        {
            return Err(Violation { promise, path: way(None) });
        }
        let mut found = Vec::new();
        for action in actions {
            let mut next = world.clone();
            if let Err(promise) = next.step(action) {
                return Err(Violation { promise, path: way(Some(action)) });
            }
            found.push((next.key(), action, next));
        }
        for (next_key, action, next) in found {
            if let Entry::Vacant(vacant) = seen.entry(next_key) {
                vacant.insert(Some((key, action)));
                todo.push_back((next_key, next));
            }
        }
    }
    Ok(seen.len())
}

/// Numbers of a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// The walk of a seed, and how many steps it took: random ones, then only such as lead to rest. The
/// seed says what else is in the world.
fn walk_of(seed: u64) -> Result<usize, Violation> {
    let mut random = Random(seed);
    let mut flip = || random.below(2) == 1;
    let mut bounds = Bounds { blocks: 1, ..Bounds::of([3, 10, 6, 6, 3, 3, 3, 2]) };
    bounds.blocks += usize::from(flip()) + usize::from(flip());
    if flip() {
        (bounds.restarts, bounds.deaths) = (0, 0);
    }
    if flip() {
        (bounds.withdrawals, bounds.checkpoints) = (3, 3);
    }
    let mut options = Options {
        window: 2,
        most: if flip() { 1 } else { 2 },
        volatile: flip(),
        implied: flip(),
        side: flip(),
        always: flip() && flip(),
        slow: flip(),
        p6: flip() && flip() && flip(),
        tells: seed.is_multiple_of(2),
        sums: seed.is_multiple_of(3),
    };
    if options.p6 {
        // With a second takeover, or a fault, there may be no consistent image.
        bounds = Bounds { blocks: bounds.blocks, ..Bounds::of([2, 6, 3, 1, 2, 0, 0, 0]) };
        options.volatile = false;
    }
    let mut world = World::new(bounds, options);
    let (mut path, bias) = (Vec::new(), [0, 3, 6, 8][random.below(4)]);
    let failed = |promise, path| Err(Violation { promise, path });
    const STEPS: usize = 300;
    for step in 0..STEPS + 4000 {
        let mut actions = world.enabled();
        let progress: Vec<_> = actions.iter().copied().filter(Action::is_progress).collect();
        let is_still = progress.is_empty();
        if is_still && let Err(promise) = world.at_rest() {
            return failed(promise, path);
        }
        if step >= STEPS || !is_still && random.below(10) < bias {
            actions = progress;
        }
        if actions.is_empty() {
            return Ok(path.len());
        }
        let action = actions[random.below(actions.len())];
        path.push(action);
        if let Err(promise) = world.step(action) {
            return failed(promise, path);
        }
    }
    failed("P4 no rest within 4000 steps".into(), path)
}
