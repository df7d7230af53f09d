//! Connections: one begins in both lanes at once, so that what is shipped to a device that has not
//! read the hello yet waits for it; and what is left of one that has ended is nobody's.

use afterimage::Device;
use afterimage::clock::{Clock, SystemClock};
use afterimage::format::superblock::VolumeSpec;
use afterimage::limits::{Geometry, Settings};
use afterimage::link::{Lane, Line, Link, memory_link};
use afterimage::storage::Memory;
use std::sync::Arc;

#[test]
fn what_is_shipped_before_the_hello_is_read_is_not_lost() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let open = |id: u64| {
        let storage = Arc::new(Memory::new());
        let geometry = Geometry::new(1, id, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
        Device::create(&*storage, &geometry, id == 1).unwrap();
        Device::open(storage, clock.clone(), Settings::default()).unwrap()
    };
    let (a, b) = (open(1), open(2));
    let (end_a, end_b) = memory_link(Line::default(), clock.clone());
    a.connect(Arc::new(end_a)).unwrap();
    b.connect(Arc::new(end_b)).unwrap();
    assert!(a.step_control().unwrap(), "A reads B's hello");
    for block in 0..2 {
        a.session().unwrap().write(0, block * 4096, &[7; 4096]).unwrap();
        assert!(a.step_commit().unwrap());
        assert_eq!(a.step_ship().unwrap(), 1);
        assert_eq!(b.step_receive().unwrap(), 0, "B's control lane is slow");
    }
    while b.step_control().unwrap() || a.step_control().unwrap() {}
    assert_eq!(b.step_receive().unwrap(), 2);
    while a.step_control().unwrap() {}
    assert_eq!(a.status().backlog_records, 0);
}

/// What was sent over an earlier connection belongs to it (R5, R10): a request never fences, and
/// records are not taken.
#[test]
fn what_is_left_of_an_earlier_connection_is_ignored() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let disks = [1, 2].map(|id| {
        let disk = Arc::new(Memory::new());
        let geometry = Geometry::new(1, id, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
        Device::create(&*disk, &geometry, id == 1).unwrap();
        disk
    });
    let open =
        |at: usize| Device::open(disks[at].clone(), clock.clone(), Settings::default()).unwrap();
    let connect = |a: &Device, b: &Device| {
        let (end_a, end_b) = memory_link(Line::default(), clock.clone());
        let ends = [Arc::new(end_a), Arc::new(end_b)];
        a.connect(ends[0].clone()).unwrap();
        b.connect(ends[1].clone()).unwrap();
        while a.step_control().unwrap() || b.step_control().unwrap() {}
        assert!(a.status().connected && b.status().connected);
        ends
    };
    let (a, b) = (open(0), open(1));
    let first = connect(&a, &b);
    a.session().unwrap().write(0, 0, &[7; 4096]).unwrap();
    assert!(a.step_commit().unwrap());
    assert_eq!(a.step_ship().unwrap(), 1);
    b.begin_takeover().unwrap();
    let [to_a, to_b] = [(0, Lane::Control), (1, Lane::Data)]
        .map(|(at, lane): (usize, _)| first[at].receive(lane).unwrap().expect("a frame"));
    drop(b);
    let b = open(1);
    let [end_a, end_b] = connect(&a, &b);
    end_b.send(Lane::Control, to_a).unwrap();
    assert!(a.step_control().unwrap(), "it is taken from the line");
    assert!(a.status().serving, "and does not fence");
    end_a.send(Lane::Data, to_b).unwrap();
    assert_eq!(b.step_receive().unwrap(), 0);
    assert_eq!(a.step_ship().unwrap(), 1, "nothing was acknowledged");
    assert_eq!(b.step_receive().unwrap(), 1);
}
