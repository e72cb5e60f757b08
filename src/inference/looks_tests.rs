//! Slices, backgrounds, nested regions, ensembles, several looks, steps before the frame and locating passes, run for real against a second
//! implementation in numpy (`tests/interop/inference_looks_expected.py`). As in `tests`, nothing is run without ORT_DYLIB_PATH.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::imaging::{Channel, Verdict};

fn data(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(part)
}

fn model(name: &str) -> PathBuf {
    data("models/looks").join(name)
}

fn has_runtime() -> bool {
    let found = std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty());
    if !found {
        eprintln!("SKIPPED: ORT_DYLIB_PATH is not set, so no model can be run");
    }
    found
}

fn expected(part: &str) -> Value {
    let mut all: Value = serde_json::from_str(&std::fs::read_to_string(data("expected/inference_looks.json")).unwrap()).unwrap();
    all[part].take()
}

fn segmentation_case(name: &str) -> Value {
    expected("segmentations").as_array().unwrap().iter().find(|case| case["model"] == name).unwrap().clone()
}

fn numbers<const N: usize>(value: &Value) -> [usize; N] {
    std::array::from_fn(|i| value[i].as_u64().unwrap() as usize)
}

fn geometry(case: &Value) -> Geometry {
    let affine_lps: [[f64; 4]; 4] = std::array::from_fn(|r| std::array::from_fn(|c| case["affine"][r][c].as_f64().unwrap()));
    let spacing_mm = std::array::from_fn(|c| (0..3).map(|r| affine_lps[r][c] * affine_lps[r][c]).sum::<f64>().sqrt());
    Geometry { dims: numbers(&case["dims"]), spacing_mm, affine_lps, verdict: Verdict::Uniform }
}

/// Noise, lifted within boxes of columns, rows and slices.
fn volume(case: &Value) -> Volume {
    let geometry = geometry(case);
    let [width, height, depth] = geometry.dims;
    let (size, channels) = (width * height * depth, case["channels"].as_u64().unwrap_or(1) as usize);
    let boxes: Vec<[[usize; 2]; 3]> =
        case["boxes"].as_array().into_iter().flatten().map(|sides| std::array::from_fn(|axis| numbers(&sides[axis]))).collect();
    let lift = case["lift"].as_f64().unwrap_or(0.0) as f32;
    let voxels = (0..size * channels).map(|index| {
        let hashed = (index as u64 * 2_654_435_761) % (1 << 32);
        let place = [index % width, index / width % height, index % size / (width * height)];
        let inside = boxes.iter().any(|sides| sides.iter().zip(place).all(|([first, end], place)| (*first..*end).contains(&place)));
        (hashed >> 12) as f32 / 1024.0 - 300.0 + if inside { lift } else { 0.0 }
    });
    Volume::with_channels(voxels.collect(), vec![Channel::default(); channels].into(), geometry, "MR").unwrap()
}

fn digits(value: &Value) -> Vec<u8> {
    value.as_str().unwrap().bytes().map(|byte| byte - b'0').collect()
}

fn lesions(labels: &Value, geometry: Geometry) -> Segmentation {
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
    Segmentation { labels: Arc::new(digits(labels)), geometry, table: table.collect(), model, adaptations: Vec::new(), steps: Vec::new() }
}

/// Copies of a model and of the files that it needs, in a folder of their own, with the contract changed.
fn altered(name: &str, parts: &[&str], change: impl Fn(&mut Value)) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for part in parts.iter().chain([&name]) {
        std::fs::copy(model(part), folder.path().join(part)).unwrap();
    }
    let path = folder.path().join(name);
    let mut contract: Value = serde_json::from_slice(&std::fs::read(model(name).with_extension("json")).unwrap()).unwrap();
    change(&mut contract);
    std::fs::write(path.with_extension("json"), contract.to_string()).unwrap();
    (folder, path)
}

fn sha256(name: &str) -> String {
    file::read(&model(name), &RuntimeOptions::default()).unwrap().sha256
}

fn error_of<T>(result: Result<T>) -> Error {
    result.err().expect("an error")
}

fn segment(path: &Path, case: &Value, options: &RuntimeOptions) -> Result<Segmentation> {
    open_segmenter(path, options)?.segment(&volume(case), &Control::new())
}

#[test]
fn labels_are_those_of_the_second_implementation() {
    if !has_runtime() {
        return;
    }
    let cases = expected("segmentations");
    for case in cases.as_array().unwrap() {
        let name = case["model"].as_str().unwrap();
        let found = segment(&model(name), case, &RuntimeOptions::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let labels = digits(&case["labels"]);
        let differing = found.labels().iter().zip(&labels).filter(|(a, b)| a != b).count();
        assert_eq!((differing, found.labels().len()), (0, labels.len()), "{name}");
        assert_eq!(found.geometry(), &geometry(case), "{name}");
        for label in found.table() {
            assert_eq!(label.voxels, labels.iter().filter(|value| **value == label.value).count() as u64, "{name}");
        }
        assert!(found.adaptations().is_empty(), "{name}");
    }
}

#[test]
fn predictions_and_their_spread_are_those_of_the_second_implementation() {
    if !has_runtime() {
        return;
    }
    let all = expected("predictions");
    for case in all["cases"].as_array().unwrap() {
        let name = case["model"].as_str().unwrap();
        let predictor = open_predictor(&model(name), &RuntimeOptions::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(predictor.needs_mask(), case["masked"].as_bool().unwrap(), "{name}");
        let mask = lesions(&all["mask"], geometry(case));
        let found = predictor.predict(&volume(case), Some(&mask), &Control::new()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let near = |ours: f64, theirs: &Value| (ours - theirs.as_f64().unwrap()).abs() < 1e-5;
        assert_eq!(found.values.len(), case["values"].as_array().unwrap().len(), "{name}");
        for ((label, ours), theirs) in found.values.iter().zip(case["values"].as_array().unwrap()) {
            assert!(near(*ours, theirs), "{name} {label}: {ours} {theirs}");
        }
        match (&found.spread, case.get("spread")) {
            (None, None) => assert!(predictor.identity().members.is_empty(), "{name}"),
            (Some(ours), Some(theirs)) => {
                assert!(near(ours.std, &theirs["std"]), "{name}: {} {}", ours.std, theirs["std"]);
                let members = theirs["members"].as_array().unwrap();
                assert_eq!((ours.members.len(), predictor.identity().members.len()), (members.len(), members.len() - 1), "{name}");
                assert!(ours.members.iter().zip(members).all(|(ours, theirs)| near(*ours, theirs)), "{name}: {:?}", ours.members);
            }
            _ => panic!("{name}: a spread where there is none, or the other way round"),
        }
    }
}

#[test]
fn thread_counts_change_no_bit() {
    if !has_runtime() {
        return;
    }
    let (segmentations, predictions) = (expected("segmentations"), expected("predictions"));
    let mut before: Option<Vec<u64>> = None;
    for threads in [1, 2, 5] {
        let options = RuntimeOptions { threads, ..RuntimeOptions::default() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let bits = pool.install(|| {
            for case in segmentations.as_array().unwrap() {
                let name = case["model"].as_str().unwrap();
                assert!(segment(&model(name), case, &options).unwrap().labels() == digits(&case["labels"]), "{name} {threads}");
            }
            let mut bits = Vec::new();
            for case in predictions["cases"].as_array().unwrap() {
                let predictor = open_predictor(&model(case["model"].as_str().unwrap()), &options).unwrap();
                let mask = lesions(&predictions["mask"], geometry(case));
                let found = predictor.predict(&volume(case), Some(&mask), &Control::new()).unwrap();
                bits.extend(found.values.iter().map(|(_, value)| value.to_bits()));
                bits.extend(found.spread.iter().flat_map(|spread| spread.members.iter().chain([&spread.std])).map(|value| value.to_bits()));
            }
            bits
        });
        assert!(before.is_none_or(|before| before == bits), "{threads}");
        before = Some(bits);
    }
}

#[test]
fn slices_run_several_at_once_where_the_configuration_asks_for_it() {
    if !has_runtime() {
        return;
    }
    for name in ["slices_fit.onnx", "slices_stretch.onnx", "slices_whole.onnx", "slices_slide.onnx"] {
        let case = segmentation_case(name);
        let options = RuntimeOptions { batch: Some(4), ..RuntimeOptions::default() };
        assert!(segment(&model(name), &case, &options).unwrap().labels() == digits(&case["labels"]), "{name}");
    }
    // A model with a fixed batch takes fewer, and never more.
    let case = segmentation_case("slices_half.onnx");
    let with = |batch| segment(&model("slices_half.onnx"), &case, &RuntimeOptions { batch: Some(batch), ..RuntimeOptions::default() });
    assert!(with(1).unwrap().labels() == digits(&case["labels"]));
    assert_eq!(error_of(with(3)).kind(), Kind::ConfigInvalidValue);
}

#[test]
fn windows_of_slices_stay_slices() {
    if !has_runtime() {
        return;
    }
    let case = segmentation_case("slices_any.onnx");
    let with = |window| segment(&model("slices_any.onnx"), &case, &RuntimeOptions { window: Some(window), ..RuntimeOptions::default() });
    assert!(with([1, 6, 4]).unwrap().labels() == digits(&case["labels"]));
    assert!(with([1, 4, 6]).unwrap().labels() != digits(&case["labels"]));
    assert_eq!(error_of(with([2, 6, 4])).kind(), Kind::ConfigInvalidValue);
    assert_eq!(error_of(with([1, 5, 4])).kind(), Kind::ConfigInvalidValue);
}

#[test]
fn a_study_of_nothing_but_background_has_no_label() {
    if !has_runtime() {
        return;
    }
    let mut case = segmentation_case("background.onnx");
    case["boxes"] = json!([]);
    let found = segment(&model("background.onnx"), &case, &RuntimeOptions::default()).unwrap();
    assert!(found.labels().iter().all(|label| *label == 0));
}

#[test]
fn results_name_what_took_part() {
    if !has_runtime() {
        return;
    }
    let members = |name: &str| open_segmenter(&model(name), &RuntimeOptions::default()).unwrap().identity().members.clone();
    assert_eq!(members("ensemble.onnx"), [sha256("fold_b.onnx"), sha256("fold_c.onnx")]);
    assert_eq!(members("located.onnx"), [sha256("located_bbox.onnx")]);
    assert!(members("slices_slide.onnx").is_empty());
    let case = segmentation_case("filtered.onnx");
    let found = segment(&model("filtered.onnx"), &case, &RuntimeOptions::default()).unwrap();
    assert_eq!(found.steps().iter().map(|step| step.name).collect::<Vec<_>>(), ["median", "gaussian"]);
    let plain = segment(&model("nested.onnx"), &segmentation_case("nested.onnx"), &RuntimeOptions::default()).unwrap();
    assert!(plain.steps().is_empty());
}

#[test]
fn progress_of_two_passes_is_that_of_one_stage() {
    if !has_runtime() {
        return;
    }
    let case = segmentation_case("located_slide.onnx");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let control = Control::with_listener(move |stage, fraction| told.lock().unwrap().push((stage, fraction)));
    open_segmenter(&model("located_slide.onnx"), &RuntimeOptions::default()).unwrap().segment(&volume(&case), &control).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(stage, _)| *stage == "segment"));
    assert!(seen.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{seen:?}");
    assert_eq!(seen.last().map(|(_, fraction)| *fraction), Some(1.0));
}

#[test]
fn ensembles_whose_members_do_not_fit_are_refused() {
    if !has_runtime() {
        return;
    }
    let case = segmentation_case("ensemble.onnx");
    let run = |parts: &[&str], change: &dyn Fn(&mut Value)| {
        let (_folder, path) = altered("ensemble.onnx", parts, change);
        let error = error_of(segment(&path, &case, &RuntimeOptions::default()));
        (error.kind(), error.detail().to_owned())
    };
    let (kind, detail) = run(&["fold_b.onnx"], &|_| {});
    assert_eq!((kind, detail.as_str()), (Kind::ModelUnreadable, "ensemble[1]: no such file"));
    let (kind, detail) = run(&["fold_b.onnx", "fold_c.onnx"], &|contract| contract["ensemble"][0]["sha256"] = "ab".repeat(32).into());
    assert!(kind == Kind::ModelDigest && detail.starts_with("ensemble[0]: sha256 "), "{detail}");
    let with = |name: &str| {
        run(&["fold_b.onnx", name], &|contract| {
            contract["ensemble"][1] = json!({"file": name, "sha256": sha256(name)});
        })
    };
    // A member that takes another number of channels, that gives another number, that takes another number of windows.
    let (kind, detail) = with("fold_pair.onnx");
    assert_eq!((kind, detail.as_str()), (Kind::ModelShape, "ensemble[1]: volume takes 2 channels, the contract gives 1"));
    let (kind, detail) = with("fold_five.onnx");
    assert_eq!((kind, detail.as_str()), (Kind::ModelShape, "ensemble[1]: gives another output than the first"));
    let (kind, detail) = with("fold_fixed.onnx");
    assert!(kind == Kind::ModelShape && detail.starts_with("ensemble[1]: "), "{detail}");
    // A file elsewhere than beside the model.
    let (kind, detail) = run(&["fold_b.onnx", "fold_c.onnx"], &|contract| contract["ensemble"][0]["file"] = "../fold_b.onnx".into());
    assert!(kind == Kind::ModelContract && detail.starts_with("ensemble[0].file"), "{detail}");
}

#[test]
fn a_pass_that_finds_nothing_is_an_error() {
    if !has_runtime() {
        return;
    }
    let case = segmentation_case("located.onnx");
    let run = |parts: &[&str], change: &dyn Fn(&mut Value)| {
        let (_folder, path) = altered("located.onnx", parts, change);
        error_of(segment(&path, &case, &RuntimeOptions::default()))
    };
    let nothing = run(&["located_bbox.onnx"], &|contract| contract["locate"]["output"]["threshold"] = 1.into());
    assert_eq!(nothing.kind(), Kind::InputImplausible);
    // Some was found, but in no plane enough.
    let little = run(&["located_bbox.onnx"], &|contract| contract["locate"]["plane_fraction"] = 1.into());
    assert_eq!(little.kind(), Kind::InputImplausible);
    let missing = run(&[], &|_| {});
    assert_eq!((missing.kind(), missing.detail()), (Kind::ModelUnreadable, "locate: no such file"));
    let other = run(&["located_bbox.onnx"], &|contract| contract["locate"]["sha256"] = "ab".repeat(32).into());
    assert!(other.kind() == Kind::ModelDigest && other.detail().starts_with("locate: "), "{other}");
    let unclipped = run(&["located_bbox.onnx"], &|contract| contract["locate"]["intensity"]["steps"] = json!([{"step": "zscore"}]));
    assert_eq!(unclipped.kind(), Kind::ModelContract);
}

#[test]
fn slices_and_volumes_are_not_taken_for_one_another() {
    if !has_runtime() {
        return;
    }
    let opened = |name: &str, layout: &str, size: Value| {
        let (_folder, path) = altered(name, &[], |contract| {
            contract["grid"]["layout"] = layout.into();
            contract["grid"]["size"] = size.clone();
        });
        error_of(open_segmenter(&path, &RuntimeOptions::default()))
    };
    let error = opened("background.onnx", "NCHW", json!({"rule": "sliding", "window": [4, 5]}));
    assert_eq!((error.kind(), error.detail()), (Kind::ModelShape, "volume has 5 dimensions, the layout has 4"));
    let error = opened("slices_slide.onnx", "NCDHW", json!({"rule": "sliding", "window": [1, 5, 6]}));
    assert_eq!((error.kind(), error.detail()), (Kind::ModelShape, "volume has 4 dimensions, the layout has 5"));
    let error = opened("slices_slide.onnx", "NCHW", json!({"rule": "sliding", "window": [6, 5]}));
    assert_eq!((error.kind(), error.detail()), (Kind::ModelShape, "volume takes 5 voxels along H, it would get 6"));
    let error = opened("slices_slide.onnx", "NCHW", json!({"rule": "sliding", "window": [1, 5, 6]}));
    assert_eq!(error.kind(), Kind::ModelContract);
    // A layer of another slice, which a volume's model cannot have.
    let (_folder, path) = altered("background.onnx", &[], |contract| contract["inputs"][0]["channels"] = json!(["volume@1"]));
    assert_eq!(error_of(open_segmenter(&path, &RuntimeOptions::default())).kind(), Kind::ModelContract);
}

#[test]
fn a_model_may_hold_its_contract() {
    if !has_runtime() {
        return;
    }
    let (path, options) = (model("embedded.onnx"), RuntimeOptions::default());
    let segmenter = open_segmenter(&path, &options).unwrap();
    let identity = segmenter.identity();
    assert_eq!((identity.name.as_str(), identity.version.as_str()), ("within", "2.1.0"));
    assert_eq!((&identity.sha256, read_contract(&path, &options).unwrap().sha256), (&sha256("embedded.onnx"), sha256("embedded.onnx")));
    let told = inspect(&path, &options).unwrap();
    assert_eq!(told.contract.as_ref().map(|contract| contract.name.as_str()), Ok("within"));
    assert!(told.metadata.contains(&("trained".to_owned(), "never".to_owned())), "{:?}", told.metadata);
    assert_eq!(told.to_json()["contract"], json!({"name": "within", "version": "2.1.0", "task": "segment"}));
    // The file beside it, when there is one, is the contract; a broken one is an error and not passed over.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("embedded.onnx");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::write(copy.with_extension("json"), "{}").unwrap();
    assert_eq!(error_of(open_segmenter(&copy, &options)).kind(), Kind::ModelContract);
}

#[test]
fn a_draft_holds_what_the_file_tells_and_lists_what_it_does_not() {
    if !has_runtime() {
        return;
    }
    let options = RuntimeOptions::default();
    let told = inspect(&model("fold_b.onnx"), &options).unwrap();
    assert_eq!((told.format, &told.sha256), ("onnx", &sha256("fold_b.onnx")));
    assert_eq!(told.bytes, std::fs::metadata(model("fold_b.onnx")).unwrap().len());
    let port = |name: &str, shape: &[i64]| Port { name: name.into(), element: "float32".into(), shape: shape.to_vec() };
    assert_eq!((told.inputs, told.outputs), (vec![port("volume", &[-1, 1, 3, 4, 5])], vec![port("logits", &[-1, 4, 3, 4, 5])]));
    assert!(told.contract.as_ref().is_err_and(|why| why.contains("no such file")), "{:?}", told.contract.as_ref().err());
    let draft = &told.draft;
    assert_eq!((&draft["task"], &draft["name"], &draft["sha256"]), (&json!("segment"), &json!("fold_b"), &json!(told.sha256)));
    assert_eq!(draft["inputs"], json!([{"name": "volume", "channels": ["volume"]}]));
    assert_eq!((&draft["grid"]["layout"], &draft["grid"]["size"]["window"]), (&json!("NCDHW"), &json!([3, 4, 5])));
    assert_eq!(draft["output"]["name"], "logits");
    for key in ["version", "grid.orientation", "grid.axes", "grid.spacing_mm", "intensity.steps", "output.activation", "output.labels"] {
        assert!(told.unknown.contains(&key), "{key}");
        let place = key.split('.').fold(draft, |value, part| &value[part]);
        assert!(place.is_null(), "{key}: {place}");
    }
    assert!(!told.unknown.contains(&"grid.size") && !told.unknown.contains(&"grid.layout"));
    // A draft is no contract yet; with its gaps filled it is one.
    let mut contract = draft.clone();
    assert_eq!(error_of(Contract::read(contract.to_string().as_bytes())).kind(), Kind::ModelContract);
    contract["version"] = "1".into();
    contract["grid"]["axes"] = "zyx".into();
    contract["intensity"]["steps"] = json!([{"step": "zscore"}]);
    contract["output"]["activation"] = "argmax".into();
    contract["output"]["labels"] = json!([{"channel": 1, "value": 1, "name": "lesion"}]);
    contract.as_object_mut().unwrap().remove("plausibility");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("fold_b.onnx");
    std::fs::copy(model("fold_b.onnx"), &copy).unwrap();
    std::fs::write(copy.with_extension("json"), contract.to_string()).unwrap();
    assert!(open_segmenter(&copy, &options).is_ok());
}

#[test]
fn drafts_leave_open_what_a_model_leaves_open() {
    if !has_runtime() {
        return;
    }
    let options = RuntimeOptions::default();
    let slices = inspect(&model("slices_whole.onnx"), &options).unwrap();
    assert_eq!((&slices.draft["grid"]["layout"], &slices.draft["grid"]["size"]), (&json!("NHWC"), &Value::Null));
    assert!(slices.unknown.contains(&"grid.size"));
    let predictor = inspect(&model("judge_b.onnx"), &options).unwrap();
    assert_eq!(predictor.draft["task"], "predict");
    assert_eq!(predictor.draft["grid"]["size"], json!({"rule": "fit", "shape": [3, 4, 5]}));
    let names: Vec<&str> = predictor.draft["inputs"].as_array().unwrap().iter().filter_map(|input| input["name"].as_str()).collect();
    assert_eq!((names, predictor.unknown.contains(&"inputs[].channels")), (vec!["volume", "mask"], true));
}
