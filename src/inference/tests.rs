//! Models opened and run for real, against a second implementation of the same road in numpy (`tests/interop/inference_expected.py`).
//!
//! The tests that run a model need ONNX Runtime: set ORT_DYLIB_PATH to its shared library (PyPI's `onnxruntime` wheel holds one). Without
//! it they say that they were skipped.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::*;
use crate::imaging::{Channel, Verdict};

fn data(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(part)
}

fn model(name: &str) -> PathBuf {
    data("models").join(name)
}

fn has_runtime() -> bool {
    let found = std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty());
    if !found {
        eprintln!("SKIPPED: ORT_DYLIB_PATH is not set, so no model can be run");
    }
    found
}

fn expected(part: &str) -> Value {
    let mut all: Value = serde_json::from_str(&std::fs::read_to_string(data("expected/inference.json")).unwrap()).unwrap();
    all[part].take()
}

fn noise(count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| (((i * 2_654_435_761) % (1 << 32)) >> 12) as f32 / 1024.0 - 300.0).collect()
}

fn geometry(case: &Value) -> Geometry {
    let dims: [usize; 3] = std::array::from_fn(|i| case["dims"][i].as_u64().unwrap() as usize);
    let affine_lps: [[f64; 4]; 4] = std::array::from_fn(|r| std::array::from_fn(|c| case["affine"][r][c].as_f64().unwrap()));
    let spacing_mm = std::array::from_fn(|c| (0..3).map(|r| affine_lps[r][c] * affine_lps[r][c]).sum::<f64>().sqrt());
    Geometry { dims, spacing_mm, affine_lps, verdict: Verdict::Uniform }
}

fn volume(case: &Value) -> Volume {
    let geometry = geometry(case);
    let channels = case["channels"].as_u64().unwrap_or(1) as usize;
    let voxels = noise(geometry.dims.iter().product::<usize>() * channels);
    Volume::with_channels(voxels, vec![Channel::default(); channels].into(), geometry, "MR").unwrap()
}

fn digits(value: &Value) -> Vec<u8> {
    value.as_str().unwrap().bytes().map(|byte| byte - b'0').collect()
}

/// A copy of a model in a folder of its own, with its contract changed.
fn altered(name: &str, change: impl Fn(&mut Value)) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::copy(model(name), &path).unwrap();
    let mut contract: Value = serde_json::from_slice(&std::fs::read(model(name).with_extension("json")).unwrap()).unwrap();
    change(&mut contract);
    std::fs::write(path.with_extension("json"), contract.to_string()).unwrap();
    (folder, path)
}

fn error_of<T>(result: Result<T>) -> Error {
    result.err().expect("an error")
}

#[test]
fn labels_are_those_of_the_second_implementation() {
    if !has_runtime() {
        return;
    }
    for case in expected("segmentations").as_array().unwrap() {
        let name = case["model"].as_str().unwrap();
        let segmenter = open_segmenter(&model(name), &RuntimeOptions::default()).unwrap();
        let found = segmenter.segment(&volume(case), &Control::new()).unwrap();
        let labels = digits(&case["labels"]);
        let differing = found.labels().iter().zip(&labels).filter(|(a, b)| a != b).count();
        assert_eq!((differing, found.labels().len()), (0, labels.len()), "{name}");
        assert_eq!(found.geometry(), &geometry(case));
        let counts = labels.iter().fold(BTreeMap::<u8, u64>::new(), |mut counts, label| {
            *counts.entry(*label).or_default() += 1;
            counts
        });
        assert!(counts.len() > 1, "{name}");
        let [x, y, z] = found.geometry().spacing_mm;
        for label in found.table() {
            assert_eq!(label.voxels, counts.get(&label.value).copied().unwrap_or(0), "{name}");
            assert!((label.volume_ml - label.voxels as f64 * x * y * z / 1000.0).abs() < 1e-3 * label.volume_ml.max(1e-9), "{name}");
        }
        assert_eq!(found.model().device, "cpu");
    }
}

#[test]
fn probabilities_are_those_of_the_second_implementation() {
    if !has_runtime() {
        return;
    }
    let all = expected("predictions");
    let labels = digits(&all["mask"]);
    for case in all["cases"].as_array().unwrap() {
        let name = case["model"].as_str().unwrap();
        let predictor = open_predictor(&model(name), &RuntimeOptions::default()).unwrap();
        assert!(predictor.needs_mask());
        let mask = segmentation(labels.clone(), geometry(case));
        let found = predictor.predict(&volume(case), Some(&mask), &Control::new()).unwrap();
        for ((label, ours), theirs) in found.values.iter().zip(case["values"].as_array().unwrap()) {
            assert!((ours - theirs.as_f64().unwrap()).abs() < 1e-5, "{name} {label}: {ours} {theirs}");
        }
        let positive = found.values.iter().find(|(label, _)| label == "malignant").unwrap().1;
        assert_eq!(found.probability, Some(positive));
    }
}

#[test]
fn a_model_takes_the_channels_that_its_contract_names_and_no_others() {
    if !has_runtime() {
        return;
    }
    let all = expected("predictions");
    let case = all["cases"].as_array().unwrap().iter().find(|case| case["model"] == "predict_last.onnx").unwrap();
    let mask = segmentation(digits(&all["mask"]), geometry(case));
    let alone = volume(case);
    // The study's second channel is the volume that the model knows.
    let both: Vec<f32> = alone.voxels().iter().map(|voxel| 5.0 - voxel).chain(alone.voxels().iter().copied()).collect();
    let both = Volume::with_channels(both, vec![Channel::default(); 2].into(), geometry(case), "MR").unwrap();
    let (_folder, path) = altered("predict_last.onnx", |contract| contract["inputs"][0]["channels"][1] = "volume:1".into());
    let predictor = open_predictor(&path, &RuntimeOptions::default()).unwrap();
    let found = predictor.predict(&both, Some(&mask), &Control::new()).unwrap();
    assert!((found.values[0].1 - case["values"][0].as_f64().unwrap()).abs() < 1e-5);
    let missing = error_of(predictor.predict(&alone, Some(&mask), &Control::new()));
    assert!(missing.kind() == Kind::InputImplausible && missing.detail().contains("takes channel 1, the study has 1"), "{missing}");
    let unnamed = open_predictor(&model("predict_last.onnx"), &RuntimeOptions::default()).unwrap();
    let several = error_of(unnamed.predict(&both, Some(&mask), &Control::new()));
    assert!(several.kind() == Kind::InputImplausible && several.hint().unwrap().contains("volume:0"), "{several}");
}

fn segmentation(labels: Vec<u8>, geometry: Geometry) -> Segmentation {
    let table = ["rest", "lesion"].iter().zip([2, 3]).map(|(name, value)| Label {
        value,
        name: (*name).into(),
        volume_ml: 0.0,
        voxels: 0,
        code: None,
    });
    let model = ModelIdentity {
        name: "hand".into(),
        version: "1".into(),
        sha256: "0".repeat(64),
        device: "cpu".into(),
        runtime: "none".into(),
        members: Vec::new(),
    };
    Segmentation { labels: Arc::new(labels), geometry, table: table.collect(), model, adaptations: Vec::new(), steps: Vec::new() }
}

#[test]
fn a_predictor_without_its_mask_is_an_error() {
    if !has_runtime() {
        return;
    }
    let all = expected("predictions");
    let case = &all["cases"][0];
    let predictor = open_predictor(&model("predict_crop.onnx"), &RuntimeOptions::default()).unwrap();
    let (volume, geometry) = (volume(case), geometry(case));
    let run = |mask: Option<&Segmentation>| predictor.predict(&volume, mask, &Control::new());
    assert_eq!(error_of(run(None)).kind(), Kind::MaskEmpty);
    let mut other = segmentation(vec![2; volume.voxels().len()], geometry.clone());
    assert_eq!(error_of(run(Some(&other))).kind(), Kind::MaskEmpty);
    other.table.truncate(1);
    assert_eq!(error_of(run(Some(&other))).kind(), Kind::ModelContract);
    let short = segmentation(vec![3; 5], geometry);
    assert_eq!(error_of(run(Some(&short))).kind(), Kind::VolumeInvalid);
}

#[test]
fn a_mask_on_another_grid_takes_the_patients_way() {
    if !has_runtime() {
        return;
    }
    // The lesion on a grid that begins two columns earlier: the same places in the patient, so the same numbers.
    let all = expected("predictions");
    let case = &all["cases"][0];
    let (labels, own) = (digits(&all["mask"]), geometry(case));
    let mut wider = own.clone();
    wider.dims[0] += 2;
    for row in 0..3 {
        wider.affine_lps[row][3] -= 2.0 * wider.affine_lps[row][0];
    }
    let moved: Vec<u8> = labels.chunks(own.dims[0]).flat_map(|row| [&[0, 0][..], row].concat()).collect();
    let predictor = open_predictor(&model("predict_crop.onnx"), &RuntimeOptions::default()).unwrap();
    let run = |mask: Segmentation| predictor.predict(&volume(case), Some(&mask), &Control::new()).unwrap().values;
    assert_eq!(run(segmentation(labels, own)), run(segmentation(moved, wider)));
}

#[test]
fn raw_contracts_see_the_volume_as_it_was_loaded() {
    if !has_runtime() {
        return;
    }
    let case = &expected("segmentations")[0];
    let recipe = crate::imaging::Recipe::of(&crate::imaging::Choices { normalize: "zscore".into(), ..Default::default() }).unwrap();
    let (changed, _) = crate::imaging::preprocess(volume(case), &recipe, &Control::new()).unwrap();
    let run = |voxels: &str, volume: &Volume| {
        let (_folder, path) = altered("slide.onnx", |contract| {
            contract["intensity"] = serde_json::json!({"voxels": voxels, "steps": [{"step": "affine", "scale": 0.01, "shift": 0}]});
        });
        open_segmenter(&path, &RuntimeOptions::default()).unwrap().segment(volume, &Control::new()).unwrap().labels
    };
    let loaded = run("preprocessed", &volume(case));
    assert!(run("raw", &changed) == loaded);
    assert!(run("preprocessed", &changed) != loaded);
}

#[test]
fn cleaning_up_follows_the_contract() {
    if !has_runtime() {
        return;
    }
    let case = &expected("segmentations")[8];
    let plain = digits(&case["labels"]);
    let (_folder, path) = altered("islands.onnx", |contract| {
        contract["postprocess"] = serde_json::json!([{"step": "largest_component", "connectivity": 6}]);
    });
    let found = open_segmenter(&path, &RuntimeOptions::default()).unwrap().segment(&volume(case), &Control::new()).unwrap();
    for label in found.table() {
        let parts = |labels: &[u8]| {
            let faces = crate::imaging::components::Connectivity::Faces;
            crate::imaging::components::Components::find(labels, found.geometry().dims, faces, |v| v == label.value)
                .unwrap()
                .sizes()
                .to_vec()
        };
        let (before, after) = (parts(&plain), parts(found.labels()));
        assert!(before.len() > 1);
        assert_eq!((after.len(), after.first()), (1, before.iter().max()));
    }
}

#[test]
fn implausible_studies_are_errors() {
    if !has_runtime() {
        return;
    }
    let case = &expected("segmentations")[0];
    let run = |plausibility: Value| {
        let (_folder, path) = altered("slide.onnx", |contract| contract["plausibility"] = plausibility.clone());
        open_segmenter(&path, &RuntimeOptions::default()).unwrap().segment(&volume(case), &Control::new())
    };
    let error = error_of(run(serde_json::json!({"modality": ["CT"]})));
    assert_eq!((error.kind(), error.detail()), (Kind::InputImplausible, "the model is for modality CT"));
    let error = error_of(run(serde_json::json!({"labels_ml": [{"name": "label1", "min": 500, "max": 600}]})));
    assert_eq!(error.kind(), Kind::InputImplausible);
    assert!(run(serde_json::json!({"modality": ["CT", "MR"], "labels_ml": [{"name": "label1", "min": 0, "max": 600}]})).is_ok());
}

#[test]
fn another_part_of_the_body_is_refused_and_an_unknown_one_taken() {
    if !has_runtime() {
        return;
    }
    let case = &expected("segmentations")[0];
    let (_folder, path) = altered("slide.onnx", |contract| contract["plausibility"] = serde_json::json!({"body_part": ["head", "BRAIN"]}));
    let model = open_segmenter(&path, &RuntimeOptions::default()).unwrap();
    let run = |part: &str| model.segment(&Volume { body_part: part.to_owned(), ..volume(case) }, &Control::new());
    let error = error_of(run("DOE^JANE"));
    assert_eq!(
        (error.kind(), error.detail()),
        (Kind::InputImplausible, "the model is for the body parts head, BRAIN; the series says that it shows another")
    );
    assert!(run("HEAD").is_ok() && run("BRAIN").is_ok() && run("").is_ok());
}

#[test]
fn thread_counts_change_no_label() {
    if !has_runtime() {
        return;
    }
    let case = &expected("segmentations")[2];
    for threads in [1, 2, 5] {
        let options = RuntimeOptions { threads, ..RuntimeOptions::default() };
        let segmenter = open_segmenter(&model("slide_ras.onnx"), &options).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let found = pool.install(|| segmenter.segment(&volume(case), &Control::new())).unwrap();
        assert_eq!(found.labels(), digits(&case["labels"]));
    }
}

#[test]
fn progress_is_reported_and_one_segmenter_serves_many_threads() {
    if !has_runtime() {
        return;
    }
    let case = &expected("segmentations")[0];
    let segmenter: Arc<dyn Segmenter> = open_segmenter(&model("slide.onnx"), &RuntimeOptions::default()).unwrap().into();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (segmenter, seen) = (Arc::clone(&segmenter), Arc::clone(&seen));
            scope.spawn(move || {
                let control = Control::with_listener(move |stage, fraction| seen.lock().unwrap().push((stage, fraction)));
                assert_eq!(segmenter.segment(&volume(case), &control).unwrap().labels(), digits(&case["labels"]));
            });
        }
    });
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(stage, _)| *stage == "segment"));
    assert_eq!(seen.iter().filter(|(_, fraction)| *fraction == 1.0).count(), 3);
}

#[test]
fn a_run_without_end_is_stopped_by_cancelling() {
    if !has_runtime() {
        return;
    }
    let segmenter = open_segmenter(&model("endless.onnx"), &RuntimeOptions::default()).unwrap();
    let control: Arc<OnceLock<Control>> = Arc::default();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let shared = Arc::clone(&control);
    let watching = control.get_or_init(|| {
        // The run begins right after this report; the model loops 2^62 times, so this test ends only because the run is stopped.
        Control::with_listener(move |_, _| {
            sender.send(()).unwrap();
        })
    });
    std::thread::scope(|scope| {
        scope.spawn(move || {
            receiver.recv().unwrap();
            // Nothing is ever sent again: this only lets the run begin. Were it late, cancelling before the run gives the same result.
            let _ = receiver.recv_timeout(std::time::Duration::from_millis(100));
            shared.get().unwrap().cancel();
        });
        let error = error_of(segmenter.segment(&volume(&expected("segmentations")[0]), watching));
        assert_eq!(error.kind(), Kind::Cancelled);
    });
}

#[test]
fn models_that_do_not_fit_their_contract_are_refused() {
    if !has_runtime() {
        return;
    }
    let opened = |name: &str, change: &dyn Fn(&mut Value)| {
        let (_folder, path) = altered(name, change);
        open_segmenter(&path, &RuntimeOptions::default())
    };
    let kept = |_: &mut Value| {};
    for (name, change, expected) in [
        ("whole_numbers.onnx", &kept as &dyn Fn(&mut Value), "logits is not a float32 tensor"),
        ("slide.onnx", &|c: &mut Value| c["inputs"][0]["name"] = "image".into(), "the model has no input image"),
        ("slide.onnx", &|c: &mut Value| c["output"]["name"] = "mask".into(), "the model has no output mask"),
        (
            "slide.onnx",
            &|c: &mut Value| c["grid"]["size"]["window"] = serde_json::json!([5, 6, 8]),
            "volume takes 7 voxels along W, it would get 8",
        ),
        ("slide.onnx", &|c: &mut Value| c["grid"]["layout"] = "NDHWC".into(), "volume takes 7 channels, the contract gives 1"),
        (
            "slide.onnx",
            &|c: &mut Value| c["output"]["labels"][2]["channel"] = 4.into(),
            "the output has 4 channels, label label7 reads channel 4",
        ),
    ] {
        let error = error_of(opened(name, change));
        assert_eq!((error.kind(), error.detail()), (Kind::ModelShape, expected));
    }
    let two = altered("predict_crop.onnx", |c| c["inputs"].as_array_mut().unwrap().truncate(1));
    // The contract alone is wrong then: its mask is used by the crop only, which is allowed, but the model has an input more.
    let error = error_of(open_predictor(&two.1, &RuntimeOptions::default()));
    assert_eq!((error.kind(), error.detail()), (Kind::ModelShape, "the model has 2 inputs, the contract 1"));
}

#[test]
fn outputs_that_mean_nothing_are_errors() {
    if !has_runtime() {
        return;
    }
    let case = &expected("segmentations")[0];
    let run = |name: &str| open_segmenter(&model(name), &RuntimeOptions::default()).unwrap().segment(&volume(case), &Control::new());
    let error = error_of(run("not_finite.onnx"));
    assert_eq!((error.kind(), error.detail()), (Kind::RuntimeFailed, "the model's output is not finite"));
    assert_eq!(error_of(run("smaller_output.onnx")).kind(), Kind::ModelShape);
    // Logits that a contract calls probabilities.
    let (_folder, path) = altered("predict_fit.onnx", |c| {
        c["output"]["activation"] = "none".into();
        c["intensity"]["steps"] = serde_json::json!([{"step": "affine", "scale": 100, "shift": 0}]);
    });
    let all = expected("predictions");
    let mask = segmentation(digits(&all["mask"]), geometry(&all["cases"][0]));
    let predictor = open_predictor(&path, &RuntimeOptions::default()).unwrap();
    let error = error_of(predictor.predict(&volume(&all["cases"][0]), Some(&mask), &Control::new()));
    assert_eq!((error.kind(), error.detail()), (Kind::RuntimeFailed, "the positive value is no probability: it lies outside 0 to 1"));
}

#[test]
fn options_that_the_contract_does_not_allow_are_refused() {
    if !has_runtime() {
        return;
    }
    let kind = |path: &Path, options: RuntimeOptions| error_of(open_segmenter(path, &options)).kind();
    let path = model("slide.onnx");
    let plain = RuntimeOptions::default;
    assert_eq!(kind(&path, RuntimeOptions { window: Some([4, 4, 4]), ..plain() }), Kind::ConfigInvalidValue);
    assert_eq!(kind(&path, RuntimeOptions { overlap: Some(1.0), ..plain() }), Kind::ConfigInvalidValue);
    assert_eq!(kind(&path, RuntimeOptions { batch: Some(0), ..plain() }), Kind::ConfigInvalidValue);
    assert_eq!(kind(&path, RuntimeOptions { device: "tpu".into(), ..plain() }), Kind::ConfigInvalidValue);
    // The CPU wheel has no CUDA; a runtime that has it would fail for want of this device.
    assert_eq!(kind(&path, RuntimeOptions { device: "cuda:97".into(), ..plain() }), Kind::DeviceUnavailable);
    let (_folder, path) = altered("endless.onnx", |c| {
        c["grid"]["size"] = serde_json::json!({"rule": "sliding", "window": [8, 8, 8], "multiple": 4});
    });
    assert_eq!(kind(&path, RuntimeOptions { window: Some([8, 8, 6]), ..plain() }), Kind::ConfigInvalidValue);
    assert!(open_segmenter(&path, &RuntimeOptions { window: Some([4, 8, 12]), device: "auto".into(), ..plain() }).is_ok());
}

#[test]
fn the_runtime_says_what_it_is() {
    if !has_runtime() {
        return;
    }
    let (version, path) = runtime_facts(None).unwrap();
    assert!(version.starts_with("1."), "{version}");
    assert_eq!(path, PathBuf::from(std::env::var_os("ORT_DYLIB_PATH").unwrap()).canonicalize().unwrap());
    assert_eq!(providers(None)[0], "cpu");
    // One runtime per process: another one is an error, not a silent use of the first.
    let error = error_of(runtime_facts(Some(Path::new("/nowhere/libonnxruntime.so"))));
    assert_eq!(error.kind(), Kind::RuntimeFailed);
    let segmenter = open_segmenter(&model("slide.onnx"), &RuntimeOptions::default()).unwrap();
    assert_eq!(segmenter.identity().runtime, format!("onnxruntime {version}"));
    assert_eq!((segmenter.identity().name.as_str(), segmenter.identity().sha256.len()), ("slide", 64));
}

#[test]
fn files_are_judged_before_any_runtime_is_needed() {
    let kind = |path: &Path| error_of(open_segmenter(path, &RuntimeOptions::default())).kind();
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(kind(&folder.path().join("absent.onnx")), Kind::ModelUnreadable);
    assert_eq!(kind(folder.path()), Kind::ModelUnreadable);
    assert_eq!(kind(&model("elsewhere.onnx")), Kind::ModelUnreadable);
    let pickle = folder.path().join("model.pt");
    std::fs::write(&pickle, b"\x80\x02}q\x00.").unwrap();
    assert_eq!(kind(&pickle), Kind::ModelPickle);

    let alone = folder.path().join("alone.onnx");
    std::fs::copy(model("slide.onnx"), &alone).unwrap();
    assert_eq!(kind(&alone), Kind::ModelContract);
    let (_kept, path) = altered("slide.onnx", |contract| contract["sha256"] = "ab".repeat(32).into());
    assert_eq!(kind(&path), Kind::ModelDigest);
    assert_eq!(kind(&model("predict_crop.onnx")), Kind::ModelContract);
    // One bit of the weights: still a model, but not the one that the contract describes.
    let (_kept, path) = altered("slide.onnx", |_| {});
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(kind(&path), Kind::ModelDigest);
}

/// A real model on a real series. `tests/interop/meshnet_expected.py` makes the folder: volume, contract, model, and what numpy and
/// onnxruntime make of them. It takes a gigabyte or two, hence a variable of its own.
#[test]
fn a_real_model_segments_a_real_brain_as_the_second_implementation_does() {
    let Some(folder) = std::env::var_os("SMP_MESHNET_DIR").map(PathBuf::from) else {
        eprintln!("SKIPPED: SMP_MESHNET_DIR is not set (tests/interop/meshnet_expected.py makes the folder)");
        return;
    };
    if !has_runtime() {
        return;
    }
    let geometry = geometry(&serde_json::from_slice(&std::fs::read(folder.join("geometry.json")).unwrap()).unwrap());
    let bytes = std::fs::read(folder.join("volume.raw")).unwrap();
    let voxels = bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    let volume = Volume::from_parts(voxels, geometry, "MR").unwrap();
    let segmenter = open_segmenter(&folder.join("model.onnx"), &RuntimeOptions::default()).unwrap();
    let found = segmenter.segment(&volume, &Control::new()).unwrap();
    let expected = std::fs::read(folder.join("labels.raw")).unwrap();
    assert_eq!(found.labels().len(), expected.len());
    let differing = found.labels().iter().zip(&expected).filter(|(a, b)| a != b).count();
    eprintln!("{differing} of {} voxels differ; {:?}", expected.len(), found.table());
    for label in found.table() {
        let (mut both, mut sum) = (0u64, 0u64);
        for (ours, theirs) in found.labels().iter().zip(&expected) {
            both += u64::from(*ours == label.value && *theirs == label.value);
            sum += u64::from(*ours == label.value) + u64::from(*theirs == label.value);
        }
        let dice = 2.0 * both as f64 / sum as f64;
        assert!(dice >= 0.9999, "{}: dice {dice}", label.name);
    }
}
