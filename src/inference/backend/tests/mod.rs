//! Tests of backends: the example in C, hostile ones that are compiled here, and libtorch where the machine has it.

mod torchscript;

use std::path::PathBuf;

use super::*;
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn compile(folder: &Path, name: &str, source: &Path) -> PathBuf {
    let out = folder.join(format!("lib{name}.so"));
    let status = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-shared", "-fPIC", "-fvisibility=hidden", "-I"])
        .arg(Path::new(ROOT).join("include"))
        .args([source, Path::new("-o"), &out])
        .status()
        .unwrap();
    assert!(status.success(), "{name}");
    out
}

/// A backend written here: the example with other functions.
fn variant(folder: &Path, name: &str, edits: &[(&str, &str)]) -> PathBuf {
    let mut text = std::fs::read_to_string(Path::new(ROOT).join("backends/example/smp_example_backend.c")).unwrap();
    for (from, to) in edits {
        assert!(text.contains(from), "{name}: {from}");
        text = text.replace(from, to);
    }
    let source = folder.join(format!("{name}.c"));
    std::fs::write(&source, text).unwrap();
    compile(folder, name, &source)
}

/// Folder of the example backend, which is built once.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path(), "smp_example", &Path::new(ROOT).join("backends/example/smp_example_backend.c"));
    folder
});

fn example() -> Backend {
    Backend::load(&FOLDER.path().join("libsmp_example.so")).unwrap()
}

fn refused(path: &Path) -> String {
    let error = Backend::load(path).err().unwrap();
    assert_eq!(error.kind(), Kind::RuntimeMissing);
    error.detail().to_owned()
}

#[test]
fn the_example_in_c_gives_the_mean() {
    let backend = example();
    assert_eq!((backend.name(), backend.version()), ("example", "example 1"));
    assert!(backend.has_device("cpu") && !backend.has_device("cuda:0") && !backend.has_device("c\0pu"));
    let model = backend.open(b"smp-mean 1 2 0.5\n", "cpu", 0).unwrap();
    assert_eq!(model.inputs().unwrap(), ["volume"]);
    assert_eq!(model.outputs().unwrap(), ["mean"]);
    let values: Vec<f32> = (0u8..120).map(f32::from).collect();
    let tensor = || Tensor { name: "volume", shape: vec![1, 1, 4, 5, 6], values: &values };
    for _ in 0..2 {
        let read = |shape: &[i64], values: &[f32]| Ok((shape.to_vec(), values.to_vec()));
        // The mean of 0..119 is 59.5.
        assert_eq!(model.run(&[tensor()], "mean", &Control::new(), read).unwrap(), (vec![1], vec![119.5]));
    }
}

#[test]
fn what_does_not_fit_is_said_in_words_of_the_interface() {
    let backend = example();
    for (bytes, device, kind) in [
        (&b"smp-mean 2 1 0"[..], "cpu", Kind::ModelUnreadable),
        (b"", "cpu", Kind::ModelUnreadable),
        (b"smp-mean 1 1 0", "cuda:0", Kind::DeviceUnavailable),
        (b"smp-mean 1 1 0", "cpu\0", Kind::DeviceUnavailable),
    ] {
        assert_eq!(backend.open(bytes, device, 1).err().unwrap().kind(), kind);
    }
    let model = backend.open(b"smp-mean 1 1 0", "cpu", 1).unwrap();
    let values = [1.0f32; 8];
    let tensor = |name, shape: &[i64]| Tensor { name, shape: shape.to_vec(), values: &values };
    let fits = || tensor("volume", &[2, 2, 2]);
    for (tensors, output, expected) in [
        (vec![fits(), fits()], "mean", "run: the model takes another number of inputs"),
        (vec![tensor("image", &[8])], "mean", "run: the inputs' names are not the model's"),
        (vec![fits()], "median", "run: the model has no such output"),
        (vec![Tensor { name: "volume", shape: vec![0], values: &[] }], "mean", "run: an input's dimensions do not fit the model"),
        (vec![tensor("volume", &[2, 2, 3])], "mean", "an input's values do not fill its dimensions"),
        (vec![tensor("volume", &[-2, -4])], "mean", "an input's values do not fill its dimensions"),
        (vec![tensor("volume", &[i64::MAX, i64::MAX])], "mean", "an input's values do not fill its dimensions"),
        (vec![tensor("volume", &[1, 1, 1, 1, 1, 1, 2, 2, 2])], "mean", "an input's values do not fill its dimensions"),
        (vec![tensor("vol\0ume", &[8])], "mean", "an input's name"),
        ((0..65).map(|_| fits()).collect(), "mean", "more than 64 inputs"),
    ] {
        let error = model.run(&tensors, output, &Control::new(), |_, _| Ok(())).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::ModelShape, expected));
    }
    let nan = [f32::NAN; 8];
    let error = model.run(&[Tensor { values: &nan, ..fits() }], "mean", &Control::new(), |_, _| Ok(())).unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::RuntimeFailed, "the model's output is not finite"));
}

#[test]
fn a_cancelled_study_runs_nothing_and_a_readers_error_or_panic_comes_through() {
    let model = example().open(b"smp-mean 1 1 0", "cpu", 1).unwrap();
    let tensor = || Tensor { name: "volume", shape: vec![1], values: &[1.0] };
    let control = Control::new();
    control.cancel();
    let error = model.run(&[tensor()], "mean", &control, |_, _| Ok(())).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    let error = model.run(&[tensor()], "mean", &Control::new(), |_, _| Err::<(), _>(Error::new(Kind::MaskEmpty, ""))).unwrap_err();
    assert_eq!(error.kind(), Kind::MaskEmpty);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        model.run(&[tensor()], "mean", &Control::new(), |_, _| -> Result<()> { panic!("in the reader") })
    }));
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "in the reader");
    assert_eq!(model.run(&[tensor()], "mean", &Control::new(), |_, values| Ok(values[0])).unwrap(), 1.0);
}

#[test]
fn a_run_that_waits_for_ever_ends_when_it_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let path = variant(folder.path(), "smp_waits", &[("    for (i = 0;", "    while (*cancelled == 0)\n        ;\n    for (i = 0;")]);
    let model = Backend::load(&path).unwrap().open(b"smp-mean 1 1 0", "cpu", 1).unwrap();
    let control = Control::new();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| model.run(&[Tensor { name: "volume", shape: vec![1], values: &[1.0] }], "mean", &control, |_, _| Ok(())));
        control.cancel();
        assert_eq!(run.join().unwrap().unwrap_err().kind(), Kind::Cancelled);
    });
}

#[test]
fn libraries_that_are_no_backend_of_this_version_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.so");
    std::fs::write(&text, "no library").unwrap();
    assert!(refused(&folder.path().join("absent.so")).contains("absent"));
    assert!(refused(&text).contains("not loadable"));
    assert!(refused(Path::new("libm.so.6")).contains("not a backend"));
    assert!(refused(Path::new("libsmp_absent.so")).contains("absent"));
    let another = "a backend for another version";
    for (name, edit, expected) in [
        ("smp_newer", ("abi == SMP_BACKEND_ABI ?", "abi == SMP_BACKEND_ABI + 1 ?"), another),
        ("smp_liar", ("    SMP_BACKEND_ABI, sizeof", "    SMP_BACKEND_ABI + 1, sizeof"), another),
        ("smp_small", ("sizeof(smp_backend), \"example\"", "sizeof(smp_backend) - 8, \"example\""), another),
        ("smp_part", ("outputs, run, close_model,", "outputs, run, NULL,"), "a part is missing"),
        ("smp_named", ("\"example\", version", "\"Example\\n\", version"), "without a name"),
        ("smp_silent", ("return \"example 1\"", "return NULL"), "without a version"),
    ] {
        let detail = refused(&variant(folder.path(), name, &[edit]));
        assert!(detail.contains(expected), "{name}: {detail}");
    }
}

#[test]
fn a_backend_that_fails_is_an_error_without_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let run = "    value = (float)";
    for (number, (status, kind)) in [
        ("SMP_BACKEND_UNREADABLE", Kind::ModelUnreadable),
        ("SMP_BACKEND_UNSUPPORTED", Kind::Unsupported),
        ("SMP_BACKEND_DEVICE_UNAVAILABLE", Kind::DeviceUnavailable),
        ("SMP_BACKEND_DEVICE_OUT_OF_MEMORY", Kind::DeviceOutOfMemory),
        ("SMP_BACKEND_OUT_OF_MEMORY", Kind::OutOfMemory),
        ("SMP_BACKEND_SHAPE", Kind::ModelShape),
        ("SMP_BACKEND_FAILED", Kind::RuntimeFailed),
        ("SMP_BACKEND_CANCELLED", Kind::RuntimeFailed),
        ("-7", Kind::RuntimeFailed),
    ]
    .into_iter()
    .enumerate()
    {
        let stop = format!("    if (count == 1)\n        return fail(why, {status}, \"Mueller 1949-03-02\");\n{run}");
        let path = variant(folder.path(), &format!("smp_fails_{number}"), &[(run, &stop)]);
        let model = Backend::load(&path).unwrap().open(b"smp-mean 1 1 0", "cpu", 1).unwrap();
        let tensor = Tensor { name: "volume", shape: vec![1], values: &[1.0] };
        let error = model.run(&[tensor], "mean", &Control::new(), |_, _| Ok(())).unwrap_err();
        assert_eq!((error.kind(), error.stage()), (kind, Stage::Inference), "{status}");
        assert!(!format!("{error:?}").contains("Mueller"));
    }
}

#[test]
fn an_output_that_cannot_be_is_no_output() {
    let folder = tempfile::tempdir().unwrap();
    let call = "    read(context, 1, shape, &value);\n";
    for (name, edit) in [
        ("smp_mute", "    (void)read; (void)context; (void)shape; (void)value;\n"),
        ("smp_deep", "    read(context, 9, shape, &value);\n"),
        ("smp_negative", "    { const int64_t below[1] = {-1}; (void)shape; read(context, 1, below, &value); }\n"),
        ("smp_vast", "    { const int64_t vast[2] = {INT64_MAX, 2}; (void)shape; read(context, 2, vast, &value); }\n"),
        ("smp_null", "    (void)value; read(context, 1, shape, NULL);\n"),
        ("smp_shapeless", "    (void)shape; read(context, 1, NULL, &value);\n"),
    ] {
        let model = Backend::load(&variant(folder.path(), name, &[(call, edit)])).unwrap().open(b"smp-mean 1 1 0", "cpu", 1).unwrap();
        let tensor = Tensor { name: "volume", shape: vec![1], values: &[1.0] };
        let error = model.run(&[tensor], "mean", &Control::new(), |_, _| Ok(())).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::RuntimeFailed, "the backend gave no output"), "{name}");
    }
    let twice = variant(folder.path(), "smp_twice", &[(call, &format!("{call}{call}"))]);
    let model = Backend::load(&twice).unwrap().open(b"smp-mean 1 1 0", "cpu", 1).unwrap();
    let tensor = Tensor { name: "volume", shape: vec![], values: &[1.0] };
    assert_eq!(model.run(&[tensor], "mean", &Control::new(), |_, values| Ok(values[0])).unwrap(), 1.0);
    let null = variant(folder.path(), "smp_no_model", &[("    *out = model;\n", "    free(model);\n    (void)out;\n")]);
    assert_eq!(Backend::load(&null).unwrap().open(b"smp-mean 1 1 0", "cpu", 1).err().unwrap().kind(), Kind::RuntimeFailed);
}

#[test]
fn a_machine_without_the_torchscript_backend_says_where_it_was_searched_and_what_to_do() {
    match search::search(None, None) {
        Ok(backend) => eprintln!("SKIPPED: this machine has a TorchScript backend, {}", backend.version()),
        Err(error) => {
            assert_eq!(error.kind(), Kind::RuntimeMissing);
            let hint = error.hint().unwrap();
            for words in [
                "make torchscript LIBTORCH=",
                "torch.onnx.export",
                "inference.torchscript_library (not set)",
                "SMP_TORCHSCRIPT_LIBRARY (not set)",
                "the folder of this library (absent)",
                "libsmp_torchscript.so by the dynamic linker (absent)",
            ] {
                assert!(hint.contains(words), "{words}: {hint}");
            }
        }
    }
}

#[test]
fn a_backend_that_was_named_and_does_not_work_is_an_error_that_says_where() {
    let example = FOLDER.path().join("libsmp_example.so");
    LazyLock::force(&FOLDER);
    let absent = FOLDER.path().join("absent.so");
    for (asked, variable, expected) in [
        (Some(&absent), None, "inference.torchscript_library: absent"),
        (Some(&absent), Some(&example), "inference.torchscript_library: absent"),
        (None, Some(&absent), "SMP_TORCHSCRIPT_LIBRARY: absent"),
        (None, Some(&FOLDER.path().to_path_buf()), "SMP_TORCHSCRIPT_LIBRARY: absent"),
        (Some(&example), None, "inference.torchscript_library: a backend for other models"),
    ] {
        let error = search::search(asked.map(PathBuf::as_path), variable.map(PathBuf::as_path)).err().unwrap();
        assert_eq!(error.kind(), Kind::RuntimeMissing);
        assert!(error.detail().ends_with(expected), "{error}");
    }
}
