//! Zip archives.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((at, bytes)) = moesync_fuzz::cut(input) else { return };
    moesync_fuzz::check(bytes, at);
});
