"""Makes a head whose bias field is known: head_phantom.py SEED FOLDER; needs numpy and scipy.

256 x 256 x 160 voxels of 1 x 1 x 1.2 mm with folded grey and white matter, ventricles, deep nuclei, lesions, skull and fat; partial volume; a
smooth field (a polynomial and two coils) with a mean logarithm of 0 in the head; Rician noise of 3 % of white matter. Written column fastest:

    noisy.raw, biased.raw, bias.raw   float32: the scan, the scan without noise, the field
    head.mask, brain.mask             bytes: everything inside the skin; liquor, grey and white matter and lesions
    white.mask                        white matter two voxels away from anything else, free of partial volume
"""

import pathlib
import sys

import numpy as np
from scipy import ndimage

DIMS = (160, 256, 256)
SPACING_MM = (1.2, 1.0, 1.0)
AIR, FAT, SKULL, LIQUOR, GREY, WHITE, LESION = range(7)
SIGNAL = np.array([0, 600, 45, 150, 330, 450, 380], np.float32)
SIGMA = 13.5


def ball(at, centre, radii):
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(at, centre, radii))


def texture(random, width):
    """Smooth noise of deviation 1."""
    made = ndimage.gaussian_filter(random.standard_normal(DIMS).astype(np.float32), width, mode="wrap")
    return made / made.std()


def anatomy(random, x, y, z):
    depth = np.sqrt(ball((x, y, z), (0, 0, 0), (88, 108, 84))) + 0.012 * texture(random, 9)
    fold = texture(random, 3.2)
    tissue = np.full(DIMS, AIR, np.uint8)
    for end, kind in ((1.0, FAT), (0.93, SKULL), (0.87, LIQUOR)):
        tissue[depth < end] = kind
    tissue[depth + 0.02 * fold < 0.83] = GREY
    tissue[depth + 0.055 * fold < 0.74] = WHITE
    tissue[(tissue == GREY) & (fold > 1.6) & (depth > 0.6)] = LIQUOR
    nuclei = ball((np.abs(x), y, z), (26, 0, -4), (9, 18, 12)) < 1
    tissue[nuclei] = GREY
    tissue[ball((np.abs(x), y, z), (12, -5, 4), (8, 34, 14)) < 1] = LIQUOR
    for _ in range(12):
        centre, radius = random.uniform(-45, 45, 3), random.uniform(2, 6)
        tissue[(ball((x, y, z), centre, (radius,) * 3) < 1) & (tissue == WHITE)] = LESION
    return tissue, depth


def field(x, y, z, head):
    """The logarithm of the bias field."""
    u, v, w = x / 128, y / 128, z / 96
    log = 0.16 * u - 0.12 * v + 0.10 * w + 0.14 * u * v - 0.10 * v * w - 0.12 * u * u + 0.08 * v * v - 0.10 * w * w
    log = log + 0.35 * np.exp(-ball((x, y, z), (70, -60, 20), (70, 80, 70)))
    log -= 0.22 * np.exp(-ball((x, y, z), (-50, 40, -30), (60, 70, 60)))
    return log - log[head].mean()


def main():
    seed, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    random = np.random.default_rng(seed)
    z, y, x = (
        ((np.arange(n, dtype=np.float32) - n / 2 + 0.5) * mm).reshape([-1 if axis == of else 1 for axis in range(3)])
        for of, (n, mm) in enumerate(zip(DIMS, SPACING_MM))
    )
    tissue, depth = anatomy(random, x, y, z)
    head = depth < 1
    bias = np.exp(field(x, y, z, head)).astype(np.float32)
    biased = ndimage.gaussian_filter(SIGNAL[tissue], 0.55) * bias
    real, imaginary = (SIGMA * random.standard_normal(DIMS).astype(np.float32) for _ in range(2))
    volumes = {"noisy.raw": np.hypot(biased + real, imaginary), "biased.raw": biased, "bias.raw": bias}
    masks = {"head.mask": head, "brain.mask": head & (tissue >= LIQUOR), "white.mask": ndimage.binary_erosion(tissue == WHITE, iterations=2)}
    for name, volume in volumes.items():
        volume.astype("<f4").tofile(folder / name)
    for name, mask in masks.items():
        mask.astype(np.uint8).tofile(folder / name)


main()
