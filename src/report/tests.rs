//! Claims about whole files: written, then read by something that is not this module.

use super::*;
use crate::imaging::{Channel, Verdict};
use crate::inference::{Label, ModelIdentity};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

fn geometry(dims: [usize; 3], affine_lps: [[f64; 4]; 4]) -> Geometry {
    let spacing_mm = [0, 1, 2].map(|axis| (0..3).map(|row| affine_lps[row][axis].powi(2)).sum::<f64>().sqrt());
    Geometry { dims, spacing_mm, affine_lps, verdict: Verdict::Uniform }
}

fn volume(geometry: &Geometry, voxel: impl Fn([usize; 3]) -> f32) -> Volume {
    let [columns, rows, slices] = geometry.dims;
    let voxels = (0..columns * rows * slices).map(|n| voxel([n % columns, n / columns % rows, n / columns / rows])).collect();
    Volume::from_parts(voxels, geometry.clone(), "MR").unwrap()
}

fn mask(geometry: &Geometry, label: impl Fn([usize; 3]) -> u8) -> Segmentation {
    let labels: Vec<u8> = volume(geometry, |at| f32::from(label(at))).voxels().iter().map(|voxel| *voxel as u8).collect();
    let entry = |value: u8, name: &str| {
        let voxels = labels.iter().filter(|label| **label == value).count() as u64;
        let volume_ml = voxels as f64 * geometry.spacing_mm.iter().product::<f64>() / 1000.0;
        Label { value, name: name.into(), volume_ml, voxels, code: None }
    };
    let table = vec![entry(1, "lesion"), entry(2, "oedema")];
    let text = String::new;
    let model = ModelIdentity { name: text(), version: text(), sha256: text(), device: text(), runtime: text(), members: Vec::new() };
    Segmentation { labels: Arc::new(labels), geometry: geometry.clone(), table, model, adaptations: Vec::new(), steps: Vec::new() }
}

fn straight(dims: [usize; 3], [x, y, z]: [f64; 3]) -> Geometry {
    geometry(dims, [[x, 0.0, 0.0, -10.0], [0.0, y, 0.0, 20.0], [0.0, 0.0, z, 30.0], [0.0, 0.0, 0.0, 1.0]])
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_private_whole_and_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/for/it.json");
    write_text(&path, "first").unwrap();
    write_text(&path, "{\"a\": 1}").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\": 1}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap()), mode(&folder.path().join("made"))), (0o600, 0o700, 0o700));
    assert_eq!(names(path.parent().unwrap()), ["it.json"]);
    // A name as long as names may be leaves room for no suffix.
    write_text(&folder.path().join("n".repeat(255)), "").unwrap();
}

#[test]
fn a_failure_leaves_the_old_file_and_nothing_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    write_text(&path, "old").unwrap();
    let fail = |path: &Path| {
        write_atomically(path, &mut |out| out.write_all(b"half").and_then(|()| Err(io::Error::from_raw_os_error(libc::ENOSPC))))
            .unwrap_err()
    };
    let error = fail(&path);
    assert_eq!((error.kind(), error.detail()), (Kind::OutputUnwritable, "the file cannot be written (system error 28)"));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    fail(&folder.path().join("new/deep/b.txt"));
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn what_cannot_be_written_says_so() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    fs::create_dir_all(folder.path().join("folder/full")).unwrap();
    for path in ["file/a.txt", "file/b/a.txt", "folder", "a\0b", "..", ""] {
        let path = if path.is_empty() { PathBuf::new() } else { folder.path().join(path) };
        assert_eq!(write_text(&path, "x").unwrap_err().kind(), Kind::OutputUnwritable, "{path:?}");
    }
    assert_eq!(names(folder.path()), ["file", "folder"]);
}

#[test]
fn a_link_at_the_path_is_replaced_and_its_target_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    fs::write(&target, b"precious").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    write_text(&link, "new").unwrap();
    assert_eq!((fs::read(&target).unwrap(), fs::read(&link).unwrap()), (b"precious".to_vec(), b"new".to_vec()));
}

#[test]
#[ignore = "run by another test, as a child process"]
fn child_that_fills_the_disk() {
    let Some(folder) = std::env::var_os("SMP_REPORT_CHILD_FOLDER").map(PathBuf::from) else {
        println!("SKIPPED: this is a child process of another test");
        return;
    };
    let grid = straight([64, 64, 64], [1.0; 3]);
    let (volume, mask) = (volume(&grid, |[x, y, z]| ((x * 7919 + y * 104_729 + z * 1_299_709) % 65_521) as f32), mask(&grid, |_| 1));
    let new = |name: &str| folder.join("new").join(name);
    for outcome in [
        write_volume_npy(&new("a.npy"), &volume),
        write_volume_nifti(&new("a.nii"), &volume),
        write_volume_nifti(&new("a.nii.gz"), &volume),
        write_mask_npy(&new("m.npy"), &mask),
        write_preview_png(&new("a.png"), &volume, None, ""),
        write_volume_npy(&folder.join("old.npy"), &volume),
    ] {
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::OutputUnwritable, "the file cannot be written (system error 27)"));
    }
}

#[test]
fn a_full_disk_leaves_no_part_of_any_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("old.npy"), b"old").unwrap();
    // A limit on the size of files (8 blocks) stands for the disk: writing fails half way with EFBIG, system error 27.
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "report::tests::child_that_fills_the_disk", "--ignored"])
        .env("SMP_REPORT_CHILD_FOLDER", folder.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(names(folder.path()), ["old.npy"]);
    assert_eq!(fs::read(folder.path().join("old.npy")).unwrap(), b"old");
}

#[test]
fn an_npy_file_is_header_and_voxels_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let grid = straight([3, 2, 2], [1.0; 3]);
    let path = folder.path().join("a.npy");
    write_volume_npy(&path, &volume(&grid, |[x, y, z]| (x + 10 * y + 100 * z) as f32)).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 128 + 4 * 12);
    assert!(String::from_utf8_lossy(&bytes[..128]).contains("'shape': (2, 2, 3)"));
    let voxels: Vec<f32> = bytes[128..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(voxels, [0.0, 1.0, 2.0, 10.0, 11.0, 12.0, 100.0, 101.0, 102.0, 110.0, 111.0, 112.0]);
    write_mask_npy(&path, &mask(&grid, |[x, _, z]| (x * z) as u8)).unwrap();
    assert_eq!(fs::read(&path).unwrap()[128..], [0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_nifti_ending_decides_and_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let grid = straight([3, 2, 2], [1.0; 3]);
    let voxels = volume(&grid, |[x, ..]| x as f32);
    write_volume_nifti(&folder.path().join("a.NII"), &voxels).unwrap();
    assert_eq!(fs::read(folder.path().join("a.NII")).unwrap().len(), 352 + 48);
    write_volume_nifti(&folder.path().join("a.nii.gz"), &voxels).unwrap();
    assert_eq!(fs::read(folder.path().join("a.nii.gz")).unwrap()[..2], [0x1f, 0x8b]);
    for name in ["a.hdr", "a.gz", "nii", "a"] {
        assert_eq!(write_volume_nifti(&folder.path().join(name), &voxels).unwrap_err().kind(), Kind::OutputUnsupported, "{name}");
    }
    assert_eq!(names(folder.path()), ["a.NII", "a.nii.gz"]);
}

#[test]
fn an_array_that_does_not_fill_its_grid_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let grid = straight([3, 2, 2], [1.0; 3]);
    let mut short = volume(&grid, |_| 0.0);
    short.geometry.dims = [3, 2, 3];
    assert_eq!(write_volume_npy(&path, &short).unwrap_err().kind(), Kind::VolumeInvalid);
    short.geometry.dims = [usize::MAX, 2, 2];
    assert_eq!(write_preview_png(&path, &short, None, "").unwrap_err().kind(), Kind::LimitExceeded);
    let other = mask(&straight([2, 3, 2], [1.0; 3]), |_| 0);
    assert_eq!(write_preview_png(&path, &volume(&grid, |_| 0.0), Some(&other), "").unwrap_err().kind(), Kind::Internal);
    assert!(names(folder.path()).is_empty());
}

/// A picture, read by the decoder.
struct Png {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

fn decode(path: &Path) -> Png {
    let mut reader = png::Decoder::new(io::BufReader::new(fs::File::open(path).unwrap())).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let pixels = bytes.chunks_exact(3).map(|pixel| pixel.try_into().unwrap()).collect();
    Png { width: info.width as usize, height: info.height as usize, pixels }
}

impl Png {
    /// Smallest box around the pixels of a colour, as left, top, right, bottom; and their number.
    fn bounds(&self, wanted: impl Fn([u8; 3]) -> bool) -> Option<([usize; 4], usize)> {
        let mut found: Option<([usize; 4], usize)> = None;
        for (index, _) in self.pixels.iter().enumerate().filter(|(_, pixel)| wanted(**pixel)) {
            let (x, y) = (index % self.width, index / self.width);
            let ([left, top, right, bottom], count) = found.unwrap_or(([x, y, x, y], 0));
            found = Some(([left.min(x), top.min(y), right.max(x), bottom.max(y)], count + 1));
        }
        found
    }
}

#[test]
fn the_preview_shows_a_plane_in_true_proportions_with_the_mask_outlined() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    // One slice of 100 x 50 voxels of 1 x 3 mm: 100 x 150 mm, so the picture is 480 x 720 pixels at 4.8 pixels for each millimetre.
    let grid = straight([100, 50, 1], [1.0, 3.0, 5.0]);
    let scan = volume(&grid, |[x, ..]| if x < 50 { 0.0 } else { 100.0 });
    // A rectangle of 20 x 10 voxels: 96 x 144 pixels, whose edge has 2 * (96 + 144) - 4 pixels.
    let lesion = mask(&grid, |[x, y, _]| u8::from((60..80).contains(&x) && (20..30).contains(&y)));
    write_preview_png(&path, &scan, Some(&lesion), "study-0001").unwrap();
    let picture = decode(&path);
    let white = picture.bounds(|pixel| pixel == [255; 3]).unwrap().0;
    let amber = |pixel| pixel == [255, 176, 0];
    // The legend's square has the same colour and stands far below; the outline is looked for in the plane.
    let plane = Png { height: white[3] + 1, pixels: picture.pixels[..picture.width * (white[3] + 1)].to_vec(), ..picture };
    let (outline, count) = plane.bounds(amber).unwrap();
    assert_eq!(white[3] - white[1] + 1, 720);
    assert_eq!((outline[2] - outline[0] + 1, outline[3] - outline[1] + 1, count), (96, 144, 2 * (96 + 144) - 4));
    // Voxel row 20 of 50 is 288 pixels below the top, voxel column 60 is 48 pixels right of column 50.
    assert_eq!((outline[1] - white[1], white[2] - outline[2]), (288, 96));
    assert!(plane.height > 720);
}

#[test]
fn the_preview_shows_the_patient_s_left_on_the_right_and_the_head_on_top() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    // Columns run to the right, rows to the front, slices to the feet: every axis is against the picture's.
    let grid = geometry([40, 40, 40], [[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]);
    // The lesion lies to the patient's left, back and head: low columns, low rows, low slices.
    let lesion = mask(&grid, |at| u8::from(at.iter().all(|n| (4..12).contains(n))));
    write_preview_png(&path, &volume(&grid, |_| 5.0), Some(&lesion), "").unwrap();
    let mut picture = decode(&path);
    // Three planes of 400 x 400 pixels; voxel 4 to 11 is pixel 40 to 119 from one side, or 280 to 359 from the other.
    let grey = |pixel: [u8; 3]| pixel == [128; 3];
    let all = picture.bounds(grey).unwrap().0;
    assert_eq!(all[3] - all[1] + 1, 400);
    picture.pixels.truncate(picture.width * (all[3] + 1));
    let planes: Vec<usize> = {
        let row = &picture.pixels[picture.width * all[1]..picture.width * (all[1] + 1)];
        (1..picture.width).filter(|x| grey(row[*x]) && !grey(row[x - 1])).collect()
    };
    assert_eq!(planes.len(), 3);
    let amber = |pixel| pixel == [255, 176, 0];
    for (start, expected) in planes.iter().zip([
        // Axial: left is right, back is below. Coronal: left is right, head is above. Sagittal: back is right, head is above.
        [280, 280, 359, 359],
        [280, 40, 359, 119],
        [280, 40, 359, 119],
    ]) {
        let cut: Vec<[u8; 3]> = (0..400)
            .flat_map(|y| (0..400).map(move |x| (x, y)))
            .map(|(x, y)| picture.pixels[(all[1] + y) * picture.width + start + x])
            .collect();
        let plane = Png { width: 400, height: 400, pixels: cut };
        assert_eq!(plane.bounds(amber).unwrap().0, expected);
        assert_eq!(plane.height, 400);
    }
}

#[test]
fn every_shape_of_study_has_a_preview() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    for (dims, spacing) in [
        ([1, 1, 1], [1.0; 3]),
        ([2, 1, 1], [1.0; 3]),
        ([2, 2, 2], [100.0, 0.01, 1.0]),
        ([300, 2, 3], [0.1, 5.0, 9.0]),
        ([700, 900, 1], [0.05, 0.05, 1.0]),
    ] {
        let grid = straight(dims, spacing);
        for value in [f32::NAN, 0.0, f32::MAX] {
            let scan = volume(&grid, |at| if at == [0; 3] { f32::INFINITY } else { value });
            for labels in [None, Some(mask(&grid, |_| 0)), Some(mask(&grid, |_| 9))] {
                write_preview_png(&path, &scan, labels.as_ref(), &"Z\u{e9}".repeat(200)).unwrap();
                let picture = decode(&path);
                assert!(picture.width < 2000 && picture.height < 1100, "{dims:?}: {} x {}", picture.width, picture.height);
            }
        }
    }
}

#[test]
fn numpy_nibabel_and_simpleitk_read_what_was_written() {
    let Some(python) = std::env::var_os("SMP_PYTHON") else {
        println!("SKIPPED: SMP_PYTHON names no python with numpy, nibabel and SimpleITK, so no other reader saw the files");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (s, c) = (0.3f64.sin(), 0.3f64.cos());
    let turned = [[0.7 * c, -0.9 * s, 0.0, -12.5], [0.7 * s, 0.9 * c, 0.0, 33.25], [0.0, 0.0, 2.5, -140.0], [0.0, 0.0, 0.0, 1.0]];
    let mut left_handed = turned;
    left_handed[2][2] = -2.5;
    // A sagittal acquisition: columns to the back, rows to the feet, slices to the left.
    let sagittal = [[0.0, 0.0, 1.2, -80.0], [0.5, 0.0, 0.0, -100.0], [0.0, -0.5, 0.0, 90.0], [0.0, 0.0, 0.0, 1.0]];
    // Turned about all three axes: the columns are (0.6, 0.64, 0.48), (-0.8, 0.48, 0.36), (0, -0.6, 0.8).
    let skew = [[1.2, -1.6, 0.0, 1.0], [1.28, 0.96, -1.8, 2.0], [0.96, 0.72, 2.4, 3.0], [0.0, 0.0, 0.0, 1.0]];
    for (name, affine, channels) in
        [("turned", turned, 1), ("left_handed", left_handed, 1), ("sagittal", sagittal, 1), ("skew", skew, 1), ("echoes", sagittal, 3)]
    {
        // Large enough for several blocks of the compressed form.
        let grid = geometry([97, 83, 71], affine);
        let scan = volume(&grid, |[x, y, z]| (x as f32).mul_add(0.37, y as f32 * -1.9) + (z * z) as f32 / 7.0);
        let several = (0..channels).flat_map(|channel| scan.voxels().iter().map(move |voxel| voxel + channel as f32)).collect();
        let scan = Volume::with_channels(several, vec![Channel::default(); channels].into(), grid.clone(), "MR").unwrap();
        let marks = mask(&grid, |[x, y, z]| ((x * y + z) % 3) as u8);
        let at = |ending: &str| folder.path().join(format!("{name}{ending}"));
        write_volume_npy(&at("_volume.npy"), &scan).unwrap();
        write_mask_npy(&at("_mask.npy"), &marks).unwrap();
        for ending in [".nii", ".nii.gz"] {
            write_volume_nifti(&at(&format!("_volume{ending}")), &scan).unwrap();
            write_mask_nifti(&at(&format!("_mask{ending}")), &marks).unwrap();
        }
        write_preview_png(&at(".png"), &scan, Some(&marks), name).unwrap();
        // What the readers must find, by another way: raw bytes and the affine as it is in memory.
        let raw: Vec<u8> = scan.voxels().iter().flat_map(|voxel| voxel.to_le_bytes()).collect();
        fs::write(at("_volume.raw"), raw).unwrap();
        fs::write(at("_mask.raw"), marks.labels()).unwrap();
        let facts =
            serde_json::json!({"dims": grid.dims, "spacing_mm": grid.spacing_mm, "affine_lps": grid.affine_lps, "channels": channels});
        fs::write(at(".json"), facts.to_string()).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/report_readers.py");
    let output = Command::new(python).arg(script).arg(folder.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("5 grids read"), "{told}{}", String::from_utf8_lossy(&output.stderr));
}
