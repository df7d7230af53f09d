//! Numbers, sizes and times as a person reads them.

/// A number with its thousands set apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number of things.
pub fn plural(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A size, in the largest unit of which there is one.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let power = (size.ilog2() / 10).min(UNITS.len() as u32);
    let number = size as f64 / 1024f64.powi(power as i32);
    let unit = UNITS[power as usize - 1];
    match number.fract() == 0.0 {
        true => format!("{number} {unit}"),
        false => format!("{number:.1} {unit}"),
    }
}

/// A time, in three digits or so.
pub fn duration(ns: u64) -> String {
    let shown = |number: f64, unit: &str| match number {
        _ if number < 10.0 => format!("{number:.2} {unit}"),
        _ if number < 100.0 => format!("{number:.1} {unit}"),
        _ => format!("{number:.0} {unit}"),
    };
    match ns {
        0 => "0 s".into(),
        1..1_000 => format!("{ns} ns"),
        1_000..999_500 => shown(ns as f64 / 1e3, "µs"),
        999_500..999_500_000 => shown(ns as f64 / 1e6, "ms"),
        _ => shown(ns as f64 / 1e9, "s"),
    }
}

/// A time in nanoseconds since 1970, to the second and in full.
pub fn moment(ns: u64) -> String {
    let [year, month, day, hour, minute, second] = calendar(ns);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC ({ns} ns since 1970)")
}

/// A time in nanoseconds since 1970, to the millisecond, as RFC 3339 has it.
pub fn timestamp(ns: u64) -> String {
    let [year, month, day, hour, minute, second] = calendar(ns);
    let ms = ns / 1_000_000 % 1_000;
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month, day, hour, minute and second.
fn calendar(ns: u64) -> [u64; 6] {
    let seconds = ns / 1_000_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, from that of the year 0: a leap day is a year's last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = era * 400 + year + u64::from(month <= 2);
    [year, month, day, second / 3600, second / 60 % 60, second % 60]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plural(1, "read"), "1 read");
        assert_eq!(plural(2000, "read"), "2,000 reads");
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(4096), "4 KiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(bytes(5 << 50), "5120 TiB");
    }

    /// As `date -u` has them.
    #[test]
    fn moments_are_readable() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_799, "2000-02-29 23:59:59 UTC"),
            (1_577_836_800, "2020-01-01 00:00:00 UTC"),
            (1_609_459_199, "2020-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            let ns = seconds * 1_000_000_000 + 7;
            assert_eq!(moment(ns), format!("{shown} ({ns} ns since 1970)"));
        }
        assert!(moment(u64::MAX).starts_with("2554-07-21 23:34:33"));
        assert_eq!(timestamp(951_782_400_012_345_678), "2000-02-29T00:00:00.012Z");
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(duration(0), "0 s");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_500), "1.50 µs");
        assert_eq!(duration(12_345_678), "12.3 ms");
        assert_eq!(duration(999_600_000), "1.00 s");
        assert_eq!(duration(4_073_024_447_000), "4073 s");
    }
}
