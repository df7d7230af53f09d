//! The two devices of a pair, made known to each other: `afterimage invite` and `join`, and what both leave in their
//! directories.
//!
//! | file | what it has |
//! |---|---|
//! | `link.key` | the device's own key, which nobody else reads |
//! | `peer.json` | the pin: the peer's public key, and where it is dialled |
//! | `invitation` | the record of the invitation that stands: a hash of its secret, never the secret |

use std::io::{self, BufRead, IsTerminal, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use afterimage::internal::format::superblock::Superblock;
use afterimage::tcp::{
    self, DeviceKey, Invitation, Inviter, KEY_FILE, PairingEvent, Pins, PublicKey, Record,
    TcpSettings,
};
use afterimage::{Clock, Device, Directory, Error, Geometry, Kind, SystemClock, VolumeSpec};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use serde::{Deserialize, Serialize};

use super::durable;
use super::news::News;
use super::volumes::{self, Named};
use crate::exit::{Exit, Failure};

const PEER_FILE: &str = "peer.json";
const INVITATION_FILE: &str = "invitation";

/// A longer file is none of these.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A longer line is no invitation.
const INVITATION_BYTES_MAX: u64 = 4096;

/// The device that is to join, and where the other one is.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArgs {
    /// The directory to be made for the device
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Where the inviting device's service listens
    #[arg(value_name = "HOST:PORT")]
    pub address: String,

    /// The file that has the invitation, instead of the standard input
    #[arg(long, value_name = "FILE")]
    pub invitation_file: Option<PathBuf>,
}

/// The pin of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    version: u32,
    /// 64 hexadecimal digits.
    key: String,
    /// Where this device dials it; `None`: it is waited for.
    pub address: Option<String>,
}

impl Peer {
    fn new(key: PublicKey, address: Option<String>) -> Peer {
        let key = key.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Peer { version: 1, key, address }
    }

    /// The public key.
    pub fn key(&self) -> Option<PublicKey> {
        let digits = self.key.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        for (byte, two) in bytes.iter_mut().zip(self.key.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()?;
        }
        Some(PublicKey::from_bytes(bytes))
    }

    /// The pin of the device in `dir`, if it has one.
    ///
    /// # Errors
    /// [`Exit::Device`] if its file has something else.
    pub fn read(dir: &Path) -> Result<Option<Peer>, Failure> {
        let path = dir.join(PEER_FILE);
        let wrong = |what: String| {
            let story = format!("{}: {what}; mend it, or pair the device anew", path.display());
            Failure::new(Exit::Device, story)
        };
        let bytes = durable::read(&path, FILE_BYTES_MAX).map_err(|e| wrong(e.to_string()))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let peer: Peer = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        if peer.version != 1 {
            return Err(wrong(format!(
                "it is of version {}, and this program reads 1",
                peer.version
            )));
        }
        match peer.key() {
            Some(_) => Ok(Some(peer)),
            None => Err(wrong("its key has not 64 hexadecimal digits".into())),
        }
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        durable::replace(&dir.join(PEER_FILE), &bytes, true)
    }
}

/// The device in `dir` takes no device for its peer any more, and the invitation that made one its peer is void.
///
/// # Errors
/// The file system's.
pub fn forget(dir: &Path) -> io::Result<()> {
    // The other way round a crash in between would let the same device pair again.
    durable::remove(&dir.join(INVITATION_FILE))?;
    durable::remove(&dir.join(PEER_FILE))
}

/// From now on this process leaves no image of its memory behind when it crashes: it has secrets.
pub fn leave_no_core_dump() {
    // Where the system refuses that, a core dump has what the process had.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Makes the device's key.
///
/// # Errors
/// [`Exit::Device`] if the storage fails.
pub fn make_key(dir: &Path) -> Result<DeviceKey, Failure> {
    let failed = |e| Failure::device("making the device's key", &e);
    let key = DeviceKey::generate().map_err(failed)?;
    key.store(&dir.join(KEY_FILE)).map_err(failed)?;
    Ok(key)
}

/// The key of the device in `dir`, or the one that systemd passes to its service as the credential `link.key`; `None` if
/// there is none.
///
/// # Errors
/// Why its file has no key that may be used.
pub fn key_of(dir: &Path) -> Result<Option<DeviceKey>, Failure> {
    let passed = std::env::var_os("CREDENTIALS_DIRECTORY").map(|of| Path::new(&of).join(KEY_FILE));
    let path = passed.filter(|path| path.exists()).unwrap_or_else(|| dir.join(KEY_FILE));
    match path.exists() {
        false => Ok(None),
        true => {
            DeviceKey::load(&path).map(Some).map_err(|e| Failure::device("the device's key", &e))
        }
    }
}

/// A new invitation by the device in `dir`, which takes the place of an earlier one durably; its line, for a person.
///
/// # Errors
/// [`Exit::Device`] if the device has no key, or the storage fails.
pub fn invite(dir: &Path) -> Result<(String, Record), Failure> {
    let failed = |e: &dyn std::fmt::Display| {
        Failure::new(Exit::Device, format!("{}: inviting: {e}", dir.display()))
    };
    let Some(key) = key_of(dir)? else {
        return Err(failed(&format!(
            "the device has no key ({KEY_FILE}): it was made without one"
        )));
    };
    let invitation = Invitation::new(key.public(), None).map_err(|e| failed(&e))?;
    let record = invitation.record(SystemClock::default().wall());
    durable::replace(&dir.join(INVITATION_FILE), &record.encode(), false)
        .map_err(|e| failed(&e))?;
    Ok((invitation.to_text().to_string(), record))
}

/// The invitation that stands at the device in `dir`, if there is one.
///
/// # Errors
/// [`Exit::Device`] if its record cannot be read.
pub fn standing(dir: &Path) -> Result<Option<Record>, Failure> {
    let path = dir.join(INVITATION_FILE);
    let wrong = |e: &dyn std::fmt::Display| {
        let what = format!("{}: {e}; make a new one (`afterimage invite`)", path.display());
        Failure::new(Exit::Device, what)
    };
    let bytes = durable::read(&path, FILE_BYTES_MAX).map_err(|e| wrong(&e))?;
    bytes.map(|bytes| Record::decode(&bytes)).transpose().map_err(|e| wrong(&e))
}

/// The words of an inviting device to the one that joins.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Welcome {
    version: u32,
    /// 32 hexadecimal digits.
    group: String,
    /// The number that the joining device gets.
    device: u64,
    block_size: u32,
    journal_bytes: u64,
    segment_bytes: u64,
    differential: bool,
    /// Of each volume: number, bytes, name.
    volumes: Vec<(u32, u64, String)>,
}

impl Welcome {
    fn new(superblock: &Superblock, names: &[Named]) -> Welcome {
        let geometry = Geometry::of(superblock);
        let forgotten = superblock.history.forgotten;
        Welcome {
            version: 1,
            group: format!("{:032x}", geometry.group),
            device: match superblock.peer {
                0 => geometry.device.max(forgotten) + 1,
                peer => peer,
            },
            block_size: geometry.block_size,
            journal_bytes: geometry.journal_bytes,
            segment_bytes: geometry.segment_bytes,
            differential: geometry.differential,
            volumes: geometry
                .volumes
                .iter()
                .zip(names)
                .map(|(volume, named)| (volume.id, volume.bytes, named.name.clone()))
                .collect(),
        }
    }

    /// The device that is to be made.
    fn geometry(&self) -> Result<(Geometry, Vec<Named>), String> {
        if self.version != 1 {
            return Err(format!("they are of version {}, and this program reads 1", self.version));
        }
        let group = u128::from_str_radix(&self.group, 16).map_err(|e| e.to_string())?;
        let volumes = self.volumes.iter().map(|&(id, bytes, _)| VolumeSpec { id, bytes }).collect();
        let geometry = Geometry {
            block_size: self.block_size,
            journal_bytes: self.journal_bytes,
            segment_bytes: self.segment_bytes,
            differential: self.differential,
            ..Geometry::new(group, self.device, volumes)
        };
        geometry.check().map_err(|e| e.to_string())?;
        let named = |(id, _, name): &(u32, u64, String)| Named { id: *id, name: name.clone() };
        let names: Vec<Named> = self.volumes.iter().map(named).collect();
        names.iter().try_for_each(|named| volumes::check_name(&named.name))?;
        Ok((geometry, names))
    }
}

/// The service's part in a pairing, at the device that has invited.
pub struct Host {
    dir: PathBuf,
    welcome: Vec<u8>,
    news: Arc<News>,
}

impl Host {
    /// Of the device in `dir`, which `superblock` describes.
    pub fn new(dir: &Path, superblock: &Superblock, names: &[Named], news: Arc<News>) -> Host {
        let welcome = serde_json::to_vec(&Welcome::new(superblock, names));
        Host { dir: dir.into(), welcome: welcome.expect("words and numbers"), news }
    }
}

impl Host {
    /// Tells the operator of a failure: the joining device only hears that there was one.
    fn told(&self, failed: &Error) {
        let text = format!("a device tried to join, and that failed here: {failed}");
        let facts = serde_json::json!({ "why": failed.to_string() });
        self.news.put("pairing-failed", text, facts, SystemClock::default().wall());
    }

    fn pin_durably(&self, joiner: PublicKey) -> afterimage::Result<()> {
        let pinned = Peer::read(&self.dir).map_err(|e| Error::new(Kind::Damaged, e.to_string()))?;
        if pinned.and_then(|peer| peer.key()).is_some_and(|key| key != joiner) {
            return Err(Error::new(Kind::Invalid, "another device is pinned"));
        }
        let written = Peer::new(joiner, None).write(&self.dir);
        written.map_err(|e| Error::storage("pinning the peer", e))
    }
}

impl Inviter for Host {
    fn store(&mut self, record: &Record) -> afterimage::Result<()> {
        let stored = durable::replace(&self.dir.join(INVITATION_FILE), &record.encode(), false);
        let stored = stored.map_err(|e| Error::storage("storing the invitation", e));
        stored.inspect_err(|failed| self.told(failed))
    }

    fn pin(&mut self, joiner: PublicKey, _: SocketAddr) -> afterimage::Result<Vec<u8>> {
        let pinned = self.pin_durably(joiner).inspect_err(|failed| self.told(failed));
        pinned.map(|()| self.welcome.clone())
    }

    fn tell(&mut self, event: PairingEvent) {
        self.news.pairing(&event, SystemClock::default().wall());
    }
}

/// Makes a device that is the peer of the one at `HOST:PORT`, which has invited it. If it is cut short it may be
/// repeated: the device keeps its key.
///
/// # Errors
/// [`Exit::Usage`] if that is no invitation, [`Exit::Refused`] if something stands in `DIR`, or the other device refuses,
/// [`Exit::Unconnected`] if it does not answer, [`Exit::Device`] if the storage fails.
pub fn join(args: &JoinArgs) -> Result<Exit, Failure> {
    leave_no_core_dump();
    let JoinArgs { dir, address, invitation_file } = args;
    let joining = format!("joining {address}");
    let text = read_invitation(invitation_file.as_deref())?;
    let invitation: Invitation =
        text.trim().parse().map_err(|e: Error| Failure::new(Exit::Usage, e.to_string()))?;
    let failed = |e: io::Error| Failure::storage(format!("making {}", dir.display()), &e);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let half_made = half_made(dir)?;
    let key = key_of(dir)?.map_or_else(|| make_key(dir), Ok)?;
    let joined = tcp::join(address, &invitation, &key, &TcpSettings::default());
    let joined = joined.map_err(|e| {
        let exit = match e.kind() {
            Kind::NoPeer | Kind::Timeout => Exit::Unconnected,
            Kind::Protocol => Exit::Refused,
            _ => Exit::Device,
        };
        Failure::new(exit, format!("{joining}: {e}"))
    })?;
    let strange = |what: String| {
        Failure::new(Exit::Device, format!("{joining}: the words of the other device: {what}"))
    };
    let welcome: Welcome =
        serde_json::from_slice(&joined.payload).map_err(|e| strange(e.to_string()))?;
    let (geometry, names) = welcome.geometry().map_err(strange)?;
    Peer::new(joined.inviter, Some(address.clone())).write(dir).map_err(failed)?;
    volumes::write(dir, &names).map_err(failed)?;
    half_made.iter().try_for_each(std::fs::remove_file).map_err(failed)?;
    let directory = Directory::create(dir).map_err(failed)?;
    Device::create(&directory, &geometry, false).map_err(|e| Failure::device(&joining, &e))?;
    let (device, fingerprint) = (geometry.device, joined.inviter.fingerprint());
    println!("joined as device {device}: the peer's key is {fingerprint}");
    println!("serve it now: afterimage serve {}", dir.display());
    Ok(Exit::Held)
}

/// The files that a `join` which was cut short has left in `dir`, but for those that the next one goes on with.
///
/// # Errors
/// [`Exit::Refused`] if something else stands there, a device above all.
fn half_made(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |e: io::Error| Failure::storage(dir.display(), &e);
    let kept = [KEY_FILE, PEER_FILE, volumes::FILE, "lock"];
    let written = ["link.new", "peer.json.new", "volumes.json.new"];
    let begun =
        ["own.log", "recv.log", "superblock", "own.log.new", "recv.log.new", "superblock.new"];
    let is_joining = dir.join(KEY_FILE).exists() && !is_made(dir).map_err(failed)?;
    let mut half_made = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let is_of = |names: &[&str]| names.iter().any(|ours| name == **ours);
        if is_of(&written) || is_joining && is_of(&begun) {
            half_made.push(entry.path());
        } else if !is_of(&kept) || is_made(dir).map_err(failed)? {
            let what =
                format!("{}: {name:?} stands there already: give another directory", dir.display());
            return Err(Failure::new(Exit::Refused, what));
        }
    }
    Ok(half_made)
}

/// Whether the making of a device in `dir` has come to its end: the first sector of its superblock is written last.
fn is_made(dir: &Path) -> io::Result<bool> {
    let mut first = [0; 512];
    match std::fs::File::open(dir.join("superblock"))
        .and_then(|mut file| file.read_exact(&mut first))
    {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
            Ok(false)
        }
        Err(e) => Err(e),
        Ok(()) => Ok(first.iter().any(|&byte| byte != 0)),
    }
}

/// The invitation is in no argument and in no environment: a list of processes would show it.
fn read_invitation(file: Option<&Path>) -> Result<String, Failure> {
    let failed = |name: String| move |e: io::Error| Failure::storage(format!("reading {name}"), &e);
    let mut text = String::new();
    match file {
        Some(path) => {
            let from = std::fs::File::open(path).map_err(failed(path.display().to_string()))?;
            let read = from.take(INVITATION_BYTES_MAX).read_to_string(&mut text);
            read.map_err(failed(path.display().to_string()))?;
        }
        None => {
            if io::stdin().is_terminal() {
                eprint!("the invitation: ");
            }
            let read = io::stdin().lock().take(INVITATION_BYTES_MAX).read_line(&mut text);
            read.map_err(failed("the standard input".into()))?;
        }
    }
    Ok(text)
}

/// The keys that get a session at the device with the pin `peer`.
pub fn pins(peer: Option<&Peer>) -> Pins {
    peer.and_then(Peer::key).map_or_else(Pins::default, Pins::new)
}
