//! The files of a planned move while the line is down: a request for the host, and the grant that answers it.
//! Each has a header and frames ([`super::frame`]); the first frame is the hello of the device that wrote it.

use super::checksum;
use super::frame::FRAME_BYTES_MAX;
use crate::error::{Error, Kind, Result};

const MAGIC: &[u8; 4] = b"AFTM";
const VERSION: u32 = 1;
/// Magic (4), version (4), which file (4), 0 (4), bytes of the frames (8), checksum of all that and of the
/// frames (8).
const HEADER: usize = 32;

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// A request, by the device that is to serve.
    Request = 1,
    /// Its answer, by the device that has given the host up.
    Grant = 2,
}

impl Planned {
    fn name(self) -> &'static str {
        match self {
            Planned::Request => "the request file",
            Planned::Grant => "the grant file",
        }
    }

    /// The file with these frames, each with its length (4) before it.
    pub fn encode(self, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        for frame in frames {
            bytes.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            bytes.extend_from_slice(frame);
        }
        let length = (bytes.len() - HEADER) as u64;
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&(self as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&length.to_le_bytes());
        let sum = checksum(checksum(0, &bytes[..24]), &bytes[HEADER..]);
        bytes[24..HEADER].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The frames of such a file.
    ///
    /// # Errors
    /// [`Kind::Damaged`] if it is damaged or no such file, [`Kind::Config`] if a later version of this program
    /// wrote it, [`Kind::Invalid`] if it is the other of the two.
    pub fn decode(self, bytes: &[u8]) -> Result<Vec<&[u8]>> {
        let name = self.name();
        let damaged = |what: &str| {
            let what = format!("{name}: {what}: copy it once more, or have it written anew");
            Error::new(Kind::Damaged, what)
        };
        let (header, mut rest) = match bytes.split_at_checked(HEADER) {
            Some((header, rest)) if &header[..4] == MAGIC => (header, rest),
            _ => return Err(damaged("it does not begin as a file of a planned move")),
        };
        let small = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let large = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        if small(4) != VERSION {
            let what = format!("{name} is of version {}, this program reads {VERSION}", small(4));
            return Err(Error::new(Kind::Config, what));
        }
        if checksum(checksum(0, &header[..24]), rest) != large(24) || rest.len() as u64 != large(16)
        {
            return Err(damaged("its checksum does not match its bytes"));
        }
        if small(12) != 0 {
            return Err(damaged("its header has a field that is to be zero"));
        }
        if small(8) != self as u32 {
            let what = format!("{name} is wanted, and this is the other of the two");
            return Err(Error::new(Kind::Invalid, what));
        }
        let mut frames = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk() {
            let length = u32::from_le_bytes(*length) as usize;
            let frame = behind.split_at_checked(length).filter(|_| length <= FRAME_BYTES_MAX);
            let (frame, behind) = frame.ok_or_else(|| damaged("a frame runs past its end"))?;
            frames.push(frame);
            rest = behind;
        }
        match rest.is_empty() {
            true => Ok(frames),
            false => Err(damaged("bytes are left behind its frames")),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn kind(file: Planned, bytes: &[u8]) -> Option<Kind> {
        file.decode(bytes).err().map(|error| error.kind())
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        for frames in [vec![], vec![vec![1, 2, 3]], vec![vec![], vec![7; 40]]] {
            let bytes = Planned::Grant.encode(&frames);
            assert_eq!(bytes[..16], *b"AFTM\x01\0\0\0\x02\0\0\0\0\0\0\0");
            let length = frames.iter().map(|frame| 4 + frame.len() as u64).sum::<u64>();
            assert_eq!(bytes[16..24], length.to_le_bytes());
            assert_eq!(Planned::Grant.decode(&bytes).unwrap(), frames);
            assert_eq!(kind(Planned::Request, &bytes), Some(Kind::Invalid));
            for at in 0..bytes.len() {
                assert!(kind(Planned::Grant, &bytes[..at]).is_some(), "cut at {at}");
                let mut flipped = bytes.clone();
                flipped[at] ^= 1;
                assert!(kind(Planned::Grant, &flipped).is_some(), "flipped at {at}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(kind(Planned::Grant, &longer), Some(Kind::Damaged));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut bytes = Planned::Grant.encode(&[vec![1, 2, 3]]);
        for length in [0u32, 2, 4, u32::MAX] {
            bytes[HEADER..HEADER + 4].copy_from_slice(&length.to_le_bytes());
            let sum = checksum(checksum(0, &bytes[..24]), &bytes[HEADER..]);
            bytes[24..HEADER].copy_from_slice(&sum.to_le_bytes());
            assert_eq!(kind(Planned::Grant, &bytes), Some(Kind::Damaged), "{length}");
        }
        bytes[4] = 2;
        assert_eq!(kind(Planned::Grant, &bytes), Some(Kind::Config));
    }
}
