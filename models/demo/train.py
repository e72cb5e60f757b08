#!/usr/bin/env python3
"""Trains the demonstration pair on phantoms and writes it as segment.onnx and predict.onnx with their contracts.

    python3 train.py --work FOLDER [--threads 2] [--segment-steps N] [--predict-steps N]

FOLDER holds generated phantoms and checkpoints (about 1 GB); it may be deleted afterwards. The models land beside this file.

Seeds of phantoms, disjoint by use:
    segmenter   0 .. 239        predictor   1000 .. 1479 (masks by the finished segmenter, so they carry its real mistakes)
    watching    5000 .. 5039    evaluation  9000 .. 9079 (evaluate.py; never seen here)
Random numbers of the training itself start from SEED. Float summation order depends on the machine, so another run gives a
model of the same quality, not the same bytes.
"""
import argparse
import hashlib
import json
import math
import os
import pathlib
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import phantom
from evaluate import auc, dice, library_preprocess

HERE = pathlib.Path(__file__).resolve().parent
SEGMENT_SEEDS, PREDICT_SEEDS, WATCH_SEEDS = range(0, 240), range(1000, 1480), range(5000, 5040)
WINDOW = (32, 64, 64)  # depth, height, width of one sliding window, and of one training crop of the segmenter
NEAR = (24, 48, 48)  # training crop of the predictor: the largest lesion and the rim that is pooled fit in
SEED = 20250101
OPSET = 17


# ---------------------------------------------------------------- data
def load(work, seed):
    """(volume, mask, kind) of a seed, kept in `work` between runs."""
    path = work / f"phantom-{seed}.npz"
    if not path.exists():
        p = phantom.make_volume(seed)
        temporary = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(temporary, volume=library_preprocess(p["voxels"]).astype(np.float16), mask=p["mask"], kind=p["kind"])
        temporary.rename(path)
    with np.load(path) as data:
        return data["volume"].astype(np.float32), data["mask"], str(data["kind"])


def load_all(work, seeds, threads):
    """All phantoms of `seeds`, made in parallel where they are missing."""
    missing = [s for s in seeds if not (work / f"phantom-{s}.npz").exists()]
    if missing:
        import multiprocessing

        with multiprocessing.get_context("spawn").Pool(threads) as pool:
            pool.starmap(load, [(work, s) for s in missing], chunksize=4)
    return [load(work, s) for s in seeds]


def crop_at(array, start, shape):
    """A window that may reach past the edges, where it reads 0."""
    out = np.zeros(shape, array.dtype)
    source = [slice(max(0, s), max(0, min(n, s + w))) for s, w, n in zip(start, shape, array.shape)]
    target = [slice(c.start - s, c.stop - s) for c, s in zip(source, start)]
    out[tuple(target)] = array[tuple(source)]
    return out


def flip(rng, *arrays):
    """Mirrors along random axes: the models must not depend on the side or the direction of the stack."""
    axes = tuple(axis for axis in range(3) if rng.random() < 0.5)
    return [np.ascontiguousarray(np.flip(a, axes)) for a in arrays]


# ---------------------------------------------------------------- networks
def block(inside, outside, stride=1):
    return nn.Sequential(nn.Conv3d(inside, outside, 3, stride=stride, padding=1, bias=False), nn.BatchNorm3d(outside), nn.ReLU(inplace=True))


class Segmenter(nn.Module):
    """A four-level 3-D U-Net. The first halving leaves the slices alone, because they lie twice as far apart as the pixels.

    Batch normalization is a constant scale at inference (it is folded into the convolutions on export), so what the model
    says of a voxel does not depend on what else is in the window.
    """

    def __init__(self, widths=(8, 16, 32, 48)):
        super().__init__()
        steps = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
        self.down = nn.ModuleList(
            nn.Sequential(block(1 if k == 0 else widths[k - 1], w), block(w, w)) for k, w in enumerate(widths)
        )
        self.pool = nn.ModuleList(nn.MaxPool3d(s, s) for s in steps)
        self.rise = nn.ModuleList(nn.ConvTranspose3d(widths[k + 1], widths[k], s, s) for k, s in enumerate(steps))
        self.up = nn.ModuleList(block(2 * w, w) for w in widths[:-1])
        self.last = nn.Conv3d(widths[0], 1, 1)

    def forward(self, volume):
        kept, x = [], volume
        for k, level in enumerate(self.down):
            x = level(x)
            if k < len(self.pool):
                kept.append(x)
                x = self.pool[k](x)
        for k in reversed(range(len(self.up))):
            x = self.up[k](torch.cat([kept[k], self.rise[k](x)], 1))
        return self.last(x)


class Predictor(nn.Module):
    """Convolutions over volume and mask, pooled over the mask and a rim around it, then a small perceptron.

    Only the neighbourhood of the mask is pooled, so the size of the volume does not matter and the whole study can be given.
    An empty mask pools to zeros, which the perceptron has learnt to answer with "no".
    """

    def __init__(self, widths=(16, 24, 32)):
        super().__init__()
        a, b, c = widths
        self.first = nn.Sequential(
            nn.Conv3d(2, a, (3, 4, 4), stride=(1, 2, 2), padding=(1, 1, 1), bias=False), nn.BatchNorm3d(a), nn.ReLU(inplace=True)
        )
        self.fine = block(a, b)
        self.coarse = nn.Sequential(block(b, c, stride=2), block(c, c))
        self.head = nn.Sequential(nn.Linear(2 * (a + b + c) + 1, 32), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(32, 1))

    @staticmethod
    def pooled(x, region):
        weight = region.sum((2, 3, 4))
        return [(x * region).sum((2, 3, 4)) / (weight + 1.0), (x * region).amax((2, 3, 4))]  # x is never negative here

    def forward(self, volume, mask):
        first = self.first(torch.cat([volume, mask], 1))
        fine = self.fine(first)
        coarse = self.coarse(fine)
        region = functional.max_pool3d(mask, (3, 4, 4), (1, 2, 2), (1, 1, 1))
        wide = functional.max_pool3d(region, 3, 2, 1)
        size = torch.log1p(mask.sum((2, 3, 4))) / 8.0
        return self.head(torch.cat(self.pooled(first, region) + self.pooled(fine, region) + self.pooled(coarse, wide) + [size], 1))


# ---------------------------------------------------------------- training
def schedule(step, steps, top):
    """Linear warm-up over 5 % of the steps, then a cosine down to a hundredth."""
    warm = max(1, steps // 20)
    return top * (step + 1) / warm if step < warm else top * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm))))


def segment_batch(rng, cases, size):
    """Crops, three in four of them around a lesion, the others anywhere."""
    volumes, masks = [], []
    while len(volumes) < size:
        volume, mask, _ = cases[int(rng.integers(len(cases)))]
        inside = np.argwhere(mask) if rng.random() < 0.75 else ()
        if len(inside):
            centre = inside[int(rng.integers(len(inside)))] + rng.integers((-8, -20, -20), (9, 21, 21))
        else:
            centre = rng.integers((0, 0, 0), volume.shape)
        start = [int(np.clip(c - w // 2, 0, n - w)) for c, w, n in zip(centre, WINDOW, volume.shape)]
        v, m = flip(rng, crop_at(volume, start, WINDOW), crop_at(mask, start, WINDOW))
        volumes.append(v * rng.uniform(0.9, 1.1) + rng.uniform(-0.1, 0.1))
        masks.append(m)
    as_tensor = lambda arrays: torch.from_numpy(np.stack(arrays)[:, None].astype(np.float32)).to(memory_format=torch.channels_last_3d)
    return as_tensor(volumes), as_tensor(masks)


def whole(net, volume):
    """Logits of a whole phantom in one pass (its shape is a multiple of what the network halves)."""
    with torch.inference_mode():
        return net(torch.from_numpy(volume)[None, None])[0, 0].numpy()


def train_segmenter(work, cases, watch, steps):
    torch.manual_seed(SEED)
    rng = np.random.Generator(np.random.PCG64(SEED))
    net = Segmenter().to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-4)
    began = time.time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step, steps, 4e-3)
        volume, mask = segment_batch(rng, cases, 4)
        logits = net(volume)
        p = torch.sigmoid(logits)
        overlap = 1 - (2 * (p * mask).sum() + 20) / (p.sum() + mask.sum() + 20)  # over the batch: crops without a lesion count too
        loss = functional.binary_cross_entropy_with_logits(logits, mask) * 2 + overlap
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        if (step + 1) % 250 == 0 or step + 1 == steps:
            net.eval()
            scores = [dice(whole(net, v) > 0, m > 0) for v, m, kind in watch[:16] if kind != "none"]
            net.train()
            print(f"segment {step + 1}/{steps} loss {loss.item():.3f} watched dice {np.mean(scores):.3f} min {min(scores):.3f} {time.time() - began:.0f} s", flush=True)
            torch.save(net.state_dict(), work / "segment.pt")
    return net.eval()


def predict_case(rng, case, disturb):
    """A crop around the segmenter's mask; while training, the mask is shifted, grown or shrunk at times."""
    volume, logits, _ = case
    threshold = rng.normal(0.0, 1.5) if disturb and rng.random() < 0.5 else 0.0
    mask = (logits > threshold).astype(np.float32)
    inside = np.argwhere(mask)
    centre = (inside.min(0) + inside.max(0) + 1) // 2 if len(inside) else np.array(volume.shape) // 2
    if disturb:
        centre = centre + rng.integers(-3, 4, 3)
    start = [int(c) - w // 2 for c, w in zip(centre, NEAR)]
    volume, mask = crop_at(volume, start, NEAR), crop_at(mask, start, NEAR)
    if disturb:
        volume, mask = flip(rng, volume, mask)
        if rng.random() < 0.25:
            mask = np.roll(mask, rng.integers(-1, 2, 3), (0, 1, 2))
        volume = volume * rng.uniform(0.9, 1.1) + rng.uniform(-0.1, 0.1)
    return volume.astype(np.float32), mask


def predict_batch(rng, cases, disturb):
    pairs = [predict_case(rng, c, disturb) for c in cases]
    volume, mask = (torch.from_numpy(np.stack(x)[:, None]) for x in zip(*pairs))
    return volume, mask, torch.tensor([[float(c[2] == "malignant")] for c in cases])


def train_predictor(work, cases, watch, steps):
    torch.manual_seed(SEED)
    rng = np.random.Generator(np.random.PCG64([SEED, 2]))
    net = Predictor()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-3)
    began, order = time.time(), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step, steps, 2e-3)
        while len(order) < 12:
            order += list(rng.permutation(len(cases)))
        batch, order = [cases[i] for i in order[:12]], order[12:]
        volume, mask, label = predict_batch(rng, batch, True)
        loss = functional.binary_cross_entropy_with_logits(net(volume, mask), label * 0.96 + 0.02)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            net.eval()
            with torch.inference_mode():
                volume, mask, label = predict_batch(rng, watch, False)
                logits = net(volume, mask)
            net.train()
            held = functional.binary_cross_entropy_with_logits(logits, label).item()
            print(f"predict {step + 1}/{steps} loss {loss.item():.3f} watched loss {held:.3f} auc {auc(logits[:, 0], label[:, 0]):.3f} {time.time() - began:.0f} s", flush=True)
            torch.save(net.state_dict(), work / "predict.pt")
    return net.eval()


# ---------------------------------------------------------------- export
def export(net, path, inputs, axes, name, card):
    """ONNX with a free batch and free spatial axes; checked, compared with torch, free of paths and stack traces."""
    import onnx
    import onnxruntime

    names = list(inputs)
    torch.onnx.export(net, tuple(inputs.values()), str(path), input_names=names, output_names=["logits"], opset_version=OPSET, dynamic_axes=axes, dynamo=False)
    model = onnx.load(path)
    del model.metadata_props[:]
    model.doc_string = card
    model.producer_name, model.producer_version = "pytorch", torch.__version__.split("+")[0]
    model.graph.name, model.graph.doc_string = name, ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    if any(word in path.read_bytes() for word in (b"/work", b"/tmp", b"/home", b"/root", b".py")):
        sys.exit(f"{path.name} holds a path of this machine")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(7)
    worst = 0.0
    for shape in ((1, 1, *WINDOW), (3, 1, *WINDOW), (1, 1, 40, 128, 128), (2, 1, 24, 48, 80)):
        fed = {"volume": torch.randn(shape, generator=generator)}
        if "mask" in names:
            fed["mask"] = functional.avg_pool3d(torch.randn(shape, generator=generator), 9, 1, 4).gt(0.06).float() * (shape[0] < 3)
        with torch.inference_mode():
            expected = net(*fed.values()).numpy()
        got = session.run(["logits"], {k: v.numpy() for k, v in fed.items()})[0]
        worst = max(worst, float(np.abs(got - expected).max()))
    if not worst < 1e-3:
        sys.exit(f"{path.name} differs from torch by {worst}")
    print(f"{path.name}: {path.stat().st_size} bytes, {sum(p.numel() for p in net.parameters())} parameters, differs from torch by at most {worst:.1e}")


def write_contract(name, contract):
    """Puts the digest of the model into its contract and writes it beside the model."""
    contract["sha256"] = hashlib.sha256((HERE / f"{name}.onnx").read_bytes()).hexdigest()
    (HERE / f"{name}.json").write_text(json.dumps(contract, indent=2) + "\n", encoding="utf-8")


def contracts():
    """The two contracts (docs/model-contract.md), digests still empty.

    Clip and z-score are what the `preprocess` operation does already; done twice they change nothing, and with them here the
    models also work on a volume that was not preprocessed. The sliding rule has no `multiple` on purpose: it would allow smaller
    windows, and with 16 x 32 x 32 the segmenter sees too little around a voxel (mean Dice of eight studies 0.37 instead of 0.94).
    """
    steps = [{"step": "percentile_clip", "lo": 0.5, "hi": 99.5}, {"step": "zscore"}]
    common = {"contract": 1, "version": "1.0.0", "sha256": "", "card": "CARD.md"}
    grid = {"layout": "NCDHW", "orientation": "LPS", "axes": "zyx", "spacing_mm": None}
    segment = {
        **common, "task": "segment", "name": "demo-phantom-lesion",
        "inputs": [{"name": "volume", "channels": ["volume"]}],
        "grid": {**grid, "size": {"rule": "sliding", "window": list(WINDOW), "overlap": 0.25, "blend": "gaussian", "batch": 1}},
        "intensity": {"voxels": "preprocessed", "steps": steps},
        "output": {"name": "logits", "activation": "sigmoid", "threshold": 0.5, "labels": [{"channel": 0, "value": 1, "name": "lesion"}]},
        "postprocess": [{"step": "fill_holes"}, {"step": "min_size", "ml": 0.1, "connectivity": 26}],
        "plausibility": {"modality": ["MR"], "labels_ml": [{"name": "lesion", "min": 0.0, "max": 60.0}]},
    }  # fmt: skip
    predict = {
        **common, "task": "predict", "name": "demo-phantom-malignancy",
        "inputs": [{"name": "volume", "channels": ["volume"]}, {"name": "mask", "channels": ["mask"]}],
        "grid": {**grid, "size": {"rule": "whole", "multiple": 4}},
        "intensity": {"voxels": "preprocessed", "steps": steps},
        "mask": {"labels": ["lesion"], "allow_empty": True},
        "output": {"name": "logits", "activation": "sigmoid", "labels": [{"channel": 0, "name": "malignant"}], "positive": "malignant"},
        "plausibility": {"modality": ["MR"]},
    }  # fmt: skip
    return {"segment": segment, "predict": predict}


def export_both(segmenter, predictor):
    spatial = {0: "batch", 2: "depth", 3: "height", 4: "width"}
    card = "Demonstration model, trained on synthetic phantoms only. No medical meaning; never for patients."
    example = torch.zeros(1, 1, *WINDOW)
    export(segmenter, HERE / "segment.onnx", {"volume": example}, {"volume": spatial, "logits": spatial}, "demo_phantom_lesion", card)
    inputs = {"volume": example, "mask": torch.zeros_like(example)}
    axes = {"volume": spatial, "mask": spatial, "logits": {0: "batch"}}
    export(predictor, HERE / "predict.onnx", inputs, axes, "demo_phantom_malignancy", card)
    for name, contract in contracts().items():
        write_contract(name, contract)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for phantoms and checkpoints")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--segment-steps", type=int, default=1500, help="0 takes the checkpoint of an earlier run")
    parser.add_argument("--predict-steps", type=int, default=900, help="0 takes the checkpoint of an earlier run")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    began = time.time()
    watch = load_all(options.work, WATCH_SEEDS, options.threads)
    if options.segment_steps:
        cases = load_all(options.work, SEGMENT_SEEDS, options.threads)
        print(f"phantoms for the segmenter ready after {time.time() - began:.0f} s", flush=True)
        segmenter = train_segmenter(options.work, cases, watch, options.segment_steps)
    else:
        segmenter = Segmenter().eval()
        segmenter.load_state_dict(torch.load(options.work / "segment.pt", weights_only=True))
    if options.predict_steps:
        cases = load_all(options.work, PREDICT_SEEDS, options.threads)
        scored = lambda group: [(v, whole(segmenter, v), kind) for v, _, kind in group]
        cases, watch = scored(cases), scored(watch)
        print(f"masks for the predictor ready after {time.time() - began:.0f} s", flush=True)
        predictor = train_predictor(options.work, cases, watch, options.predict_steps)
    else:
        predictor = Predictor().eval()
        predictor.load_state_dict(torch.load(options.work / "predict.pt", weights_only=True))
    export_both(segmenter, predictor)
    print(f"all done after {time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
