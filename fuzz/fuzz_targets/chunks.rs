//! See `smp::fuzzing::chunks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smp::fuzzing::chunks(bytes));
