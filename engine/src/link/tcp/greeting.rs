//! The first words on a connection, inside TLS: the dialling end says what it is for, and hears an answer.
//!
//! The first 11 bytes of a greeting, and an answer's first four, are the same in every version.

use super::wire::{Broken, Wire};
use crate::error::{Error, Kind, Result};
use crate::link::Lane;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"AFTRLINK";

/// The version of everything that is sent over TCP beside the engine's frames.
pub(super) const VERSION: u16 = 1;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct GreetingBytes {
    magic: [u8; 8],
    version: U16,
    purpose: u8,
    reserved: [u8; 5],
    nonce: [u8; 16],
}

/// Bytes of a greeting.
pub const GREETING: usize = size_of::<GreetingBytes>();
const _: () = assert!(GREETING == 32);

/// The use of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A lane of the session with the nonce.
    Lane(Lane),
    /// A pairing: the proof of an invitation's secret follows.
    Pairing,
}

/// The dialling end's first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The version that it speaks.
    pub version: u16,
    /// The use of the connection.
    pub purpose: Purpose,
    /// Names the session that the connection belongs to.
    pub nonce: [u8; 16],
}

impl Greeting {
    pub(super) fn new(purpose: Purpose, nonce: [u8; 16]) -> Greeting {
        Greeting { version: VERSION, purpose, nonce }
    }

    /// The greeting as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let purpose = match self.purpose {
            Purpose::Lane(Lane::Data) => 1,
            Purpose::Lane(Lane::Control) => 2,
            Purpose::Pairing => 3,
        };
        let (version, nonce) = (self.version.into(), self.nonce);
        let bytes = GreetingBytes { magic: MAGIC, version, purpose, reserved: [0; 5], nonce };
        bytes.as_bytes().to_vec()
    }

    /// The greeting that `bytes` are.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8; GREETING]) -> Result<Greeting, String> {
        let GreetingBytes { magic, version, purpose, nonce, .. } = zerocopy::transmute!(*bytes);
        if magic != MAGIC {
            return Err(format!("a greeting begins with {}", magic.escape_ascii()));
        }
        let purpose = match purpose {
            1 => Purpose::Lane(Lane::Data),
            2 => Purpose::Lane(Lane::Control),
            3 => Purpose::Pairing,
            found => return Err(format!("a greeting has the purpose {found}")),
        };
        Ok(Greeting { version: version.get(), purpose, nonce })
    }
}

/// The word of an accepting end's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The lane stands, or the pairing has succeeded.
    Welcome,
    /// The accepting end speaks another version.
    OtherVersion,
    /// The key has no session here.
    NotPinned,
    /// The greeting has no meaning, or its nonce was there before.
    Refused,
    /// There is no invitation.
    NotInvited,
    /// The secret is not the invitation's.
    WrongSecret,
    /// The invitation's hour is over.
    Expired,
    /// Too many have tried.
    Void,
    /// Another key has used the invitation.
    Used,
    /// The inviter could not store what it has to.
    Failed,
}

const WORDS: [(Word, &str); 10] = [
    (Word::Welcome, "it is welcome"),
    (Word::OtherVersion, "it speaks another version: run the same version of the program at both"),
    (Word::NotPinned, "it has not pinned this device's key: pair the two again"),
    (Word::Refused, "it does not understand, or has met this session before"),
    (Word::NotInvited, "it has no invitation: make one there"),
    (
        Word::WrongSecret,
        "the invitation is of this device, and not its last one: make a new one there",
    ),
    (Word::Expired, "the invitation's hour is over: make a new one there"),
    (Word::Void, "the invitation is void, as too many tried a wrong one: make a new one there"),
    (
        Word::Used,
        "another device has used the invitation: look at the events there, and whose key it has pinned",
    ),
    (Word::Failed, "it could not store the pairing: look at its events, and try again"),
];

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AnswerBytes {
    word: u8,
    reserved: u8,
    version: U16,
    length: U32,
}

/// Bytes of an answer.
pub const ANSWER: usize = size_of::<AnswerBytes>();
const _: () = assert!(ANSWER == 8);

/// The accepting end's first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answer.
    pub word: Word,
    /// The version that it speaks.
    pub version: u16,
    /// How many bytes follow.
    pub length: u32,
}

impl Answer {
    pub(super) fn new(word: Word, length: usize) -> Answer {
        Answer { word, version: VERSION, length: length as u32 }
    }

    /// The answer as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let place = WORDS.iter().position(|(word, _)| *word == self.word).expect("each is listed");
        let (version, length) = (self.version.into(), self.length.into());
        let bytes = AnswerBytes { word: place as u8 + 1, reserved: 0, version, length };
        bytes.as_bytes().to_vec()
    }

    /// The answer that `bytes` are.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8; ANSWER]) -> Result<Answer, String> {
        let AnswerBytes { word: found, version, length, .. } = zerocopy::transmute!(*bytes);
        let word = usize::from(found).checked_sub(1).and_then(|place| WORDS.get(place));
        let (word, _) = word.ok_or_else(|| format!("an answer has the word {found}"))?;
        Ok(Answer { word: *word, version: version.get(), length: length.get() })
    }

    /// Hears the answer of the accepting end at `address` on `wire`; how many bytes follow it.
    ///
    /// # Errors
    /// [`Kind::Protocol`] if it does not welcome this end; whatever has broken the connection.
    pub(super) fn receive(wire: &mut Wire, address: &str) -> Result<usize> {
        let bytes = wire.receive_array().map_err(|e| failed(e, address))?;
        let answer =
            Answer::decode(&bytes).map_err(|what| failed(Broken::Malformed(what), address))?;
        if answer.word == Word::Welcome {
            return Ok(answer.length as usize);
        }
        let (_, why) = WORDS.iter().find(|(word, _)| *word == answer.word).expect("each is listed");
        let what = format!("the device at {address} refuses: {why}");
        let versions =
            format!(" (its version of the link is {}, here it is {VERSION})", answer.version);
        let versions = if answer.word == Word::OtherVersion { versions } else { String::new() };
        Err(Error::new(Kind::Protocol, what + &versions))
    }
}

/// A connection to `address` that came to nothing, as an error.
pub(super) fn failed(broken: Broken, address: &str) -> Error {
    let kind = match broken {
        Broken::WrongKey(_) => Kind::Protocol,
        Broken::TimedOut => Kind::Timeout,
        Broken::Malformed(_) => Kind::NoPeer,
    };
    Error::new(kind, format!("connecting to the device at {address}: {broken}"))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The bytes of version 1, which every later version reads.
    #[test]
    fn golden_bytes() {
        let greeting = Greeting::new(Purpose::Lane(Lane::Control), [9; 16]);
        let bytes = [&b"AFTRLINK\x01\x00\x02\0\0\0\0\0"[..], &[9; 16]].concat();
        assert_eq!(greeting.encode(), bytes);
        assert_eq!(Greeting::decode(&bytes.try_into().unwrap()), Ok(greeting));
        let answer = Answer { word: Word::NotPinned, version: 1, length: 0x1234 };
        assert_eq!(answer.encode(), [3, 0, 1, 0, 0x34, 0x12, 0, 0]);
    }

    #[test]
    fn every_word_and_purpose_comes_back() {
        for purpose in [Purpose::Lane(Lane::Data), Purpose::Lane(Lane::Control), Purpose::Pairing] {
            let greeting = Greeting::new(purpose, [1; 16]);
            assert_eq!(Greeting::decode(&greeting.encode().try_into().unwrap()), Ok(greeting));
        }
        for (word, _) in WORDS {
            let answer = Answer::new(word, 7);
            assert_eq!(Answer::decode(&answer.encode().try_into().unwrap()), Ok(answer));
        }
        assert!(Answer::decode(&[0; ANSWER]).is_err() && Answer::decode(&[11; ANSWER]).is_err());
        let mut odd = Greeting::new(Purpose::Pairing, [1; 16]).encode();
        odd[10] = 4;
        assert!(Greeting::decode(&odd.try_into().unwrap()).is_err());
    }
}
