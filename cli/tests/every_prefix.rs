//! A power cut at every point: a replay in order with two takeovers, or one that suspends, copies, comes
//! back, and loses a site, by the threads and the code that ship, on disks that remember (`engine/tests/common/tape.rs`); then, for one point after the other, both
//! disks are made as a cut there would leave them, opened, brought together, compared, and judged.
//!
//! Of what was not synced nothing, all, some writes or some sectors are there. One cut in three
//! takes one device only; the other is killed. Half of them are followed by a power cut while the
//! devices recover: where the processes were only killed, that may take what they had not synced.
//!
//! Of a lost site, what the hosts had been promised stands in the volumes or in the salvage.
//!
//! `CUTS=2000` makes so many, evenly over the runs, `CUTS_SEED=n` makes another run and other cuts.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use afterimage::Device;
use afterimage::internal::clock::{Clock, SystemClock};
use afterimage::internal::storage::{FileName, Storage};
use afterimage::internal::superblock;
use afterimage_cli::args::{Cli, Command, ReplayArgs};
use afterimage_cli::recover::{self, bring_together};
use afterimage_cli::replay::judge::{Claim, History, Shown};
use afterimage_cli::replay::rehearse;
use afterimage_cli::replay::requests::{Event, Listener};
use afterimage_cli::trace::{self, Options, Trace};
use clap::Parser;

#[path = "../../engine/tests/common/random.rs"]
#[allow(dead_code)]
mod random;
#[path = "../../engine/tests/common/tape.rs"]
mod tape;
use random::Random;
use tape::{Contents, Disk, Survival, Tape};

/// Hears every event, and after how many operations of the disks.
struct Recorder {
    tape: Arc<Tape>,
    events: Mutex<Vec<(usize, Event)>>,
}

impl Listener for Recorder {
    fn note(&self, event: &Event) {
        let mut events = self.events.lock().unwrap();
        let done = self.tape.len();
        events.push((done, event.clone()));
    }
}

const VOLUME: u64 = 512 << 10;

/// Requests that overlap, cross blocks, and lie close together; every eighth is a flush.
fn made(random: &mut Random) -> String {
    let mut text = "fio version 3 iolog\n0 d add\n0 d open\n".to_string();
    for at in 0..900 {
        let sector = random.within(0..VOLUME / 512 - 64);
        let (offset, length) = (sector * 512, random.within(1..40) * 512);
        let us = at * 300;
        text += &match random.within(0..16) {
            0 | 1 => format!("{us} d sync\n"),
            2 | 3 => format!("{us} d read {offset} {length}\n"),
            4 => format!("{us} d trim {offset} {}\n", 4 * length),
            5..=9 => format!("{us} d write {} {}\n", sector % 64 * 4096, length),
            _ => format!("{us} d write {offset} {length}\n"),
        };
    }
    text + &format!("300000 d write {} 4096\n300001 d close\n", VOLUME - 4096)
}

fn settings(trace: &std::path::Path, way: &str, seed: u64) -> (ReplayArgs, Trace) {
    let words = format!(
        "afterimage replay --memory {way} --depth 8 --seed {seed} \
         --block-size 1KiB --journal-size 288KiB --link-delay 1ms {}",
        trace.display()
    );
    let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
    let Command::Replay(args) = cli.command else { panic!("that is a replay") };
    let trace = trace::read(&args.traces, &Options::default()).unwrap();
    (*args, trace)
}

/// Both devices after a cut, and what was true before it.
struct Cut<'a> {
    disks: [Contents; 2],
    /// The tape on which recovery goes on.
    tape: Arc<Tape>,
    history: &'a History,
    story: String,
}

impl Cut<'_> {
    fn is_made(&self) -> bool {
        self.disks.iter().all(|disk| disk.has(FileName::Superblock))
    }

    /// Recovers, brings together, compares and judges; `false` if the devices are still being made
    /// and cannot be opened.
    fn recover(&self, being_made: bool) -> bool {
        let (story, tape) = (&self.story, &self.tape);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let disks = [0, 1].map(|at| Disk::new(tape, at, self.disks[at].clone()));
        let opened = disks
            .each_ref()
            .map(|disk| Device::open(disk.clone(), clock.clone(), recover::settings()));
        if being_made && opened.iter().any(Result::is_err) {
            return false;
        }
        let devices = opened.map(|device| device.unwrap_or_else(|e| panic!("{story}: {e}")));
        for at in [0, 1] {
            // The records that it can show without the other.
            while devices[at].step_reflect().unwrap() > 0 {}
            if devices[at].status().differential.is_consistent {
                self.judge(&*disks[at], Claim::Closed);
            }
        }
        let [a, b] = &devices;
        let [first, second] = ["a", "b"].map(std::path::Path::new);
        let together = bring_together([(first, a), (second, b)], clock, &mut |_| {});
        together.unwrap_or_else(|e| panic!("{story}: {e}"));
        devices.iter().for_each(|device| device.close().unwrap());
        assert!(disks[0].contents().same_volumes(&disks[1].contents()), "{story}: they differ");
        self.judge(&*disks[0], Claim::Promised);
        self.judge_salvage(&disks);
        true
    }

    /// The content that the hosts had been promised is there, or it is salvage.
    fn judge_salvage(&self, disks: &[Arc<Disk>; 2]) {
        let mut shown = Shown::read(&*disks[0], self.history).unwrap();
        disks.iter().for_each(|disk| shown.add_salvage(&**disk, self.history).unwrap());
        let findings = self.history.unforced().judge(&shown, Claim::Promised);
        let story = &self.story;
        assert_eq!(findings.count(), 0, "{story}, with salvage: {:#?}", findings.first());
    }

    fn judge(&self, disk: &dyn Storage, claim: Claim) {
        let shown = Shown::read(disk, self.history).unwrap();
        let findings = self.history.judge(&shown, claim);
        let story = &self.story;
        assert_eq!(findings.count(), 0, "{story}, {claim:?}: {:#?}", findings.first());
    }
}

/// In which tenure a write completed.
fn tenure(event: &Event) -> Option<u64> {
    match event {
        Event::Completed { stamp, .. } => stamp.map(|stamp| stamp.epoch),
        _ => None,
    }
}

/// A forced takeover is durable before its event.
fn forced_unheard<'a>(history: &'a History, disks: &[Contents; 2]) -> Cow<'a, History> {
    let found = disks.each_ref().map(|disk| {
        let disk = Disk::new(&Arc::default(), 0, disk.clone());
        superblock::load(&*disk).ok()
    });
    let [Some(a), Some(b)] = found else { return Cow::Borrowed(history) };
    if a.lineage == b.lineage || history.is_forced() {
        return Cow::Borrowed(history);
    }
    let (to, epoch) = if a.lineage > b.lineage { (0, a.epoch) } else { (1, b.epoch) };
    let mut history = history.clone();
    history.note(&Event::Forced { to, epoch });
    Cow::Owned(history)
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|word| word.parse().ok()).unwrap_or(otherwise)
}

/// Replays by bits, and out of the order and back; sites are lost in every mode, and hosts go back to them.
const OUT_OF_ORDER: [&str; 6] = [
    "--link-rate 30MiB/s --journal-full suspend --outage 8%..30%,50%..65% --takeover-at 35%,70%",
    "--link-rate 30MiB/s --mode differential --takeover-at 35%,70%",
    "--link-rate 30MiB/s --lose-site 40%..60% --takeover-at 20%,80%",
    "--link-rate 30MiB/s --journal-full suspend --outage 5%..34% --lose-site 34%..50% --lose-in sending \
     --takeover-at 75%",
    "--link-rate 30MiB/s --journal-full suspend --outage 5%..33% --lose-site 34%..50% --lose-in collecting \
     --takeover-at 34%,70%",
    "--link-rate 1MiB/s --journal-full suspend --outage 5%..34% --lose-site 34%..50% --lose-in copying \
     --takeover-at 80%",
];

#[test]
fn what_was_promised_survives_a_power_cut_at_every_point() {
    cut_at_every_point("--takeover-at 35%,70% --link-rate 30MiB/s", number("CUTS", 200) as usize);
}

#[test]
fn what_was_promised_survives_a_power_cut_out_of_order() {
    for way in OUT_OF_ORDER {
        cut_at_every_point(way, number("CUTS", 180) as usize / OUT_OF_ORDER.len());
    }
}

fn cut_at_every_point(way: &str, cuts: usize) {
    let seed = number("CUTS_SEED", 1);
    let mut random = Random::new(seed);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made.iolog");
    std::fs::write(&path, made(&mut random)).unwrap();
    let (args, trace) = settings(&path, way, seed);

    let tape = Arc::new(Tape::default());
    let disks = [0, 1].map(|at| Disk::new(&tape, at, Contents::default()));
    let recorder = Arc::new(Recorder { tape: tape.clone(), events: Mutex::default() });
    let storages = disks.each_ref().map(|disk| disk.clone() as Arc<dyn Storage>);
    let findings = rehearse(&args, &trace, storages, recorder.clone()).unwrap();
    assert_eq!(findings.count(), 0, "{:?}", findings.first());
    let (events, operations) = (recorder.events.lock().unwrap(), tape.len());
    let tenures: BTreeSet<u64> = events.iter().filter_map(|(_, event)| tenure(event)).collect();
    assert!(tenures.len() >= 3, "two takeovers");
    // While the directories are made, and then evenly over what the hosts did.
    let is_asked = |event: &Event| !matches!(event, Event::Begun { .. });
    let begun = events.iter().find(|(_, event)| is_asked(event)).expect("a host").0;
    let making = (1..begun).step_by(begun / 8 + 1);
    let points: Vec<usize> =
        making.chain((1..=cuts).map(|k| begun + (operations - begun) * k / cuts)).collect();

    let mut history = History::default();
    let mut told = events.iter().peekable();
    let (mut judged, mut unsynced, mut promised, mut twice) = (0, 0, 0, 0);
    tape.cut(Default::default(), |cutter| {
        for (k, &at) in points.iter().enumerate() {
            cutter.advance_to(at);
            while let Some((_, event)) = told.next_if(|(done, _)| *done <= at) {
                history.note(event);
            }
            let survivals =
                [Survival::Nothing, Survival::Everything, Survival::Writes, Survival::Sectors];
            let survival = survivals[k % 4];
            let alone = [None, None, None, None, Some(0), Some(1)][k / 4 % 6];
            let disks = [0, 1].map(|disk| {
                let cut = alone.is_none_or(|alone| alone == disk);
                unsynced += if cut { cutter.pending(disk) } else { 0 };
                // The other one has lost its process, but no power.
                cutter.cut(disk, if cut { survival } else { Survival::Everything }, &mut random)
            });
            let of = alone.map_or("both", |disk| ["a", "b"][disk]);
            let story = format!(
                "CUTS_SEED={seed}, {way}: {of} cut after {at} of {operations}, {survival:?} of the rest"
            );
            // A killed process leaves what it had not synced to the system, which may yet lose it.
            let (durable, tape) = match survival {
                Survival::Everything => cutter.kill(),
                _ => (disks.clone(), Arc::default()),
            };
            let history = &forced_unheard(&history, &disks);
            let cut = Cut { disks, tape, history, story };
            if !cut.is_made() {
                assert!(at < begun, "{}", cut.story);
                continue;
            }
            let before = cut.tape.len();
            if !cut.recover(at < begun) {
                continue;
            }
            (judged, promised) = (judged + 1, promised + history.promised());
            if k % 2 == 1 {
                let after = random.within(before as u64..cut.tape.len() as u64 + 1) as usize;
                let disks = cut.tape.cut(durable, |again| {
                    again.advance_to(after);
                    [0, 1].map(|disk| again.cut(disk, survivals[k / 4 % 4], &mut random))
                });
                let story = format!("{}, and again {} later", cut.story, after - before);
                Cut { disks, tape: Arc::default(), history, story }.recover(false);
                twice += 1;
            }
        }
    });
    eprintln!(
        "{way}: {operations} operations, {} events; {judged} cuts judged, {twice} of them twice; \
         {unsynced} changes were not synced, {promised} promises were kept",
        events.len()
    );
    assert!(judged >= cuts && unsynced > 0 && promised > 0, "{judged} of {cuts} were judged");
}
