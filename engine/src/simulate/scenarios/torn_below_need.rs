//! S34: the need of a new tenure is raised over records that are in N and in no checkpoint. A power
//! cut then keeps some of their sectors, and the peer stays silent: N is a prefix all the same.

use super::*;

/// A new pair whose host is at B, and has written Y, then X.
fn begin() -> (Scene, [Value; 2]) {
    let scene = Scene::new();
    scene.takeover(B);
    let y = scene.write_durably(B, Y);
    let x = scene.write_durably(B, X);
    (scene, [x, y])
}

/// The host goes to A, which ships nothing of what it writes, and comes back: B needs more than it
/// has received.
fn there_and_back(scene: &Scene) {
    scene.takeover(A);
    scene.write_durably(A, 2);
    scene.takeover(B);
    assert_eq!(scene.device(B).status().owed_blocks, 1);
}

impl Scene {
    /// X and Y as they are in N of B.
    fn normal_of_b(&self) -> [Value; 2] {
        [X, Y].map(|block| self.0.normal(B, block as usize).expect("sound")[0])
    }

    /// The power of B has failed, and the peer is dead: if N of B is torn, which is returned, it
    /// becomes whole.
    fn becomes_whole(&self, written: [Value; 2]) -> bool {
        let [x, _] = written;
        let is_torn = self.normal_of_b() == [x, 0];
        if is_torn {
            self.0.start(B);
            self.holds();
            self.reflect(B);
            assert_eq!(self.normal_of_b(), written);
            self.ends();
        }
        is_torn
    }
}

#[test]
pub(super) fn s34_torn_below_need() {
    let torn = (0..16).filter(|&seed| {
        let (scene, written) = begin();
        scene.reflect(B);
        there_and_back(&scene);
        scene.power_cut(B, Leaves::Sectors, seed);
        scene.becomes_whole(written)
    });
    assert_ne!(torn.count(), 0, "no cut has kept X alone");
}

#[test]
pub(super) fn s34_amid_a_reflect_step() {
    for moment in [Moment::Reflecting, Moment::Reflected] {
        let torn = (0..16).filter(|&seed| {
            let (scene, written) = begin();
            scene.amid(moment, there_and_back, || scene.reflect(B));
            scene.power_cut(B, Leaves::Sectors, seed);
            scene.becomes_whole(written)
        });
        assert_ne!(torn.count(), 0, "{moment:?}: no cut has kept X alone");
    }
}

/// Between two power cuts B was opened, and reflected nothing.
#[test]
pub(super) fn s34_after_an_opening() {
    let torn = (0..16).filter(|&seed| {
        let (scene, written) = begin();
        scene.reflect(B);
        scene.power_cut(B, Leaves::Sectors, seed);
        scene.meet();
        scene.meet();
        there_and_back(&scene);
        scene.power_cut(B, Leaves::Nothing, seed);
        scene.becomes_whole(written)
    });
    assert_ne!(torn.count(), 0, "no cut has kept X alone");
}

/// A received record that stood in no checkpoint when the need was raised rots in the log, behind
/// everything that says what was durable. It is missed at the opening: the peer ships it again, and it
/// must not go over what B wrote later.
#[test]
pub(super) fn s34_rot_below_whole() {
    let refused = (0..64).filter(|&seed| {
        let scene = Scene::new();
        scene.write_durably(A, X);
        scene.carry();
        scene.takeover(B);
        let newest = scene.write_durably(B, X);
        there_and_back(&scene);
        [A, B].into_iter().for_each(|at| scene.power_cut(at, Leaves::Nothing, seed));
        scene.0.rot(B, &mut Random::new(seed));
        scene.meet();
        let is_refused = scene.0.device(B).is_none();
        if !is_refused {
            scene.reflect(B);
            scene.carry();
            scene.reflect(B);
            assert_eq!(scene.normal_of_b()[0], newest);
        }
        scene.holds();
        is_refused
    });
    assert_ne!(refused.count(), 0, "no rot has hit the record");
}
