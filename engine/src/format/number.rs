//! Numbers of as many bytes as they need: little end first, seven bits a byte, the eighth set in all
//! bytes but the last (LEB128).

/// Most bytes of a number.
pub(super) const BYTES_MAX: usize = 10;

/// Appends `number`.
pub(super) fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Reads a number off the front of `bytes`.
///
/// # Errors
/// A text that says how the bytes are none.
pub(super) fn take(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for at in 0..BYTES_MAX {
        let Some((&byte, rest)) = bytes.split_first() else {
            return Err("the entries end early".into());
        };
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return match at == 9 && byte > 1 {
                true => Err("an entry has a number of more than 64 bits".into()),
                false => Ok(number),
            };
        }
    }
    Err("an entry has a number of more than ten bytes".into())
}

/// Reads a number of at most 32 bits, `what` it is, off the front of `bytes`.
///
/// # Errors
/// A text that names what was found.
pub(super) fn take_small(bytes: &mut &[u8], what: &str) -> Result<u32, String> {
    let number = take(bytes)?;
    number.try_into().map_err(|_| format!("an entry has the {what} {number}"))
}
