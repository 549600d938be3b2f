//! Properties of the verifier for every byte stream: it does not panic, its memory is bounded, and neither how the bytes
//! are cut nor a second thread changes the judgement.

// Links to moesync's own files.
pub mod archive;
pub mod magic;

use archive::{ArchiveLimits, Judgement, judge_on_two_threads, judge_pieces};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// No ratio, because it is measured at the end of a block, and these blocks differ from those of a `Pass`. The other limits
/// bound the time of an input.
const LIMITS: ArchiveLimits =
    ArchiveLimits { archive_bytes: u64::MAX, inflated_bytes: 4 * 1024 * 1024, inflate_ratio: u64::MAX };

/// Most memory of a verifier. It keeps only names: twice the bytes that it admits, for a buffer that grows.
const MOST_MEMORY: usize = 48 * 1024 * 1024;

/// Panics if a property does not hold. `at` selects where the bytes are cut.
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
    assert_eq!(judge_on_two_threads(LIMITS, &small), whole, "on two threads");
}

fn judge(pieces: &[&[u8]]) -> Judgement {
    judge_pieces(LIMITS, pieces)
}

/// Gives every block that looks like a tar header the right checksum: otherwise nearly every change to a header is refused
/// there.
pub fn sum_headers(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Splits off the first two bytes of a fuzzer's input, which select where to cut.
pub fn cut(input: &[u8]) -> Option<(u16, &[u8])> {
    let (at, bytes) = input.split_at_checked(2)?;
    Some((u16::from_le_bytes([at[0], at[1]]), bytes))
}
