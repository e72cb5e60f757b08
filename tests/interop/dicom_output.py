#!/usr/bin/env python3
"""De-identified DICOM files against the files they were made of: dicom_output.py INPUT OUTPUT [FRAMES].

INPUT and OUTPUT are folders. pydicom opens every output; each has the pixels of one input (compressed frames byte by byte, but for what was overwritten with
zeros; native samples as numbers) and the attributes that size and place them; SimpleITK reads the same volume from both folders where it reads the
input; dciodvfy, where it is installed, reports no error of an output that it does not report of the inputs; dcmtk, where it is installed, dumps them. Prints what was compared.
"""
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.encaps import generate_frames

KEPT = [
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PlanarConfiguration", "PixelSpacing", "ImagerPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness",
    "RescaleSlope", "RescaleIntercept", "Modality",
]


def is_compressed(ds):
    """JPEG and its relatives, and RLE; pydicom does not know all of them."""
    return ds.file_meta.TransferSyntaxUID.startswith(("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5"))


def frames(ds):
    if is_compressed(ds):
        return [bytes(frame) for frame in generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1))]
    array = ds.pixel_array
    return [array.astype(array.dtype.newbyteorder("<")).tobytes()]


def is_blanked(before, after):
    """Whether two frames differ only where the second has zeros, and padding."""
    size = min(len(before), len(after))
    a, b = np.frombuffer(before[:size], np.uint8), np.frombuffer(after[:size], np.uint8)
    return abs(len(before) - len(after)) <= 1 and bool(np.all((a == b) | (b == 0)))


def facts(ds):
    """What must stay, as text; places and spacings also from the functional groups."""
    values = [(key, str(ds.get(key))) for key in KEPT]
    for group in list(ds.get("SharedFunctionalGroupsSequence", [])) + list(ds.get("PerFrameFunctionalGroupsSequence", [])):
        for sequence, key in (("PlanePositionSequence", "ImagePositionPatient"), ("PlaneOrientationSequence", "ImageOrientationPatient"), ("PixelMeasuresSequence", "PixelSpacing")):
            values += [(key, str(item.get(key))) for item in group.get(sequence, [])]
    return values


def errors(path):
    tool = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    if tool is None:
        return None
    said = subprocess.run([tool, "-new", path], capture_output=True, text=True, errors="replace")
    # Values are quoted in some messages, and places differ between files of one series.
    lines = {re.sub(r"<[^>]*>|= *[^ ]+", "", line).strip() for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")}
    return lines


def volume(folder):
    reader = sitk.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(folder))
    if len(names) < 2:
        return None
    reader.SetFileNames(names)
    image = reader.Execute()
    return sitk.GetArrayFromImage(image), image.GetOrigin(), image.GetSpacing(), image.GetDirection()


def main():
    source, made = Path(sys.argv[1]), Path(sys.argv[2])
    inputs = [pydicom.dcmread(path) for path in sorted(source.iterdir()) if path.is_file()]
    outputs = [(path, pydicom.dcmread(path)) for path in sorted(made.iterdir())]
    assert len(outputs) == len(inputs) > 0, (len(outputs), len(inputs))
    waiting = [(ds, frames(ds), facts(ds)) for ds in inputs]
    for path, ds in outputs:
        assert path.stem == ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID, path
        assert ds.preamble == b"\0" * 128 and ds.PatientIdentityRemoved == "YES" and ds.LongitudinalTemporalInformationModified == "REMOVED", path
        mine, place = frames(ds), facts(ds)
        same = is_blanked if is_compressed(ds) else bytes.__eq__
        at_place = [k for k, (_, _, other) in enumerate(waiting) if other == place]
        assert at_place, f"{path} is at no place of the inputs: {sorted(set(place) ^ set(waiting[0][2]))}"
        match = [k for k in at_place if len(waiting[k][1]) == len(mine) and all(same(a, b) for a, b in zip(waiting[k][1], mine))]
        assert match, f"{path} has other pixels than the inputs"
        before, _, _ = waiting.pop(match[0])
        assert ds.SOPClassUID == before.SOPClassUID and ds.SOPInstanceUID != before.SOPInstanceUID, path
        if is_compressed(ds):
            assert ds.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID, path
    if all(not is_compressed(ds) for ds in inputs):
        before, after = volume(source), volume(made)
        assert (before is None) == (after is None)
        if before is not None:
            assert np.array_equal(before[0], after[0]) and all(np.allclose(a, b) for a, b in zip(before[1:], after[1:])), "SimpleITK reads another volume"
    dcmdump = shutil.which("dcmdump")
    for path, _ in outputs[:12] if dcmdump else []:
        subprocess.run([dcmdump, "-q", path], check=True, stdout=subprocess.DEVNULL)
    judged = "dciodvfy is absent"
    if errors(outputs[0][0]) is not None:
        # Files of a series have the same faults; a few of them show them.
        known = set().union(*(errors(path) for path in [path for path in sorted(source.iterdir()) if path.is_file()][:12]))
        new = set().union(*(errors(path) for path, _ in outputs[:12])) - known
        assert not new, f"dciodvfy: {sorted(new)}"
        judged = f"dciodvfy knows {len(known)} errors of the input and no other of the output"
    print(f"{len(outputs)} files as they came, {judged}")


main()
