//! See `smp::fuzzing::private_pem`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smp::fuzzing::private_pem(bytes));
