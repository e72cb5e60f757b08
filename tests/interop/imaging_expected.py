"""Writes tests/data/expected/imaging.json: what numpy, SimpleITK and scipy make of volumes that both sides compute from a formula.

pip install numpy scipy SimpleITK; then: python tests/interop/imaging_expected.py
"""

import hashlib
import json
import pathlib

import numpy as np
import scipy.ndimage
import SimpleITK as sitk


def noise(count):
    """Value i is exact in float32: 20 bits of a multiplicative hash, over 1024, less 300."""
    hashed = (np.arange(count, dtype=np.uint64) * 2654435761) % 2**32
    return ((hashed >> 12).astype(np.float64) / 1024.0 - 300.0).astype(np.float32)


def percentiles():
    cases = []
    for count in (1, 2, 10, 10007, 300000):
        values = noise(count).astype(np.float64)
        percents = [0.0, 0.5, 1.0, 33.3, 50.0, 75.0, 99.5, 100.0]
        cases.append({"count": count, "percents": percents, "values": np.percentile(values, percents).tolist()})
    return cases


def zscores():
    cases = []
    for count in (10, 10007, 300000):
        values = noise(count).astype(np.float64)
        values[::3] = 0.0
        mask = (np.arange(count) % 5) < 2
        for over, chosen in (("all", values), ("nonzero", values[values != 0]), ("mask", values[mask])):
            for ddof in (0, 1):
                mean, std = chosen.mean(), chosen.std(ddof=ddof)
                scaled = (values - mean) / std
                if over == "nonzero":
                    scaled[values == 0] = 0
                cases.append({"count": count, "over": over, "ddof": ddof, "mean": mean, "std": std, "some": scaled[:: count // 10 or 1].tolist()})
    return cases


def image(dims, spacing, origin, direction):
    made = sitk.GetImageFromArray(noise(int(np.prod(dims))).reshape(dims[::-1]))
    made.SetSpacing(spacing)
    made.SetOrigin(origin)
    made.SetDirection(np.asarray(direction, float).ravel().tolist())
    return made


def affine(made):
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(made.GetDirection()).reshape(3, 3) * np.asarray(made.GetSpacing())
    matrix[:3, 3] = made.GetOrigin()
    return matrix.tolist()


def rotation(x, y, z):
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    return (
        np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    )


def resampled(source, dims, spacing, origin, direction, how):
    interpolator = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "bspline": sitk.sitkBSpline}[how]
    made = sitk.Resample(source, dims, sitk.Transform(), interpolator, origin, spacing, np.asarray(direction, float).ravel().tolist(), -1000.0, sitk.sitkFloat32)
    return {
        "how": how,
        "from": {"dims": source.GetSize(), "spacing": source.GetSpacing(), "affine": affine(source)},
        "onto": {"dims": dims, "spacing": spacing, "affine": affine(made)},
        # Four decimals keep the file small; nearest neighbours are exact and short as they are.
        "values": [round(float(value), 10 if how == "nearest" else 4) for value in sitk.GetArrayFromImage(made).ravel()],
    }


def resampling():
    cases = {"spacing": [], "grid": []}
    straight = np.eye(3)
    turned = rotation(0.3, -0.2, 0.5)
    for dims, spacing, wanted in (((9, 8, 7), (1.0, 1.5, 3.0), 1.37), ((4, 5, 3), (0.9, 0.9, 2.2), 0.61), ((5, 5, 5), (1.0, 1.0, 1.0), 2.3)):
        for direction in (straight, turned):
            source = image(dims, spacing, (3.0, -4.0, 5.0), direction)
            size = [max(1, int(n * s / wanted + 0.5)) for n, s in zip(dims, spacing)]
            for how in ("linear", "nearest", "bspline"):
                cases["spacing"].append(resampled(source, size, (wanted,) * 3, source.GetOrigin(), direction, how))
    source = image((9, 8, 7), (1.0, 1.5, 3.0), (3.0, -4.0, 5.0), turned)
    for how in ("linear", "nearest", "bspline"):
        cases["grid"].append(resampled(source, (8, 7, 6), (1.3, 1.1, 2.0), (2.1, -1.3, 6.2), rotation(-0.1, 0.25, 0.4), how))
    return cases


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def components():
    dims = (31, 17, 13)
    cases = []
    values = noise(int(np.prod(dims))).reshape(dims[::-1])
    for share in (0.2, 0.35, 0.6):
        mask = values < np.percentile(values.astype(np.float64), share * 100)
        for neighbours, rank in ((6, 1), (18, 2), (26, 3)):
            labels, count = scipy.ndimage.label(mask, scipy.ndimage.generate_binary_structure(3, rank))
            # Numbered anew in the order of the first voxels, so that the partition, not scipy's numbering, is compared.
            _, first = np.unique(labels[labels > 0], return_index=True)
            new = np.zeros(count + 1, np.uint32)
            new[np.argsort(first) + 1] = np.arange(1, count + 1)
            sizes = np.bincount(labels.ravel())[1:]
            kept = np.isin(labels, np.flatnonzero(sizes >= 3) + 1)
            cases.append(
                {
                    "below": float(np.percentile(values.astype(np.float64), share * 100)),
                    "neighbours": neighbours,
                    "count": count,
                    "largest": int(sizes.max()),
                    "partition": digest(new[labels]),
                    "at_least_3": digest(kept.astype(np.uint8)),
                    "filled": digest(scipy.ndimage.binary_fill_holes(mask).astype(np.uint8)),
                }
            )
    return {"dims": dims, "cases": cases}


if __name__ == "__main__":
    folder = pathlib.Path(__file__).parent.parent / "data" / "expected"
    folder.mkdir(parents=True, exist_ok=True)
    made = {"percentiles": percentiles(), "zscores": zscores(), "resampling": resampling(), "components": components()}
    (folder / "imaging.json").write_text(json.dumps(made, default=lambda value: np.asarray(value).tolist()))
