"""Writes tests/data/expected/n4.json: log bias fields that SimpleITK's N4 finds in a phantom that both sides compute from a formula.

pip install numpy SimpleITK; then: python tests/interop/n4_expected.py [OUT.json]
"""

import json
import pathlib
import sys

import numpy as np
import SimpleITK as sitk

DIMS = (48, 40, 32)  # columns, rows, slices
SPACING_MM = (0.9375, 0.9375, 1.5)
STEP = 311  # every STEP-th voxel of a field is kept


def phantom():
    """Three tissues in an ellipsoid, noise, and a smooth field. Only + - * / in float64, in one order, so every language gets the same."""
    nx, ny, nz = DIMS
    z, y, x = np.meshgrid(np.arange(nz), np.arange(ny), np.arange(nx), indexing="ij")
    u, v, w = (x - 23.5) / 24.0, (y - 19.5) / 20.0, (z - 15.5) / 16.0
    r = u * u + v * v + w * w
    tissue = np.where(r < 0.3, 450.0, np.where(r < 0.65, 330.0, np.where(r < 0.9, 150.0, 0.0)))
    index = (z * ny + y) * nx + x
    hashed = ((index.astype(np.uint64) * 2654435761) % 2**32) >> 12
    noise = hashed.astype(np.float64) / 1048576.0  # 0 to 1
    bias = 1.0 + 0.3 * u - 0.2 * v * w + 0.15 * u * u + 0.1 * w
    volume = ((tissue + 24.0 * noise) * bias + 1.0).astype(np.float32)
    return volume, (r < 0.9).astype(np.uint8)


def image(array):
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(SPACING_MM)
    return made


def case(name, volume, mask, shrink, levels, threshold, bound):
    """One run; `mask` None means Otsu's threshold with 200 bins."""
    whole = image(volume)
    chosen = sitk.OtsuThreshold(whole, 0, 1, 200) if mask is None else image(mask)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(levels)
    n4.SetConvergenceThreshold(threshold)
    iterations, convergence = [0] * len(levels), [0.0] * len(levels)

    def heard():
        iterations[n4.GetCurrentLevel()] = n4.GetElapsedIterations()
        convergence[n4.GetCurrentLevel()] = n4.GetCurrentConvergenceMeasurement()

    n4.AddCommand(sitk.sitkIterationEvent, heard)
    small = [sitk.Shrink(part, [shrink] * 3) if shrink > 1 else part for part in (whole, chosen)]
    corrected = n4.Execute(*small)
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(whole)).ravel()
    return {
        "name": name,
        "mask": "otsu" if mask is None else name,
        "shrink": shrink,
        "levels": levels,
        "threshold": threshold,
        "bound": bound,
        "mask_voxels": int(np.count_nonzero(sitk.GetArrayFromImage(small[1]))),
        "iterations": iterations,
        "convergence": convergence,
        "step": STEP,
        "field": [float(value) for value in field[::STEP]],
        "corrected": [float(value) for value in sitk.GetArrayFromImage(corrected).ravel()[::STEP]] if shrink == 1 else [],
    }


def main():
    volume, mask = phantom()
    everywhere = np.ones_like(mask)
    # Zeros and a value below zero inside the mask: they have no logarithm.
    holes = np.where(mask > 0, volume, 0.0).astype(np.float32)
    holes[16, 20, 20:24] = -2.0
    cases = [
        case("whole", volume, mask, 1, [6, 5, 4, 3], 0.0, 1e-4),
        case("shrunk 2", volume, mask, 2, [8, 6, 4, 2], 0.0, 1e-4),
        case("shrunk 3", volume, mask, 3, [8, 6, 4, 2], 0.0, 1e-4),
        case("shrunk 4", volume, mask, 4, [8, 6, 4], 0.0, 1e-4),
        case("one level", volume, mask, 1, [12], 0.0, 1e-4),
        case("otsu", volume, None, 1, [10, 5], 0.0, 1e-4),
        case("holes", holes, everywhere, 1, [4, 3], 0.0, 1e-3),
        case("stopped", volume, mask, 1, [50, 50, 50, 50], 0.001, 1e-4),
    ]
    default = pathlib.Path(__file__).parent.parent / "data" / "expected" / "n4.json"
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    made = {"dims": DIMS, "spacing_mm": SPACING_MM, "sum": float(volume.astype(np.float64).sum()), "cases": cases}
    out.write_text(json.dumps(made, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
