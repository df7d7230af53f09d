//! Opening, after a close or a crash (R13): the logs are read, what was never promised to anybody
//! is cut off their ends, and queues and tables are rebuilt. Tables are never read from disk.
//!
//! 1. Both logs are read and judged (`journal/scan.rs`, `judge.rs`): what is kept, what is cut, and
//!    what is damage, which is refused by name, with nothing changed on disk.
//! 2. The live records go into the queues: own ones above fl or acked, received ones above fl. A
//!    record above fl is in L again, and reflection writes it again, in one stamp order (R8).
//! 3. After a crash what is not known to be durable is written again, byte for byte, and both logs
//!    are synced: what a killed process had written may be in the page cache only, and clean there
//!    after a failed sync; from now on it is shipped, acknowledged and reflected.
//! 4. The superblock says that the device is open, and how far its logs are durable. Its
//!    generation is this opening's name, which every new batch carries.

use super::Tables;
use crate::error::{Error, Kind, Result};
use crate::event::{LogRecovery, Recovery};
use crate::format::PAGE;
use crate::format::Row;
use crate::format::batch::Log;
use crate::format::superblock::Superblock;
use crate::journal::own::OwnLog;
use crate::journal::record_of;
use crate::journal::recv::RecvLog;
use crate::journal::scan::{Found, Scan, Verify, dead_upto, log_of, scan, write_back};
use crate::queue::{Clk, Record};
use crate::storage::Storage;
use crate::superblock::SuperblockFile;
use crate::table::incoming::Incoming;
use crate::table::normal::Normal;
use crate::table::out::Out;
use crate::table::own::Own;
use crate::unit::{Mode, Stamp};
use crate::weaken::{Clause, holds};

/// Both logs, as they were read.
pub(crate) struct Logs {
    own: Scan,
    recv: Scan,
}

impl Logs {
    /// Reads both logs. `progress` is called with bytes done and bytes in all.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if something that was durable is not there; [`Kind::Storage`].
    pub fn read(
        storage: &dyn Storage,
        superblock: &Superblock,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Logs> {
        let total = superblock.own.bytes + superblock.recv.bytes;
        let mut done = 0u64;
        let mut read = |log| -> Result<Scan> {
            let (file, state) = log_of(superblock, log);
            let failed = |e| Error::storage(format!("reading {file}"), e);
            let length = storage.length(file).map_err(failed)?;
            if length != Some(state.bytes) {
                let found = length.map_or("is missing".into(), |n| format!("has {n} bytes"));
                let what = format!("{found}, should have {}", state.bytes);
                return Err(damaged(superblock, log, &what));
            }
            let begun = done;
            let mut count = |bytes: u64| {
                done = (done + bytes).min(begun + state.bytes);
                progress(done, total);
            };
            let scan = scan(storage, superblock, log, Verify::Live, &mut count);
            let scan = scan.map_err(failed)?;
            done = begun + state.bytes;
            progress(done, total);
            match scan.damages.first() {
                Some(first) => Err(damaged(superblock, log, &first.what)),
                None => Ok(scan),
            }
        };
        Ok(Logs { own: read(Log::Own)?, recv: read(Log::Recv)? })
    }

    /// Puts what is live into the queues of the logs, and gives the tables that follow.
    /// A record's time of writing or arrival is not known any more: it counts as `now`.
    pub fn rebuild(
        &self,
        superblock: &Superblock,
        own: &OwnLog,
        recv: &RecvLog,
        now: u64,
    ) -> Result<Tables> {
        let Superblock { hi, acked, need, whole, fl, cut, mode, .. } = *superblock;
        let by_bits = matches!(mode, Mode::Collecting | Mode::Sending);
        let granted = if superblock.fenced { superblock.epoch } else { 0 };
        let mut tables = Tables {
            own: Own::new(own.journal.queue.tail()),
            out: Out::new(acked, granted, cut, by_bits),
            incoming: Incoming::new(hi, recv.journal.queue.tail()),
            normal: Normal::new(fl, need, whole),
        };
        self.adopt_own(superblock, own, now)?;
        self.adopt_recv(superblock, recv, now, &mut tables.incoming)?;
        let queue = &own.journal.queue;
        let found = tables.sequence(queue, &Clk::new(), |_| true);
        tables.out.begin(&tables.own);
        tables.normal.found(tables.newest_own().max(tables.incoming.hi()));
        if holds(Clause::ReplayAboveCheckpoint) {
            let in_volumes = found.iter().filter(|(stamp, _)| *stamp <= fl);
            in_volumes.for_each(|&(_, position)| queue.set_reflected(position));
            tables.normal.begin(&tables.own);
        }
        Ok(tables)
    }

    /// Writes again what is kept and not known to be durable ([`write_back`]).
    pub fn write_back(&self, storage: &dyn Storage, superblock: &Superblock) -> Result<()> {
        for (log, scan) in [(Log::Own, &self.own), (Log::Recv, &self.recv)] {
            let (file, _) = log_of(superblock, log);
            let failed = |e| Error::storage(format!("writing {file} again"), e);
            write_back(storage, superblock, log, scan).map_err(failed)?;
        }
        Ok(())
    }

    fn adopt_own(&self, superblock: &Superblock, own: &OwnLog, now: u64) -> Result<()> {
        let mut records = live_records(superblock, Log::Own, &self.own, now);
        // A record that was long in being published is late in its log: positions follow stamps.
        records.sort_by_key(|(record, _)| record.stamp);
        if let Some(twice) = records.windows(2).find(|w| w[0].0.stamp == w[1].0.stamp) {
            let what = format!("gives stamp {} to two records", twice[0].0.stamp);
            return Err(damaged(superblock, Log::Own, &what));
        }
        let mut last = vec![0; self.own.batches.len()];
        let queue = &own.journal.queue;
        queue.raise_limit(queue.tail() + records.len() as u64);
        for (record, batch) in &records {
            let overfull = || damaged(superblock, Log::Own, OVERFULL);
            last[*batch] = own.adopt(record).ok_or_else(overfull)?;
        }
        own.adopt_batches(&self.own.batches, &last);
        Ok(())
    }

    fn adopt_recv(
        &self,
        superblock: &Superblock,
        recv: &RecvLog,
        now: u64,
        incoming: &mut Incoming,
    ) -> Result<()> {
        let records = live_records(superblock, Log::Recv, &self.recv, now);
        let mut last = vec![0; self.recv.batches.len()];
        let queue = &recv.journal.queue;
        queue.raise_limit(queue.tail() + records.len() as u64);
        for (record, batch) in &records {
            let overfull = || damaged(superblock, Log::Recv, OVERFULL);
            last[*batch] = recv.adopt(record).ok_or_else(overfull)?;
            incoming.adopt(record.stamp, last[*batch]);
        }
        recv.adopt_batches(&self.recv.batches, &last);
        Ok(())
    }

    /// The first own record that is dropped, if it is known.
    pub fn first_dropped(&self) -> Option<Stamp> {
        self.own.first_cut
    }

    /// The recovery as it is told.
    pub fn recovery(&self, file: &SuperblockFile, own: &OwnLog, recv: &RecvLog) -> Recovery {
        let of = |scan: &Scan, live| LogRecovery { live_records: live, cut_records: scan.cut };
        Recovery {
            clean: file.get().clean,
            lost_writes: false,
            superblock_repaired: file.bad_copy().map(Into::into),
            own: of(&self.own, own.journal.queue.tail() - own.journal.queue.freed()),
            recv: of(&self.recv, recv.journal.queue.tail() - recv.journal.queue.freed()),
        }
    }
}

const OVERFULL: &str = "holds more live records than it has places";

/// Says that a log is not what it was, and what to do.
fn damaged(superblock: &Superblock, log: Log, what: &str) -> Error {
    let (file, _) = log_of(superblock, log);
    let what = format!("{file}: {what}; nothing was changed, `afterimage inspect` shows all of it");
    Error::new(Kind::Damaged, what)
}

/// The live records of a log, in its order, each with the index of its batch.
fn live_records(superblock: &Superblock, log: Log, scan: &Scan, now: u64) -> Vec<(Record, usize)> {
    let dead = dead_upto(superblock, log);
    let (size, fl) = (u64::from(superblock.block_size), superblock.fl);
    let batches = scan.batches.iter().enumerate();
    let records = batches.flat_map(|(k, found)| records(found, size, fl, now).map(move |r| (r, k)));
    let is_void = |stamp| holds(Clause::VoidLeftOut) && superblock.history.is_void(stamp);
    records.filter(|(record, _)| record.stamp > dead && !is_void(record.stamp)).collect()
}

fn records(
    found: &Found,
    block_size: u64,
    fl: Stamp,
    now: u64,
) -> impl Iterator<Item = Record> + '_ {
    let mut place = found.offset + PAGE;
    found.header.rows.iter().map(move |row: &Row| {
        let record = Record { was_reflected: row.stamp <= fl, ..record_of(row, place, now) };
        place += if row.has_data { block_size } else { 0 };
        record
    })
}
