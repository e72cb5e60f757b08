//! Results as DICOM objects, Segmentation and structured report, against dciodvfy, highdicom, pydicom, SimpleITK and dcmtk.

mod support;

use std::path::Path;
use std::process::Command;

use smp::pipeline::{OwnMask, Pipeline, Request, StudyResult, Volume, own_predictor, own_segmenter};
use support::{Site, files, study};

/// A study of files, segmented by a function of the voxels.
fn segmented(site: &Site, input: &Path, settings: &[(&str, &str)], operations: &str, rule: fn(&Volume) -> OwnMask) -> StudyResult {
    let mut config = site.config.clone();
    for (key, value) in settings {
        config.set(key, value).unwrap();
    }
    let pipeline = Pipeline::new(&config).unwrap();
    pipeline.set_segmenter(Some(own_segmenter("rule", "1", Box::new(move |volume, _| Ok(rule(volume)))).unwrap()));
    let numbers = |_: &_, _: Option<&_>, _: &_| Ok(vec![("cancer_probability".to_owned(), 0.1875), ("size of it".to_owned(), 1.0 / 3.0)]);
    pipeline.set_predictor(Some(own_predictor("guess", "2.5", Box::new(numbers)).unwrap()));
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
            assert_eq!((result.dicom_count(), result.dicom(2).err().map(|error| error.kind())), (2, Some(smp::Kind::OutOfRange)));
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

fn judge_report(site: &Site, result: &StudyResult, labels: serde_json::Value, predicted: serde_json::Value) {
    let Some(python) = std::env::var_os("SMP_PYTHON") else {
        return support::skipped("judgement of structured reports; set SMP_PYTHON to a python with highdicom");
    };
    let (report, mut seg, mut mask) = (site.path("sr.dcm"), "-".to_owned(), "-".to_owned());
    result.save(&report, "sr").unwrap();
    if result.mask().is_some() {
        let (object, labels) = (site.path("seg.dcm"), site.path("mask.npy"));
        result.save(&object, "seg").unwrap();
        result.save(&labels, "mask").unwrap();
        (seg, mask) = (object.to_str().unwrap().to_owned(), labels.to_str().unwrap().to_owned());
    }
    let voxel_mm3: f64 = result.volume().geometry().spacing_mm.iter().product();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/sr.py");
    let expected = serde_json::json!({"labels": labels, "predicted": predicted}).to_string();
    let told =
        Command::new(python).arg(script).args([report.to_str().unwrap(), &seg, &mask, &voxel_mm3.to_string(), &expected]).output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    println!("{out}");
    assert!(told.status.success(), "{out}{errors}");
}

#[test]
fn reports_hold_volumes_and_predictions() {
    let site = Site::new();
    study::write(&site.path("study"));
    let long = "a name of more than sixty-four characters, which a long string cannot hold";
    let guessed =
        serde_json::json!([["guess", "2.5", "Probability of cancer", 18.75, "%"], ["guess", "2.5", "size of it", 0.333333333, "1"]]);
    for (kind, segments) in [("binary", [Some(1), Some(2)]), ("labelmap", [None; 2])] {
        let labels = serde_json::json!({"lesion": [3, segments[0]], long: [7, segments[1]]});
        for anonymize in ["false", "true"] {
            let settings = [("auto_anonymize", anonymize), ("output.segmentation", kind)];
            let result = segmented(&site, &site.path("study"), &settings, "load,segment,predict", boxes);
            judge_report(&site, &result, labels.clone(), guessed.clone());
            // A prediction of the host's changes the report, and nothing else does.
            let before = result.dicom(1).unwrap();
            assert_eq!(result.dicom(1).unwrap(), before);
            result.add_prediction("by hand", "cancer_probability", 0.5).unwrap();
            assert_ne!(result.dicom(1).unwrap(), before);
            let mut more = guessed.clone();
            more.as_array_mut().unwrap().push(serde_json::json!(["by hand", "not told", "Probability of cancer", 50.0, "%"]));
            judge_report(&site, &result, labels.clone(), more);
        }
    }
    let result = segmented(&site, &site.path("study"), &[], "load,predict", boxes);
    judge_report(&site, &result, serde_json::json!({}), guessed);
    let result = segmented(&site, &site.path("study"), &[], "load", boxes);
    assert_eq!(result.save(&site.path("absent.dcm"), "sr").err().map(|error| error.kind()), Some(smp::Kind::Absent));
}

#[test]
fn reports_of_real_series_are_valid() {
    let Some(data) = support::test_data() else { return };
    let site = Site::new();
    let long = "a name of more than sixty-four characters, which a long string cannot hold";
    let labels = serde_json::json!({"lesion": [3, 1], long: [7, 2]});
    for series in ["mr_t1_philips_mprage", "enhanced_mr", "mammogram", "ct_head_ge_tilt"] {
        let settings = [("auto_anonymize", "false"), ("geometry.spacing", "resample")];
        let result = segmented(&site, &data.join(series), &settings, "load,segment", boxes);
        judge_report(&site, &result, labels.clone(), serde_json::json!([]));
    }
}
