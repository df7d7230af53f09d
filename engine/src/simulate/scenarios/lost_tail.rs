//! S38: a crash takes completed writes, and hosts are refused until somebody has accepted that, also
//! if the host has moved or the device was closed before the word. Writes that outlive the crash by
//! their durability, and a standby's crash, lose nothing and refuse nobody.

use super::*;
use crate::error::Kind;
use crate::limits::Durability;

fn with(durability: Durability) -> Scene {
    Scene::with(|settings| settings.durability = durability)
}

/// Whether a host is refused at `at`, and told of a loss.
fn refuses(scene: &Scene, at: Side) -> bool {
    let refused = scene.device(at).session().err();
    refused.is_some_and(|error| error.kind() == Kind::LostWrites)
}

/// A has lost a completed write of Y to a power cut, and stands in connection with B again; X is
/// durable.
fn begin() -> (Scene, Value) {
    let scene = with(Durability::VolatileCache);
    let x = scene.write_durably(A, X);
    scene.write(A, Y);
    scene.power_cut(A, Leaves::Nothing, 1);
    scene.meet_with_loss();
    assert_eq!(scene.0.tape.counted("crashes that took completed writes"), 1);
    assert!(scene.device(A).recovery().lost_writes && scene.serves(A));
    (scene, x)
}

/// Somebody accepts the loss at `at`: hosts are served, and neither device has the mark any more.
fn accept(scene: &Scene, at: Side, x: Value) {
    assert!(scene.device(1 - at).accept_loss().is_err_and(|e| e.kind() == Kind::Fenced));
    assert!(refuses(scene, at));
    scene.0.accept_loss(at);
    scene.talk();
    assert!([A, B].iter().all(|&at| scene.device(at).status().lost_writes.is_none()));
    scene.read(at, Y);
    scene.write_durably(at, Y);
    assert!(scene.ends()[X as usize] >= x);
}

#[test]
pub(super) fn s38_lost_tail() {
    let (scene, x) = begin();
    assert!(refuses(&scene, A));
    // Replication goes on.
    scene.carry();
    assert_eq!(scene.device(A).status().backlog_records, 0);
    accept(&scene, A, x);
}

/// The mark does not count as lost the records that were in the volumes at the last superblock.
#[test]
fn s38_says_since_when() {
    let scene = with(Durability::VolatileCache);
    scene.write_durably(A, X);
    scene.carry();
    scene.reflect(A);
    scene.checkpoint(A);
    let kept = scene.device(A).superblock.get().fl;
    scene.write(A, Y);
    scene.power_cut(A, Leaves::Nothing, 1);
    scene.meet_with_loss();
    let lost = scene.device(A).status().lost_writes.expect("it has lost Y");
    assert!(kept.time > 0 && lost.since == kept.time, "{lost:?}");
    assert_eq!(lost.first, Stamp::ZERO, "Y left nothing in the log");
}

/// A record whose header outlives the power cut, and whose data does not, is named.
#[test]
fn s38_says_which() {
    let named = (0..32).filter(|&seed| {
        let scene = with(Durability::Written);
        scene.write_durably(A, X);
        scene.write(A, Y);
        let lost = scene.device(A).own.journal.queue.newest(scene.0.plan.block(Y as usize)).0;
        let lost = lost.expect("it was written").stamp;
        scene.power_cut(A, Leaves::Sectors, seed);
        scene.meet_with_loss();
        let mark = scene.device(A).status().lost_writes.expect("the power has failed");
        assert!([Stamp::ZERO, lost].contains(&mark.first), "{mark:?}, lost is {lost}");
        mark.first == lost
    });
    assert!(named.count() > 0);
}

#[test]
pub(super) fn s38_closed_before_the_word() {
    let (scene, x) = begin();
    scene.0.close(A);
    scene.meet_with_loss();
    assert!(scene.device(A).recovery().clean && scene.serves(A));
    accept(&scene, A, x);
}

#[test]
pub(super) fn s38_taken_over_before_the_word() {
    let (scene, x) = begin();
    scene.takeover(B);
    // It has it durably, too.
    scene.kill(B);
    scene.meet_with_loss();
    scene.meet_with_loss();
    assert!(scene.serves(B));
    accept(&scene, B, x);
}

/// The loss is accepted while the two are apart: the other device hears of it by the next hello.
#[test]
fn s38_accepted_apart() {
    let (scene, x) = begin();
    scene.takeover(B);
    scene.cut();
    scene.0.accept_loss(B);
    assert!(scene.device(A).status().lost_writes.is_some());
    scene.meet_with_loss();
    scene.takeover(A);
    assert!(!refuses(&scene, A));
    assert!(scene.ends()[X as usize] >= x);
}

#[test]
pub(super) fn s38_written() {
    // The process alone dies.
    let scene = with(Durability::Written);
    let (x, y) = (scene.write(A, X), scene.write(A, Y));
    scene.kill(A);
    scene.meet_with_loss();
    scene.meet_with_loss();
    scene.holds();
    assert!(scene.serves(A) && !refuses(&scene, A));
    assert!(scene.was_admitted(x) && scene.was_admitted(y), "both are there");
    scene.read(A, Y);
    // The power fails.
    scene.write(A, Y);
    scene.power_cut(A, Leaves::Nothing, 1);
    scene.meet_with_loss();
    assert!(refuses(&scene, A));
    accept(&scene, A, x);
}

#[test]
fn s38_strict_and_standby() {
    for durability in [Durability::Strict, Durability::VolatileCache, Durability::Written] {
        let scene = with(durability);
        let x = scene.write_durably(A, X);
        scene.carry();
        // The standby crashes.
        scene.power_cut(B, Leaves::Nothing, 1);
        scene.meet_with_loss();
        scene.takeover(B);
        assert!(!refuses(&scene, B), "{durability:?}");
        scene.takeover(A);
        if durability == Durability::Strict {
            scene.power_cut(A, Leaves::Nothing, 2);
            scene.meet_with_loss();
            scene.meet_with_loss();
            assert!(scene.serves(A) && !refuses(&scene, A));
        }
        assert!(scene.ends()[X as usize] >= x);
    }
}
