//! Listeners are told of events by the thread in which they happened, once it holds no lock of
//! the device's any more.
//!
//! An event is noted down under whatever lock is held. A step, and every other way into the device
//! that leads to events, opens a [`Telling`] before it takes a lock, and when the outermost of a thread
//! ends, what waits is told, in its order, by one thread at a time. So a listener may call the device,
//! and an event in that call is told after what is being told now.
//!
//! The calls of a host open none, because the program may hold locks of its own across them: an
//! event in one is told by the thread that makes calls, which is woken for it.

use crate::event::Event;
use crate::sync::lock;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

/// Called with every [`Event`].
type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Listeners {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listeners: Vec<Listener>,
    waiting: VecDeque<Event>,
    /// A thread is telling events: it tells those that wait, too.
    telling: bool,
}

thread_local! {
    /// The devices that this thread is inside of, by the addresses of their listeners.
    static INSIDE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A thread is inside the device until this is dropped.
pub(crate) struct Telling<'a>(&'a Listeners);

impl Listeners {
    pub fn add(&self, listener: Listener) {
        lock(&self.state).listeners.push(listener);
    }

    /// Notes down what happened; without listeners it is forgotten. Whether this thread will tell it.
    pub fn note(&self, event: Event) -> bool {
        let mut state = lock(&self.state);
        if !state.listeners.is_empty() {
            state.waiting.push_back(event);
        }
        INSIDE.with_borrow(|inside| inside.contains(&self.address()))
    }

    pub fn enter(&self) -> Telling<'_> {
        INSIDE.with_borrow_mut(|inside| inside.push(self.address()));
        Telling(self)
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Tells the events that wait, unless another thread does.
    pub fn tell_waiting(&self) {
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.telling, true) {
            return;
        }
        while let Some(event) = state.waiting.pop_front() {
            let listeners = state.listeners.clone();
            drop(state);
            for listener in listeners {
                // A panic there is the listener's own and has been reported by the panic hook.
                let _ = catch_unwind(AssertUnwindSafe(|| listener(&event)));
            }
            state = lock(&self.state);
        }
        state.telling = false;
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let address = self.0.address();
        let is_outermost = INSIDE.with_borrow_mut(|inside| {
            inside.pop();
            !inside.contains(&address)
        });
        if is_outermost {
            self.0.tell_waiting();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::device::Device;
    use crate::error::{Error, Kind};
    use crate::format::superblock::VolumeSpec;
    use crate::limits::{Geometry, Settings};
    use crate::link::{Line, memory_link};
    use crate::storage::Memory;

    /// The name of the event's kind.
    fn name(event: &Event) -> String {
        let shown = format!("{event:?}");
        shown.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
    }

    /// The names of the device's locks that are held.
    fn held(device: &Device) -> Vec<&'static str> {
        [
            ("role", device.role.try_lock().is_err()),
            ("failover", device.failover.try_lock().is_err()),
            ("tables", device.tables.try_lock().is_err()),
            ("questions", device.peer.questions.try_lock().is_err()),
            ("controlling", device.peer.controlling.try_lock().is_err()),
            ("shipping", device.peer.shipping.try_lock().is_err()),
            ("receiving", device.peer.receiving.try_lock().is_err()),
            ("reflecting", device.reflecting.try_lock().is_err()),
            ("checkpointing", device.checkpointing.try_lock().is_err()),
            ("listeners", device.events.state.try_lock().is_err()),
        ]
        .into_iter()
        .filter_map(|(name, is_held)| is_held.then_some(name))
        .collect()
    }

    /// A pair through its whole life, in one thread: at each event no lock is held, the device can be
    /// called, and both listeners hear the same.
    #[test]
    fn everybody_is_told_under_no_lock() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let told: [Arc<Mutex<Vec<String>>>; 2] = Default::default();
        let devices = [1, 2].map(|id| {
            let storage = Arc::new(Memory::new());
            let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 16 }];
            let geometry = Geometry { journal_bytes: 16 << 20, ..Geometry::new(7, id, volumes) };
            Device::create(&*storage, &geometry, id == 1).unwrap();
            let device = Device::open(storage, clock.clone(), Settings::default()).unwrap();
            let weak = Arc::downgrade(&device);
            let [first, second] = told.clone();
            device.on_event(move |event| {
                let device = weak.upgrade().expect("it is being used");
                assert_eq!(held(&device), [""; 0], "at {event:?}");
                if !matches!(event, Event::Checkpoint { .. }) {
                    let _ = device.checkpoint_now();
                }
                lock(&first).push(name(event));
            });
            device.on_event(move |event| lock(&second).push(name(event)));
            device
        });
        let [a, b] = &devices;
        let run_steps = || {
            for device in devices.iter().cycle().take(8) {
                while device.step_control().unwrap_or(false) {}
                let _ = device.step_commit();
                let _ = device.step_ship();
                let _ = device.step_receive();
            }
        };
        let connect = || {
            let (end_a, end_b) = memory_link(Line::default(), clock.clone());
            let _ = a.connect(Arc::new(end_a));
            let _ = b.connect(Arc::new(end_b));
            run_steps();
        };
        connect();
        a.resume_alone().unwrap();
        a.session().unwrap().write(0, 0, &[1; 4096]).unwrap();
        a.step_commit().unwrap();
        b.begin_takeover().unwrap();
        run_steps();
        connect();
        let telling = b.events.enter();
        b.lost_here("a test says so");
        b.halt(Error::new(Kind::Damaged, "a test says so"));
        drop(telling);
        a.step_control().unwrap();
        let [first, second] = told.map(|told| lock(&told).clone());
        assert_eq!(first, second);
        let kinds: std::collections::BTreeSet<&str> = first.iter().map(String::as_str).collect();
        let all = [
            "Acknowledged",
            "CaughtUp",
            "Checkpoint",
            "Connected",
            "Disconnected",
            "Fenced",
            "Halted",
            "LostRecords",
            "PeerServes",
            "Ready",
        ];
        assert_eq!(Vec::from_iter(kinds), all);
    }

    /// A program keeps locks of its own across a host's calls, and its listener takes them: no such call
    /// tells anything, neither what another thread is about to tell nor what happens in it.
    #[test]
    fn a_host_tells_nobody() {
        let storage = Arc::new(Memory::new());
        let volumes = vec![VolumeSpec { id: 0, bytes: 1 << 16 }];
        let geometry = Geometry { journal_bytes: 16 << 20, ..Geometry::new(7, 1, volumes) };
        Device::create(&*storage, &geometry, true).unwrap();
        let clock = Arc::new(SystemClock::default());
        let device = Device::open(storage, clock, Settings::default()).unwrap();
        device.resume_alone().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        device.on_event(move |event| lock(&tell).push(name(event)));
        let in_a_host = |call: &(dyn Fn() + Sync)| {
            std::thread::scope(|scope| scope.spawn(call).join().unwrap());
            std::mem::take(&mut *lock(&told))
        };
        let write = || drop(device.session().unwrap().write(0, 0, &[1; 4096]));
        let telling = device.events.enter();
        device.tell(Event::CaughtUp);
        assert_eq!(in_a_host(&write), [""; 0], "what another thread is about to tell");
        drop(telling);
        assert_eq!(*lock(&told), ["CaughtUp"]);
        lock(&told).clear();
        let heard = device.host.calls.bell.heard();
        let halts = || drop(device.halt(Error::new(Kind::Damaged, "a test says so")));
        assert_eq!(in_a_host(&halts), [""; 0]);
        assert!(device.host.calls.bell.heard() > heard, "nobody comes to tell it");
        device.step_calls();
        assert_eq!(*lock(&told), ["Halted"]);
    }

    /// The events that a listener causes are told after its own; a listener that panics harms nobody.
    #[test]
    fn what_a_listener_causes_is_told_afterwards() {
        let listeners = Arc::new(Listeners::default());
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let (within, first, second) = (Arc::downgrade(&listeners), told.clone(), told.clone());
        listeners.add(Arc::new(move |event| {
            let listeners = within.upgrade().unwrap();
            let _telling = listeners.enter();
            if matches!(event, Event::CaughtUp) {
                listeners.note(Event::Ready { epoch: 7, owed_blocks: 0 });
            }
            lock(&first).push(format!("1 {}", name(event)));
        }));
        listeners.add(Arc::new(|_| std::panic::resume_unwind(Box::new("a listener's own"))));
        listeners.add(Arc::new(move |event| lock(&second).push(format!("2 {}", name(event)))));
        {
            let _outer = listeners.enter();
            {
                let _inner = listeners.enter();
                listeners.note(Event::CaughtUp);
            }
            assert_eq!(lock(&told).len(), 0, "the outer call may hold a lock");
        }
        assert_eq!(*lock(&told), ["1 CaughtUp", "2 CaughtUp", "1 Ready", "2 Ready"]);
    }
}
