//! Clients that change the database, and keep outside of it which commits were acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::site::Site;

pub const CLIENTS: u64 = 4;

/// Rows that each client changes again and again.
const ROWS: u64 = 50;

/// Bytes of half a row: its content is their hexadecimal digits.
const HALF: usize = 32 << 10;

pub fn make_tables(site: &Site) {
    site.query(
        "CREATE TABLE ledger (client int, n int, bulk int, sum text); \
         CREATE INDEX ON ledger (client, n); CREATE INDEX ON ledger (bulk, n); \
         CREATE TABLE bulk (id int PRIMARY KEY, client int, n int, filler text); \
         ALTER TABLE bulk ALTER filler SET STORAGE EXTERNAL",
    );
    let rows = CLIENTS * ROWS;
    site.query(&format!(
        "INSERT INTO bulk SELECT i, i / {ROWS}, 0, '' FROM generate_series(0, {rows} - 1) i"
    ));
}

/// A client's session with the database.
pub fn session(site: &Site) -> Child {
    let mut session = site.session();
    session.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    session.spawn().unwrap()
}

/// One client, until its session breaks or it is to stop: the number of its last acknowledged commit.
pub fn client(
    (mut to, from): (ChildStdin, ChildStdout),
    client: u64,
    acknowledged: u64,
    stop: &AtomicBool,
) -> u64 {
    let mut from = BufReader::new(from);
    let mut last = acknowledged;
    let mut half = vec![0; HALF];
    while !stop.load(Relaxed) {
        let n = last + 1;
        getrandom::fill(&mut half).unwrap();
        let filler: String = half.iter().map(|byte| format!("{byte:02x}")).collect();
        // One transaction: a row is changed, and the ledger tells of it.
        let row = client * ROWS + n % ROWS;
        let statement = format!(
            "WITH changed AS (UPDATE bulk SET n = {n}, filler = '{filler}' WHERE id = {row} RETURNING id, filler) \
             INSERT INTO ledger SELECT {client}, {n}, id, md5(filler) FROM changed RETURNING n;\n"
        );
        let mut line = String::new();
        if to.write_all(statement.as_bytes()).is_err() || from.read_line(&mut line).is_err() {
            break;
        }
        // psql prints a row once the server has said that the transaction is committed.
        match line.trim().parse::<u64>() {
            Ok(told) if told == n && line.ends_with('\n') => last = n,
            _ => break,
        }
    }
    last
}

/// Every acknowledged commit is there once, and at most the one after it; returns the last of each client.
pub fn check(site: &Site, acknowledged: &[u64]) -> Vec<u64> {
    let told = site.query(
        "SELECT client, count(*), count(DISTINCT n), min(n), max(n) FROM ledger GROUP BY client ORDER BY client",
    );
    let mut lasts = vec![0; acknowledged.len()];
    for line in told.lines() {
        let fields: Vec<u64> = line.split('|').map(|field| field.parse().unwrap()).collect();
        let [client, count, distinct, least, most] = fields[..] else { panic!("{line}") };
        assert!(count == distinct && least == 1 && most == count, "client {client}: {line}");
        lasts[client as usize] = most;
    }
    for (client, (&last, &acknowledged)) in lasts.iter().zip(acknowledged).enumerate() {
        let is_there = (acknowledged..=acknowledged + 1).contains(&last);
        assert!(is_there, "client {client}: {acknowledged} were acknowledged, {last} are there");
    }
    // The rows are those of the newest commit that the ledger tells of.
    let wrong = site.query(
        "SELECT count(*) FROM bulk b WHERE n > 0 AND NOT EXISTS (SELECT FROM ledger l WHERE l.client = b.client \
         AND l.n = b.n AND l.bulk = b.id AND l.sum = md5(b.filler)) \
         OR n <> coalesce((SELECT max(n) FROM ledger l WHERE l.bulk = b.id), 0)",
    );
    assert_eq!(wrong, "0", "rows differ from what was committed");
    lasts
}
