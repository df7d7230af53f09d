//! A connection begins in both lanes at once: what is shipped to a device that has not read the
//! hello yet waits for it.

use afterimage::Device;
use afterimage::clock::{Clock, SystemClock};
use afterimage::format::superblock::VolumeSpec;
use afterimage::limits::{Geometry, Settings};
use afterimage::link::{Line, memory_link};
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
