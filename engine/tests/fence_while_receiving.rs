//! A device that is catching up and loses the host again, just while records arrive that its
//! prototype spoke of, takes them as before: it does not take its peer for a liar.

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::event::Event;
use afterimage::internal::format::superblock::VolumeSpec;
use afterimage::internal::limits::{Geometry, Settings};
use afterimage::internal::link::{Line, memory_link};
use afterimage::internal::storage::Memory;
use afterimage::internal::threads::Threads;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[test]
fn a_takeover_while_catching_up_keeps_the_connection() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let broken = Arc::new(Mutex::new(None));
    let line = Line { rate: Some(20 << 20), delay_ns: 0 };
    let (end_a, end_b) = memory_link(line, clock.clone());
    let open = |device: u64, end| {
        let storage = Arc::new(Memory::new());
        let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 20 }];
        let geometry = Geometry::new(1, device, volumes);
        Device::create(&*storage, &geometry, device == 1).unwrap();
        // Patient, so that a machine that stops this process for a while is no failure.
        let settings = Settings { takeover_timeout_ns: 600_000_000_000, ..Settings::default() };
        let device = Device::open(storage, clock.clone(), settings).unwrap();
        let broken = broken.clone();
        device.on_event(move |event| {
            if let Event::Disconnected { why, .. } = event {
                *broken.lock().unwrap() = Some(why.to_string());
            }
        });
        let threads = Threads::start(&device).unwrap();
        device.connect(Arc::new(end)).unwrap();
        (device, threads)
    };
    let pair = [open(1, end_a), open(2, end_b)];
    while !pair.iter().all(|(device, _)| device.status().connected) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let began = Instant::now();
    let mut takeovers = 0usize;
    while began.elapsed() < Duration::from_secs(6) && broken.lock().unwrap().is_none() {
        let session = pair[takeovers % 2].0.session().unwrap();
        for number in 0..128u64 {
            session.write(0, number % 64 * 4096, &[takeovers as u8; 4096]).unwrap();
        }
        takeovers += 1;
        let device = &pair[takeovers % 2].0;
        let mut outcome = device.begin_takeover().err().map(Err);
        while outcome.is_none() && broken.lock().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
            outcome = device.poll_takeover();
        }
        if let Some(Err(error)) = outcome {
            broken.lock().unwrap().get_or_insert_with(|| error.to_string());
        }
    }
    let broken = broken.lock().unwrap().take();
    assert_eq!(broken, None, "after {takeovers} takeovers");
}
