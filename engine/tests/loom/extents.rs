//! Records of many blocks, and requests without a record (rules 5 and 6 of the queue).

use crate::{Device, block, check, check_within};
use afterimage::internal::queue::Insert;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64 as Word, Ordering};
use loom::thread;

/// Zeros over an extent, and a write of one of its blocks or zeros over another extent around it: the
/// one with the higher position has the higher stamp, and is the newest; a half that was completed
/// from what stood before the zeros does not come above them. With one preemption: with two there is
/// no end of it.
fn extent_and(level: u8, times: [u64; 2], is_partial: bool) {
    check_within(1, move || {
        let device = Device::new(8);
        let base = is_partial.then(|| {
            device.write_sealed(0, 1, None);
            device.queue.newest(block(1)).1
        });
        let wide = {
            let device = device.clone();
            thread::spawn(move || device.write_sealed(2, times[0], None))
        };
        let other = device.write_sealed(level, times[1], base);
        let [wide, other] = [wide.join().unwrap(), other].map(|insert| match insert {
            Insert::Published { first, stamp } => Some((first, stamp)),
            Insert::Stale | Insert::Full => None,
            other => panic!("{other:?}"),
        });
        if let (Some(wide), Some(other)) = (wide, other) {
            assert_eq!(wide.0 < other.0, wide.1 < other.1, "out of order: {wide:?} {other:?}");
            assert!(!is_partial || other.0 < wide.0, "a half above zeros that it has not read");
        }
        // Each may find the other in its way, as stale, and neither be there.
        let newest = [wide, other].into_iter().flatten().max().map(|published| published.0);
        let newest = newest.or(is_partial.then_some(1));
        assert_eq!(device.newest(1).map(|record| record.position), newest);
    });
}

#[test]
fn extent_and_block() {
    extent_and(0, [50, 90], false);
    extent_and(0, [90, 50], false);
}

#[test]
fn extent_and_half() {
    extent_and(0, [50, 90], true);
}

#[test]
fn extent_and_extent() {
    extent_and(1, [50, 90], false);
    extent_and(1, [90, 50], false);
}

/// A request without a record, beside the reflection of what was written before it: it finds the record
/// live, or the volume written (rule 6).
#[test]
fn no_record_and_reflection() {
    check(|| {
        let device = Device::new(2);
        device.write_one(1, 10);
        let volume = Arc::new(Word::new(0));
        let reflector = {
            let (device, volume) = (device.clone(), volume.clone());
            thread::spawn(move || {
                volume.store(1, Ordering::Relaxed);
                device.queue.release(2, 100);
                // Another block's record of the same region.
                device.write_one(2, 20);
            })
        };
        if !device.queue.may_have(block(1), 1) {
            assert_eq!(volume.load(Ordering::Relaxed), 1, "neither a record nor its data");
        }
        reflector.join().unwrap();
        assert!(device.queue.may_have(block(2), 1));
    });
}

/// A request without a record, beside a fence: admitted, all that it has looked at comes before what
/// follows the fence.
#[test]
fn no_record_and_fence() {
    check(|| {
        let device = Device::new(1);
        let looked = Arc::new(Word::new(0));
        let fence = {
            let (device, looked) = (device.clone(), looked.clone());
            thread::spawn(move || {
                device.clk.close();
                device.queue.horizon();
                looked.load(Ordering::Relaxed)
            })
        };
        looked.store(1, Ordering::Relaxed);
        let admitted = device.queue.admits(&device.clk, 1, || true);
        let seen = fence.join().unwrap();
        assert!(!admitted || seen == 1, "admitted behind the fence");
    });
}

/// A request without a record, beside the commit that notes the record it looks for: it finds the
/// record among those that are not noted, or by the counter of its region.
#[test]
fn no_record_and_commit() {
    check(|| {
        let device = Device::new(2);
        let Insert::Published { first, .. } = device.write_if(10, || true) else { panic!("alone") };
        let commit = {
            let device = device.clone();
            thread::spawn(move || device.queue.note(&[first], first + 1))
        };
        assert!(device.queue.may_have(block(1), 1), "a live record is missed");
        commit.join().unwrap();
        assert!(device.queue.may_have(block(1), 1), "a noted record is missed");
    });
}
