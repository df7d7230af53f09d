//! A device's own key, and what other devices know of it.

use super::base32;
use crate::error::{Error, Kind, Result};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The usual name of the file with a device's own key.
pub const KEY_FILE: &str = "link.key";

/// Most bytes that a file with a key may have: one of Ed25519 has 83.
const KEY_BYTES_MAX: u64 = 1024;

/// The bytes before the key in the SubjectPublicKeyInfo of an Ed25519 key (RFC 8410).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

/// The public key of a device, Ed25519: this is what a peer pins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key with these bytes, as [`PublicKey::to_bytes`] gave them.
    pub const fn from_bytes(bytes: [u8; 32]) -> PublicKey {
        PublicKey(bytes)
    }

    /// The key's 32 bytes, to be stored: they are no secret.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The key's fingerprint, for people.
    pub fn fingerprint(self) -> Fingerprint {
        let hash = digest(&SHA256, &self.to_spki());
        Fingerprint(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The key of a SubjectPublicKeyInfo; `None` for any other than Ed25519.
    pub(super) fn from_spki(spki: &[u8]) -> Option<PublicKey> {
        let key = spki.strip_prefix(&SPKI_HEAD)?;
        Some(PublicKey(key.try_into().ok()?))
    }

    pub(super) fn to_spki(self) -> Vec<u8> {
        [&SPKI_HEAD[..], &self.0].concat()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

/// SHA-256 of a public key's SubjectPublicKeyInfo: two devices have the same one only if they have the
/// same key. As text it is base32 in groups of four.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub(super) [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, letter) in base32::encode(&self.0).chars().enumerate() {
            let hyphen = if at > 0 && at % 4 == 0 { "-" } else { "" };
            write!(f, "{hyphen}{letter}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    /// Reads a fingerprint as it is printed; upper case and other groups are the same.
    fn from_str(text: &str) -> Result<Fingerprint> {
        let bytes = base32::decode(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Fingerprint).ok_or_else(|| {
            let what = format!("{text:?} is no fingerprint: it has 52 of the letters a-z and 2-7");
            Error::new(Kind::Invalid, what)
        })
    }
}

/// A device's own key: whoever has it is taken for the device. Never shown by `Debug`. A clone is the
/// same key.
#[derive(Clone)]
pub struct DeviceKey {
    pkcs8: Arc<Zeroizing<Vec<u8>>>,
    public: PublicKey,
    certified: Arc<CertifiedKey>,
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({})", self.public.fingerprint())
    }
}

impl DeviceKey {
    /// A new key.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the operating system gives no random bits.
    pub fn generate() -> Result<DeviceKey> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let refused = || std::io::Error::other("the operating system gives no random bits");
        let made = made.map_err(|_| Error::storage("making a key", refused()))?;
        DeviceKey::from_pkcs8(made.as_ref())
    }

    /// The key whose PKCS#8 bytes these are, as [`DeviceKey::to_pkcs8`] gave them.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if they are no Ed25519 key, or one whose halves do not belong together.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<DeviceKey> {
        let damaged = |what: String| Error::new(Kind::Damaged, what);
        let signing = any_eddsa_type(&PrivatePkcs8KeyDer::from(bytes)).map_err(|e| {
            let found = bytes.len();
            damaged(format!("{found} bytes are no Ed25519 key in PKCS#8 with its public half: {e}"))
        })?;
        let spki = signing.public_key();
        let public = spki.as_ref().and_then(|spki| PublicKey::from_spki(spki.as_ref()));
        let public = public.ok_or_else(|| damaged("the key has no public half".into()))?;
        let shown = vec![CertificateDer::from(public.to_spki())];
        let certified = Arc::new(CertifiedKey::new(shown, signing));
        Ok(DeviceKey { pkcs8: Arc::new(Zeroizing::new(bytes.to_vec())), public, certified })
    }

    /// The key as PKCS#8, to be stored where nobody else reads it.
    pub fn to_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The key as TLS shows and uses it.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    /// Writes the key to a new file `path` that its owner alone may read (mode 0600), whole or not at all;
    /// durable when this returns.
    ///
    /// # Errors
    /// [`Kind::Storage`] if there is such a file already, or the file system fails.
    pub fn store(&self, path: &Path) -> Result<()> {
        let failed = |e| Error::storage(format!("writing the key to {}", path.display()), e);
        let made = path.with_extension("new");
        match fs::remove_file(&made) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {} // what a crash left is no key of anybody's
        }
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&made)?;
            file.write_all(&self.pkcs8)?;
            file.sync_all()?;
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            renameat_with(CWD, &made, CWD, path, RenameFlags::NOREPLACE)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(failed)
    }

    /// Reads a key from the file `path`.
    ///
    /// # Errors
    /// [`Kind::Config`] if others than its owner may read or change the file; [`Kind::Damaged`] if it
    /// has no key; [`Kind::Storage`] if it cannot be read.
    pub fn load(path: &Path) -> Result<DeviceKey> {
        let name = path.display();
        let failed = |e| Error::storage(format!("reading the key from {name}"), e);
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            let what = format!(
                "{name} has the mode {mode:04o}: others than its owner may have the device's key. Say \
                 `chmod 600 {name}` if nobody has read it; else make a new key, and pair again"
            );
            return Err(Error::new(Kind::Config, what));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES_MAX as usize));
        file.take(KEY_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        DeviceKey::from_pkcs8(&bytes).map_err(|e| e.because(Kind::Damaged, name))
    }
}
