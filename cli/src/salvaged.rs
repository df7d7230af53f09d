//! `afterimage salvage`: what forced takeovers gave up, in the side files of a device that no process has
//! open: listed, shown, copied out as sparse images, and removed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use afterimage::internal::error::{Error, Kind};
use afterimage::internal::superblock;
use afterimage::{Directory, Storage, salvage};
use clap::Subcommand;

use crate::exit::{Exit, Failure};
use crate::output::shown;
use crate::recover;
use crate::words::{bytes, moment, plural};

/// The command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The action.
    #[command(subcommand)]
    pub action: Action,
}

/// See [`Args`].
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List the files: lineage, times, blocks, bytes
    List {
        /// The device's directory
        dir: PathBuf,
    },
    /// Show the entries of a file, in the order in which they were saved
    Show {
        /// The device's directory
        dir: PathBuf,
        /// Number of the file
        number: u32,
    },
    /// Copy the content of a file out, one sparse image VOLUME.img a volume: each block at its place
    ///
    /// Of a block that was given up twice the later content counts.
    Export {
        /// The device's directory
        dir: PathBuf,
        /// Number of the file
        number: u32,
        /// A directory that is made for the images
        #[arg(long, value_name = "PATH")]
        to: PathBuf,
    },
    /// Remove a file
    Remove {
        /// The device's directory
        dir: PathBuf,
        /// Number of the file
        number: u32,
        /// Do it; without this, what would be done is said and nothing is changed
        #[arg(long)]
        yes: bool,
    },
}

/// Does it.
///
/// # Errors
/// [`Exit::Absent`] if there is no such file, [`Exit::Refused`] if something stands where the images were to
/// be made, or (`remove`) the device is open elsewhere; [`Exit::Device`] if the directory cannot be read, or
/// a file is damaged: what stands before the damage is shown, or copied; [`Exit::Output`].
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    match &args.action {
        Action::List { dir } => list(dir, out)?,
        Action::Show { dir, number } => show(dir, *number, out)?,
        Action::Export { dir, number, to } => export(dir, *number, to, out)?,
        Action::Remove { dir, number, yes } => remove(dir, *number, *yes, out)?,
    }
    Ok(Exit::Held)
}

fn look(dir: &Path) -> Result<Directory, Failure> {
    recover::look(dir)?;
    Directory::open_read_only(dir).map_err(|e| Failure::storage(recover::opening(dir), &e))
}

fn failed(dir: &Path) -> impl Fn(Error) -> Failure {
    let dir = dir.display().to_string();
    move |error| match error.kind() {
        Kind::Invalid => Failure::new(Exit::Absent, format!("{dir}: {error}")),
        _ => Failure::device(&dir, &error),
    }
}

fn row(file: &salvage::SalvageFile) -> String {
    let salvage::SalvageFile { number, lineage, saved_at, blocks, .. } = file;
    let (size, blocks) = (bytes(file.bytes), plural(*blocks, "block"));
    match lineage {
        None => format!("{number}: {size}, of which nothing can be read"),
        Some((lineage, id)) => format!(
            "{number}: {blocks} of lineage {lineage} ({id:016x}), {size}, saved from {} to {}",
            moment(saved_at.0),
            moment(saved_at.1)
        ),
    }
}

fn list(dir: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let files = salvage::list(&look(dir)?).map_err(failed(dir))?;
    if files.is_empty() {
        return shown(writeln!(out, "{}: no salvage", dir.display()));
    }
    files.iter().try_for_each(|file| shown(writeln!(out, "{}", row(file))))
}

fn show(dir: &Path, number: u32, out: &mut dyn Write) -> Result<(), Failure> {
    let mut written = Ok(());
    let read = salvage::read(&look(dir)?, number, |entry, _| {
        let (volume, first, count) = (entry.block.volume, entry.block.number, entry.count);
        let content = if entry.has_data { "data" } else { "zeros" };
        let when = match entry.stamp {
            afterimage::Stamp::ZERO => "when it was written is not known".to_string(),
            stamp => format!("{stamp}, {}", moment(stamp.time)),
        };
        if written.is_ok() {
            written = writeln!(
                out,
                "volume {volume}, blocks {first} to {}: {content}, {when}",
                first + count - 1
            );
        }
        Ok(())
    });
    shown(written)?;
    read.map_err(failed(dir))
}

fn export(dir: &Path, number: u32, to: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let storage = look(dir)?;
    let found = superblock::load(&storage).map_err(failed(dir))?;
    let files = salvage::list(&storage).map_err(failed(dir))?;
    if !files.iter().any(|file| file.number == number) {
        let story = format!("{}: there is no salvage file {number}", dir.display());
        return Err(Failure::new(Exit::Absent, story));
    }
    let output = |e: io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            let story = format!("{}: it is there already, and is left as it is", to.display());
            Failure::new(Exit::Refused, story)
        }
        _ => Failure::output(to.display(), &e),
    };
    fs::create_dir(to).map_err(output)?;
    let block = u64::from(found.block_size);
    let mut images: BTreeMap<u32, File> = BTreeMap::new();
    let mut filled: BTreeSet<(u32, u64)> = BTreeSet::new();
    let mut written: io::Result<u64> = Ok(0);
    let read = salvage::read(&storage, number, |entry, data| {
        let place = entry.block;
        let mut write = || {
            if let Entry::Vacant(vacant) = images.entry(place.volume) {
                let path = to.join(format!("{}.img", place.volume));
                let file = File::create_new(path)?;
                let bytes = found.volumes.iter().find(|v| v.id == place.volume).map(|v| v.bytes);
                file.set_len(bytes.unwrap_or(0))?;
                vacant.insert(file);
            }
            let image = &images[&place.volume];
            match data.is_empty() {
                // A hole reads as zeros; only an earlier content of the block is replaced.
                true => {
                    let run =
                        (place.volume, place.number)..(place.volume, place.number + entry.count);
                    for &(_, number) in filled.range(run) {
                        image.write_all_at(&vec![0; block as usize], number * block)?;
                    }
                    Ok(entry.count)
                }
                false => {
                    filled.insert((place.volume, place.number));
                    image.write_all_at(data, place.number * block).map(|()| 1)
                }
            }
        };
        if let Ok(blocks) = &mut written {
            match write() {
                Ok(more) => *blocks += more,
                Err(error) => written = Err(error),
            }
        }
        Ok(())
    });
    let blocks = written.map_err(output)?;
    for image in images.values() {
        image.sync_all().map_err(output)?;
    }
    read.map_err(failed(dir))?;
    shown(writeln!(out, "{} of file {number} in {}", plural(blocks, "block"), to.display()))
}

fn remove(dir: &Path, number: u32, yes: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let files = salvage::list(&look(dir)?).map_err(failed(dir))?;
    let Some(file) = files.iter().find(|file| file.number == number) else {
        let story = format!("{}: there is no salvage file {number}", dir.display());
        return Err(Failure::new(Exit::Absent, story));
    };
    shown(writeln!(out, "{}", row(file)))?;
    if !yes {
        return shown(writeln!(out, "nothing was changed; --yes removes it for good"));
    }
    let storage = Directory::open(dir).map_err(|e| Failure::storage(recover::opening(dir), &e))?;
    salvage::remove(&storage as &dyn Storage, number).map_err(failed(dir))?;
    shown(writeln!(out, "removed"))
}
