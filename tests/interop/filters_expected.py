"""Writes tests/data/expected/filters.json: what scipy, SimpleITK, scikit-image and dipy make of phantoms that both sides compute from a formula.

pip install numpy scipy SimpleITK scikit-image dipy; then: python tests/interop/filters_expected.py [OUT.json]
"""

import json
import pathlib
import sys

import numpy as np
import SimpleITK as sitk
from dipy.denoise.nlmeans import nlmeans
from scipy import ndimage
from skimage.restoration import denoise_tv_chambolle

VOLUME = (23, 17, 13)  # columns, rows, slices
SLICE = (41, 37, 1)
STEP = 29  # every STEP-th voxel is kept; 29 shares no factor with the dimensions


def phantom(dims):
    """Whole numbers 0..1000, column fastest: a bright ball in a dark cuboid on a background, with noise from an integer hash."""
    nx, ny, nz = dims
    index = np.arange(nx * ny * nz, dtype=np.uint64)
    x, y, z = (a.astype(np.int64) for a in (index % nx, index // nx % ny, index // (nx * ny)))
    key = (index * np.uint64(2654435761) + np.uint64(12345)) % np.uint64(1 << 32)
    key = ((key ^ (key >> np.uint64(15))) * np.uint64(2246822519)) % np.uint64(1 << 32)
    key = ((key ^ (key >> np.uint64(13))) * np.uint64(3266489917)) % np.uint64(1 << 32)
    noise = ((key >> np.uint64(16)) % np.uint64(161)).astype(np.int64) - 80
    value = np.full(len(index), 60)
    inside = (x >= 3) & (x < nx - 3) & (y >= 2) & (y < ny - 4) & ((nz == 1) | ((z >= 2) & (z < nz - 1)))
    value[inside] = 420
    value[(x - 12) ** 2 + (y - 9) ** 2 + (z - nz // 2) ** 2 < 25] = 850
    mask = (2 * (x - 11) ** 2 + 3 * (y - 8) ** 2 + 4 * (z - nz // 2) ** 2 < 200).astype(np.uint8)
    return np.clip(value + noise, 0, 1000).astype(np.float32).reshape(dims[::-1]), mask.reshape(dims[::-1])


def image(array, spacing):
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(spacing)
    return made


def main():
    shapes = {"volume": phantom(VOLUME), "slice": phantom(SLICE)}
    cases = []

    def keep(name, shape, out, digits, **parameters):
        # numpy and SimpleITK arrays are [slice, row, column]: raveled, the column runs fastest.
        out = np.asarray(out, dtype=np.float64).ravel()
        voxels = [round(float(v), digits) for v in out[::STEP]]
        sums = {"sum": float(out.sum()), "squares": float((out * out).sum())}
        cases.append({"filter": name, "shape": shape, **parameters, **sums, "voxels": voxels})

    for shape, sigma in (
        ("volume", (0.7, 0.7, 0.7)), ("volume", (1.5, 0.0, 2.3)), ("volume", (8.0, 3.0, 5.0)), ("slice", (1.2, 2.0, 1.0)),
    ):
        out = ndimage.gaussian_filter(shapes[shape][0].astype(np.float64), sigma[::-1])
        keep("gaussian", shape, out, 3, sigma=sigma)

    for shape, radius in (
        ("volume", (1, 1, 1)), ("volume", (2, 2, 2)), ("volume", (3, 3, 3)), ("volume", (1, 0, 1)), ("volume", (3, 1, 0)),
        ("slice", (1, 1, 1)), ("slice", (2, 2, 0)), ("slice", (0, 3, 3)),
    ):
        voxels = shapes[shape][0]
        out = sitk.GetArrayFromImage(sitk.Median(image(voxels, (1, 1, 1)), radius))
        size = [2 * r + 1 for r in radius[::-1]]
        assert (out == ndimage.median_filter(voxels, size=size, mode="nearest")).all()
        keep("median", shape, out, 0, radius=radius)

    for name, peer in (("gradient", sitk.GradientAnisotropicDiffusionImageFilter), ("curvature", sitk.CurvatureAnisotropicDiffusionImageFilter)):
        for shape, spacing, step, conductance, interval, iterations in (
            ("volume", (1.0, 1.0, 1.0), 0.0625, 3.0, 1, 1),
            ("volume", (1.0, 1.0, 1.0), 0.0625, 3.0, 1, 5),
            ("volume", (1.0, 1.0, 1.0), 0.0625, 3.0, 1, 10),
            ("volume", (0.75, 1.0, 2.5), 0.04, 1.0, 1, 1),
            ("volume", (0.75, 1.0, 2.5), 0.04, 1.0, 1, 5),
            ("volume", (0.75, 1.0, 2.5), 0.04, 1.0, 1, 10),
            ("slice", (0.5, 0.5, 4.0), 0.03, 2.0, 1, 10),
        ):
            peer_filter = peer()
            peer_filter.SetTimeStep(step)
            peer_filter.SetConductanceParameter(conductance)
            peer_filter.SetConductanceScalingUpdateInterval(interval)
            peer_filter.SetNumberOfIterations(iterations)
            peer_filter.SetNumberOfThreads(1)
            out = sitk.GetArrayFromImage(peer_filter.Execute(image(shapes[shape][0], spacing)))
            keep(name, shape, out, 3, spacing=spacing, step=step, conductance=conductance, interval=interval, iterations=iterations)

    for shape, weight, eps, most in (
        ("volume", 40.0, 2e-4, 200), ("volume", 150.0, 1e-5, 500), ("volume", 80.0, 2e-4, 1), ("volume", 80.0, 0.0, 30), ("slice", 60.0, 2e-4, 200),
    ):
        voxels = shapes[shape][0].astype(np.float64)
        # A single slice is a picture: two axes, as scikit-image counts them for an array of two.
        out = denoise_tv_chambolle(voxels[0] if shape == "slice" else voxels, weight=weight, eps=eps, max_num_iter=most)
        keep("total_variation", shape, out, 3, weight=weight, eps=eps, most=most)

    voxels, mask = shapes["volume"]
    for search, block in ((1, 1), (1, 2), (1, 3), (1, 5), (2, 1), (3, 2)):
        for masked in (False, True):
            rician = masked == (block == 1)
            out = nlmeans(
                # dipy's arrays are [column, row, slice]; its patch radius is what the window of the search is called here.
                voxels.T.astype(np.float64), 60.0, mask=mask.T if masked else None, patch_radius=search, block_radius=block,
                rician=rician, num_threads=1, method="blockwise",
            )
            keep("blockwise", "volume", out.T, 3, search=search, block=block, masked=masked, rician=rician, sigma=60.0)

    totals = {shape: float(voxels.astype(np.float64).sum()) for shape, (voxels, _) in shapes.items()}
    text = json.dumps({"dims": {"volume": VOLUME, "slice": SLICE}, "step": STEP, "totals": totals, "cases": cases}, separators=(",", ":"))
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1] / "data/expected/filters.json"
    out.write_text(text + "\n")


if __name__ == "__main__":
    main()
