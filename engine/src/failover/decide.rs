//! The decision to serve, after a restart and at every hello (R13, R10): one pure function.
//!
//! `fenced` is durable. *Proven* is not: a device that wakes up unfenced does not know whether the
//! other one was forced to take over meanwhile (R11), so it serves no host until the peer by its
//! hello, or an operator, says that it was not.
//!
//! Without the peer, the first row that holds. A request is a host's, to a device that was found
//! not to serve; it learns why.
//!
//! | this device | opening | operator | request |
//! |---|---|---|---|
//! | serving | goes on | goes on | goes on |
//! | has lost durable records, as a hello has shown | (cannot be yet) | waits: `Lost` | waits: `Lost` |
//! | asking for the host | waits: `Asking` | waits: `Asking` | waits: `Asking` |
//! | fenced | waits: `Fenced` | waits: `Fenced` | waits: `Fenced` |
//! | fenced here | waits: `FencedHere` | as if it were not | waits: `FencedHere` |
//! | unfenced, `hi < need` or `owed`: what is missing is at the peer | waits: `Behind` | waits: `Behind` | waits: `Behind` |
//! | unfenced, caught up | serves if `resume_alone` is set, else waits: `Unproven` | serves | waits: `Unproven` |
//!
//! At a hello, the first row that holds; what the peer says of itself has "its":
//!
//! | this device | the peer's hello | does |
//! |---|---|---|
//! | any | its history has parted from this one's (D10) | refuses: stamps cannot be compared |
//! | any | its history has come by this one's: it was forced to take over | returns: fences itself, and becomes its target |
//! | unfenced, asking | its history is one that this one has come by: it returns | asks again |
//! | fenced here | it returns | serves nobody, and is its source |
//! | unfenced, `hi >= need` | it returns | serves, or serves on: nothing was forced above this device |
//! | unfenced | it returns, and its `epoch` > `epoch`: the answer to a request was lost | asks |
//! | unfenced, `hi < need` | it returns | asks |
//! | unfenced | unfenced | halts (as the peer does): two histories, an operator must choose |
//! | any, has served since its opening | its `hi` or `told` > `newest`: it knows of what this device never wrote | refuses: untrue |
//! | any | its `hi` or `told` > `newest`: it knows of what this device no longer has | refuses: this device lost durable records |
//! | unfenced, has served since its opening | fenced, in a round of the same tenure that this device never began | refuses: untrue |
//! | unfenced | fenced, in a round of the same tenure that this device must have begun | refuses: this device lost durable records |
//! | fenced, has served since its opening | unfenced, its `epoch` > `epoch`: it serves under a tenure that this device never granted | refuses: untrue |
//! | fenced | unfenced, its `epoch` > `epoch`: it serves under a tenure that this device must have granted | refuses: this device lost durable records |
//! | any | its `hi` < `acked`: it lacks what it acknowledged | refuses: the peer lost durable records |
//! | any | its `newest` < `hi` or `need`: it lacks what it shipped or promised | refuses: the peer lost durable records |
//! | any | it is below a round that it was in: it lacks its table, and copies | refuses: the peer lost durable records |
//! | unfenced | fenced, its `epoch` < `epoch`: it lacks what it granted | refuses: the peer lost durable records |
//! | asking for the host | any other | asks again: the request or its answer was lost |
//! | fenced, `prefer` | fenced, not asking | asks for the host |
//! | fenced | any other | follows: a device asks for the host when its driver calls for it |
//! | fenced here | any other | serves nobody, and goes on shipping |
//! | unfenced | its `epoch` > `epoch` | asks: the answer to a request was lost |
//! | serving | any other | goes on; with a debt in hand it is still good |
//! | `hi >= need` | any other | serves: no takeover was forced meanwhile; with `owed` it asks for the peer's table (D8) |
//! | `hi < need` | any other | asks: a restart loses the prototype (S20) |
//!
//! A device that has served since its opening knows its newest stamp and the tenures it granted: no
//! hello can prove otherwise, so it drops the connection, counts it, and goes on. A device that has
//! not served is not believed against its peer: it serves nobody until a hello agrees with its logs.
//!
//! An unfenced device that hears of a higher epoch asks, whether it serves or not: it gets the
//! tenure that its peer granted last, or a newer one, with a prototype that is right whatever was
//! lost. At most one device of a pair ends up serving: the other is fenced in every row that
//! serves.

use crate::unit::Stamp;
use crate::weaken::{Clause, holds};

/// How this device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    /// It refuses hosts, durably.
    pub fenced: bool,
    /// An operator has fenced it, durably, and it holds its tenure: it is unfenced to its peer.
    pub fenced_here: bool,
    /// It has shown that it may serve, and does.
    pub serving: bool,
    /// It has served since its opening: it knows what it wrote and granted.
    pub served: bool,
    /// A hello has shown that it lost durable records, and none has agreed with it since.
    pub lost: bool,
    /// It has a takeover request open; then it does not serve.
    pub asking: bool,
    /// The setting: with both fenced, this one asks.
    pub prefer: bool,
    /// The setting: it need not hear from the peer.
    pub resume_alone: bool,
    /// The highest tenure granted or held.
    pub epoch: u64,
    /// The newest own record.
    pub newest: Stamp,
    /// The newest own record that the peer acknowledged.
    pub acked: Stamp,
    /// The newest record received.
    pub hi: Stamp,
    /// The newest record that the peer owed when this device last became active.
    pub need: Stamp,
    /// The peer may owe blocks that only bits tell of (D8).
    pub owed: bool,
}

/// How the peer's history stands to this device's (D10): a lineage that has come by another stands above it,
/// as a forced takeover begins one that has come by all that the device had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kin {
    /// One history.
    Same,
    /// The peer returns: this device's lineage has come by the peer's.
    Below,
    /// This device returns: the peer's lineage has come by this one's.
    Above,
    /// Neither has come by the other.
    Apart,
}

/// The peer, as its hello describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// How its history stands to this device's.
    pub kin: Kin,
    /// It is fenced.
    pub fenced: bool,
    /// It has a takeover request open.
    pub asking: bool,
    /// The highest tenure it granted or held.
    pub epoch: u64,
    /// Its newest own record.
    pub newest: Stamp,
    /// The newest record it received.
    pub hi: Stamp,
    /// The newest record it was told of (R18), or knows of by its clock: durable when it was told.
    pub told: Stamp,
    /// It is below a round of differential mode that it was in (D3): that was durable before it said so.
    pub lost_round: bool,
    /// It is fenced, and in a round of the tenure of this device, unfenced, that is above this device's (D3): the
    /// unfenced device has every round first, and durably.
    pub new_round: bool,
}

/// Why there is something to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The device is opened.
    Opening,
    /// An operator vouches that the peer does not serve.
    Operator,
    /// A host asks for something, or for a session.
    Request,
    /// The peer said hello.
    Hello(Heard),
}

/// The action to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Begin to serve under the epoch held.
    Serve,
    /// Nothing changes.
    GoOn,
    /// Ask the peer for the host, with a new prototype.
    Ask,
    /// Be fenced, durably, and follow the peer, which was forced to take over (D10).
    Return,
    /// Serve nobody, because of this.
    Wait(Wait),
    /// Do not open the device, or give the connection up, because of this.
    Refuse(Refusal),
    /// Stop for good, because of this.
    Halt(Alarm),
}

/// Why a device serves nobody for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It lost durable records and must be resynchronised.
    Lost,
    /// A request of its own will decide.
    Asking,
    /// The host belongs at the other device.
    Fenced,
    /// An operator has fenced the device, and nobody has taken the host.
    FencedHere,
    /// The peer may owe records or blocks that are not here.
    Behind,
    /// Neither the peer's hello nor an operator has said that the peer was not forced to take over.
    Unproven,
}

/// Why a device is not opened, or a peer not spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The histories have parted.
    Lineage,
    /// The peer lost durable records.
    LostThere,
    /// This device lost durable records.
    LostHere,
    /// The peer says it has what this device surely never wrote or granted.
    Untrue,
}

/// Why a device stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Both devices are unfenced.
    BothUnfenced,
}

/// The decision on `occasion`: the tables of this module.
pub fn decide(here: Here, occasion: Occasion) -> Decision {
    use Decision::{Ask, GoOn, Halt, Refuse, Return, Serve};
    use Occasion::{Hello, Opening, Operator, Request};
    let Here { fenced, serving, served, asking, prefer, epoch, hi, need, .. } = here;
    let fenced_here = here.fenced_here && holds(Clause::FencedHere);
    match occasion {
        Opening | Operator | Request if serving => GoOn,
        Opening | Operator | Request if here.lost => Decision::Wait(Wait::Lost),
        Opening | Operator | Request if asking => Decision::Wait(Wait::Asking),
        Opening | Operator | Request if fenced => Decision::Wait(Wait::Fenced),
        Opening | Request if fenced_here => Decision::Wait(Wait::FencedHere),
        Opening | Operator | Request if (hi < need || here.owed) && holds(Clause::AskAgain) => {
            Decision::Wait(Wait::Behind)
        }
        Operator => Serve,
        Opening if here.resume_alone || !holds(Clause::Proven) => Serve,
        Opening | Request => Decision::Wait(Wait::Unproven),

        Hello(Heard { kin: Kin::Apart, .. }) => Refuse(Refusal::Lineage),
        Hello(Heard { kin: Kin::Above, .. }) => Return,
        Hello(peer) if peer.kin == Kin::Below && !fenced => match () {
            () if asking => Ask,
            () if fenced_here => GoOn,
            () if hi < need || peer.epoch > epoch => Ask,
            () if serving => GoOn,
            () => Serve,
        },
        Hello(peer) if !fenced && !peer.fenced => Halt(Alarm::BothUnfenced),
        Hello(peer) if knows_of_loss(here, peer) && served => Refuse(Refusal::Untrue),
        Hello(peer) if knows_of_loss(here, peer) && holds(Clause::LostHere) => {
            Refuse(Refusal::LostHere)
        }
        Hello(peer) if has_lost(here, peer) && holds(Clause::LostThere) => {
            Refuse(Refusal::LostThere)
        }
        Hello(peer) if !fenced && peer.epoch < epoch && holds(Clause::LostThere) => {
            Refuse(Refusal::LostThere)
        }
        Hello(_) if asking => Ask,
        Hello(peer) if fenced && peer.fenced && !peer.asking && prefer => Ask,
        Hello(_) if fenced || fenced_here => GoOn,
        Hello(peer) if peer.epoch > epoch => Ask,
        Hello(_) if serving => GoOn,
        Hello(_) if hi >= need || !holds(Clause::AskAgain) => Serve,
        Hello(_) => Ask,
    }
}

/// Whether the peer has of this device's what this device has not: records, a tenure, or a round. A tenure above all
/// that were granted here is one that a forced takeover began, if the peer's lineage says so.
pub(super) fn knows_of_loss(here: Here, peer: Heard) -> bool {
    let unknown = peer.kin == Kin::Same && here.fenced && !peer.fenced && peer.epoch > here.epoch;
    peer.hi.max(peer.told) > here.newest || unknown || peer.new_round
}

/// Whether the peer has not what it must have received or written.
pub(super) fn has_lost(here: Here, peer: Heard) -> bool {
    peer.hi < here.acked || peer.newest < here.hi.max(here.need) || peer.lost_round
}

#[cfg(all(test, not(loom)))]
pub(super) mod tests {
    use super::Alarm::*;
    use super::Decision::*;
    use super::Refusal::*;
    use super::Wait::*;
    use super::*;

    /// The digits of a number, each to its own base: counting goes through every combination.
    pub(in super::super) struct Digits(pub u64);

    impl Digits {
        pub fn below(&mut self, base: u64) -> u64 {
            let digit = self.0 % base;
            self.0 /= base;
            digit
        }

        pub fn bit(&mut self) -> bool {
            self.below(2) == 1
        }

        /// One of two: enough for any two of them to be less, equal and greater.
        pub fn stamp(&mut self) -> Stamp {
            Stamp { epoch: 1, time: self.below(2), sequence: 0 }
        }
    }

    /// Every state a device can be in: a device that is fenced, asks, or has lost records does not
    /// serve; one that serves has served.
    fn heres() -> impl Iterator<Item = Here> {
        let all = (0..1 << 13).map(Digits).map(|mut n| Here {
            fenced: n.bit(),
            fenced_here: n.bit(),
            serving: n.bit(),
            served: n.bit(),
            lost: n.bit(),
            asking: n.bit(),
            prefer: n.bit(),
            resume_alone: n.bit(),
            epoch: 2,
            newest: n.stamp(),
            acked: n.stamp(),
            hi: n.stamp(),
            need: n.stamp(),
            owed: n.bit(),
        });
        all.filter(|here| !(here.fenced_here && (here.fenced || here.serving)))
            .filter(|here| !(here.serving && (here.fenced || here.asking || !here.served)))
            .filter(|here| !(here.served && here.lost))
    }

    const KINS: [Kin; 4] = [Kin::Same, Kin::Below, Kin::Above, Kin::Apart];

    fn hellos() -> impl Iterator<Item = Heard> {
        (0..12 << 7).map(Digits).map(|mut n| Heard {
            kin: KINS[n.below(4) as usize],
            fenced: n.bit(),
            asking: n.bit(),
            epoch: 1 + n.below(3),
            newest: n.stamp(),
            hi: n.stamp(),
            told: n.stamp(),
            lost_round: n.bit(),
            new_round: n.bit(),
        })
    }

    /// Miri looks at a sample.
    const STEP: usize = if cfg!(miri) { 9973 } else { 1 };

    /// When it holds, and what is done then.
    type Row<T> = (fn(&Here, &T) -> bool, Decision);

    /// The decision of the first of `rows` that holds, which is also counted in `hits`.
    fn first<T>(rows: &[Row<T>], hits: &mut [u64], here: &Here, input: &T) -> Decision {
        let row = rows.iter().position(|(holds, _)| holds(here, input)).expect("a row");
        hits[row] += 1;
        rows[row].1
    }

    #[test]
    fn without_the_peer_the_first_row_that_holds() {
        use Occasion::{Opening, Operator, Request};
        let rows: [Row<Occasion>; 11] = [
            (|h, _| h.serving, GoOn),
            (|h, _| h.lost, Wait(Lost)),
            (|h, _| h.asking, Wait(Asking)),
            (|h, _| h.fenced, Wait(Fenced)),
            (|h, o| h.fenced_here && *o != Operator, Wait(FencedHere)),
            (|h, _| h.need > h.hi, Wait(Behind)),
            (|h, _| h.owed, Wait(Behind)),
            (|_, o| *o == Operator, Serve),
            (|_, o| *o == Request, Wait(Unproven)),
            (|h, _| h.resume_alone, Serve),
            (|h, _| !h.resume_alone, Wait(Unproven)),
        ];
        let mut hits = [0; 11];
        for here in heres().step_by(if cfg!(miri) { 7 } else { 1 }) {
            for occasion in [Opening, Operator, Request] {
                let expected = first(&rows, &mut hits, &here, &occasion);
                assert_eq!(decide(here, occasion), expected, "{here:?} on {occasion:?}");
            }
        }
        assert!(!hits.contains(&0), "rows that never hold: {hits:?}");
    }

    #[test]
    fn at_a_hello_the_first_row_that_holds() {
        let rows: [Row<Heard>; 28] = [
            (|_, p| p.kin == Kin::Apart, Refuse(Lineage)),
            (|_, p| p.kin == Kin::Above, Return),
            (|h, p| p.kin == Kin::Below && !h.fenced && h.asking, Ask),
            (|h, p| p.kin == Kin::Below && h.fenced_here, GoOn),
            (|h, p| p.kin == Kin::Below && !h.fenced && h.need > h.hi, Ask),
            (|h, p| p.kin == Kin::Below && !h.fenced && h.epoch < p.epoch, Ask),
            (|h, p| p.kin == Kin::Below && h.serving, GoOn),
            (|h, p| p.kin == Kin::Below && !h.fenced, Serve),
            (|h, p| !h.fenced && !p.fenced, Halt(BothUnfenced)),
            (|h, p| h.newest < p.hi.max(p.told) && h.served, Refuse(Untrue)),
            (|h, p| h.newest < p.hi.max(p.told), Refuse(LostHere)),
            (|h, p| unknown(h, p) && h.served, Refuse(Untrue)),
            (|h, p| unknown(h, p), Refuse(LostHere)),
            (|h, p| p.new_round && h.served, Refuse(Untrue)),
            (|_, p| p.new_round, Refuse(LostHere)),
            (|h, p| h.acked > p.hi, Refuse(LostThere)),
            (|h, p| h.hi > p.newest, Refuse(LostThere)),
            (|h, p| h.need > p.newest, Refuse(LostThere)),
            (|_, p| p.lost_round, Refuse(LostThere)),
            (|h, p| !h.fenced && p.fenced && h.epoch > p.epoch, Refuse(LostThere)),
            (|h, _| h.asking, Ask),
            (|h, p| h.fenced && h.prefer && p.fenced && !p.asking, Ask),
            (|h, _| h.fenced, GoOn),
            (|h, _| h.fenced_here, GoOn),
            (|h, p| h.epoch < p.epoch, Ask),
            (|h, _| h.serving, GoOn),
            (|h, _| h.hi >= h.need, Serve),
            (|h, _| h.hi < h.need, Ask),
        ];
        fn unknown(h: &Here, p: &Heard) -> bool {
            p.kin == Kin::Same && h.fenced && !p.fenced && h.epoch < p.epoch
        }
        let mut hits = [0; 28];
        let combinations = heres().flat_map(|here| hellos().map(move |peer| (here, peer)));
        for (here, peer) in combinations.step_by(STEP) {
            let expected = first(&rows, &mut hits, &here, &peer);
            let decision = decide(here, Occasion::Hello(peer));
            assert_eq!(decision, expected, "{here:?} hears {peer:?}");
        }
        assert!(!hits.contains(&0) || cfg!(miri), "rows that never hold: {hits:?}");
    }

    fn hello(kin: Kin, of: Here) -> Heard {
        let Here { fenced, asking, epoch, newest, hi, .. } = of;
        let (told, lost_round, new_round) = (Stamp::ZERO, false, false);
        Heard { kin, fenced, asking, epoch, newest, hi, told, lost_round, new_round }
    }

    fn serves_after(here: Here, decision: Decision) -> bool {
        match decision {
            Serve => true,
            // The connection is given up; the device goes on as it was.
            GoOn | Refuse(_) => here.serving,
            Ask | Return | Decision::Wait(_) | Halt(_) => false,
        }
    }

    /// Neither has lost anything, as far as the other one can tell.
    fn are_sound(a: Here, b: Here) -> bool {
        let keeps = |one: Here, other: Here| {
            let granted = !one.fenced || other.fenced || one.epoch >= other.epoch;
            granted && one.newest >= other.hi.max(other.need) && one.hi >= other.acked
        };
        keeps(a, b) && keeps(b, a)
    }

    /// Both sides decide on each other's hello: every pair of states.
    #[test]
    fn of_two_that_meet_one_serves_or_none() {
        let states: Vec<Here> = heres().filter(|h| !h.resume_alone && !h.lost && !h.owed).collect();
        let mut met = [0u64; 2];
        let pairs = states.iter().flat_map(|&a| states.iter().map(move |&b| (a, b)));
        let pairs = pairs.flat_map(|(a, b)| {
            [(1, Kin::Same), (2, Kin::Same), (3, Kin::Same), (2, Kin::Apart), (2, Kin::Above)]
                .map(|(epoch, kin)| (a, Here { epoch, ..b }, kin))
        });
        for (a, b, kin) in pairs.step_by(STEP) {
            let back = if kin == Kin::Above { Kin::Below } else { kin };
            let of_a = decide(a, Occasion::Hello(hello(kin, b)));
            let of_b = decide(b, Occasion::Hello(hello(back, a)));
            let what = || format!("{a:?}: {of_a:?}; {b:?}: {of_b:?}");
            let serving = [serves_after(a, of_a), serves_after(b, of_b)];
            // Lineages tell two histories apart: a device does not stop for one of another pair.
            let parted = kin == Kin::Apart && a.serving && b.serving;
            assert!(serving != [true; 2] || parted, "{}", what());
            // A device that serves is not stopped without cause.
            if a.serving && !serving[0] {
                let cause = !b.fenced || b.epoch > a.epoch || !are_sound(a, b) || kin == Kin::Above;
                assert!(cause, "{}", what());
            }
            if are_sound(a, b) && kin == Kin::Same {
                match (a.fenced, b.fenced) {
                    (false, false) => assert_eq!([of_a, of_b], [Halt(BothUnfenced); 2]),
                    // An unfenced device ends up serving, or asks.
                    (false, true) if a.fenced_here => {
                        assert_eq!(of_a, if a.asking { Ask } else { GoOn }, "{}", what());
                    }
                    (false, true) => {
                        assert!(serving[0] || of_a == Ask, "{}", what());
                        assert_eq!(of_b, if b.asking { Ask } else { GoOn }, "{}", what());
                    }
                    // With both fenced a device asks if at least one prefers the host.
                    (true, true) if a.prefer || b.prefer => {
                        assert!([of_a, of_b].contains(&Ask), "{}", what());
                    }
                    _ => {}
                }
            }
            met[usize::from(serving.contains(&true))] += 1;
        }
        assert!(met[0] > 0 && met[1] > 0);
    }
}
