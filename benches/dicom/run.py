#!/usr/bin/env python3
"""A folder of DICOM files to one volume, beside other readers and in one run: run.py [STUDY] [ROUNDS].

STUDY is a folder with a real series (170 MR slices, say). A CT of 512 x 512 x 300 is made here, and a copy of it in lossless JPEG (dcmtk's dcmcjpeg).
Rows: smp (scan, headers, geometry, voxels in float32), pydicom with numpy, SimpleITK (GDCM), dcm2niix; for the CT also the least that any reader
does: bytes read and converted on all processors by a program that knows beforehand what they are.

Seconds are those of the work, without starting Python; peak memory is that of the process. Needs `pydicom`, `numpy`, `SimpleITK`, `pylibjpeg`,
`pylibjpeg-libjpeg` and `dcm2niix` in this Python; what is absent is left out and said.
"""

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = HERE / "../../target/release/dicom-bench"
PYDICOM = """
import pathlib, sys, time, numpy as np, pydicom, pydicom.pixels
start = time.perf_counter()
files = [pydicom.dcmread(path) for path in pathlib.Path(sys.argv[1]).iterdir()]
files.sort(key=lambda ds: np.dot(ds.ImagePositionPatient, np.cross(ds.ImageOrientationPatient[:3], ds.ImageOrientationPatient[3:])))
volume = np.stack([pydicom.pixels.apply_modality_lut(ds.pixel_array, ds).astype(np.float32) for ds in files])
print(time.perf_counter() - start, volume.size, volume.ravel()[::997].sum(dtype=np.float64))
"""
SITK = """
import sys, time, SimpleITK as sitk, numpy as np
start = time.perf_counter()
reader = sitk.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(sys.argv[1]))
reader.SetOutputPixelType(sitk.sitkFloat32)
image = reader.Execute()
volume = sitk.GetArrayViewFromImage(image)
print(time.perf_counter() - start, volume.size, volume.ravel()[::997].sum(dtype=np.float64))
"""


def measure(command):
    """Seconds of the work, processor seconds, peak MiB, sum of some voxels; None when it fails."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    said = process.stdout.read()
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        print(f"  {command[0]} failed: {message[-300:]}", file=sys.stderr)
        return None
    words = said.split()
    inner, total = (float(words[0]), float(words[2])) if len(words) == 3 else (wall, None)
    return inner, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, total


def make_ct(folder):
    """Ellipses with noise, 16 bits, as a scanner writes them."""
    import numpy as np
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    random = np.random.default_rng(1)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    folder.mkdir()
    for number in range(300):
        z = number / 150 - 1
        image = 24 + 1000 * (x**2 / 0.7 + y**2 / 0.5 + z**2 < 1) + 40 * ((x - 0.2) ** 2 + y**2 + z**2 < 0.1) + random.normal(0, 12, x.shape)
        ds = pydicom.Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.Modality, ds.PatientID, ds.PatientName, ds.InstanceNumber = "CT", "bench", "Bench", number + 1
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-200, -200, float(number)], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [0.78, 0.78], 1
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 512, 512, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.PixelData = image.astype("<i2").tobytes()
        ds.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)


def rows(folder, is_plain_ct, scratch):
    yield "smp", [PROGRAM, "load", folder]
    if is_plain_ct:
        yield "bytes read and converted", [PROGRAM, "limit", folder]
    yield "pydicom + numpy", [sys.executable, "-c", PYDICOM, folder]
    yield "SimpleITK (GDCM)", [sys.executable, "-c", SITK, folder]
    tool = shutil.which("dcm2niix", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    yield "dcm2niix (writes NIfTI)", [tool, "-z", "n", "-b", "n", "-o", scratch, folder] if tool else None


def main():
    study = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "../../../shared/data/mr_t1_philips_mprage"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    subprocess.run(["cargo", "build", "--release", "--target-dir", "../../target"], cwd=HERE, check=True)
    place = pathlib.Path(tempfile.mkdtemp(prefix="smp-dicom-", dir="/dev/shm"))
    try:
        make_ct(place / "ct")
        (place / "jpeg").mkdir()
        for file in sorted((place / "ct").iterdir()):
            if shutil.which("dcmcjpeg"):
                subprocess.run(["dcmcjpeg", "+e1", file, place / "jpeg" / file.name], check=True)
        for name, folder in (("MR series", study), ("CT 512 x 512 x 300", place / "ct"), ("the CT in lossless JPEG", place / "jpeg")):
            if not folder.is_dir() or not any(folder.iterdir()):
                print(f"{name}: not available here")
                continue
            spent, sums = {}, {}
            for _ in range(rounds):
                for row, command in rows(folder, folder.name == "ct", place):
                    found = measure(command) if command else None
                    spent.setdefault(row, []).extend([found] if found else [])
                    if found and found[3] is not None:
                        sums[row] = found[3]
                    for made in [*place.glob("*.nii"), *place.glob("*.json")]:
                        made.unlink()
            ours = statistics.median(values[0] for values in spent["smp"])
            print(name)
            print(f"  {'':28} {'wall s':>8} {'cpu s':>8} {'peak MiB':>9} {'smp is':>9}   sum of voxels")
            for row, values in spent.items():
                if not values:
                    print(f"  {row:28} not available here")
                    continue
                wall, cpu, peak = (statistics.median(column) for column in list(zip(*values))[:3])
                print(f"  {row:28} {wall:8.3f} {cpu:8.2f} {peak:9.0f} {wall / ours:8.2f}x   {sums.get(row, '')}")
            sys.stdout.flush()
    finally:
        shutil.rmtree(place)


main()
