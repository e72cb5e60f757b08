#!/usr/bin/env python3
"""A sliding window by this library, by bare runs of the same windows, and by a loop in Python, on one ONNX Runtime; prints Markdown.

    python3 -m venv ~/inference-peers
    ~/inference-peers/bin/pip install numpy onnx onnxruntime pydicom
    make library
    ~/inference-peers/bin/python benches/inference/run.py [--threads N] [--rounds N] [--only NETWORK …]

Networks: a U-Net with random weights (`network.py`; 27 windows of 96^3, overlap 0.5, three classes) and the small demonstration network of
models/demo (112 windows of 32 x 64 x 64, overlap 0.25, sigmoid). The volume has 192 x 192 x 160 voxels and comes as a series of DICOM files
in memory. Every row is a process of its own, after one run to warm up; seconds are the least of several rounds.

    **smp**       the stage `segment` of `smp_pipeline_process_study`: intensities, windows, stitching, labels; the network of the demonstration
                  is run without its clean-up and plausibility, which the other rows lack
    bare          `session.run` on as many windows of zeros, nothing else: what no sliding window can be faster than
    MONAI's rule  numpy after the rule of MONAI's `sliding_window_inference` (Gaussian importance, float32 maps of all classes), then argmax or
                  a threshold; MONAI itself needs PyTorch and is not run

`over bare` is how much longer a row takes than the bare runs. `labels` counts voxels of label 1, which shows that the same was computed. The
cold start is a new process that loads the library, opens a pipeline and segments a study of one window.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from libsmp import ROOT, Smp, runtime, series  # noqa: E402

SHAPE = (160, 192, 192)
NETWORKS = ("unet", "demo")


def volume(shape):
    """Four phantoms of the demonstration on top of each other, in as much of its own edge as is missing, and cut to the shape."""
    sys.path.insert(0, str(ROOT / "models/demo"))
    import phantom

    made = np.concatenate([phantom.make_volume(9001 + seed, "malignant")["voxels"] for seed in range(4)])
    missing = [(0, max(0, wanted - side)) for wanted, side in zip(shape, made.shape)]
    return np.ascontiguousarray(np.pad(made, missing, mode="edge")[tuple(slice(n) for n in shape)])


def settings(model, threads):
    return {"segment_model_path": model, "inference.runtime_library": runtime(), "inference.threads": threads}


def session(model, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # As the library sets it: results that do not depend on the number of threads.
    options.use_deterministic_compute = True
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def starts(side, window, overlap):
    step = max(1, int(window * (1 - overlap)))
    return [min(at, side - window) for at in range(0, max(1, side - window + step), step)] if side > window else [0]


def windows(contract):
    size = contract["grid"]["size"]
    axes = [starts(side, window, size["overlap"]) for side, window in zip(SHAPE, size["window"])]
    places = sorted({(z, y, x) for z in axes[0] for y in axes[1] for x in axes[2]})
    return size["window"], places


def normalized(voxels, contract):
    voxels = voxels.astype(np.float32)
    for step in contract["intensity"]["steps"]:
        if step["step"] == "percentile_clip":
            voxels = np.clip(voxels, *np.percentile(voxels, [step["lo"], step["hi"]]).astype(np.float32))
        else:
            voxels = ((voxels - voxels.mean(dtype=np.float64)) / voxels.std(dtype=np.float64)).astype(np.float32)
    return voxels


def importance(window):
    made = np.ones((), np.float32)
    for side in window:
        at = np.arange(side, dtype=np.float32) - (side - 1) / 2
        made = made[..., None] * np.exp(-(at**2) / (2 * (0.125 * side) ** 2)).astype(np.float32)
    return np.maximum(made, 1e-3)


def monai(run, voxels, contract):
    """The rule: weighted maps of all classes, divided by the sum of weights, then decided."""
    data = normalized(voxels, contract)
    window, places = windows(contract)
    weight, maps, total = importance(window), None, np.zeros(SHAPE, np.float32)
    for place in places:
        part = tuple(slice(at, at + side) for at, side in zip(place, window))
        found = run(np.ascontiguousarray(data[part])[None, None])[0]
        if maps is None:
            maps = np.zeros((len(found), *SHAPE), np.float32)
        maps[(slice(None), *part)] += found * weight
        total[part] += weight
    maps /= total
    return int((maps.argmax(0) == 1).sum()) if contract["output"]["activation"] == "argmax" else int((maps[0] > 0).sum())


def measure(tool, model, threads, rounds):
    """One row, in this process."""
    contract = json.loads(pathlib.Path(model).with_suffix(".json").read_text())
    window, places = windows(contract)
    seconds, label = [], None
    if tool == "smp":
        with tempfile.TemporaryDirectory() as folder:
            library, files = Smp(folder, settings(model, threads)), list(series(volume(SHAPE)))
            for _ in range(rounds + 1):
                found, label = library.segment(files)
                seconds.append(found)
    else:
        opened = session(model, threads)
        name, output = opened.get_inputs()[0].name, contract["output"]["name"]
        run = lambda data: opened.run([output], {name: data})[0]
        empty, voxels = np.zeros((1, 1, *window), np.float32), volume(SHAPE) if tool == "monai" else None
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            if tool == "bare":
                for _ in places:
                    run(empty)
            else:
                label = monai(run, voxels, contract)
            seconds.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": min(seconds[1:]), "first": seconds[0], "peak": peak, "label": label, "windows": len(places)}))


def cold(model, threads):
    """From loading the library to the labels of one window; the session by itself for comparison."""
    files = list(series(volume((32, 64, 64))))
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        library = Smp(folder, settings(model, threads))
        ready = time.perf_counter() - begin
        library.segment(files)
        done = time.perf_counter() - begin
    begin = time.perf_counter()
    opened = session(model, threads)
    load = time.perf_counter() - begin
    opened.run(None, {opened.get_inputs()[0].name: np.zeros((1, 1, 32, 64, 64), np.float32)})
    print(json.dumps({"pipeline": ready, "done": done, "session": load, "run": time.perf_counter() - begin - load}))


def child(*arguments):
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))} failed: {done.stderr[-600:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        tool, model, threads, rounds = options.child
        return cold(model, int(threads)) if tool == "cold" else measure(tool, model, int(threads), int(rounds))
    import onnxruntime

    print(f"ONNX Runtime {onnxruntime.__version__}, {options.threads} threads, {' x '.join(map(str, reversed(SHAPE)))} voxels.\n")
    print("| network | windows | tool | seconds | over bare | first run, s | peak MiB | labels |\n|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, HERE / "network.py", folder], check=True)
        shutil.copyfile(ROOT / "models/demo/segment.onnx", f"{folder}/demo.onnx")
        contract = json.loads((ROOT / "models/demo/segment.json").read_text())
        pathlib.Path(folder, "demo.json").write_text(json.dumps({key: contract[key] for key in contract if key not in ("postprocess", "plausibility")}))
        for network in options.only:
            model = f"{folder}/{network}.onnx"
            bare = None
            for tool, name in (("bare", "bare"), ("smp", "**smp**"), ("monai", "MONAI's rule")):
                found = child("--child", tool, model, options.threads, options.rounds)
                bare = bare or found["seconds"]
                over = f"{100 * (found['seconds'] / bare - 1):.1f} %" if tool != "bare" else ""
                label = "" if found["label"] is None else found["label"]
                print(f"| {network} | {found['windows']} | {name} | {found['seconds']:.3f} | {over} | {found['first']:.3f} "
                      f"| {found['peak']:.0f} | {label} |", flush=True)
        starts = [child("--child", "cold", ROOT / "models/demo/segment.onnx", options.threads, 1) for _ in range(5)]
    best = min(starts, key=lambda found: found["done"])
    print(f"\nCold start: pipeline after {best['pipeline']:.3f} s, labels of the first window after {best['done']:.3f} s; by itself, opening the "
          f"session takes {best['session']:.3f} s (in the same process, so after the runtime was loaded) and the window {best['run']:.3f} s.")


if __name__ == "__main__":
    main()
