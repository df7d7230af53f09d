//! The findings: each a sentence for a person, the first few kept, all counted.

use std::fmt;

use afterimage::internal::unit::Stamp;

use super::Number;
use crate::replay::pattern::Origin;

/// How many are kept.
const KEPT: usize = 20;

/// Something that did not hold. Writes are named by their number in the run; 0 stands for zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A read showed an older write than it had to, or zeros in place of one.
    Stale {
        /// The volume.
        volume: u32,
        /// The sector.
        sector: u64,
        /// The write that it had to show, or a newer one.
        expected: Number,
        /// The write that it showed.
        number: Number,
    },
    /// A sector is neither zeros nor a payload.
    Damaged {
        /// The volume.
        volume: u32,
        /// The sector.
        sector: u64,
        /// The fault of it.
        what: &'static str,
    },
    /// A sector names another place, another run, or a write that was never made there.
    Misplaced {
        /// The volume.
        volume: u32,
        /// The sector.
        sector: u64,
        /// The origin that it names.
        origin: Origin,
    },
    /// A sector names a write that was never made there.
    NeverIssued {
        /// The volume.
        volume: u32,
        /// The sector.
        sector: u64,
        /// The write that it names.
        number: Number,
    },
    /// A write that a device refused was shown by a read, or at rest.
    RefusedShown {
        /// The write.
        number: Number,
    },
    /// A stamp is not above one completed or shown before its write was issued.
    StampTooLow {
        /// The write.
        number: Number,
        /// The stamp.
        stamp: Stamp,
        /// The stamp that it should be above.
        above: Stamp,
    },
    /// Two records have the same stamp.
    SameStamp {
        /// The stamp.
        stamp: Stamp,
        /// A write that has it.
        first: Number,
        /// The other.
        second: Number,
    },
    /// A completed write has a stamp of another tenure.
    WrongEpoch {
        /// The write.
        number: Number,
        /// Its stamp.
        stamp: Stamp,
        /// The tenure it was issued in.
        epoch: u64,
    },
    /// A completed write has no stamp.
    NoStamp {
        /// The write.
        number: Number,
    },
    /// A sector of a volume at rest is not what the history says.
    WrongAtRest {
        /// The volume.
        volume: u32,
        /// The sector.
        sector: u64,
        /// The write that it should show.
        expected: Number,
        /// The write that it shows.
        number: Number,
    },
    /// Sectors that should show writes show nothing on a device at rest.
    Missing {
        /// How many sectors should.
        expected: u64,
        /// How many do.
        found: u64,
    },
    /// The two devices at rest differ.
    DevicesDiffer,
    /// The loss sheet does not list what it must of a block, or lists what it must not.
    Sheet {
        /// The volume.
        volume: u32,
        /// The block.
        block: u64,
        /// The newest record that was told and has not arrived.
        due: Option<Stamp>,
        /// The one on the sheet.
        listed: Option<Stamp>,
    },
    /// A write is lost, is not on the sheet, and is no younger than the sheet says.
    NotYounger {
        /// The write.
        number: Number,
        /// Its stamp.
        stamp: Stamp,
        /// The time of the sheet.
        after: u64,
    },
    /// A forced device shows something else than all that had arrived.
    WrongAfterForce {
        /// The volume.
        volume: u32,
        /// The sector.
        sector: u64,
        /// The write that it should show.
        expected: Number,
        /// The write that it shows.
        number: Number,
    },
    /// Salvage has a block that is not what hosts wrote there last before the loss.
    WrongSalvage {
        /// The volume.
        volume: u32,
        /// The block.
        block: u64,
    },
    /// A block's content was lost and is not in salvage.
    NotSalvaged {
        /// The volume.
        volume: u32,
        /// The block.
        block: u64,
    },
}

/// A write, or zeros.
struct Named(Number);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("zeros"),
            number => write!(f, "write {number}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Stale { volume, sector, expected, number } => write!(
                f,
                "a read of volume {volume}, sector {sector} showed {}; {} or newer was due",
                Named(*number),
                Named(*expected)
            ),
            Finding::Damaged { volume, sector, what } => {
                write!(f, "volume {volume}, sector {sector}: {what}")
            }
            Finding::Misplaced { volume, sector, origin } => write!(
                f,
                "volume {volume}, sector {sector} holds write {} of run {:016x}, meant for volume {}, sector {}",
                origin.write, origin.run, origin.volume, origin.sector
            ),
            Finding::NeverIssued { volume, sector, number } => {
                write!(f, "volume {volume}, sector {sector} names write {number}, never made there")
            }
            Finding::RefusedShown { number } => {
                write!(f, "write {number} was refused and is shown nevertheless")
            }
            Finding::StampTooLow { number, stamp, above } => write!(
                f,
                "stamps contradict real time: {stamp} is not above {above} (write {number})"
            ),
            Finding::SameStamp { stamp, first, second } => {
                write!(f, "writes {first} and {second} share the stamp {stamp}")
            }
            Finding::WrongEpoch { number, stamp, epoch } => {
                write!(f, "write {number} of tenure {epoch} has the stamp {stamp}")
            }
            Finding::NoStamp { number } => write!(f, "write {number} completed without a stamp"),
            Finding::WrongAtRest { volume, sector, expected, number } => write!(
                f,
                "at rest, volume {volume}, sector {sector} shows {}, not {}",
                Named(*number),
                Named(*expected)
            ),
            Finding::Missing { expected, found } => {
                write!(f, "at rest, {found} sectors show a write; {expected} should")
            }
            Finding::DevicesDiffer => f.write_str("the two devices differ"),
            Finding::Sheet { volume, block, due, listed } => {
                let named = |stamp: &Option<Stamp>| {
                    stamp.map_or("nothing".to_string(), |stamp| stamp.to_string())
                };
                let (due, listed) = (named(due), named(listed));
                write!(
                    f,
                    "the loss sheet lists {listed} of volume {volume}, block {block}, not {due}"
                )
            }
            Finding::NotYounger { number, stamp, after } => write!(
                f,
                "write {number} ({stamp}) is lost and not on the loss sheet, which says that such writes \
                 are later than {after}"
            ),
            Finding::WrongAfterForce { volume, sector, expected, number } => write!(
                f,
                "after the force, volume {volume}, sector {sector} shows {}, not {}",
                Named(*number),
                Named(*expected)
            ),
            Finding::WrongSalvage { volume, block } => write!(
                f,
                "salvage has another content of volume {volume}, block {block} than the last before the loss"
            ),
            Finding::NotSalvaged { volume, block } => {
                write!(f, "the lost content of volume {volume}, block {block} is not in salvage")
            }
        }
    }
}

/// All findings: how many, and the first.
#[derive(Debug, Default)]
pub struct Findings {
    count: u64,
    first: Vec<Finding>,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(finding);
        }
    }

    /// Adds those of `other`.
    pub fn add_all(&mut self, other: &Findings) {
        other.first.iter().for_each(|finding| self.add(finding.clone()));
        self.count += other.count - other.first.len() as u64;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first of them.
    pub fn first(&self) -> &[Finding] {
        &self.first
    }
}
