//! Tar archives: the input unchanged, and with the right checksums of its headers.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((at, bytes)) = moesync_fuzz::cut(input) else { return };
    moesync_fuzz::check(bytes, at);
    let mut summed = bytes.to_vec();
    moesync_fuzz::sum_headers(&mut summed);
    moesync_fuzz::check(&summed, at);
});
