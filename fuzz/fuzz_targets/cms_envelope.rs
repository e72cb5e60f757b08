//! See `smp::fuzzing::cms_envelope`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smp::fuzzing::cms_envelope(bytes));
