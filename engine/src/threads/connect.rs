//! Keeping a device connected: a thread that gets links from a [`Connector`], and another when one has
//! ended.

use super::Threads;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::link::{Connector, Lane, Link};
use crate::sync::{Ordering, lock};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two attempts: doubled with each that fails, up to the second.
const PAUSE: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// How long a link is waited for at a time, and how soon the thread notices at the latest that it is
/// to stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// A peer that has not said hello in this time is not there, or hears nothing.
const HELLO: Duration = Duration::from_secs(5);

impl Threads {
    /// Keeps `device`, whose threads these are, connected by the links of `connector`, in one more
    /// thread. A link that fails is followed by another, at once if it has stood; else after 10 ms,
    /// twice as long each time up to a second, a random part of up to half of it less, so that many
    /// that lost their lines together do not come back together.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the system refuses a thread.
    pub fn keep_connected(
        &self,
        device: &Arc<Device>,
        mut connector: impl Connector + 'static,
    ) -> Result<()> {
        let (device, stop) = (device.clone(), self.stop.clone());
        let name = format!("{}-connect", device.geometry().device);
        let run = move || {
            wake_at_changes(&device);
            let mut pause = PAUSE[0];
            let goes_on = || !stop.load(Ordering::Acquire) && device.check_halted().is_ok();
            while goes_on() {
                let stands = lock(&device.failover).connection.peer().is_some();
                if stands {
                    pause = PAUSE[0];
                    if !connector.accepts() {
                        std::thread::park_timeout(PATIENCE);
                        continue;
                    }
                }
                match connector.connect(PATIENCE) {
                    Ok(None) => continue,
                    Ok(Some(link)) if device.says_hello(&link, stands, &goes_on) => continue,
                    Ok(Some(_)) | Err(_) => {}
                }
                let until = Instant::now() + less_by_chance(&device, pause);
                pause = PAUSE[1].min(2 * pause);
                while let left = until.saturating_duration_since(Instant::now())
                    && !left.is_zero()
                    && goes_on()
                {
                    std::thread::park_timeout(left.min(PATIENCE));
                }
            }
        };
        let spawned = std::thread::Builder::new().name(name).spawn(run);
        let handle = spawned.map_err(|e| Error::storage("starting a background thread", e))?;
        lock(&self.running).push(handle);
        Ok(())
    }
}

impl Device {
    /// Connects over `link` and waits until the peer has said hello too; whether it has. While a
    /// connection `stands`, the peer's hello is heard first: anybody may have dialled.
    fn says_hello(&self, link: &Arc<dyn Link>, stands: bool, goes_on: &impl Fn() -> bool) -> bool {
        let until = Instant::now() + HELLO;
        let begun = match stands {
            true => first_frame(link, until, goes_on)
                .is_some_and(|first| self.connect_heard(link, &first).is_ok()),
            false => self.connect(link.clone()).is_ok(),
        };
        if !begun {
            link.close();
            return false;
        }
        while goes_on() {
            let (stands, awaits) = {
                let connection = &lock(&self.failover).connection;
                (connection.peer().is_some(), connection.awaits_hello())
            };
            let left = until.saturating_duration_since(Instant::now());
            if stands || !awaits {
                return stands;
            }
            if left.is_zero() {
                let _telling = self.events.enter();
                let what = format!("the peer has not said hello for {} s", HELLO.as_secs());
                self.disconnected(&Error::new(Kind::NoPeer, what), link);
                return false;
            }
            std::thread::park_timeout(left.min(PATIENCE));
        }
        // The connection was begun for threads that end.
        let _telling = self.events.enter();
        self.disconnected(&Error::new(Kind::NoPeer, "the device's threads stop"), link);
        false
    }
}

/// The first frame in the control lane of `link`, if it comes in time.
fn first_frame(
    link: &Arc<dyn Link>,
    until: Instant,
    goes_on: &impl Fn() -> bool,
) -> Option<Vec<u8>> {
    while goes_on() {
        if let Some(frame) = link.receive(Lane::Control).ok()? {
            return Some(frame);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        link.wait(Lane::Control, left.min(PATIENCE).as_nanos() as u64);
    }
    None
}

/// The calling thread is woken when a connection stands or has ended.
fn wake_at_changes(device: &Device) {
    let thread = std::thread::current();
    device.on_event(move |event| {
        if matches!(event, Event::Connected { .. } | Event::Disconnected { .. } | Event::Halted(_))
        {
            thread.unpark();
        }
    });
}

/// From half of `pause` to all of it.
fn less_by_chance(device: &Device, pause: Duration) -> Duration {
    let drawn = device.clock().entropy().unwrap_or(0);
    let half = pause / 2;
    half + half.mul_f64((drawn >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::format::superblock::VolumeSpec;
    use crate::limits::{Geometry, Settings};
    use crate::link::{Line, MemoryLink, memory_link};
    use crate::storage::Memory;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Fails now and then, and hands the other end of each line to the peer's.
    struct Dials(Sender<MemoryLink>, Arc<dyn Clock>, u32);
    struct Accepts(Receiver<MemoryLink>);

    impl Connector for Dials {
        fn connect(&mut self, _: Duration) -> Result<Option<Arc<dyn Link>>> {
            self.2 += 1;
            if self.2 % 3 == 1 {
                return Err(Error::new(Kind::NoPeer, "nobody answers"));
            }
            let (mine, theirs) = memory_link(Line::default(), self.1.clone());
            self.0.send(theirs).expect("the peer accepts");
            Ok(Some(Arc::new(mine)))
        }
    }

    impl Connector for Accepts {
        fn connect(&mut self, patience: Duration) -> Result<Option<Arc<dyn Link>>> {
            Ok(self.0.recv_timeout(patience).ok().map(|end| Arc::new(end) as Arc<dyn Link>))
        }

        fn accepts(&self) -> bool {
            true
        }
    }

    fn device(id: u64, group: u128, clock: &Arc<dyn Clock>) -> Arc<Device> {
        let storage = Arc::new(Memory::new());
        let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 16 }];
        let geometry = Geometry { journal_bytes: 16 << 20, ..Geometry::new(group, id, volumes) };
        Device::create(&*storage, &geometry, id == 1).unwrap();
        Device::open(storage, clock.clone(), Settings::default()).unwrap()
    }

    /// Whatever ends a connection, there is another soon.
    #[test]
    fn a_lost_connection_is_followed_by_another() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let devices = [1, 2].map(|id| device(id, 7, &clock));
        let (dialled, accepted) = channel();
        let threads = devices.each_ref().map(|device| Threads::start(device).unwrap());
        threads[0].keep_connected(&devices[0], Dials(dialled, clock.clone(), 0)).unwrap();
        threads[1].keep_connected(&devices[1], Accepts(accepted)).unwrap();
        let stand = || devices.iter().all(|device| device.status().connected);
        for round in 0..6 {
            let since = Instant::now();
            while !stand() {
                assert!(since.elapsed() < Duration::from_secs(60), "round {round}");
                std::thread::sleep(Duration::from_millis(2));
            }
            let ends = devices.each_ref().map(|device| device.peer_link().unwrap());
            ends[round % 2].close();
            let is_over =
                |at: usize| devices[at].peer_link().is_none_or(|now| !Arc::ptr_eq(&now, &ends[at]));
            while !is_over(0) || !is_over(1) {
                assert!(since.elapsed() < Duration::from_secs(60), "round {round} goes on");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        drop(threads);
    }

    /// The next control frame of `end`; `None` once it is down.
    fn next(end: &MemoryLink) -> Option<Vec<u8>> {
        let since = Instant::now();
        loop {
            assert!(since.elapsed() < Duration::from_secs(60), "nothing is heard");
            match end.receive(Lane::Control) {
                Ok(None) => end.wait(Lane::Control, 1_000_000_000),
                other => return other.ok().flatten(),
            };
        }
    }

    /// Each link that came while a connection stood ended that at once, before a word was said over
    /// it. A peer that dials anew is taken all the same, though its old connection seems to stand.
    #[test]
    fn a_connection_is_given_up_for_a_hello_of_its_pair_only() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let [a, b, other] = [(1, 7), (2, 7), (1, 8)].map(|(id, of)| device(id, of, &clock));
        let (dialled, accepted) = channel();
        let ended: Arc<Mutex<Vec<Arc<dyn Link>>>> = Arc::default();
        let tell = ended.clone();
        a.on_event(move |event| {
            if let Event::Disconnected { link, .. } = event {
                lock(&tell).push(link.clone());
            }
        });
        let threads = Threads::start(&a).unwrap();
        threads.keep_connected(&a, Accepts(accepted)).unwrap();
        let dial = || {
            let (theirs, mine) = memory_link(Line::default(), clock.clone());
            dialled.send(theirs).unwrap();
            mine
        };
        let standing = dial();
        b.connect(Arc::new(standing.clone())).unwrap();
        assert!(next(&standing).is_some(), "the peer is answered");
        let stands = || lock(&a.failover).connection.peer().is_some();
        let since = Instant::now();
        while !stands() {
            assert!(since.elapsed() < Duration::from_secs(60), "it does not stand");
            std::thread::sleep(Duration::from_millis(2));
        }
        let first = a.peer_link().unwrap();

        // It says nothing and hangs up; it says what nobody understands; it is of another pair.
        let silent = dial();
        silent.close();
        let odd = dial();
        odd.send(Lane::Control, vec![1; 100]).unwrap();
        assert_eq!(next(&odd), None, "it is answered");
        let stranger = dial();
        other.connect(Arc::new(stranger.clone())).unwrap();
        assert_eq!(next(&stranger), None, "it is answered");
        assert!(stands() && lock(&ended).is_empty());
        assert!(Arc::ptr_eq(&first, &a.peer_link().unwrap()));

        let again = dial();
        b.connect(Arc::new(again.clone())).unwrap();
        assert!(next(&again).is_some(), "the peer is heard and answered");
        let since = Instant::now();
        while lock(&ended).is_empty() {
            assert!(since.elapsed() < Duration::from_secs(60), "the old connection goes on");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(lock(&ended).len() == 1 && Arc::ptr_eq(&lock(&ended)[0], &first));
        drop(threads);
    }

    #[test]
    fn a_pause_is_shortened_by_chance_and_no_more_than_half() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let device = device(1, 7, &clock);
        let drawn: Vec<_> = (0..20).map(|_| less_by_chance(&device, PAUSE[1])).collect();
        assert!(drawn.iter().all(|pause| (PAUSE[1] / 2..=PAUSE[1]).contains(pause)), "{drawn:?}");
        assert!(drawn.iter().any(|pause| *pause != drawn[0]), "{drawn:?}");
    }
}
