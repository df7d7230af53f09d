//! The target of a resync dies in the middle of a copy, which its cache still has, and finds it equal by its
//! checksum; then its power fails.

use super::*;

impl Scene {
    /// Rounds and copies go on as far as they can.
    fn resync(&self) {
        for _ in 0..6 {
            for at in [A, B] {
                self.reflect(at);
                self.checkpoint(at);
                while self.0.climb(at) {}
            }
            self.carry();
        }
    }
}

#[test]
pub(super) fn what_is_found_equal_is_durable() {
    // At each of its disk's calls.
    for after in 0.. {
        let scene = Scene::new();
        scene.write_durably(A, X);
        scene.carry();
        scene.0.suspend();
        scene.write_durably(A, Y);
        scene.0.machines[B].disk.arm(after, Trouble::Death, 1);
        scene.resync();
        let has_died = scene.device(B).status().halted.is_some();
        scene.kill(B);
        scene.meet();
        scene.resync();
        scene.power_cut(B, Leaves::Nothing, 1);
        scene.meet();
        scene.ends();
        if !has_died {
            break;
        }
    }
}
