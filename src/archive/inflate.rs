//! Inflating (RFC 1951).
//!
//! This file owns deflate streams and the checksum of their output. It must not know which format a stream is in.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Rejection, meter::Meter};

/// Size of the output buffer in bytes. A smaller one is slower (8 KiB: by 40 %), a larger one no faster.
const OUTPUT_BYTES: usize = 64 * 1024;

/// Inflates one deflate stream after another; keeps only the length and CRC-32 of the output.
pub(super) struct Inflater {
    decompress: Decompress,
    output: Box<[u8]>,
    checksum: Checksum,
}

/// Length and CRC-32 of the bytes so far.
#[derive(Clone, Default)]
pub(super) struct Checksum {
    hasher: crc32fast::Hasher,
    pub(super) size: u64,
}

impl Checksum {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(super) fn crc32(&self) -> u32 {
        self.hasher.clone().finalize()
    }
}

impl Inflater {
    pub(super) fn new() -> Inflater {
        Inflater {
            decompress: Decompress::new(false),
            output: vec![0; OUTPUT_BYTES].into_boxed_slice(),
            checksum: Checksum::default(),
        }
    }

    /// Begins a new stream.
    pub(super) fn restart(&mut self) {
        self.decompress.reset(false);
        self.checksum = Checksum::default();
    }

    /// Takes bytes from the front of `input` and passes the output to `see`; returns whether the stream has ended. If so, the
    /// rest of `input` does not belong to it; if not, all of `input` is taken.
    pub(super) fn inflate(
        &mut self,
        input: &mut &[u8],
        meter: &mut Meter,
        mut see: impl FnMut(&[u8]) -> Result<(), Rejection>,
    ) -> Result<bool, Rejection> {
        let damaged = || Rejection::corrupt("its deflate stream is damaged");
        loop {
            let (taken, given) = (self.decompress.total_in(), self.decompress.total_out());
            let status = self.decompress.decompress(input, &mut self.output, FlushDecompress::None);
            // Both are at most the lengths of buffers in memory.
            let taken = (self.decompress.total_in() - taken) as usize;
            let given = (self.decompress.total_out() - given) as usize;
            *input = &input[taken..];
            self.checksum.update(&self.output[..given]);
            meter.consume(taken);
            // Output before a limit or before damage is checked first.
            see(&self.output[..meter.admitted(given)])?;
            meter.inflate(given)?;
            match status.map_err(|_| damaged())? {
                Status::StreamEnd => return Ok(true),
                Status::Ok | Status::BufError if taken == 0 && given == 0 => {
                    return if input.is_empty() { Ok(false) } else { Err(damaged()) };
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// Of the current stream's output so far.
    pub(super) fn checksum(&self) -> &Checksum {
        &self.checksum
    }

    /// Compressed bytes taken by the current stream.
    pub(super) fn taken(&self) -> u64 {
        self.decompress.total_in()
    }
}
