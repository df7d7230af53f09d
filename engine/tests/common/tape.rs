//! Disks in memory that remember everything done to them, in one order over all of them, so that a
//! power cut after any operation can be had ("dm-log-writes", in user space).
//!
//! [`Disk`] is the storage, [`Tape`] what was done, [`Cutter`] goes along a tape and knows at every
//! point what is durable and what is not: what a file was synced for is there after a cut; of the
//! rest a [`Survival`] chooses, sector by sector. A sync covers the writes that had returned when
//! it was called, as the storage's contract says, and no others.
//!
//! Contents are shared between copies page by page: a copy of a disk costs next to nothing.

#![allow(dead_code)]

use super::random::Random;
use afterimage::internal::storage::{FileName, Fill, Storage};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Mutex};

const PAGE: u64 = 4096;
const SECTOR: u64 = 512;

/// The content of a disk.
#[derive(Clone, Default)]
pub struct Contents {
    files: BTreeMap<FileName, Arc<File>>,
}

#[derive(Clone)]
struct File {
    length: u64,
    fill: Fill,
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

impl Contents {
    pub fn has(&self, file: FileName) -> bool {
        self.files.contains_key(&file)
    }

    pub fn length(&self, file: FileName) -> Option<u64> {
        self.files.get(&file).map(|f| f.length)
    }

    pub fn names(&self) -> Vec<FileName> {
        self.files.keys().copied().collect()
    }

    fn create(&mut self, file: FileName, length: u64, fill: Fill) -> io::Result<()> {
        if self.has(file) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{file} exists")));
        }
        self.files.insert(file, Arc::new(File { length, fill, pages: BTreeMap::new() }));
        Ok(())
    }

    fn grow(&mut self, file: FileName, length: u64) -> io::Result<()> {
        self.within(file, 0, 0)?;
        let found = Arc::make_mut(self.files.get_mut(&file).expect("just found"));
        found.length = found.length.max(length);
        Ok(())
    }

    fn within(&self, file: FileName, offset: u64, length: u64) -> io::Result<&File> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no {file}"));
        let found = self.files.get(&file).ok_or_else(missing)?;
        match offset.checked_add(length).is_some_and(|end| end <= found.length) {
            true => Ok(found),
            false => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("past {file}'s end")))
            }
        }
    }

    pub fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let found = self.within(file, offset, buf.len() as u64)?;
        for (page, within, range) in pieces(offset, buf.len()) {
            match found.pages.get(&page) {
                Some(bytes) => {
                    let length = range.len();
                    buf[range].copy_from_slice(&bytes[within..within + length]);
                }
                None => buf[range].fill(0),
            }
        }
        Ok(())
    }

    pub fn write(&mut self, file: FileName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.within(file, offset, bytes.len() as u64)?;
        let found = Arc::make_mut(self.files.get_mut(&file).expect("just found"));
        for (page, within, range) in pieces(offset, bytes.len()) {
            let page = found.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[within..within + range.len()].copy_from_slice(&bytes[range]);
        }
        Ok(())
    }

    fn remove(&mut self, file: FileName) -> io::Result<()> {
        self.within(file, 0, 0)?;
        self.files.remove(&file);
        Ok(())
    }

    /// Changes that are not zero in one and equal in the other are none.
    pub fn same_volumes(&self, other: &Contents) -> bool {
        let volumes = |c: &Contents| -> BTreeMap<(FileName, u64), Arc<[u8; PAGE as usize]>> {
            let segments = c.files.iter().filter(|(f, _)| matches!(f, FileName::Segment { .. }));
            let pages = segments.flat_map(|(name, file)| {
                file.pages.iter().map(|(page, bytes)| ((*name, *page), bytes.clone()))
            });
            pages.filter(|(_, bytes)| bytes.iter().any(|&b| b != 0)).collect()
        };
        volumes(self) == volumes(other)
    }
}

/// Page, offset in it, and range of the buffer.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE) as usize;
        let now = (PAGE as usize - within).min(length - done);
        let piece = (at / PAGE, within, done..done + now);
        done += now;
        (now > 0).then_some(piece)
    })
}

/// Something done to a disk.
#[derive(Clone)]
pub enum Op {
    Create {
        file: FileName,
        length: u64,
        fill: Fill,
    },
    Write {
        file: FileName,
        offset: u64,
        bytes: Vec<u8>,
    },
    Zero {
        file: FileName,
        offset: u64,
        length: u64,
    },
    Grow {
        file: FileName,
        length: u64,
    },
    Remove {
        file: FileName,
    },
    /// Covers what was done before this number.
    Sync {
        file: FileName,
        from: usize,
    },
}

/// Everything done to some disks.
#[derive(Default)]
pub struct Tape {
    ops: Mutex<Vec<(usize, Op)>>,
}

impl Tape {
    /// How many operations were done so far.
    pub fn len(&self) -> usize {
        self.ops.lock().unwrap().len()
    }
}

/// A disk that is on a tape.
pub struct Disk {
    tape: Arc<Tape>,
    number: usize,
    contents: Mutex<Contents>,
}

impl Disk {
    pub fn new(tape: &Arc<Tape>, number: usize, contents: Contents) -> Arc<Disk> {
        Arc::new(Disk { tape: tape.clone(), number, contents: Mutex::new(contents) })
    }

    /// Its content now, synced or not.
    pub fn contents(&self) -> Contents {
        self.contents.lock().unwrap().clone()
    }

    /// Does something and has it on the tape, as one.
    fn act(&self, op: Op, act: impl FnOnce(&mut Contents) -> io::Result<()>) -> io::Result<()> {
        let mut contents = self.contents.lock().unwrap();
        act(&mut contents)?;
        self.tape.ops.lock().unwrap().push((self.number, op));
        Ok(())
    }
}

impl Storage for Disk {
    fn create(&self, file: FileName, length: u64, fill: Fill) -> io::Result<()> {
        self.act(Op::Create { file, length, fill }, |c| c.create(file, length, fill))
    }

    fn length(&self, file: FileName) -> io::Result<Option<u64>> {
        Ok(self.contents.lock().unwrap().length(file))
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.contents.lock().unwrap().read(file, offset, buf)
    }

    fn write(&self, file: FileName, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes = bufs.iter().flat_map(|buf| buf.iter().copied()).collect::<Vec<u8>>();
        let copy = bytes.clone();
        self.act(Op::Write { file, offset, bytes }, |c| c.write(file, offset, &copy))
    }

    fn zero(&self, file: FileName, offset: u64, length: u64) -> io::Result<()> {
        self.act(Op::Zero { file, offset, length }, |c| {
            c.write(file, offset, &vec![0; length as usize])
        })
    }

    fn sync(&self, file: FileName) -> io::Result<()> {
        let from = self.tape.len();
        self.act(Op::Sync { file, from }, |c| c.within(file, 0, 0).map(|_| ()))
    }

    fn grow(&self, file: FileName, length: u64) -> io::Result<()> {
        self.act(Op::Grow { file, length }, |c| c.grow(file, length))
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        self.act(Op::Remove { file }, |c| c.remove(file))
    }

    fn files(&self) -> io::Result<Vec<FileName>> {
        Ok(self.contents.lock().unwrap().names())
    }

    fn next_data(&self, file: FileName, offset: u64) -> io::Result<Option<Range<u64>>> {
        let contents = self.contents.lock().unwrap();
        let found = contents.within(file, 0, 0)?;
        if offset >= found.length {
            return Ok(None);
        }
        if found.fill == Fill::Written {
            return Ok(Some(offset..found.length));
        }
        let page = found.pages.range(offset / PAGE..).next().map(|(page, _)| *page);
        Ok(page.map(|page| offset.max(page * PAGE)..((page + 1) * PAGE).min(found.length)))
    }
}

/// The part of the unsynced writes that is there after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    Nothing,
    Everything,
    /// Some writes, wholly.
    Writes,
    /// Some sectors.
    Sectors,
}

/// Goes along a tape.
pub struct Cutter<'a> {
    ops: &'a [(usize, Op)],
    next: usize,
    durable: [Contents; 2],
    /// The unsynced writes, in their order.
    pending: [Vec<usize>; 2],
}

impl Tape {
    /// Calls `act` with a cutter at the tape's beginning, when the disks held `contents`.
    pub fn cut<T>(&self, contents: [Contents; 2], act: impl FnOnce(&mut Cutter<'_>) -> T) -> T {
        let ops = self.ops.lock().unwrap();
        act(&mut Cutter { ops: &ops, next: 0, durable: contents, pending: Default::default() })
    }
}

impl Cutter<'_> {
    /// Goes on to where so many operations have been done.
    pub fn advance_to(&mut self, to: usize) {
        assert!(self.next <= to && to <= self.ops.len(), "only forwards");
        for at in self.next..to {
            let (disk, op) = &self.ops[at];
            let (durable, pending) = (&mut self.durable[*disk], &mut self.pending[*disk]);
            match op {
                Op::Create { file, length, fill } => {
                    durable.create(*file, *length, *fill).expect("it could be created once");
                }
                Op::Write { .. } | Op::Zero { .. } | Op::Grow { .. } => pending.push(at),
                Op::Remove { file } => {
                    pending.retain(|&at| changed(&self.ops[at].1).0 != *file);
                    durable.remove(*file).expect("it could be removed once");
                }
                Op::Sync { file, from } => {
                    let ops = self.ops;
                    pending.retain(|&at| {
                        let covered = at < *from && changed(&ops[at].1).0 == *file;
                        if covered {
                            apply(durable, &ops[at].1, |_| true);
                        }
                        !covered
                    });
                }
            }
        }
        self.next = to;
    }

    /// How many changes of a disk are not durable.
    pub fn pending(&self, disk: usize) -> usize {
        self.pending[disk].len()
    }

    /// After the processes were killed here: what is durable, and a tape that begins with what is
    /// not, as the system's cache still has it.
    pub fn kill(&self) -> ([Contents; 2], Arc<Tape>) {
        let pending = self.pending.iter().flatten().map(|&at| self.ops[at].clone());
        (self.durable.clone(), Arc::new(Tape { ops: Mutex::new(pending.collect()) }))
    }

    /// The content of the disk after a cut here.
    pub fn cut(&self, disk: usize, survival: Survival, random: &mut Random) -> Contents {
        let mut contents = self.durable[disk].clone();
        for &at in &self.pending[disk] {
            let op = &self.ops[at].1;
            match survival {
                Survival::Nothing => {}
                Survival::Everything => apply(&mut contents, op, |_| true),
                Survival::Writes if random.once_in(2) => apply(&mut contents, op, |_| true),
                Survival::Writes => {}
                Survival::Sectors => apply(&mut contents, op, |_| random.once_in(2)),
            }
        }
        contents
    }
}

/// File, offset and length of a change.
fn changed(op: &Op) -> (FileName, u64, u64) {
    match op {
        Op::Write { file, offset, bytes } => (*file, *offset, bytes.len() as u64),
        Op::Zero { file, offset, length } => (*file, *offset, *length),
        Op::Grow { file, length } => (*file, *length, 0),
        Op::Remove { .. } | Op::Create { .. } | Op::Sync { .. } => unreachable!("not a change"),
    }
}

/// Makes a change to those sectors of it that are `chosen`.
fn apply(contents: &mut Contents, op: &Op, mut chosen: impl FnMut(u64) -> bool) {
    let (file, offset, length) = changed(op);
    if let Op::Grow { .. } = op {
        if chosen(offset) {
            contents.grow(file, offset).expect("it could grow once");
        }
        return;
    }
    let (end, zeros) = (offset + length, [0; SECTOR as usize]);
    let mut at = offset;
    while at < end {
        let next = ((at / SECTOR + 1) * SECTOR).min(end);
        // Beyond the end of a file that did not grow there is nothing.
        if chosen(at) && contents.length(file).is_some_and(|length| next <= length) {
            let bytes = match op {
                Op::Write { bytes, .. } => &bytes[(at - offset) as usize..(next - offset) as usize],
                _ => &zeros[..(next - at) as usize],
            };
            contents.write(file, at, bytes).expect("it could be written once");
        }
        at = next;
    }
}
