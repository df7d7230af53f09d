//! Who may serve, after a restart and at every hello (R13): one pure function.
//!
//! `fenced` is durable. *Proven* is not: a device that wakes up unfenced does not know whether the
//! other one was forced to take over meanwhile (R11), so it serves nobody until somebody vouches
//! against that: the peer by its hello, or an operator.
//!
//! At the opening, and when an operator says that the device may resume alone:
//!
//! | this device | opening | operator |
//! |---|---|---|
//! | asking for the host | – | refused: `Asking` |
//! | fenced | waits: `Fenced` | refused: `Fenced` |
//! | unfenced, `hi < need` | waits: `Behind` | refused: `Behind`: what is missing is at the peer |
//! | unfenced, caught up | serves if `resume_alone` is set, else waits: `Unproven` | serves |
//! | serving | – | goes on |
//!
//! At a hello, the first row that holds:
//!
//! | this device | the peer's hello | does |
//! |---|---|---|
//! | any | another lineage | refuses the connection: stamps cannot be compared |
//! | unfenced | unfenced | halts (as the peer does): two histories, an operator must choose |
//! | any | has received or been granted what this device no longer has | halts: it lost durable records |
//! | any | lacks what it had acknowledged, shipped, promised or granted | refuses: the peer lost durable records |
//! | asking for the host | fenced or not | asks again: the request or its answer was lost |
//! | fenced | unfenced | follows |
//! | fenced, `prefer` | fenced, has no request open | asks for the host |
//! | fenced | fenced | follows: whoever is told to asks |
//! | unfenced | fenced, in a higher epoch | asks: the answer to a request was lost |
//! | serving | fenced | goes on; with a debt in hand it is still good |
//! | unfenced, caught up | fenced | serves: nobody was forced meanwhile |
//! | unfenced, `hi < need` | fenced | asks: a restart loses the prototype (S20) |
//!
//! An unfenced device that hears of a higher epoch asks, whether it serves or not: it gets the
//! tenure that its peer granted last, or a newer one, with a prototype that is right whatever was
//! lost. At most one device of a pair ends up serving: the other is fenced in every row that
//! serves.

use crate::weaken::{Clause, holds};
use std::cmp::Ordering;

/// How this device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    /// It refuses hosts, durably.
    pub fenced: bool,
    /// It has received everything the peer owed when it last became active: `hi >= need`.
    pub caught_up: bool,
    /// It has shown that it may serve, and does.
    pub serving: bool,
    /// It has a takeover request open; then it does not serve.
    pub asking: bool,
    /// The setting: with both fenced, this one asks.
    pub prefer: bool,
    /// The setting: it need not hear from the peer.
    pub resume_alone: bool,
}

/// What the peer's hello says, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// It is of the same lineage.
    pub same_lineage: bool,
    /// It is fenced.
    pub fenced: bool,
    /// It has a takeover request open.
    pub asking: bool,
    /// Its epoch, compared with the one here.
    pub epoch: Ordering,
    /// It has received a record newer than every one this device ever wrote, or serves under a
    /// tenure that this device, fenced, must have granted and does not know.
    pub lost_here: bool,
    /// It has not received what it acknowledged, or never wrote what it shipped, promised or granted.
    pub lost_there: bool,
}

/// Why there is something to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The device is opened.
    Opening,
    /// An operator vouches that the peer does not serve.
    Operator,
    /// The peer said hello.
    Hello(Heard),
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Begin to serve under the epoch held.
    Serve,
    /// Nothing changes.
    GoOn,
    /// Ask the peer for the host, with a new prototype.
    Ask,
    /// Serve nobody, because of this.
    Wait(Wait),
    /// Give the connection up, because of this.
    Refuse(Refusal),
    /// Stop for good, because of this.
    Halt(Alarm),
}

/// Why a device serves nobody for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A request of its own will decide.
    Asking,
    /// The host belongs at the other device.
    Fenced,
    /// The peer owed records at the last takeover that are not here.
    Behind,
    /// Nobody has vouched that the peer was not forced to take over.
    Unproven,
}

/// Why a peer is not spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The histories have parted.
    Lineage,
    /// The peer lost durable records.
    LostThere,
}

/// Why a device stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Both devices are unfenced.
    BothUnfenced,
    /// This device lost durable records.
    LostHere,
}

/// What to do on `occasion`: the tables of this module.
pub fn decide(here: Here, occasion: Occasion) -> Decision {
    let Here { fenced, caught_up, serving, asking, prefer, resume_alone } = here;
    match occasion {
        Occasion::Opening | Occasion::Operator if serving => Decision::GoOn,
        Occasion::Opening | Occasion::Operator if asking => Decision::Wait(Wait::Asking),
        Occasion::Opening | Occasion::Operator if fenced => Decision::Wait(Wait::Fenced),
        Occasion::Opening | Occasion::Operator if !caught_up => Decision::Wait(Wait::Behind),
        Occasion::Opening if !resume_alone && holds(Clause::Proven) => {
            Decision::Wait(Wait::Unproven)
        }
        Occasion::Opening | Occasion::Operator => Decision::Serve,
        Occasion::Hello(peer) if !peer.same_lineage => Decision::Refuse(Refusal::Lineage),
        Occasion::Hello(peer) if !fenced && !peer.fenced => Decision::Halt(Alarm::BothUnfenced),
        Occasion::Hello(peer) if peer.lost_here => Decision::Halt(Alarm::LostHere),
        Occasion::Hello(peer) if peer.lost_there => Decision::Refuse(Refusal::LostThere),
        Occasion::Hello(_) if asking => Decision::Ask,
        Occasion::Hello(peer) if fenced => match peer.fenced && prefer && !peer.asking {
            true => Decision::Ask,
            false => Decision::GoOn,
        },
        Occasion::Hello(peer) if peer.epoch == Ordering::Greater => Decision::Ask,
        Occasion::Hello(_) if serving => Decision::GoOn,
        Occasion::Hello(_) if caught_up => Decision::Serve,
        Occasion::Hello(_) => Decision::Ask,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Every state a device can be in: who is fenced, or asks, does not serve.
    fn states() -> Vec<Here> {
        let mut all = Vec::new();
        for bits in 0..64u32 {
            let bit = |n: u32| bits >> n & 1 == 1;
            let here = Here {
                fenced: bit(0),
                caught_up: bit(1),
                serving: bit(2),
                prefer: bit(3),
                resume_alone: bit(4),
                asking: bit(5),
            };
            if !(here.serving && (here.fenced || here.asking)) {
                all.push(here);
            }
        }
        assert_eq!(all.len(), 40);
        all
    }

    fn hellos() -> Vec<Heard> {
        let mut all = Vec::new();
        for epoch in [Ordering::Less, Ordering::Equal, Ordering::Greater] {
            for bits in 0..32u32 {
                let bit = |n: u32| bits >> n & 1 == 1;
                all.push(Heard {
                    same_lineage: bit(0),
                    fenced: bit(1),
                    asking: bit(2),
                    epoch,
                    lost_here: bit(3),
                    lost_there: bit(4),
                });
            }
        }
        all
    }

    fn serves_after(here: Here, decision: Decision) -> bool {
        match decision {
            Decision::Serve => true,
            Decision::GoOn => here.serving,
            // The connection is given up; the device goes on as it was.
            Decision::Refuse(_) => here.serving,
            Decision::Ask | Decision::Wait(_) | Decision::Halt(_) => false,
        }
    }

    #[test]
    fn nobody_begins_to_serve_against_the_rules() {
        let mut served = 0;
        for here in states() {
            let alone = [Occasion::Opening, Occasion::Operator];
            for occasion in alone.into_iter().chain(hellos().into_iter().map(Occasion::Hello)) {
                let decision = decide(here, occasion);
                let what = format!("{here:?} on {occasion:?}: {decision:?}");
                if decision == Decision::Serve {
                    served += 1;
                    let quiet = !here.serving && !here.asking;
                    assert!(!here.fenced && here.caught_up && quiet, "{what}");
                    match occasion {
                        Occasion::Opening => assert!(here.resume_alone, "{what}"),
                        Occasion::Operator => {}
                        Occasion::Hello(peer) => {
                            let sane = !peer.lost_here && !peer.lost_there;
                            assert!(peer.fenced && peer.same_lineage && sane, "{what}");
                            assert_ne!(peer.epoch, Ordering::Greater, "{what}");
                        }
                    }
                }
                // Who serves is not stopped without cause, and no one alone asks.
                match occasion {
                    Occasion::Opening | Occasion::Operator => {
                        let alone = matches!(
                            decision,
                            Decision::Serve | Decision::GoOn | Decision::Wait(_)
                        );
                        assert!(alone, "{what}");
                        assert_eq!(decision == Decision::GoOn, here.serving, "{what}");
                    }
                    Occasion::Hello(peer) => {
                        assert!(!matches!(decision, Decision::Wait(_)), "{what}");
                        if peer.lost_here && peer.same_lineage {
                            assert!(matches!(decision, Decision::Halt(_)), "{what}");
                        }
                        if here.serving && !serves_after(here, decision) {
                            let cause =
                                !peer.fenced || peer.lost_here || peer.epoch == Ordering::Greater;
                            assert!(cause, "{what}");
                        }
                    }
                }
            }
        }
        assert!(served > 0);
    }

    /// Both sides decide on each other's hello: every pair of states, each epoch order, and
    /// whatever either has lost.
    #[test]
    fn of_two_that_meet_one_serves_or_none() {
        let (mut one, mut none) = (0, 0);
        for a in states() {
            for b in states() {
                for epoch in [Ordering::Less, Ordering::Equal, Ordering::Greater] {
                    for bits in 0..8u32 {
                        let bit = |n: u32| bits >> n & 1 == 1;
                        let (same_lineage, a_lost, b_lost) = (bit(0), bit(1), bit(2));
                        let heard_by = |peer: Here, epoch, lost_here, lost_there| Heard {
                            same_lineage,
                            fenced: peer.fenced,
                            asking: peer.asking,
                            epoch,
                            lost_here,
                            lost_there,
                        };
                        let by_a = heard_by(b, epoch, a_lost, b_lost);
                        let by_b = heard_by(a, epoch.reverse(), b_lost, a_lost);
                        let of_a = decide(a, Occasion::Hello(by_a));
                        let of_b = decide(b, Occasion::Hello(by_b));
                        let what = format!("{a:?} hears {by_a:?}: {of_a:?}; {b:?}: {of_b:?}");
                        let serving = [serves_after(a, of_a), serves_after(b, of_b)];
                        let met = same_lineage || !(a.serving && b.serving);
                        assert!(!(serving[0] && serving[1] && met), "{what}");
                        // An unfenced device of a sound pair ends up serving, or asks.
                        let sound = same_lineage && !a_lost && !b_lost;
                        if sound && !a.fenced && b.fenced {
                            assert!(serving[0] || of_a == Decision::Ask, "{what}");
                            let follows = if b.asking { Decision::Ask } else { Decision::GoOn };
                            assert_eq!(of_b, follows, "{what}");
                        }
                        if sound && !a.fenced && !b.fenced {
                            assert_eq!([of_a, of_b], [Decision::Halt(Alarm::BothUnfenced); 2]);
                        }
                        // With both fenced somebody asks if somebody is to.
                        if sound && a.fenced && b.fenced && (a.prefer || b.prefer) {
                            assert!([of_a, of_b].contains(&Decision::Ask), "{what}");
                        }
                        match serving.contains(&true) {
                            true => one += 1,
                            false => none += 1,
                        }
                    }
                }
            }
        }
        assert!(one > 0 && none > 0);
    }
}
