//! S36: one request reads many blocks that the peer owes, over a control lane that goes down when
//! it is given more than it holds.

mod common;

use afterimage::internal::error::{Error, Kind, Result};
use afterimage::internal::event::Event;
use afterimage::internal::format::frame::Frame;
use afterimage::internal::limits::Settings;
use afterimage::internal::link::{Lane, Link, MemoryLink};
use afterimage::internal::request::{Request, Session};
use common::{A, Action, B, Pair, Spec, Step::*};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const BLOCK: usize = 4096;
const OWED: u64 = 1024;

/// An end whose control lane holds so many bytes that the other end has not taken; more bring the
/// line down, as [`Link::send`] says.
struct Bounded {
    end: MemoryLink,
    most: u64,
    /// Bytes in the control lane, of this direction and of the other.
    held: [Arc<AtomicU64>; 2],
    overflows: Arc<AtomicUsize>,
    /// Sent by this end in the control lane: the blocks of each question, the bytes of each answer.
    questions: Mutex<Vec<u32>>,
    answers: Mutex<Vec<usize>>,
}

impl Link for Bounded {
    fn send(&self, lane: Lane, frame: Vec<u8>) -> Result<()> {
        if lane == Lane::Control {
            match Frame::decode(&frame).unwrap().1 {
                Frame::ReadRequest { count, .. } => self.questions.lock().unwrap().push(count),
                Frame::ReadReply { .. } => self.answers.lock().unwrap().push(frame.len()),
                _ => {}
            }
            let length = frame.len() as u64;
            if self.held[0].fetch_add(length, SeqCst) + length > self.most {
                self.overflows.fetch_add(1, SeqCst);
                self.end.cut();
                return Err(Error::new(Kind::NoPeer, "the control lane is full"));
            }
        }
        self.end.send(lane, frame)
    }

    fn receive(&self, lane: Lane) -> Result<Option<Vec<u8>>> {
        let frame = self.end.receive(lane)?;
        if lane == Lane::Control {
            self.held[1].fetch_sub(frame.as_ref().map_or(0, Vec::len) as u64, SeqCst);
        }
        Ok(frame)
    }

    fn queued(&self, lane: Lane) -> u64 {
        match lane {
            Lane::Control => self.held[0].load(SeqCst),
            Lane::Data => self.end.queued(lane),
        }
    }

    fn wait(&self, lane: Lane, timeout_ns: u64) -> bool {
        self.end.wait(lane, timeout_ns)
    }

    fn close(&self) {
        self.end.close();
    }
}

/// A pair with B serving, [`OWED`] blocks owed, and lanes that hold three times what the engine may
/// have waiting.
struct Wide {
    pair: Pair,
    ends: [Arc<Bounded>; 2],
    host: Session,
    lost: Arc<AtomicUsize>,
}

/// The content of a block: its sectors each name it.
fn content(block: u64) -> Vec<u8> {
    (block * 8..).take(8).flat_map(|v| (v + 1).to_le_bytes().repeat(64)).collect()
}

impl Wide {
    fn new() -> Wide {
        let settings = Settings { control_queue_bytes_max: 1 << 14, ..Settings::default() };
        let volumes = vec![OWED * 8];
        let mut pair =
            Pair::with(Spec { volumes, journals: [36.0; 2], settings, ..Spec::default() });
        let lost = Arc::new(AtomicUsize::new(0));
        for device in &pair.devices {
            let lost = lost.clone();
            device.on_event(move |event| {
                if let Event::Disconnected { why, .. } = event {
                    lost.fetch_add(usize::from(!why.to_string().contains("new one")), SeqCst);
                }
            });
        }
        pair.hold_ships(true);
        let host = pair.session(A).unwrap();
        for block in 0..OWED {
            host.write(0, block * BLOCK as u64, &content(block)).unwrap();
        }
        pair.step(A, Commit);
        let (there, back) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let held = [[there.clone(), back.clone()], [back, there]];
        let overflows = Arc::new(AtomicUsize::new(0));
        // The prototype is not what is looked at here: it goes before the lanes are bounded.
        pair.takeover(B).unwrap();
        pair.lay_line();
        let ends = [A, B].map(|at| {
            Arc::new(Bounded {
                end: pair.ends[at].clone(),
                most: 3 << 14,
                held: held[at].clone(),
                overflows: overflows.clone(),
                questions: Mutex::default(),
                answers: Mutex::default(),
            })
        });
        [A, B].into_iter().for_each(|at| pair.devices[at].connect(ends[at].clone()).unwrap());
        (0..4).for_each(|_| [A, B].into_iter().for_each(|at| pair.steps(at, &[Control])));
        let host = pair.session(B).unwrap();
        assert_eq!(pair.devices[B].status().owed_blocks, OWED);
        Wide { pair, ends, host, lost }
    }

    fn all(&self) -> Request<'static> {
        Request::read(0, 0, vec![0xff; OWED as usize * BLOCK])
    }

    fn line_stayed_up(&self) {
        assert_eq!(self.ends[A].overflows.load(SeqCst), 0, "a lane was given more than it holds");
        assert_eq!(self.lost.load(SeqCst), 0, "the line went down");
    }

    fn read_all(&mut self) {
        let mut ticket = self.host.submit(self.all()).unwrap();
        let done = (0..10_000).find_map(|_| {
            [B, A].into_iter().for_each(|at| self.pair.steps(at, &[Control]));
            ticket.poll()
        });
        let done = done.expect("the read ends").unwrap();
        assert_eq!(u64::from(done.remote_blocks), OWED);
        let expected: Vec<u8> = (0..OWED).flat_map(content).collect();
        assert!(done.buffer.unwrap() == expected, "every byte is right");
    }
}

#[test]
fn s36_wide_read() {
    let mut wide = Wide::new();
    wide.read_all();
    wide.line_stayed_up();
    let questions = wide.ends[B].questions.lock().unwrap().clone();
    assert_eq!(u64::from(questions.iter().sum::<u32>()), OWED, "each block was asked for once");
    assert_eq!(questions[0], 256, "a question is for as many blocks as may be unanswered: 1 MiB");
    assert!(questions.len() <= OWED as usize / 4, "{questions:?}");
    let answers = wide.ends[A].answers.lock().unwrap().clone();
    assert_eq!(answers.len(), OWED as usize / 4, "with as many blocks each as fit");
    assert!(answers.iter().all(|&bytes| bytes < 2 << 14), "{answers:?}");
}

/// The unanswered questions stay bounded when their readers go, and count no more once they are
/// answered: nobody after them waits for nothing.
#[test]
fn withdrawn_reads_take_no_room() {
    let mut wide = Wide::new();
    for polls in [0, 1, 5] {
        for _ in 0..3 {
            let mut ticket = wide.host.submit(wide.all()).unwrap();
            for _ in 0..polls {
                assert!(ticket.poll().is_none());
                wide.pair.step(A, Control);
            }
        }
        let asked: u32 = wide.ends[B].questions.lock().unwrap().iter().sum();
        assert!(asked <= 256 * (1 + polls), "{asked}");
        wide.read_all();
        wide.line_stayed_up();
        wide.ends[B].questions.lock().unwrap().clear();
    }
}

/// A new line, with questions open and answers on their way: all is asked again, and what the peer
/// kept of the old line counts no more.
#[test]
fn a_wide_read_survives_a_new_line() {
    let mut wide = Wide::new();
    let mut ticket = wide.host.submit(wide.all()).unwrap();
    for at in [B, A, B, A, A, B] {
        wide.pair.step(at, Control);
    }
    assert!(ticket.poll().is_none());
    wide.ends[A].end.cut();
    for at in [A, A, B, B] {
        wide.pair.step(at, Control);
    }
    wide.ends[A].held.iter().for_each(|held| held.store(0, SeqCst));
    wide.ends[A].end.restore();
    [A, B].into_iter().for_each(|at| wide.pair.devices[at].connect(wide.ends[at].clone()).unwrap());
    let done = (0..10_000).find_map(|_| {
        [B, A].into_iter().for_each(|at| wide.pair.steps(at, &[Control]));
        ticket.poll()
    });
    let expected: Vec<u8> = (0..OWED).flat_map(content).collect();
    assert!(done.expect("the read ends").unwrap().buffer.unwrap() == expected);
    assert_eq!(wide.ends[A].overflows.load(SeqCst), 0);
    wide.read_all();
}

/// The host moves away and comes back while a wide read has as many questions open as there may be:
/// the peer answers them no more, and what is wanted of it in the new tenure does not wait for them.
#[test]
fn questions_of_an_earlier_tenure_hold_up_none() {
    let (block_size, blocks) = (65_536, 32);
    let sectors = blocks * u64::from(block_size) / 512;
    let (volumes, journals) = (vec![sectors], [4.0; 2]);
    let mut pair = Pair::with(Spec { block_size, volumes, journals, ..Spec::default() });
    pair.hold_ships(true);
    for block in 0..blocks {
        pair.write(A, block, block + 1);
    }
    pair.takeover(B).unwrap();
    // They reach A when it serves again.
    pair.gates[B].keep(|frame| matches!(frame, Frame::ReadRequest { .. }));
    let wide = pair.submit_as(B, 0, Action::Read(0..sectors), None, false, true);
    assert_eq!(pair.gates[B].held(), 1, "16 blocks are asked for, and 16 wait");
    pair.takeover(A).unwrap();
    pair.gates[B].release();
    pair.takeover(B).unwrap();
    // The wide read's ticket is there still, and nobody has looked at it.
    assert_eq!(pair.read(B, 20), (21, true));
    assert!(pair.poll(wide));
    assert_eq!(pair.outcome(wide).unwrap().unwrap_err().kind(), Kind::Fenced);
    pair.drain();
}
