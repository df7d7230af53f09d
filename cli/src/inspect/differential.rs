//! The differential administration tables (figure 6) of a device that is not running.
//!
//! A device has one table of its own, T: the blocks written there that the other may lack, whatever the
//! tenure. It is the specification's table of the last tenure that the device held. The other device's table is
//! known here as far as it told of it; the copy that a takeover hands over, P, only while the device runs.

use super::logs::LogRead;
use super::text::{aligned, blocks, more};
use crate::ranges::{Range, Told};
use crate::words::plural;
use afterimage::internal::format::superblock::Superblock;
use afterimage::internal::table::bits::Bits;
use afterimage::internal::unit::{Blocks, Mode};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
pub(super) struct Differential {
    mode: String,
    round_lineage: u64,
    round: u64,
    /// The last tenure in which the device served; 0: none.
    tenure: u64,
    /// 1, 2 or 3, and the specification's numeral.
    table: Option<u8>,
    numeral: Option<u16>,
    /// Neighbouring blocks are one run; as stored last.
    runs: u64,
    blocks: u64,
    rows: Vec<Range>,
    /// Blocks of own records that imply a bit and have none in what is stored.
    implied: Vec<Range>,
    /// The other device may owe blocks.
    owed: bool,
    /// Blocks that the other device told of, and that have not arrived.
    told: Vec<Told>,
}

fn cell(run: &Range) -> String {
    blocks(run.volume, run.block, run.blocks)
}

/// The number of the table of the blocks written in `tenure`, and its numeral: the first tenure has table 1,
/// and from then on each failover table 2 and each failback table 3.
fn table_of(tenure: u64) -> Option<(u8, u16)> {
    match tenure {
        0 => None,
        1 => Some((1, 400)),
        even if even.is_multiple_of(2) => Some((2, 401)),
        _ => Some((3, 402)),
    }
}

impl Differential {
    /// The tables of the device whose superblock and own log these are; `stored` is its table, and `told` what
    /// it was told of, with times.
    pub(super) fn new(
        superblock: &Superblock,
        stored: Vec<Blocks>,
        own: &LogRead,
        told: Vec<(Blocks, u64)>,
    ) -> Differential {
        let by_bits = matches!(superblock.mode, Mode::Collecting | Mode::Sending);
        let newer = own.entries.iter().filter(|entry| by_bits && entry.row.stamp > superblock.cut);
        let mut implied: Bits = newer.map(|entry| Blocks::from(entry.row.extent())).collect();
        implied.subtract(&stored.iter().cloned().collect());
        let table = table_of(superblock.last_active);
        Differential {
            mode: superblock.mode.to_string(),
            round_lineage: superblock.round.generation,
            round: superblock.round.counter,
            tenure: superblock.last_active,
            table: table.map(|table| table.0),
            numeral: table.map(|table| table.1),
            runs: stored.len() as u64,
            blocks: stored.iter().map(Blocks::count).sum(),
            rows: stored.iter().map(Range::from).collect(),
            implied: implied.runs().map(|run| Range::from(&run)).collect(),
            owed: superblock.owed,
            told: told.iter().map(Told::from).collect(),
        }
    }

    /// Writes it as text, at most `rows_max` rows of each table.
    pub(super) fn write(&self, rows_max: usize, out: &mut dyn Write) -> io::Result<()> {
        let Differential { mode, round_lineage, round, tenure, .. } = self;
        writeln!(
            out,
            "\nDIFFERENTIAL ADMINISTRATION TABLES: blocks that the other device may lack"
        )?;
        writeln!(out, "  mode {mode}, round {round_lineage}.{round}")?;
        let whose = match self.table.zip(self.numeral) {
            None => "the table of no tenure, since the device never served".into(),
            Some((table, numeral)) => {
                format!("table {table} ({numeral}), of tenure {tenure}, the last here")
            }
        };
        let (blocks, runs) = (plural(self.blocks, "block"), plural(self.runs, "run"));
        writeln!(out, "  {whose}: {blocks} in {runs}, as stored last")?;
        write_rows(&self.rows, rows_max, out)?;
        if !self.implied.is_empty() {
            writeln!(out, "  besides, of own records above cut:")?;
            write_rows(&self.implied, rows_max, out)?;
        }
        if self.owed {
            writeln!(
                out,
                "  P, the copy of the other device's table: it may owe blocks; which they are is known only \
                 while this device runs"
            )?;
        }
        if !self.told.is_empty() {
            writeln!(
                out,
                "  the other device's table, as it told of it; blocks that have not arrived"
            )?;
            let mut rows = vec![["", "block", "time"].map(String::from).to_vec()];
            rows.extend(self.told.iter().take(rows_max).map(|told| {
                let time = told.time_ns.map_or("not known".into(), |time| time.to_string());
                vec![String::new(), cell(&told.range), time]
            }));
            aligned(&rows, out)?;
            more(self.told.len(), rows_max, out)?;
        }
        Ok(())
    }
}

fn write_rows(rows: &[Range], rows_max: usize, out: &mut dyn Write) -> io::Result<()> {
    let cells = rows.iter().take(rows_max).map(|row| vec![String::new(), cell(row)]);
    aligned(&cells.collect::<Vec<_>>(), out)?;
    more(rows.len(), rows_max, out)
}
