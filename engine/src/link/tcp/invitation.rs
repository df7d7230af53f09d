//! An invitation: what an operator carries from the inviting device to the joining one, and what the inviting
//! one keeps of it.
//!
//! The proof of the secret is that of SCRAM (RFC 5802), with the two devices' keys in the place of its
//! messages. The inviting device keeps a hash from which the secret cannot be told, and with which nobody can
//! join. A proof is worth nothing in a session between any other two keys.

use super::keys::{Fingerprint, PublicKey};
use super::pairing::PairingOutcome;
use super::{base32, random};
use crate::error::{Error, Kind, Result};
use crate::format::{checksum, is_magic};
use ring::digest::{SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::Zeroizing;

/// How long an invitation may be used, in nanoseconds: an hour.
pub const INVITATION_VALID_NS: u64 = 3_600_000_000_000;

/// So many wrong secrets make an invitation void.
pub const TRIES_MAX: u32 = 5;

/// The beginning of an invitation's text, for people who find one, and for searches.
const WORD: &str = "afterimage-invitation-";

const VERSION: u8 = 1;

/// Most bytes of an address: a name of a host has 253 at most.
const ADDRESS_MAX: usize = 300;

/// An invitation. Its text is a secret: it is carried by a person, and is no argument of a program and in
/// no environment. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    inviter: Fingerprint,
    secret: Zeroizing<[u8; 16]>,
    address: Option<String>,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").field("inviter", &self.inviter).finish_non_exhaustive()
    }
}

impl Invitation {
    /// A new invitation by the device with the key `inviter`, with the `address` to dial, if it is known.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the operating system gives no random bits; [`Kind::Invalid`] if the address has more
    /// than 300 bytes.
    pub fn new(inviter: PublicKey, address: Option<&str>) -> Result<Invitation> {
        if let Some(found) = address.map(str::len).filter(|found| *found > ADDRESS_MAX) {
            let what = format!("an address of {found} bytes: at most {ADDRESS_MAX} are taken");
            return Err(Error::new(Kind::Invalid, what));
        }
        let secret = Zeroizing::new(random()?);
        let address = address.map(str::to_owned);
        Ok(Invitation { inviter: inviter.fingerprint(), secret, address })
    }

    /// The fingerprint of the device that invites.
    pub fn inviter(&self) -> Fingerprint {
        self.inviter
    }

    /// Where that device may be dialled.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// The invitation as one line, to be shown to an operator once, and read again by `FromStr`.
    pub fn to_text(&self) -> Zeroizing<String> {
        let address = self.address.as_deref().unwrap_or("").as_bytes();
        let content = [&[VERSION], &self.inviter.0[..], &self.secret[..], address].concat();
        to_text(Zeroizing::new(content))
    }

    /// The record that the inviting device keeps of it, made at `now` (nanoseconds since 1970).
    pub fn record(&self, now: u64) -> Record {
        let expires = now.saturating_add(INVITATION_VALID_NS);
        Record { expires, stored: hash(&self.opener()[..]), wrong: 0, used_by: None }
    }

    /// The proof of the secret in a session between these two keys, in which the joining device has `joiner`.
    pub(super) fn prove(&self, joiner: PublicKey, inviter: PublicKey) -> [u8; 32] {
        let opener = self.opener();
        combine(&opener, &signature(&hash(&opener[..]), joiner, inviter))
    }

    /// The client key of SCRAM.
    fn opener(&self) -> Zeroizing<[u8; 32]> {
        let secret = [&b"afterimage invitation"[..], &self.secret[..]].concat();
        Zeroizing::new(hash(&Zeroizing::new(secret)))
    }
}

/// The text with this content, whatever it is.
pub(crate) fn to_text(mut content: Zeroizing<Vec<u8>>) -> Zeroizing<String> {
    let sum = checksum(0, &content) as u32;
    content.extend(sum.to_le_bytes());
    Zeroizing::new(format!("{WORD}{}", base32::encode(&content)))
}

impl FromStr for Invitation {
    type Err = Error;

    /// Reads an invitation as it was printed; white space, hyphens and capitals do not matter.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if it was mistyped. The words do not repeat it.
    fn from_str(text: &str) -> Result<Invitation> {
        let invalid = |what: &str| Error::new(Kind::Invalid, format!("the invitation {what}"));
        let text = text.trim();
        let is_ours = text.get(..WORD.len()).is_some_and(|word| word.eq_ignore_ascii_case(WORD));
        if !is_ours || text.len() > 2 * (64 + ADDRESS_MAX) {
            return Err(invalid(&format!("does not begin with {WORD}, or is too long")));
        }
        let mistyped = || invalid("has a letter too many, too few, or wrong: copy it again");
        let bytes = Zeroizing::new(base32::decode(&text[WORD.len()..]).ok_or_else(mistyped)?);
        let (content, sum) = bytes.split_last_chunk::<4>().ok_or_else(mistyped)?;
        if checksum(0, content) as u32 != u32::from_le_bytes(*sum) {
            return Err(mistyped());
        }
        let (version, content) = content.split_first().ok_or_else(mistyped)?;
        if *version != VERSION {
            let what = format!("is of version {version}, this program reads {VERSION}");
            return Err(invalid(&what));
        }
        let (inviter, content) = content.split_first_chunk().ok_or_else(mistyped)?;
        let (secret, address) = content.split_first_chunk().ok_or_else(mistyped)?;
        let address = std::str::from_utf8(address).map_err(|_| mistyped())?;
        Ok(Invitation {
            inviter: Fingerprint(*inviter),
            secret: Zeroizing::new(*secret),
            address: Some(address.to_owned()).filter(|address| !address.is_empty()),
        })
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The part that binds a proof to the two keys of its session.
fn signature(stored: &[u8; 32], joiner: PublicKey, inviter: PublicKey) -> [u8; 32] {
    let keys = [joiner.to_bytes(), inviter.to_bytes()].concat();
    let signed = sign(&Key::new(HMAC_SHA256, stored), &keys);
    signed.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
}

fn combine(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| a[at] ^ b[at])
}

/// The part of an invitation that the inviting device keeps, durably: neither the secret, nor anything with
/// which one could join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// From then on nobody uses it for the first time, in nanoseconds since 1970.
    expires: u64,
    /// The stored key of SCRAM.
    stored: [u8; 32],
    wrong: u32,
    used_by: Option<PublicKey>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordBytes {
    magic: [u8; 8],
    version: U32,
    wrong: U32,
    checksum: U64,
    expires: U64,
    stored: [u8; 32],
    is_used: U32,
    used_by: [u8; 32],
}

const MAGIC: [u8; 8] = *b"AFTINVIT";
const _: () = assert!(size_of::<RecordBytes>() == 100);

impl Record {
    /// Whose key has used the invitation.
    pub fn used_by(&self) -> Option<PublicKey> {
        self.used_by
    }

    /// Until when it may be used for the first time, in nanoseconds since 1970.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// How many wrong secrets were tried; from [`TRIES_MAX`] on it is void.
    pub fn wrong_tries(&self) -> u32 {
        self.wrong
    }

    /// The record as bytes, to be stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = RecordBytes {
            magic: MAGIC,
            version: u32::from(VERSION).into(),
            wrong: self.wrong.into(),
            checksum: 0.into(),
            expires: self.expires.into(),
            stored: self.stored,
            is_used: u32::from(self.used_by.is_some()).into(),
            used_by: self.used_by.map_or([0; 32], PublicKey::to_bytes),
        };
        bytes.checksum = checksum(0, bytes.as_bytes()).into();
        bytes.as_bytes().to_vec()
    }

    /// The record that `bytes` are.
    ///
    /// # Errors
    /// [`Kind::Damaged`] with what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Record> {
        let damaged =
            |what: String| Error::new(Kind::Damaged, format!("an invitation's record: {what}"));
        let found = RecordBytes::read_from_bytes(bytes);
        let mut found = found.map_err(|_| damaged(format!("it has {} bytes", bytes.len())))?;
        is_magic(&found.magic, &MAGIC).map_err(damaged)?;
        let stored = std::mem::take(&mut found.checksum).get();
        let computed = checksum(0, found.as_bytes());
        if stored != computed {
            let what = format!("checksum is {stored:016x}, the bytes give {computed:016x}");
            return Err(damaged(what));
        }
        let (version, is_used) = (found.version.get(), found.is_used.get());
        if version != u32::from(VERSION) || is_used > 1 {
            let what =
                format!("version is {version} and use is {is_used}, this program reads {VERSION}");
            return Err(damaged(what));
        }
        let used_by = (is_used == 1).then(|| PublicKey::from_bytes(found.used_by));
        let (expires, wrong) = (found.expires.get(), found.wrong.get());
        Ok(Record { expires, stored: found.stored, wrong, used_by })
    }

    /// Decides about a `proof` that came at `now` in a session in which the joining device has the key
    /// `joiner`, and notes what has come of it.
    pub(super) fn judge(
        &mut self,
        proof: &[u8; 32],
        joiner: PublicKey,
        inviter: PublicKey,
        now: u64,
    ) -> PairingOutcome {
        let opener = combine(proof, &signature(&self.stored, joiner, inviter));
        let is_right = bool::from(hash(&opener).ct_eq(&self.stored));
        match self.used_by {
            Some(first) if is_right && first == joiner => PairingOutcome::Repeated,
            Some(first) if is_right => PairingOutcome::Used { first },
            // It lets nobody else in, so that guesses are not counted: they would lock the right device out.
            Some(_) => PairingOutcome::WrongSecret { tries: self.wrong },
            None if self.wrong >= TRIES_MAX => PairingOutcome::Void,
            None if !is_right => {
                self.wrong += 1;
                PairingOutcome::WrongSecret { tries: self.wrong }
            }
            None if now >= self.expires => PairingOutcome::Expired,
            None => {
                self.used_by = Some(joiner);
                PairingOutcome::Paired
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const JOINER: PublicKey = PublicKey::from_bytes([1; 32]);
    const OTHER: PublicKey = PublicKey::from_bytes([2; 32]);
    const INVITER: PublicKey = PublicKey::from_bytes([3; 32]);

    fn invitation() -> (Invitation, Record) {
        let invitation = Invitation::new(INVITER, Some("b.example:7000")).unwrap();
        let record = invitation.record(100);
        (invitation, record)
    }

    /// The values that another program (Python's hashlib and hmac) gives.
    #[test]
    fn golden_bytes() {
        let secret = Zeroizing::new(std::array::from_fn(|at| at as u8));
        let inviter = INVITER.fingerprint();
        let invitation = Invitation { inviter, secret, address: None };
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let record = invitation.record(0);
        assert_eq!(
            hex(&record.stored),
            "915c0312ccaf772d117dfc8f891d92217202e9b49a7849de7a2b8b9102f33b91"
        );
        assert_eq!(
            hex(&invitation.prove(JOINER, INVITER)),
            "638f7e80d58483d6876e32ec2d5cb219baf3c954464d5fd2be5db35046fd85b3"
        );
        let bytes = record.encode();
        assert_eq!(
            (&bytes[..12], &bytes[32..64]),
            (&b"AFTINVIT\x01\0\0\0"[..], &record.stored[..])
        );
    }

    /// Each letter left out, doubled or changed is told from a wrong secret, and the error has none of it.
    #[test]
    fn a_typing_error_is_found() {
        let (invitation, _) = invitation();
        let text = invitation.to_text();
        assert_eq!(text.parse::<Invitation>().unwrap(), invitation);
        let (head, tail) = text.split_at(60);
        let other = format!("  {}  {}-\n", head.to_uppercase(), tail);
        assert_eq!(other.parse::<Invitation>().unwrap(), invitation);
        for at in WORD.len()..text.len() {
            let other = if &text[at..=at] == "a" { "b" } else { "a" };
            for changed in ["", other] {
                let wrong = format!("{}{changed}{}", &text[..at], &text[at + 1..]);
                let refused = wrong.parse::<Invitation>().expect_err("mistyped");
                assert_eq!(refused.kind(), Kind::Invalid);
                assert!(!refused.to_string().contains(&text[WORD.len()..][..12]));
            }
        }
        assert!("afterimage-invitation-".parse::<Invitation>().is_err());
        assert!(format!("{WORD}{}", "a".repeat(1 << 20)).parse::<Invitation>().is_err());
        assert!(!format!("{invitation:?}").contains(&text[text.len() - 40..]));
        let bare = Invitation::new(INVITER, None).unwrap();
        assert_eq!(bare.to_text().parse::<Invitation>().unwrap().address(), None);
    }

    #[test]
    fn a_proof_is_worth_nothing_between_other_keys() {
        let (invitation, record) = invitation();
        let proof = invitation.prove(JOINER, INVITER);
        for (joiner, inviter) in [(OTHER, INVITER), (JOINER, OTHER), (INVITER, JOINER)] {
            let outcome = record.clone().judge(&proof, joiner, inviter, 101);
            assert_eq!(outcome, PairingOutcome::WrongSecret { tries: 1 });
        }
        let mut same = record.clone();
        assert_eq!(same.judge(&proof, JOINER, INVITER, 101), PairingOutcome::Paired);
        // Nor is what the inviting device keeps: it opens nothing.
        let forged = combine(&record.stored, &signature(&record.stored, OTHER, INVITER));
        let outcome = record.clone().judge(&forged, OTHER, INVITER, 101);
        assert_eq!(outcome, PairingOutcome::WrongSecret { tries: 1 });
    }

    #[test]
    fn it_is_used_by_one_key_within_the_hour() {
        let (invitation, record) = invitation();
        let by = |key: PublicKey| invitation.prove(key, INVITER);
        let mut late = record.clone();
        let hour = 100 + INVITATION_VALID_NS;
        assert_eq!(late.judge(&by(JOINER), JOINER, INVITER, hour), PairingOutcome::Expired);
        let mut used = record;
        assert_eq!(used.judge(&by(JOINER), JOINER, INVITER, hour - 1), PairingOutcome::Paired);
        let mut used = Record::decode(&used.encode()).unwrap();
        let first = JOINER;
        assert_eq!(used.judge(&by(OTHER), OTHER, INVITER, hour), PairingOutcome::Used { first });
        assert_eq!(used.judge(&by(JOINER), JOINER, INVITER, hour), PairingOutcome::Repeated);
    }

    #[test]
    fn five_wrong_secrets_make_it_void() {
        let (invitation, mut record) = invitation();
        let wrong = Invitation::new(INVITER, None).unwrap();
        for tries in 1..=TRIES_MAX {
            let outcome = record.judge(&wrong.prove(OTHER, INVITER), OTHER, INVITER, 101);
            assert_eq!(outcome, PairingOutcome::WrongSecret { tries });
            record = Record::decode(&record.encode()).unwrap();
        }
        let right = invitation.prove(JOINER, INVITER);
        assert_eq!(record.judge(&right, JOINER, INVITER, 101), PairingOutcome::Void);
    }

    #[test]
    fn a_record_is_read_as_it_was_written_or_not_at_all() {
        let (_, mut record) = invitation();
        for used_by in [None, Some(JOINER)] {
            record.used_by = used_by;
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes).unwrap(), record);
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert_eq!(Record::decode(&damaged).unwrap_err().kind(), Kind::Damaged);
                assert_eq!(Record::decode(&bytes[..at]).unwrap_err().kind(), Kind::Damaged);
            }
        }
    }
}
