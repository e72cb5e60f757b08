//! See `smp::fuzzing::contract`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smp::fuzzing::contract(bytes));
