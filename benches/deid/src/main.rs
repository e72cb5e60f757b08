//! A folder of DICOM files de-identified to DICOM files: `memory FOLDER [OUT]` from and to memory, `files FOLDER OUT` from and to files.
//! Prints seconds, files, bytes of the output, and the seconds of loading, of de-identifying and of writing.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;
use smp::control::Control;
use smp::deid::{Options, deidentify};
use smp::dicom::geometry::Policy;
use smp::dicom::{Limits, Loader, Selection};
use smp::secret::{Plain, Secret};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let files = files(Path::new(&arguments[2]));
    let out = arguments.get(3).map(Path::new);
    let is_memory = match arguments[1].as_str() {
        "memory" => true,
        "files" => false,
        _ => panic!("memory FOLDER [OUT] | files FOLDER OUT"),
    };
    let read = |file: &PathBuf| std::fs::read(file).unwrap();
    let before: Vec<Vec<u8>> = if is_memory { files.iter().map(read).collect() } else { Vec::new() };
    // A file's worth each, so that no output moves while it grows.
    let mut written: Vec<Vec<u8>> = before.iter().map(|bytes| Vec::with_capacity(bytes.len() + 4096)).collect();
    let (control, options, key) = (Control::new(), Options::default(), Secret::new([7; 32]));

    let start = Instant::now();
    let mut loader = Loader::new(Limits::default(), Selection::default(), Policy::default()).keep_pixels();
    if is_memory {
        for (number, bytes) in before.into_iter().enumerate() {
            loader.add(number + 1, Plain::new(bytes), &control).unwrap();
        }
    } else {
        for (number, file) in files.iter().enumerate() {
            loader.add(number + 1, Plain::new(read(file)), &control).unwrap();
        }
    }
    // Here the pixels are decoded too and the geometry is judged, which no other tool does.
    let study = loader.finish(&control).unwrap();
    let loaded = start.elapsed().as_secs_f64();
    let released = deidentify(study, &options, &key, &control).unwrap();
    let done = start.elapsed().as_secs_f64();
    let names = released.file_names();
    let total: usize = if is_memory {
        written.par_iter_mut().enumerate().for_each(|(index, bytes)| released.write_file(index, bytes).unwrap());
        written.iter().map(Vec::len).sum()
    } else {
        let write = |(index, name): (usize, &String)| {
            let mut out = BufWriter::new(File::create(out.unwrap().join(format!("{name}.dcm"))).unwrap());
            released.write_file(index, &mut out).unwrap();
            out.into_inner().unwrap().metadata().unwrap().len() as usize
        };
        names.par_iter().enumerate().map(write).sum()
    };
    let seconds = start.elapsed().as_secs_f64();

    println!("{seconds} {} {total} {loaded} {} {}", names.len(), done - loaded, seconds - done);
    if let (true, Some(out)) = (is_memory, out) {
        for (name, bytes) in names.iter().zip(&written) {
            std::fs::write(out.join(format!("{name}.dcm")), bytes).unwrap();
        }
    }
}
