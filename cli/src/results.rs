//! Files that results go to: none is an input, another result or part of a device.
//!
//! # Rules
//! - **By identity**: two names are the same file if their device and inode are the same, whatever
//!   hard or symbolic links lead there; of a file that is not there yet, the place where it would
//!   be made counts.
//! - **Before anything is opened**: [`refuse_clashes`] comes first, so that a refusal changes
//!   nothing.
//! - **Terminals and `/dev/null`** may be given twice: a character device keeps nothing.

use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use afterimage::internal::storage::{Directory, FileName, Storage};

use crate::exit::{Exit, Failure};
use crate::trace::Input;

/// Symbolic links followed before a chain of them counts as a loop, as Linux does.
const LINKS_MAX: usize = 40;

/// The place that a result goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The standard output; what a person would read there goes to the standard error.
    Stdout,
    /// A file.
    Path(PathBuf),
}

impl From<&OsStr> for Target {
    fn from(word: &OsStr) -> Target {
        if word == "-" || word == "/dev/stdout" {
            return Target::Stdout;
        }
        Target::Path(PathBuf::from(word))
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Target::Stdout => f.write_str("the standard output"),
            Target::Path(path) => path.display().fmt(f),
        }
    }
}

impl Target {
    /// The file to write to, in place of what was there.
    ///
    /// # Errors
    /// Those of the file.
    pub fn create(&self) -> io::Result<File> {
        self.open(|path| File::create(path))
    }

    /// The file to write to, after what is there.
    ///
    /// # Errors
    /// Those of the file.
    pub fn append(&self) -> io::Result<File> {
        self.open(|path| File::options().append(true).create(true).open(path))
    }

    fn open(&self, open: impl FnOnce(&Path) -> io::Result<File>) -> io::Result<File> {
        match self {
            Target::Stdout => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Target::Path(path) => open(path),
        }
    }

    fn place(&self) -> Place {
        match self {
            Target::Stdout => Place::Stdout,
            Target::Path(path) => Place::of(path),
        }
    }
}

/// The identity of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Stdout,
    /// Device and inode.
    There(u64, u64),
    /// Where it would be made.
    New(PathBuf),
    /// It keeps nothing that is written to it.
    CharacterDevice,
}

impl Place {
    fn of(path: &Path) -> Place {
        match fs::metadata(path) {
            Ok(found) => Place::found(&found),
            Err(_) => Place::New(resolved(path)),
        }
    }

    fn found(found: &fs::Metadata) -> Place {
        match found.file_type().is_char_device() {
            true => Place::CharacterDevice,
            false => Place::There(found.dev(), found.ino()),
        }
    }

    /// The file behind an open descriptor.
    fn behind(descriptor: impl AsFd) -> Place {
        let owned = descriptor.as_fd().try_clone_to_owned().map(File::from);
        let found = owned.and_then(|file| file.metadata());
        found.map_or(Place::CharacterDevice, |found| Place::found(&found))
    }

    fn is(&self, other: &Place) -> bool {
        self == other && *self != Place::CharacterDevice
    }
}

/// The place that `path` leads to, of which the last part need not be there.
fn resolved(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => path = parent(&path).join(target),
            Err(_) => break,
        }
    }
    let Some(name) = path.file_name() else { return path };
    let parent = parent(&path);
    parent.canonicalize().unwrap_or_else(|_| parent.to_path_buf()).join(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Refuses `results`, each with the flag that names it, of which one would be written over one of
/// the `inputs`, over another result, or into a device: one that stands there, or one of `devices`,
/// which are directories to be made.
///
/// # Errors
/// [`Exit::Usage`], with both names. Nothing has been opened or changed.
pub fn refuse_clashes(
    results: &[(&str, &Target)],
    inputs: &[Input],
    devices: &[PathBuf],
) -> Result<(), Failure> {
    let mut taken: Vec<(String, Place)> = Vec::new();
    for input in inputs {
        taken.push(match input {
            Input::Stdin => ("the standard input".into(), Place::behind(io::stdin())),
            Input::Path(path) => (format!("the trace {}", path.display()), Place::of(path)),
        });
    }
    if !results.is_empty() {
        taken.push(("the standard output".into(), Place::behind(io::stdout())));
    }
    for device in devices {
        let files = Directory::open_read_only(device).and_then(|there| there.files());
        let files = files.into_iter().flatten().map(|file| device.join(file.to_string()));
        taken.extend([device.clone()].into_iter().chain(files).map(|path| {
            (format!("{}, which belongs to a device", path.display()), Place::of(&path))
        }));
    }
    for (flag, target) in results {
        let place = target.place();
        let same = taken.iter().find(|(_, other)| place.is(other));
        if let Some((other, _)) = same {
            return Err(refused(format!("{flag} {target} is {other}")));
        }
        if let Some(device) = device_around(target, devices) {
            let story = format!("{flag} {target} is in the device {}", device.display());
            return Err(refused(story));
        }
        taken.push((format!("{flag} {target}"), place));
    }
    Ok(())
}

fn refused(clash: String) -> Failure {
    Failure::new(Exit::Usage, format!("{clash}: name another file; nothing was written"))
}

/// The device's directory in which a result would be.
fn device_around(target: &Target, devices: &[PathBuf]) -> Option<PathBuf> {
    let Target::Path(path) = target else { return None };
    // A link is followed to the file that is written.
    let place = path.canonicalize().unwrap_or_else(|_| resolved(path));
    let devices: Vec<PathBuf> = devices.iter().map(|device| resolved(device)).collect();
    let superblock = FileName::Superblock.to_string();
    let is_device = |folder: &&Path| {
        folder.join(&superblock).is_file() || devices.iter().any(|device| device == folder)
    };
    place.ancestors().skip(1).find(is_device).map(Path::to_path_buf)
}
