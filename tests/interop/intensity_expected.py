"""Expected values of src/imaging/intensity, masks and normalize, from numpy 2.4, intensity-normalization 3.0.1, SimpleITK 2.5, pydicom 3.0
and scikit-image 0.26.

    python3 intensity_expected.py > ../data/expected/intensity.json
"""

import json
import zlib

import numpy as np
import SimpleITK as sitk
from intensity_normalization.adapters.images import NumpyImageAdapter
from intensity_normalization.domain.models import Modality
from intensity_normalization.normalizers.individual.whitestripe import WhiteStripeNormalizer
from intensity_normalization.normalizers.population.nyul import NyulNormalizer
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing
from skimage.exposure import equalize_adapthist

DIMS = (40, 36, 24)  # columns, rows, slices
T1, T2, FLAIR, PD = (250, 500, 750), (900, 500, 350), (120, 560, 430), (820, 700, 520)  # CSF, grey and white matter


def mix(key):
    """An integer hash of 32 bits."""
    m = np.uint64(0xFFFFFFFF)
    key = (key * np.uint64(2654435761) + np.uint64(12345)) & m
    key = ((key ^ (key >> np.uint64(15))) * np.uint64(2246822519)) & m
    key = ((key ^ (key >> np.uint64(13))) * np.uint64(3266489917)) & m
    return key >> np.uint64(16)


def phantom(tissues, seed, air):
    """Nested ellipsoids of whole numbers, column fastest: CSF, grey, white matter, ventricle; noise; air 0 or noise below 25."""
    index = np.arange(np.prod(DIMS), dtype=np.uint64)
    x, y, z = (a.astype(np.int64) for a in (index % 40, index // 40 % 36, index // 1440))
    d = 4 * (x - 20) ** 2 + 5 * (y - 18) ** 2 + 9 * (z - 12) ** 2
    a, b = mix(index + np.uint64(seed)), mix(index + np.uint64(seed + 1000003))
    noise = (a % np.uint64(61)).astype(np.int64) + (b % np.uint64(61)).astype(np.int64) - 60
    value = np.where(d < 40, tissues[0], np.where(d < 600, tissues[2], np.where(d < 950, tissues[1], tissues[0])))
    value = value + noise
    value = np.where(d < 1200, value, (a % np.uint64(25)).astype(np.int64) * air)
    # A bright vessel, so that the largest voxels are few.
    value = np.where((abs(x - 30) < 2) & (abs(y - 18) < 2) & (d < 1100), value + 600, value)
    return value.astype(np.float32), (d < 1100).astype(np.uint8)


def volume(voxels):
    return voxels.reshape(DIMS[::-1])


def sample(voxels):
    """Every 397th voxel meets each column, row and slice."""
    return [float(f"{v:.7g}") for v in np.asarray(voxels, dtype=np.float64).ravel()[::397]]


def checksum(mask):
    return zlib.crc32(np.ascontiguousarray(mask, dtype=np.uint8).tobytes())


def statistics(t1, mask):
    cases = []
    for name, x in (("all", t1), ("nonzero", t1[t1 != 0]), ("above", t1[t1 > 300]), ("mask", t1[mask != 0])):
        shifted = x.astype(np.float64)
        percents = [0, 0.5, 1, 25, 50, 75, 99, 99.5, 100]
        cases.append(
            {
                "over": name,
                "count": int(x.size),
                "mean": shifted.mean(),
                "std": shifted.std(),
                "std1": shifted.std(ddof=1),
                "percents": percents,
                "percentiles": np.percentile(shifted, percents).tolist(),
            }
        )
    return cases


def nyul(volumes, masks):
    cases = []
    for masked in (False, True):
        for settings in ({}, {"output_min_value": 0.0, "output_max_value": 1000.0, "percentile_step": 20.0, "min_percentile": 2.0}):
            images = [NumpyImageAdapter(volume(v)) for v in volumes]
            chosen = [NumpyImageAdapter(volume(m)) for m in masks] if masked else None
            normalizer = NyulNormalizer(**settings).fit_population(images[:3], chosen[:3] if masked else None)
            outs = [normalizer.transform(image, chosen[i] if masked else None).get_data() for i, image in enumerate(images)]
            cases.append(
                {
                    "masked": masked,
                    "percentiles": normalizer.percentiles.tolist(),
                    "low": normalizer.output_min_value,
                    "high": normalizer.output_max_value,
                    "scale": normalizer.standard_scale.tolist(),
                    "voxels": [sample(out) for out in outs],
                }
            )
    return cases


def stripes(mask):
    cases = []
    for name, modality, tissues in (
        ("last", Modality.T1, T1),
        ("largest", Modality.T2, T2),
        ("largest", Modality.FLAIR, FLAIR),
        ("first", Modality.PD, PD),
    ):
        for masked in (False, True):
            for width in (0.05, 0.02):
                voxels = phantom(tissues, 7, 0)[0]
                # The package makes float32 of arrays.
                image = NumpyImageAdapter(volume(voxels))
                chosen = NumpyImageAdapter(volume(mask)) if masked else None
                normalizer = WhiteStripeNormalizer(width=width, modality=modality)
                peak = normalizer._get_tissue_mode(image.get_data()[chosen.get_data().astype(bool) if masked else image.get_data() > 0])
                out = normalizer.fit_transform(image, chosen).get_data()
                cases.append(
                    {
                        "peak": name,
                        "tissues": tissues,
                        "masked": masked,
                        "width": width,
                        "mode": peak,
                        "mean": normalizer.mean,
                        "std": normalizer.std,
                        "count": int(normalizer.whitestripe_mask.sum()),
                        "voxels": sample(out)[::3],
                    }
                )
    return cases


def matches(volumes):
    cases = []
    for source, target in ((0, 1), (1, 0), (3, 0), (0, 3)):
        for levels, points, above in ((1024, 7, True), (256, 1, True), (64, 15, False)):
            a, b = (sitk.GetImageFromArray(volume(volumes[i])) for i in (source, target))
            out = sitk.HistogramMatching(a, b, numberOfHistogramLevels=levels, numberOfMatchPoints=points, thresholdAtMeanIntensity=above)
            out = sitk.GetArrayFromImage(out)
            cases.append(
                {"source": source, "target": target, "levels": levels, "points": points, "above": above, "voxels": sample(out)[::2]}
            )
    return cases


def windows():
    """Hounsfield units -1024 to 1500 in steps of 3.5, stored signed with 12 bits."""
    x = (np.arange(722) * 3.5 - 1024).astype(np.float32)
    cases = []
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        for center, width in ((40, 400), (-600, 1500), (300.5, 1), (50, 80.25)):
            ds = Dataset()
            ds.PhotometricInterpretation, ds.BitsStored, ds.PixelRepresentation = "MONOCHROME2", 12, 1
            ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = center, width, function
            out = apply_windowing(x, ds).astype(np.float32)
            bits = zlib.crc32(out.astype("<f4").tobytes())
            cases.append({"function": function, "center": center, "width": width, "voxels": out[::12].tolist(), "crc": bits})
    return {"low": -2048, "high": 2047, "cases": cases}


def clahes(t1):
    cases = []
    x = t1.astype(np.float64)
    for clip in (0.01, 0.03, 0.0, 0.2):
        for kernel in (None, (7, 9, 5)):
            for bins in (256, 100):
                if kernel and clip in (0.0, 0.2):
                    continue
                shaped = volume((x - x.min()) / (x.max() - x.min()))
                out3 = equalize_adapthist(shaped, kernel and kernel[::-1], clip, bins)
                out2 = []
                for plane in volume(x):
                    plane = (plane - plane.min()) / (plane.max() - plane.min())
                    out2.append(equalize_adapthist(plane, kernel and kernel[1::-1], clip, bins))
                cases.append(
                    {"clip": clip, "kernel": kernel, "bins": bins, "slices": sample(out2)[::3], "volume": sample(out3)[::3]}
                )
    return cases


def foregrounds(volumes):
    cases = []
    for i, voxels in enumerate(volumes):
        image = sitk.GetImageFromArray(volume(voxels))
        otsu = sitk.OtsuThresholdImageFilter()
        otsu.SetInsideValue(0)
        otsu.SetOutsideValue(1)
        mask = otsu.Execute(image)
        counts = sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(mask), sortByObjectSize=True))
        for radius in (0, 1, 2, 3):
            closed = sitk.BinaryMorphologicalClosing(mask, (radius,) * 3, sitk.sitkBall) if radius else mask
            labels = sitk.RelabelComponent(sitk.ConnectedComponent(closed), sortByObjectSize=True)
            largest = sitk.Equal(labels, 1)
            array = sitk.GetArrayFromImage(largest)
            slices = np.stack([sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(plane))) for plane in array])
            filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(largest))
            both = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(slices)))
            least = sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(closed), minimumObjectSize=5)) > 0
            cases.append(
                {
                    "volume": i,
                    "threshold": otsu.GetThreshold(),
                    "foreground": checksum(sitk.GetArrayFromImage(mask)),
                    "components": int(sitk.GetArrayFromImage(labels).max()),
                    "unclosed": int(counts.max()),
                    "radius": radius,
                    "closed": checksum(sitk.GetArrayFromImage(closed)),
                    "largest": checksum(array),
                    "least": checksum(least),
                    "slices": checksum(slices),
                    "filled": checksum(filled),
                    "both": checksum(both),
                    "count": int(both.sum()),
                }
            )
    return cases


def holes(voxels):
    """The first volume with slits, tunnels and specks in it, which only some of the steps close."""
    index = np.arange(voxels.size, dtype=np.uint64)
    out = voxels.copy()
    out[mix(index + np.uint64(99)) % np.uint64(9) == 0] = 0
    out[mix(index + np.uint64(77)) % np.uint64(97) == 0] = 800
    x, y = index % np.uint64(40), index // np.uint64(40) % np.uint64(36)
    out[(x == 15) & (y == 15)] = 0
    return out


def main():
    sets = [(T1, 1, 0), (T1, 2, 1), (PD, 3, 0), (FLAIR, 4, 1)]
    made = [phantom(*s) for s in sets]
    volumes = [(v * np.float32(1 + i / 4)).astype(np.float32) for i, (v, _) in enumerate(made)]
    masks = [m for _, m in made]
    expected = {
        "totals": [float(v.astype(np.float64).sum()) for v in volumes],
        "statistics": statistics(volumes[0], masks[0]),
        "nyul": nyul(volumes, masks),
        "stripes": stripes(masks[0]),
        "matches": matches(volumes),
        "windows": windows(),
        "clahes": clahes(volumes[1]),
        "foregrounds": foregrounds([*volumes, holes(volumes[0])]),
    }
    print(json.dumps(expected, separators=(",", ":")))


if __name__ == "__main__":
    main()
