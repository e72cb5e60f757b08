//! See `smp::fuzzing::header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smp::fuzzing::header(bytes));
