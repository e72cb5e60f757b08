//! See `smp::fuzzing::tree`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smp::fuzzing::tree(bytes));
