//! Moments at which another thread could come in between: the simulator does so here.
//!
//! A simulation runs in one thread and would otherwise see every step as a whole. At a moment it
//! may run other steps before it lets the interrupted one go on, as if that thread had been
//! stalled. Without the feature `simulate` a moment is nothing.

/// Where a thread can be stalled. The locks named tell which steps may run meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "simulate"), allow(dead_code))]
pub enum Moment {
    /// A host's write has places and a stamp, and nobody can see it. No lock is held; nothing may
    /// wait for the reservation meanwhile (a fence, a close).
    Reserved,
    /// A block of a host's write is in its chain, or a wide request has looked at those in flight; the
    /// request is not published. As `Reserved`.
    Linked,
    /// A host's write is published, and its host knows nothing of it. No lock is held.
    Published,
    /// A read has looked for its block at one place and not at the next. No lock is held.
    Looking,
    /// A read knows where its block is and has not copied it. No lock is held.
    Located,
    /// Blocks that are to be compared have been looked for in the queues and not read. `controlling`
    /// may be held.
    Comparing,
    /// The newest records of a batch are known and not all written to N. `reflecting` is held.
    Reflecting,
    /// A batch is in N, and its records do not say so yet. `reflecting` is held.
    Reflected,
    /// Received records are durable and in no table yet. `receiving` is held.
    Received,
    /// A batch was taken from R and not sent. `shipping` is held.
    Shipping,
    /// The reflecting thread decides how long it rests. No lock is held.
    Resting,
    /// A checkpoint knows what it will say, and the volumes are not synced. `checkpointing` is
    /// held.
    Checkpointing,
    /// A checkpoint is durable, and nothing freed yet. `checkpointing` is held.
    Checkpointed,
}

/// A wait in a loop for another thread, which the simulator, having one, must never see last.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    #[cfg(feature = "simulate")]
    turns: u32,
}

impl Wait {
    /// Gives the processor to other threads; `what` names the wait.
    #[inline(always)]
    pub fn yield_now(&mut self, what: &str) {
        #[cfg(feature = "simulate")]
        {
            self.turns += 1;
            if self.turns > WAIT_TURNS_MAX {
                stuck(what);
            }
        }
        let _ = what;
        std::thread::yield_now();
    }
}

/// More turns than any loop takes in a simulation, where nothing happens meanwhile.
#[cfg(feature = "simulate")]
const WAIT_TURNS_MAX: u32 = 1000;

/// In a simulation there is no other thread that could end a wait: this panics with `what`. Elsewhere
/// it does nothing.
#[inline(always)]
pub(crate) fn stuck(what: &str) {
    #[cfg(feature = "simulate")]
    if hook::is_simulated() {
        panic!("{NO_DEADLOCK}: {what}");
    }
    let _ = what;
}

/// The promise that is broken by a wait without an end.
#[cfg(feature = "simulate")]
pub(crate) const NO_DEADLOCK: &str = "nobody waits for ever";

#[cfg(feature = "simulate")]
mod hook {
    use super::Moment;
    use std::cell::{Cell, RefCell};

    type Hook = Box<dyn FnMut(Moment)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
        static IS_SIMULATED: Cell<bool> = const { Cell::new(false) };
    }

    /// Calls `hook` at every moment of this thread that is not itself within a call of it.
    pub fn at_every_moment(hook: Option<Hook>) {
        IS_SIMULATED.set(hook.is_some());
        HOOK.set(hook);
    }

    pub(super) fn is_simulated() -> bool {
        IS_SIMULATED.get()
    }

    pub(crate) fn moment(moment: Moment) {
        let Some(mut hook) = HOOK.take() else { return };
        hook(moment);
        // Unless another was set meanwhile.
        HOOK.with_borrow_mut(|now| {
            now.get_or_insert(hook);
        });
    }
}

#[cfg(feature = "simulate")]
pub use hook::at_every_moment;
#[cfg(feature = "simulate")]
pub(crate) use hook::moment;

#[cfg(not(feature = "simulate"))]
#[inline(always)]
pub(crate) fn moment(_: Moment) {}

#[cfg(all(test, feature = "simulate", not(loom)))]
mod tests {
    use super::*;
    use crate::sync::lock;
    use std::panic::catch_unwind;
    use std::sync::Mutex;

    #[test]
    fn who_would_wait_for_ever_in_a_simulation_says_so() {
        at_every_moment(Some(Box::new(|_| {})));
        let waits: [fn(); 2] = [
            || {
                let mutex = Mutex::new(());
                let _held = lock(&mutex);
                drop(lock(&mutex));
            },
            || {
                let mut wait = Wait::default();
                loop {
                    wait.yield_now("a loop");
                }
            },
        ];
        let said =
            waits.map(|waits| *catch_unwind(waits).unwrap_err().downcast::<String>().unwrap());
        at_every_moment(None);
        assert!(said.iter().all(|said| said.starts_with(NO_DEADLOCK)), "{said:?}");
    }
}
