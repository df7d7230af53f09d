//! How service begins, moves and ends: what a host sees is an answer or a hang-up, and never an error that
//! it takes for final.

use crate::client::*;
use crate::rig::*;
use afterimage::{Device, Durability, Geometry, Memory, SystemClock, Threads};
use afterimage_cli::nbd::{News, Settings};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// R20: the first write of a later connection ends the earlier one, a read does not.
#[test]
fn a_host_that_comes_back_ends_its_older_connection() {
    let rig = Rig::new();
    let mut old = Client::simple(&rig.path(), "data");
    assert_eq!(old.write(0, 0, b"old"), 0);
    let mut new = Client::simple(&rig.path(), "data");
    assert_eq!(new.read(0, 0, 3), Ok(b"old".to_vec()));
    assert_eq!(old.write(0, 0, b"odd"), 0);
    assert_eq!(new.write(0, 0, b"new"), 0);
    old.assert_over();
    assert_eq!(new.read(0, 0, 3), Ok(b"new".to_vec()));
    // Another volume has another host.
    let mut other = Client::simple(&rig.path(), "wal");
    assert_eq!(other.write(0, 0, b"x"), 0);
    assert_eq!(new.write(0, 0, b"new"), 0);
}

/// An older connection that has not written yet is ended by its own write.
#[test]
fn an_older_connection_cannot_write_once_a_newer_one_has() {
    let rig = Rig::new();
    let mut old = Client::simple(&rig.path(), "data");
    let mut new = Client::simple(&rig.path(), "data");
    assert_eq!(new.write(0, 0, b"new"), 0);
    old.ask_write(0, 0, b"old");
    old.assert_over();
    assert_eq!(new.read(0, 0, 3), Ok(b"new".to_vec()));
}

/// A device that is about to serve takes hosts in, and answers when it does.
#[test]
fn an_opening_is_held_until_the_device_serves() {
    let device = new_device(1, engine_settings());
    let threads = Threads::start(&device).unwrap();
    let rig = Rig::serving(device, Some(threads), Settings::default());
    let mut host = Client::connect(&rig.path());
    host.option(GO, &wish("data", &[]));
    host.assert_silent();
    // One that leaves meanwhile is forgotten.
    let mut gone = Client::connect(&rig.path());
    gone.option(GO, &wish("data", &[]));
    drop(gone);
    wait_for("it is gone", || rig.server().connections() == 1);
    // Others may look.
    let mut looks = Client::connect(&rig.path());
    assert_eq!(looks.replies(INFO, &wish("data", &[])).last().unwrap().0, ACK);
    rig.device.resume_alone().unwrap();
    while host.reply(GO).0 != ACK {}
    assert_eq!(host.write(0, 0, b"x"), 0);
    let is_opened = |news: &News| matches!(news, News::Opened { export, .. } if export == "data");
    assert!(rig.news.lock().unwrap().iter().any(is_opened));
}

#[test]
fn an_opening_is_refused_with_words_after_a_while() {
    let device = new_device(1, engine_settings());
    // The device's time to serve is not the client's time to negotiate.
    let (negotiation, patience) = (Duration::from_millis(1000), Duration::from_millis(1200));
    let settings = Settings { negotiation, patience, ..Settings::default() };
    let rig = Rig::serving(device, None, settings);
    let mut host = Client::connect(&rig.path());
    let refused = host.replies(GO, &wish("data", &[]));
    assert_eq!(refused[0].0, SHUTDOWN);
    assert!(refused[0].1.len() > 20, "{refused:?}");
    // It may ask again.
    rig.device.resume_alone().unwrap();
    assert_eq!(host.go("data").0, BYTES);
    let mut other = Client::connect(&rig.path());
    rig.device.close().unwrap();
    other.option(EXPORT_NAME, b"data");
    other.assert_over();
}

/// R20: completed writes that a crash may have taken are answered for by a person first.
#[test]
fn a_device_that_lost_writes_refuses_hosts_until_somebody_answers() {
    let storage = Arc::new(Memory::new());
    Device::create(&*storage, &geometry(1), true).unwrap();
    let engine =
        || afterimage::Settings { durability: Durability::VolatileCache, ..Default::default() };
    let clock = Arc::new(SystemClock::default());
    let device = Device::open(storage.clone(), clock.clone(), engine()).unwrap();
    device.resume_alone().unwrap();
    device.session().unwrap().write(0, 0, b"x").unwrap();
    drop(device);
    let device = Device::open(storage, clock, engine()).unwrap();
    device.resume_alone().unwrap();
    assert!(device.status().lost_writes.is_some());
    let settings = Settings { patience: Duration::from_millis(200), ..Settings::default() };
    let rig = Rig::serving(device, None, settings);
    let mut host = Client::connect(&rig.path());
    let refused = host.replies(GO, &wish("data", &[]));
    assert_eq!(refused[0].0, SHUTDOWN);
    host.option(GO, &wish("data", &[]));
    rig.device.accept_loss().unwrap();
    while host.reply(GO).0 != ACK {}
    assert_eq!(host.write(0, 0, b"x"), 0);
}

/// The peer takes over: hosts here get no error, and are hung up on when the service says so.
#[test]
fn a_takeover_leaves_hosts_unanswered_and_hangs_up_later() {
    let [(a, threads), (b, _others)] = pair();
    let rig = Rig::serving(a, Some(threads), Settings::default());
    let mut host = Client::simple(&rig.path(), "data");
    let mut idle = Client::simple(&rig.path(), "data");
    assert_eq!(host.write(0, 0, b"before"), 0);
    b.takeover().unwrap();
    host.ask_write(0, 0, b"behind");
    host.ask(0, READ, 0, 6);
    host.ask(0, FLUSH, 0, 0);
    host.assert_silent();
    idle.assert_silent();
    // One that opens here now is held: the device may be asked for the host again.
    let mut late = Client::connect(&rig.path());
    late.option(GO, &wish("data", &[]));
    rig.server().hang_up_all();
    host.assert_over();
    idle.assert_over();
    late.assert_silent();
    let mut data = [0; 6];
    b.session().unwrap().read(0, 0, &mut data).unwrap();
    assert_eq!(&data, b"before");
    rig.device.takeover().unwrap();
    while late.reply(GO).0 != ACK {}
    assert_eq!(late.read(0, 0, 6), Ok(b"before".to_vec()));
}

/// Nobody says so: the silence ends by itself.
#[test]
fn silence_has_an_end() {
    let [(a, threads), (b, _others)] = pair();
    let silence = Duration::from_millis(150);
    let rig = Rig::serving(a, Some(threads), Settings { silence, ..Settings::default() });
    let mut host = Client::simple(&rig.path(), "data");
    assert_eq!(host.write(0, 0, b"before"), 0);
    let begun = Instant::now();
    b.takeover().unwrap();
    host.assert_over();
    assert!(begun.elapsed() >= silence, "{:?}", begun.elapsed());
}

/// Writes that wait in a journal without room, of a host that dies: none of them is admitted later (R20).
#[test]
fn writes_of_a_dead_host_are_never_admitted() {
    let engine = afterimage::Settings {
        suspend_from_percent: 0,
        waiting_bytes_max: 1 << 20,
        ..engine_settings()
    };
    // Without threads nothing is written back, and the journal stays full.
    let storage = Arc::new(Memory::new());
    let small = Geometry { journal_bytes: 16 << 20, ..geometry(1) };
    Device::create(&*storage, &small, true).unwrap();
    let device = Device::open(storage, Arc::new(SystemClock::default()), engine).unwrap();
    device.resume_alone().unwrap();
    let rig = Rig::serving(device, None, Settings::default());
    let mut host = Client::simple(&rig.path(), "large");
    host.stream.set_nonblocking(true).unwrap();
    let mut next = 0u64;
    let mut left: Vec<u8> = Vec::new();
    let full =
        || rig.device.status().own_free_places == 0 || rig.device.status().own_fill_percent >= 95;
    wait_for("the journal is full, and the host waits", || {
        use std::io::{Read, Write};
        // The replies are of no interest here.
        while host.stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
        loop {
            if left.is_empty() {
                left = [head(0, WRITE, next, next << 16, 1 << 16), vec![1; 1 << 16]].concat();
                next += 1;
            }
            match host.stream.write(&left) {
                Ok(sent) => drop(left.drain(..sent)),
                Err(_) => break,
            }
        }
        full()
    });
    let records = rig.device.status().newest_own;
    drop(host);
    rig.wait_for_nobody();
    // Room comes, and nobody takes it.
    rig.device.step_commit().unwrap();
    while rig.device.step_reflect().unwrap() > 0 {}
    rig.device.checkpoint_now().unwrap();
    rig.device.step_calls();
    let admitted = rig.device.status().newest_own;
    assert!(admitted >= records);
    rig.device.step_calls();
    rig.device.step_commit().unwrap();
    assert_eq!(rig.device.status().newest_own, admitted);
    let mut new = Client::simple(&rig.path(), "large");
    assert_eq!(new.read(0, (next - 1) << 16, 4), Ok(vec![0; 4]));
}

/// A server that stops hangs up on hosts, those that do not listen as well, and waits for its threads.
#[test]
fn a_server_stops_whatever_its_hosts_do() {
    let mut rig = Rig::new();
    let mut idle = Client::simple(&rig.path(), "data");
    let mut half = Client::simple(&rig.path(), "data");
    half.send(&head(0, WRITE, 1, 0, 1 << 20)[..20]);
    let mut deaf = Client::simple(&rig.path(), "data");
    for _ in 0..64 {
        deaf.ask(0, READ, 0, 1 << 20);
    }
    let mut negotiating = Client::connect(&rig.path());
    let begun = Instant::now();
    rig.server.take().unwrap().stop();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    idle.assert_over();
    half.assert_over();
    negotiating.assert_over();
    // The replies that had been begun are whole, up to where they were cut.
    std::io::copy(&mut deaf.stream, &mut std::io::sink()).ok();
    assert!(std::os::unix::net::UnixStream::connect(rig.path()).is_err());
}

/// A device that stops is not answered for: its hosts come back to the next one.
#[test]
fn a_device_that_is_closed_hangs_up() {
    let rig = Rig::new();
    let mut host = Client::simple(&rig.path(), "data");
    assert_eq!(host.write(0, 0, b"x"), 0);
    rig.device.close().unwrap();
    host.ask_write(0, 0, b"y");
    host.assert_over();
}
