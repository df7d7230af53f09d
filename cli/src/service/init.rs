//! `afterimage init`: a new device, alone so far, that serves first.

use std::io::Write;
use std::path::PathBuf;

use afterimage::{Device, Directory, Geometry, VolumeSpec};

use super::pairing;
use super::volumes::{self, Named};
use crate::args::{PairMode, size};
use crate::exit::{Exit, Failure};
use crate::output::shown;

/// The device to be made.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The directory to be made for the device
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// A volume: its name, as hosts will call it, and its size; may be given several times
    #[arg(long, value_name = "NAME=SIZE", required = true, value_parser = volume)]
    pub volume: Vec<(String, u64)>,

    /// The size of each of the two journals
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size)]
    pub journal: u64,

    /// Whether writes reach the peer in their order, or by bits
    #[arg(long, value_enum, default_value_t = PairMode::Ordered)]
    pub mode: PairMode,

    /// The size of a block
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = size)]
    pub block_size: u64,
}

fn volume(word: &str) -> Result<(String, u64), String> {
    let (name, bytes) = word.split_once('=').ok_or_else(|| {
        format!("`{word}` is no volume: give its name and size, such as data=64GiB")
    })?;
    volumes::check_name(name)?;
    Ok((name.into(), size(bytes)?))
}

/// Makes the device, and prints an invitation for its peer, alone. Nothing is left of one that cannot be made.
///
/// # Errors
/// [`Exit::Usage`] for a geometry that cannot be, [`Exit::Refused`] if something stands in `DIR`,
/// [`Exit::Device`] if the storage fails.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    pairing::leave_no_core_dump();
    let dir = &args.dir;
    let making = format!("making a device in {}", dir.display());
    let names: Vec<Named> = (0..).zip(&args.volume).map(named).collect();
    for (at, one) in names.iter().enumerate() {
        if names[..at].iter().any(|other| other.name == one.name) {
            return Err(Failure::new(
                Exit::Usage,
                format!("{making}: two volumes are named {}", one.name),
            ));
        }
    }
    let specs = (0..).zip(&args.volume).map(|(id, &(_, bytes))| VolumeSpec { id, bytes }).collect();
    let random =
        |e| Failure::storage(format!("{making}: naming the group"), &std::io::Error::other(e));
    let geometry = Geometry {
        block_size: args.block_size.try_into().unwrap_or(u32::MAX),
        journal_bytes: args.journal,
        differential: args.mode == PairMode::Differential,
        ..Geometry::new(group().map_err(random)?, 1, specs)
    };
    geometry.check().map_err(|e| Failure::device(&making, &e))?;
    let stands = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if stands {
        let what = format!("{making}: something stands there already: give another directory");
        return Err(Failure::new(Exit::Refused, what));
    }
    let directory = Directory::create(dir).map_err(|e| Failure::storage(&making, &e))?;
    volumes::write(dir, &names).map_err(|e| Failure::storage(&making, &e))?;
    pairing::make_key(dir)?;
    Device::create(&directory, &geometry, true).map_err(|e| Failure::device(&making, &e))?;
    let (invitation, _) = pairing::invite(dir)?;
    shown(writeln!(out, "{invitation}"))?;
    Ok(Exit::Held)
}

fn named((id, (name, _)): (u32, &(String, u64))) -> Named {
    Named { id, name: name.clone() }
}

/// A consistency group's number, which no other has.
fn group() -> Result<u128, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}
