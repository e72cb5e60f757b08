//! Models on a CUDA device, beside the CPU: labels, memory, time. Needs a device and a runtime that was built for it: set SMP_TEST_CUDA=1 and
//! ORT_DYLIB_PATH. Without them, what is tested is the answer to somebody who asks for what is not there.

mod support;

use std::path::{Path, PathBuf};
use std::time::Instant;

use smp::error::Kind;
use smp::pipeline::{self, StudyResult};
use support::Site;

fn has_cuda() -> bool {
    std::env::var("SMP_TEST_CUDA").is_ok_and(|value| value == "1")
}

/// A site whose study is the made-up one, and the demonstration pair.
fn demonstration(device: &str) -> Option<Site> {
    let runtime = support::onnx_runtime()?;
    let mut site = Site::new();
    support::study::write(&site.path("study"));
    site.seal(&site.path("study"), "studies/one");
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    for (key, value) in [
        ("segment_model_path", models.join("segment.onnx")),
        ("model_path", models.join("predict.onnx")),
        ("inference.runtime_library", runtime),
        ("device", PathBuf::from(device)),
    ] {
        site.config.set(key, value.to_str().unwrap()).unwrap();
    }
    Some(site)
}

fn segmented(site: &Site, study: &str) -> Result<StudyResult, smp::error::Error> {
    let mut request = pipeline::Request::new(Some(study));
    request.set("operations", "load,anonymize,preprocess,segment").unwrap();
    site.pipeline().process_study(&request)
}

fn labels(result: &StudyResult) -> Vec<u8> {
    result.mask().expect("a mask").labels().to_vec()
}

fn segmentation_json(result: &StudyResult) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_str(&result.json().unwrap()).unwrap();
    json["segmentation"].clone()
}

fn dice(a: &[u8], b: &[u8]) -> f64 {
    let both = a.iter().zip(b).filter(|(a, b)| **a != 0 && a == b).count();
    let all = a.iter().filter(|v| **v != 0).count() + b.iter().filter(|v| **v != 0).count();
    if all == 0 { 1.0 } else { 2.0 * both as f64 / all as f64 }
}

#[test]
fn cuda_that_is_not_there_is_an_error_and_never_the_cpu() {
    if has_cuda() {
        return;
    }
    let Some(site) = demonstration("cuda") else { return };
    let error = segmented(&site, "studies/one").err().expect("no device");
    assert_eq!(error.kind(), Kind::DeviceUnavailable, "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("auto or cpu")), "{error}");
    // `auto` may take the CPU, and says that it did.
    let Some(site) = demonstration("auto") else { return };
    assert_eq!(segmentation_json(&segmented(&site, "studies/one").unwrap())["model"]["device"], "cpu");
    let Some(mut site) = demonstration("cuda") else { return };
    site.config.set("inference.providers", "tensorrt").unwrap();
    assert_eq!(segmented(&site, "studies/one").err().map(|error| error.kind()), Some(Kind::DeviceUnavailable));
}

#[test]
fn the_demonstration_pair_agrees_with_the_cpu() {
    if !has_cuda() {
        return support::skipped("no CUDA device (SMP_TEST_CUDA=1 says that there is one): nothing was run on a GPU");
    }
    let (cpu, cuda) = (demonstration("cpu").unwrap(), demonstration("cuda").unwrap());
    let run = |site: &Site| {
        let mut request = pipeline::Request::new(Some("studies/one"));
        request.set("operations", "load,anonymize,preprocess,segment,predict").unwrap();
        site.pipeline().process_study(&request).unwrap()
    };
    let (on_cpu, on_cuda) = (run(&cpu), run(&cuda));
    assert_eq!(segmentation_json(&on_cuda)["model"]["device"], "cuda:0");
    let agreement = dice(&labels(&on_cpu), &labels(&on_cuda));
    let (a, b) = (on_cpu.cancer_probability().unwrap(), on_cuda.cancer_probability().unwrap());
    println!("MEASURED demonstration pair: dice {agreement:.6}, probability cpu {a:.6} cuda {b:.6}");
    assert!(agreement >= 0.999 && (a - b).abs() < 1e-3);
    // From run to run the device gives the same bits.
    assert_eq!(labels(&run(&cuda)), labels(&on_cuda));
}

#[test]
fn deepbet_agrees_with_the_cpu_and_fits_into_less_memory_only_by_saying_so() {
    if !has_cuda() {
        return support::skipped("no CUDA device: deepbet was not run on a GPU");
    }
    let (Some(data), Some(runtime)) = (support::test_data(), support::onnx_runtime()) else { return };
    let mut site = Site::new();
    for name in ["deepbet_model.onnx", "deepbet_bbox.onnx"] {
        std::fs::copy(data.join("../models").join(name), site.path(name)).unwrap();
    }
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/contracts/deepbet_model.json");
    std::fs::copy(contract, site.path("deepbet_model.json")).unwrap();
    site.seal(&data.join("mr_t1_philips_mprage"), "studies/head");
    site.config.set("segment_model_path", site.path("deepbet_model.onnx").to_str().unwrap()).unwrap();
    site.config.set("inference.runtime_library", runtime.to_str().unwrap()).unwrap();
    let mut masks = Vec::new();
    for device in ["cpu", "cuda"] {
        site.config.set("device", device).unwrap();
        let pipeline = site.pipeline();
        for round in ["first", "second", "third"].iter().take(if device == "cpu" { 1 } else { 3 }) {
            let mut request = pipeline::Request::new(Some("studies/head"));
            request.set("operations", "load,anonymize,segment").unwrap();
            let started = Instant::now();
            let result = pipeline.process_study(&request).unwrap();
            let segment = result.stage_seconds("segment").unwrap();
            println!("MEASURED deepbet on {device}, {round}: segment {segment:.3} s, study {:.3} s", started.elapsed().as_secs_f64());
            masks.push(labels(&result));
        }
    }
    let agreement = dice(&masks[0], &masks[1]);
    println!("MEASURED deepbet: dice of cuda with cpu {agreement:.6}");
    assert!(agreement >= 0.999);
    assert!(masks[1] == masks[2] && masks[2] == masks[3], "the device gives the same bits from run to run");

    // A whole volume cannot be made smaller: with too little memory `cuda` is an error, `auto` goes on on the CPU and says so.
    site.config.set("inference.device_memory_mib", "150").unwrap();
    site.config.set("device", "cuda").unwrap();
    assert_eq!(segmented(&site, "studies/head").err().map(|error| error.kind()), Some(Kind::DeviceOutOfMemory));
    site.config.set("device", "auto").unwrap();
    let json = segmentation_json(&segmented(&site, "studies/head").unwrap());
    println!("MEASURED deepbet, auto with 150 MiB: {} on {}", json["adaptations"], json["model"]["device"]);
    assert_eq!(json["model"]["device"], "cpu");
    assert!(json["adaptations"].to_string().contains("the cpu instead"));
}

#[test]
fn windows_become_fewer_and_smaller_until_they_fit() {
    if !has_cuda() {
        return support::skipped("no CUDA device: the ladder of a want of memory was not walked on a GPU");
    }
    let Some(data) = support::test_data() else { return };
    let mut site = demonstration("cuda").unwrap();
    site.seal(&data.join("mr_t1_philips_mprage"), "studies/head");
    // The same network with windows of other sizes allowed, many at once, and no opinion on how much lesion a head has.
    let mut contract: serde_json::Value =
        serde_json::from_slice(&std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/segment.json")).unwrap()).unwrap();
    contract["grid"]["size"]["multiple"] = 16.into();
    contract["plausibility"] = serde_json::json!({ "modality": ["MR"] });
    std::fs::write(site.path("segment.json"), contract.to_string()).unwrap();
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/segment.onnx"), site.path("segment.onnx")).unwrap();
    site.config.set("segment_model_path", site.path("segment.onnx").to_str().unwrap()).unwrap();
    site.config.set("inference.window", "128,128,128").unwrap();
    site.config.set("inference.batch", "8").unwrap();
    let roomy = segmented(&site, "studies/head").unwrap();
    assert!(segmentation_json(&roomy)["adaptations"].as_array().unwrap().is_empty());
    println!("MEASURED demonstration network on the head, cuda, 8 windows of 128: {:.3} s", roomy.stage_seconds("segment").unwrap());
    site.config.set("inference.device_memory_mib", "400").unwrap();
    let tight = segmented(&site, "studies/head").unwrap();
    let json = segmentation_json(&tight);
    println!("MEASURED the same with 400 MiB: {:.3} s, {}", tight.stage_seconds("segment").unwrap(), json["adaptations"]);
    assert_eq!(json["model"]["device"], "cuda:0");
    assert!(!json["adaptations"].as_array().unwrap().is_empty());
    site.config.set("inference.device_memory_mib", "").ok();
    site.config.set("device", "cpu").unwrap();
    let cpu = segmented(&site, "studies/head").unwrap();
    println!("MEASURED the same on the cpu: {:.3} s", cpu.stage_seconds("segment").unwrap());
}
