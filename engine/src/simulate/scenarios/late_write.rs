//! S37: a write waits for room, its host's connection dies or only seems to live, and the host comes
//! back on a new one, repeats the write, and writes newer data: the old request is never admitted. A
//! second connection that only reads disturbs nobody.

use super::*;

/// A is alone, and its journal is full; the last write, of X, waits for room.
fn begin() -> (Scene, Value) {
    let scene = Scene::new();
    scene.cut();
    let mut last = 0;
    while scene.0.machines[A].asked.borrow().is_empty() {
        last = scene.write(A, X);
        scene.commit(A);
        scene.reflect(A);
        scene.checkpoint(A);
        assert!(last < 10_000, "the journal never fills");
    }
    assert!(!scene.was_admitted(last));
    (scene, last)
}

impl Scene {
    /// B takes what A ships, and A has room again.
    fn make_room(&self) {
        self.meet();
        for _ in 0..4 {
            self.carry();
            [A, B].into_iter().for_each(|at| self.reflect(at));
            [A, B].into_iter().for_each(|at| self.checkpoint(at));
        }
        self.talk();
    }

    fn superseded(&self) -> u64 {
        self.0.tape.counted("requests of superseded sessions")
    }
}

#[test]
pub(super) fn s37_late_write() {
    let (scene, late) = begin();
    scene.0.come_back(A, true);
    scene.make_room();
    scene.holds();
    assert!(!scene.was_admitted(late), "its connection was known to be dead");
    assert_eq!(scene.0.tape.counted("requests of revoked sessions"), 1);
    let repeated = scene.write(A, X);
    let newer = scene.write(A, X);
    assert!(scene.was_admitted(repeated));
    assert!(scene.ends()[X as usize] >= newer);
}

#[test]
pub(super) fn s37_seems_to_live() {
    let (scene, late) = begin();
    scene.0.come_back(A, false);
    // It waits for room, too.
    let repeated = scene.write(A, X);
    assert_eq!(scene.superseded(), 0, "nobody has looked at the late one since");
    let other = scene.0.open_session(A).expect("A serves");
    other.read(0, 0, &mut [0; 512]).expect("it only reads");
    scene.make_room();
    scene.holds();
    assert_eq!(scene.superseded(), 1);
    assert!(!scene.was_admitted(late) && scene.was_admitted(repeated));
    let newer = scene.write(A, X);
    assert!(scene.was_admitted(newer), "the one that reads disturbs nobody");
    assert!(scene.ends()[X as usize] >= newer);
}

/// A write of a part of a block has taken its turn (R15) when its connection dies: the host's next
/// write of the block does not wait for it.
#[test]
pub(super) fn s37_turn_of_a_dead_connection() {
    let scene = Scene::of(1024, |_| {});
    let all = |scene: &Scene| {
        scene.order(A, What::Write, X, 2);
    };
    scene.amid(Moment::Located, all, || {
        let session = scene.0.session(A).expect("A serves");
        let (late, fua, time, soon, volume) = (false, false, None, false, 0);
        let order = Order { what: What::Write, volume, sectors: 0..1, fua, late, time, soon };
        scene.0.issue(A, session, order);
    });
    assert!(scene.device(A).host.turns.are_taken(), "it was overtaken until it took its turn");
    scene.0.come_back(A, true);
    let newer = scene.write(A, X);
    assert!(scene.was_admitted(newer));
    scene.ends();
}

/// The host comes back amid the admission: what has its places is admitted before, what has not is
/// refused.
#[test]
pub(super) fn s37_amid_the_admission() {
    for moment in [Moment::Located, Moment::Reserved] {
        let scene = Scene::of(1024, |_| {});
        let back = |scene: &Scene| {
            if scene.device(A).status().epoch == 1
                && scene.0.tape.counted("hosts that came back") == 0
            {
                scene.0.come_back(A, false);
                scene.order(A, What::Write, 2, 2);
            }
        };
        // A part of a block: its rest is read before it is admitted.
        let late = scene.amid(moment, back, || scene.order(A, What::Write, X, 1));
        assert_eq!(scene.was_admitted(late), moment == Moment::Reserved, "{moment:?}");
        scene.holds();
        scene.ends();
    }
}
