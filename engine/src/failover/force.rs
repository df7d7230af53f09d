//! Forced takeover (D10): the other device does not answer, and an operator says that no host uses it. A
//! transition of a directory: the device is opened by nobody else, its superblock changes once, and its next
//! opening serves, with all that it lacks of the other device given up. The loss sheet says what that is.

use super::Closed;
use super::takeover::epochs_exhausted;
use crate::clock::Clock;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::flow::Tables;
use crate::format::batch::Log;
use crate::format::image::ImagePoint;
use crate::format::superblock::{Branch, Lost, Superblock};
use crate::image::ImageStatus;
use crate::limits::Settings;
use crate::queue::Record;
use crate::salvage::Writer;
use crate::storage::Storage;
use crate::sync::lock;
use crate::table::bits::Bits;
use crate::table::differential::{Consistent, Differential, Force, Side};
use crate::unit::{Blocks, Extent, Mode, Stamp};
use crate::weaken::{Clause, holds};
use std::sync::Arc;

/// The content that a forced device serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Image {
    /// An earlier state of the hosts' data: own records that are newer than one that the other device has
    /// not shipped are given up.
    #[default]
    Consistent,
    /// Each block as new as it is here, though it may be a mixture of states that the hosts' data never had.
    Newest,
    /// The last state of the hosts' data that this device had, before a resync into it or a takeover made a
    /// mixture of it: what was overwritten since is put back from its side file (LADDER 6).
    /// [`Image::Consistent`] is the same where this is the only one.
    Last,
}

/// The loss sheet: each block that a forced takeover gives up, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LossSheet {
    /// The device that is forced.
    pub device: u64,
    /// Its lineage: number and unique id.
    pub lineage: (u64, u64),
    /// The content that it will serve.
    pub image: Image,
    /// How writes reached it.
    pub mode: Mode,
    /// The newest record of the other device that it has; zero in differential mode, where blocks come and no
    /// records.
    pub received: Stamp,
    /// Records that the other device had told of and not shipped (R18), in the order of their stamps.
    pub told: Vec<(Extent, Stamp)>,
    /// Blocks that bits had told of and no copy has come of, in rising order, each with the wall time of its
    /// newest announcement in nanoseconds since 1970; 0 if that is not known.
    pub told_blocks: Vec<(Blocks, u64)>,
    /// Own records that are given up, in the order of their stamps; with [`Image::Last`] every record, own or
    /// received, that is still in a log and is not in the image.
    pub given_up: Vec<(Extent, Stamp)>,
    /// Of when the image is, with [`Image::Last`].
    pub image_of: Option<ImagePoint>,
    /// Blocks that were written since, by copies of the other device's or by records, and get the content that
    /// they had in the image, in rising order.
    pub put_back: Vec<Blocks>,
    /// Every other write that is lost has no earlier time in its stamp than this one, in nanoseconds since
    /// 1970; `None`: nothing can be said of them, as nothing of the other device's tenure has come, or it
    /// sent blocks out of order.
    pub others_after: Option<u64>,
    /// When it was made, wall time in nanoseconds since 1970.
    pub made_at: u64,
    /// The fault of the last consistent image, which a force had chosen before, and which this one gives up.
    pub image_given_up: Option<String>,
}

impl LossSheet {
    /// The oldest record of which it is known that it is lost.
    pub fn first(&self) -> Option<Stamp> {
        self.told.iter().chain(&self.given_up).map(|entry| entry.1).min()
    }

    /// No record that is lost has an earlier time than this one, in nanoseconds since 1970; 0 if that is
    /// not known. The list of told records has of each block the newest alone: others may be older, and those of a
    /// later tenure than what was received may have any time.
    fn since(&self) -> u64 {
        let told = self.told.last().map(|entry| match entry.1.epoch == self.received.epoch {
            true => self.received.time,
            false => 0,
        });
        let given_up = self.given_up.iter().map(|entry| entry.1.time).min();
        [self.others_after.or(Some(0)), told, given_up].into_iter().flatten().min().unwrap_or(0)
    }
}

/// An operator's words with a forced takeover. Later versions have more: make it with
/// `..Forced::default()` at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forced {
    /// The content that is served.
    pub image: Image,
    /// The loss is accepted: hosts are let in by the next opening ([`Device::accept_loss`]).
    pub accept_loss: bool,
}

impl Device {
    /// The loss sheet of a forced takeover of this device now. Nothing is changed.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if it serves, or the other device answers, or it needs no force but to be resumed
    /// ([`Device::resume_alone`]), or it has not the image that is asked for: no consistent one, or none but
    /// its present one; [`Kind::Halted`].
    pub fn loss_sheet(&self, image: Image) -> Result<LossSheet> {
        self.check_halted()?;
        let invalid = |what: &str| Err(Error::new(Kind::Invalid, what.to_string()));
        // Nobody but an operator lets hosts have what is left without the image that was chosen.
        let gives_up = image == Image::Newest && self.image.given_up().is_some();
        if self.clk.epoch() != 0 && !gives_up {
            return invalid("this device serves: there is nothing to force");
        }
        if self.connected_link().is_some() {
            return invalid("the other device answers: ask it for the host (`Device::takeover`)");
        }
        let superblock = self.superblock.get();
        let mut tables = lock(&self.tables);
        self.sequence(&mut tables);
        if !superblock.fenced && !tables.is_behind() && !superblock.owed && !gives_up {
            return invalid(
                "this device held the host when it stopped, and lacks nothing: resume it alone \
                 (`Device::resume_alone`, `afterimage resume-alone`)",
            );
        }
        let is_consistent = self.peer.machine.read().consistent() == Consistent::Yes;
        let (image, image_of) = match (image, is_consistent, self.image.status()) {
            (Image::Newest, ..) | (Image::Consistent, true, _) => (image, None),
            (Image::Last, true, _) => {
                return invalid(
                    "the volumes of this device are a state of the hosts' data, and no earlier one is kept: \
                     leave the choice of an image away",
                );
            }
            (_, false, ImageStatus::Kept { point, .. }) => (Image::Last, Some(point)),
            (_, false, status) => {
                let why = match status {
                    ImageStatus::Missing { why } => why,
                    _ => "nothing was to be kept".into(),
                };
                let what = format!(
                    "the volumes of this device are no state that the hosts' data ever had, as a resync into it \
                     had not ended, and the last one is not kept ({why}); to serve each block as new as it is \
                     here, say so (`Image::Newest`, `--newest`)"
                );
                return Err(Error::new(Kind::Invalid, what));
            }
        };
        let (hi, debt) = (tables.incoming.hi(), self.peer.owed.told());
        let (mode, last) = (self.peer.machine.mode(), debt.whole().max(hi));
        // Stamps of a later tenure are above all of an earlier one, and their times may be below: those of the
        // peer's, or, while this device is catching up, of the one that it took over from.
        let tenure = if superblock.fenced { superblock.epoch } else { superblock.need.epoch };
        let of_tenure = last.epoch == tenure || !holds(Clause::SheetOfTenure);
        let is_ordered = mode == Mode::Ordered && of_tenure;
        Ok(LossSheet {
            device: superblock.device,
            lineage: superblock.lineage,
            image,
            mode,
            received: if mode == Mode::Ordered { hi } else { Stamp::ZERO },
            told: debt.kept().into_iter().filter(|(_, stamp)| *stamp > hi).collect(),
            told_blocks: self.peer.machine.read().told().runs().collect(),
            given_up: {
                let given_up = self.given_up(&tables, (image, image_of));
                given_up.iter().map(|(_, record)| (record.extent(), record.stamp)).collect()
            },
            image_of,
            put_back: match image {
                Image::Last => self.image.saved().runs().collect(),
                Image::Consistent | Image::Newest => Vec::new(),
            },
            // Of an earlier state the newest record is not known: copies have no stamps.
            others_after: (is_ordered && image != Image::Last).then_some(last.time),
            made_at: self.clock.wall(),
            image_given_up: self.image.given_up().map(String::from),
        })
    }

    /// The records that `image` gives up, in the order of their stamps: own ones that wait for one of the
    /// peer's (R8), or all that are not in the last consistent image.
    fn given_up(
        &self,
        tables: &Tables,
        (image, of): (Image, Option<ImagePoint>),
    ) -> Vec<(Log, Record)> {
        let (own, recv) = (&self.own.journal.queue, &self.peer.recv.journal.queue);
        if let Some(point) = of {
            let there =
                [(Log::Own, own), (Log::Recv, recv)].into_iter().flat_map(|(log, queue)| {
                    let live = queue.freed()..queue.tail();
                    let live = live.filter(|&position| queue.settled(position) == Some(true));
                    live.map(move |position| (log, queue.record(position)))
                });
            let mut beyond: Vec<_> = there.filter(|(_, r)| r.stamp > point.upto).collect();
            beyond.sort_by_key(|(_, record)| record.stamp);
            return beyond;
        }
        if image == Image::Newest {
            return Vec::new();
        }
        let (records, upto) = (tables.own.records(), tables.reflectable());
        let entries = (tables.normal.first_own()..records.end()).filter_map(|at| records.get(at));
        let waiting = entries.filter(|(stamp, _)| *stamp > upto);
        waiting.map(|(_, position)| (Log::Own, own.record(position))).collect()
    }

    /// The loss sheet of a force that is not made; the storage is changed as by an opening. [`Image::Newest`] needs no
    /// last consistent image, though a force has chosen it before.
    ///
    /// # Errors
    /// As [`Device::open`] and [`Device::loss_sheet`].
    pub fn sheet_of_force(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        image: Image,
    ) -> Result<LossSheet> {
        let gives_up = image == Image::Newest;
        Device::open_to_change(storage, clock, settings, gives_up)?.loss_sheet(image)
    }

    /// Forces the device in `storage`, which no other has open, to take over (D10): its next opening serves.
    /// The loss is marked (R20), unless it is accepted. Own records that are given up are kept as salvage.
    /// [`Image::Newest`] gives up a last consistent image that is damaged, even if it was chosen before.
    ///
    /// # Errors
    /// As [`Device::open`] and [`Device::loss_sheet`], with nothing changed but what an opening changes;
    /// [`Kind::Protocol`] if salvage would have more bytes than it may
    /// ([`Settings::salvage_bytes_max`]); [`Kind::Halted`] if the storage fails.
    pub fn force(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        settings: Settings,
        forced: Forced,
    ) -> Result<LossSheet> {
        let gives_up = forced.image == Image::Newest;
        let device = Device::open_to_change(storage, clock, settings, gives_up)?;
        let sheet = device.loss_sheet(forced.image)?;
        device.salvage_given_up(&sheet)?;
        let first = sheet.first();
        let lost =
            Lost { first: first.unwrap_or_default(), since: sheet.since(), found: sheet.made_at };
        let void = {
            let tables = lock(&device.tables);
            let newest = tables.newest_own();
            match sheet.image_of {
                // Received ones, too.
                Some(point) => Some([point.upto, newest.max(tables.incoming.hi()).max(point.upto)]),
                None => (!sheet.given_up.is_empty()).then(|| [tables.reflectable(), newest]),
            }
        };
        let mut put_back: Bits = sheet.put_back.iter().cloned().collect();
        if sheet.image_of.is_some() {
            sheet.given_up.iter().for_each(|&(extent, _)| put_back.insert(extent.into()));
            device.image.choose();
        }
        let is_image_given_up = sheet.image_given_up.is_some();
        if is_image_given_up {
            // Of the blocks that it had nothing is known any more, and the peer may have copies of some.
            put_back = device.volumes.whole().collect();
        }
        let also = |s: &mut Superblock| {
            if is_image_given_up {
                (s.image, s.history.image_bytes) = (false, 0);
            }
            // A loss that was found before, perhaps by this opening, is not the sheet's.
            s.lost = match s.lost {
                None => (!forced.accept_loss).then_some(lost),
                Some(before) => Some(Lost {
                    first: if lost.first == Stamp::ZERO { before.first } else { lost.first },
                    since: before.since.min(lost.since),
                    found: before.found,
                }),
            };
            s.history.void = void.unwrap_or(s.history.void);
        };
        device.branch_off(None, void.is_some(), &put_back, also)?;
        Ok(sheet)
    }

    /// The records that are given up, with their data.
    fn salvage_given_up(&self, sheet: &LossSheet) -> Result<()> {
        if sheet.given_up.is_empty() || self.settings.salvage_bytes_max == 0 {
            return Ok(());
        }
        let most = self.settings.salvage_bytes_max;
        let mut writer = Writer::new(&*self.storage, &self.superblock.get(), most)?;
        let mut data = vec![0; self.geometry.block_size as usize];
        let tables = lock(&self.tables);
        for (log, record) in self.given_up(&tables, (sheet.image, sheet.image_of)) {
            let read = match log {
                Log::Own => self.own.read(&record, &mut data),
                Log::Recv => self.peer.recv.read(&record, &mut data),
            };
            if !read.map_err(|e| self.unreadable(e))? {
                continue; // freed: it is in N
            }
            for block in Blocks::from(record.extent()).each() {
                writer.add(block, record.stamp, &data);
                if writer.is_full_chunk() {
                    writer.flush(&*self.storage, sheet.made_at)?;
                }
            }
        }
        writer.flush(&*self.storage, sheet.made_at)
    }

    /// A lineage of its own begins here, in which this device is active, and owed nothing (D10); `over` is a
    /// branch that is given up for it, and `differs` has blocks that the peer may lack though no bit and no
    /// record says so. The device must not be used after this.
    fn branch_off(
        &self,
        over: Option<Branch>,
        gives_up: bool,
        differs: &Bits,
        also: impl FnOnce(&mut Superblock),
    ) -> Result<()> {
        let _one = self.begin_step(&self.role)?;
        let held = self.superblock.get();
        let (above, epoch) = over.map_or((0, 0), |branch| (branch.lineage.0, branch.epoch));
        let epoch =
            held.epoch.max(epoch).checked_add(1).ok_or_else(|| self.halt(epochs_exhausted()))?;
        let force = Force { epoch, above, gives_up, put_back: differs };
        // One superblock write: before it this device is what it was.
        self.begin_lineage(force, |s| {
            s.epoch = epoch;
            s.last_active = epoch;
            s.fenced = false;
            s.fenced_here = false;
            s.need = Stamp::ZERO;
            let history = &mut s.history;
            if let Some(branch) = over {
                history.add(branch.lineage);
            }
            (history.forced, history.alone, history.other) = (true, None, None);
            also(s);
        })
    }

    /// A lineage that has come by the present one begins with `force`; `also` is stored with it. The caller
    /// holds `role`.
    pub(super) fn begin_lineage(
        &self,
        force: Force<'_>,
        also: impl FnOnce(&mut Superblock),
    ) -> Result<()> {
        let id = self.nonce()?;
        let turn = &mut *self.peer.machine.turn();
        let step = |machine: &mut Differential, tables: &Tables| {
            self.peer.machine.alike().expect(force.put_back);
            let work = machine.force(force, &self.ordered(tables));
            self.peer.machine.change_sides(Side::Active);
            Some(work)
        };
        let outcome = self.turn(turn, step, |s| {
            s.history.add(s.lineage);
            s.lineage = (self.peer.machine.read().generation(), id);
            also(s);
        });
        outcome.map(|_| ())
    }

    /// The branch of the history that [`Closed::resolve`] would give up for this device's. Nothing is changed.
    ///
    /// # Errors
    /// [`Kind::Invalid`] as that; [`Kind::Halted`].
    pub fn other_branch(&self) -> Result<Branch> {
        self.check_halted()?;
        let Some(other) = self.superblock.get().history.other else {
            let what =
                "this device has met no other branch of its history: nothing is to be resolved";
            return Err(Error::new(Kind::Invalid, what));
        };
        let is_consistent = self.peer.machine.read().consistent() == Consistent::Yes;
        if !self.is_whole() || !is_consistent {
            let what = "this device does not hold the host, or lacks something of the other one: force it to \
                        take over (`Device::force`, `afterimage force`), then resolve this";
            return Err(Error::new(Kind::Invalid, what));
        }
        Ok(other)
    }

    /// The id of the device that [`Closed::forget_peer`] would forget, 0 if none was met. Nothing is changed.
    ///
    /// # Errors
    /// [`Kind::Invalid`] as that; [`Kind::Halted`].
    pub fn peer_to_forget(&self) -> Result<u64> {
        self.check_halted()?;
        if !self.is_whole() {
            let what = "the peer of this device holds the host, or owes it something: take over, or force this \
                        device to, before the peer is forgotten";
            return Err(Error::new(Kind::Invalid, what));
        }
        Ok(self.superblock.get().peer)
    }

    /// Whether this device holds the host, and the peer owes it nothing.
    pub(super) fn is_whole(&self) -> bool {
        let held = self.superblock.get();
        !held.fenced && !held.owed && !lock(&self.tables).is_behind()
    }
}

impl Closed {
    /// Of two histories that have parted, this device's is kept (D10): it begins a lineage that has come by
    /// both, and serves from its next opening on; the other device, which is open or not, is its target when
    /// they meet. Returns the branch that is given up: its content is kept as salvage there.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if no other branch was met, or this device is fenced or lacks something; those of
    /// [`Device::open`]; [`Kind::Halted`].
    pub fn resolve(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Branch> {
        let device = Device::open_to_change(storage, clock, settings, false)?;
        let other = device.other_branch()?;
        device.branch_off(Some(other), false, &Bits::default(), |_| ())?;
        Ok(other)
    }

    /// The peer is lost, or is to be another device: it is refused by name from now on, and the first device
    /// with another id that connects becomes the peer. That one is made anew, empty, and gets every block.
    /// The next opening serves. Returns the id of the device that is forgotten, 0 if none was met.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if this device does not hold the host, or its peer owes it something: force it first
    /// ([`Device::force`]); those of [`Device::open`]; [`Kind::Halted`].
    pub fn forget_peer(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<u64> {
        let device = Device::open_to_change(storage, clock, settings, false)?;
        let peer = device.peer_to_forget()?;
        let all: Bits = device.volumes.whole().collect();
        device.branch_off(None, false, &all, |s| {
            if s.peer != 0 {
                s.history.forgotten = std::mem::take(&mut s.peer);
            }
        })?;
        Ok(peer)
    }
}
