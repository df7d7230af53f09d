//! The only import of atomics, so that loom drives the code that ships; and the way to lock.
//!
//! Under `--cfg loom` these are loom's; everywhere else they are the standard library's. So is the
//! lock of the payloads' cells, which is tried and never waited for. All other locks and condition
//! variables guard what no loom model looks at and come from `std` directly.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(loom)]
pub use searched::{AtomicU64, RwLock};
#[cfg(not(loom))]
pub use std::sync::RwLock;
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Atomics for a signal handler, on the thread that it interrupts: loom knows no signals.
pub use std::sync::atomic::{AtomicBool as SignalFlag, AtomicPtr as SignalPointer, compiler_fence};

/// A word to sleep on, which the operating system looks at too: loom cannot model that.
pub use std::sync::atomic::AtomicU32 as FutexWord;

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
#[cfg(not(loom))]
use zerocopy::FromZeros;

/// So many zeros, and memory only for those that are touched: what comes from the operating system
/// is zero, and is not there before. `None`: it refuses the address space.
#[cfg(not(loom))]
pub(crate) fn zeros<T: FromZeros>(count: usize) -> Option<Box<[T]>> {
    <[T]>::new_box_zeroed_with_elems(count).ok()
}

/// The same where an atomic is more than its value.
#[cfg(loom)]
pub(crate) fn zeros<T: Default>(count: usize) -> Option<Box<[T]>> {
    Some((0..count).map(|_| T::default()).collect())
}

/// Locks `mutex`, even after a thread panicked while it held it: the panic of a background step
/// has halted the device, and a host's leaves no state half changed that others do not check.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.try_lock() {
        Ok(guard) => return guard,
        Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => crate::moment::stuck("a lock is held by who waits for it"),
    }
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(loom)]
#[allow(missing_docs)]
mod searched {
    use loom::sync::atomic::{AtomicU64 as Loom, Ordering};
    use std::ops::{Deref, DerefMut};
    use std::sync::{TryLockError, TryLockResult};

    /// loom's atomic, made to be searched wholly; its methods are those of the standard library.
    ///
    /// loom remembers the last access to an atomic only. A thread that loads and then writes, as
    /// before every compare-and-swap, hides from it that the write also races with what others
    /// loaded earlier, and it never tries that order. So every access first takes its `turn` by a
    /// relaxed read-modify-write, which races with every other, and synchronizes nothing.
    #[derive(Debug)]
    pub struct AtomicU64 {
        value: Loom,
        turn: Loom,
    }

    impl Default for AtomicU64 {
        fn default() -> AtomicU64 {
            AtomicU64::new(0)
        }
    }

    impl AtomicU64 {
        pub fn new(value: u64) -> AtomicU64 {
            AtomicU64 { value: Loom::new(value), turn: Loom::new(0) }
        }

        fn turn(&self) -> &Loom {
            self.turn.swap(0, Ordering::Relaxed);
            &self.value
        }

        pub fn load(&self, order: Ordering) -> u64 {
            self.turn().load(order)
        }

        pub fn store(&self, value: u64, order: Ordering) {
            self.turn().store(value, order);
        }

        pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            self.turn().fetch_add(value, order)
        }

        pub fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
            self.turn().fetch_sub(value, order)
        }

        pub fn swap(&self, value: u64, order: Ordering) -> u64 {
            self.turn().swap(value, order)
        }

        pub fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
            self.turn().fetch_and(value, order)
        }

        pub fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
            self.turn().fetch_or(value, order)
        }

        pub fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            self.turn().fetch_max(value, order)
        }

        pub fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.turn().compare_exchange(current, new, success, failure)
        }

        pub fn compare_exchange_weak(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.turn().compare_exchange_weak(current, new, success, failure)
        }
    }

    /// The standard library's lock as far as it is tried: a word that counts readers, with the
    /// orderings that the standard library promises and no more. loom's own lock makes a thread that
    /// tries to write wait for the readers, so that it never finds one.
    #[derive(Debug)]
    pub struct RwLock<T> {
        readers: AtomicU64,
        value: std::sync::RwLock<T>,
    }

    /// The count while a writer has the lock.
    const WRITTEN: u64 = 1 << 32;

    impl<T> RwLock<T> {
        pub fn new(value: T) -> RwLock<T> {
            RwLock { readers: AtomicU64::new(0), value: std::sync::RwLock::new(value) }
        }

        pub fn try_read(&self) -> TryLockResult<impl Deref<Target = T>> {
            let mut seen = self.readers.load(Ordering::Relaxed);
            while seen != WRITTEN {
                match self.exchange(seen, seen + 1) {
                    Ok(_) => return Ok(self.guard(1, self.value.try_read())),
                    Err(now) => seen = now,
                }
            }
            Err(TryLockError::WouldBlock)
        }

        pub fn try_write(&self) -> TryLockResult<impl DerefMut<Target = T>> {
            match self.exchange(0, WRITTEN) {
                Ok(_) => Ok(self.guard(WRITTEN, self.value.try_write())),
                Err(_) => Err(TryLockError::WouldBlock),
            }
        }

        fn exchange(&self, from: u64, to: u64) -> Result<u64, u64> {
            self.readers.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed)
        }

        fn guard<G>(&self, counts: u64, guard: TryLockResult<G>) -> Guard<'_, G> {
            let guard = Some(guard.ok().expect("the word lets nobody in who is in the way"));
            Guard { guard, counts, readers: &self.readers }
        }
    }

    struct Guard<'a, G> {
        guard: Option<G>,
        counts: u64,
        readers: &'a AtomicU64,
    }

    impl<G: Deref> Deref for Guard<'_, G> {
        type Target = G::Target;

        fn deref(&self) -> &G::Target {
            self.guard.as_ref().expect("until it is dropped")
        }
    }

    impl<G: DerefMut> DerefMut for Guard<'_, G> {
        fn deref_mut(&mut self) -> &mut G::Target {
            self.guard.as_mut().expect("until it is dropped")
        }
    }

    impl<G> Drop for Guard<'_, G> {
        fn drop(&mut self) {
            self.guard = None;
            self.readers.fetch_sub(self.counts, Ordering::Release);
        }
    }
}
