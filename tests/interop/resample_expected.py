"""Writes tests/data/expected/resample.json: what scipy, SimpleITK and cc3d make of volumes that both sides compute from a formula.

pip install numpy scipy SimpleITK connected-components-3d; then: python interop/resample_expected.py
"""

import hashlib
import json
import pathlib

import cc3d
import numpy as np
import scipy.ndimage
import SimpleITK as sitk


def noise(count):
    """Value i is exact in float32: 20 bits of a multiplicative hash, over 1024, less 300."""
    hashed = (np.arange(count, dtype=np.uint64) * 2654435761) % 2**32
    return ((hashed >> 12).astype(np.float64) / 1024.0 - 300.0).astype(np.float32)


def spread(count):
    """The formula of the masks: an xorshift of the index, whose bits do not line up with rows."""
    value = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    value ^= value >> np.uint64(29)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    return value >> np.uint64(40)  # 24 bits


def smoothed():
    cases = []
    for dims, spacing, wanted in (((14, 12, 10), (1.0, 1.5, 2.0), (2.6, 3.3, 2.0)), ((23, 9, 6), (0.8, 1.0, 4.0), (4.1, 1.0, 1.3))):
        values = noise(int(np.prod(dims))).reshape(dims[::-1])
        sigma = [max(0.0, (w / s - 1) / 2) for s, w in zip(spacing, wanted)]
        # In float64, so that what is compared is the rule and not scipy's rounding between axes.
        image = sitk.GetImageFromArray(scipy.ndimage.gaussian_filter(values.astype(np.float64), sigma[::-1], mode="reflect"))
        image.SetSpacing(spacing)
        size = [max(1, int(n * s / w + 0.5)) for n, s, w in zip(dims, spacing, wanted)]
        for how, interpolator in (("linear", sitk.sitkLinear), ("bspline", sitk.sitkBSpline)):
            made = sitk.Resample(image, size, sitk.Transform(), interpolator, (0, 0, 0), wanted, np.eye(3).ravel().tolist(), -1000.0, sitk.sitkFloat64)
            cases.append({"how": how, "dims": dims, "spacing": spacing, "wanted": wanted, "size": size, "values": [round(v, 4) for v in sitk.GetArrayFromImage(made).ravel().tolist()]})
    return cases


def components():
    cases = []
    for dims in ((131, 17, 12), (64, 3, 4), (65, 2, 2), (1, 9, 9), (200, 1, 3), (129, 6, 3), (256, 33, 35), (7, 1, 1)):
        values = spread(int(np.prod(dims))).reshape(dims[::-1])
        for share in (0.08, 0.3, 0.5, 0.9):
            mask = (values < np.uint64(share * 2**24)).astype(np.uint8)
            for neighbours in (6, 18, 26):
                labels = scipy.ndimage.label(mask, scipy.ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[neighbours]))[0] if min(dims) == 1 else cc3d.connected_components(mask, connectivity=neighbours)
                found, first, sizes = np.unique(labels[labels > 0], return_index=True, return_counts=True)
                order = np.argsort(first)
                new = np.zeros(int(labels.max()) + 1, np.uint32)
                new[found[order]] = np.arange(1, len(found) + 1)
                kept = (mask * np.isin(labels, found[sizes >= 4])).astype(np.uint8)
                boxes = np.array([[[s.start, s.stop - 1] for s in box[::-1]] for box in scipy.ndimage.find_objects(new[labels])], np.uint32)
                filled = scipy.ndimage.binary_fill_holes(mask).astype(np.uint8)
                digest = lambda a: hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()[:16]
                cases.append({"dims": dims, "below": int(share * 2**24), "neighbours": neighbours, "count": len(found), "map": digest(new[labels]), "sizes": digest(sizes[order].astype(np.uint64)), "boxes": digest(boxes), "at_least_4": digest(kept), "filled": digest(filled)})
    return cases


out = pathlib.Path(__file__).parent.parent / "tests/data/expected/resample.json"
out.write_text(json.dumps({"smoothed": smoothed(), "components": components()}, separators=(",", ":")))
