//! See `smp::fuzzing::public_pem`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smp::fuzzing::public_pem(bytes));
