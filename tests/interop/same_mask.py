"""Dice of two masks in NIfTI files, both brought to the canonical orientation by nibabel; needs nibabel and numpy.

    python3 same_mask.py OURS.nii.gz EXPECTED.nii.gz
"""

import sys

import nibabel
import numpy as np


def main():
    masks = [nibabel.as_closest_canonical(nibabel.load(path)) for path in sys.argv[1:3]]
    ours, theirs = (np.asanyarray(mask.dataobj) > 0 for mask in masks)
    if ours.shape != theirs.shape or not np.allclose(masks[0].affine, masks[1].affine, atol=1e-3):
        sys.exit(f"other grids: {ours.shape} {theirs.shape}\n{masks[0].affine}\n{masks[1].affine}")
    both = np.logical_and(ours, theirs).sum()
    print(f"dice {2 * both / (ours.sum() + theirs.sum()):.6f}")
    print(f"voxels {ours.sum()} {theirs.sum()}")


if __name__ == "__main__":
    main()
