//! An operator's changes of a device that no process has open: its policy, and the mark of lost writes
//! (R20). Each is one update of the superblock, so that a crash leaves the old or the new. Nothing but
//! the superblock is read: damage of the logs and volumes is found by the next opening, as without the
//! change.

use super::Policy;
use super::decide::Wait;
use super::resume::waiting;
use crate::error::{Error, Kind, Result};
use crate::format::superblock::{Lost, Superblock};
use crate::storage::{FileName, Opened, Storage};
use crate::superblock::SuperblockFile;
use std::sync::Arc;

/// A device that no process has open. See the module.
pub struct Closed {
    file: SuperblockFile,
    _claimed: Opened,
}

impl Closed {
    /// The device in `storage`, of which nothing is changed by this.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if there is no superblock or no copy of it can be used, [`Kind::Config`] if a
    /// later version of this program wrote it, [`Kind::Storage`] if the storage fails, or a device of
    /// this process has it open.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Closed> {
        let _claimed = Opened::claim(&storage)?;
        Ok(Closed { file: SuperblockFile::open(storage)?, _claimed })
    }

    /// The superblock that counts.
    pub fn superblock(&self) -> Arc<Superblock> {
        self.file.get()
    }

    /// The fault of the superblock's other copy, which the next change writes anew.
    pub fn bad_copy(&self) -> Option<&str> {
        self.file.bad_copy()
    }

    /// Its policy.
    pub fn policy(&self) -> Policy {
        Policy::of(&self.superblock())
    }

    /// Changes the policy; it counts from the next opening or hello on. It does not matter how
    /// the device ended: recovery does not look at it.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the superblock cannot be written, [`Kind::Halted`] if its generations have
    /// run out.
    pub fn set_policy(&self, policy: Policy) -> Result<()> {
        self.file.amend(|s| policy.note(s))
    }

    /// The mark of lost writes that [`Closed::accept_loss`] would clear.
    ///
    /// # Errors
    /// [`Kind::NotReady`] if the device was not closed cleanly: the next opening may find further
    /// losses; [`Kind::Fenced`] if the host belongs at the other device, whose mark counts;
    /// [`Kind::Invalid`] if there is no mark.
    pub fn loss(&self) -> Result<Lost> {
        let superblock = self.superblock();
        let lost = superblock.lost.ok_or_else(|| {
            let what = "no write of which a host was told is known to be lost: nothing to accept";
            Error::new(Kind::Invalid, what)
        });
        // Behind a forced takeover nothing was written.
        match (superblock.clean || superblock.history.forced, superblock.fenced) {
            (false, _) => {
                let file = FileName::Superblock;
                let what = format!(
                    "{file}: the device was not closed cleanly, so that its next opening may find \
                     that further writes are lost: open and close it first"
                );
                Err(Error::new(Kind::NotReady, what))
            }
            (true, true) => Err(waiting(Wait::Fenced)),
            (true, false) => lost,
        }
    }

    /// Accepts the loss of writes of which hosts had been told, as [`crate::Device::accept_loss`] does
    /// at an open device; the mark that is cleared.
    ///
    /// # Errors
    /// Those of [`Closed::loss`], with nothing changed, and of [`Closed::set_policy`].
    pub fn accept_loss(&self) -> Result<Lost> {
        let lost = self.loss()?;
        self.file.amend(|s| s.lost = None)?;
        Ok(lost)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::device::Device;
    use crate::format::superblock::VolumeSpec;
    use crate::limits::{Geometry, Settings};
    use crate::storage::Memory;
    use crate::superblock;

    fn made(active: bool) -> Arc<Memory> {
        let disk = Arc::new(Memory::new());
        let mut geometry = Geometry::new(7, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
        geometry.journal_bytes = 16 << 20;
        Device::create(&*disk, &geometry, active).unwrap();
        disk
    }

    fn opened(disk: &Arc<Memory>) -> Arc<Device> {
        Device::open(disk.clone(), Arc::new(SystemClock::default()), Settings::default()).unwrap()
    }

    /// The device has been killed while it served with a volatile cache.
    fn killed() -> Arc<Memory> {
        let disk = made(true);
        let device = opened(&disk);
        device.resume_alone().unwrap();
        drop(device);
        disk
    }

    /// Each change leaves the mark of the close, so that the next opening does not take the device for
    /// one that was killed, and the open device behaves by it.
    #[test]
    fn a_policy_counts_from_the_next_opening_on() {
        let disk = made(true);
        let before = superblock::load(&*disk).unwrap();
        let policy = Policy { prefer: false, resume_alone: true };
        Closed::open(disk.clone()).unwrap().set_policy(policy).unwrap();
        let after = superblock::load(&*disk).unwrap();
        let expected = Superblock {
            generation: before.generation + 1,
            prefer: false,
            resume_alone: true,
            ..before
        };
        assert_eq!(after, expected);
        let device = opened(&disk);
        assert!(device.recovery().clean && device.status().serving && device.policy() == policy);
    }

    #[test]
    fn a_policy_of_a_killed_device_counts_too() {
        let disk = killed();
        let policy = Policy { prefer: true, resume_alone: true };
        Closed::open(disk.clone()).unwrap().set_policy(policy).unwrap();
        let device = opened(&disk);
        assert!(!device.recovery().clean && device.status().serving);
    }

    #[test]
    fn a_loss_is_accepted_once_and_hosts_are_served_again() {
        let disk = killed();
        let refused = |disk: &Arc<Memory>| {
            Closed::open(disk.clone()).unwrap().accept_loss().unwrap_err().kind()
        };
        // Another opening might find more.
        assert_eq!(refused(&disk), Kind::NotReady);
        opened(&disk).close().unwrap();
        let marked = superblock::load(&*disk).unwrap().lost;
        assert_eq!(Closed::open(disk.clone()).unwrap().accept_loss().ok(), marked);
        assert!(marked.is_some());
        assert_eq!(refused(&disk), Kind::Invalid);
        let device = opened(&disk);
        device.resume_alone().unwrap();
        device.session().unwrap();
    }

    /// The mark of the device that holds the host counts.
    #[test]
    fn a_loss_is_accepted_at_the_active_device_only() {
        let disk = made(false);
        let closed = Closed::open(disk.clone()).unwrap();
        closed.file.amend(|s| s.lost = Some(Lost::default())).unwrap();
        let before = closed.superblock();
        assert_eq!(closed.accept_loss().unwrap_err().kind(), Kind::Fenced);
        assert_eq!(*before, superblock::load(&*disk).unwrap());
    }

    #[test]
    fn a_device_that_is_open_is_left_alone() {
        let disk = made(true);
        let device = opened(&disk);
        assert_eq!(Closed::open(disk.clone()).err().map(|e| e.kind()), Some(Kind::Storage));
        device.close().unwrap();
        Closed::open(disk).unwrap();
    }
}
