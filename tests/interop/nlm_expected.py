"""Expected values of src/imaging/nlm and src/imaging/noise.rs, from dipy (classic method); needs dipy 1.12 and numpy.

    python3 nlm_expected.py > ../data/expected/nlm.json
"""

import json

import numpy as np
from dipy.denoise.nlmeans import nlmeans
from dipy.denoise.noise_estimate import estimate_sigma

DIMS = (20, 18, 14)  # columns, rows, slices
SIGMA = 40.0


def phantom():
    """Whole numbers 0..1000, column fastest: a bright ball in a dark cuboid on a background, with noise from an integer hash."""
    index = np.arange(np.prod(DIMS), dtype=np.uint64)
    x, y, z = index % 20, index // 20 % 18, index // 360
    key = (index * np.uint64(2654435761) + np.uint64(12345)) % np.uint64(1 << 32)
    key = ((key ^ (key >> np.uint64(15))) * np.uint64(2246822519)) % np.uint64(1 << 32)
    key = ((key ^ (key >> np.uint64(13))) * np.uint64(3266489917)) % np.uint64(1 << 32)
    noise = ((key >> np.uint64(16)) % np.uint64(161)).astype(np.int64) - 80
    x, y, z = (a.astype(np.int64) for a in (x, y, z))
    value = np.full(len(index), 60)
    value[(x >= 3) & (x < 17) & (y >= 2) & (y < 16) & (z >= 2) & (z < 12)] = 420
    value[(x - 11) ** 2 + (y - 9) ** 2 + (z - 7) ** 2 < 21] = 850
    voxels = np.clip(value + noise, 0, 1000)
    mask = (2 * (x - 9) ** 2 + 3 * (y - 8) ** 2 + 4 * (z - 7) ** 2 < 160).astype(np.uint8)
    return voxels.astype(np.float32), mask


def main():
    voxels, mask = phantom()
    volume = voxels.astype(np.float64).reshape(DIMS, order="F")
    cases = []
    for patch, block in ((0, 2), (1, 2), (1, 3), (1, 5), (2, 4)):
        for masked in (False, True):
            for rician in (False, True):
                chosen = mask.reshape(DIMS, order="F") if masked else None
                out = nlmeans(volume, SIGMA, mask=chosen, patch_radius=patch, block_radius=block, rician=rician, method="classic")
                out = out.ravel(order="F")
                # Every seventh voxel meets each column, row and slice; the sums are over all.
                cases.append(
                    {
                        "patch": patch,
                        "block": block,
                        "masked": masked,
                        "rician": rician,
                        "sum": float(out.sum()),
                        "squares": float((out * out).sum()),
                        "voxels": [round(float(v), 4) for v in out[::7]],
                    }
                )
    holes = volume * mask.reshape(DIMS, order="F")
    sigmas = [
        {"coils": n, "nonzero": nonzero, "sigma": float(estimate_sigma(holes, disable_background_masking=nonzero, N=n)[0])}
        for n in (0, 1, 4, 32)
        for nonzero in (False, True)
    ]
    total = float(voxels.astype(np.float64).sum())
    print(json.dumps({"dims": DIMS, "sigma": SIGMA, "total": total, "cases": cases, "sigmas": sigmas}, separators=(",", ":")))


if __name__ == "__main__":
    main()
