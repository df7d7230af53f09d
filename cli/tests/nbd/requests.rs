//! Requests, each as it should be and each as it should not.

use crate::client::*;
use crate::rig::*;
use std::collections::HashMap;
use std::io::{Read, Write};

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

const BOTH: [&str; 2] = ["base:allocation", "afterimage:location"];

fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    }
}

/// Any offset and length, one request at a time, held against a plain array.
#[test]
fn every_byte_can_be_reached() {
    let rig = Rig::new();
    let mut plain = vec![0u8; 300_000];
    let mut draw = numbers(5);
    for structured in [false, true, false] {
        let mut client = match structured {
            true => Client::structured(&rig.path(), "data", &[]),
            false => Client::simple(&rig.path(), "data"),
        };
        for round in 0..200 {
            let from = draw(plain.len() as u64);
            let length = draw((plain.len() as u64 - from).min(40_000)) as u32;
            let range = from as usize..from as usize + length as usize;
            let fua = draw(2) as u16;
            let error = match draw(5) {
                0 => {
                    plain[range].fill(0);
                    let flags = [0, NO_HOLE, FAST_ZERO, NO_HOLE | FAST_ZERO][draw(4) as usize];
                    client.call(flags | fua, WRITE_ZEROES, from, length)
                }
                1 => client.call(fua, CACHE, from, length),
                2 => client.call(fua, FLUSH, 0, 0),
                _ => {
                    let data = vec![1 + round as u8; length as usize];
                    plain[range].copy_from_slice(&data);
                    client.write(fua, from, &data)
                }
            };
            assert_eq!(error, 0);
            let from = draw(plain.len() as u64);
            let length = draw(plain.len() as u64 - from) as u32;
            let flags = if structured { [0, DF, FUA, DF | FUA][draw(4) as usize] } else { fua };
            let read = client.read(flags, from, length).unwrap();
            assert!(read == plain[from as usize..from as usize + length as usize], "{round}");
        }
        client.ask(0, DISC, 0, 0);
        client.assert_over();
    }
    assert_eq!(rig.last_end(), "");
}

/// The largest of everything, in one request.
#[test]
fn large_requests_are_cut_into_pieces() {
    let rig = Rig::new();
    let most = 32 << 20;
    let data: Vec<u8> = (0..most).map(|at| (at / 4096 % 251) as u8).collect();
    let mut simple = Client::simple(&rig.path(), "data");
    assert_eq!(simple.write(FUA, 12_345, &data), 0);
    let mut structured = Client::structured(&rig.path(), "data", &BOTH);
    for read in [
        simple.read(0, 12_344, most),
        structured.read(0, 12_344, most),
        structured.read(DF, 12_344, most),
    ] {
        let read = read.unwrap();
        assert!(read[0] == 0 && read[1..] == data[..most as usize - 1]);
    }
    assert_eq!(simple.call(0, TRIM, 0, BYTES as u32), 0);
    assert!(simple.read(0, 0, most).unwrap().iter().all(|byte| *byte == 0));
    let mut client = Client::structured(&rig.path(), "large", &BOTH);
    for command in [TRIM, WRITE_ZEROES] {
        assert_eq!(client.call(FUA, command, 4096, u32::MAX), 0);
    }
    let [holes, places] = status(&mut client, 0, 4096, u32::MAX);
    // The last block is zeroed in part only: a record with data does it.
    let whole = u32::MAX - 4095;
    assert_eq!(holes, [(whole, 3), (4095, 0)]);
    assert_eq!(places[0], if places.len() == 1 { (u32::MAX, 0) } else { (whole, 0) });
}

/// The status of a range in both contexts.
fn status(client: &mut Client, flags: u16, offset: u64, length: u32) -> [Vec<(u32, u32)>; 2] {
    let cookie = client.ask(flags, BLOCK_STATUS, offset, length);
    [1, 2].map(|context: u32| {
        let Chunk { done, kind, cookie: of, payload } = client.chunk();
        assert_eq!((done, kind, of), (context == 2, 5, cookie));
        let words: Vec<u32> =
            payload.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words[0], context);
        words[1..].chunks(2).map(|pair| (pair[0], pair[1])).collect()
    })
}

#[test]
fn block_status_tells_holes_and_places() {
    let rig = Rig::new();
    let mut client = Client::structured(&rig.path(), "data", &BOTH);
    assert_eq!(client.write(0, 8192, &[1; 4096]), 0);
    let [holes, places] = status(&mut client, 0, 1, 20_000);
    assert_eq!(holes, [(8191, 3), (4096, 0), (7713, 3)]);
    assert_eq!(places.iter().map(|extent| extent.0).sum::<u32>(), 20_000);
    assert_eq!(status(&mut client, REQ_ONE, 1, 20_000)[0], [(8191, 3)]);
    assert_eq!(status(&mut client, REQ_ONE, 8192, 4096)[0], [(4096, 0)]);
    // A reply has so many extents and no more: every second block of many has data.
    for number in 0..1200u64 {
        client.ask_write(0, (1 << 20) + number * 8192, &[1; 4096]);
    }
    (0..1200).for_each(|_| assert_eq!(client.done().1, 0));
    let [holes, places] = status(&mut client, 0, 1 << 20, 40 << 20);
    assert!(holes.len() <= 1024 && holes.len() > 1000, "{}", holes.len());
    assert!(!places.is_empty() && places.len() <= 1024);
    // Only where it was agreed on.
    let mut plain = Client::structured(&rig.path(), "data", &[]);
    assert_eq!(plain.ask(0, BLOCK_STATUS, 0, 4096), plain.chunk().cookie);
    let mut simple = Client::simple(&rig.path(), "data");
    assert_eq!(simple.call(0, BLOCK_STATUS, 0, 4096), EINVAL);
}

#[test]
fn holes_are_told_as_holes() {
    let rig = Rig::new();
    let mut client = Client::structured(&rig.path(), "data", &[]);
    assert_eq!(client.write(0, 8192, &[7; 4096]), 0);
    let cookie = client.ask(0, READ, 4096, 12_288);
    let chunks = [client.chunk(), client.chunk(), client.chunk()];
    let hole = |at: u64, done| Chunk {
        done,
        kind: 2,
        cookie,
        payload: [&at.to_be_bytes()[..], &4096u32.to_be_bytes()].concat(),
    };
    let data = [&8192u64.to_be_bytes()[..], &[7; 4096]].concat();
    let data = Chunk { done: false, kind: 1, cookie, payload: data };
    assert_eq!(chunks, [hole(4096, false), data, hole(12_288, true)]);
    // One that must not be in parts has its zeros.
    client.ask(DF, READ, 4096, 12_288);
    let whole = client.chunk();
    assert_eq!((whole.done, whole.kind, whole.payload.len()), (true, 1, 8 + 12_288));
}

#[test]
fn what_cannot_be_served_gets_an_error_and_the_next_request_follows() {
    let rig = Rig::new();
    let mut simple = Client::simple(&rig.path(), "data");
    let mut structured = Client::structured(&rig.path(), "data", &BOTH);
    let mut seen = Client::simple(&rig.path(), "seen");
    let end = BYTES;
    let all = u32::MAX;
    let cases = [
        (0, READ, end - 1, 2, EINVAL),
        (0, READ, u64::MAX, 1, EINVAL),
        (0, READ, 0, (32 << 20) + 1, EINVAL),
        (NO_HOLE, READ, 0, 1, EINVAL),
        (REQ_ONE, READ, 0, 1, EINVAL),
        (FAST_ZERO, READ, 0, 1, EINVAL),
        (0, TRIM, end - 1, 2, EINVAL),
        (0, TRIM, 0, all, EINVAL),
        (NO_HOLE, TRIM, 0, 1, EINVAL),
        (0, CACHE, end, 1, EINVAL),
        (DF, CACHE, 0, 1, EINVAL),
        (0, WRITE_ZEROES, end - 1, 2, ENOSPC),
        (0, WRITE_ZEROES, u64::MAX, all, ENOSPC),
        (DF, WRITE_ZEROES, 0, 1, EINVAL),
        (0, FLUSH, 1, 0, EINVAL),
        (0, FLUSH, 0, 1, EINVAL),
        (DF, FLUSH, 0, 0, EINVAL),
        (0, DISC, 1, 0, EINVAL),
        (0, BLOCK_STATUS, 0, 0, EINVAL),
        (0, BLOCK_STATUS, end, 1, EINVAL),
        (DF, BLOCK_STATUS, 0, 1, EINVAL),
        (0, 8, 0, 1, EINVAL),
        (0, 77, 0, all, EINVAL),
        (FUA, u16::MAX, u64::MAX, all, EINVAL),
    ];
    for (flags, command, offset, length, expected) in cases {
        let name = format!("{flags} {command} {offset} {length}");
        assert_eq!(simple.call(flags, command, offset, length), expected, "{name}");
        let cookie = structured.ask(flags, command, offset, length);
        if [READ, BLOCK_STATUS].contains(&command) {
            let chunk = structured.chunk();
            assert_eq!((chunk.done, chunk.kind, chunk.cookie), (true, 0x8001, cookie), "{name}");
            assert_eq!(chunk.payload[..4], expected.to_be_bytes(), "{name}");
            assert!(chunk.payload.len() > 6, "it says why");
        } else {
            assert_eq!(structured.done(), (cookie, expected), "{name}");
        }
    }
    assert_eq!(simple.call(DF, READ, 0, 1), EINVAL, "not agreed on");
    // A refused write's data is dropped.
    let large = vec![1; (32 << 20) + 1];
    assert_eq!(simple.write(0, 0, &large), EINVAL);
    assert_eq!(simple.write(0, end - 1, b"xy"), ENOSPC);
    assert_eq!(simple.write(NO_HOLE, 0, b"xy"), EINVAL);
    assert_eq!(seen.write(0, 0, b"xy"), EPERM);
    for command in [TRIM, WRITE_ZEROES] {
        assert_eq!(seen.call(0, command, 0, 1), EPERM);
    }
    assert_eq!(seen.call(0, FLUSH, 0, 0), 0);
    assert_eq!(seen.read(0, 0, 2), Ok(vec![0, 0]));
    // Nothing of no bytes is wrong.
    for command in [TRIM, WRITE_ZEROES, CACHE] {
        assert_eq!(simple.call(FUA, command, end, 0), 0);
    }
    assert_eq!(simple.write(0, end, &[]), 0);
    for flags in [0, DF] {
        assert_eq!(structured.read(flags, end, 0), Ok(vec![]));
    }
    assert_eq!(simple.read(0, 0, 1), Ok(vec![0]));
}

#[test]
fn the_connection_ends_where_no_request_can_follow() {
    let rig = Rig::new();
    let heads = [
        (vec![0; 28], "instead of 0x25609513"),
        (b"NBDMAGIC and so on and so on".to_vec(), "instead of 0x25609513"),
        (head(1 << 5, READ, 1, 0, 1), "flags 0x20"),
        (head(1 << 15, WRITE, 1, 0, 1), "flags 0x8000"),
        (head(0, WRITE, 1, 0, (64 << 20) + 1), "a write of 67108865 bytes"),
        (head(0, WRITE, 1, BYTES, u32::MAX), "a write of 4294967295 bytes"),
    ];
    for (bytes, why) in heads {
        let mut client = Client::simple(&rig.path(), "data");
        client.send(&bytes);
        client.assert_over();
        rig.wait_for_nobody();
        assert!(rig.last_end().contains(why), "{}", rig.last_end());
    }
}

/// A host that leaves in the middle of anything leaves nothing behind, and nothing of its half request.
#[test]
fn half_requests_are_not_done() {
    let rig = Rig::new();
    let whole = [head(0, WRITE, 1, 0, 2048), vec![9; 2048]].concat();
    for length in [1, 27, 28, 29, 28 + 2047] {
        let mut client = Client::simple(&rig.path(), "data");
        client.send(&whole[..length]);
        drop(client);
        rig.wait_for_nobody();
        assert_eq!(rig.last_end(), "", "the host may leave");
    }
    let mut client = Client::simple(&rig.path(), "data");
    assert_eq!(client.read(0, 0, 2048), Ok(vec![0; 2048]));
}

/// Many requests under way that overlap each other, in one connection: each is answered once, and a
/// byte has what one of them wrote.
#[test]
fn requests_under_way_may_overlap() {
    let rig = Rig::new();
    let mut client = Client::structured(&rig.path(), "data", &BOTH);
    let mut reader = client.stream.try_clone().unwrap();
    let mut draw = numbers(11);
    let sent = std::thread::spawn(move || {
        let mut kinds = HashMap::new();
        for _ in 0..2000 {
            let (offset, length) = (draw(9000), 1 + draw(9000) as u32);
            let command = [READ, WRITE, TRIM, WRITE_ZEROES, FLUSH, CACHE][draw(6) as usize];
            let cookie = match command {
                WRITE => client.ask_write(draw(2) as u16, offset, &vec![3; length as usize]),
                FLUSH => client.ask(0, FLUSH, 0, 0),
                _ => client.ask(0, command, offset, length),
            };
            kinds.insert(cookie, command);
        }
        client.ask(0, DISC, 0, 0);
        kinds
    });
    let mut replies = Vec::new();
    reader.read_to_end(&mut replies).unwrap();
    let mut kinds = sent.join().unwrap();
    let mut rest = &replies[..];
    let mut next = |count| {
        let (front, behind) = rest.split_at_checked(count)?;
        rest = behind;
        Some(front)
    };
    while let Some(magic) = next(4) {
        if magic == [0x67, 0x44, 0x66, 0x98] {
            assert_eq!(next(4).unwrap(), [0; 4]);
            let cookie = u64::from_be_bytes(next(8).unwrap().try_into().unwrap());
            assert_ne!(kinds.remove(&cookie).expect("answered once"), READ);
        } else {
            let done = next(2).unwrap() == [0, 1];
            let kind = next(2).unwrap()[1];
            let cookie = u64::from_be_bytes(next(8).unwrap().try_into().unwrap());
            let length = u32::from_be_bytes(next(4).unwrap().try_into().unwrap());
            let payload = next(length as usize).unwrap();
            let data = if kind == 1 { &payload[8..] } else { &[] };
            assert!(data.iter().all(|byte| [0, 3].contains(byte)));
            assert_eq!(kinds.get(&cookie), Some(&READ));
            if done {
                kinds.remove(&cookie);
            }
        }
    }
    assert!(kinds.is_empty(), "unanswered: {kinds:?}");
}

/// A host that asks and does not listen holds what is under way, and nobody else.
#[test]
fn a_host_that_does_not_listen_holds_up_nobody_else() {
    let rig = Rig::new();
    let mut deaf = Client::simple(&rig.path(), "data");
    deaf.stream.set_nonblocking(true).unwrap();
    let request = head(0, READ, 1, 0, 1 << 20);
    let mut asked = 0;
    wait_for("the server takes no more requests", || {
        while let Ok(sent) = deaf.stream.write(&request) {
            assert_eq!(sent, request.len());
            asked += 1;
        }
        asked > 100
    });
    let mut host = Client::simple(&rig.path(), "wal");
    for number in 0..50 {
        assert_eq!(host.write(0, number * 4096, &[1; 4096]), 0);
    }
    // It is noticed when it dies, though nothing is read from it.
    drop(deaf);
    wait_for("it is gone", || rig.server().connections() == 1);
}

/// Threads and descriptors of this process.
fn held() -> [usize; 2] {
    ["/proc/self/task", "/proc/self/fd"].map(|path| std::fs::read_dir(path).unwrap().count())
}

/// In a process of its own, so that no other test's threads are counted.
#[test]
fn connects_and_disconnects_leave_nothing_behind() {
    const NAME: &str = "requests::connects_and_disconnects_leave_nothing_behind";
    if std::env::var_os("AFTERIMAGE_NBD_ALONE").is_none() {
        let alone = std::process::Command::new(std::env::current_exe().unwrap())
            .args([NAME, "--exact", "--test-threads=1"])
            .env("AFTERIMAGE_NBD_ALONE", "1")
            .output()
            .unwrap();
        assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
        return;
    }
    let rig = Rig::new();
    let before = held();
    for round in 0..200 {
        let mut client = Client::connect(&rig.path());
        match round % 5 {
            0 => {}
            1 => client.option(99, b"x"),
            2 => _ = client.go("data"),
            3 => {
                client.go("data");
                client.ask_write(0, 0, &[1; 4096]);
            }
            _ => {
                client.go("data");
                client.send(&head(0, WRITE, 1, 0, 4096));
            }
        }
    }
    rig.wait_for_nobody();
    wait_for("threads and descriptors are as before", || held() == before);
}
