//! One imaging job on a volume, measured: `imaging-bench JOB THREADS FILE COLUMNS ROWS SLICES`.
//!
//! FILE holds float32 voxels, column fastest, or, for jobs that label, a byte for each. For N4 the mask lies beside it, with the extension
//! `mask`. A job runs up to five times, or as often as begins within four seconds of work, as in `peers.py`; the input is read anew each time.
//! Prints the least seconds and the least processor seconds of the work alone, the peak memory of the process in MiB, the bytes that must be
//! moved (0 where memory is not the bound) and one number of the result.

mod jobs;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::Instant;

use jobs::{Data, run};
use rustix::time::{ClockId, clock_gettime};
use smp::control::Control;
use smp::imaging::grid::filled;

/// Most rounds.
const ROUNDS: usize = 5;
/// Seconds of work after which no further round begins.
const ENOUGH: f64 = 4.0;

/// Reads the voxels of a volume.
fn read(file: &Path, voxels: &mut [f32]) {
    let mut file = BufReader::with_capacity(1 << 20, File::open(file).unwrap());
    let mut piece = [0u8; 1 << 14];
    for voxels in voxels.chunks_mut(piece.len() / 4) {
        let piece = &mut piece[..voxels.len() * 4];
        file.read_exact(piece).expect("a file as long as its dimensions say");
        for (voxel, bytes) in voxels.iter_mut().zip(piece.as_chunks().0) {
            *voxel = f32::from_le_bytes(*bytes);
        }
    }
}

/// Seconds that all threads of this process have computed.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Largest memory of this process so far, MiB.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [job, threads, file, dims @ ..] = arguments.as_slice() else { panic!("JOB THREADS FILE COLUMNS ROWS SLICES") };
    let dims: Vec<usize> = dims.iter().map(|n| n.parse().unwrap()).collect();
    let dims: [usize; 3] = dims.try_into().expect("three dimensions");
    let (file, count) = (Path::new(file), dims.iter().product());
    let is_binary = job.starts_with("label");
    let mut data = Data {
        dims,
        // As the library's own volumes lie, and numpy's: in large pages.
        voxels: filled(if is_binary { 0 } else { count }, 0.0).unwrap(),
        binary: if is_binary { std::fs::read(file).unwrap() } else { Vec::new() },
        mask: job.starts_with("n4").then(|| std::fs::read(file.with_extension("mask")).unwrap()),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.parse().unwrap()).build().unwrap();
    let control = Control::new();

    let (mut rounds, mut spent, mut wall, mut processor) = (0, 0.0, f64::INFINITY, f64::INFINITY);
    let output = loop {
        read(file, &mut data.voxels);
        let (start, start_processor) = (Instant::now(), processor_seconds());
        let output = pool.install(|| run(job, &mut data, &control)).unwrap();
        let (seconds, processor_seconds) = (start.elapsed().as_secs_f64(), processor_seconds() - start_processor);
        (wall, processor) = (seconds.min(wall), processor_seconds.min(processor));
        (rounds, spent) = (rounds + 1, spent + seconds);
        if rounds == ROUNDS || spent > ENOUGH {
            break output;
        }
    };
    let (peak, bytes) = (peak_mib(), jobs::bytes(job, dims).unwrap_or(0));
    println!("{wall} {processor} {peak} {bytes} {}", output.number(&data));
}
