//! Gzip archives: the input as a gzip, and the input as the data of a valid gzip, which may be a tar.

#![no_main]

use std::io::Write as _;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((at, bytes)) = moesync_fuzz::cut(input) else { return };
    moesync_fuzz::check(bytes, at);
    let mut held = bytes.to_vec();
    moesync_fuzz::sum_headers(&mut held);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Neither fails in memory.
    if encoder.write_all(&held).is_ok()
        && let Ok(packed) = encoder.finish()
    {
        moesync_fuzz::check(&packed, at);
    }
});
