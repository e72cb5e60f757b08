//! See `smp::fuzzing::recipe`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smp::fuzzing::recipe(bytes));
