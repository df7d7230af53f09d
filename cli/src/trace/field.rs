//! Fields of text rows: splitting, whole numbers and decimal times.
//!
//! Times never pass through floating point: those of MSR exceed 2^53 and those of SYSTOR '17 need
//! ten digits before the point and nine after it.

use super::error::Fault;
use afterimage::internal::unit::SECTOR;

/// The first `N` fields of a line, trimmed, and how many there are in all.
pub(super) fn split<const N: usize>(line: &[u8], separator: u8) -> ([&[u8]; N], usize) {
    let mut fields: [&[u8]; N] = [b""; N];
    let mut count = 0;
    for field in line.split(|&b| b == separator) {
        if count < N {
            fields[count] = field.trim_ascii();
        }
        count += 1;
    }
    (fields, count)
}

/// The words of a line, between white space.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// The fault of a row with the wrong number of fields.
pub(super) fn wrong_count(line: &[u8], found: usize, wanted: &str) -> Fault {
    Fault::new("row", line, format!("has {found} fields where {wanted} are needed"))
}

/// A whole number without sign.
pub(super) fn number(name: &'static str, text: &[u8]) -> Result<u64, Fault> {
    match digits(text) {
        Some(Some(value)) => Ok(value),
        Some(None) => Err(Fault::new(name, text, "is too large")),
        None => Err(not_a_number(name, text, "is not a whole number")),
    }
}

/// A whole number of sectors, in bytes.
pub(super) fn sectors(name: &'static str, text: &[u8]) -> Result<u64, Fault> {
    let too_large = || Fault::new(name, text, "sectors are more than 64 bits of bytes");
    number(name, text)?.checked_mul(SECTOR).ok_or_else(too_large)
}

/// A whole number of units of `unit_ns` nanoseconds, in nanoseconds.
pub(super) fn ticks(name: &'static str, text: &[u8], unit_ns: u64) -> Result<u64, Fault> {
    let too_large = || Fault::new(name, text, "is beyond 64 bits of nanoseconds");
    number(name, text)?.checked_mul(unit_ns).ok_or_else(too_large)
}

/// A decimal number of seconds, in nanoseconds; what is finer is cut off.
pub(super) fn seconds(name: &'static str, text: &[u8]) -> Result<u64, Fault> {
    decimal(name, text, 9)
}

/// A decimal number of milliseconds, in nanoseconds; what is finer is cut off.
pub(super) fn milliseconds(name: &'static str, text: &[u8]) -> Result<u64, Fault> {
    decimal(name, text, 6)
}

/// Whether the text is digits with at most one point among them, and at least one digit.
pub(super) fn is_decimal(text: &[u8]) -> bool {
    let points = text.iter().filter(|&&b| b == b'.').count();
    points <= 1 && text.len() > points && text.iter().all(|&b| b.is_ascii_digit() || b == b'.')
}

/// Whether the text is digits only, and at least one.
pub(super) fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// A number as a volume's name: without leading zeros, so that `07` and `7` are one volume.
pub(super) fn plain<'a>(name: &'static str, text: &'a [u8]) -> Result<&'a [u8], Fault> {
    number(name, text)?;
    let zeros = text.iter().take_while(|&&b| b == b'0').count();
    Ok(&text[zeros.min(text.len() - 1)..])
}

fn decimal(name: &'static str, text: &[u8], places: usize) -> Result<u64, Fault> {
    if !is_decimal(text) {
        return Err(not_a_number(name, text, "is not a decimal number"));
    }
    let point = text.iter().position(|&b| b == b'.').unwrap_or(text.len());
    let fraction = text.get(point + 1..).unwrap_or_default();
    let scaled = text[..point].iter().chain(fraction.iter().chain([b'0'; 9].iter()).take(places));
    accumulate(scaled).ok_or_else(|| Fault::new(name, text, "is beyond 64 bits of nanoseconds"))
}

/// `None` if the text is no whole number, `Some(None)` if it is one that does not fit.
fn digits(text: &[u8]) -> Option<Option<u64>> {
    is_number(text).then(|| accumulate(text.iter()))
}

fn accumulate<'a>(mut digits: impl Iterator<Item = &'a u8>) -> Option<u64> {
    digits.try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

fn not_a_number(name: &'static str, text: &[u8], otherwise: &'static str) -> Fault {
    let negative = text.strip_prefix(b"-").is_some_and(is_decimal);
    let problem = match text {
        b"" => "is empty or missing",
        _ if negative => "is negative",
        _ => otherwise,
    };
    Fault::new(name, text, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        assert_eq!(seconds("t", b"1456095145.133076001").unwrap(), 1_456_095_145_133_076_001);
        assert_eq!(seconds("t", b"0.026214").unwrap(), 26_214_000);
        assert_eq!(seconds("t", b"7").unwrap(), 7_000_000_000);
        assert_eq!(seconds("t", b"7.").unwrap(), 7_000_000_000);
        assert_eq!(seconds("t", b".5").unwrap(), 500_000_000);
        assert_eq!(seconds("t", b"0.0000000019").unwrap(), 1);
        assert_eq!(milliseconds("t", b"1.5").unwrap(), 1_500_000);
        assert_eq!(milliseconds("t", b"0.0000019").unwrap(), 1);
        assert_eq!(ticks("t", b"128166385295514663", 100).unwrap(), 12_816_638_529_551_466_300);
    }

    #[test]
    fn what_is_no_number_says_why() {
        let problem = |text: &[u8]| number("f", text).unwrap_err().problem;
        assert_eq!(problem(b""), "is empty or missing");
        assert_eq!(problem(b"-5"), "is negative");
        assert_eq!(problem(b"5x"), "is not a whole number");
        assert_eq!(problem(b"1.5"), "is not a whole number");
        assert_eq!(problem(b"18446744073709551616"), "is too large");
        assert_eq!(number("f", b"18446744073709551615").unwrap(), u64::MAX);
        assert!(sectors("f", b"36028797018963968").is_err());
        for text in ["", ".", "1.2.3", "1e5", "-1.0", "nan", "99999999999.0"] {
            assert!(seconds("t", text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn splitting_counts_all_fields() {
        assert_eq!(split::<2>(b"a, b ,c", b','), ([&b"a"[..], b"b"], 3));
        assert_eq!(split::<2>(b"", b','), ([&b""[..], b""], 1));
    }

    #[test]
    fn leading_zeros_do_not_make_another_volume() {
        assert_eq!(plain("v", b"007").unwrap(), b"7");
        assert_eq!(plain("v", b"000").unwrap(), b"0");
        assert!(plain("v", b"").is_err());
    }
}
