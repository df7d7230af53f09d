//! A disk that lies about syncs, and a power cut: what the peer was told of, and is lost, is noticed.

use super::*;

/// A hands over one of two records that its disk never wrote, and nothing of the second.
#[test]
fn what_was_told_and_is_lost_is_noticed() {
    let scene = Scene::with(|settings| settings.piece_entries_max = 1);
    scene.0.lie(A);
    scene.write_durably(A, X);
    scene.write_durably(A, Y);
    scene.0.ask_for_host(B);
    let is_told = || scene.device(B).peer.owed.told().last() > Stamp::ZERO;
    while !is_told() {
        scene.0.control(A);
        while scene.0.control(B) {}
    }
    assert!(!scene.serves(B), "the second piece is not sent yet");
    scene.power_cut(A, Leaves::Nothing, 1);
    scene.0.start(A);
    scene.holds();
    assert_eq!(scene.0.tape.counted("lost durable records noticed"), 1);
    assert_eq!(scene.device(A).status().lost.map(|why| why.kind()), Some(crate::Kind::Damaged));
    assert!(!scene.serves(A));
}
