//! A small device directory, sound until it is damaged as the bytes say, and opened.

use super::Input;
use crate::Device;
use crate::clock::Clock;
use crate::format::PAGE;
use crate::format::batch::Header;
use crate::format::superblock::{COPY_BYTES, COPY_OFFSETS, Superblock, VOLUMES_OFFSET, VolumeSpec};
use crate::limits::{Durability, Geometry, Settings};
use crate::link::{Lane, Line, memory_link};
use crate::storage::{FileName, Fill, Memory, Storage};
use crate::superblock::read_copies;
use crate::unit::Mode;
use std::io::IoSlice;
use std::sync::{Arc, OnceLock};

const BLOCK: usize = 512;
const BLOCKS: u64 = 24;

/// A clock that stands still, so that the templates are the same every time.
struct Still;

impl Clock for Still {
    fn wall(&self) -> u64 {
        1000
    }

    fn monotonic(&self) -> u64 {
        1000
    }
}

/// A file of the template: its name and its bytes.
type File = (FileName, Vec<u8>);

/// Sound directories: of a device that has taken over and is catching up, with own and received
/// records that are in no volume yet, and of one that served from the beginning; of each one that
/// was closed cleanly and one that was not.
fn templates() -> &'static [Vec<File>; 4] {
    static MADE: OnceLock<[Vec<File>; 4]> = OnceLock::new();
    MADE.get_or_init(|| [make(1, true), make(1, false), make(0, true), make(0, false)])
}

/// The directory of the device `which`; its host is there at the end.
fn make(which: usize, clean: bool) -> Vec<File> {
    let clock: Arc<dyn Clock> = Arc::new(Still);
    let storages = [Arc::new(Memory::new()), Arc::new(Memory::new())];
    let open = |at: usize| {
        let volumes = vec![VolumeSpec { id: 0, bytes: BLOCKS * BLOCK as u64 }];
        let mut geometry = Geometry::new(7, at as u64 + 1, volumes);
        geometry.block_size = BLOCK as u32;
        geometry.segment_bytes = 65_536;
        geometry.journal_bytes = (4 * geometry.batch_bytes_max()).next_multiple_of(4096);
        Device::create(&*storages[at], &geometry, at == 0).expect("created");
        Device::open(storages[at].clone(), clock.clone(), Settings::default()).expect("opened")
    };
    let devices = [open(0), open(1)];
    let (a, b) = memory_link(Line::default(), clock.clone());
    let run_steps = || {
        for device in devices.iter().chain(&devices).chain(&devices) {
            while device.step_control().expect("control") {}
            device.step_commit().expect("committed");
            device.step_ship().expect("shipped");
            device.step_receive().expect("received");
        }
    };
    let (a_end, b_end) = (a.clone(), b.clone());
    devices[0].connect(Arc::new(a)).expect("connected");
    devices[1].connect(Arc::new(b)).expect("connected");
    run_steps();
    let write = |at: usize, blocks: std::ops::Range<u64>, value: u8| {
        let host = devices[at].session().expect("serves");
        for block in blocks {
            let data = vec![value; BLOCK];
            let slices = [IoSlice::new(&data)];
            let request = crate::request::Request::write(0, block * BLOCK as u64, &slices);
            drop(host.submit(request).expect("submitted"));
        }
    };
    write(0, 0..8, 1);
    run_steps();
    devices[0].step_reflect().expect("reflected");
    devices[0].checkpoint_now().expect("checkpoint");
    a_end.hold(Lane::Data, true);
    write(0, 4..16, 2);
    run_steps();
    if which == 1 {
        devices[1].begin_takeover().expect("asked");
        run_steps();
        devices[1].poll_takeover().expect("answered").expect("serves");
    }
    b_end.hold(Lane::Data, true);
    write(which, 12..20, 3);
    run_steps();
    if clean {
        devices.iter().for_each(|device| device.close().expect("closed"));
    }
    let storage = &storages[which];
    let mut files = storage.files().expect("memory");
    files.sort();
    let read = |file: FileName| {
        let length = storage.length(file).expect("memory").expect("there");
        let mut bytes = vec![0; length as usize];
        storage.read(file, 0, &mut bytes).expect("memory");
        (file, bytes)
    };
    files.into_iter().map(read).collect()
}

/// A directory with the damage that `bytes` describe: bits, numbers, sectors and files changed,
/// moved or missing; and lies whose checksums are right.
pub fn damaged_directory(bytes: &[u8]) -> Arc<Memory> {
    let mut input = Input(bytes);
    let mut files = templates()[usize::from(input.byte() % 4)].clone();
    while !input.is_spent() && !files.is_empty() {
        damage(&mut input, &mut files);
    }
    let storage = Memory::new();
    for (name, bytes) in files {
        storage.create(name, bytes.len() as u64, Fill::Sparse).expect("memory");
        storage.write(name, 0, &[IoSlice::new(&bytes)]).expect("memory");
    }
    Arc::new(storage)
}

fn damage(input: &mut Input<'_>, files: &mut Vec<File>) {
    let at = input.below(files.len() as u64) as usize;
    let (name, bytes) = &mut files[at];
    let name = *name;
    // Most of what matters stands at the beginning.
    let reach = if input.byte().is_multiple_of(4) { bytes.len() } else { bytes.len().min(16_384) };
    let place = input.below(reach as u64) as usize;
    match input.byte() % 8 {
        0 if !bytes.is_empty() => bytes[place] ^= 1 << (input.byte() % 8),
        1 => {
            let number = input.number().to_le_bytes();
            let place = place / 8 * 8;
            bytes.iter_mut().skip(place).zip(number).for_each(|(byte, new)| *byte = new);
        }
        2 => bytes.iter_mut().skip(place / 512 * 512).take(512).for_each(|byte| *byte = 0),
        3 if bytes.len() >= 512 => {
            let from = (input.below(reach as u64) / 512 * 512).min(bytes.len() as u64 - 512);
            let to = (place / 512 * 512).min(bytes.len() - 512);
            bytes.copy_within(from as usize..from as usize + 512, to);
        }
        4 => bytes.truncate(place),
        5 if input.byte().is_multiple_of(4) => drop(files.remove(at)),
        6 if name == FileName::Superblock => lie(input, bytes),
        7 if matches!(name, FileName::OwnLog | FileName::RecvLog) => {
            lie_in_log(input, bytes, place)
        }
        _ => {}
    }
}

/// Changes fields of a superblock and makes its checksums right.
fn lie(input: &mut Input<'_>, bytes: &mut [u8]) {
    let (copies, rest) = bytes.split_at_mut(bytes.len().min(VOLUMES_OFFSET as usize));
    let which = COPY_OFFSETS[usize::from(input.byte() % 2)] as usize;
    let Some(copy) = copies.get_mut(which..which + COPY_BYTES as usize) else { return };
    let Ok(mut s) = Superblock::decode(copy, rest) else { return };
    let log = if input.byte().is_multiple_of(2) { &mut s.own } else { &mut s.recv };
    match input.byte() % 21 {
        0 => log.tail_offset = input.number(),
        1 => log.tail_sequence = input.number(),
        2 => log.durable = input.number(),
        3 => log.incarnation = input.number(),
        4 => log.bytes = input.number() % (1 << 24),
        5 => s.hi.time = input.number(),
        6 => s.hi.epoch = input.number(),
        7 => s.acked.time = input.number(),
        8 => s.need.time = input.number(),
        9 => s.fl.time = input.number(),
        10 => s.epoch = input.number(),
        11 => s.generation = input.number(),
        12 => s.clean = !s.clean,
        13 => s.fenced = !s.fenced,
        14 => s.mode = Mode::Collecting,
        15 => s.features.compat = input.number(),
        16 => s.features.ro_compat = input.number(),
        17 => s.features.incompat = input.number(),
        18 => s.whole.time = input.number(),
        19 => s.table.bytes = input.number(),
        _ => s.device = input.number(),
    }
    copy.copy_from_slice(&s.encode()[..]);
}

/// Changes fields of the batch header at `place`, if there is one, and makes its checksum right.
fn lie_in_log(input: &mut Input<'_>, bytes: &mut [u8], place: usize) {
    let page = PAGE as usize;
    let begin = place / page * page;
    let Some(page) = bytes.get_mut(begin..begin + page) else { return };
    let Ok(Some(mut header)) = Header::decode(page, BLOCK as u64) else { return };
    match input.byte() % 8 {
        0 => header.sequence = input.number(),
        1 => header.synced = input.number(),
        2 => header.previous.time = input.number(),
        3 => header.identity.incarnation = input.number(),
        4 if header.rows.len() > 1 => drop(header.rows.pop()),
        choice => {
            let rows = header.rows.len() as u64;
            let Some(row) = header.rows.get_mut(input.below(rows) as usize) else { return };
            match choice {
                5 => row.stamp.time = input.number(),
                6 => row.block.number = input.number(),
                _ => row.stamp.epoch = input.number(),
            }
        }
    }
    page.copy_from_slice(&header.encode(BLOCK as u64)[..]);
}

/// Opens what is in `storage`: a device or an error, never a panic. If it may serve, its blocks are
/// read.
pub fn examine_directory(storage: Arc<Memory>) {
    let _ = read_copies(&*storage);
    let settings = Settings { durability: Durability::Never, ..Settings::default() };
    let Ok(device) = Device::open(storage, Arc::new(Still), settings) else {
        return;
    };
    let status = device.status();
    assert!(status.backlog_records <= device.geometry().places(), "{status:?}");
    // One that is catching up refuses.
    let _ = device.resume_alone();
    // A fenced one, too.
    let _ = device.accept_loss();
    let Ok(host) = device.session() else { return };
    for block in 0..BLOCKS {
        let request = crate::request::Request::read(0, block * BLOCK as u64, vec![0; BLOCK]);
        if let Ok(mut ticket) = host.submit(request)
            && let Some(Ok(done)) = ticket.poll()
        {
            let data = done.buffer.expect("a read has its buffer");
            assert_eq!(data.len(), BLOCK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_directories_have_records_of_both_kinds() {
        let clean = damaged_directory(&[0]);
        let clock = Arc::new(Still);
        let device = Device::open(clean, clock, Settings::default()).unwrap();
        let status = device.status();
        assert!(status.backlog_records > 0 && status.hi > crate::unit::Stamp::ZERO, "{status:?}");
    }

    #[test]
    fn sound_directories_serve_unless_they_are_catching_up() {
        for (template, serves) in [(0, false), (1, false), (2, true), (3, true)] {
            let clock = Arc::new(Still);
            let storage = damaged_directory(&[template]);
            let device = Device::open(storage, clock, Settings::default()).unwrap();
            assert_eq!(device.resume_alone().is_ok(), serves);
        }
    }

    #[test]
    fn seeded() {
        super::super::over_seeded_bytes(3000, 60, |bytes| {
            examine_directory(damaged_directory(bytes));
        });
    }
}
