//! The trace reader as a whole: the real traces against their manifest, cut and damaged files,
//! merging, and hostile bytes. Peculiarities of a format are tested beside it.

use std::io::Write;

use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

#[path = "../../tests/real_traces/mod.rs"]
mod real_traces;

/// Reads hand-made text that must be good, recognised as well as forced.
pub(super) fn good(format: Format, bytes: &[u8]) -> Trace {
    let recognised = read_bytes("hand-made", bytes, &Options::default()).unwrap();
    let insisted = forced(format, bytes).unwrap();
    assert_eq!((recognised.format, insisted.format), (format, format));
    assert_eq!(recognised.rows, insisted.rows);
    assert_eq!(insisted.bad_rows, 0);
    insisted
}

/// Reads as this format.
pub(super) fn forced(format: Format, bytes: &[u8]) -> Result<Trace, TraceError> {
    read_bytes("hand-made", bytes, &Options { format: Some(format), ..Options::default() })
}

/// Reads as this format, leaving out bad rows.
pub(super) fn skipping(format: Format, bytes: &[u8]) -> Trace {
    let options = Options { format: Some(format), skip_bad_rows: true, limit_rows: None };
    read_bytes("hand-made", bytes, &options).unwrap()
}

/// Reads no more than so many rows.
pub(super) fn limited(bytes: &[u8], limit: u64) -> Trace {
    let options = Options { limit_rows: Some(limit), ..Options::default() };
    read_bytes("hand-made", bytes, &options).unwrap()
}

/// Text whose last row is bad in this field: an error by default, else counted.
pub(super) fn bad_field(format: Format, bytes: &[u8], field: &str) {
    let text = String::from_utf8_lossy(bytes);
    let error = forced(format, bytes).expect_err(&text);
    assert_eq!((error.kind(), error.field()), (Kind::BadRow, Some(field)), "{error}");
    let lines = bytes.split(|&b| b == b'\n').count() as u64;
    assert_eq!(error.place(), Some(Place::Line(lines)), "{error}");
    assert!(error.to_string().contains("--skip-bad-rows"), "{error}");
    assert_eq!(skipping(format, bytes).bad_rows, 1, "{text}");
}

pub(super) fn names(trace: &Trace) -> Vec<&str> {
    trace.volumes.iter().map(|v| v.name.as_str()).collect()
}

pub(super) fn read(offset: u64, length: u64) -> Action {
    Action::Read { offset, length }
}

pub(super) fn write(offset: u64, length: u64) -> Action {
    Action::Write { offset, length }
}

const MSR: &str = "128166385295514663,hm,0,Write,9056014336,2048,2833\n\
                   128166385295514878,hm,0,Read,11855351808,512,2617\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn names_of_formats_read_back() {
    for format in Format::value_variants() {
        assert_eq!(format.to_string().parse::<Format>().as_ref(), Ok(format));
    }
    assert!("csv".parse::<Format>().unwrap_err().contains("msr, alibaba"));
    assert_eq!("-".parse::<Input>(), Ok(Input::Stdin));
    assert_eq!("./-".parse::<Input>(), Ok(Input::Path("./-".into())));
}

#[test]
fn gzip_members_are_joined() {
    let packed = [gzip(MSR.as_bytes()), gzip(MSR.as_bytes())].concat();
    let trace = read_bytes("t", &packed, &Options::default()).unwrap();
    assert_eq!((trace.rows.len(), trace.format), (4, Format::Msr));
}

#[test]
fn zeros_that_pad_gzip_are_nothing() {
    let (member, zeros) = (gzip(MSR.as_bytes()), vec![0; 100_000]);
    let read = |parts: &[&[u8]]| read_bytes("t", &parts.concat(), &Options::default());
    assert_eq!(read(&[&member, &zeros]).unwrap().rows.len(), 2);
    assert_eq!(read(&[&member, &zeros, &member, &[0]]).unwrap().rows.len(), 4);
    assert!(read(&[&member, &zeros]).unwrap().warnings.is_empty());
}

#[test]
fn bytes_behind_gzip_are_counted_and_left_out() {
    let (member, zeros) = (gzip(MSR.as_bytes()), vec![0; 100_000]);
    let read = |parts: &[&[u8]]| read_bytes("t.gz", &parts.concat(), &Options::default());
    for (parts, rows, bytes) in [
        (&[&member[..], b"x"][..], 2, "1 byte "),
        (&[&member, b"\x1f"], 2, "1 byte "),
        (&[&member, &zeros, b"some text\n"], 2, "10 bytes "),
        (&[&member, &member, b"x", &member], 4, &format!("{} bytes ", member.len() + 1)),
    ] {
        let trace = read(parts).unwrap();
        assert_eq!((trace.rows.len(), trace.bad_rows), (rows, 0));
        let [warning] = &trace.warnings[..] else { panic!("{:?}", trace.warnings) };
        let told = format!("t.gz: the gzip stream is whole; {bytes}of something that is no gzip");
        assert!(warning.starts_with(&told), "{warning}");
    }
    // A member that begins and does not end is damage.
    for half in [&member[..2], &member[..12], &member[..member.len() - 4]] {
        assert_eq!(read(&[&member, half]).unwrap_err().kind(), Kind::Damaged);
    }
}

#[test]
fn cut_gzip_is_named_or_counted() {
    let text = MSR.repeat(20_000);
    let packed = gzip(text.as_bytes());
    let cut = &packed[..packed.len() / 2];
    let error = read_bytes("half.gz", cut, &Options::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().starts_with("half.gz, line "), "{error}");
    let options = Options { skip_bad_rows: true, ..Options::default() };
    let trace = read_bytes("half.gz", cut, &options).unwrap();
    assert_eq!(trace.bad_rows, 1);
    assert!(trace.rows.len() > 10_000 && trace.rows.len() < 40_000);

    let stump = read_bytes("stump.gz", &packed[..12], &options).unwrap_err();
    assert_eq!(stump.kind(), Kind::Damaged);
}

#[test]
fn half_a_last_line_is_hinted_at() {
    let text = format!("{MSR}128166385295515175,hm,0,Wri");
    let error = read_bytes("cut.csv", text.as_bytes(), &Options::default()).unwrap_err();
    assert_eq!(error.place(), Some(Place::Line(3)));
    assert!(error.to_string().contains("cut download"), "{error}");
    assert_eq!(skipping(Format::Msr, text.as_bytes()).bad_rows, 1);
    let whole = read_bytes("t", MSR.trim_end().as_bytes(), &Options::default()).unwrap();
    assert_eq!(whole.rows.len(), 2);
}

#[test]
fn no_line_is_kept_that_no_row_can_have() {
    let mut bytes = MSR.as_bytes().to_vec();
    bytes.extend(vec![b'7'; 300 << 10]);
    bytes.extend(b"\n");
    bytes.extend(MSR.as_bytes());
    let error = forced(Format::Msr, &bytes).unwrap_err();
    assert!(error.to_string().contains("longer than any row"), "{error}");
    let trace = skipping(Format::Msr, &bytes);
    assert_eq!((trace.rows.len(), trace.bad_rows), (4, 1));
}

#[test]
fn byte_order_mark_and_carriage_returns_are_nothing() {
    let text = format!("\u{feff}{}", MSR.replace('\n', "\r\n"));
    let trace = read_bytes("t", text.as_bytes(), &Options::default()).unwrap();
    assert_eq!(trace.rows.len(), 2);
}

#[test]
fn files_are_merged_by_time_and_volume() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Input::from(path.as_path())
    };
    let late = path(
        "late",
        b"128166385295514900,web,0,Read,0,512,1\n128166385295514900,hm,0,Read,0,512,1\n",
    );
    let early = path("early.gz", &gzip(MSR.as_bytes()));
    let trace = super::read(&[late.clone(), early.clone()], &Options::default()).unwrap();
    assert_eq!(names(&trace), ["web_0", "hm_0"]);
    let rows: Vec<_> = trace.rows.iter().map(|r| (r.time_ns, r.volume)).collect();
    assert_eq!(rows, [(0, 1), (21_500, 1), (23_700, 0), (23_700, 1)]);

    let options = Options { limit_rows: Some(3), ..Options::default() };
    let three = super::read(&[late.clone(), early], &options).unwrap();
    assert_eq!((three.rows.len(), three.rows_read), (3, 3));

    let other = path("other", b"0,R,126703661056,4096,1577808000000046\n");
    let error = super::read(&[late, other], &Options::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::MixedFormats);
    assert_eq!(super::read(&[], &Options::default()).unwrap_err().kind(), Kind::NoInput);
    let missing = Input::from(folder.path().join("none").as_path());
    assert_eq!(super::read(&[missing], &Options::default()).unwrap_err().kind(), Kind::Open);
    let directory = Input::from(folder.path());
    assert_eq!(super::read(&[directory], &Options::default()).unwrap_err().kind(), Kind::Read);
}

#[test]
fn files_of_one_name_are_different_volumes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        Input::from(path.as_path())
    };
    let volumes = |inputs: &[Input]| {
        let trace = super::read(inputs, &Options::default()).unwrap();
        trace.volumes.into_iter().map(|volume| volume.name).collect::<Vec<_>>()
    };
    let load = "0.5 ; 8 ; 8 ; W ; 0.0 ; 0.0\n";
    let (p, q) = (path("p/w1.load", load), path("q/w1.load", load));
    let other = path("w2.load", load);
    let name = |input: &Input| input.name();
    assert_eq!(volumes(&[p.clone(), other.clone(), q.clone()]), [name(&p), "w2".into(), name(&q)]);
    assert_eq!(volumes(&[p.clone(), other, p]), ["w1", "w2"]);

    let row = |lun| format!("1456095145.1,0.1,W,{lun},0,512\n");
    let luns = [
        path("2016022215-LUN4.csv", &row(0)),
        path("2016022216-LUN4.csv", &row(0)),
        path("2016022215-LUN06.csv", &row(0)),
        path("2016022215-LUN1.csv", &row(3)),
        path("LUN.csv", &row(0)),
    ];
    assert_eq!(volumes(&luns), ["LUN4", "LUN6", "LUN3", "LUN0"]);
}

#[test]
fn limit_is_by_file_order_and_may_be_zero() {
    let text = b"5,0,1,1,1\n4,0,1,1,2\n3,0,1,1,3\n";
    let options =
        |limit_rows| Options { format: Some(Format::Tencent), limit_rows, ..Options::default() };
    let two = read_bytes("t", text, &options(Some(2))).unwrap();
    assert_eq!((names(&two), two.rows[0].volume), (vec!["1", "2"], 1));
    let none = read_bytes("t", text, &options(Some(0))).unwrap();
    assert_eq!((none.rows.len(), none.volumes.len(), none.start_unix_ns), (0, 0, None));
}

/// The manifest's entry of a real trace; times and addresses are exact.
struct Expected {
    file: &'static str,
    format: Format,
    requests: usize,
    writes: usize,
    flushes: usize,
    volumes: usize,
    bytes_written: u64,
    bytes_read: u64,
    /// The lowest offset and the highest end.
    addresses: (u64, u64),
    span_ns: u64,
    start_unix_ns: Option<u64>,
}

const REAL: [Expected; 6] = [
    Expected {
        file: "msr-hm_0-first300.csv",
        format: Format::Msr,
        requests: 300,
        writes: 296,
        flushes: 0,
        volumes: 1,
        bytes_written: 2_143_232,
        bytes_read: 49_152,
        addresses: (22_728_704, 13_575_029_248),
        span_ns: 55_984_123_300,
        start_unix_ns: Some(12_816_638_529_551_466_300 - columns::MSR_EPOCH_BEFORE_UNIX_NS),
    },
    Expected {
        file: "systor17-traces-sample.csv.gz",
        format: Format::Systor,
        requests: 999,
        writes: 173,
        flushes: 0,
        volumes: 1,
        bytes_written: 2_766_848,
        bytes_read: 36_355_584,
        addresses: (193_595_128_320, 5_029_321_633_280),
        span_ns: 2_447_767_000,
        start_unix_ns: Some(1_456_095_145_126_285_000),
    },
    Expected {
        file: "tencent-cbs-first25000.csv.gz",
        format: Format::Tencent,
        requests: 25_000,
        writes: 11_844,
        flushes: 0,
        volumes: 1349,
        bytes_written: 432_437_760,
        bytes_read: 346_131_456,
        addresses: (0, 1_669_048_770_560),
        span_ns: 1_000_000_000,
        start_unix_ns: Some(1_538_323_199_000_000_000),
    },
    Expected {
        file: "cloudphysics-first60000.vscsi",
        format: Format::Vscsi,
        requests: 60_000,
        writes: 35_959,
        flushes: 0,
        volumes: 1,
        bytes_written: 1_223_863_296,
        bytes_read: 906_160_640,
        addresses: (27_901_440, 33_584_938_496),
        span_ns: 4_073_024_447_000,
        start_unix_ns: None,
    },
    Expected {
        file: "nvme0n1.blkparse.txt",
        format: Format::Blkparse,
        requests: 225,
        writes: 225,
        flushes: 23,
        volumes: 1,
        bytes_written: 1_181_696,
        bytes_read: 0,
        addresses: (42_983_421_952, 391_002_484_736),
        span_ns: 25_017_676_409,
        start_unix_ns: None,
    },
    Expected {
        file: "windows-mssql.load.gz",
        format: Format::Blkreplay,
        requests: 42_976,
        writes: 40_448,
        flushes: 0,
        volumes: 1,
        bytes_written: 1_004_453_376,
        bytes_read: 53_145_088,
        addresses: (1_228_800, 25_854_806_528),
        span_ns: 3_062_338_015_914,
        start_unix_ns: None,
    },
];

#[test]
fn real_traces_match_their_manifest() {
    let Some(folder) = real_traces::folder() else { return };
    for e in REAL {
        let input = Input::from(folder.join(e.file).as_path());
        let trace = super::read(&[input], &Options::default()).unwrap();
        let file = e.file;
        assert_eq!(trace.format, e.format, "{file}");
        assert_eq!(trace.rows.len(), e.requests + e.flushes, "{file}");
        assert_eq!((trace.bad_rows, trace.empty_rows, trace.rounded_rows), (0, 0, 0), "{file}");
        assert_eq!(trace.start_unix_ns, e.start_unix_ns, "{file}");
        assert_eq!(trace.volumes.len(), e.volumes, "{file}");
        assert!(trace.has_time && trace.rows.is_sorted_by_key(|r| r.time_ns), "{file}");
        assert_eq!(trace.rows.last().unwrap().time_ns, e.span_ns, "{file}");

        let (mut reads, mut writes, mut flushes) = ((0, 0), (0, 0), 0);
        let mut addresses = (u64::MAX, 0);
        for row in &trace.rows {
            let (sum, offset, length) = match row.action {
                Action::Read { offset, length } => (&mut reads, offset, length),
                Action::Write { offset, length } => (&mut writes, offset, length),
                Action::Discard { .. } | Action::Zero { .. } => panic!("{file} has none"),
                Action::Flush => {
                    flushes += 1;
                    continue;
                }
            };
            *sum = (sum.0 + 1, sum.1 + length);
            addresses = (addresses.0.min(offset), addresses.1.max(offset + length));
        }
        assert_eq!(writes, (e.writes, e.bytes_written), "{file}");
        assert_eq!(reads, (e.requests - e.writes, e.bytes_read), "{file}");
        assert_eq!(flushes, e.flushes, "{file}");
        assert_eq!(addresses, e.addresses, "{file}");
        let largest = trace.volumes.iter().map(|v| v.bytes).max().unwrap();
        assert_eq!(largest, e.addresses.1.next_multiple_of(1 << 20), "{file}");
    }
}

/// A short sound file of each format, to be mutated.
fn seeds() -> Vec<Vec<u8>> {
    let mut vscsi = Vec::new();
    for n in 0u8..4 {
        vscsi.extend([n, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0x2a, 0, 0, 1]);
        vscsi.extend([7, n, 0, 0, 0, 0, 0, 0, 9, n, 0, 0, 0, 0, 0, 0]);
    }
    let texts = [
        MSR,
        "Timestamp,Response,IOType,LUN,Offset,Size\n1456095145.133076000,0.000806000,R,0,512,512\n",
        "0,R,126703661056,4096,1577808000000046\n1,W,19496058880,77824,1577808000000426\n",
        "1538323200,4247200,128,1,1058\n1538323199,13896880,128,0,1063\n",
        "0,303567,3584,w,0.000000\n0,303574,3584,w,0.026214,x\n",
        "start ; sector\n      0.000000000 ;     49339162 ;    3 ; W ; 0.0 ; 0.0\n",
        "8,0 0 1 0.000000001 9 Q FWFS 8 + 8 [a]\n8,0 0 1 0.000000002 9 D FN [a]\n",
        "fio version 2 iolog\nf write 0 512\nf wait 1000 0\nf sync\nf trim 0 512\n",
        "fio version 3 iolog\n0 f add\n10 f write 0 512\n",
        "fio version 3 iolog\n9 f write 0 512\n1 f sync\nfio version 2 iolog\nf read 0 512\n",
        "8,0 0 1 0.5 9 Q ZA 8 + 8\nCPU0 (sdb):\n8,0 0 1 0.1 9 Q WZ 8 + 8\n",
        "\"7\";\"R\";\"0\";\"4096\";\"1577808000000046\"\n1;W;0;77824;1577808000000426\n",
        "1000 0 8 8 0\n3500 1 16 1 1\n",
        "1.5 0 8 8 a\n3.25 1 16 1 1\n",
    ];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|t| t.as_bytes().to_vec()).collect();
    seeds.extend([gzip(&vscsi), vscsi, gzip(MSR.as_bytes())]);
    seeds
}

/// Reads the bytes in every way there is, and checks what every trace promises.
fn read_in_every_way(bytes: &[u8]) {
    let formats = Format::value_variants().iter().copied().map(Some).chain([None]);
    for (format, skip_bad_rows) in formats.flat_map(|f| [(f, false), (f, true)]) {
        for limit_rows in [None, Some(1)] {
            let options = Options { format, skip_bad_rows, limit_rows };
            match read_bytes("t", bytes, &options) {
                Ok(trace) => check(&trace, &options),
                Err(error) => assert!(error.to_string().is_ascii()),
            }
        }
    }
}

fn check(trace: &Trace, options: &Options) {
    let rows = trace.rows.len() as u64;
    let left_out = trace.bad_rows + trace.empty_rows + trace.other_rows;
    assert_eq!(trace.rows_read, rows + left_out);
    assert!(options.limit_rows.is_none_or(|limit| rows <= limit));
    assert!(options.skip_bad_rows || trace.bad_rows == 0);
    assert!(trace.rows.is_sorted_by_key(|r| r.time_ns));
    assert!(trace.rows.first().is_none_or(|r| r.time_ns == 0));
    assert!(trace.has_time || trace.rows.iter().all(|r| r.time_ns == 0));
    assert!(trace.sections <= rows && trace.out_of_order_rows + trace.sections <= rows);
    assert_eq!(trace.out_of_order_rows == 0, trace.largest_step_back_ns == 0);
    for row in &trace.rows {
        let volume = &trace.volumes[row.volume as usize];
        match row.action {
            Action::Flush => assert!(row.preflush && !row.fua),
            Action::Read { offset, length }
            | Action::Write { offset, length }
            | Action::Discard { offset, length }
            | Action::Zero { offset, length } => {
                assert!(length > 0 && offset % 512 == 0 && length % 512 == 0);
                assert!(offset + length <= volume.bytes);
            }
        }
    }
}

#[test]
fn seeds_are_sound() {
    for seed in seeds() {
        let trace = read_bytes("t", &seed, &Options::default()).unwrap();
        assert!(!trace.rows.is_empty());
        read_in_every_way(&seed);
    }
}

#[test]
fn seeds_of_the_fuzz_target_do_no_harm() {
    afterimage::internal::fuzz::over_seeds("trace", fuzz_trace);
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        read_in_every_way(&bytes);
    }

    #[test]
    fn random_rows_do_no_harm(text in "([0-9]{1,3}|[0-9]{15,21}|[-.,; \\n+\\[RWFQD]|Read){0,80}") {
        read_in_every_way(text.as_bytes());
    }

    #[test]
    fn mutated_files_do_no_harm(
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..6),
        length in any::<prop::sample::Index>(),
    ) {
        let seeds = seeds();
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        for (place, byte, change) in changes {
            let place = place.index(bytes.len());
            match change {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => bytes.truncate(1 + length.index(bytes.len())),
            }
        }
        read_in_every_way(&bytes);
    }
}
