//! Bytes from the network, a person or a disk as the link over TCP takes them: an error, or what another round
//! of encoding and decoding leaves the same.

use crate::format::checksum;
use crate::format::frame::FRAME_BYTES_MAX;
use crate::link::tcp::frames::Frames;
use crate::link::tcp::greeting::{Answer, Greeting};
use crate::link::tcp::{Invitation, Record, invitation};

/// A stream of frames, however it is cut; a greeting, an answer, an invitation, and an invitation's record.
pub fn link(bytes: &[u8]) {
    let (piece, stream) = bytes.split_first().unwrap_or((&0, &[]));
    let (mut at_once, mut in_pieces) = (Vec::new(), Vec::new());
    let whole = Frames::default().take(stream, &mut at_once);
    let mut frames = Frames::default();
    let pieces = stream.chunks(usize::from(*piece) + 1);
    let cut = pieces.map(|bytes| frames.take(bytes, &mut in_pieces)).find(Result::is_err);
    assert_eq!((whole, at_once), (cut.unwrap_or(Ok(())), in_pieces.clone()));
    assert!(in_pieces.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX));

    if let Some(Ok(greeting)) = bytes.first_chunk().map(Greeting::decode) {
        let again = greeting.encode().try_into().expect("as long");
        assert_eq!(Greeting::decode(&again), Ok(greeting));
    }
    if let Some(Ok(answer)) = bytes.first_chunk().map(Answer::decode) {
        let again = answer.encode().try_into().expect("as long");
        assert_eq!(Answer::decode(&again), Ok(answer));
    }
    let typed = String::from_utf8_lossy(bytes);
    let sealed = invitation::to_text(bytes.to_vec().into());
    for text in [&*typed, &*sealed] {
        if let Ok(invitation) = text.parse::<Invitation>() {
            let again = invitation.to_text().parse::<Invitation>();
            assert!(again.is_ok_and(|again| again == invitation));
        }
    }
    let mut resealed = bytes.to_vec();
    if let Some(sum) = resealed.get_mut(16..24) {
        sum.fill(0);
        let sum = checksum(0, &resealed).to_le_bytes();
        resealed[16..24].copy_from_slice(&sum);
    }
    if let Ok(record) = Record::decode(&resealed) {
        let again = Record::decode(&record.encode());
        assert!(again.is_ok_and(|again| again == record));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{over_seeded_bytes, over_seeds};

    #[test]
    fn seeds() {
        over_seeds("link", super::link);
        over_seeded_bytes(2000, 300, super::link);
    }
}
