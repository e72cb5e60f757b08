#!/usr/bin/env python3
"""Scores the demonstration pair on phantoms that training never saw, or scores results that the library wrote.

    python3 evaluate.py                          run segment.onnx and predict.onnx by their contracts (numpy, onnxruntime)
    python3 evaluate.py --write-studies DIR      write the same phantoms as DICOM, one folder per study: DIR/phantom-9000, ...
    python3 evaluate.py --results DIR            score DIR/phantom-9000_summary.json (cancer_probability) and
                                                 DIR/phantom-9000_segmentation.npy (slices, rows, columns; 0 = background)

Prints mean Dice over the studies that have a lesion, the area under the ROC curve for malignant against all others and against
benign only, and leaves with 1 when Dice is below 0.85 or one of the areas is below 0.95. A missing result is a failure too.

This file is a second, independent reading of docs/model-contract.md for what these two contracts use.
"""
import argparse
import hashlib
import itertools
import json
import pathlib
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import phantom

HERE = pathlib.Path(__file__).resolve().parent
SEEDS = range(9000, 9080)
DICE_BAR, AUC_BAR = 0.85, 0.95


# ---------------------------------------------------------------- the contract, in numpy
def apply_steps(x, steps):
    """`intensity.steps`, statistics over the whole grid."""
    x = x.astype(np.float64)
    for step in steps:
        if step["step"] == "percentile_clip":
            x = np.clip(x, *np.percentile(x, [step["lo"], step["hi"]]))
        elif step["step"] == "zscore":
            x = (x - x.mean()) / x.std()
        else:
            sys.exit(f"this script does not know the intensity step {step['step']}")
    return x.astype(np.float32)


def library_preprocess(voxels):
    """What the library's `preprocess` operation hands on with its defaults."""
    return apply_steps(voxels, [{"step": "percentile_clip", "lo": 0.5, "hi": 99.5}, {"step": "zscore"}])


def pad_to(x, shape, value=0.0):
    """Symmetric padding up to `shape`, the smaller half first; also where the original lies in it."""
    low = [max(0, (w - n) // 2) for w, n in zip(shape, x.shape)]
    high = [max(0, w - n) - a for w, n, a in zip(shape, x.shape, low)]
    padded = np.pad(x, list(zip(low, high)), constant_values=value)
    return padded, tuple(slice(a, a + n) for a, n in zip(low, x.shape))


def sliding(session, x, contract):
    """Windows with Gaussian weights, averaged before the activation. Returns the logits on the grid of `x`."""
    size = contract["grid"]["size"]
    window = size["window"]
    x, inside = pad_to(x, window, size.get("pad_value", 0.0))
    axes = [np.exp(-0.5 * ((np.arange(w) - (w - 1) / 2) / (0.125 * w)) ** 2) for w in window]
    weight = np.einsum("i,j,k->ijk", *axes).astype(np.float32)
    weight = np.maximum(weight, 1e-3)
    starts = []
    for n, w in zip(x.shape, window):
        step = max(1, int(w * (1 - size["overlap"])))
        count = -(-(n - w) // step) + 1
        starts.append([min(i * step, n - w) for i in range(count)])
    total, norm = np.zeros(x.shape, np.float32), np.zeros(x.shape, np.float32)
    for corner in itertools.product(*starts):
        at = tuple(slice(c, c + w) for c, w in zip(corner, window))
        logits = session.run([contract["output"]["name"]], {contract["inputs"][0]["name"]: x[at][None, None]})[0][0, 0]
        total[at] += weight * logits
        norm[at] += weight
    return (total / norm)[inside]


def components(mask, offsets):
    """Lists of the voxels (flat indices into `mask`) of each connected component."""
    left, found = {tuple(v) for v in np.argwhere(mask).tolist()}, []
    while left:
        queue, member = [left.pop()], []
        while queue:
            z, y, x = queue.pop()
            member.append((z, y, x))
            for dz, dy, dx in offsets:
                near = (z + dz, y + dy, x + dx)
                if near in left:
                    left.remove(near)
                    queue.append(near)
        found.append(member)
    return found


FACES = [o for o in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, o)) == 1]
ALL_26 = [o for o in itertools.product((-1, 0, 1), repeat=3) if any(o)]


def postprocess(mask, steps, voxel_ml):
    """`fill_holes` and `min_size` of the contract."""
    mask = mask.copy()
    for step in steps:
        if not mask.any():
            break
        if step["step"] == "fill_holes":
            inside = np.argwhere(mask)
            box = tuple(slice(a, b + 1) for a, b in zip(inside.min(0), inside.max(0)))
            background = np.pad(mask[box] == 0, 1, constant_values=True)  # one voxel around the box is outside for certain
            for member in components(background, FACES):
                if (0, 0, 0) not in member:
                    for z, y, x in member:
                        mask[box][z - 1, y - 1, x - 1] = 1
        elif step["step"] == "min_size" and step["connectivity"] == 26:
            for member in components(mask, ALL_26):
                if len(member) * voxel_ml < step["ml"]:
                    mask[tuple(np.array(member).T)] = 0
        else:
            sys.exit(f"this script does not know the postprocessing step {step['step']}")
    return mask


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-np.asarray(x, np.float64)))


class Pair:
    """Both models with their contracts."""

    def __init__(self):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.contracts, self.sessions = {}, {}
        for name in ("segment", "predict"):
            model = (HERE / f"{name}.onnx").read_bytes()
            contract = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
            if hashlib.sha256(model).hexdigest() != contract["sha256"]:
                sys.exit(f"{name}.onnx is not the file that {name}.json describes")
            grid = contract["grid"]
            if (grid["layout"], grid["orientation"], grid["axes"], grid["spacing_mm"]) != ("NCDHW", "LPS", "zyx", None):
                sys.exit(f"this script cannot lay out the grid of {name}.json")  # phantoms are drawn in exactly this order
            self.contracts[name] = contract
            self.sessions[name] = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def segment(self, volume, voxel_ml):
        contract = self.contracts["segment"]
        logits = sliding(self.sessions["segment"], apply_steps(volume, contract["intensity"]["steps"]), contract)
        mask = (sigmoid(logits) > contract["output"]["threshold"]).astype(np.uint8)
        return postprocess(mask, contract["postprocess"], voxel_ml)

    def predict(self, volume, mask):
        contract = self.contracts["predict"]
        multiple = contract["grid"]["size"]["multiple"]
        shape = [-(-n // multiple) * multiple for n in volume.shape]
        volume, _ = pad_to(apply_steps(volume, contract["intensity"]["steps"]), shape)
        mask, _ = pad_to(mask.astype(np.float32), shape)
        logit = self.sessions["predict"].run([contract["output"]["name"]], {"volume": volume[None, None], "mask": mask[None, None]})[0]
        return float(sigmoid(logit).item())


# ---------------------------------------------------------------- scores
def dice(a, b):
    return 2.0 * float(np.logical_and(a, b).sum()) / float(a.sum() + b.sum())


def auc(scores, positive):
    """Share of pairs in the right order, ties counting half (Mann and Whitney)."""
    scores, positive = np.asarray(scores, float), np.asarray(positive, bool)
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def from_models(pair, study):
    volume = library_preprocess(study["voxels"])
    mask = pair.segment(volume, float(np.prod(study["spacing"])) / 1000.0)
    return mask, pair.predict(volume, mask)


def from_results(folder, name, study):
    """What the library wrote for one study; whatever is missing or does not fit ends the run."""
    summary = json.loads((folder / f"{name}_summary.json").read_text(encoding="utf-8"))
    mask = np.load(folder / f"{name}_segmentation.npy", allow_pickle=False)
    if mask.shape != study["voxels"].shape:
        sys.exit(f"{name}: the mask is {mask.shape}, the study {study['voxels'].shape}")
    return mask != 0, float(summary["cancer_probability"])


def report(rows, quiet):
    """Prints the table and the scores; true when every bar is reached."""
    if not quiet:
        print("study          truth       dice   truth ml  mask ml  probability")
        for r in rows:
            print(f"{r['name']}   {r['kind']:9s}  {r['dice']:6.3f}  {r['truth_ml']:8.2f} {r['mask_ml']:8.2f}  {r['probability']:.4f}")
    lesion = [r for r in rows if r["kind"] != "none"]
    free = [r for r in rows if r["kind"] == "none"]
    malignant = [r["kind"] == "malignant" for r in rows]
    overlap = [r["dice"] for r in lesion]
    area_all = auc([r["probability"] for r in rows], malignant)
    area_lesion = auc([r["probability"] for r in lesion], [r["kind"] == "malignant" for r in lesion])
    right = sum((r["probability"] >= 0.5) == m for r, m in zip(rows, malignant))
    brier = np.mean([(r["probability"] - m) ** 2 for r, m in zip(rows, malignant)])
    print(f"studies                     {len(rows)} ({sum(malignant)} malignant, {len(lesion) - sum(malignant)} benign, {len(free)} without a lesion)")
    print(f"mask Dice, lesion studies   mean {np.mean(overlap):.4f}  median {np.median(overlap):.4f}  lowest {min(overlap):.4f}   (bar {DICE_BAR})")
    print(f"lesion-free studies         {sum(r['mask_ml'] == 0 for r in free)} of {len(free)} with an empty mask")
    print(f"ROC area, malignant against all others   {area_all:.4f}   (bar {AUC_BAR})")
    print(f"ROC area, malignant against benign       {area_lesion:.4f}   (bar {AUC_BAR})")
    print(f"right at probability 0.5    {right} of {len(rows)}; Brier score {brier:.4f}")
    return np.mean(overlap) >= DICE_BAR and area_all >= AUC_BAR and area_lesion >= AUC_BAR


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--first", type=int, default=SEEDS.start, help=f"first seed ({SEEDS.start}; 9000 and above were never trained on)")
    parser.add_argument("--count", type=int, default=len(SEEDS), help=f"number of studies ({len(SEEDS)})")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quiet", action="store_true", help="scores only, no table")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--results", type=pathlib.Path, metavar="DIR", help="score what the library wrote instead of running the models")
    what.add_argument("--write-studies", type=pathlib.Path, metavar="DIR", help="write the phantoms as DICOM and stop")
    options = parser.parse_args()
    if options.first < SEEDS.start or options.count < 40:
        parser.error("seeds below 9000 belong to training, and fewer than 40 studies say little")
    seeds = range(options.first, options.first + options.count)
    pair = None if options.results or options.write_studies else Pair()

    def one(seed):
        name, study = f"phantom-{seed}", phantom.make_volume(seed)
        if options.write_studies:
            phantom.write_series(options.write_studies / name, study, seed)
            return None
        mask, probability = from_results(options.results, name, study) if options.results else from_models(pair, study)
        truth, ml = study["mask"], float(np.prod(study["spacing"])) / 1000.0
        overlap = dice(mask, truth) if truth.any() else float("nan")
        return {"name": name, "kind": study["kind"], "dice": overlap, "truth_ml": truth.sum() * ml, "mask_ml": mask.sum() * ml, "probability": probability}

    with ThreadPoolExecutor(options.threads) as pool:
        rows = list(pool.map(one, seeds))
    if options.write_studies:
        print(f"{len(rows)} studies in {options.write_studies}")
        return 0
    return 0 if report(rows, options.quiet) else 1


if __name__ == "__main__":
    sys.exit(main())
