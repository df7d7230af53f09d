//! Frames in a stream of bytes: each behind its length, four bytes, little-endian.

use crate::format::frame::FRAME_BYTES_MAX;

/// Bytes of a length.
const PREFIX: usize = 4;

/// In the place of a length: nothing but that the sender is there.
const BEAT: u32 = u32::MAX;

/// The bytes that go when there is no frame to send.
pub(super) const HEARTBEAT: [u8; 4] = BEAT.to_le_bytes();

/// Puts frames together from the pieces in which a stream hands them over.
#[derive(Default)]
pub struct Frames {
    prefix: [u8; PREFIX],
    /// How many bytes of the prefix are there.
    known: usize,
    /// The frame whose length is known, and that length.
    frame: Option<(Vec<u8>, usize)>,
}

impl Frames {
    /// Takes the next `bytes`, and puts each frame that they complete at the end of `whole`.
    ///
    /// # Errors
    /// A length beyond [`FRAME_BYTES_MAX`], before room is made for it: the stream has no meaning from
    /// there on.
    pub fn take(&mut self, mut bytes: &[u8], whole: &mut Vec<Vec<u8>>) -> Result<(), String> {
        loop {
            if let Some((frame, length)) = &mut self.frame {
                let (now, later) = bytes.split_at(bytes.len().min(*length - frame.len()));
                frame.extend_from_slice(now);
                bytes = later;
                if frame.len() < *length {
                    return Ok(());
                }
                whole.extend(self.frame.take().map(|(frame, _)| frame));
            }
            let (now, later) = bytes.split_at(bytes.len().min(PREFIX - self.known));
            self.prefix[self.known..][..now.len()].copy_from_slice(now);
            self.known += now.len();
            bytes = later;
            if self.known < PREFIX {
                return Ok(());
            }
            self.known = 0;
            let found = u32::from_le_bytes(self.prefix);
            if found == BEAT {
                continue;
            }
            let length = found as usize;
            if length > FRAME_BYTES_MAX {
                return Err(format!(
                    "the peer announces a frame of {found} bytes, more than the {FRAME_BYTES_MAX} that one may have"
                ));
            }
            self.frame = Some((Vec::with_capacity(length), length));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = HEARTBEAT.to_vec();
        for frame in frames {
            bytes.extend((frame.len() as u32).to_le_bytes());
            bytes.extend(frame);
            bytes.extend(HEARTBEAT);
        }
        bytes
    }

    /// Wherever the stream is cut, the same frames come, an empty one among them, and no heartbeat.
    #[test]
    fn frames_come_whole_however_the_stream_is_cut() {
        let sent = [vec![1, 2, 3], vec![], vec![7; 300], vec![9]];
        let bytes = stream(&sent);
        for piece in 1..=bytes.len() {
            let (mut frames, mut whole) = (Frames::default(), Vec::new());
            for bytes in bytes.chunks(piece) {
                frames.take(bytes, &mut whole).unwrap();
            }
            assert_eq!(whole, sent, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_length_is_refused_before_room_is_made() {
        let (mut frames, mut whole) = (Frames::default(), Vec::new());
        let longest = FRAME_BYTES_MAX as u32;
        frames.take(&longest.to_le_bytes(), &mut whole).unwrap();
        frames.take(&vec![5; FRAME_BYTES_MAX], &mut whole).unwrap();
        assert_eq!(whole[0].len(), FRAME_BYTES_MAX);
        let refused = frames.take(&(longest + 1).to_le_bytes(), &mut whole).unwrap_err();
        assert!(refused.contains("2097153 bytes") && frames.frame.is_none(), "{refused}");
    }
}
