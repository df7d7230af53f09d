//! The next action: the seed and a number give it, whatever the world looks like; one
//! that does not apply is an idle tick. So any part of a run is a run.

use super::random::Random;
use std::ops::Range;

/// The kind of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Write,
    Read,
    Zeroes,
    Discard,
    Flush,
    /// A command of a tenure that is over, or of a connection that its host has given up.
    Late,
    /// A host's connection dies, or seems to live on, and the host comes back on a new one.
    Return,
    Poll,
    Commit,
    CommitDue,
    Sequence,
    Ship,
    Receive,
    Control,
    Reflect,
    ReflectDue,
    Checkpoint,
    CheckpointDue,
    Ask,
    AskBoth,
    /// The operator's word that the other device does not serve.
    Alone,
    Plug,
    Cut,
    Tick,
    StepClock,
    /// Closed cleanly.
    Close,
    Start,
    Kill,
    PowerCut,
    /// The process dies, or the disk fails, in the middle of one of the next operations.
    Trouble,
    /// From now on the disk says that syncs are done and does nothing.
    Lie,
    /// A sector of a log or superblock changes, or a write to a log goes astray.
    Rot,
    /// A sector of a volume changes, or a write to one goes astray.
    RotVolume,
    /// The line loses a frame and says nothing, which a line must not do.
    Lose,
    /// The line brings what was shipped before once more.
    Repeat,
    /// The power of both machines fails at once.
    Blackout,
    /// An operator accepts that completed writes are lost.
    Accept,
    /// An operator changes what a device does by itself after a restart.
    Policy,
    /// A driver says that hosts reach the device that serves.
    Reachable,
    /// Other actions come in the middle of one of the next steps.
    Stall,
    /// A comparison of the running pair begins, goes on, or is given up.
    Compare,
    /// The program at a device is exchanged for one of another version.
    Upgrade,
    /// An operator's word that the device that serves is to go on without order.
    Suspend,
    /// The next rung of differential mode, if there is one.
    Climb,
    /// A site is lost for a while.
    LoseSite,
    /// An operator forces the device that is left to take over.
    Force,
    /// The lost site is back.
    RecoverSite,
    /// An operator keeps one of two histories that have parted.
    Resolve,
    /// An operator moves the host by two files, with the line down.
    MoveByFiles,
    /// A driver says that the host of the device that serves is gone.
    Offer,
    /// An operator stops hosts at a device, which keeps its tenure.
    FenceHere,
    /// An operator undoes that.
    Unfence,
}

/// An action and the numbers that say the rest.
#[derive(Clone, Debug)]
pub(super) struct Action {
    pub kind: Kind,
    pub random: Random,
    /// The device it concerns, unless it finds its own.
    pub side: usize,
}

use Kind::*;

/// How often things happen, one beside the other.
const WEIGHTS: [(Kind, u32); 52] = [
    (Write, 150),
    (Read, 60),
    (Zeroes, 16),
    (Discard, 16),
    (Flush, 12),
    (Late, 6),
    (Return, 4),
    (Poll, 60),
    (Commit, 25),
    (CommitDue, 25),
    (Sequence, 8),
    (Ship, 90),
    (Receive, 90),
    (Control, 220),
    (Reflect, 80),
    (ReflectDue, 15),
    (Checkpoint, 8),
    (CheckpointDue, 25),
    (Ask, 8),
    (AskBoth, 2),
    (Alone, 3),
    (Plug, 25),
    (Cut, 2),
    (Tick, 50),
    (StepClock, 4),
    (Close, 1),
    (Start, 20),
    (Kill, 1),
    (PowerCut, 1),
    (Trouble, 2),
    (Lie, 1),
    (Rot, 40),
    (RotVolume, 2),
    (Lose, 3),
    (Repeat, 6),
    (Blackout, 1),
    (Accept, 8),
    (Policy, 2),
    (Stall, 30),
    (Reachable, 3),
    (Upgrade, 1),
    (Compare, 30),
    (Suspend, 4),
    (Climb, 60),
    (LoseSite, 1),
    (Force, 8),
    (RecoverSite, 4),
    (Resolve, 8),
    (MoveByFiles, 3),
    (Offer, 2),
    (FenceHere, 3),
    (Unfence, 10),
];

/// How many actions a mood lasts.
const MOOD: u64 = 64;

/// The moods of a seed: some things happen often for a while, others not at all, and so rare
/// combinations come up.
pub(super) struct Moods {
    seed: u64,
    mood: u64,
    /// Rising sums of the weights.
    sums: [u32; WEIGHTS.len()],
    /// How many of 16 actions concern the second device.
    second: u64,
    never: Vec<Kind>,
}

impl Moods {
    pub fn new(seed: u64, never: Vec<Kind>) -> Moods {
        Moods { seed, mood: u64::MAX, sums: [0; WEIGHTS.len()], second: 8, never }
    }

    /// The action with this number.
    pub fn action(&mut self, number: u64) -> Action {
        if number / MOOD != self.mood {
            self.change(number / MOOD);
        }
        let mut random = Random::of(self.seed, 1, number);
        let total = self.sums[self.sums.len() - 1];
        let drawn = random.within(0..u64::from(total)) as u32;
        let kind = WEIGHTS[self.sums.partition_point(|&sum| sum <= drawn)].0;
        let side = usize::from(random.within(0..16) < self.second);
        Action { kind, random, side }
    }

    fn change(&mut self, mood: u64) {
        self.mood = mood;
        let mut random = Random::of(self.seed, 2, mood);
        self.second = random.pick(&[1, 8, 8, 8, 15]);
        let mut sum = 0;
        for (at, (kind, weight)) in WEIGHTS.into_iter().enumerate() {
            let factor = random.pick(&[0, 4, 16, 16, 16, 64]);
            // The actions that end a standstill are never away for long.
            let factor =
                if matches!(kind, Start | Plug | Tick | Accept) { factor.max(4) } else { factor };
            sum += if self.never.contains(&kind) { 0 } else { weight * factor };
            self.sums[at] = sum;
        }
    }
}

/// Which actions of a run happen: all, or those that are left when the others are taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(Vec<Range<u64>>);

/// No action at all.
const NONE: &str = "none";

impl Selection {
    /// The first `count`.
    pub fn first(count: u64) -> Selection {
        let all = 0..count;
        Selection([all].into())
    }

    /// These.
    pub fn of(numbers: &[u64]) -> Selection {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for &number in numbers {
            match ranges.last_mut() {
                Some(last) if last.end == number => last.end += 1,
                _ => ranges.push(number..number + 1),
            }
        }
        Selection(ranges)
    }

    /// Reads it as `3,17,40-44`, or `none`: then the run is what the end of every run brings.
    ///
    /// # Errors
    /// The word that is no number, or does not follow what comes before it.
    pub fn parse(words: &str) -> Result<Selection, String> {
        if words == NONE {
            return Ok(Selection(Vec::new()));
        }
        let number = |word: &str| word.trim().parse().map_err(|e| format!("'{word}': {e}"));
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for word in words.split(',') {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let (first, last): (u64, u64) = (number(first)?, number(last)?);
            if last < first || last == u64::MAX || ranges.last().is_some_and(|r| r.end > first) {
                return Err(format!("'{word}' does not follow what comes before it"));
            }
            ranges.push(first..last + 1);
        }
        Ok(Selection(ranges))
    }

    /// The numbers, rising.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().cloned().flatten()
    }
}

impl std::fmt::Display for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str(NONE);
        }
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match range.end - range.start {
                1 => write!(f, "{comma}{}", range.start)?,
                _ => write!(f, "{comma}{}-{}", range.start, range.end - 1)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_are_read_as_they_are_written() {
        let selection = Selection::of(&[3, 17, 40, 41, 42]);
        assert_eq!(selection.to_string(), "3,17,40-42");
        assert_eq!(Selection::parse("3,17,40-42"), Ok(selection.clone()));
        assert_eq!(selection.numbers().collect::<Vec<_>>(), [3, 17, 40, 41, 42]);
        assert_eq!(Selection::parse(&Selection::of(&[]).to_string()), Ok(Selection::of(&[])));
        for wrong in ["", "x", "5-3", "3,2", "1-18446744073709551615"] {
            assert!(Selection::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_action_depends_on_seed_and_number_only() {
        let (mut straight, mut jumping) = (Moods::new(7, vec![]), Moods::new(7, vec![]));
        let all: Vec<Kind> = (0..50_000).map(|n| straight.action(n).kind).collect();
        assert!([49_999, 3, 500, 64].iter().all(|&n| jumping.action(n).kind == all[n as usize]));
        assert!(WEIGHTS.iter().all(|(kind, _)| all.contains(kind)), "something never happens");
    }
}
