"""Writes small ONNX models with their contracts (tests/data/models/looks) and what numpy and onnxruntime make of them
(tests/data/expected/inference_looks.json): slices, backgrounds, nested regions, ensembles, several looks, steps before the frame, locating passes.

A second implementation of docs/model-contract.md, as inference_expected.py, whose parts it takes. Models compute their factors from the index of a voxel within
what they are given, so a wrong axis, flip, slice or box changes the result. Every case is asserted to be one that a simpler rule would answer otherwise.

pip install numpy scipy onnx onnxruntime SimpleITK; then: python tests/interop/inference_looks_expected.py
"""

import hashlib
import json

import numpy as np
import onnx
import onnxruntime
import scipy.ndimage
import SimpleITK
from inference_expected import AXIAL, ROOT, SAGITTAL, affine, back, centred, cut, decided, importance, intensities, noise, road, sigmoid, softmax, starts
from onnx import TensorProto, helper, numpy_helper

MODELS = ROOT / "models" / "looks"
# Columns to the back, rows to the feet, slices to the right, each about 15 degrees off.
OBLIQUE = affine([0.24, 0.85, -0.18], [-0.2, 0.3, -1.14], [-2.2, 0.5, 0.4], [40, -20, 30])


# ---- models -------------------------------------------------------------------------------------------------------------------------------


def save(name, nodes, inputs, outputs, constants, metadata=None):
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="")
    if metadata:
        helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    path = MODELS / f"{name}.onnx"
    onnx.save(model, path)
    assert path.stat().st_size <= (4096 if metadata else 2048), (name, path.stat().st_size)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contract(path, made):
    made = {"contract": 1, **made, "sha256": digest(path), "version": "1.0.0", "name": path.stem}
    path.with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")
    return made


def segmenter(name, layout, sides, channels, inputs=1, batch="n", skip=0, metadata=None):
    """logits[k] = sum over the input's channels c of volume[c] * A[k, c] + B[k]; A and B are hashes of the voxel's index, -0.73 to 1.26, exact in float32."""
    first, rank = layout.startswith("NC"), len(layout)
    shape = [batch, inputs, *sides] if first else [batch, *sides, inputs]
    out = [batch, channels, *sides] if first else [batch, *sides, channels]
    offsets = (skip + 977 * np.arange(channels * (inputs + 1))).reshape(channels, inputs + 1, 1)
    constants = {
        "o": offsets.astype(np.int64), "k": np.array(40503), "q": np.array(4093), "z": np.array(0), "u": np.array(1), "s": np.float32(1 / 2048), "t": np.float32(-1504 / 2048),
        "p": np.array([inputs, 1]), "f": np.array([0, 1, inputs, -1]), "r": np.array([2]), "w": np.array([1]), "h": np.array([0, 0]),
    }
    node = helper.make_node
    x, y = ("volume", "logits") if first else ("x", "y")
    nodes = [] if first else [node("Transpose", ["volume"], ["x"], perm=[0, rank - 1, *range(1, rank - 1)])]
    nodes += [
        node("Shape", [x], ["S"], start=2), node("ReduceProd", ["S"], ["N"], keepdims=0), node("Range", ["z", "N", "u"], ["i"]), node("Add", ["i", "o"], ["j"]),
        node("Mul", ["j", "j"], ["jj"]), node("Mul", ["jj", "k"], ["l"]), node("Mod", ["l", "q"], ["m"]), node("Cast", ["m"], ["n"], to=TensorProto.FLOAT),
        node("Mul", ["n", "s"], ["v"]), node("Add", ["v", "t"], ["AB"]), node("Split", ["AB", "p"], ["A", "B"], axis=1),
        node("Reshape", [x, "f"], ["X"]), node("Mul", ["X", "A"], ["XA"]), node("ReduceSum", ["XA", "r"], ["Y"], keepdims=0),
        node("Squeeze", ["B", "w"], ["b"]), node("Add", ["Y", "b"], ["L"]), node("Concat", ["h", "S"], ["R"], axis=0), node("Reshape", ["L", "R"], [y]),
    ]
    nodes += [] if first else [node("Transpose", ["y"], ["logits"], perm=[0, *range(2, rank), 1])]
    return save(name, nodes, [("volume", shape)], [("logits", out)], constants, metadata)


def locator(name, layout, sides, gain, activated):
    """Two channels: one that means nothing, and a smoothed volume against a threshold."""
    dims = len(layout) - 2
    kernel = np.ones((1, 1, *[3] * dims), np.float32) / np.float32(3**dims)
    nodes = [
        helper.make_node("Conv", ["scan", "w"], ["smooth"], pads=[1] * (2 * dims)), helper.make_node("Mul", ["smooth", "g"], ["found"]),
        helper.make_node("Concat", ["scan", "found"], ["both"], axis=1), helper.make_node("Sigmoid" if activated else "Identity", ["both"], ["seen"]),
    ]
    return save(name, nodes, [("scan", ["n", 1, *sides])], [("seen", ["n", 2, *sides])], {"w": kernel, "g": np.float32(gain)})


# ---- the contract's road, in numpy --------------------------------------------------------------------------------------------------------


def foreground(values, by_slice=True):
    """Above Otsu's threshold (ITK, 128 bins), largest component by faces, holes filled in each slice and then in the volume."""
    image = SimpleITK.GetImageFromArray(values.astype(np.float32))
    otsu = SimpleITK.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(128)
    otsu.Execute(image)
    parts, _ = scipy.ndimage.label(values > np.float32(otsu.GetThreshold()))
    mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    filled = np.stack([scipy.ndimage.binary_fill_holes(plane) for plane in mask]) if by_slice else mask
    return scipy.ndimage.binary_fill_holes(filled)


def stepped(array, steps, located):
    """Intensity steps, and the limits of the first percentile_clip."""
    limits = None
    for step in steps:
        values, kind = array.astype(np.float64), step["step"]
        if kind == "window":
            centre, width, low, high = step["center"], step["width"], step.get("lo", 0), step.get("hi", 1)
            if step.get("function") == "sigmoid":
                array = (low + (high - low) / (1 + np.exp(-4 * (values - centre) / width))).astype(np.float32)
                continue
            exact = step.get("function") == "linear_exact"
            centre, width = (centre, width) if exact else (centre - 0.5, width - 1)
            array = np.clip(low + (high - low) * ((values - centre) / width + 0.5), low, high).astype(np.float32)
        elif kind == "clip_as_located":
            array = np.clip(array, *located)
        elif step.get("over") == "foreground":
            assert kind == "zscore"
            mask = foreground(array)
            assert 0 < mask.sum() < mask.size
            array = ((values - values[mask].mean()) / values[mask].std(ddof=step.get("ddof", 0))).astype(np.float32)
        else:
            if kind == "percentile_clip" and limits is None:
                limits = np.percentile(values, [step["lo"], step["hi"]]).astype(np.float32)
            array = intensities(array, {"intensity": {"steps": [step]}})
    return array, limits


def prepared(volume, spacing, made):
    """Steps on the volume's own grid (column, row, slice)."""
    for step in made.get("preprocess", []):
        if step["step"] == "median":
            size = 2 * step.get("radius", 1) + 1
            filtered = scipy.ndimage.median_filter(volume, size=size, mode="nearest")
            assert (SimpleITK.GetArrayFromImage(SimpleITK.Median(SimpleITK.GetImageFromArray(volume), [step.get("radius", 1)] * 3)) == filtered).all()
        else:
            filtered = scipy.ndimage.gaussian_filter(volume.astype(np.float64), step["sigma_mm"] / spacing).astype(np.float32)
        assert np.abs(filtered - volume).max() > 1
        volume = filtered
    return volume


def is_slicewise(made):
    return len(made["grid"]["layout"]) == 4


def spatial(made, key, dims):
    """D, H, W of a rule; slices keep the axis D as it is, windows of theirs have one voxel along it."""
    sides = made["grid"]["size"][key]
    return [1 if key == "window" else dims[0], *sides] if is_slicewise(made) else list(sides)


def stretched(array, shape, how):
    """Along the axes that change; `(i + 0.5) * n / shape - 0.5`."""
    for axis, length in enumerate(shape):
        n = array.shape[axis]
        if length == n:
            continue
        at = (np.arange(length) + 0.5) * n / length - 0.5
        if how == "nearest_exact":
            array = np.take(array, [(2 * i + 1) * n // (2 * length) for i in range(length)], axis)
        elif how == "linear":
            at = np.clip(at, 0, n - 1)
            low = np.floor(at).astype(int)
            t = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
            array = np.take(array, low, axis) * (1 - t) + np.take(array, np.minimum(low + 1, n - 1), axis) * t
        else:
            # The spline mirrors about the outer centres.
            places = [at if a == axis else np.arange(array.shape[a]) for a in range(3)]
            coefficients = scipy.ndimage.spline_filter1d(array.astype(np.float64), 3, axis, mode="mirror")
            array = along(coefficients, places[axis], axis)
    return array.astype(np.float32)


def along(coefficients, at, axis):
    """A cubic spline's values along one axis."""
    low, n = np.floor(at).astype(int), coefficients.shape[axis]
    t, total = at - low, 0
    for k, weight in ((-1, (1 - t) ** 3 / 6), (0, 2 / 3 - t**2 + t**3 / 2), (1, 2 / 3 - (1 - t) ** 2 + (1 - t) ** 3 / 2), (2, t**3 / 6)):
        index = np.abs(low + k)
        index = np.where(index >= n, 2 * (n - 1) - index, index)
        total = total + np.take(coefficients, index, axis) * weight.reshape([-1 if a == axis else 1 for a in range(3)])
    return total


class Frame:
    """A contract's grid on a study: arrays by channel of the study, and the way back."""

    def __init__(self, volumes, matrix, made, box=None, located=None):
        grid = made["grid"]
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        self.volume_shape, self.box, self.arrays, self.limits = volumes[0].shape, box, [], []
        self.is_resized = grid["size"]["rule"] == "resize"
        wanted = sorted({number(channel) for given in made["inputs"] for channel in given["channels"] if channel != "mask"})
        for place, channel in enumerate(wanted):
            array, self.places = road(prepared(volumes[channel], spacing, made), matrix, {"grid": {**grid, "size": {"rule": "none"}}})
            self.laid = array.shape
            if box:
                array = array[tuple(slice(low, low + side) for low, side in zip(*box))]
            self.shown = array.shape
            if self.is_resized:
                array = stretched(array, spatial(made, "shape", array.shape), grid["size"]["interpolation"])
            array, limits = stepped(array, made["intensity"]["steps"], located and located[place])
            self.arrays.append((channel, array))
            self.limits.append(limits)
        self.shape = self.arrays[0][1].shape

    def layer(self, name):
        """A channel, and where it is of another slice, that slice."""
        array = dict(self.arrays)[number(name)]
        slices = np.clip(np.arange(array.shape[0]) + (int(name.split("@")[1]) if "@" in name else 0), 0, array.shape[0] - 1)
        return array[slices]

    def labels_back(self, labels, lower):
        if not self.box:
            size = {"rule": "resize", "shape": self.shape} if self.is_resized else {"rule": "whole"}
            return back(labels, lower, self.places, self.shape, self.volume_shape, {"grid": {"size": size}})
        on_frame = cut(labels, [-low for low in lower], self.shape, 0)
        inside = [np.array([(2 * j + 1) * m // (2 * n) for j in range(n)]) for n, m in zip(self.shown, self.shape)]
        on_laid = np.zeros(self.laid, np.uint8)
        on_laid[tuple(slice(low, low + side) for low, side in zip(*self.box))] = on_frame[np.ix_(*inside)]
        return back(on_laid, [0, 0, 0], self.places, self.laid, self.volume_shape, {"grid": {"size": {"rule": "whole"}}})

    def mask(self, inside):
        """A mask of the volume's grid, by one nearest neighbour."""
        found = []
        for (source, flip, steps), shown, length in zip(self.places, self.shown, self.shape):
            n = self.volume_shape[source]
            at = ((np.arange(length) + 0.5) * shown / length - 0.5) * (steps[1] - steps[0])
            found.append((source, np.clip(np.floor((n - 1 - at if flip else at) + 0.5 + 1e-9).astype(int), 0, n - 1)))
        return np.transpose(inside, [source for source, _ in found])[np.ix_(*[index for _, index in found])]


def number(channel):
    plain = channel.split("@")[0]
    return int(plain.split(":")[1]) if ":" in plain else 0


def opened(path, made):
    """Sessions of all members, and their shares."""
    members = [(path, made.get("weight", 1))] + [(MODELS / member["file"], member.get("weight", 1)) for member in made.get("ensemble", [])]
    total = sum(weight for _, weight in members)
    return [(onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]), weight / total) for file, weight in members]


def tensor(stack, layout, session, given):
    """Channels, D, H, W as one input; slices along D become the batch."""
    moved = {"NCDHW": stack[None], "NDHWC": np.moveaxis(stack, 0, 3)[None], "NCHW": np.moveaxis(stack, 1, 0), "NHWC": np.moveaxis(stack, 0, 3)}[layout]
    fixed = next(port.shape[0] for port in session.get_inputs() if port.name == given)
    return np.ascontiguousarray(np.repeat(moved, fixed, 0) if isinstance(fixed, int) and fixed > 1 else moved)


def seen(stack, path, made):
    """Maps of a stack (channels, D, H, W), and how many windows were left out."""
    layout, size, output, sessions = made["grid"]["layout"], made["grid"]["size"], made["output"], opened(path, made)
    given = made["inputs"][0]["name"]

    def run(window):
        mean = 0
        for session, share in sessions:
            out = session.run([output["name"]], {given: tensor(window, layout, session, given)})[0][0]
            out = out if layout.startswith("NC") else np.moveaxis(out, -1, 0)
            out = out[:, None] if is_slicewise(made) else out
            if output.get("activate") == "before_blending":
                out = activated(out, output)
            mean = mean + np.float32(share) * out
        return mean

    sides, skipped = stack.shape[1:], 0
    window, overlap, blend = ([1, *sides[1:]] if is_slicewise(made) else list(sides)), 0.0, "constant"
    if size["rule"] == "sliding":
        window, overlap, blend = spatial(made, "window", sides), size.get("overlap", 0.25), size.get("blend", "gaussian")
    weights, total, count = importance(window, blend), None, np.zeros(sides, np.float32)
    for d in starts(sides[0], window[0], overlap):
        for h in starts(sides[1], window[1], overlap):
            for w in starts(sides[2], window[2], overlap):
                place = (slice(d, d + window[0]), slice(h, h + window[1]), slice(w, w + window[2]))
                if "background" in size and not (stack[(..., *place)] > size["background"]).any():
                    skipped += 1
                    continue
                out = run(stack[(..., *place)])
                total = np.zeros((out.shape[0], *sides), np.float32) if total is None else total
                total[(slice(None), *place)] += weights * out
                count[place] += weights
    with np.errstate(invalid="ignore"):
        return total / count, skipped


def activated(values, output):
    return {"sigmoid": sigmoid, "softmax": softmax}.get(output["activation"], lambda x: x)(values)


def labelled(values, made):
    """Labels, with the least distance of any decision from its opposite."""
    output, unseen = made["output"], np.isnan(values[0])
    values = np.where(unseen, values[:, ~unseen][:, :1].reshape(-1, 1, 1, 1), values)
    if output.get("activate") != "before_blending":
        values = activated(values, output)
    if output.get("wins") == "last":
        threshold, labels = output.get("threshold", 0.5), np.zeros(values.shape[1:], np.uint8)
        for label in output["labels"]:
            labels[values[label["channel"]] > threshold] = label["value"]
        gap = min(np.abs(values[label["channel"]] - threshold).min() for label in output["labels"])
    else:
        labels, gap = decided(values, made)
    labels[unseen] = 0
    return labels, gap, int(unseen.sum())


def on_frame(path, made, volumes, matrix, box=None, located=None):
    frame = Frame(volumes, matrix, made, box, located)
    size = made["grid"]["size"]
    stack = np.stack([frame.layer(channel) for channel in made["inputs"][0]["channels"]])
    shape = list(frame.shape)
    if size["rule"] == "sliding":
        shape = [max(n, side) for n, side in zip(shape, spatial(made, "window", shape))]
    elif size["rule"] == "whole":
        multiple = size.get("multiple", 1)
        shape = [n if axis == 0 and is_slicewise(made) else -(-n // multiple) * multiple for axis, n in enumerate(shape)]
    elif size["rule"] == "fit":
        shape = spatial(made, "shape", shape)
    lower = [centred(n, side) for n, side in zip(frame.shape, shape)]
    stack = np.stack([cut(array, lower, shape, size.get("pad_value", 0.0)) for array in stack])
    values, skipped = seen(stack, path, made)
    labels, gap, unseen = labelled(values, made)
    return frame, labels, lower, {"skipped": skipped, "unseen": unseen, "gap": gap}


def box_of(made, volumes, matrix):
    """deepbet's rule: first voxel and sides of the box on the grid of step 3, and the limits of the pass's percentile_clip."""
    rule = made["locate"]
    output = {**rule["output"], "labels": [{"channel": rule["output"]["channel"], "value": 1}]}
    output.setdefault("threshold", 0.5)
    own = {"inputs": [{"name": rule["input"], "channels": made["inputs"][0]["channels"]}], "grid": {**made["grid"], "size": rule["size"]}, "intensity": rule["intensity"], "output": output}
    frame, labels, lower, facts = on_frame(MODELS / rule["file"], own, [prepared(v, np.linalg.norm(matrix[:3, :3], axis=0), made) for v in volumes], matrix)
    mask = cut(labels, [-low for low in lower], frame.shape, 0)
    structure = scipy.ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[rule.get("connectivity", 26)])
    parts, count = scipy.ndimage.label(mask, structure)
    assert count > 1, "a second component that does not count"
    mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    low, sides = [], []
    for axis in range(3):
        n, full = mask.shape[axis], frame.laid[axis]
        share = mask.mean(tuple(a for a in range(3) if a != axis))
        planes = np.flatnonzero(share > rule.get("plane_fraction", 0.0))
        first, last, scale = planes[0], planes[-1], np.float32(full) / np.float32(n)
        centre = np.round(scale * np.float32((first + last + 1) / 2))
        size = np.round(np.float32(1 + 2 * np.float32(rule.get("margin", 0.1))) * (scale * np.float32(last + 1 - first)))
        start, end = max(0, int(np.trunc(centre - size / 2))), min(full, int(np.trunc(centre + size / 2)))
        low.append(start)
        sides.append(end - start)
    return (low, sides), frame.limits, mask, facts["gap"]


def segmented(path, made, volumes, matrix):
    """Labels on the volume's grid, and facts that assertions look at."""
    if "locate" not in made:
        frame, labels, lower, facts = on_frame(path, made, volumes, matrix)
        return frame.labels_back(labels, lower), facts
    box, limits, mask, gap = box_of(made, volumes, matrix)
    frame, labels, lower, facts = on_frame(path, made, volumes, matrix, box, limits)
    facts["gap"] = min(gap, facts["gap"])
    return frame.labels_back(labels, lower), {**facts, "box": box, "laid": frame.laid, "mask": mask}


# ---- cases --------------------------------------------------------------------------------------------------------------------------------


def study(dims, channels=1, boxes=(), lift=0.0):
    """Noise, lifted within boxes ([first, end) of columns, rows, slices)."""
    volumes = noise(channels * int(np.prod(dims))).reshape(channels, *dims[::-1]).transpose(0, 3, 2, 1).copy()
    inside = np.zeros(dims, bool)
    for (x, xx), (y, yy), (z, zz) in boxes:
        inside[x:xx, y:yy, z:zz] = True
    volumes[:, inside] += np.float32(lift)
    return volumes


LABELS = [{"channel": c, "value": v, "name": f"label{v}"} for c, v in ((1, 1), (2, 2), (3, 7))]
ZSCORE = [{"step": "zscore"}]


def segmentations():
    cases = []

    def add(path, size, study_, matrix, layout="NCDHW", orient=None, axes="zyx", spacing=None, steps=ZSCORE, activation="argmax", named=LABELS, channels=("volume",), top=None, look=None, **output):
        dims, count, boxes, lift = (*study_, 1, (), 0.0)[:4] if len(study_) < 4 else study_
        made = {
            "task": "segment",
            "inputs": [{"name": "volume", "channels": list(channels)}],
            "grid": {"layout": layout, "orientation": orient, "axes": axes, "spacing_mm": spacing, "size": size},
            "intensity": {"steps": steps},
            "output": {"name": "logits", "activation": activation, "labels": named, **output},
            **(top or {}),
        }
        path, made = path(made) if callable(path) else (path, contract(path, made))
        volumes = study(dims, count, boxes, lift)
        labels, facts = segmented(path, made, volumes, matrix)
        # Labels must not hang on rounding.
        assert facts["gap"] > 2e-5, (path.name, facts["gap"])
        assert len(np.unique(labels)) >= 3, (path.name, np.unique(labels, return_counts=True))
        if look:
            look(made, volumes, labels, facts)
        case = {"model": path.name, "dims": dims, "channels": count, "affine": matrix.tolist(), "boxes": boxes, "lift": lift}
        cases.append({**case, "labels": "".join(map(str, labels.transpose(2, 1, 0).ravel()))})

    def sliding(window, overlap, blend="gaussian", **more):
        return {"rule": "sliding", "window": window, "overlap": overlap, "blend": blend, **more}

    def differs(path, change, matrix):
        """Asserts that a changed contract gives other labels (of the same grid)."""

        def look(made, volumes, labels, _):
            other = change(json.loads(json.dumps(made)))
            assert (segmented(path, other, volumes, matrix)[0] != labels).sum() > 5, path.name

        return look

    def flat(made):
        made["inputs"][0]["channels"] = ["volume@0"] * len(made["inputs"][0]["channels"])
        return made

    def turned(axes):
        def change(made):
            made["grid"]["axes"] = axes
            return made

        return change

    small, mid, near = (9, 10, 6), (13, 11, 9), ["volume@-1", "volume@0", "volume@1"]
    # 1. Slices.
    path = segmenter("slices_slide", "NCHW", [5, 6], 4)
    add(path, sliding([5, 6], 0.25, batch=4), (mid,), AXIAL, "NCHW")
    path = segmenter("slices_half", "NHWC", [4, 5], 4, 3, batch=2, skip=11)
    # D runs over x, which is slices of the volume here (orientation RAS of a sagittal study), H over y, W over z: H is cut into windows, W is padded.
    add(path, sliding([4, 5], 0.5, batch=2, pad_value=-0.5), ((13, 4, 9),), SAGITTAL, "NHWC", "RAS", "xyz", channels=near, look=differs(path, flat, SAGITTAL))
    path = segmenter("slices_spaced", "NCHW", [6, 7], 4, 3, skip=23)
    add(path, sliding([6, 7], 0.5, batch=3), (small,), AXIAL, "NCHW", "LIA", "xyz", [1.7, 1.3, 1.1], channels=near, look=differs(path, flat, AXIAL))
    path = segmenter("slices_fit", "NCHW", [7, 12], 4, 2, skip=37)
    add(path, {"rule": "fit", "shape": [7, 12], "pad_value": 1.5}, (small,), SAGITTAL, "NCHW", "RAS", "yxz", channels=["volume", "volume@2"], activation="softmax", threshold=0.4, look=differs(path, flat, SAGITTAL))
    path = segmenter("slices_whole", "NHWC", ["h", "w"], 4, skip=41)
    add(path, {"rule": "whole", "multiple": 4, "pad_value": 0.25}, (small,), AXIAL, "NHWC", "LPS", "xyz", look=differs(path, turned("xzy"), AXIAL))
    path = segmenter("slices_stretch", "NCHW", [6, 8], 4, 3, skip=53)
    add(path, {"rule": "resize", "shape": [6, 8], "interpolation": "linear"}, (small, 2, (), 0.0), SAGITTAL, "NCHW", "RAS", "xyz", 1.4, channels=["volume:1@-1", "volume:0", "volume:1@3"], look=differs(path, lambda made: {**made, "inputs": [{"name": "volume", "channels": ["volume:1", "volume:0", "volume:1"]}]}, SAGITTAL))
    path = segmenter("slices_nearest", "NCHW", [7, 5], 4, batch=3, skip=61)
    add(path, {"rule": "resize", "shape": [7, 5], "interpolation": "nearest_exact"}, (small,), SAGITTAL, "NCHW", None, "xyz")
    path = segmenter("slices_spline", "NHWC", [7, 11], 4, skip=71)
    add(path, {"rule": "resize", "shape": [7, 11], "interpolation": "bspline"}, (small,), AXIAL, "NHWC", "RAS")
    path = segmenter("spline", "NCDHW", [7, 5, 12], 4, skip=79)
    add(path, {"rule": "resize", "shape": [7, 5, 12], "interpolation": "bspline"}, (small,), SAGITTAL, orient="LPS", axes="yxz")
    # A window that the configuration may change.
    path = segmenter("slices_any", "NCHW", ["h", "w"], 4, skip=83)
    add(path, sliding([6, 4], 0.25, multiple=2), (small,), AXIAL, "NCHW", activation="softmax", activate="before_blending")

    # 2. Background.
    def seen_in_part(path, matrix):
        def everywhere(made):
            del made["grid"]["size"]["background"]
            return made

        def look(made, volumes, labels, facts):
            assert facts["skipped"] > 3 and facts["unseen"] > 20, facts
            print(made["name"], facts)
            differs(path, everywhere, matrix)(made, volumes, labels, facts)

        return look

    # Two lit parts: the first slices, and some in the middle, hold none.
    lit = [[[2, 5], [1, 4], [3, 5]], [[8, 10], [6, 10], [9, 12]]]
    steps = [{"step": "affine", "scale": 0.002, "shift": -1.0}]
    path = segmenter("background", "NCDHW", [3, 4, 5], 4, skip=97)
    add(path, sliding([3, 4, 5], 0.25, batch=2, background=0.5), ((13, 11, 14), 1, lit, 1500.0), AXIAL, steps=steps, look=seen_in_part(path, AXIAL))
    path = segmenter("background_slices", "NHWC", [4, 5], 4, 2, skip=101)
    add(path, sliding([4, 5], 0.5, batch=5, background=0.5, pad_value=-1), ((13, 11, 9), 1, [[[3, 6], [2, 8], [3, 7]]], 1500.0), SAGITTAL, "NHWC", "RAS", "xyz", steps=steps, channels=["volume@-1", "volume@1"], activation="sigmoid", look=seen_in_part(path, SAGITTAL))

    # 3. Nested regions; the list's order is neither that of the channels nor that of the probabilities.
    nested = [{"channel": 2, "value": 1, "name": "whole"}, {"channel": 0, "value": 2, "name": "core"}, {"channel": 1, "value": 4, "name": "enhancing"}]
    path = segmenter("nested", "NCDHW", [4, 5, 6], 3, skip=107)
    add(path, sliding([4, 5, 6], 0.5), (mid,), AXIAL, orient="RAS", activation="sigmoid", named=nested, wins="last", look=differs(path, lambda made: {**made, "output": {**made["output"], "wins": "largest"}}, AXIAL))
    path = segmenter("nested_early", "NDHWC", [4, 5, 6], 3, skip=109)
    add(path, sliding([4, 5, 6], 0.5), (mid,), SAGITTAL, "NDHWC", activation="softmax", named=nested, wins="last", threshold=0.3, activate="before_blending", look=differs(path, lambda made: {**made, "output": {**made["output"], "activate": "after_blending"}}, SAGITTAL))

    # 4. Ensembles. Members have no contracts of their own.
    members = []
    for letter, weight, skip in (("b", 2, 127), ("c", 0.5, 131)):
        member = segmenter(f"fold_{letter}", "NCDHW", [3, 4, 5], 4, skip=skip)
        members.append({"file": member.name, "sha256": digest(member), "weight": weight})

    def unweighted(made):
        return {**made, "weight": 1, "ensemble": [{**member, "weight": 1} for member in made["ensemble"]]}

    top = {"ensemble": members, "weight": 1.5}
    path = segmenter("ensemble", "NCDHW", [3, 4, 5], 4, skip=137)
    add(path, sliding([3, 4, 5], 0.25, batch=2), (mid,), AXIAL, activation="softmax", threshold=0.4, top=top, look=differs(path, unweighted, AXIAL))
    path = segmenter("ensemble_early", "NCDHW", [3, 4, 5], 4, skip=137)
    add(path, sliding([3, 4, 5], 0.25, batch=2), (mid,), AXIAL, activation="softmax", threshold=0.4, activate="before_blending", top=top, look=differs(path, lambda made: {**made, "output": {**made["output"], "activate": "after_blending"}}, AXIAL))
    other = segmenter("slices_fold", "NHWC", [4, 5], 4, 3, batch=2, skip=139)
    path = segmenter("slices_ensemble", "NHWC", [4, 5], 4, 3, batch=2, skip=149)
    add(path, sliding([4, 5], 0.5, batch=2), (small,), SAGITTAL, "NHWC", "RAS", "xyz", channels=near, activation="softmax", activate="before_blending", top={"ensemble": [{"file": other.name, "sha256": digest(other)}]}, look=differs(path, lambda made: {**made, "ensemble": []}, SAGITTAL))

    # 6. Steps before the frame, windows of intensity, statistics over the foreground.
    lump = [[[2, 7], [2, 8], [1, 5]]]
    path = segmenter("filtered", "NCDHW", [4, 5, 6], 4, skip=151)
    top = {"preprocess": [{"step": "median", "radius": 1}, {"step": "gaussian", "sigma_mm": 0.8}]}
    window = [{"step": "window", "center": 700, "width": 1800, "function": "linear"}, {"step": "zscore", "over": "foreground"}]
    add(path, sliding([4, 5, 6], 0.25), (small, 1, lump, 1200.0), AXIAL, axes="xyz", top=top, steps=window, look=differs(path, lambda made: {**made, "preprocess": made["preprocess"][::-1]}, AXIAL))
    path = segmenter("curved", "NCDHW", [4, 5, 6], 4, skip=157)
    curve = [{"step": "window", "center": 300, "width": 900, "function": "sigmoid", "lo": -1, "hi": 2}]
    add(path, sliding([4, 5, 6], 0.25), (small, 1, lump, 300.0), AXIAL, orient="RAS", steps=curve, top={"preprocess": [{"step": "median"}]})

    # A tunnel along D, which is a hole of each slice (D over columns here) and none of the volume.
    tunnel = [[[2, 7], [2, 8], [1, 2]], [[2, 7], [2, 8], [4, 5]], [[2, 7], [2, 4], [2, 4]], [[2, 7], [6, 8], [2, 4]]]

    def filled_by_slice(made, volumes, labels, facts):
        # Columns, rows, slices is D, H, W of "xyz".
        assert foreground(volumes[0]).sum() > foreground(volumes[0], False).sum()

    path = segmenter("tunnel", "NCDHW", [4, 5, 6], 4, skip=191)
    add(path, sliding([4, 5, 6], 0.25), (small, 1, tunnel, 1200.0), AXIAL, axes="xyz", steps=[{"step": "zscore", "over": "foreground", "ddof": 1}], look=filled_by_slice)

    # 7. Locating. The volume has a large lump with a thin protrusion, and a small one far away.
    place = [[[6, 14], [4, 11], [3, 8]], [[9, 11], [6, 8], [1, 3]], [[0, 3], [14, 16], [0, 2]]]

    def smaller(matrix):
        def look(made, volumes, labels, facts):
            (low, sides), laid, mask = facts["box"], facts["laid"], facts["mask"]
            assert all(side < n for side, n in zip(sides, laid)), (sides, laid)
            where = np.argwhere(mask)
            print(made["name"], "box", low, sides, "of", laid, "found", where.min(0), where.max(0), "of", mask.shape, "labels", np.unique(labels, return_counts=True))
            for change in ({"margin": 0.3}, {"plane_fraction": 0.0}):
                other = {**made, "locate": {**made["locate"], **change}}
                assert box_of(other, volumes, matrix)[0] != (low, sides), change
            if any(step["step"] == "clip_as_located" for step in made["intensity"]["steps"]):
                other = {**made, "intensity": {"steps": [s for s in made["intensity"]["steps"] if s["step"] != "clip_as_located"]}}
                assert (segmented(MODELS / f"{made['name']}.onnx", other, volumes, matrix)[0] != labels).sum() > 5

        return look

    def locate(path, size, activation, **more):
        steps = [{"step": "percentile_clip", "lo": 5, "hi": 92}, {"step": "zscore", "ddof": 1}]
        rule = {"file": path.name, "sha256": digest(path), "input": "scan", "size": size, "intensity": {"steps": steps}}
        return {"locate": {**rule, "output": {"name": "seen", "activation": activation, "channel": 1, "threshold": 0.6}, **more}}

    study_ = ((17, 16, 11), 1, place, 1800.0)
    coarse = locator("located_bbox", "NCDHW", [12, 10, 11], 6.0, False)
    path = segmenter("located", "NCDHW", [8, 9, 7], 4, skip=163)
    as_located = [{"step": "clip_as_located"}, {"step": "zscore"}]
    add(path, {"rule": "resize", "shape": [8, 9, 7], "interpolation": "nearest_exact"}, study_, OBLIQUE, orient="LIA", spacing=[1.9, 1.3, 0.8], steps=as_located, top=locate(coarse, {"rule": "resize", "shape": [12, 10, 11], "interpolation": "nearest_exact"}, "sigmoid", connectivity=26, plane_fraction=0.1, margin=0.1), look=smaller(OBLIQUE))
    coarse = locator("located_slide_bbox", "NCDHW", ["d", "h", "w"], 6.0, True)
    path = segmenter("located_slide", "NCDHW", [4, 5, 14], 4, skip=167)
    add(path, sliding([4, 5, 14], 0.5, pad_value=0.5, batch=2), study_, OBLIQUE, orient="LIA", axes="xyz", top=locate(coarse, {"rule": "whole", "multiple": 4}, "none", connectivity=6, plane_fraction=0.1, margin=0.05), look=smaller(OBLIQUE))
    coarse = locator("located_slices_bbox", "NCHW", [8, 9], 6.0, True)
    path = segmenter("located_slices", "NCHW", [13, 9], 4, 1, skip=173)
    add(path, {"rule": "fit", "shape": [13, 9], "pad_value": -1}, study_, OBLIQUE, "NCHW", "LIA", "xyz", steps=as_located, top=locate(coarse, {"rule": "resize", "shape": [8, 9], "interpolation": "linear"}, "none", plane_fraction=0.1), look=smaller(OBLIQUE))

    # 8. A contract within its model.
    def within(made):
        made = {"contract": 1, **made, "version": "2.1.0", "name": "within"}
        return segmenter("embedded", "NCDHW", [4, 5, 6], 4, batch=1, skip=179, metadata={"trained": "never", "smp_contract": json.dumps(made)}), made

    add(within, {"rule": "fit", "shape": [4, 5, 6]}, (small,), SAGITTAL, orient="RAS")
    return cases


def predictors():
    size2, size3 = [5, 6], [3, 4, 5]
    node = helper.make_node

    def factors(count, outputs, skip, over):
        return noise(count * outputs, skip).reshape(count, outputs) / np.float32(over)

    def slices(name, inputs, outputs, skip, layout="NCHW", pooled=False, batch="n", over=2048):
        """One answer per slice; pooled, one answer for all of them, weighted by an attention that is a softmax over slices."""
        shape = [batch, inputs, *size2] if layout == "NCHW" else [batch, *size2, inputs]
        constants = {"a": factors(inputs * 30, outputs, skip, over)}
        nodes = [node("Flatten", ["volume"], ["v"]), node("MatMul", ["v", "a"], ["each" if pooled else "logits"])]
        if pooled:
            constants |= {"t": factors(inputs * 30, 1, skip + 777, over), "o": np.array([0])}
            nodes += [node("MatMul", ["v", "t"], ["score"]), node("Softmax", ["score"], ["share"], axis=0), node("Mul", ["each", "share"], ["part"]), node("ReduceSum", ["part", "o"], ["logits"], keepdims=1)]
        return save(name, nodes, [("volume", shape)], [("logits", [1 if pooled else batch, outputs])], constants)

    def lesions(name, outputs, skip, over=4096):
        constants = {"a": factors(60, outputs, skip, over), "m": factors(60, outputs, skip + 999, over)}
        nodes = [node("Flatten", ["volume"], ["v"]), node("Flatten", ["mask"], ["k"]), node("MatMul", ["v", "a"], ["va"]), node("MatMul", ["k", "m"], ["km"]), node("Add", ["va", "km"], ["logits"])]
        return save(name, nodes, [("volume", ["n", 1, *size3]), ("mask", ["n", 1, *size3])], [("logits", ["n", outputs])], constants)

    kinds = [{"channel": c, "name": n} for c, n in enumerate(("benign", "malignant", "other"))]
    single = [{"channel": 0, "name": "malignant"}]
    dims = (11, 10, 9)
    volumes = study(dims)
    mask = np.zeros(dims, np.uint8)
    mask[7:10, 6:9, 5:8] = 3  # the largest lesion
    mask[1:3, 2, 1:3] = 3  # one of four voxels
    mask[8, 1, 1:3] = 3  # one of two
    mask[2, 8, 6] = 3  # one of one
    mask[4:6, 0:9, 0:9] = 2  # something else, larger
    cases = []

    def looks_of(frame, made, inside):
        """What the model looks at: (channels, D, H, W) per input, look by look."""
        size, masked = made["grid"]["size"], frame.mask(inside)
        lowers, shape = [[0, 0, 0]], list(frame.shape)
        if size["rule"] == "crop":
            parts, _ = scipy.ndimage.label(masked, np.ones((3, 3, 3)))
            sizes, shape = np.bincount(parts.ravel())[1:], size["shape"]
            order = np.argsort(-sizes, kind="stable")[: size.get("most", 32) if size.get("around") == "each" else 1]
            boxes = [np.argwhere(parts == 1 + part) for part in order]
            lowers = [[(int(lo) + int(hi) + 1) // 2 - side // 2 for lo, hi, side in zip(where.min(0), where.max(0), shape)] for where in boxes]
        elif size["rule"] == "fit":
            shape = spatial(made, "shape", shape)
            lowers = [[centred(n, side) for n, side in zip(frame.shape, shape)]]
        found = []
        for lower in lowers:
            look = {}
            for given in made["inputs"]:
                look[given["name"]] = np.stack([cut(masked.astype(np.float32), lower, shape, 0) if c == "mask" else cut(frame.layer(c), lower, shape, size.get("pad_value", 0.0)) for c in given["channels"]])
            slices = shape[0] if is_slicewise(made) else 1
            found += [{name: stack[:, k : k + 1] for name, stack in look.items()} if is_slicewise(made) else look for k in range(slices)]
        return found

    def finished(logits, output):
        calibration = output.get("calibration", {})
        values = activated(logits.astype(np.float64) / calibration.get("temperature", 1), output)
        return np.interp(values, *np.transpose(calibration["isotonic"])) if "isotonic" in calibration else values

    def said(path, made, frame):
        """What each member says."""
        looks, output = looks_of(frame, made, mask == 3), made["output"]
        reduce = output.get("reduce", "model")
        together = is_slicewise(made) and reduce == "model"
        answers = []
        for session, share in opened(path, made):
            runs = []
            for look in [looks] if together else [[look] for look in looks]:
                feeds = {name: np.concatenate([tensor(one[name], made["grid"]["layout"], session, name) for one in look]) for name in look[0]}
                runs.append(finished(session.run([output["name"]], feeds)[0].ravel(), output))
            runs = np.array(runs)
            answers.append((runs.max(0) if reduce == "max" else runs.mean(0), share, runs))
        return answers

    def add(path, size, output, layout="NCHW", inputs=({"name": "volume", "channels": ["volume"]},), orient="RAS", axes="zyx", spacing=None, top=None, activation="sigmoid", named=single, most_looks=None):
        inputs = list(inputs)
        masked = any("mask" in given["channels"] for given in inputs) or size["rule"] == "crop"
        made = {
            "task": "predict",
            "inputs": inputs,
            "grid": {"layout": layout, "orientation": orient, "axes": axes, "spacing_mm": spacing, "size": size},
            "intensity": {"steps": [{"step": "zscore", "ddof": 1}]},
            "output": {"name": "logits", "activation": activation, "labels": named, **output},
            **({"mask": {"labels": ["lesion"]}} if masked else {}),
            **(top or {}),
        }
        made = contract(path, made)
        frame = Frame(volumes, SAGITTAL, made)
        members = said(path, made, frame)
        value = sum(share * values for values, share, _ in members)
        assert ((0.03 < value) & (value < 0.97)).all(), (path.name, value)
        if most_looks:
            assert all(len(runs) == most_looks for *_, runs in members)
            assert np.ptp(members[0][2][:, 0]) > 0.02, "looks that say the same"
        case = {"model": path.name, "dims": dims, "affine": SAGITTAL.tolist(), "masked": masked, "values": [float(v) for v in value]}
        if len(members) > 1:
            told = next((label["channel"] for label in named if label["name"] == output.get("positive")), 0)
            one = np.array([values[told] for values, *_ in members])
            shares = np.array([share for _, share, _ in members])
            case["spread"] = {"members": [float(v) for v in one], "std": float(np.sqrt((shares * (one - (shares * one).sum()) ** 2).sum()))}
            assert case["spread"]["std"] > 0.02
        print(path.name, np.round(value, 4), case.get("spread"))
        cases.append(case)
        return made, frame

    def resize(how="linear", shape=size2):
        return {"rule": "resize", "shape": shape, "interpolation": how}

    # Ensembles.
    volume_mask = [{"name": "volume", "channels": ["volume"]}, {"name": "mask", "channels": ["mask"]}]
    folds = [{"file": fold.name, "sha256": digest(fold), "weight": weight} for fold, weight in ((lesions("judge_b", 3, 303), 2), (lesions("judge_c", 3, 404), 0.5))]
    largest = {"rule": "crop", "shape": size3, "around": "largest", "pad_value": 0.25}
    add(lesions("judges", 3, 202), largest, {"positive": "malignant"}, "NCDHW", volume_mask, activation="softmax", named=kinds, top={"ensemble": folds, "weight": 1.5})
    add(lesions("judges_first", 3, 203), largest, {}, "NCDHW", volume_mask, activation="softmax", named=kinds, top={"ensemble": folds[:1]})
    # Slices: the largest, the mean, and a model that takes all of them. Axis D is x, y or z of the contract.
    add(slices("slices_max", 1, 1, 505, batch=1), {"rule": "fit", "shape": size2}, {"reduce": "max", "positive": "malignant", "calibration": {"temperature": 1.7}}, most_looks=10)
    curve = [[0.1, 0.05], [0.3, 0.35], [0.6, 0.5], [0.9, 0.93]]
    add(slices("slices_mean", 3, 2, 606, "NHWC"), resize(), {"reduce": "mean", "calibration": {"isotonic": curve}}, "NHWC", [{"name": "volume", "channels": ["volume@-1", "mask", "volume@1"]}], axes="xyz", named=kinds[:2])
    add(slices("slices_model", 2, 2, 707, pooled=True, over=1024), resize("nearest_exact"), {"positive": "malignant", "calibration": {"temperature": 0.8}}, inputs=[{"name": "volume", "channels": ["volume", "volume@2"]}], axes="yxz", spacing=1.4, named=kinds[:2], activation="softmax")
    folds = [{"file": fold.name, "sha256": digest(fold)} for fold in (slices("slices_judge", 1, 1, 809, over=1024),)]
    add(slices("slices_judges", 1, 1, 808, over=1024), {"rule": "fit", "shape": size2}, {"reduce": "mean", "calibration": {"isotonic": curve}, "positive": "malignant"}, axes="xyz", top={"ensemble": folds, "weight": 3})
    # Each component, of which the two smallest are not looked at.
    each = {"rule": "crop", "shape": size3, "around": "each", "most": 2}
    made, frame = add(lesions("each_max", 2, 950), each, {"reduce": "max", "positive": "malignant"}, "NCDHW", volume_mask, named=kinds[:2], most_looks=2)
    made["grid"]["size"]["most"] = 4
    assert len(said(MODELS / "each_max.onnx", made, frame)[0][2]) == 4
    assert (np.abs(said(MODELS / "each_max.onnx", made, frame)[0][0] - cases[-1]["values"]) > 0.01).any(), "a component that is left out would count"
    add(lesions("each_mean", 2, 1010), {**each, "most": 3}, {"reduce": "mean", "calibration": {"isotonic": curve}}, "NCDHW", volume_mask, axes="xyz", named=kinds[:2], most_looks=3)
    return {"mask": "".join(map(str, mask.transpose(2, 1, 0).ravel())), "cases": cases}


def strangers():
    """Models that must not be taken: as members of an ensemble, or by a contract of slices."""
    segmenter("fold_five", "NCDHW", [3, 4, 5], 5, skip=211)
    segmenter("fold_pair", "NCDHW", [3, 4, 5], 4, 2, skip=223)
    segmenter("fold_fixed", "NCDHW", [3, 4, 5], 4, batch=2, skip=227)


if __name__ == "__main__":
    MODELS.mkdir(parents=True, exist_ok=True)
    made = {"segmentations": segmentations(), "predictions": predictors()}
    strangers()
    text = json.dumps(made)
    assert len(text) <= 60 << 10, len(text)
    (ROOT / "expected" / "inference_looks.json").write_text(text)
    print(len(text), "bytes,", len(made["segmentations"]), "segmentations,", len(made["predictions"]["cases"]), "predictions")
