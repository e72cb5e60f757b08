//! See `smp::fuzzing::dicom`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smp::fuzzing::dicom(bytes));
