//! Recipes run by the pipeline on the real T1 study: bias correction, denoising and median against SimpleITK and dipy.

mod support;

use std::path::Path;
use std::process::Command;

use smp::pipeline;
use support::Site;

#[test]
fn recipes_give_what_simpleitk_and_dipy_give() {
    let Some(data) = support::test_data() else { return };
    let Some(python) = std::env::var_os("SMP_PYTHON") else {
        return support::skipped("SMP_PYTHON is not set, so nobody can compare the volumes");
    };
    let mut site = Site::new();
    site.seal(&data.join("mr_t1_philips_mprage"), "studies/head");
    site.config.set("preprocess.recipe", site.path("recipe.json").to_str().unwrap()).unwrap();
    let run = |steps: serde_json::Value, name: &str| {
        std::fs::write(site.path("recipe.json"), serde_json::json!({ "recipe": 1, "steps": steps }).to_string()).unwrap();
        let mut request = pipeline::Request::new(Some("studies/head"));
        request.set("operations", "load,anonymize,preprocess").unwrap();
        let result = site.pipeline().process_study(&request).unwrap();
        let path = site.path(name);
        result.save(&path, "volume").unwrap();
        let json: serde_json::Value = serde_json::from_str(&result.json().unwrap()).unwrap();
        let ran: Vec<String> =
            json["preprocessing"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap().to_owned()).collect();
        (path, ran, result.volume().geometry().spacing_mm)
    };
    let (loaded, ran, spacing) = run(serde_json::json!([]), "loaded.npy");
    assert!(ran.is_empty());
    for (name, step) in [
        ("n4", serde_json::json!({ "step": "n4", "levels": [10, 10], "convergence": 0, "shrink": 4 })),
        ("nlm", serde_json::json!({ "step": "nlm", "sigma": 20 })),
        ("median", serde_json::json!({ "step": "median" })),
    ] {
        let (processed, ran, _) = run(serde_json::json!([step]), "processed.npy");
        assert_eq!(ran, [name]);
        let answer = Command::new(&python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/real_filters.py"))
            .arg(spacing.map(|mm| mm.to_string()).join(","))
            .args([loaded.as_os_str(), name.as_ref(), processed.as_os_str()])
            .output()
            .unwrap();
        let (out, errors) = (String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
        println!("{out}");
        assert!(answer.status.success(), "{name}: {out}{errors}");
    }
}
