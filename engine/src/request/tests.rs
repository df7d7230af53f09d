//! Buffers that the engine keeps, and places that it does not.

use super::*;
use crate::clock::SystemClock;
use crate::format::superblock::VolumeSpec;
use crate::limits::{Geometry, Settings};
use crate::storage::{Memory, Storage};
use std::pin::Pin;
use std::task::{Context, Waker};

const BLOCK: usize = 4096;

fn session(settings: Settings) -> Session {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let mut geometry = Geometry::new(7, 1, vec![VolumeSpec { id: 0, bytes: 1 << 20 }]);
    geometry.journal_bytes = 16 << 20;
    Device::create(&*storage, &geometry, true).unwrap();
    let device = Device::open(storage, Arc::new(SystemClock::default()), settings).unwrap();
    device.resume_alone().unwrap();
    device.session().unwrap()
}

fn filled(session: &Session, length: usize, value: u8) -> Vec<u8> {
    let mut buffer = session.buffer(length);
    buffer.resize(length, value);
    buffer
}

fn read(session: &Session, offset: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    session.read(0, offset, &mut data).unwrap();
    data
}

#[test]
fn the_buffer_that_a_caller_fills_is_the_one_that_is_kept() {
    let session = session(Settings::default());
    let own = &session.device.own;
    let first = own.journal.queue.tail();
    let mut buffer = filled(&session, 2 * BLOCK, 7);
    let address = buffer.as_ptr();
    let request = Request::write_buffer(0, BLOCK as u64, &mut buffer);
    session.submit(request).unwrap().wait().unwrap();
    assert!(buffer.is_empty());
    assert_eq!(own.address(first), Some(address), "it was copied");
    assert_eq!(read(&session, BLOCK as u64, 2 * BLOCK), [7; 2 * BLOCK]);
    // Once the log has it, it is the next one's.
    session.device.step_commit().unwrap();
    assert_eq!(own.address(first), None);
    let again = session.buffer(2 * BLOCK);
    assert_eq!(again.as_ptr(), address);
    // Its last block is given in part: there is room for the rest.
    let mut buffer = filled(&session, BLOCK + 512, 8);
    let address = buffer.as_ptr();
    session.submit(Request::write_buffer(0, 0, &mut buffer)).unwrap().wait().unwrap();
    assert_eq!(own.address(first + 2), Some(address), "it was copied");
    let expected = [vec![8; BLOCK + 512], vec![7; 2 * BLOCK - 512]].concat();
    assert_eq!(read(&session, 0, 3 * BLOCK), expected);
}

/// A write that begins within a block is copied behind what the block has before; a request that is
/// refused leaves the buffer to its owner.
#[test]
fn a_buffer_is_taken_from_any_sector_and_by_no_error() {
    let session = session(Settings::default());
    session.write(0, 0, &[1; 3 * BLOCK]).unwrap();
    let mut buffer = filled(&session, BLOCK, 9);
    session.submit(Request::write_buffer(0, 512, &mut buffer)).unwrap().wait().unwrap();
    assert!(buffer.is_empty());
    let expected = [vec![1; 512], vec![9; BLOCK], vec![1; 2 * BLOCK - 512]].concat();
    assert_eq!(read(&session, 0, 3 * BLOCK), expected);
    let mut buffer = filled(&session, BLOCK, 9);
    let refused = session.submit(Request::write_buffer(0, 1 << 20, &mut buffer)).unwrap_err();
    assert_eq!((refused.kind(), &buffer[..]), (Kind::Invalid, &[9; BLOCK][..]));
    let over = session.device.session().unwrap();
    over.revoke();
    let refused =
        over.submit(Request::write_buffer(0, 0, &mut buffer)).unwrap().wait().unwrap_err();
    assert_eq!((refused.kind(), &buffer[..]), (Kind::Superseded, &[9; BLOCK][..]));
    // Of another's making, and of any length that may be asked for.
    let mut buffer = vec![3; 512];
    session.submit(Request::write_buffer(0, 0, &mut buffer)).unwrap().wait().unwrap();
    assert_eq!(read(&session, 0, 1024), [[3; 512], [9; 512]].concat());
    let most = session.device.limits().request_bytes_max as usize;
    assert!((most..=2 * most).contains(&session.buffer(usize::MAX).capacity()));
    assert_eq!(session.buffer(0).len(), 0);
}

/// A ticket was woken for places, and its outcome is taken by [`Ticket::poll`]: they are for the next in
/// line, though the ticket is kept.
#[test]
fn a_ticket_that_is_kept_keeps_no_places() {
    let session = session(Settings::default());
    let data = [1; BLOCK];
    let slices = [IoSlice::new(&data)];
    let mut waits = loop {
        let mut ticket = session.submit(Request::write(0, 0, &slices)).unwrap();
        let polled = Pin::new(&mut ticket).poll(&mut Context::from_waker(Waker::noop()));
        if polled.is_pending() && session.device.step_commit().is_ok() && ticket.poll().is_none() {
            break ticket;
        }
    };
    let waiters = &session.device.wakes.waiters;
    waiters.wake_places(1);
    assert_eq!(waiters.in_line(), 1);
    session.revoke();
    assert_eq!(waits.poll().unwrap().unwrap_err().kind(), Kind::Superseded);
    assert_eq!(waiters.in_line(), 0, "it has a claim for ever");
}

/// R15, R17: a request begins and ends at any byte, held against a plain array.
#[test]
fn requests_begin_and_end_at_any_byte() {
    let session = session(Settings::default());
    let mut plain = vec![0u8; 40_000];
    let mut state = 9u64;
    let mut draw = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % bound
    };
    for round in 0..600 {
        let from = draw(plain.len());
        let length = draw((plain.len() - from).min(10_000));
        let (offset, range) = (from as u64, from..from + length);
        match draw(4) {
            0 => {
                session.write_zeroes(0, offset, length as u64).unwrap();
                plain[range].fill(0);
            }
            1 => {
                session.discard(0, offset, length as u64).unwrap();
                // Blocks given in part stay as they are.
                let whole = from.next_multiple_of(BLOCK)..(from + length) / BLOCK * BLOCK;
                if !whole.is_empty() {
                    plain[whole].fill(0);
                }
            }
            _ => {
                let data = vec![round as u8; length];
                session.write(0, offset, &data).unwrap();
                plain[range].copy_from_slice(&data);
            }
        }
        if round % 50 == 0 {
            session.device.step_commit().unwrap();
            session.device.step_reflect().unwrap();
            session.device.checkpoint_now().unwrap();
        }
        let from = draw(plain.len());
        let length = draw(plain.len() - from);
        assert_eq!(read(&session, from as u64, length), plain[from..from + length], "{round}");
    }
}
