//! A group on two devices: write on one, take over on the other, read there at once.
//!
//! `cargo run -p afterimage --example pair`

use afterimage::{
    Clock, Device, Geometry, Line, Memory, Settings, SystemClock, Threads, VolumeSpec, memory_link,
};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One volume of 1 GiB in a group of its own, on two devices; yours would be on disks.
    let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 30 }];
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let mut devices = Vec::new();
    for id in [1, 2] {
        let storage = Arc::new(Memory::new());
        Device::create(&*storage, &Geometry::new(7, id, volumes.clone()), id == 1)?;
        devices.push(Device::open(storage, clock.clone(), Settings::default())?);
    }
    let [a, b] = [&devices[0], &devices[1]];

    // The line between them carries 10 MiB/s and takes 5 ms each way.
    let line = Line { rate: Some(10 << 20), delay_ns: 5_000_000 };
    let (end_a, end_b) = memory_link(line, clock);
    let threads = [Threads::start(a)?, Threads::start(b)?];
    a.connect(Arc::new(end_a))?;
    b.connect(Arc::new(end_b))?;

    // A held the host last; it serves once it has heard that B does not.
    while !a.status().serving {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }

    // The host writes to A: 32 MiB in 4 KiB blocks, far more than the line carries meanwhile.
    let host = a.session()?;
    for n in 0..8192u64 {
        host.write(0, n * 4096, &[n as u8; 4096])?;
    }
    host.flush()?;

    // The host fails; another takes over at B, which does not wait for the copy to finish.
    while !b.status().connected {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let takeover = b.takeover()?;
    let ready = (takeover.ready_at - takeover.requested_at) as f64 / 1e6;
    println!("B serves after {ready:.1} ms; {} blocks are still at A", takeover.owed_blocks);

    // Whatever has not arrived yet is fetched on demand.
    let host = b.session()?;
    let mut data = [0; 4096];
    host.read(0, 8191 * 4096, &mut data)?;
    assert_eq!(data, [8191u64 as u8; 4096]);
    println!("the newest block is read at B, {} still to come", b.status().owed_blocks);

    drop(threads);
    a.close()?;
    b.close()?;
    Ok(())
}
