//! The opening of a device (R13): logs, tables and differential mode are put together from what is in its storage.

use crate::clock::Clock;
use crate::device::Device;
use crate::error::Result;
use crate::event::Recovery;
use crate::failover::{
    Failover, mark, may_have_lost, serves_at_opening, told_before, told_bits_before,
};
use crate::flow::copy::CopyRate;
use crate::flow::image::Image;
use crate::flow::open::Logs;
use crate::flow::store;
use crate::format::superblock::Features;
use crate::host::Host;
use crate::journal::own::OwnLog;
use crate::journal::recv::RecvLog;
use crate::limits::{Durability, Geometry, Settings};
use crate::listeners::Listeners;
use crate::peer::Peer;
use crate::queue::Clk;
use crate::salvage;
use crate::storage::{Checked, Opened, Storage, Volumes};
use crate::superblock::SuperblockFile;
use crate::sync::{AtomicBool, AtomicU64};
use crate::table_file;
use crate::unit::Stamp;
use crate::wake::Wakes;
use crate::weaken::{Clause, holds};
use std::sync::{Arc, Mutex, OnceLock};

/// The end to which a device is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Serve,
    Change { gives_up_image: bool },
}

impl Device {
    /// Opens a device, whether it was closed, killed, or lost its power: what was promised to
    /// anybody is there again, what was not is cut off ([`Device::recovery`]). It serves once it
    /// may (R13): [`crate::Event::Ready`], [`Device::resume_alone`].
    ///
    /// # Errors
    /// [`crate::Kind::Config`] for settings out of range ([`Settings::check`]), with nothing looked at, and if
    /// the operating system refuses the address space of a large journal, with nothing changed;
    /// [`crate::Kind::Damaged`] if something durable is not what it was, by name, with nothing changed;
    /// [`crate::Kind::Storage`] if the storage fails, or another device of this process has it open
    /// and is neither closed nor dropped; [`crate::Kind::Halted`] if the superblock's generations have run
    /// out.
    pub fn open(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Arc<Device>> {
        Device::open_with(storage, clock, settings, &mut |_, _| {})
    }

    /// As [`Device::open`]; `progress` is told how many bytes of the logs need not be looked at any
    /// more, of how many.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_with(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Arc<Device>> {
        Device::open_as(storage, clock, settings, progress, Purpose::Serve)
    }

    /// As [`Device::open`], for a change of the directory: it serves nobody, and takes back no word that the
    /// directory has for its next opening. If it `gives_up_image`, the last consistent image that a force has chosen
    /// need not be whole; the next opening refuses it as before, unless a force comes between.
    pub(crate) fn open_to_change(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        gives_up_image: bool,
    ) -> Result<Arc<Device>> {
        let purpose = Purpose::Change { gives_up_image };
        Device::open_as(storage, clock, settings, &mut |_, _| {}, purpose)
    }

    fn open_as(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        progress: &mut dyn FnMut(u64, u64),
        purpose: Purpose,
    ) -> Result<Arc<Device>> {
        let may_serve = purpose == Purpose::Serve;
        settings.check()?;
        let claimed = Opened::claim(&storage)?;
        let checked = Arc::new(Checked::new(storage));
        let storage: Arc<dyn Storage> = checked.clone();
        let file = SuperblockFile::open(storage.clone())?;
        let superblock = file.get();
        let geometry = Geometry::of(&superblock);
        let opened = file.next_generation()?;
        let volumes = Volumes::open(storage.clone(), &superblock)?;
        let logs = Logs::read(&*storage, &superblock, progress)?;
        let most = settings.batch_records_max;
        let wakes = Arc::new(Wakes::default());
        let own =
            OwnLog::new(&superblock, &geometry, opened, &settings, storage.clone(), wakes.clone())?;
        let recv = RecvLog::new(&superblock, &geometry, opened, most, storage.clone())?;
        let tables = logs.rebuild(&superblock, &own, &recv, clock.monotonic())?;
        // A forced takeover was an operator's word that the other device does not serve.
        let is_forced = superblock.history.forced;
        let serves = may_serve && (is_forced || serves_at_opening(&superblock, &tables));
        let debt = told_before(&*storage, &superblock, &volumes, tables.incoming.hi())?;
        let table = table_file::read(&*storage, &superblock)?;
        let implied = tables.implied(&own);
        let machine = store::restore(&superblock, tables.incoming.hi(), table, implied);
        if let Some(told) = told_bits_before(&*storage, &superblock, may_serve)? {
            machine.write().recall_told(told);
        }
        let consistent = machine.read().consistent();
        let gives_up = purpose == Purpose::Change { gives_up_image: true };
        let (image, overlay) = Image::load(checked.apart(), &superblock, consistent, gives_up)?;
        let volumes = match image.is_put_back() {
            true => volumes.under(overlay),
            false => volumes,
        };
        let cache_identity = storage.cache_identity().unwrap_or_default();
        let lost_writes = may_have_lost(&superblock, cache_identity);
        let recovery = Recovery { lost_writes, ..logs.recovery(&file, &own, &recv) };
        if !superblock.clean && holds(Clause::RecoveryRewrite) {
            logs.write_back(&*storage, &superblock)?;
        }
        let lost = lost_writes.then(|| mark(&superblock, logs.first_dropped(), clock.wall()));
        drop(logs);
        if !superblock.clean && holds(Clause::RecoverySync) {
            own.sync()?;
            recv.sync()?;
        }
        if is_forced || settings.salvage_bytes_max == 0 {
            // The content that was not saved is of the history that is served now, or is not to be saved.
            salvage::owe_nothing(&*storage)?;
        }
        let first = [&own.journal, &recv.journal].map(|journal| journal.queue.freed());
        file.update(|s| {
            s.clean = false;
            s.history.forced &= !may_serve;
            if serves && !is_forced {
                s.history.note_alone(tables.newest_own());
            }
            s.lost = s.lost.or(lost);
            // All that was found is synced: only what completes from now on is in question.
            s.cache_identity = cache_identity;
            s.weakest = Durability::Strict.number();
            s.hi = tables.incoming.hi();
            s.own = own.state_without(first[0]);
            s.recv = recv.state_without(first[1]);
            image.note(s, consistent);
        })?;
        if settings.salvage_keep_ns > 0 {
            salvage::expire(&*storage, clock.wall().saturating_sub(settings.salvage_keep_ns))?;
        }
        // Batches without a live record.
        own.free(first[0]);
        recv.free(first[1]);
        let now = clock.monotonic();
        let extents = file.get().features.incompat & Features::EXTENTS != 0;
        let device = Device {
            storage: checked,
            own,
            volumes,
            image,
            clk: Clk::new(),
            tables: Mutex::new(tables),
            extents: AtomicBool::new(extents),
            superblock: file,
            role: Mutex::default(),
            recovery,
            failover: Mutex::new(Failover::new(geometry.device, now)),
            peer: Peer::new(recv, debt, machine, CopyRate::new(settings.copy_bytes_per_second)),
            host: Host::new(&geometry, &settings),
            reflecting: Mutex::default(),
            checkpointing: Mutex::new(now),
            committed_at: AtomicU64::new(now),
            reflect_due_at: AtomicU64::new(now.saturating_add(settings.reflect_interval_ns)),
            halted: OnceLock::new(),
            wakes,
            events: Listeners::default(),
            opened: Mutex::new(Some(claimed)),
            geometry,
            settings,
            clock,
        };
        device.tidy_image();
        if holds(Clause::StillUnsaved) {
            let (superblock, most) = (device.superblock.get(), device.settings.salvage_bytes_max);
            device.peer.saving.resume(&*storage, &superblock, most)?;
        }
        if serves {
            device.resume(Stamp::ZERO);
        }
        Ok(Arc::new(device))
    }
}
