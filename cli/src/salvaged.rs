//! `afterimage salvage`: what forced takeovers gave up, in the side files of a device that no process has
//! open: listed, shown, copied out as sparse images, and removed. A service lists, shows and removes its own device's by
//! the same words.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use afterimage::internal::error::Error;
use afterimage::internal::superblock;
use afterimage::internal::unit::Block;
use afterimage::{Directory, Stamp, Storage, salvage};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::args::Served;
use crate::disaster::refused_as;
use crate::exit::{Exit, Failure};
use crate::output::{self, shown};
use crate::recover;
use crate::service::control::wire::{Order, Said};
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
        /// Print JSON instead of text (docs/operations.md)
        #[arg(long)]
        json: bool,
    },
    /// Show the entries of a file, in the order in which they were saved
    Show {
        /// The device's directory
        dir: PathBuf,
        /// Number of the file
        number: u32,
        /// Print JSON instead of text, a document an entry
        #[arg(long)]
        json: bool,
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
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
}

impl Action {
    /// The same as an order to the service of its device, and where that is; `None` for what is done without.
    pub fn order(&self) -> Option<(Served, Order)> {
        let (dir, json, order) = match *self {
            Action::List { ref dir, json } => (dir, json, Order::SalvageList {}),
            Action::Show { ref dir, number, json } => (dir, json, Order::SalvageShow { number }),
            Action::Export { .. } => return None,
            Action::Remove { ref dir, number, yes, json } => {
                (dir, json, Order::SalvageRemove { number, yes })
            }
        };
        Some((Served { dir: dir.clone(), json }, order))
    }
}

/// Does it.
///
/// # Errors
/// [`Exit::Absent`] if there is no such file, [`Exit::Refused`] if something stands where the images were to
/// be made, or (`remove`) the device is open elsewhere; [`Exit::Device`] if the directory cannot be read, or
/// a file is damaged: what stands before the damage is shown, or copied; [`Exit::Output`].
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Exit, Failure> {
    match &args.action {
        Action::List { dir, json } => {
            let said = listed(&look(dir)?).map_err(|f| f.within(dir.display()))?;
            let said = if said.text.starts_with("no ") { said.within(dir) } else { said };
            output::said(&said, *json, out)?;
        }
        Action::Show { dir, number, json } => {
            let tell = |said: Said| match json {
                true => shown(writeln!(out, "{}", said.document)),
                false => shown(out.write_all(said.text.as_bytes())),
            };
            entries(&look(dir)?, *number, tell).map_err(|f| f.within(dir.display()))?;
        }
        Action::Export { dir, number, to } => export(dir, *number, to, out)?,
        Action::Remove { dir, number, yes, json } => remove(dir, *number, (*yes, *json), out)?,
    }
    Ok(Exit::Held)
}

fn look(dir: &Path) -> Result<Directory, Failure> {
    recover::look(dir)?;
    Directory::open_read_only(dir).map_err(|e| Failure::storage(recover::opening(dir), &e))
}

fn failed(dir: &Path) -> impl Fn(Error) -> Failure {
    let dir = dir.display().to_string();
    move |error| refused_as(Exit::Absent)(error).within(&dir)
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

fn document(file: &salvage::SalvageFile) -> Value {
    let salvage::SalvageFile { number, bytes, lineage, saved_at, blocks, .. } = *file;
    json!({
        "number": number,
        "bytes": bytes,
        "blocks": blocks,
        "lineage": lineage.map(|(number, _)| number),
        "lineage_id": lineage.map(|(_, id)| format!("{id:016x}")),
        "saved_from_ns": saved_at.0,
        "saved_to_ns": saved_at.1,
    })
}

/// The salvage files in `storage`.
///
/// # Errors
/// [`Exit::Device`] if it cannot be read.
pub(crate) fn listed(storage: &dyn Storage) -> Result<Said, Failure> {
    let files = salvage::list(storage).map_err(refused_as(Exit::Absent))?;
    let documents: Vec<_> = files.iter().map(document).collect();
    let text = match files.is_empty() {
        true => "no salvage\n".into(),
        false => files.iter().map(|file| format!("{}\n", row(file))).collect(),
    };
    Ok(Said { text, document: json!({ "version": 1, "files": documents }) })
}

/// Tells of each entry of a salvage file.
///
/// # Errors
/// [`Exit::Absent`] if there is no such file, [`Exit::Device`] if it is damaged, after the entries before the damage;
/// those of `tell`.
pub(crate) fn entries(
    storage: &dyn Storage,
    number: u32,
    mut tell: impl FnMut(Said) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut told = Ok(());
    let read = salvage::read(storage, number, |entry, _| {
        if told.is_ok() {
            told = tell(entry_words(entry.block, entry.count, entry.has_data, entry.stamp));
        }
        Ok(())
    });
    told?;
    read.map_err(refused_as(Exit::Absent))
}

fn entry_words(
    Block { volume, number: first }: Block,
    count: u64,
    has_data: bool,
    stamp: Stamp,
) -> Said {
    let content = if has_data { "data" } else { "zeros" };
    let is_known = stamp != Stamp::ZERO;
    let when = match is_known {
        false => "when it was written is not known".to_string(),
        true => format!("{stamp}, {}", moment(stamp.time)),
    };
    let last = first + count - 1;
    Said {
        text: format!("volume {volume}, blocks {first} to {last}: {content}, {when}\n"),
        document: json!({
            "version": 1,
            "volume": volume,
            "block": first,
            "blocks": count,
            "has_data": has_data,
            "stamp": is_known.then(|| stamp.to_string()),
        }),
    }
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

/// The words about a salvage file.
///
/// # Errors
/// [`Exit::Absent`] if there is no such file, [`Exit::Device`] if the storage cannot be read.
pub(crate) fn described(storage: &dyn Storage, number: u32) -> Result<Said, Failure> {
    let files = salvage::list(storage).map_err(refused_as(Exit::Absent))?;
    let file = files
        .iter()
        .find(|file| file.number == number)
        .ok_or_else(|| Failure::new(Exit::Absent, format!("there is no salvage file {number}")))?;
    let document = json!({ "version": 1, "changed": false, "file": document(file) });
    Ok(Said { text: format!("{}\n", row(file)), document })
}

/// The end of a dry run.
pub(crate) const KEPT: &str = "nothing was changed; --yes removes it for good";

fn remove(
    dir: &Path,
    number: u32,
    (yes, json): (bool, bool),
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut said = described(&look(dir)?, number).map_err(|f| f.within(dir.display()))?;
    if !json {
        shown(write!(out, "{}", said.text))?;
    }
    if yes {
        let storage =
            Directory::open(dir).map_err(|e| Failure::storage(recover::opening(dir), &e))?;
        salvage::remove(&storage as &dyn Storage, number).map_err(failed(dir))?;
    }
    said.document["changed"] = yes.into();
    said.text = format!("{}\n", if yes { "removed" } else { KEPT });
    output::said(&said, json, out)
}
