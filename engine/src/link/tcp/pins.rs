//! The keys that get a session.

use super::PublicKey;
use crate::sync::lock;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// The public keys of the devices that this one takes for its peer: one as a rule, two while a key is
/// being changed. A clone is the same set. It is in memory only; its owner stores it.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<Mutex<BTreeSet<PublicKey>>>);

impl Pins {
    /// A set with the key `pinned`.
    pub fn new(pinned: PublicKey) -> Pins {
        Pins(Arc::new(Mutex::new([pinned].into())))
    }

    /// From now on `key` gets sessions.
    pub fn add(&self, key: PublicKey) {
        lock(&self.0).insert(key);
    }

    /// From now on `key` gets no session; one that stands goes on until its link is closed.
    pub fn remove(&self, key: PublicKey) {
        lock(&self.0).remove(&key);
    }

    /// Whether `key` gets sessions.
    pub fn contains(&self, key: PublicKey) -> bool {
        lock(&self.0).contains(&key)
    }

    /// Whether nobody gets a session.
    pub fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}
