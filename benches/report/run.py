#!/usr/bin/env python3
"""Results as files, by this library and by others, in one run; prints Markdown.

    python3 -m venv ~/report-peers
    ~/report-peers/bin/pip install numpy pydicom highdicom nibabel SimpleITK scipy
    make library
    ~/report-peers/bin/python benches/report/run.py [--rounds N]

A head of 256 x 256 x 160 voxels of 16 bits and a mask of it with three labels, made here. Everything is on two threads where a tool can use them, and
goes to memory (/dev/shm); seconds by the clock are the least of several rounds.

    SEG          the mask as a DICOM Segmentation object (binary), as bytes in memory, from the mask and the files of the series
    mask.nii.gz  the mask as compressed NIfTI
    vol.nii.gz   the volume in float32 as compressed NIfTI
"""

import argparse
import io
import pathlib
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from libsmp import Smp, series  # noqa: E402

SHAPE = (160, 256, 256)
NAMES = {1: "brain", 2: "ventricle", 3: "lesion"}


def head():
    z, y, x = np.ogrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j, -1 : 1 : SHAPE[2] * 1j]
    waves = 0.03 * np.sin(19 * np.arctan2(y, x)) * np.sin(13 * z)
    mask = np.zeros(SHAPE, np.uint8)
    mask[np.sqrt((x / 0.7) ** 2 + (y / 0.85) ** 2 + (z / 0.8) ** 2) < 0.9 + waves] = 1
    mask[(((np.abs(x) - 0.12) / 0.08) ** 2 + (y / 0.3) ** 2 + (z / 0.2) ** 2) < 1] = 2
    mask[(x - 0.3) ** 2 + (y - 0.2) ** 2 + (z - 0.1) ** 2 < 0.01] = 3
    values = np.array([20, 600, 150, 800])[mask] + np.random.default_rng(4).normal(0, 20, SHAPE)
    return np.clip(values, 0, None).astype(np.uint16), mask


def timed(rounds, work):
    best, result = float("inf"), None
    for _ in range(rounds):
        begin = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - begin)
    return best, result


def by_highdicom(files, mask):
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    sources = [pydicom.dcmread(io.BytesIO(file)) for file in files]
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=value, segment_label=name, segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Brain, algorithm_type="AUTOMATIC",
            algorithm_identification=highdicom.AlgorithmIdentificationSequence("bench", codes.DCM.ArtificialIntelligence, "1"),
        )
        for value, name in NAMES.items()
    ]

    def work():
        made = highdicom.seg.Segmentation(
            source_images=sources, pixel_array=mask, segmentation_type="BINARY", segment_descriptions=described, series_instance_uid=highdicom.UID(),
            series_number=2, sop_instance_uid=highdicom.UID(), instance_number=1, manufacturer="bench", manufacturer_model_name="bench",
            software_versions="1", device_serial_number="1",
        )
        out = io.BytesIO()
        made.save_as(out)
        return out.getvalue()

    return work


def frames(file):
    import pydicom

    read = pydicom.dcmread(io.BytesIO(file))
    return int(read.NumberOfFrames), int(read.pixel_array.sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    import nibabel
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(2)
    voxels, mask = head()
    files = list(series(voxels))
    print("| product | tool | seconds | of smp | bytes |\n|---|---|---|---|---|")

    def rows(product, *tools):
        first = None
        for name, (seconds, size) in tools:
            first = first or seconds
            print(f"| {product} | {name} | {seconds:.4f} | {seconds / first:.1f} | {size} |", flush=True)

    with tempfile.TemporaryDirectory(prefix="smp-report-", dir="/dev/shm") as folder:
        folder = pathlib.Path(folder)
        library = Smp(str(folder), {"auto_anonymize": "false", "inference.threads": 2})
        library.segment_by(mask, NAMES)
        # An object is made once for a result, so every round has its own.
        results = [library.process(files) for _ in range(rounds)]
        ours, made = timed(rounds, lambda: library.object(results.pop()))
        theirs, expected = timed(min(rounds, 3), by_highdicom(files, mask))
        if frames(made) != frames(expected):
            sys.exit(f"not the same mask: {frames(made)} {frames(expected)}")
        rows("SEG", ("**smp**", (ours, len(made))), ("highdicom", (theirs, len(expected))))
        result = library.process(files)
        for product, what, array in (("mask.nii.gz", "mask", mask), ("vol.nii.gz", "volume", voxels.astype(np.float32))):
            path = folder / product

            def size(_):
                return path.stat().st_size

            image, affine = sitk.GetImageFromArray(array), np.diag([-1.0, -1.0, 1.0, 1.0])
            columns_first = np.ascontiguousarray(array.T)
            tools = {
                "**smp**": lambda: size(library.save(result, path, what)),
                "nibabel": lambda: size(nibabel.save(nibabel.Nifti1Image(columns_first, affine), path)),
                "SimpleITK": lambda: size(sitk.WriteImage(image, str(path), useCompression=True)),
            }
            measured = {name: timed(rounds, work) for name, work in tools.items()}
            library.save(result, path, what)
            if not np.array_equal(np.asarray(nibabel.load(path).dataobj), columns_first):
                sys.exit(f"{product} does not hold the same")
            rows(product, *measured.items())


if __name__ == "__main__":
    main()
