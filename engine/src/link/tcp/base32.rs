//! Bytes as text that is read aloud and typed: base32 (RFC 4648) in lower case, without padding.

const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The text of `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let letter = |at: usize| (5 * at..5 * at + 5).fold(0, |number, at| number << 1 | bit(at));
    (0..(8 * bytes.len()).div_ceil(5)).map(|at| LETTERS[letter(at) as usize] as char).collect()
}

/// The bytes of `text`; upper case, hyphens and white space count for nothing. `None`: a letter that
/// this alphabet lacks, or bits left over that no text of whole bytes has.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() * 5 / 8), 0u32, 0u32);
    for c in text.chars().filter(|c| *c != '-' && !c.is_whitespace()) {
        let value = LETTERS.iter().position(|letter| *letter as char == c.to_ascii_lowercase())?;
        (bits, held) = (bits << 5 | value as u32, held + 5);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (held < 5 && bits == 0).then_some(bytes)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The examples of the RFC; every length comes back; a letter too many does not.
    #[test]
    fn text_is_read_as_it_was_written() {
        assert_eq!((encode(b"foobar"), encode(b"fooba")), ("mzxw6ytboi".into(), "mzxw6ytb".into()));
        for length in 0..70 {
            let bytes: Vec<u8> = (0..length).map(|at| at * 3 + 11).collect();
            assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
        assert_eq!(decode(" MZXW-6yt boi\n"), Some(b"foobar".to_vec()));
        assert_eq!((decode("mzxw1"), decode("mz="), decode("mzxw6ytbo")), (None, None, None));
    }
}
