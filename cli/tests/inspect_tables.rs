//! `inspect` on devices in differential mode: their administration tables, by tenure.
#![cfg(not(loom))]

#[allow(dead_code)]
mod pair;

use afterimage::Device;
use afterimage::internal::limits::Geometry;
use afterimage::internal::link::Lane;
use afterimage::internal::storage::Directory;
use afterimage::internal::superblock::SuperblockFile;
use afterimage::internal::unit::{Blocks, Mode, Round};
use afterimage_cli::inspect;
use pair::{BLOCKS, Pair, VOLUMES};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn text(dir: &Path, rows: Option<usize>) -> String {
    let mut out = Vec::new();
    let args = inspect::Args { dir: dir.to_owned(), json: false, rows };
    inspect::run(&args, &mut out).expect("inspected");
    String::from_utf8(out).expect("text")
}

/// The report on a device.
fn report(dir: &Path) -> Value {
    let mut out = Vec::new();
    let args = inspect::Args { dir: dir.to_owned(), json: true, rows: None };
    inspect::run(&args, &mut out).expect("inspected");
    serde_json::from_slice(&out).expect("JSON")
}

/// Mode, round and table are shown; a table that is gone is damage.
#[test]
fn a_table_is_shown_as_it_is_stored() {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = Arc::new(Directory::create(dir.path()).expect("created"));
    Device::create(&*storage, &Geometry::new(1, 1, VOLUMES.to_vec()), true).expect("created");
    let new = report(dir.path());
    assert_eq!(new["differential"], Value::Null);
    assert_eq!(new["location"]["rest"], BLOCKS);
    let superblock = SuperblockFile::open(storage.clone()).expect("a superblock");
    let runs = [(0, 1..4), (0, 9..10), (3, 7..107)];
    let runs = runs.map(|(volume, numbers)| Blocks { volume, numbers });
    for _ in 0..2 {
        let store = superblock.update_with_table(runs.iter().cloned(), |superblock| {
            superblock.mode = Mode::Collecting;
            superblock.round = Round { generation: 1, counter: 4 };
            superblock.last_active = 4;
            superblock.epoch = 4;
            superblock.clean = false;
        });
        store.expect("stored");
    }
    let report = self::report(dir.path());
    assert_eq!(report["verdict"], "sound", "{report}");
    let table = json!({
        "mode": "collecting", "round_lineage": 1, "round": 4,
        "tenure": 4, "table": 2, "numeral": 401, "runs": 3, "blocks": 104,
        "rows": [
            {"volume": 0, "block": 1, "blocks": 3},
            {"volume": 0, "block": 9, "blocks": 1},
            {"volume": 3, "block": 7, "blocks": 100},
        ],
        "implied": [], "owed": false, "told": [],
    });
    assert_eq!(report["differential"], table);
    let copy = &report["superblock"]["copies"][0];
    assert_eq!((&copy["mode"], &copy["incompat"]), (&"collecting".into(), &"2".into()));
    assert_eq!((&copy["table_slot"], &copy["table_bytes"]), (&0.into(), &4096.into()));
    let shown = text(dir.path(), None);
    let expected = "  mode collecting, round 1.4\n  \
        table 2 (401), of tenure 4, the last here: 104 blocks in 3 runs, as stored last\n    \
        0:1+3\n    0:9\n    3:7+100\n\n";
    assert!(shown.contains(expected), "{shown}");
    let shown = text(dir.path(), Some(1));
    assert!(shown.contains("as stored last\n    0:1+3\n  … 2 rows more\n"), "{shown}");
    fs::remove_file(dir.path().join("side/table.0")).expect("removed");
    let report = self::report(dir.path());
    let finding = json!({"file": "side/table.0", "what": "is missing"});
    assert_eq!(report["findings"], json!([finding]));
}

/// Three tenures in one round trip each, with nothing copied: tables 1, 2 and 3, what was handed over, and what
/// was told of.
#[test]
fn tables_are_those_of_the_tenures() {
    let pair = Pair::new();
    pair.links.iter().for_each(|link| link.hold(Lane::Data, true));
    pair.write(0, 0, 5, 1);
    pair.devices[0].suspend().expect("suspended");
    pair.write(0, 0, 6, 1);
    pair.carry();
    let tables = |k: usize| report(&pair.path(k))["differential"].clone();
    let row = |volume: u32, block: u64| json!([{"volume": volume, "block": block, "blocks": 1}]);
    let of =
        |table: &Value| [table["tenure"].clone(), table["table"].clone(), table["numeral"].clone()];

    let first = tables(0);
    assert_eq!(of(&first), [1, 1, 400].map(Value::from), "{first}");
    assert_eq!((&first["rows"], &first["implied"]), (&row(0, 5), &row(0, 6)), "{first}");

    pair.take_over(1);
    pair.write(1, 3, 9, 2);
    pair.carry();
    let second = tables(1);
    assert_eq!(of(&second), [2, 2, 401].map(Value::from), "{second}");
    assert_eq!((&second["owed"], &second["implied"]), (&true.into(), &row(3, 9)), "{second}");

    pair.take_over(0);
    pair.write(0, 0, 7, 3);
    pair.carry();
    let third = tables(0);
    assert_eq!(of(&third), [3, 3, 402].map(Value::from), "{third}");
    let rows = json!([{"volume": 0, "block": 5, "blocks": 2}]);
    assert_eq!((&third["rows"], &third["implied"]), (&rows, &row(0, 7)), "{third}");
    assert_eq!(third["owed"], true);

    // The round of the takeover is opened, and its bits are told of.
    for _ in 0..3 {
        for device in &pair.devices {
            while device.step_reflect().expect("reflect") > 0 {}
            device.step_checkpoint().expect("checkpoint");
            device.step_ladder().expect("ladder");
        }
        pair.carry();
    }
    pair.close();
    let second = tables(1);
    assert_eq!((&second["rows"], &second["implied"]), (&row(3, 9), &json!([])), "{second}");
    let told = &second["told"];
    assert_eq!((&told[0]["block"], &told[0]["blocks"]), (&5.into(), &3.into()), "{second}");
    assert!(told[0]["time_ns"].is_u64(), "{second}");
    assert_eq!(tables(0)["told"][0]["block"], 9);
    let shown = text(&pair.path(1), None);
    assert!(shown.contains("the other device's table, as it told of it"), "{shown}");
    let shown = text(&pair.path(0), None);
    assert!(
        shown.contains("P, the copy of the other device's table: it may owe blocks"),
        "{shown}"
    );
}
