//! A discard without a record (R17) beside what is in no volume yet.

use super::*;

/// The only record of a block is reflected and freed between two looks of a discard.
#[test]
pub(super) fn a_record_that_leaves_amid_a_look() {
    let scene = Scene::new();
    scene.write_durably(A, X);
    scene.carry();
    let leaves = |scene: &Scene| {
        scene.reflect(A);
        scene.checkpoint(A);
    };
    let discard = scene.amid(Moment::Looking, leaves, || scene.order(A, What::Discard, X, 1));
    assert!(scene.was_admitted(discard), "its block held data all the time");
    assert_eq!(scene.ends()[X as usize], 0);
}
