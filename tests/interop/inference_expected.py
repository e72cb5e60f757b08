"""Writes small ONNX models with their contracts (tests/data/models) and what numpy and onnxruntime make of them (tests/data/expected/inference.json).

The road from volume to labels is written here a second time, from docs/model-contract.md and MONAI's published rule, in numpy and scipy. The models
depend on the position within their window, so a wrong axis, a wrong flip or a window one voxel off changes the result.

pip install numpy scipy onnx onnxruntime; then: python tests/interop/inference_expected.py
"""

import hashlib
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
import scipy.ndimage
from onnx import TensorProto, helper, numpy_helper

ROOT = pathlib.Path(__file__).parent.parent / "data"
MODELS = ROOT / "models"


def noise(count, skip=0):
    """Value i is exact in float32: 20 bits of a multiplicative hash, over 1024, less 300."""
    hashed = (np.arange(skip, skip + count, dtype=np.uint64) * 2654435761) % 2**32
    return ((hashed >> 12).astype(np.float64) / 1024.0 - 300.0).astype(np.float32)


def maps(channels, window, skip):
    """One factor or summand per channel and position, about -0.6 to 1.4 (exact in float32). Squares, so that channels do not differ by a constant."""
    index = np.arange(skip, skip + channels * int(np.prod(window)), dtype=np.uint64)
    hashed = (index * index * 2654435761) % 2**32
    return ((hashed >> 12).astype(np.float64) / 1024.0 - 300.0).astype(np.float32).reshape(1, channels, *window) / np.float32(512)


# ---- models -------------------------------------------------------------------------------------------------------------------------------


def save(name, nodes, inputs, outputs, constants):
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs],
        [helper.make_tensor_value_info(n, kind, shape) for n, kind, shape in outputs],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="")
    onnx.checker.check_model(model)
    path = MODELS / f"{name}.onnx"
    onnx.save(model, path)
    return path


def contract(path, made):
    made = {"contract": 1, **made, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "version": "1.0.0", "name": path.stem}
    path.with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")
    return made


def segmenter(name, window, channels, layout, batch="n", skip=0):
    """logits = volume * A + B, with A and B different at each position of the window."""
    a, b = maps(channels, window, skip), maps(channels, window, skip + 5000)
    shape, out = [batch, 1, *window], [batch, channels, *window]
    if layout == "NDHWC":
        a, b = (np.ascontiguousarray(np.moveaxis(m, 1, 4)) for m in (a, b))
        shape, out = [batch, *window, 1], [batch, *window, channels]
    nodes = [helper.make_node("Mul", ["volume", "a"], ["scaled"]), helper.make_node("Add", ["scaled", "b"], ["logits"])]
    return save(name, nodes, [("volume", shape)], [("logits", TensorProto.FLOAT, out)], {"a": a, "b": b})


def several(name, window, inputs, channels, layout, batch="n", skip=0):
    """logits = sum over the input's channels of channel * A[channel], + B."""
    b = maps(channels, window, skip + 5000)
    constants = {f"a{k}": maps(channels, window, skip + 300 * k) for k in range(inputs)}
    shape, out, axis = [batch, inputs, *window], [batch, channels, *window], 1
    constants["b"] = b
    if layout == "NDHWC":
        constants = {key: np.ascontiguousarray(np.moveaxis(value, 1, 4)) for key, value in constants.items()}
        shape, out, axis = [batch, *window, inputs], [batch, *window, channels], 4
    nodes = [helper.make_node("Split", ["volume"], [f"v{k}" for k in range(inputs)], axis=axis)]
    nodes += [helper.make_node("Mul", [f"v{k}", f"a{k}"], [f"s{k}"]) for k in range(inputs)]
    nodes.append(helper.make_node("Sum", ["b"] + [f"s{k}" for k in range(inputs)], ["logits"]))
    return save(name, nodes, [("volume", shape)], [("logits", TensorProto.FLOAT, out)], constants)


# ---- the contract's road, in numpy --------------------------------------------------------------------------------------------------------


def orientation(affine, code):
    """For each axis of the wanted grid: axis of the given one, and whether it is flipped (RAS letters on LPS axes)."""
    if code is None:
        return [(0, False), (1, False), (2, False)]
    letters = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
    nearest = [int(np.argmax(np.abs(affine[:3, column]))) for column in range(3)]
    found = []
    for letter in code:
        axis, sign = letters[letter]
        source = nearest.index(axis)
        found.append((source, np.sign(affine[axis, source]) != sign))
    return found


def road(volume, affine, made):
    """Volume (column, row, slice) to model array (D, H, W), with per-axis places of the array's voxels on the volume."""
    grid = made["grid"]
    turned = orientation(affine, grid["orientation"])
    array = np.transpose(volume, [source for source, _ in turned])
    places = []
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    for axis, (source, flip) in enumerate(turned):
        n = volume.shape[source]
        if flip:
            array = np.flip(array, axis)
        old, wanted = spacing[source], grid["spacing_mm"]
        new = old if wanted is None else (wanted[axis] if isinstance(wanted, list) else wanted)
        length = n if abs(old / new - 1) < 1e-4 else max(1, int(np.floor(n * old / new + 0.5)))
        steps = np.arange(length) * (1.0 if length == n and abs(old / new - 1) < 1e-4 else new / old)
        places.append((source, flip, steps))
    array = scipy.ndimage.map_coordinates(array.astype(np.float64), np.meshgrid(*[p[2] for p in places], indexing="ij"), order=1, mode="nearest")
    array = array.astype(np.float32)
    order = ["xyz".index(letter) for letter in grid["axes"]]
    array, places = np.transpose(array, order), [places[axis] for axis in order]
    size = grid["size"]
    if size["rule"] == "resize":
        for axis, length in enumerate(size["shape"]):
            n = array.shape[axis]
            at = (np.arange(length) + 0.5) * n / length - 0.5
            if size["interpolation"] == "nearest_exact":
                array = np.take(array, np.clip(np.floor(at + 0.5).astype(int), 0, n - 1), axis)
            else:
                at = np.clip(at, 0, n - 1)
                low = np.floor(at).astype(int)
                t = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
                array = (np.take(array, low, axis) * (1 - t) + np.take(array, np.minimum(low + 1, n - 1), axis) * t).astype(np.float32)
    return array, places


def intensities(array, made):
    for step in made["intensity"]["steps"]:
        values = array.astype(np.float64)
        kind = step["step"]
        if kind == "zscore" and step.get("over") == "nonzero":
            chosen = values[values != 0]
            scaled = (values - chosen.mean()) / chosen.std(ddof=step.get("ddof", 0))
            values = np.where(values != 0, scaled, 0)
        elif kind == "zscore":
            values = (values - values.mean()) / values.std(ddof=step.get("ddof", 0))
        elif kind == "minmax":
            values = step.get("lo", 0) + (values - values.min()) / (values.max() - values.min()) * (step.get("hi", 1) - step.get("lo", 0))
        elif kind == "percentile_clip":
            values = np.clip(values, *np.percentile(values, [step["lo"], step["hi"]]))
        elif kind == "clamp":
            values = np.clip(values, step["lo"], step["hi"])
        elif kind == "affine":
            values = step["scale"] * values + step["shift"]
        array = values.astype(np.float32)
    return array


def importance(window, blend):
    weights = np.ones(window, np.float32)
    if blend == "gaussian":
        for axis, side in enumerate(window):
            x = np.arange(-(side - 1) / 2.0, (side - 1) / 2.0 + 1, dtype=np.float32)
            line = np.exp(x**2 / np.float32(-2 * (0.125 * side) ** 2), dtype=np.float32)
            weights = weights * line.reshape([-1 if a == axis else 1 for a in range(3)])
        weights = np.maximum(weights, max(weights.min(), 1e-3)).astype(np.float32)
    return weights


def starts(n, side, overlap):
    step = side if n == side else max(1, int(side * (1 - overlap)))
    found = []
    for index in range(-(-n // step)):
        found.append(index * step - max(index * step + side - n, 0))
        if index * step + side >= n:
            break
    return found


def stitched(array, window, overlap, blend, run):
    """MONAI's sliding_window_inference, one window at a time; array (channels before D, H, W, if it has any) is padded to the window already."""
    sides = array.shape[-3:]
    weights, total, count = importance(window, blend), None, np.zeros(sides, np.float32)
    for d in starts(sides[0], window[0], overlap):
        for h in starts(sides[1], window[1], overlap):
            for w in starts(sides[2], window[2], overlap):
                place = (slice(d, d + window[0]), slice(h, h + window[1]), slice(w, w + window[2]))
                out = run(array[(..., *place)])
                if total is None:
                    total = np.zeros((out.shape[0], *sides), np.float32)
                total[(slice(None), *place)] += weights * out
                count[place] += weights
    return total / count


def cut(array, lower, shape, pad):
    out = np.full(shape, pad, array.dtype)
    a = [max(0, low) for low in lower]
    b = [min(n, low + side) for n, low, side in zip(array.shape, lower, shape)]
    out[tuple(slice(x - low, y - low) for x, y, low in zip(a, b, lower))] = array[tuple(slice(x, y) for x, y in zip(a, b))]
    return out


def centred(n, side):
    return -((side - n) // 2) if side > n else n // 2 - side // 2


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis=0):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def decided(probabilities, made):
    """Labels, and the smallest gap between a decision and its opposite: the test's results must not hang on rounding."""
    output, channels = made["output"], {label["channel"]: label["value"] for label in made["output"]["labels"]}
    threshold = output.get("threshold", 0.5 if output["activation"] == "sigmoid" else None)
    if threshold is None:
        ranked = np.sort(probabilities, 0)
        best = probabilities.argmax(0)
        return np.vectorize(lambda channel: channels.get(channel, 0))(best).astype(np.uint8), (ranked[-1] - ranked[-2]).min()
    labelled = sorted(channels)
    chosen = probabilities[labelled]
    best, most = chosen.argmax(0), chosen.max(0)
    labels = np.where(most > threshold, np.array([channels[c] for c in labelled])[best], 0).astype(np.uint8)
    gap = np.abs(most - threshold).min()
    if len(labelled) > 1:
        ranked = np.sort(chosen, 0)
        gap = min(gap, (ranked[-1] - ranked[-2])[most > threshold].min())
    return labels, gap


def back(labels, lower, places, shape_on_frame, volume_shape, made):
    """Labels (D, H, W) of a window onto the volume (column, row, slice)."""
    on_frame = cut(labels, [-low for low in lower], shape_on_frame, 0)
    indices = [None] * 3
    for axis, (source, flip, steps) in enumerate(places):
        n = volume_shape[source]
        j = np.arange(n, dtype=np.float64)
        if flip:
            j = n - 1 - j
        step = steps[1] - steps[0] if len(steps) > 1 else 1.0
        at = j / step
        length = len(steps)
        if made["grid"]["size"]["rule"] == "resize":
            length = made["grid"]["size"]["shape"][axis]
            at = (at + 0.5) * length / len(steps) - 0.5
        indices[source] = (axis, np.clip(np.floor(at + 0.5).astype(int), 0, length - 1))
    order = [axis for axis, _ in indices]
    return np.transpose(on_frame, order)[np.ix_(*[index for _, index in indices])]


def segmented(path, made, volumes, affine):
    """Of volumes on one grid, the channels that the contract names, in its order."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    named = made["inputs"][0]["channels"]
    chosen = [volumes[0 if name == "volume" else int(name.split(":")[1])] for name in named]
    volume = volumes[0]
    roads = [road(channel, affine, made) for channel in chosen]
    arrays, places = [intensities(array, made) for array, _ in roads], roads[0][1]
    size, first = made["grid"]["size"], made["grid"]["layout"] == "NCDHW"
    frame = arrays[0].shape

    def run(window):
        tensor = window[None] if first else np.moveaxis(window, 0, 3)[None]
        fixed = session.get_inputs()[0].shape[0]
        tensor = np.repeat(tensor, fixed, 0) if isinstance(fixed, int) else tensor
        out = session.run([made["output"]["name"]], {"volume": np.ascontiguousarray(tensor)})[0][0]
        out = out if first else np.moveaxis(out, 3, 0)
        if made["output"].get("activate") == "before_blending":
            out = sigmoid(out) if made["output"]["activation"] == "sigmoid" else softmax(out)
        return out

    pad = size.get("pad_value", 0.0)
    if size["rule"] == "sliding":
        shape = [max(n, side) for n, side in zip(frame, size["window"])]
    elif size["rule"] == "whole":
        shape = [-(-n // size["multiple"]) * size["multiple"] for n in frame]
    else:
        shape = size["shape"]
    lower = [centred(n, side) for n, side in zip(frame, shape)]
    array = np.stack([cut(array, lower, shape, pad) for array in arrays])
    if size["rule"] == "sliding":
        values = stitched(array, size["window"], size.get("overlap", 0.25), size.get("blend", "gaussian"), run)
    else:
        values = run(array)
    if made["output"].get("activate") != "before_blending":
        values = {"sigmoid": sigmoid, "softmax": softmax}.get(made["output"]["activation"], lambda x: x)(values)
    labels, gap = decided(values, made)
    assert gap > 2e-5, (path.name, gap)
    labels = back(labels, lower, places, frame, volume.shape, made)
    return "".join(map(str, labels.transpose(2, 1, 0).ravel()))


# ---- cases --------------------------------------------------------------------------------------------------------------------------------


def affine(columns, rows, slices, origin):
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2], matrix[:3, 3] = columns, rows, slices, origin
    return matrix


AXIAL = affine([1.1, 0, 0], [0, 1.3, 0], [0, 0, 2.0], [-10, -20, 30])
SAGITTAL = affine([0.05, 1.1, 0.02], [0, 0.03, -1.3], [-2.0, 0.05, 0], [40, -20, 30])  # back, feet, right: PIR


def segmentations():
    labels = [{"channel": c, "value": v, "name": f"label{v}"} for c, v in ((1, 1), (2, 2), (3, 7))]
    zscore = {"voxels": "preprocessed", "steps": [{"step": "zscore"}]}

    def made(path, size, orient=None, axes="zyx", spacing=None, layout="NCDHW", intensity=zscore, activation="argmax", named=labels, channels=("volume",), **output):
        return path, contract(
            path,
            {
                "task": "segment",
                "inputs": [{"name": "volume", "channels": list(channels)}],
                "grid": {"layout": layout, "orientation": orient, "axes": axes, "spacing_mm": spacing, "size": size},
                "intensity": intensity,
                "output": {"name": "logits", "activation": activation, "labels": named, **output},
            },
        )

    def sliding(window, overlap, blend="gaussian", **more):
        return {"rule": "sliding", "window": window, "overlap": overlap, "blend": blend, **more}

    clip = {"steps": [{"step": "percentile_clip", "lo": 2, "hi": 97.5}, {"step": "minmax", "lo": -1, "hi": 2}]}
    other = {"steps": [{"step": "clamp", "lo": -250, "hi": 600}, {"step": "affine", "scale": 0.003, "shift": -0.4}]}
    cases = [
        (made(segmenter("slide", [5, 6, 7], 4, "NCDHW"), sliding([5, 6, 7], 0.25, batch=3)), (13, 11, 9), AXIAL),
        (made(segmenter("slide_half", [4, 5, 6], 4, "NCDHW", skip=11), sliding([4, 5, 6], 0.5, "constant"), "LPS"), (12, 10, 9), SAGITTAL),
        (made(segmenter("slide_ras", [5, 6, 4], 4, "NCDHW", skip=23), sliding([5, 6, 4], 0.6, pad_value=-0.5), "RAS", "xyz", 1.5, intensity=clip), (13, 10, 4), SAGITTAL),
        (made(segmenter("slide_last", [4, 6, 5], 4, "NDHWC", batch=2, skip=37), sliding([4, 6, 5], 0.25, batch=2), "LIA", "yxz", [1.7, 1.3, 1.1], "NDHWC"), (9, 10, 6), AXIAL),
        (made(segmenter("fit", [7, 11, 3], 4, "NCDHW", batch=1, skip=41), {"rule": "fit", "shape": [7, 11, 3], "pad_value": 1.5}, "RAS", "xyz", intensity=other, activation="softmax"), (9, 10, 6), SAGITTAL),
        (made(segmenter("stretch", [7, 5, 8], 4, "NCDHW", skip=53), {"rule": "resize", "shape": [7, 5, 8], "interpolation": "nearest_exact"}, "RAS", "xyz"), (9, 10, 6), SAGITTAL),
        (made(segmenter("stretch_linear", [7, 5, 8], 4, "NCDHW", skip=61), {"rule": "resize", "shape": [7, 5, 8], "interpolation": "linear"}, "LPS", activation="softmax", threshold=0.4), (9, 10, 6), AXIAL),
        (made(segmenter("early", [5, 6, 7], 4, "NCDHW", skip=71), sliding([5, 6, 7], 0.5), activation="softmax", activate="before_blending"), (13, 11, 9), AXIAL),
        (made(segmenter("islands", [5, 6, 7], 4, "NCDHW", skip=83), sliding([5, 6, 7], 0.5), activation="sigmoid", threshold=0.6, named=labels[1:]), (13, 11, 9), AXIAL),
        # 13 columns become 4.09, so 4: the last ones lie nearest to a voxel of the model's grid that is not there.
        (made(segmenter("coarse", [3, 3, 3], 4, "NCDHW", skip=97), sliding([3, 3, 3], 0.25), "LPS", spacing=3.5), (13, 11, 9), AXIAL),
        # Two and three of a study's three channels, in another order than the study's.
        (made(several("several", [5, 6, 7], 2, 4, "NCDHW", skip=101), sliding([5, 6, 7], 0.25, batch=2), "LPS", spacing=1.6, channels=("volume:2", "volume:0")), (13, 11, 9), AXIAL, 3),
        (made(several("several_last", [4, 6, 5], 3, 4, "NDHWC", batch=2, skip=113), sliding([4, 6, 5], 0.25, batch=2), "LIA", "yxz", [1.7, 1.3, 1.1], "NDHWC", channels=("volume:1", "volume:2", "volume:1")), (9, 10, 6), SAGITTAL, 3),
        (made(several("several_whole", [7, 11, 3], 2, 4, "NCDHW", batch=1, skip=127), {"rule": "fit", "shape": [7, 11, 3], "pad_value": 1.5}, "RAS", "xyz", activation="softmax", channels=("volume:0", "volume:1")), (9, 10, 6), SAGITTAL, 2),
    ]
    found = []
    for (path, terms), dims, matrix, *channels in cases:
        count = channels[0] if channels else 1
        volumes = noise(count * int(np.prod(dims))).reshape(count, *dims[::-1]).transpose(0, 3, 2, 1)
        found.append({"model": path.name, "dims": dims, "channels": count, "affine": matrix.tolist(), "labels": segmented(path, terms, volumes, matrix)})
    return found


def stitching():
    """Blended maps themselves: image, window, overlap, blend; A and B are computed on the other side, too."""
    cases = []
    for image, window, overlap, blend in (
        ((9, 11, 8), (5, 6, 7), 0.25, "gaussian"),
        ((9, 11, 8), (5, 6, 7), 0.5, "constant"),
        ((7, 7, 7), (7, 3, 4), 0.9, "gaussian"),
        ((6, 5, 21), (3, 5, 8), 0.0, "gaussian"),
    ):
        a, b = maps(2, window, 0)[0], maps(2, window, 5000)[0]
        array = (noise(int(np.prod(image))) / 100).reshape(image)
        values = stitched(array, window, overlap, blend, lambda x: x[None] * a + b)
        cases.append({"image": image, "window": window, "overlap": overlap, "blend": blend, "values": [round(float(v), 6) for v in values.ravel()]})
    return cases


def predictors():
    shape = [4, 5, 6]
    size = int(np.prod(shape))

    def two_inputs(name):
        weights = {"a": (noise(size * 3, 7).reshape(size, 3) / 4096).astype(np.float32), "m": (noise(size * 3, 999).reshape(size, 3) / 4096).astype(np.float32)}
        nodes = [
            helper.make_node("Flatten", ["volume"], ["v"]),
            helper.make_node("Flatten", ["mask"], ["k"]),
            helper.make_node("MatMul", ["v", "a"], ["va"]),
            helper.make_node("MatMul", ["k", "m"], ["km"]),
            helper.make_node("Add", ["va", "km"], ["logits"]),
        ]
        dims = ["n", 1, *shape]
        return save(name, nodes, [("volume", dims), ("mask", dims)], [("logits", TensorProto.FLOAT, ["n", 3])], weights)

    def one_input(name):
        weights = {"a": (noise(size * 2, 31).reshape(size * 2, 1) / 8192).astype(np.float32)}
        nodes = [helper.make_node("Flatten", ["both"], ["v"]), helper.make_node("MatMul", ["v", "a"], ["logit"])]
        return save(name, nodes, [("both", [1, *shape, 2])], [("logit", TensorProto.FLOAT, [1, 1])], weights)

    kinds = [{"channel": c, "name": n} for c, n in enumerate(("benign", "malignant", "other"))]
    volume_mask = [{"name": "volume", "channels": ["volume"]}, {"name": "mask", "channels": ["mask"]}]

    def made(path, size_rule, layout="NCDHW", inputs=volume_mask, output=None, orient="RAS", spacing=None):
        return path, contract(
            path,
            {
                "task": "predict",
                "inputs": inputs,
                "grid": {"layout": layout, "orientation": orient, "axes": "zyx", "spacing_mm": spacing, "size": size_rule},
                "intensity": {"steps": [{"step": "zscore", "ddof": 1}]},
                "mask": {"labels": ["lesion"]},
                "output": output or {"name": "logits", "activation": "softmax", "labels": kinds, "positive": "malignant"},
            },
        )

    both = [{"name": "both", "channels": ["mask", "volume"]}]
    single = {"name": "logit", "activation": "sigmoid", "labels": [{"channel": 0, "name": "malignant"}], "positive": "malignant"}
    cases = [
        made(two_inputs("predict_crop"), {"rule": "crop", "shape": shape, "around": "largest", "pad_value": 0.25}),
        made(two_inputs("predict_all"), {"rule": "crop", "shape": shape, "around": "all"}, spacing=1.4),
        made(one_input("predict_last"), {"rule": "resize", "shape": shape, "interpolation": "linear"}, "NDHWC", both, single),
        made(two_inputs("predict_fit"), {"rule": "fit", "shape": shape}, orient=None),
    ]
    dims = (11, 10, 9)
    volume = noise(int(np.prod(dims))).reshape(dims[::-1]).transpose(2, 1, 0)
    mask = np.zeros(dims, np.uint8)
    mask[7:10, 6:9, 5:8] = 3  # the largest lesion
    mask[1, 2, 1:3] = 3  # a small one
    mask[4:6, 0:9, 0:9] = 2  # something else, larger
    found = []
    for path, terms in cases:
        array, places = road(volume, SAGITTAL, terms)
        array = intensities(array, terms)
        size_rule = terms["grid"]["size"]
        marked = []
        for source, flip, steps in places:
            j = np.clip(np.floor(steps + 0.5).astype(int), 0, volume.shape[source] - 1)
            marked.append((source, volume.shape[source] - 1 - j if flip else j))
        on_frame = np.transpose((mask == 3).astype(np.float32), [s for s, _ in marked])[np.ix_(*[j for _, j in marked])]
        if size_rule["rule"] == "resize":
            # The mask's two nearest-neighbour steps are one on our side: composed places, then the nearest voxel.
            marked = []
            for (source, flip, steps), length in zip(places, size_rule["shape"]):
                at = (np.arange(length) + 0.5) * len(steps) / length - 0.5
                j = np.clip(np.floor(at * (steps[1] - steps[0]) + 0.5).astype(int), 0, volume.shape[source] - 1)
                if flip:
                    # Halves round up on the volume's own axis, so the flip comes before the rounding.
                    j = np.clip(np.floor(volume.shape[source] - 1 - at * (steps[1] - steps[0]) + 0.5).astype(int), 0, volume.shape[source] - 1)
                marked.append((source, j))
            on_frame = np.transpose((mask == 3).astype(np.float32), [s for s, _ in marked])[np.ix_(*[j for _, j in marked])]
        if size_rule["rule"] == "crop":
            components, count = scipy.ndimage.label(on_frame, np.ones((3, 3, 3)))
            chosen = on_frame > 0
            if size_rule.get("around", "largest") == "largest":
                chosen = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
            where = np.argwhere(chosen)
            lower = [(int(lo) + int(hi) + 1) // 2 - side // 2 for lo, hi, side in zip(where.min(0), where.max(0), shape)]
        elif size_rule["rule"] == "fit":
            lower = [centred(n, side) for n, side in zip(array.shape, shape)]
        else:
            lower = [0, 0, 0]
        array, on_frame = cut(array, lower, shape, size_rule.get("pad_value", 0.0)), cut(on_frame, lower, shape, 0)
        feeds = {}
        for given in terms["inputs"]:
            stack = np.stack([array if channel == "volume" else on_frame for channel in given["channels"]])
            feeds[given["name"]] = np.ascontiguousarray(stack[None] if terms["grid"]["layout"] == "NCDHW" else np.moveaxis(stack, 0, 3)[None])
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        out = session.run(None, feeds)[0].ravel()
        out = softmax(out) if terms["output"]["activation"] == "softmax" else sigmoid(out)
        assert 0.02 < out[0] < 0.98, out
        found.append({"model": path.name, "dims": dims, "affine": SAGITTAL.tolist(), "values": [float(v) for v in out]})
    return {"mask": "".join(map(str, mask.transpose(2, 1, 0).ravel())), "cases": found}


def broken():
    """Models that must be refused, or whose output must be."""
    sides = ["n", 1, "d", "h", "w"]
    two = ["n", 2, "d", "h", "w"]
    pair = helper.make_node("Concat", ["one", "volume"], ["logits"], axis=1)
    save("not_finite", [helper.make_node("Sqrt", ["volume"], ["one"]), pair], [("volume", sides)], [("logits", TensorProto.FLOAT, two)], {})
    cast = helper.make_node("Cast", ["both"], ["logits"], to=TensorProto.INT64)
    save("whole_numbers", [helper.make_node("Concat", ["volume", "volume"], ["both"], axis=1), cast], [("volume", sides)], [("logits", TensorProto.INT64, two)], {})
    save("smaller_output", [helper.make_node("Concat", ["volume", "volume"], ["both"], axis=1), helper.make_node("AveragePool", ["both"], ["logits"], kernel_shape=[2, 2, 2])], [("volume", sides)], [("logits", TensorProto.FLOAT, two[:2] + ["a", "b", "c"])], {})
    # A loop of 2^62 turns: it ends only when it is stopped.
    turn = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Neg", ["state"], ["next"])],
        "turn",
        [helper.make_tensor_value_info("turn", TensorProto.INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, []), helper.make_tensor_value_info("state", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), helper.make_tensor_value_info("next", TensorProto.FLOAT, sides)],
    )
    loop = helper.make_node("Loop", ["turns", "yes", "volume"], ["one"], body=turn)
    save("endless", [loop, pair], [("volume", sides)], [("logits", TensorProto.FLOAT, two)], {"turns": np.array(2**62, np.int64), "yes": np.array(True)})
    for name in ("not_finite", "whole_numbers", "smaller_output", "endless"):
        contract(
            MODELS / f"{name}.onnx",
            {
                "task": "segment",
                "inputs": [{"name": "volume", "channels": ["volume"]}],
                "grid": {"layout": "NCDHW", "orientation": None, "axes": "zyx", "spacing_mm": None, "size": {"rule": "whole"}},
                "intensity": {"steps": []},
                "output": {"name": "logits", "activation": "argmax", "labels": [{"channel": 1, "value": 1, "name": "lesion"}]},
            },
        )
    model = onnx.load(MODELS / "slide.onnx")
    onnx.save(model, MODELS / "elsewhere.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (MODELS / "weights.bin").unlink()


if __name__ == "__main__":
    MODELS.mkdir(parents=True, exist_ok=True)
    made = {"stitching": stitching(), "segmentations": segmentations(), "predictions": predictors()}
    broken()
    (ROOT / "expected" / "inference.json").write_text(json.dumps(made))
