//! The judge, on states that may be and on states that may not.

use super::*;
use crate::replay::pattern::Origin;

const RUN: u64 = 5;

fn stamp(time: u64) -> Stamp {
    Stamp { epoch: 1, time, sequence: 0 }
}

/// A history told in few words; writes are of one sector and numbered as they are issued.
struct Story(History);

impl Story {
    fn new() -> Story {
        Story(History::of(&[Event::Begun { run: RUN, block_size: 512 }]))
    }

    fn issue(&mut self, sectors: Range<u64>, zero: bool, durable: bool) -> Number {
        let write = self.0.writes() as Number + 1;
        self.0.note(&Event::Issued { write, volume: 0, sectors, zero, durable });
        write
    }

    fn begin(&mut self, sector: u64) -> Number {
        self.issue(sector..sector + 1, false, false)
    }

    fn end(&mut self, write: Number, time: u64) {
        self.0.note(&Event::Completed { write, stamp: Some(stamp(time)) });
    }

    fn write(&mut self, sector: u64) -> Number {
        let write = self.begin(sector);
        self.end(write, write.into());
        write
    }

    fn flush(&mut self) {
        self.0.note(&Event::FlushIssued { flush: 1 });
        self.0.note(&Event::Flushed { flush: 1 });
    }

    /// The findings if sectors show these writes.
    fn judge(&self, claim: Claim, shown: &[(u64, Number)]) -> Vec<Finding> {
        let mut all = Shown::default();
        for &(sector, write) in shown {
            let origin = Origin {
                run: RUN,
                volume: 0,
                sector,
                write: write.into(),
                row: 0,
                index: 0,
                count: 1,
            };
            let mut bytes = [0; SECTOR];
            pattern::fill(&mut bytes, origin);
            all.add(&self.0, 0, sector, &bytes);
        }
        self.0.judge(&all, claim).first().to_vec()
    }

    fn is_right(&self, shown: &[(u64, Number)]) -> bool {
        self.judge(Claim::Promised, shown).is_empty()
    }

    fn is_closed(&self, shown: &[(u64, Number)]) -> bool {
        self.judge(Claim::Closed, shown).is_empty()
    }
}

#[test]
fn what_is_not_promised_may_be_lost() {
    let mut story = Story::new();
    let x = story.write(0);
    let y = story.write(1);
    assert!(story.is_right(&[]));
    assert!(story.is_right(&[(0, x)]));
    assert!(story.is_right(&[(0, x), (1, y)]));
    assert!(!story.is_right(&[(1, y)]), "y was issued after x had completed");
}

#[test]
fn what_was_flushed_must_be_there() {
    let mut story = Story::new();
    let x = story.write(0);
    let late = story.begin(1);
    story.flush();
    story.end(late, late.into());
    assert_eq!(story.0.promised(), 1);
    assert!(!story.is_right(&[]), "lost");
    assert!(story.is_right(&[(0, x)]));
    assert!(!story.is_right(&[(1, late)]));
    assert!(story.is_closed(&[]), "an old image is closed");
    let newer = story.write(0);
    assert!(story.is_right(&[(0, newer), (1, late)]));
}

#[test]
fn a_flush_in_flight_promises_nothing() {
    let mut story = Story::new();
    story.write(0);
    story.0.note(&Event::FlushIssued { flush: 1 });
    assert!(story.is_right(&[]));
}

#[test]
fn a_durable_write_promises_what_was_before_it() {
    let mut story = Story::new();
    let x = story.write(0);
    let y = story.issue(1..2, false, true);
    assert!(story.is_right(&[]));
    story.end(y, y.into());
    assert!(story.is_right(&[(0, x), (1, y)]));
    assert!(!story.is_right(&[(0, x)]) && !story.is_right(&[(1, y)]));
}

#[test]
fn what_the_old_device_had_completed_is_promised_at_the_new_one() {
    let mut story = Story::new();
    let x = story.write(0);
    story.0.note(&Event::Moved { to: 1, epoch: 2 });
    let y = story.write(1);
    assert!(!story.is_right(&[]));
    assert!(story.is_right(&[(0, x)]) && story.is_right(&[(0, x), (1, y)]));
}

#[test]
fn what_was_acknowledged_is_promised() {
    let mut story = Story::new();
    let x = story.write(0);
    let both = story.issue(1..3, false, false);
    story.end(both, 10);
    story.0.note(&Event::Acknowledged { at: 1, stamp: stamp(90) });
    assert!(story.is_right(&[]), "those were another device's");
    story.0.note(&Event::Acknowledged { at: 0, stamp: stamp(10) });
    assert!(story.is_right(&[(0, x)]), "of two blocks one is acknowledged");
    assert!(!story.is_right(&[]));
    story.0.note(&Event::Acknowledged { at: 0, stamp: Stamp { sequence: 1, ..stamp(10) } });
    assert!(!story.is_right(&[(0, x)]));
    assert!(story.is_right(&[(0, x), (1, both), (2, both)]));
    assert!(!story.is_right(&[(0, x), (1, both)]), "half of it");
}

#[test]
fn an_older_write_does_not_stand_for_a_newer_one() {
    let mut story = Story::new();
    let (a, b) = (story.begin(0), story.begin(0));
    story.end(b, 5);
    story.end(a, 9);
    story.flush();
    assert!(story.is_right(&[(0, a)]), "the higher stamp counts, not the number");
    assert!(!story.is_right(&[(0, b)]));
}

#[test]
fn what_was_in_flight_may_be_there_or_not() {
    let mut story = Story::new();
    let x = story.write(0);
    story.flush();
    let flying = story.begin(0);
    assert!(story.is_right(&[(0, x)]) && story.is_right(&[(0, flying)]));
    let after = story.write(1);
    assert!(!story.is_right(&[(1, after)]), "x is lost");
    assert!(story.is_right(&[(1, after), (0, flying)]));
}

#[test]
fn nothing_is_invented() {
    let mut story = Story::new();
    let x = story.write(0);
    let refused = story.begin(1);
    story.0.note(&Event::Refused { write: refused });
    assert!(matches!(
        story.judge(Claim::Closed, &[(0, x), (1, refused)])[..],
        [Finding::RefusedShown { number }] if number == refused
    ));
    assert!(matches!(
        story.judge(Claim::Closed, &[(0, x), (1, 9)])[..],
        [Finding::NeverIssued { volume: 0, sector: 1, number: 9 }]
    ));
    assert!(!story.is_closed(&[(0, x), (3, x)]), "in another place");
    let mut damaged = Shown::default();
    damaged.add(&story.0, 0, 7, &[0xEE; SECTOR]);
    assert_eq!(story.0.judge(&damaged, Claim::Closed).count(), 1);
    let origin = Origin { run: RUN, volume: 0, sector: 8, write: 1, row: 0, index: 0, count: 1 };
    for wrong in [
        Origin { run: 6, ..origin },
        Origin { volume: 1, ..origin },
        Origin { sector: 9, ..origin },
    ] {
        let mut bytes = [0; SECTOR];
        pattern::fill(&mut bytes, wrong);
        let mut misplaced = Shown::default();
        misplaced.add(&story.0, 0, 8, &bytes);
        assert_eq!(story.0.judge(&misplaced, Claim::Closed).count(), 1, "{wrong:?}");
    }
}

#[test]
fn zeros_need_a_discard() {
    let mut story = Story::new();
    let x = story.write(0);
    story.flush();
    assert!(!story.is_right(&[]));
    let gone = story.issue(0..8, true, false);
    assert!(story.is_right(&[]), "perhaps it was discarded");
    assert!(story.is_right(&[(0, x)]));
    story.end(gone, gone.into());
    assert!(story.is_right(&[]) && story.is_right(&[(0, x)]), "nothing promises the discard");
    story.flush();
    assert!(story.is_right(&[]));
    assert!(!story.is_right(&[(0, x)]), "what was discarded is back");
    let newer = story.write(0);
    assert!(story.is_right(&[]) && story.is_right(&[(0, newer)]));
}

#[test]
fn a_refused_discard_explains_nothing() {
    let mut story = Story::new();
    story.write(0);
    story.flush();
    let refused = story.issue(0..8, true, false);
    story.0.note(&Event::Refused { write: refused });
    assert!(!story.is_right(&[]));
}

#[test]
fn a_forced_device_has_what_was_acknowledged() {
    let mut story = Story::new();
    let (x, y) = (story.write(0), story.write(1));
    story.0.note(&Event::Acknowledged { at: 0, stamp: stamp(x.into()) });
    story.flush();
    assert!(!story.is_right(&[(0, x)]), "y is promised");
    story.0.note(&Event::Forced { to: 1, epoch: 2 });
    assert!(story.is_right(&[(0, x)]) && story.is_right(&[(0, x), (1, y)]));
    assert!(!story.is_right(&[]), "x had arrived");
    let z = story.write(2);
    story.flush();
    assert!(story.is_right(&[(0, x), (2, z)]) && !story.is_right(&[(0, x)]));
    // An acknowledgement after that does not bring y back.
    story.0.note(&Event::Acknowledged { at: 0, stamp: stamp(99) });
    assert!(story.is_right(&[(0, x), (2, z)]));
}

/// Content that a forced device lacked is in the salvage of the other one; it does not stand for what hosts
/// have written since.
#[test]
fn salvage_makes_a_history_whole() {
    let mut story = Story::new();
    let (x, y) = (story.write(0), story.write(1));
    story.flush();
    story.0.note(&Event::Forced { to: 1, epoch: 2 });
    let newer = story.write(0);
    // The device that was forced had zeros there: this makes no record, and no zeros.
    let needless = story.issue(1..2, true, false);
    story.0.note(&Event::Completed { write: needless, stamp: None });
    let bytes = |sector, write: Number| {
        let (run, count, write) = (RUN, 1, write.into());
        let mut bytes = [0; SECTOR];
        pattern::fill(
            &mut bytes,
            Origin { run, volume: 0, sector, write, row: 0, index: 0, count },
        );
        bytes
    };
    let mut shown = Shown::default();
    shown.add(&story.0, 0, 0, &bytes(0, newer));
    assert!(story.0.unforced().judge(&shown, Claim::Promised).count() > 0, "y is lost");
    shown.add_salvaged(&story.0, 0, 0, &bytes(0, x));
    shown.add_salvaged(&story.0, 0, 1, &bytes(1, y));
    assert_eq!(story.0.unforced().judge(&shown, Claim::Promised).count(), 0);
    assert_eq!(shown.image.get(0, 0), newer);
}
