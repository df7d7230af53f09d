//! Recognises the format of a trace by the beginning of its content; names and endings of files
//! play no part.
//!
//! Every line of the head is tried against the shape of every text format; the format most lines
//! fit wins, and one line is enough. Shapes exclude each other: the two with five comma-separated
//! fields differ in where the letter stands, those of the simulators in the point of the arrival.
//! SSDsim and MQSim look alike: SSDsim it is, unless the caller insists. Columns may stand between
//! commas, semicolons or tabs; between tabs, Tencent's may look like SSDsim's, which are taken first.

use super::columns::{self, Cutter};
use super::error::TraceError;
use super::{Format, ascii, blkparse, blkreplay, fio, vscsi};

/// The text formats, with what their rows look like.
const SHAPES: [(Format, &str); 10] = [
    (Format::Fio, "first line \"fio version 2|3 iolog\""),
    (Format::Msr, "time,host,disk,Read|Write,offset,size,response"),
    (Format::Systor, "time,response,R|W,lun,offset,size"),
    (Format::Alibaba, "device,R|W,offset,length,time"),
    (Format::Tencent, "time,offset,size,0|1,volume"),
    (Format::Spc, "asu,lba,size,r|w,seconds"),
    (Format::Blkreplay, "seconds ; sector ; length ; R|W ; ..."),
    (Format::Blkparse, "maj,min cpu seq seconds pid action rwbs ..."),
    (Format::Disksim, "milliseconds device lba size flags"),
    (Format::Ssdsim, "nanoseconds device lba size 0|1; mqsim is alike"),
];

/// The format that has lines like this one.
fn fitting(line: &[u8], cutters: &mut [Cutter; 3]) -> Option<Format> {
    let [commas, semicolons, tabs] = cutters;
    let columns = |cutter: &mut Cutter| {
        let fields = cutter.cut(line).ok()?;
        columns::FORMATS.iter().find(|columns| columns.fits(fields)).map(|found| found.format)
    };
    let is = |fits: bool, format| fits.then_some(format);
    is(fio::version(line).is_some(), Format::Fio)
        .or_else(|| columns(commas))
        .or_else(|| columns(semicolons))
        .or_else(|| is(blkreplay::fits(line), Format::Blkreplay))
        .or_else(|| is(blkparse::fits(line), Format::Blkparse))
        .or_else(|| is(ascii::fits_decimal(line), Format::Disksim))
        .or_else(|| is(ascii::fits_integer(line), Format::Ssdsim))
        .or_else(|| columns(tabs))
}

/// Containers that are not read, by what stands at which place.
const CONTAINERS: [(usize, &[u8], &str); 7] = [
    (0, b"BZh", "bzip2: unpack it first, as in `bzip2 -dc FILE | ...`"),
    (0, b"\xfd7zXZ\0", "xz: unpack it first, as in `xz -dc FILE | ...`"),
    (0, b"\x28\xb5\x2f\xfd", "zstd: unpack it first, as in `zstd -dc FILE | ...`"),
    (0, b"PK\x03\x04", "a zip archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first, as in `tar -xzOf FILE | ...`"),
    (0, b"\x07\x74\x61\x65", "blktrace's binary: convert it with blkparse first"),
    (0, b"\x65\x61\x74\x07", "blktrace's binary: convert it with blkparse first"),
];

/// Refuses a file that is a container, or text in UTF-16, by the beginning of its unpacked bytes.
pub(super) fn refuse_unread(file: &str, head: &[u8]) -> Result<(), TraceError> {
    if is_utf16(head) {
        let advice = "convert it first, as in `iconv -f UTF-16 -t UTF-8 FILE | ...`".to_string();
        return Err(TraceError::unknown(file, "is text in UTF-16".to_string(), head, advice));
    }
    for (at, magic, what) in CONTAINERS {
        if head.get(at..).is_some_and(|rest| rest.starts_with(magic)) {
            let (problem, advice) = what.split_once(": ").unwrap_or((what, ""));
            let problem = format!("is {problem}");
            return Err(TraceError::unknown(file, problem, head, advice.to_string()));
        }
    }
    Ok(())
}

/// Whether the bytes are text in UTF-16: with its mark, or because every other byte is zero.
fn is_utf16(head: &[u8]) -> bool {
    let start = &head[..head.len().min(64) & !1];
    let ascii_and_zero = |ascii: usize| {
        start.chunks_exact(2).all(|pair| {
            let letter = pair[ascii];
            pair[1 - ascii] == 0 && (letter.is_ascii_graphic() || letter.is_ascii_whitespace())
        })
    };
    head.starts_with(b"\xff\xfe")
        || head.starts_with(b"\xfe\xff")
        || (start.len() >= 8 && (ascii_and_zero(0) || ascii_and_zero(1)))
}

/// The format of a file whose unpacked bytes begin with `head`.
pub(super) fn detect(file: &str, head: &[u8]) -> Result<Format, TraceError> {
    if vscsi::layout(head).is_some() {
        return Ok(Format::Vscsi);
    }
    let mut lines = [0u32; SHAPES.len()];
    let mut cutters = columns::SEPARATORS.map(Cutter::new);
    for line in head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).split(|&b| b == b'\n') {
        let line = line.trim_ascii();
        let found = if line.is_empty() { None } else { fitting(line, &mut cutters) };
        if let Some(shape) = SHAPES.iter().position(|(format, _)| found == Some(*format)) {
            lines[shape] += 1;
        }
    }
    let most = lines.into_iter().max().unwrap_or(0);
    match lines.iter().position(|&n| n == most) {
        Some(shape) if most > 0 => Ok(SHAPES[shape].0),
        _ => Err(unknown(file, head)),
    }
}

fn unknown(file: &str, head: &[u8]) -> TraceError {
    let shapes: Vec<String> =
        SHAPES.iter().map(|(format, shape)| format!("{format} ({shape})")).collect();
    let looked_for = format!("{}, vscsi (binary records of version 1 or 2)", shapes.join(", "));
    let (problem, advice) = match head {
        [] => ("is empty".to_string(), "there is nothing to replay"),
        _ => (format!("is of no known format; looked for {looked_for}"), "name it with --format"),
    };
    TraceError::unknown(file, problem, head, advice.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Kind, Options, read_bytes};

    #[test]
    fn one_row_is_enough() {
        for (format, row) in [
            (Format::Msr, "128166385295514663,hm,0,Write,9056014336,2048,2833"),
            (Format::Systor, "Timestamp,Response,IOType,LUN,Offset,Size"),
            (Format::Systor, "1456095145.133076000,,R,0,899056122368,131072"),
            (Format::Alibaba, "0,R,126703661056,4096,1577808000000046"),
            (Format::Tencent, "1538323200,4247200,128,1,1058"),
            (Format::Spc, "0,303567,3584,w,0.000000"),
            (Format::Spc, "0,303567,3584,W,0"),
            (Format::Blkreplay, "      0.000000000 ;     49339162 ;    3 ; W ; 0.0 ; 0.0"),
            (
                Format::Blkparse,
                "259,0    3        5     0.000005809  1867  P   N [dmcrypt_write/2]",
            ),
            (Format::Fio, "fio version 2 iolog"),
            (Format::Fio, "fio version 3 iolog\r"),
            (Format::Ssdsim, "1000 0 8 8 0"),
            (Format::Disksim, "1.000 0 8 8 1"),
        ] {
            assert_eq!(detect("t", row.as_bytes()).unwrap(), format, "{row}");
            let within = format!("what,is,this\n\n{row}\nand that");
            assert_eq!(detect("t", within.as_bytes()).unwrap(), format, "{row}");
        }
    }

    #[test]
    fn unknown_content_lists_what_was_looked_for_and_shows_the_start() {
        let error = detect("notes.txt", b"dear \x1b diary").unwrap_err();
        assert_eq!(error.kind(), Kind::UnknownFormat);
        let message = error.to_string();
        for part in ["notes.txt", "msr", "vscsi", "mqsim", "dear \\x1b diary", "--format"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let empty = detect("t", b"").unwrap_err().to_string();
        assert_eq!(empty, "t: is empty; there is nothing to replay");
    }

    #[test]
    fn containers_are_named() {
        let mut tar = vec![b'x'; 600];
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, word) in [
            (&b"BZh91AY"[..], "bzip2"),
            (b"PK\x03\x04..", "zip"),
            (&tar, "tar"),
            (b"\x07\x74\x61\x65", "blkparse"),
        ] {
            let message = refuse_unread("t", bytes).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn text_in_utf_16_is_told() {
        let text = "128166385295514663,hm,0,Write,9056014336,2048,2833\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let marked = |mark: &[u8], text: &[u8]| [mark, text].concat();
        for bytes in [&marked(b"\xff\xfe", &little), &marked(b"\xfe\xff", &big), &little, &big] {
            for format in [None, Some(Format::Msr)] {
                let options = Options { format, skip_bad_rows: true, ..Options::default() };
                let error = read_bytes("t", bytes, &options).unwrap_err();
                assert_eq!(error.kind(), Kind::UnknownFormat);
                let message = error.to_string();
                assert!(message.starts_with("t: is text in UTF-16; begins with"), "{message}");
                assert!(message.contains("iconv"), "{message}");
            }
        }
    }
}
