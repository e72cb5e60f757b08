//! An object too large to be held, sent in pieces and read back in ranges: the same bytes, in little memory.
#![allow(dead_code)]

use std::ops::Range;

use sha2::{Digest, Sha256};
use smp::control::Control;
use smp::transfer::{Client, FetchPlan, Replace};

/// Bytes of a piece that is written; fits no part of any provider.
const PIECE: usize = 3_000_001;

/// Sends an object of `size` bytes and fetches it in ranges of `range` bytes; returns what the process held at its peak meanwhile beyond what
/// it held before, in bytes. The peak is that of the whole process, so nothing else may run in it.
pub fn there_and_back(client: &Client, size: u64, range: u64) -> u64 {
    let mut piece: Vec<u8> = (0..PIECE as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    forget_peak();
    let before = resident("VmRSS:");
    let mut sent = Sha256::new();
    let mut upload = client.upload("large/pack", Replace::Never).unwrap();
    let mut left = size;
    while left > 0 {
        // No two pieces are the same.
        piece[..8].copy_from_slice(&left.to_le_bytes());
        let length = PIECE.min(usize::try_from(left).unwrap());
        sent.update(&piece[..length]);
        upload.write(piece[..length].to_vec()).unwrap();
        left -= length as u64;
    }
    let object = upload.finish().unwrap();
    assert_eq!(object.size, size);
    assert_eq!(client.head("large/pack", &Control::new()).unwrap(), object);

    let ranges: Vec<Range<u64>> = (0..size.div_ceil(range)).map(|number| number * range..size.min((number + 1) * range)).collect();
    let plan = FetchPlan { name: "large/pack", version: &object.version, ranges: &ranges, spool_key: None };
    let mut came = Sha256::new();
    let mut deliver = |_, bytes: Vec<u8>| {
        came.update(bytes);
        Ok(())
    };
    client.fetch(&plan, &|_, _| Ok(()), &mut deliver, &Control::new()).unwrap();
    assert_eq!(came.finalize(), sent.finalize());
    client.delete("large/pack").unwrap();
    resident("VmHWM:").saturating_sub(before)
}

/// Lets the peak begin anew (proc(5), `clear_refs`).
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn resident(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
