//! The two contracts of the guide are read, and each mistake is named.

use super::*;
use crate::error::Kind;
use crate::imaging::Region;

/// The JSON examples of docs/model-contract.md, in their order.
fn examples() -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/model-contract.md")).unwrap();
    text.split("```json\n").skip(1).map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

fn detail(text: &str) -> String {
    let error = Contract::read(text.as_bytes()).expect_err(text);
    assert_eq!(error.kind(), Kind::ModelContract);
    error.detail().to_owned()
}

/// An example with one piece of text replaced.
fn changed(example: usize, from: &str, to: &str) -> String {
    let text = examples().remove(example);
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

#[test]
fn the_guides_examples_are_read_as_they_say() {
    let [segment, predict] = examples().try_into().unwrap();
    let segment = Contract::read(segment.as_bytes()).unwrap();
    assert_eq!((segment.task, segment.name.as_str(), segment.grid.axes), (Task::Segment, "demo-lesion-unet", [2, 1, 0]));
    assert_eq!(
        segment.grid.size,
        Size::Sliding { window: [32, 64, 64], overlap: 0.25, gaussian: true, batch: 1, multiple: None, pad: 0.0, background: None }
    );
    assert_eq!(segment.intensity, [Intensity::Operation(Operation::Zscore { over: Region::All, ddof: 0 })]);
    assert_eq!(segment.output.labels, [OutputLabel { channel: 1, value: 1, name: "lesion".into(), code: None }]);
    assert_eq!(segment.believed_ml, [("lesion".into(), 0.0, 200.0)]);
    assert!(!segment.needs_mask() && !segment.from_raw);

    let predict = Contract::read(predict.as_bytes()).unwrap();
    assert_eq!(predict.inputs.len(), 2);
    assert_eq!((predict.output.positive, predict.needs_mask()), (Some(0), true));
    assert_eq!(predict.grid.size, Size::Crop { shape: [16, 32, 32], pad: 0.0, around: Around::Largest });
}

#[test]
fn every_mistake_is_named_by_its_key() {
    for (example, from, to, expected) in [
        (0, "\"contract\": 1", "\"contract\": 2", "contract: expected 1, the version of the format that this build knows"),
        (0, "\"task\": \"segment\"", "\"task\": \"detect\"", "task: expected one of segment, predict"),
        (0, "\"name\": \"demo-lesion-unet\",", "", "name: the key is missing"),
        (0, "\"version\": \"0.1.0\"", "\"version\": \"\"", "version: expected text of 1 to 128 characters"),
        (0, "\"0000", "\"00g0", "sha256: expected 64 hexadecimal digits"),
        (0, "\"NCDHW\"", "\"NCXHW\"", "grid.layout: expected one of NCDHW, NDHWC, NCHW, NHWC"),
        (0, "\"LPS\"", "\"LPR\"", "grid.orientation: expected one letter each of R or L, A or P, S or I, or null"),
        (0, "\"zyx\"", "\"zyy\"", "grid.axes: expected a permutation of xyz"),
        (0, "\"spacing_mm\": null", "\"spacing_mm\": [1, 0, 1]", "grid.spacing_mm: expected a number or three, each from 0.01 to 100"),
        (0, "\"rule\": \"sliding\"", "\"rule\": \"crop\"", "grid.size.rule: expected sliding only to segment, crop only to predict"),
        (0, "[32, 64, 64]", "[32, 64]", "grid.size.window: expected three whole numbers from 1 to 4096"),
        (0, "[32, 64, 64]", "[32, 64, 0]", "grid.size.window: expected three whole numbers from 1 to 4096"),
        (0, "\"batch\": 1", "\"batch\": 1, \"multiple\": 20", "grid.size.window: expected multiples of grid.size.multiple"),
        (0, "\"overlap\": 0.25", "\"overlap\": 1.0", "grid.size.overlap: expected a number from 0 to 0.95"),
        (0, "\"overlap\"", "\"overlab\"", "grid.size.overlab: unknown key"),
        (
            0,
            "{ \"step\": \"zscore\" }",
            "{ \"step\": \"zscor\" }",
            "intensity.steps[0].step: expected one of n4, nlm, gaussian, median, gradient_diffusion, curvature_diffusion, total_variation, \
             resample, reorient, fit, percentile_clip, zscore, minmax, clamp, affine, window, nyul, white_stripe, match_histogram, clahe",
        ),
        (0, "{ \"step\": \"zscore\" }", "{ \"step\": \"clamp\", \"lo\": 2, \"hi\": 1 }", "intensity.steps[0].lo: expected less than hi"),
        (0, "\"steps\"", "\"step\"", "intensity.steps: the key is missing"),
        (0, "\"preprocessed\"", "\"cooked\"", "intensity.voxels: expected one of preprocessed, raw"),
        (0, "\"value\": 1", "\"value\": 256", "output.labels[0].value: expected a whole number from 1 to 255"),
        (0, "\"channel\": 1, ", "", "output.labels[0].channel: the key is missing"),
        (0, "\"softmax\"", "\"softmax\", \"threshold\": 1.5", "output.threshold: expected a number from 0 to 1"),
        (0, "\"connectivity\": 26", "\"connectivity\": 8", "postprocess[0].connectivity: expected 6, 18 or 26"),
        (
            0,
            "{ \"name\": \"lesion\", \"min\"",
            "{ \"name\": \"liver\", \"min\"",
            "plausibility.labels_ml: expected names that output.labels has",
        ),
        (
            0,
            "[\"volume\"]",
            "[\"volume\", \"mask\"]",
            "inputs: expected one input whose channels are the volume's, since the task is segment",
        ),
        (0, "\"card\"", "\"colour\"", "colour: unknown key"),
        (
            1,
            "\"mask\": { \"labels\": [\"lesion\"], \"allow_empty\": false },",
            "",
            "mask: expected an object, since the model takes a mask",
        ),
        (
            0,
            "{ \"step\": \"zscore\" }",
            "{ \"step\": \"median\" }",
            "intensity.steps[0].step: expected a step that changes intensities only",
        ),
        (0, "{ \"step\": \"zscore\" }", "{ \"step\": \"clip_as_located\" }", "locate: expected an object, since a step clips as located"),
        (0, "[\"volume\"]", "[\"volume@1\"]", "inputs: expected volume@K only where grid.layout is one of slices, NCHW or NHWC"),
        (0, "\"NCDHW\"", "\"NCHW\"", "grid.size.window: expected a list of 2 to 2 numbers"),
        (0, "\"softmax\"", "\"softmax\", \"wins\": \"last\"", "output.wins: expected largest, since there is no threshold"),
        (
            0,
            "\"card\"",
            "\"ensemble\": [{ \"file\": \"../other.onnx\", \"sha256\": \"00\" }], \"card\"",
            "ensemble[0].file: expected the name of a file beside the model, without a folder",
        ),
        (
            0,
            "\"card\"",
            "\"preprocess\": [{ \"step\": \"nlm\", \"sigma\": 0 }], \"card\"",
            "preprocess[0].sigma: expected a number from 0.000000001 to 1000000000",
        ),
        (
            1,
            "\"sigmoid\"",
            "\"sigmoid\", \"reduce\": \"max\"",
            "output.reduce: expected no such key, since the model looks once at a study",
        ),
        (1, "\"largest\"", "\"each\"", "output.reduce: expected max or mean, since the model looks at each component"),
        (
            1,
            "\"sigmoid\"",
            "\"sigmoid\", \"calibration\": { \"isotonic\": [[0, 0.1], [0, 1]] }",
            "output.calibration.isotonic: expected 2 to 10000 pairs from 0 to 1, ascending",
        ),
        (1, "\"positive\": \"malignant\"", "\"positive\": \"benign\"", "output.positive: expected a name that output.labels has"),
        (1, "\"sigmoid\"", "\"argmax\"", "output.activation: expected none, sigmoid or softmax, since the task is predict"),
        (1, "\"name\": \"mask\"", "\"name\": \"volume\"", "inputs: expected names that differ"),
        (
            1,
            "[\"mask\"]",
            "[\"depth\"]",
            "inputs[1].channels: expected volume, volume:N with N from 0, volume@K with K slices from -16 to 16, or mask",
        ),
        (
            1,
            "[\"mask\"]",
            "[\"volume:-1\"]",
            "inputs[1].channels: expected volume, volume:N with N from 0, volume@K with K slices from -16 to 16, or mask",
        ),
    ] {
        assert_eq!(detail(&changed(example, from, to)), expected);
    }
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let text = changed(0, "\"task\": \"segment\",", "\"task\": \"segment\",\n  \"sha256\": \"1111\",");
    assert!(detail(&text).starts_with("not valid json, or a key stands twice, at line "));
}

#[test]
fn text_that_is_no_contract_is_an_error_and_no_panic() {
    let deep = "[".repeat(100_000);
    for text in ["", "null", "[]", "{", "{}", "{\"contract\": 1} x", "\u{0}", deep.as_str()] {
        assert!(!detail(text).is_empty());
    }
    assert_eq!(Contract::read(&[0xff, 0xfe, b'{']).unwrap_err().kind(), Kind::ModelContract);
}
