"""Bias correction, denoising and median of a real series against SimpleITK and dipy; needs numpy, SimpleITK and, for denoising, dipy.

    python3 real_filters.py SPACING LOADED.npy n4|nlm|median PROCESSED.npy

SPACING is three numbers of mm (columns, rows, slices), separated by commas. Prints what was compared and fails when it differs.
"""

import sys

import numpy as np
import SimpleITK as sitk


def n4(loaded, processed, spacing):
    """Log fields after 10 + 10 iterations at shrink 4, no early stop, over Otsu's mask with 200 bins (ITK's default in its example)."""
    image = sitk.GetImageFromArray(loaded)
    image.SetSpacing(spacing)
    mask = sitk.OtsuThreshold(image, 0, 1, 200)
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations([10, 10])
    corrector.SetConvergenceThreshold(0.0)
    corrector.Execute(sitk.Shrink(image, [4] * 3), sitk.Shrink(mask, [4] * 3))
    theirs = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image))
    inside = sitk.GetArrayFromImage(mask) > 0
    ours = np.log(loaded[inside].astype(np.float64) / processed[inside])
    apart = np.abs(ours - theirs[inside]).max()
    print(f"n4: log fields of {inside.sum()} voxels reach {np.abs(theirs[inside]).max():.3f} and are {apart:.2e} apart at most")
    return apart < 1e-3


def nlm(loaded, processed, _):
    """A block in the middle, with as much around it as patches and search reach."""
    try:
        from dipy.denoise.nlmeans import nlmeans
    except ImportError:
        print("SKIPPED: dipy is not installed, so non-local means of the real series was not compared (frozen phantoms are)")
        return True
    reach = 4
    middle = [n // 2 for n in loaded.shape]
    part = tuple(slice(m - 24 - reach, m + 24 + reach) for m in middle)
    inner = tuple(slice(reach, -reach) for _ in middle)
    # dipy has x first; the axes are interchangeable, so the array goes as it is.
    theirs = nlmeans(loaded[part].astype(np.float64), 20.0, patch_radius=1, block_radius=3, rician=True, method="classic")[inner]
    apart = np.abs(processed[part][inner] - theirs).max() * 1000 / loaded.max()
    print(f"nlm: {theirs.size} voxels are {apart:.4f} of 1000 apart at most")
    return apart < 0.05


def median(loaded, processed, _):
    theirs = sitk.GetArrayFromImage(sitk.Median(sitk.GetImageFromArray(loaded), [1, 1, 1]))
    print(f"median: {(theirs != processed).sum()} of {theirs.size} voxels differ")
    return np.array_equal(theirs, processed)


def main():
    spacing = [float(text) for text in sys.argv[1].split(",")]
    loaded, processed = np.load(sys.argv[2]), np.load(sys.argv[4])
    same = {"n4": n4, "nlm": nlm, "median": median}[sys.argv[3]](loaded, processed, spacing)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
