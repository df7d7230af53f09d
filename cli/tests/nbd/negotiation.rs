//! The options, each as it should be and each as it should not.

use crate::client::*;
use crate::rig::*;
use afterimage::Threads;
use afterimage_cli::nbd::{Export, Listener, News, Server, Settings};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// The flags of an export: all but read-only, multi-connection and, without structured replies, DF.
const FLAGS: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 10 | 1 << 11;
const SEND_DF: u16 = 1 << 7;

#[test]
fn the_exports_are_listed_and_described() {
    let rig = Rig::new();
    let mut client = Client::connect(&rig.path());
    let listed = client.replies(LIST, &[]);
    let names: Vec<_> = listed.iter().map(|(_, data)| String::from_utf8_lossy(data)).collect();
    assert_eq!(
        names,
        ["\0\0\0\x04data", "\0\0\0\x03walthe log", "\0\0\0\x04seen", "\0\0\0\x05large", ""]
    );
    let told = client.replies(INFO, &wish("wal", &[1, 2, 77]));
    let told: Vec<_> = told.into_iter().map(|(_, data)| data).collect();
    let mut export = vec![0, 0];
    export.extend(SMALL.to_be_bytes());
    export.extend(FLAGS.to_be_bytes());
    let sizes = [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0];
    assert_eq!(told, [&export[..], b"\0\x01wal", b"\0\x02the log", &sizes, b""]);
    // It is still a negotiation; the export's flags depend on what was agreed on.
    assert_eq!(client.answer(STRUCTURED, &[]), ACK);
    assert_eq!(client.go("wal"), (SMALL, FLAGS | SEND_DF));
    assert_eq!(client.write(0, 0, b"x"), 0);
    // A reader that comes by disturbs nobody.
    let mut reader = Client::simple(&rig.path(), "wal");
    assert_eq!(reader.read(0, 0, 1), Ok(b"x".to_vec()));
    assert_eq!(client.write(0, 0, b"y"), 0);
}

#[test]
fn what_is_not_an_option_gets_an_error_and_the_next_one_follows() {
    let rig = Rig::new();
    let mut client = Client::connect(&rig.path());
    for option in [0, 4, 5, 11, 12, 77, u32::MAX] {
        assert_eq!(client.answer(option, &[]), UNSUP, "{option}");
        assert_eq!(client.answer(option, b"some data"), UNSUP, "{option}");
    }
    for option in [LIST, STRUCTURED] {
        assert_eq!(client.answer(option, b"x"), INVALID, "{option}");
    }
    let fine = wish("data", &[3]);
    for option in [GO, INFO] {
        assert_eq!(client.answer(option, &wish("nothing", &[])), UNKNOWN);
        // With several exports the empty name is that of none.
        assert_eq!(client.answer(option, &wish("", &[])), UNKNOWN);
        for length in 0..fine.len() {
            assert_eq!(client.answer(option, &fine[..length]), INVALID, "{length}");
        }
        assert_eq!(client.answer(option, &[&fine[..], b"x"].concat()), INVALID);
        assert_eq!(client.answer(option, &[0xff; 10]), INVALID);
        assert_eq!(client.answer(option, b"\0\0\0\x01\xff\0\0"), INVALID, "no text");
    }
    let fine = query("data", &["base:allocation"]);
    assert_eq!(client.answer(SET_CONTEXT, &fine), INVALID, "no structured replies");
    assert_eq!(client.answer(STRUCTURED, &[]), ACK);
    for option in [SET_CONTEXT, LIST_CONTEXT] {
        for length in 0..fine.len() {
            assert_eq!(client.answer(option, &fine[..length]), INVALID, "{length}");
        }
        assert_eq!(client.answer(option, &query("nothing", &["base:"])), UNKNOWN);
        let many = [&query("data", &[])[..8], &[0xff; 4]].concat();
        assert_eq!(client.answer(option, &many), INVALID);
    }
    // Too long to be looked at, and not too long to be dropped.
    for option in [LIST, GO, 99] {
        assert_eq!(client.answer(option, &vec![0; 100 << 10]), TOO_BIG);
    }
    assert_eq!(client.go("data").0, BYTES);
}

#[test]
fn contexts_are_told_and_chosen() {
    let rig = Rig::new();
    let mut client = Client::connect(&rig.path());
    assert_eq!(client.answer(STRUCTURED, &[]), ACK);
    let (base, location) = ("base:allocation", "afterimage:location");
    let mut ask = |option, name, queries: &[&str]| {
        let mut replies = client.replies(option, &query(name, queries));
        assert_eq!(replies.pop(), Some((ACK, vec![])));
        let told = replies.into_iter().map(|(_, data)| {
            (
                u32::from_be_bytes(data[..4].try_into().unwrap()),
                String::from_utf8(data[4..].into()).unwrap(),
            )
        });
        told.collect::<Vec<_>>()
    };
    let both = |ids: [u32; 2]| vec![(ids[0], base.to_string()), (ids[1], location.to_string())];
    assert_eq!(ask(LIST_CONTEXT, "data", &[]), both([0, 0]));
    assert_eq!(ask(LIST_CONTEXT, "data", &["base:", "qemu:", "odd"]), both([0, 0])[..1]);
    assert_eq!(ask(LIST_CONTEXT, "wal", &["afterimage:", location]), both([0, 0])[1..]);
    assert_eq!(ask(SET_CONTEXT, "data", &["base:", "", "qemu:dirty"]), []);
    assert_eq!(ask(SET_CONTEXT, "data", &[location, base, base]), both([1, 2]));
    // Contexts of another export count for nothing.
    assert_eq!(ask(SET_CONTEXT, "wal", &[base]), both([1, 2])[..1]);
    client.structured = true;
    client.go("data");
    client.ask(0, BLOCK_STATUS, 0, 4096);
    assert_eq!(client.chunk().kind, 0x8001);
}

#[test]
fn an_export_is_opened_by_its_name_alone() {
    let rig = Rig::new();
    for (flags, zeros) in [(0, 124), (FIXED, 124), (NO_ZEROES, 0), (FIXED | NO_ZEROES, 0)] {
        let mut client = Client::greet(&rig.path(), flags);
        client.option(EXPORT_NAME, b"data");
        assert_eq!(client.u64(), BYTES);
        assert_eq!(client.take::<2>(), FLAGS.to_be_bytes());
        assert_eq!(client.take_many(zeros), vec![0; zeros]);
        assert_eq!(client.write(0, 0, b"x"), 0);
    }
    // There is no way to say no.
    for name in [&b"nothing"[..], b"\xff", b"", &[b'x'; 70_000]] {
        let mut client = Client::connect(&rig.path());
        client.option(EXPORT_NAME, name);
        client.assert_over();
    }
}

#[test]
fn the_connection_ends_where_the_protocol_is_broken() {
    let rig = Rig::new();
    let mut client = Client::greet(&rig.path(), 4);
    client.assert_over();
    rig.wait_for_nobody();
    assert!(rig.last_end().contains("flags 0x4"), "{}", rig.last_end());
    // Without fixed newstyle there are no answers.
    let mut client = Client::greet(&rig.path(), 0);
    client.option(LIST, &[]);
    client.assert_over();
    rig.wait_for_nobody();
    let mut client = Client::connect(&rig.path());
    client.send(b"NOTANOPTIONATALL");
    client.assert_over();
    rig.wait_for_nobody();
    assert!(rig.last_end().contains("instead of IHAVEOPT"), "{}", rig.last_end());
    let mut client = Client::connect(&rig.path());
    client.send(
        &[&OPTION.to_be_bytes()[..], &LIST.to_be_bytes(), &(2u32 << 20).to_be_bytes()].concat(),
    );
    client.assert_over();
    rig.wait_for_nobody();
    // One that leaves in good order.
    let mut client = Client::connect(&rig.path());
    assert_eq!(client.answer(ABORT, &[]), ACK);
    client.assert_over();
    rig.wait_for_nobody();
    assert_eq!(rig.last_end(), "");
}

/// A client that says nothing, or too little, or begins a long word and does not go on.
#[test]
fn a_silent_client_is_ended() {
    let settings = Settings { negotiation: Duration::from_millis(60), ..Settings::default() };
    let rig = Rig::with(settings, engine_settings());
    let begun = [&b""[..], &[0], &[0, 0, 0, 3], &[0, 0, 0, 3, 0x49]];
    let mut clients: Vec<_> = begun
        .iter()
        .map(|begun| {
            let mut client = Client::silent(&rig.path());
            client.take::<18>();
            client.send(begun);
            client
        })
        .collect();
    clients.iter_mut().for_each(Client::assert_over);
    rig.wait_for_nobody();
    assert!(rig.last_end().contains("silent"), "{}", rig.last_end());
    // One that has opened an export may be silent for ever.
    let mut host = Client::simple(&rig.path(), "data");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(host.write(0, 0, b"x"), 0);
}

#[test]
fn one_connection_too_many_is_refused() {
    let settings = Settings { connections_max: 2, ..Settings::default() };
    let rig = Rig::with(settings, engine_settings());
    let [first, _second] = [0, 1].map(|_| Client::simple(&rig.path(), "data"));
    let mut third = Client::silent(&rig.path());
    third.assert_over();
    let is_told =
        |news: &News| matches!(news, News::Refused { why } if why.contains("connections_max"));
    wait_for("the refusal is told", || rig.news.lock().unwrap().iter().any(is_told));
    drop(first);
    wait_for("there is room again", || rig.server().connections() == 1);
    Client::simple(&rig.path(), "data");
}

#[test]
fn exports_that_cannot_be_are_refused() {
    let device = new_device(1, engine_settings());
    let refused = |exports: Vec<Export>| {
        let server =
            Server::start(device.clone(), Vec::new(), exports, Settings::default(), |_| {});
        server.err().expect("refused").to_string()
    };
    assert!(refused(vec![Export::new("x", 3)]).contains("of volume 3, which the group has not"));
    assert!(refused(vec![Export::new("x", 0), Export::new("x", 4)]).contains("two exports"));
    assert!(refused(vec![Export::new("x".repeat(4097), 0)]).contains("4097 bytes, 4096 at most"));
}

/// Several connections may write where the device shares a volume among them, and only there.
#[test]
fn several_connections_are_offered_where_a_volume_is_shared() {
    let engine = afterimage::Settings { shared_volumes: vec![0], ..engine_settings() };
    let rig = Rig::with(Settings::default(), engine);
    let [mut first, mut second] = [0, 1].map(|_| Client::connect(&rig.path()));
    assert_eq!(first.go("data").1, FLAGS | 1 << 8);
    second.go("data");
    assert_eq!(second.write(0, 0, b"x"), 0);
    assert_eq!(first.write(0, 0, b"y"), 0);
    assert_eq!(Client::connect(&rig.path()).go("wal").1, FLAGS);
}

/// The same over TCP.
#[test]
fn an_export_is_served_over_tcp() {
    let device = new_device(1, engine_settings());
    let _threads = Threads::start(&device).unwrap();
    device.resume_alone().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listeners = vec![Listener::Tcp(listener)];
    let settings = Settings::default();
    let server = Server::start(device, listeners, exports(), settings, |_| {}).unwrap();
    let mut host = TcpStream::connect(address).unwrap();
    host.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let opening = [&(FIXED | NO_ZEROES).to_be_bytes()[..], &OPTION.to_be_bytes()].concat();
    let name = [&EXPORT_NAME.to_be_bytes()[..], &4u32.to_be_bytes(), b"data"].concat();
    let write = [head(FUA, WRITE, 7, 3, 1 << 20), vec![5; 1 << 20]].concat();
    let read = head(0, READ, 8, 3, 1 << 20);
    host.write_all(&[opening, name, write].concat()).unwrap();
    let mut replies = vec![0; 18 + 10 + 16 + 16 + (1 << 20)];
    host.read_exact(&mut replies[..18 + 10 + 16]).unwrap();
    host.write_all(&read).unwrap();
    host.read_exact(&mut replies[18 + 10 + 16..]).unwrap();
    assert_eq!(replies[18..26], BYTES.to_be_bytes());
    assert_eq!(replies[32..44], [&[0; 4][..], &7u64.to_be_bytes()].concat());
    assert!(replies[60..].iter().all(|byte| *byte == 5));
    assert_eq!(server.connections(), 1);
    server.stop();
    assert_eq!(host.read(&mut [0]).unwrap_or(0), 0);
    assert!(TcpStream::connect(address).is_err());
}
