//! See `smp::fuzzing::key_card`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smp::fuzzing::key_card(bytes));
