//! One device on a storage: a second opening would write over the first one's logs.
//!
//! A `Directory` is locked against other processes and other `Directory` values. Here is what every
//! storage needs besides: no second device of this process on the same `Arc`.

use super::Storage;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The addresses of the storages that devices of this process have open.
static OPEN: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// The right to be the only device on a storage, until this is dropped.
pub(crate) struct Opened {
    /// Kept, so that no other storage can come to have its address.
    storage: Arc<dyn Storage>,
}

impl Opened {
    /// Claims `storage`.
    ///
    /// # Errors
    /// [`Kind::Storage`](crate::error::Kind::Storage), from [`io::ErrorKind::WouldBlock`], if a
    /// device has it open.
    pub fn claim(storage: &Arc<dyn Storage>) -> Result<Opened> {
        if !open().insert(address(storage)) {
            let what = "a device of this process has it open: close or drop that one first";
            let source = io::Error::new(io::ErrorKind::WouldBlock, what);
            return Err(Error::storage("opening a storage", source));
        }
        Ok(Opened { storage: storage.clone() })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        open().remove(&address(&self.storage));
    }
}

/// Locked directly: simulations in other threads hold it for moments, which
/// [`crate::sync::lock`] would take for a thread that waits for itself.
fn open() -> MutexGuard<'static, BTreeSet<usize>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address(storage: &Arc<dyn Storage>) -> usize {
    Arc::as_ptr(storage).cast::<()>().addr()
}
