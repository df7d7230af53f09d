//! The formats of columns, by hand-made rows.

use super::*;
use crate::trace::tests::{bad_field, forced, good, names, read, skipping, write};
use crate::trace::{Action, Place};

#[test]
fn msr_ticks_of_1601_and_volumes_by_host_and_disk() {
    let trace = good(
        Format::Msr,
        b"Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime\r\n\
          128166385295515175,hm,0,Write,4096,512,2617\r\n\
          128166385295514663,web,0,Read,0,1024,2833\r\n\
          128166385295515175,hm,1,write,0,0,1",
    );
    assert_eq!(names(&trace), ["hm_0", "web_0"]);
    assert_eq!(trace.rows.iter().map(|r| r.time_ns).collect::<Vec<_>>(), [0, 51_200]);
    assert_eq!(
        trace.rows.iter().map(|r| r.action).collect::<Vec<Action>>(),
        [read(0, 1024), write(4096, 512)]
    );
    assert_eq!(trace.start_unix_ns, Some(1_172_164_929_551_466_300));
    assert_eq!((trace.rows_read, trace.empty_rows), (3, 1));
}

#[test]
fn msr_times_before_1970_have_no_unix_time() {
    assert_eq!(good(Format::Msr, b"1,h,0,Read,0,512,1\n").start_unix_ns, None);
}

#[test]
fn msr_bad_rows_name_their_field() {
    for (row, field) in [
        ("128166385295514663,hm,0,Write,4096", "row"),
        ("128166385295514663,hm,0,Write,4096,512,1,9", "row"),
        ("99999999999999999999,hm,0,Write,4096,512,1", "Timestamp"),
        ("18446744073709551615,hm,0,Write,4096,512,1", "Timestamp"),
        ("x28166385295514663,hm,0,Write,4096,512,1", "Timestamp"),
        ("128166385295514663,,0,Write,4096,512,1", "Hostname"),
        ("128166385295514663,hm,x,Write,4096,512,1", "DiskNumber"),
        ("128166385295514663,hm,0,Trim,4096,512,1", "Type"),
        ("128166385295514663,hm,0,Write,-1,512,1", "Offset"),
        ("128166385295514663,hm,0,Write,1,5.5,1", "Size"),
        ("1,hm,0,Write,18446744073709551615,1,1", "offset + length"),
    ] {
        bad_field(Format::Msr, row.as_bytes(), field);
    }
}

#[test]
fn alibaba_published_rows() {
    let trace = good(
        Format::Alibaba,
        b"0,R,126703661056,4096,1577808000000046\n1,W,19496058880,77824,1577808000000426\n",
    );
    assert_eq!(names(&trace), ["0", "1"]);
    assert_eq!(trace.rows[0].action, read(126_703_661_056, 4096));
    assert_eq!(trace.rows[1].action, write(19_496_058_880, 77_824));
    assert_eq!(trace.rows[1].time_ns, 380_000);
    assert_eq!(trace.start_unix_ns, Some(1_577_808_000_000_046_000));
}

#[test]
fn alibaba_header_is_tolerated() {
    let text = b"device_id,opcode,offset,length,timestamp\n7,W,0,512,1\n";
    assert_eq!(good(Format::Alibaba, text).rows_read, 1);
}

#[test]
fn alibaba_bad_rows_name_their_field() {
    for (row, field) in [
        ("0,R,1,2", "row"),
        ("-9,R,1,2,3", "device_id"),
        ("x,R,1,2,3", "device_id"),
        ("0,T,1,2,3", "opcode"),
        ("0,R,,2,3", "offset"),
        ("0,R,1,two,3", "length"),
        ("0,R,1,2,18446744073709551615", "timestamp"),
    ] {
        bad_field(Format::Alibaba, row.as_bytes(), field);
    }
}

#[test]
fn tencent_sectors_and_seconds_going_back() {
    let trace = good(
        Format::Tencent,
        b"1538323200,8,128,1,1058\n1538323199,16,8,0,1063\n1538323200,0,1,0,1058\n",
    );
    assert_eq!(names(&trace), ["1058", "1063"]);
    let actions: Vec<_> = trace.rows.iter().map(|r| (r.time_ns, r.action)).collect();
    assert_eq!(
        actions,
        [
            (0, read(8192, 4096)),
            (1_000_000_000, write(4096, 65_536)),
            (1_000_000_000, read(0, 512)),
        ]
    );
    assert_eq!(trace.start_unix_ns, Some(1_538_323_199_000_000_000));
}

#[test]
fn tencent_bad_rows_name_their_field() {
    for (row, field) in [
        ("1538323200,8,128,1", "row"),
        ("1.5,8,128,1,1", "Timestamp"),
        ("x,8,128,1,1", "Timestamp"),
        ("1538323200,-8,128,1,1", "Offset"),
        ("1538323200,36028797018963968,1,1,1", "Offset"),
        ("1538323200,36028797018963967,1,1,1", "offset + length"),
        ("1538323200,8,,1,1", "Size"),
        ("1538323200,8,128,2,1", "IOType"),
        ("1538323200,8,128,1,a", "VolumeID"),
    ] {
        bad_field(Format::Tencent, row.as_bytes(), field);
    }
}

#[test]
fn spc_head_of_financial1() {
    let trace = good(
        Format::Spc,
        b"0,303567,3584,w,0.000000\n1,55590,3072,w,0.000000\n0,303574,3584,w,0.026214\n",
    );
    assert_eq!(names(&trace), ["0", "1"]);
    assert_eq!(trace.rows[0].action, write(303_567 * 512, 3584));
    assert_eq!(trace.rows[2].time_ns, 26_214_000);
    assert_eq!(trace.rows[2].action, write((303_567 + 7) * 512, 3584));
    assert_eq!(trace.start_unix_ns, None);
}

#[test]
fn spc_spaces_optional_fields_and_odd_sizes() {
    let trace = good(Format::Spc, b" 2, 4, 700, R, 1.5, x, \"y\"\n 2, 4, 0, W, 1.5\n");
    assert_eq!(trace.rows[0].action, read(2048, 1024));
    assert_eq!((trace.rows.len(), trace.rounded_rows, trace.empty_rows), (1, 1, 1));
}

#[test]
fn spc_bad_rows_name_their_field() {
    for (row, field) in [
        ("0,2,512,w", "row"),
        ("-1,2,512,w,1", "ASU"),
        ("x,2,512,w,1", "ASU"),
        ("0,2 448003,512,w,1", "LBA"),
        ("0,2,,w,1", "Size"),
        ("0,2,512,ww,1", "Opcode"),
        ("0,2,512,w,1e3", "Timestamp"),
    ] {
        bad_field(Format::Spc, row.as_bytes(), field);
    }
}

#[test]
fn systor_completion_order_is_undone() {
    let trace = good(
        Format::Systor,
        b"Timestamp,Response,IOType,LUN,Offset,Size\n\
          1456095145.133076000,0.000806000,R,0,512,1024\n\
          1456095145.126285001,,W,3,0,512\n\
          Timestamp,Response,IOType,LUN,Offset,Size\n\
          1456095145.2,0.1,,0,0,512\n",
    );
    assert_eq!(names(&trace), ["LUN0", "LUN3"]);
    let rows: Vec<_> = trace.rows.iter().map(|r| (r.time_ns, r.action)).collect();
    assert_eq!(rows, [(0, write(0, 512)), (6_790_999, read(512, 1024))]);
    assert_eq!(trace.start_unix_ns, Some(1_456_095_145_126_285_001));
    assert_eq!((trace.rows_read, trace.other_rows), (3, 1));
}

#[test]
fn systor_bad_rows_name_their_field() {
    for (row, field) in [
        ("1456095145.1,0.1,R,0,512", "row"),
        ("1456095145.1.1,0.1,R,0,512,512", "Timestamp"),
        ("x1456095145.1,0.1,R,0,512,512", "Timestamp"),
        (",0.1,R,0,512,512", "Timestamp"),
        ("1456095145.1,-0.1,R,0,512,512", "Response"),
        ("1456095145.1,0.1,X,0,512,512", "IOType"),
        ("1456095145.1,0.1,R,,512,512", "LUN"),
        ("1456095145.1,0.1,R,0,0x200,512", "Offset"),
        ("1456095145.1,0.1,R,0,512,99999999999999999999", "Size"),
    ] {
        bad_field(Format::Systor, row.as_bytes(), field);
    }
}

/// The same three rows, as `separator` and quotes have them.
fn written(columns: &Columns, rows: &[&str], separator: &str, quote: &str) -> Vec<u8> {
    let header = columns.names.join(",");
    let line = |row: &str| {
        let fields: Vec<_> = row.split(',').map(|f| format!("{quote}{f}{quote}")).collect();
        fields.join(separator)
    };
    let lines: Vec<_> = [header.as_str()].iter().chain(rows).map(|row| line(row)).collect();
    lines.join("\r\n").into_bytes()
}

#[test]
fn separators_and_quotes_mean_the_same() {
    for (format, rows) in [
        (
            Format::Msr,
            ["128166385295514663,hm,0,Write,4096,512,1", "128166385295514863,hm,1,Read,0,512,1"],
        ),
        (
            Format::Systor,
            ["1456095145.133076000,,R,0,512,1024", "1456095145.133076001,0.1,W,3,0,512"],
        ),
        (
            Format::Alibaba,
            ["7,R,126703661056,4096,1577808000000046", "1,W,0,77824,1577808000000426"],
        ),
        (Format::Tencent, ["1538323200,8,128,1,1058", "1538323201,16,8,0,1063"]),
        (Format::Spc, ["0,303567,3584,w,0.000000", "1,55590,3072,r,0.5"]),
    ] {
        let columns = Columns::of(format);
        let plain = good(format, &written(columns, &rows, ",", ""));
        assert_eq!((plain.rows.len(), plain.rows_read), (2, 2), "{format}");
        for (separator, quote) in [(",", "\""), (";", ""), ("\t", ""), (";", "\""), ("\t", "\"")] {
            let same = good(format, &written(columns, &rows, separator, quote));
            assert_eq!(
                (&same.rows, names(&same)),
                (&plain.rows, names(&plain)),
                "{separator}{quote}"
            );
        }
    }
}

#[test]
fn a_quote_that_does_not_end_spoils_one_row() {
    let sound = "7,W,0,512,1\n";
    let text = format!("{sound}7,W,\"0,512,2\n\"7\",W,0,512,3\n{sound}");
    let trace = skipping(Format::Alibaba, text.as_bytes());
    assert_eq!((trace.rows.len(), trace.bad_rows), (3, 1));
    let error = forced(Format::Alibaba, text.as_bytes()).unwrap_err();
    assert_eq!((error.place(), error.field()), (Some(Place::Line(2)), Some("row")));
    assert!(error.to_string().contains("a quote that does not end"), "{error}");
    bad_field(Format::Alibaba, b"7,W,0,512,1\n\"", "row");
    bad_field(Format::Alibaba, b"7;W;0;512;1\n7;W;0;512;1\n7,W,0,512,1", "row");
    let other = forced(Format::Alibaba, b"7|W|0|512|1\n").unwrap_err().to_string();
    assert!(other.contains("has 1 fields where 5 between ',' are needed"), "{other}");
}

#[test]
fn rows_out_of_order_are_counted() {
    let text = b"5,8,8,1,1\n4,8,8,1,1\n5,8,8,1,1\n2,8,8,1,1\n9,8,8,1,1\n";
    let trace = good(Format::Tencent, text);
    let order = (trace.sections, trace.out_of_order_rows, trace.largest_step_back_ns);
    assert_eq!(order, (1, 2, 3_000_000_000));
    let sorted = good(Format::Tencent, b"5,8,8,1,1\n5,8,8,1,1\n");
    assert_eq!((sorted.out_of_order_rows, sorted.largest_step_back_ns), (0, 0));
}
