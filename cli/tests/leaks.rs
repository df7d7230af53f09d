//! Hosts, callers, strangers and the peer come to a service and go, in any way, and leave no thread, descriptor or
//! memory behind. `CONNECTS` says how many of each there are (100); the peer's connection is cut so often, too.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

#[allow(dead_code)]
#[path = "nbd/client.rs"]
mod client;
#[allow(dead_code)]
mod served;

use client::{Client, DISC, GO, OPTION, WRITE, head};
use served::parts::{Pair, number};
use served::proxy::Proxy;
use served::{PATIENCE, Served, run_with, until};

/// Threads and descriptors of a service.
fn held(service: &Served) -> [usize; 2] {
    let process = service.child.as_ref().unwrap().id();
    ["task", "fd"].map(|of| fs::read_dir(format!("/proc/{process}/{of}")).unwrap().count())
}

/// The files and sockets behind its descriptors.
fn descriptors(service: &Served) -> Vec<String> {
    let folder = format!("/proc/{}/fd", service.child.as_ref().unwrap().id());
    let links =
        fs::read_dir(folder).unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let mut all: Vec<String> = links.map(|link| link.display().to_string()).collect();
    all.sort();
    all
}

/// Memory of a service, without that of mapped files, in KiB.
fn resident(service: &Served) -> u64 {
    let process = service.child.as_ref().unwrap().id();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Does `come` again and again: what a service held before, it holds after, and no more.
fn leaves_nothing(what: &str, services: &[Served; 2], mut come: impl FnMut(u64)) {
    let times = number("CONNECTS", 100);
    // Each way once: what is made once and kept is there.
    (0..16).for_each(&mut come);
    // The same for a while.
    let seen = |service: &Served| {
        let (mut last, mut times) = (held(service), 0);
        while times < 10 {
            std::thread::sleep(Duration::from_millis(20));
            let now = held(service);
            times = if now == last { times + 1 } else { 0 };
            last = now;
        }
        last
    };
    let before = services.each_ref().map(seen);
    let were = services.each_ref().map(descriptors);
    let mut settled = [0; 2];
    for time in 0..times {
        come(time);
        if time == times / 4 {
            settled = services.each_ref().map(resident);
        }
    }
    let begun = Instant::now();
    loop {
        let now = services.each_ref().map(held);
        let is_gone =
            now.iter().flatten().zip(before.iter().flatten()).all(|(now, was)| now <= was);
        if is_gone {
            break;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{what}: threads and descriptors: {before:?}, now {now:?}: {:#?}",
            services
                .each_ref()
                .map(descriptors)
                .iter()
                .zip(&were)
                .map(|(now, were)| {
                    now.iter().filter(|it| !were.contains(it)).collect::<Vec<_>>()
                })
                .collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    for (service, settled) in services.iter().zip(settled) {
        let grown = resident(service).saturating_sub(settled);
        println!("{times} times {what}: {grown} KiB more");
        assert!(grown < 16 << 10, "{what}: {grown} KiB of memory have stayed");
    }
}

/// A host that comes and goes in one of several ways.
fn host(socket: &Path, way: u64) {
    match way % 8 {
        0 => drop(UnixStream::connect(socket).unwrap()),
        1 => drop(Client::connect(socket)),
        2 => Client::connect(socket).send(&OPTION.to_be_bytes()[..5]),
        3 => Client::connect(socket).option(GO, &[9; 3]),
        4 => drop(Client::simple(socket, "data")),
        5 => {
            let mut host = Client::structured(socket, "data", &["base:allocation"]);
            host.ask_write(0, 0, &[7; 100_000]);
        }
        6 => {
            // A write that ends in the middle.
            let mut host = Client::simple(socket, "data");
            host.send(&[&head(0, WRITE, 1, 0, 1 << 20)[..], &[1; 70_000]].concat());
        }
        _ => {
            let mut host = Client::simple(socket, "data");
            assert_eq!(host.write(0, 4096, &[3; 4096]), 0);
            host.ask(0, DISC, 0, 0);
            host.assert_over();
        }
    }
}

#[test]
fn hosts_that_come_and_go_leave_nothing_behind() {
    let pair = Pair::new(&["data=16MiB"], "16MiB");
    leaves_nothing("hosts came", &pair.devices, |time| {
        host(&pair.sockets[0], time);
        if time % 16 == 15 {
            until("hosts are gone", || pair.devices[0].status("/hosts") == 0);
        }
    });
}

#[test]
fn callers_that_come_and_go_leave_nothing_behind() {
    let pair = Pair::new(&["data=16MiB"], "16MiB");
    let words: [&[u8]; 6] = [
        b"",
        b"{\"order\": \"status\"}\n",
        b"{\"order\": \"sta",
        b"GET / HTTP/1.1\r\n\r\n",
        b"{\"order\": \"events\"}\n",
        b"{\"order\": \"wait\", \"point\": \"0.0.0\", \"timeout_ms\": null}\n",
    ];
    leaves_nothing("callers came", &pair.devices, |time| {
        for service in &pair.devices {
            let mut caller = service.call(["see.sock", "operate.sock"][time as usize % 2]);
            // One that finds no seat is hung up on.
            let _ = caller.write_all(words[time as usize % words.len()]);
        }
    });
}

#[test]
fn strangers_that_come_and_go_leave_nothing_behind() {
    let pair = Pair::new(&["data=16MiB"], "16MiB");
    let address = pair.devices[0].status("/link/address").as_str().unwrap().to_owned();
    leaves_nothing("strangers came", &pair.devices, |time| {
        let mut stranger = TcpStream::connect(&address).unwrap();
        let _ = match time % 4 {
            0 => Ok(()),
            1 => stranger.write_all(b"GET / HTTP/1.1\r\n\r\n"),
            // The beginning of a greeting.
            2 => stranger.write_all(&[22, 3, 1, 2, 0, 1, 0]),
            _ => stranger.write_all(&[0xff; 70_000]),
        };
        if time % 4 == 3 {
            let _ = stranger.read(&mut [0; 16]);
        }
    });
    assert_eq!(pair.devices[0].status("/connected"), true, "the peer is still there");
}

#[test]
fn a_peer_that_comes_and_goes_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut a, invitation) = Served::made(scratch.path());
    a.serve(&["--listen", "127.0.0.1:0"]);
    let address = a.status("/link/address").as_str().unwrap().parse().unwrap();
    let line = Proxy::new(address);
    let mut b = Served::at(scratch.path().join("b"));
    let (code, _, story) = run_with(&["join", b.path(), &line.address.to_string()], &invitation);
    assert_eq!(code, Some(0), "{story}");
    b.serve(&[]);
    let devices = [a, b];
    let are_connected = || devices.iter().all(|device| device.status("/connected") == true);
    until("they are connected", are_connected);
    leaves_nothing("the peer came", &devices, |time| {
        let session = devices[0].status("/link/peer_address");
        line.cut(None);
        if time % 3 == 0 {
            // In the middle of the next greeting, too.
            line.cut(Some(time * 37 % 4000));
        }
        until("they are connected again", || {
            devices[0].status("/link/peer_address") != session && are_connected()
        });
    });
}
