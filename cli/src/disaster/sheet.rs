//! The loss sheet for people and for programs: neighbouring blocks of one request in one row.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use afterimage::internal::unit::Extent;
use afterimage::{Image, LossSheet, Stamp};
use serde::Serialize;
use serde_json::Value;

use super::{NOTHING, recorded};
use crate::output;
use crate::ranges::{Range, Told};
use crate::words::{moment, plural};

/// Rows of a list that a terminal gets.
const LISTED_MAX: usize = 16;

/// Rows of a list that a service's answer has.
const DOCUMENTED_MAX: usize = 10_000;

/// The sheet. Times are in nanoseconds since 1970.
#[derive(PartialEq, Serialize)]
pub(crate) struct Sheet {
    version: u32,
    device: u64,
    /// The lineage that ends with the force.
    lineage: u64,
    lineage_id: String,
    image: &'static str,
    mode: String,
    pub(super) made_at_ns: u64,
    received: String,
    received_time_ns: u64,
    told: Vec<Run>,
    /// Blocks that bits told of, and no copy has come of.
    told_blocks: Vec<Told>,
    given_up: Vec<Run>,
    /// Of when the last consistent image is.
    image_of: Option<ImageOf>,
    /// Blocks that get the content that they had in it.
    put_back: Vec<Range>,
    others_after_ns: Option<u64>,
    #[serde(skip)]
    received_stamp: Stamp,
}

/// Blocks of one volume, one behind the other, whose records follow one another in one request.
#[derive(PartialEq, Serialize)]
struct Run {
    volume: u32,
    block: u64,
    blocks: u64,
    first_stamp: String,
    last_stamp: String,
    time_ns: u64,
    #[serde(skip)]
    last: Stamp,
}

#[derive(PartialEq, Serialize)]
struct ImageOf {
    at_ns: u64,
    /// Its newest record that came as one.
    upto: String,
    lineage: u64,
    lineage_id: String,
    #[serde(skip)]
    upto_stamp: Stamp,
}

fn runs(entries: &[(Extent, Stamp)]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &(extent, stamp) in entries {
        let (volume, block) = (extent.first.volume, extent.first.number);
        match runs.last_mut() {
            Some(run)
                if run.volume == volume
                    && run.block + run.blocks == block
                    && Stamp { sequence: run.last.sequence.saturating_add(1), ..run.last }
                        == stamp =>
            {
                run.blocks += extent.blocks();
                (run.last, run.last_stamp) = (stamp, stamp.to_string());
            }
            _ => runs.push(Run {
                volume,
                block,
                blocks: extent.blocks(),
                first_stamp: stamp.to_string(),
                last_stamp: stamp.to_string(),
                time_ns: stamp.time,
                last: stamp,
            }),
        }
    }
    runs
}

impl Sheet {
    pub fn of(sheet: &LossSheet) -> Sheet {
        Sheet {
            version: 1,
            device: sheet.device,
            lineage: sheet.lineage.0,
            lineage_id: format!("{:016x}", sheet.lineage.1),
            image: match sheet.image {
                Image::Newest => "newest",
                Image::Last => "last",
                Image::Consistent => "consistent",
            },
            mode: format!("{:?}", sheet.mode).to_lowercase(),
            made_at_ns: sheet.made_at,
            received: sheet.received.to_string(),
            received_time_ns: sheet.received.time,
            told: runs(&sheet.told),
            told_blocks: sheet.told_blocks.iter().map(Told::from).collect(),
            given_up: runs(&sheet.given_up),
            image_of: sheet.image_of.map(|of| ImageOf {
                at_ns: of.at,
                upto: of.upto.to_string(),
                lineage: of.lineage.0,
                lineage_id: format!("{:016x}", of.lineage.1),
                upto_stamp: of.upto,
            }),
            put_back: sheet.put_back.iter().map(Range::from).collect(),
            others_after_ns: sheet.others_after,
            received_stamp: sheet.received,
        }
    }

    /// The number of the lineage that the force begins.
    pub fn next(&self) -> u64 {
        self.lineage + 1
    }

    /// Its file in the device's directory `dir`, `txt` or `json`.
    pub fn file(&self, dir: &Path, kind: &str) -> PathBuf {
        dir.join(format!("loss-{}.{kind}", self.next()))
    }

    /// Writes its files, durably.
    pub fn store(&self, dir: &Path) -> io::Result<()> {
        let mut json = Vec::new();
        output::json(self, &mut json)?;
        for (kind, bytes) in [("json", json), ("txt", self.to_string().into_bytes())] {
            let mut file = File::create(self.file(dir, kind))?;
            file.write_all(&bytes)?;
            file.sync_all()?;
        }
        File::open(dir)?.sync_all()
    }

    /// Removes its files: nothing was forced.
    pub fn remove(&self, dir: &Path) {
        for kind in ["json", "txt"] {
            // A sheet that stays says more than it should, and no more.
            let _ = fs::remove_file(self.file(dir, kind));
        }
    }

    /// The end of a dry run.
    pub fn not_yet(&self, dir: &Path) -> String {
        format!("{NOTHING}, and writes this sheet to {}", self.file(dir, "txt").display())
    }

    /// Where it is, in a sentence.
    pub fn places(&self, dir: &Path) -> String {
        let [text, json] = ["txt", "json"].map(|kind| self.file(dir, kind).display().to_string());
        format!("the loss sheet is in {text} and {json}")
    }

    /// The text for a terminal: of long lists the beginning.
    pub fn brief(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, LISTED_MAX).expect("a string takes all");
        text
    }

    /// The document for an answer: of very long lists the beginning, and `cut` says so. The file has all.
    pub fn document(&self) -> Value {
        let mut document = serde_json::to_value(self).expect("numbers, words and lists of them");
        for list in ["told", "told_blocks", "given_up", "put_back"] {
            let list = document[list].as_array_mut().expect("a list");
            let is_cut = list.len() > DOCUMENTED_MAX;
            list.truncate(DOCUMENTED_MAX);
            if is_cut {
                document["cut"] = true.into();
            }
        }
        document
    }

    /// Writes the text, with the first `most` rows of each list.
    fn write(&self, f: &mut impl fmt::Write, most: usize) -> fmt::Result {
        let Sheet { device, lineage, image, mode, .. } = self;
        writeln!(f, "loss sheet of device {device}, lineage {lineage}, {mode} mode")?;
        writeln!(f, "  made: {}", moment(self.made_at_ns))?;
        match *image {
            "newest" => writeln!(
                f,
                "  served: each block as new as it is here, perhaps a state that the data never had"
            )?,
            _ => writeln!(f, "  served: an earlier state of the hosts' data")?,
        }
        if let Some(of) = &self.image_of {
            writeln!(f, "    the last that this device had, at {}", moment(of.at_ns))?;
            writeln!(f, "    its newest record: {}", recorded(of.upto_stamp))?;
        }
        writeln!(f, "  data go from device {device} to the other one, when that returns")?;
        writeln!(f, "  newest record of the other device: {}", recorded(self.received_stamp))?;
        let given_up = match self.image_of {
            Some(_) => "records in the logs, newer than that state, given up",
            None => "own records, newer than one that is missing, given up",
        };
        for (what, runs) in
            [("told by the other device and not received", &self.told), (given_up, &self.given_up)]
        {
            let blocks: u64 = runs.iter().map(|run| run.blocks).sum();
            writeln!(f, "  {what}: {}", plural(blocks, "block"))?;
            for Run { volume, block, blocks, first_stamp, time_ns, .. } in runs.iter().take(most) {
                let last = block + blocks - 1;
                writeln!(
                    f,
                    "    volume {volume}, blocks {block} to {last}: {first_stamp}, {}",
                    moment(*time_ns)
                )?;
            }
            more(f, runs.len(), most)?;
        }
        if !self.told_blocks.is_empty() {
            let blocks: u64 = self.told_blocks.iter().map(|told| told.range.blocks).sum();
            writeln!(f, "  told by bits, and not received: {}", plural(blocks, "block"))?;
            let listed = self.told_blocks.iter().take(most);
            for Told { range: Range { volume, block, blocks }, time_ns } in listed {
                let time = time_ns.map_or("time not known".into(), moment);
                writeln!(
                    f,
                    "    volume {volume}, blocks {block} to {}: {time}",
                    block + blocks - 1
                )?;
            }
            more(f, self.told_blocks.len(), most)?;
        }
        if self.image_of.is_some() {
            let blocks: u64 = self.put_back.iter().map(|run| run.blocks).sum();
            writeln!(f, "  written since, and put back: {}", plural(blocks, "block"))?;
            for Range { volume, block, blocks } in self.put_back.iter().take(most) {
                writeln!(f, "    volume {volume}, blocks {block} to {}", block + blocks - 1)?;
            }
            more(f, self.put_back.len(), most)?;
            return writeln!(f, "  every write since that state is lost");
        }
        match self.others_after_ns {
            Some(0) => writeln!(f, "  nothing is known of other lost writes"),
            Some(time) => writeln!(f, "  every other lost write is younger than {}", moment(time)),
            None => writeln!(
                f,
                "  other writes may be lost, and nothing can be said of their age: bits told of them"
            ),
        }
    }
}

fn more(f: &mut impl fmt::Write, rows: usize, most: usize) -> fmt::Result {
    match rows.saturating_sub(most) {
        0 => Ok(()),
        more => writeln!(f, "    and {}, which the file has", plural(more as u64, "row")),
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, usize::MAX)
    }
}
