//! A folder of DICOM files to one volume: `load FOLDER`; the least that any reader does: `limit FOLDER`. Prints seconds and a sum of the voxels.

use std::path::{Path, PathBuf};
use std::time::Instant;

use smp::control::Control;
use smp::deid::release_identified;
use smp::dicom::geometry::Policy;
use smp::dicom::{Limits, Loader, Selection};
use smp::imaging::Volume;
use smp::secret::Plain;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Through the library, as a study is loaded.
fn load(folder: &Path) -> (usize, f64) {
    let control = Control::new();
    let mut loader = Loader::new(Limits::default(), Selection::default(), Policy::default());
    for (number, file) in files(folder).iter().enumerate() {
        loader.add(number + 1, Plain::new(std::fs::read(file).unwrap()), &control).unwrap();
    }
    let volume = Volume::from_study(&release_identified(loader.finish(&control).unwrap()));
    (volume.voxels().len(), volume.voxels().iter().step_by(997).map(|voxel| f64::from(*voxel)).sum())
}

/// Reads every file and converts its last bytes, on all processors, knowing beforehand what they are: 512 x 512 samples of 16 bits.
fn limit(folder: &Path) -> (usize, f64) {
    const SLICE: usize = 512 * 512;
    let files = files(folder);
    let mut voxels = vec![0f32; files.len() * SLICE];
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    let share = files.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for (files, voxels) in files.chunks(share).zip(voxels.chunks_mut(share * SLICE)) {
            scope.spawn(move || {
                for (file, slice) in files.iter().zip(voxels.chunks_mut(SLICE)) {
                    let bytes = std::fs::read(file).unwrap();
                    let (words, _) = bytes[bytes.len() - 2 * SLICE..].as_chunks::<2>();
                    words.iter().zip(slice).for_each(|(word, voxel)| *voxel = f32::from(i16::from_le_bytes(*word)) - 1024.0);
                }
            });
        }
    });
    (voxels.len(), voxels.iter().step_by(997).map(|voxel| f64::from(*voxel)).sum())
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = Path::new(&arguments[2]);
    let start = Instant::now();
    let (count, sum) = match arguments[1].as_str() {
        "load" => load(folder),
        "limit" => limit(folder),
        _ => panic!("load FOLDER | limit FOLDER"),
    };
    println!("{} {count} {sum}", start.elapsed().as_secs_f64());
}
