//! The TorchScript backend against libtorch itself: models and expected values come from `make_model.cpp`, which calls libtorch's operators
//! directly. They run where SMP_TORCHSCRIPT_TESTS names the folder that `backends/torchscript/tests/run.sh` made.

use std::path::PathBuf;

use super::*;
use crate::inference::RuntimeOptions;
use crate::inference::file::{self, Format};
use crate::inference::torch_file;
use std::time::{Duration, Instant};

/// The backend, and the folder with the models; `None` where they were not built.
fn built() -> Option<(Backend, PathBuf)> {
    let Some(folder) = std::env::var_os("SMP_TORCHSCRIPT_TESTS").map(PathBuf::from) else {
        eprintln!("SKIPPED: SMP_TORCHSCRIPT_TESTS is not set; backends/torchscript/tests/run.sh builds what is needed");
        return None;
    };
    Some((search::search(Some(&folder), None).unwrap(), folder.join("models")))
}

/// Element i of the field with a number, as `make_model.cpp` has it.
fn field(seed: i64, length: i64) -> Vec<f32> {
    (0..length).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1024.0 - 0.5).collect()
}

const SIDES: [i64; 5] = [1, 1, 20, 22, 24];
const LENGTH: i64 = 20 * 22 * 24;

fn open(backend: &Backend, models: &Path, name: &str, threads: usize) -> BackendModel {
    let file = file::read(&models.join(name), &RuntimeOptions::default()).unwrap();
    assert_eq!(file.format, Format::TorchScript);
    backend.open(&file.bytes, "cpu", threads).unwrap()
}

fn run(model: &BackendModel, inputs: &[(&str, &[f32])], output: &str) -> Result<(Vec<i64>, Vec<u32>)> {
    let tensors: Vec<Tensor> = inputs.iter().map(|(name, values)| Tensor { name, shape: SIDES.to_vec(), values }).collect();
    model.run(&tensors, output, &Control::new(), |shape, values| Ok((shape.to_vec(), values.iter().map(|value| value.to_bits()).collect())))
}

fn expected(models: &Path, name: &str) -> Vec<u32> {
    let bytes = std::fs::read(models.join(format!("{name}.expected"))).unwrap();
    bytes.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn outputs_are_libtorchs_own_bit_for_bit_for_any_threads_and_from_the_first_run_on() {
    let Some((backend, models)) = built() else { return };
    eprintln!("{}", backend.version());
    let x = field(5, LENGTH);
    for (name, output, file, shape) in [
        ("net", "logits", "net", &[1, 2, 20, 22, 24][..]),
        ("net", "anything", "net", &[1, 2, 20, 22, 24]),
        ("dict", "logits", "net", &[1, 2, 20, 22, 24]),
        ("dict", "labels", "dict.labels", &[1, 20, 22, 24]),
        ("tuple", "0", "net", &[1, 2, 20, 22, 24]),
        ("tuple", "1", "tuple.1", &[1, 2, 20, 22, 24]),
        ("wide", "out", "wide", &[1, 3, 20, 22, 22]),
    ] {
        for threads in [1, 2, 0] {
            let model = open(&backend, &models, &format!("{name}.pt"), threads);
            assert_eq!(model.inputs().unwrap(), ["x"]);
            assert_eq!(model.outputs(), None);
            for input in ["x", "x", "volume"] {
                let (found, values) = run(&model, &[(input, &x)], output).unwrap();
                assert_eq!(found, shape, "{name}.{output}");
                assert!(values == expected(&models, file), "{name}.{output}, {threads} threads");
            }
        }
    }
}

#[test]
fn inputs_go_by_name_and_arguments_with_a_default_may_be_left_out() {
    let Some((backend, models)) = built() else { return };
    let model = open(&backend, &models, "predictor.pt", 1);
    assert_eq!(model.inputs().unwrap(), ["volume", "mask", "scale"]);
    let x = field(5, LENGTH);
    let mask: Vec<f32> = field(6, LENGTH).iter().map(|value| f32::from(*value > 0.1)).collect();
    let right = expected(&models, "predictor");
    for inputs in [[("volume", &x), ("mask", &mask)], [("mask", &mask), ("volume", &x)], [("a", &x), ("b", &mask)]] {
        let inputs = inputs.map(|(name, values)| (name, values.as_slice()));
        assert_eq!(run(&model, &inputs, "logit").unwrap(), (vec![1, 1], right.clone()));
    }
    for (inputs, reason) in [
        (&[("volume", x.as_slice())][..], "another number of inputs"),
        (&[("volume", &x), ("msak", &mask)], "inputs' names"),
        (&[("volume", &x), ("volume", &mask)], "inputs' names"),
        (&[("volume", &x), ("mask", &mask), ("scale", &x), ("more", &x)], "another number of inputs"),
    ] {
        let error = run(&model, inputs, "logit").unwrap_err();
        assert_eq!(error.kind(), Kind::ModelShape);
        assert!(error.detail().contains(reason), "{error}");
    }
    // The scale is a number and takes no tensor.
    assert_eq!(run(&model, &[("volume", &x), ("mask", &mask), ("scale", &x)], "logit").unwrap_err().kind(), Kind::ModelShape);
}

#[test]
fn a_model_that_changes_its_input_changes_a_copy() {
    let Some((backend, models)) = built() else { return };
    let x = field(5, LENGTH);
    let (_, values) = run(&open(&backend, &models, "in_place.pt", 1), &[("x", &x)], "y").unwrap();
    assert_eq!(x, field(5, LENGTH));
    assert!(values.iter().zip(&x).all(|(twice, once)| f32::from_bits(*twice) == 2.0 * once));
}

#[test]
fn what_does_not_fit_is_a_shape_error_and_the_model_still_runs() {
    let Some((backend, models)) = built() else { return };
    let x = field(5, LENGTH);
    let model = open(&backend, &models, "net.pt", 1);
    for shape in [&[20, 22, 24][..], &[1, 1, 1, 20, 22, 24], &[1, 2, 10, 22, 24], &[LENGTH], &[]] {
        let values = &x[..if shape.is_empty() { 1 } else { x.len() }];
        let tensor = Tensor { name: "x", shape: shape.to_vec(), values };
        let error = model.run(&[tensor], "y", &Control::new(), |_, _| Ok(())).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::ModelShape, "run: an input's dimensions do not fit the model"), "{shape:?}");
    }
    assert!(run(&model, &[("x", &x)], "y").unwrap().1 == expected(&models, "net"));
    for (name, output, reason) in [
        ("dict.pt", "probabilities", "no such output"),
        ("tuple.pt", "2", "no such output"),
        ("tuple.pt", "logits", "no such output"),
        ("tuple.pt", "-1", "no such output"),
        ("number.pt", "y", "not a tensor of numbers"),
    ] {
        let error = run(&open(&backend, &models, name, 1), &[("x", &x)], output).unwrap_err();
        assert_eq!(error.kind(), Kind::ModelShape, "{name}");
        assert!(error.detail().contains(reason), "{name}: {error}");
    }
}

#[test]
fn failures_are_told_apart_and_no_text_of_the_model_comes_out() {
    let Some((backend, models)) = built() else { return };
    let x = field(5, LENGTH);
    for (name, kind, detail) in [
        // Its text speaks of memory and of a person; what a model raises is the model's own affair.
        ("raises.pt", Kind::RuntimeFailed, "run: the model raised an error of its own"),
        ("hungry.pt", Kind::OutOfMemory, "run: the backend needs more"),
        ("nothing.pt", Kind::RuntimeFailed, "the model's output is not finite"),
    ] {
        let model = open(&backend, &models, name, 1);
        for _ in 0..2 {
            let error = run(&model, &[("x", &x)], "y").unwrap_err();
            assert_eq!((error.kind(), error.detail()), (kind, detail), "{name}");
        }
    }
    let open = |bytes: &[u8], device: &str| backend.open(bytes, device, 1).err().unwrap();
    let net = std::fs::read(models.join("net.pt")).unwrap();
    for bytes in [&b"garbage"[..], &net[..net.len() / 2], &net[..net.len() - 1], b"PK\x03\x04", b"\x80\x02}q\x00."] {
        assert_eq!(open(bytes, "cpu").kind(), Kind::ModelUnreadable);
    }
    assert_eq!(open(&std::fs::read(models.join("no_forward.pt")).unwrap(), "cpu").kind(), Kind::Unsupported);
    for device in ["cuda:99", "cuda:100", "cuda:", "cuda", "cuda:x", "cuda:-1", "gpu", "", "CPU"] {
        assert_eq!(open(&net, device).kind(), Kind::DeviceUnavailable, "{device}");
        assert!(!backend.has_device(device));
    }
    assert!(backend.has_device("cpu"));
}

#[test]
fn damage_anywhere_in_an_archive_is_an_error_and_no_crash() {
    let Some((backend, models)) = built() else { return };
    let net = std::fs::read(models.join("net.pt")).unwrap();
    let mut accepted = 0;
    for at in (0..net.len()).step_by(23) {
        let mut bytes = net.clone();
        bytes[at] ^= 0x55;
        accepted += usize::from(torch_file::check(&bytes).is_ok() && backend.open(&bytes, "cpu", 1).is_ok());
    }
    eprintln!("{accepted} damaged archives open: weights carry no checksum that libtorch looks at; the contract's digest does");
    assert!(accepted < net.len() / 23);
}

#[test]
fn a_state_dict_is_told_from_a_model() {
    let Some((_, models)) = built() else { return };
    let error = file::read(&models.join("state_dict.pth"), &RuntimeOptions::default()).err().unwrap();
    assert_eq!(error.kind(), Kind::ModelPickle);
    assert!(error.hint().unwrap().contains("torch.jit.script"));
}

#[test]
fn an_endless_run_ends_soon_after_it_is_cancelled_and_others_wait_no_longer() {
    let Some((backend, models)) = built() else { return };
    let (endless, net) = (open(&backend, &models, "endless.pt", 1), open(&backend, &models, "net.pt", 1));
    let x = field(5, LENGTH);
    let tensor = || Tensor { name: "x", shape: SIDES.to_vec(), values: &x };
    let (first, second) = (Control::new(), Control::new());
    std::thread::scope(|scope| {
        let run = scope.spawn(|| endless.run(&[tensor()], "y", &first, |_, _| Ok(())));
        let waiting = scope.spawn(|| net.run(&[tensor()], "y", &second, |_, _| Ok(())));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!run.is_finished());
        second.cancel();
        let start = Instant::now();
        // Whichever run came first, the one that was not cancelled may have ended by itself.
        let _ = waiting.join().unwrap();
        let other = start.elapsed();
        first.cancel();
        let start = Instant::now();
        assert_eq!(run.join().unwrap().unwrap_err().kind(), Kind::Cancelled);
        eprintln!("cancelled after {other:?} (waiting) and {:?} (running)", start.elapsed());
        // Ten times what is promised: the machine may be busy with other things.
        assert!(start.elapsed() < Duration::from_secs(2));
    });
    assert!(run(&net, &[("x", &x)], "y").unwrap().1 == expected(&models, "net"));
}
