//! Masks as DICOM Segmentation objects, against dciodvfy, highdicom, pydicom and SimpleITK.

mod support;

use std::path::Path;
use std::process::Command;

use smp::pipeline::{OwnMask, Pipeline, Request, StudyResult, Volume, own_segmenter};
use support::{Site, files, study};

/// A study of files, segmented by a function of the voxels.
fn segmented(site: &Site, input: &Path, settings: &[(&str, &str)], operations: &str, rule: fn(&Volume) -> OwnMask) -> StudyResult {
    let mut config = site.config.clone();
    for (key, value) in settings {
        config.set(key, value).unwrap();
    }
    let pipeline = Pipeline::new(&config).unwrap();
    pipeline.set_segmenter(Some(own_segmenter("rule", "1", Box::new(move |volume, _| Ok(rule(volume)))).unwrap()));
    let mut request = Request::new(None);
    request.set("operations", operations).unwrap();
    for file in files(input) {
        request.add_instance(&std::fs::read(file).unwrap()).unwrap();
    }
    pipeline.process_study(&request).unwrap()
}

/// Labels 3 and 7 in two boxes that leave most slices empty where there are many.
fn boxes(volume: &Volume) -> OwnMask {
    let [columns, rows, slices] = volume.geometry().dims;
    let mut labels = vec![0; columns * rows * slices];
    for (at, label) in labels.iter_mut().enumerate() {
        let (column, row, slice) = (at % columns, at / columns % rows, at / columns / rows);
        if (slices == 1 || slice * 3 >= slices && slice * 2 <= slices) && column * 4 > columns && row * 3 > rows && row * 2 < rows {
            *label = 3;
        } else if slice * 2 > slices && slice * 3 < slices * 2 && column < columns / 5 && row % 7 == 1 {
            *label = 7;
        }
    }
    OwnMask {
        labels,
        names: vec![(3, "lesion".to_owned()), (7, "a name of more than sixty-four characters, which a long string cannot hold".to_owned())],
    }
}

fn nothing(volume: &Volume) -> OwnMask {
    OwnMask { labels: vec![0; volume.channel(0).len()], names: vec![(1, "lesion".to_owned())] }
}

/// Voxels above 200, of a CT: bone.
fn bone(volume: &Volume) -> OwnMask {
    OwnMask { labels: volume.channel(0).iter().map(|voxel| u8::from(*voxel > 200.0)).collect(), names: vec![(1, "bone".to_owned())] }
}

fn judge(site: &Site, result: &StudyResult, input: &Path, wanted: Option<&str>, uids: &str, values: &str) {
    let Some(python) = std::env::var_os("SMP_PYTHON") else {
        return support::skipped("judgement of DICOM segmentations; set SMP_PYTHON to a python with highdicom");
    };
    let (object, mask) = (site.path("seg.dcm"), site.path("mask.npy"));
    result.save(&object, "seg").unwrap();
    result.save(&mask, "mask").unwrap();
    assert_eq!(std::fs::read(&object).unwrap(), *result.dicom(0).unwrap(), "an object is the same however often it is written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/seg.py");
    let wanted = wanted.unwrap_or(mask.to_str().unwrap());
    let told =
        Command::new(python).arg(script).args([object.to_str().unwrap(), input.to_str().unwrap(), wanted, uids, values]).output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    println!("{}: {out}", input.display());
    assert!(told.status.success(), "{}: {out}{errors}", input.display());
}

#[test]
fn masks_of_a_made_up_series_are_read_back() {
    let site = Site::new();
    study::write(&site.path("study"));
    for kind in ["binary", "labelmap"] {
        for (anonymize, uids) in [("false", "SAME"), ("true", "OTHER")] {
            let settings = [("auto_anonymize", anonymize), ("output.segmentation", kind)];
            let result = segmented(&site, &site.path("study"), &settings, "load,segment", boxes);
            judge(&site, &result, &site.path("study"), None, uids, "3,7");
            let bytes = result.dicom(0).unwrap();
            let has_name = bytes.windows(study::PATIENT_NAME.len()).any(|window| window == study::PATIENT_NAME.as_bytes());
            assert_eq!(has_name, anonymize == "false");
            assert_eq!((result.dicom_count(), result.dicom(1).err().map(|error| error.kind())), (1, Some(smp::Kind::OutOfRange)));
        }
    }
    let result = segmented(&site, &site.path("study"), &[], "load,segment", nothing);
    judge(&site, &result, &site.path("study"), None, "OTHER", "1");
    let result = segmented(&site, &site.path("study"), &[], "load", nothing);
    assert_eq!((result.dicom_count(), result.dicom(0).err().map(|error| error.kind())), (0, Some(smp::Kind::OutOfRange)));
    assert_eq!(result.save(&site.path("absent.dcm"), "seg").err().map(|error| error.kind()), Some(smp::Kind::Absent));
}

#[test]
fn masks_of_real_series_lie_in_their_frames() {
    let Some(data) = support::test_data() else { return };
    let site = Site::new();
    let identified = ("auto_anonymize", "false");
    for kind in ["binary", "labelmap"] {
        for series in ["mr_t1_philips_mprage", "mammogram"] {
            let settings = [identified, ("output.segmentation", kind)];
            let result = segmented(&site, &data.join(series), &settings, "load,segment", boxes);
            judge(&site, &result, &data.join(series), None, "SAME", "3,7");
        }
    }
    // A tilted gantry: the mask lies on an upright grid and goes back to the frames as they were taken.
    let (tilted, even) = (data.join("ct_head_ge_tilt"), ("geometry.spacing", "resample"));
    let result = segmented(&site, &tilted, &[identified, even], "load,segment", bone);
    judge(&site, &result, &tilted, Some("200"), "SAME", "1");
    // Another grid by preprocessing.
    let finer = [identified, even, ("preprocess.spacing_mm", "0.5")];
    let result = segmented(&site, &tilted, &finer, "load,preprocess,segment", boxes);
    assert!(result.dicom(0).unwrap().len() > 1000);
    let enhanced = data.join("enhanced_mr");
    let result = segmented(&site, &enhanced, &[identified], "load,segment", boxes);
    judge(&site, &result, &enhanced, None, "SAME", "3,7");
    // De-identified: other UIDs, the same places.
    let head = data.join("mr_t1_philips_mprage");
    let result = segmented(&site, &head, &[], "load,anonymize,segment", boxes);
    judge(&site, &result, &head, None, "OTHER", "3,7");
}
