//! See `smp::fuzzing::model`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smp::fuzzing::model(bytes));
