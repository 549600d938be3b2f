//! What must hold of every byte stream: the verifier does not panic, its memory is bounded, and how the bytes are cut does
//! not change the judgement.

// Links to moesync's own files.
pub mod archive;
pub mod magic;

use archive::{Judgement, Limits, judge_pieces};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Without a ratio, which is measured where a block ends: a `Pass` cuts all archives into the same blocks. The other
/// limits bound the time of an input.
const LIMITS: Limits = Limits { archive_bytes: u64::MAX, inflated_bytes: 4 * 1024 * 1024, inflate_ratio: u64::MAX };

/// The names of an archive are remembered, and they alone: twice what the verifier admits, for a buffer that grows.
const MOST_MEMORY: usize = 48 * 1024 * 1024;

/// Panics if what must hold does not. `at` chooses where the bytes are cut.
pub fn check(bytes: &[u8], at: u16) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let whole = judge(&[bytes]);
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(taken <= MOST_MEMORY, "{taken} bytes of memory for an archive of {} bytes", bytes.len());

    let (first, second) = bytes.split_at(usize::from(at) % (bytes.len() + 1));
    assert_eq!(judge(&[first, second]), whole, "cut at byte {}", first.len());
    let small: Vec<_> = bytes.chunks(usize::from(at) % 97 + 1).collect();
    assert_eq!(judge(&small), whole, "cut into pieces of {} bytes", usize::from(at) % 97 + 1);
}

fn judge(pieces: &[&[u8]]) -> Judgement {
    judge_pieces(LIMITS, pieces)
}

/// Gives every block that looks like a tar header the checksum that it would have: without it, hardly a change to a header
/// comes any further.
pub fn sum_headers(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Takes the two bytes that choose where to cut off the front of a fuzzer's input.
pub fn cut(input: &[u8]) -> Option<(u16, &[u8])> {
    let (at, bytes) = input.split_at_checked(2)?;
    Some((u16::from_le_bytes([at[0], at[1]]), bytes))
}
