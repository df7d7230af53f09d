//! Moments at which another thread could come in between: the simulator does so here.
//!
//! A simulation runs in one thread and would otherwise see every step as a whole. At a moment it
//! may run other steps before it lets the interrupted one go on, as if that thread had been
//! stalled. Without the feature `simulate` a moment is nothing.

/// Where a thread can be stalled. What is said of locks tells which steps may run meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "simulate"), allow(dead_code))]
pub enum Moment {
    /// A host's write has places and a stamp, and nobody can see it. No lock is held; nothing may
    /// wait for the reservation meanwhile (a fence, a close).
    Reserved,
    /// A block of a host's write is in its chain, the request is not published. As `Reserved`.
    Linked,
    /// A host's write is published and has not raised the clock. No lock is held.
    Published,
    /// A read has looked for its block at one place and not at the next. No lock is held.
    Looking,
    /// A read knows where its block is and has not copied it. No lock is held.
    Located,
    /// The newest records of a batch are known and not all written to N. `reflecting` is held.
    Reflecting,
    /// A batch is in N, and its records do not say so yet. `reflecting` is held.
    Reflected,
    /// Received records are durable and in no table yet. `receiving` is held.
    Received,
    /// A batch was taken from R and not sent. `shipping` is held.
    Shipping,
    /// A checkpoint knows what it will say, and the volumes are not synced. `checkpointing` is
    /// held.
    Checkpointing,
    /// A checkpoint is durable, and nothing freed yet. `checkpointing` is held.
    Checkpointed,
}

#[cfg(feature = "simulate")]
mod hook {
    use super::Moment;
    use std::cell::RefCell;

    type Hook = Box<dyn FnMut(Moment)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Calls `hook` at every moment of this thread that is not itself within a call of it.
    pub fn at_every_moment(hook: Option<Hook>) {
        HOOK.set(hook);
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
