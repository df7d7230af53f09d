//! Walks a log from its tail, batch by batch: for opening, and for `inspect`.

use crate::format::PAGE;
use crate::format::batch::{Header, Identity, Log, batch_bytes};
use crate::format::superblock::{LogState, Superblock};
use crate::storage::{FileName, Storage};
use std::io;

/// A batch found in a log.
#[derive(Clone, Debug)]
pub struct Found {
    /// Byte offset of its header.
    pub offset: u64,
    /// Bytes it takes, padding included.
    pub bytes: u64,
    /// Its header.
    pub header: Header,
}

/// Why a walk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing was ever written here, or what stands here is from an earlier lap or life.
    Clean,
    /// What stands at this offset is no batch: which field is wrong and how. A torn tail, or what
    /// an earlier lap left behind the head; who calls compares with what must be there.
    Torn(u64, String),
}

/// Walks the unbroken run of batches from the tail that `superblock` names. Damage ends the walk;
/// only a failing storage is an error.
pub fn walk(
    storage: &dyn Storage,
    superblock: &Superblock,
    log: Log,
    mut found: impl FnMut(Found),
) -> io::Result<End> {
    let (file, state) = match log {
        Log::Own => (FileName::OwnLog, &superblock.own),
        Log::Recv => (FileName::RecvLog, &superblock.recv),
    };
    let device = superblock.device;
    let identity = Identity { log, device, incarnation: state.incarnation };
    let block_size = u64::from(superblock.block_size);
    let LogState { mut tail_offset, tail_sequence, .. } = *state;
    let mut sequence = tail_sequence;
    let mut walked = 0;
    let length = storage.length(file)?.unwrap_or(0).min(state.bytes);
    let mut wrapped = false;
    let mut torn = None;
    loop {
        match batch_at(storage, file, tail_offset, length, block_size)? {
            Ok(Some(header)) if header.identity == identity && header.sequence == sequence => {
                let with_data = header.rows.iter().filter(|r| r.has_data).count() as u64;
                let bytes = batch_bytes(with_data, block_size);
                walked += bytes;
                if walked > length || tail_offset + bytes > length {
                    return Ok(End::Torn(tail_offset, "the batch runs past the log's end".into()));
                }
                sequence += header.rows.len() as u64;
                found(Found { offset: tail_offset, bytes, header });
                tail_offset += bytes;
                wrapped = false;
                torn = None;
            }
            other => {
                let reason = other.err();
                // A batch that did not fit before the end went to the beginning.
                if wrapped || tail_offset == 0 {
                    let reason = torn.or(reason.map(|r| (tail_offset, r)));
                    return Ok(reason.map_or(End::Clean, |(at, r)| End::Torn(at, r)));
                }
                torn = reason.map(|r| (tail_offset, r));
                tail_offset = 0;
                wrapped = true;
            }
        }
    }
}

fn batch_at(
    storage: &dyn Storage,
    file: FileName,
    offset: u64,
    length: u64,
    block_size: u64,
) -> io::Result<Result<Option<Header>, String>> {
    if offset.checked_add(PAGE).is_none_or(|end| end > length) {
        return Ok(Ok(None));
    }
    let mut page = [0; PAGE as usize];
    storage.read(file, offset, &mut page)?;
    Ok(Header::decode(&page, block_size))
}
