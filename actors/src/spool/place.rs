//! Where arriving bytes wait: memory first, a nameless file when they are too many.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::PathBuf;

use bytes::Bytes;
use rustix::fs::{Advice, fadvise};

use super::SpoolLimits;
use crate::runtime::budget::{MemoryBudget, Reservation};
use crate::store::blob::SpooledBytes;

/// Bytes of a file that is kept, until they are sent to the disk.
const SENT_BYTES: u64 = 8 << 20;

/// Bytes that arrive one piece after the other.
pub(super) struct Place {
    memory_bytes_max: u64,
    temp_dir: PathBuf,
    is_kept: bool,
    bytes: u64,
    /// Bytes that are on their way to the disk.
    sent: u64,
    held: Held,
}

enum Held {
    Memory { pieces: Vec<Bytes>, reservation: Reservation },
    File(File),
}

impl Place {
    pub(super) fn new(limits: &SpoolLimits, budget: &MemoryBudget) -> Self {
        let reservation = budget.reserve_nothing();
        Self {
            memory_bytes_max: limits.memory_bytes_max,
            temp_dir: limits.temp_dir.clone(),
            is_kept: limits.files_are_kept,
            bytes: 0,
            sent: 0,
            held: Held::Memory { pieces: Vec::new(), reservation },
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes
    }

    /// Takes a piece; blocks when it goes to the file.
    pub(super) fn push(&mut self, piece: Bytes) -> io::Result<()> {
        self.bytes += piece.len() as u64;
        let may_stay = self.bytes <= self.memory_bytes_max;
        match &mut self.held {
            Held::Memory { pieces, reservation } => {
                if may_stay && reservation.try_grow(piece.len() as u64) {
                    pieces.push(piece);
                    return Ok(());
                }
                // Without a name it is gone in every outcome, a kill included.
                let mut file = tempfile::tempfile_in(&self.temp_dir)?;
                pieces.iter().try_for_each(|piece| file.write_all(piece))?;
                file.write_all(&piece)?;
                self.held = Held::File(file);
                Ok(())
            }
            Held::File(file) => {
                file.write_all(&piece)?;
                if self.is_kept && self.bytes - self.sent >= SENT_BYTES {
                    send(file, self.sent, self.bytes - self.sent);
                    self.sent = self.bytes;
                }
                Ok(())
            }
        }
    }

    /// All bytes, ready to be read.
    pub(super) fn finish(self) -> SpooledBytes {
        match self.held {
            Held::Memory { pieces, reservation } => SpooledBytes::in_memory(pieces, reservation),
            Held::File(file) => SpooledBytes::in_file(file, self.bytes),
        }
    }
}

/// Has the system write these bytes to the disk, without waiting for that. It does so when it is told that they are not
/// needed in memory; those that are not on the disk yet stay there.
fn send(file: &File, from: u64, bytes: u64) {
    // Where it does not, the sync at the end has more to do.
    let _ = fadvise(file, from, NonZeroU64::new(bytes), Advice::DontNeed);
}
