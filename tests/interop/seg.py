#!/usr/bin/env python3
"""Judges a DICOM Segmentation object: seg.py OBJECT SOURCE_FOLDER MASK.npy|THRESHOLD SAME|OTHER; needs pydicom, highdicom and SimpleITK.

MASK.npy holds the labels that the object must hold, slice by slice along the normal of the source series. THRESHOLD instead says that a pixel
of a source frame, rescaled, is labelled above it; 0.9 of the pixels that either has must be in both, because voxels and mask came by way of another grid.
SAME: the object refers to the sources by their own UIDs; OTHER: by new ones, in the same places. Prints what was found; exits with 1 for an error.
"""

import pathlib
import shutil
import subprocess
import sys

import highdicom
import numpy as np
import pydicom


def dciodvfy(path):
    tool = shutil.which("dciodvfy", path=str(pathlib.Path(sys.executable).parent)) or shutil.which("dciodvfy")
    said = subprocess.run([tool, path], capture_output=True, text=True, errors="replace")
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]


def planes(folder, has_pixels):
    """Source planes along their normal: position, UID, frame number, and their pixels, rescaled, where they are wanted."""
    found = []
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if not path.is_file():
            continue
        try:
            source = pydicom.dcmread(path)
        except pydicom.errors.InvalidDicomError:
            continue
        if "Rows" not in source:
            continue
        count = int(source.get("NumberOfFrames", 1))
        several = count > 1
        pixels = source.pixel_array.reshape(count, source.Rows, source.Columns) if has_pixels else [0] * count
        for number, plane in enumerate(pixels):
            groups = [source.PerFrameFunctionalGroupsSequence[number], *source.get("SharedFunctionalGroupsSequence", [])] if several else []
            def value(sequence, keyword):
                for group in groups:
                    if sequence in group:
                        return np.array(group[sequence][0][keyword].value, float)
                return np.array(source[keyword].value, float) if keyword in source else None
            place = value("PlanePositionSequence", "ImagePositionPatient")
            cosines = value("PlaneOrientationSequence", "ImageOrientationPatient")
            slope, intercept = float(source.get("RescaleSlope", 1)), float(source.get("RescaleIntercept", 0))
            normal = None if cosines is None else np.cross(cosines[:3], cosines[3:])
            found.append({
                "keys": {(str(source.SOPInstanceUID), number + 1 if several else None)}, "place": place, "cosines": cosines,
                "height": len(found) if place is None else float(place @ normal), "pixels": plane * slope + intercept,
            })
    # Echoes and time points of one place are one plane.
    found.sort(key=lambda plane: plane["height"])
    one = []
    for plane in found:
        if one and abs(one[-1]["height"] - plane["height"]) < 1e-3:
            one[-1]["keys"] |= plane["keys"]
        else:
            one.append(plane)
    return one


def main():
    path, folder, wanted, uids = sys.argv[1:5]
    errors = dciodvfy(path)
    seg = highdicom.seg.segread(path)
    sources = planes(folder, not wanted.endswith(".npy"))
    kind = seg.SegmentationType
    rows, columns = seg.Rows, seg.Columns
    labels = np.zeros((len(sources), rows, columns), np.uint8)
    # The values of labels are told by the order of the segments (binary), or are the pixels themselves.
    values = [int(text) for text in sys.argv[5].split(",")]
    pixels = seg.pixel_array.reshape(-1, rows, columns)
    for frame, plane in zip(seg.PerFrameFunctionalGroupsSequence, pixels):
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        if "PlanePositionSequence" in frame:
            place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
            at = min(range(len(sources)), key=lambda index: np.abs(sources[index]["place"] - place).max())
            if np.abs(sources[at]["place"] - place).max() > 1e-3:
                errors.append(f"no source at {place}")
        else:
            at = frame.FrameContentSequence[0].InStackPositionNumber - 1
        if uids == "SAME":
            number = source.get("ReferencedFrameNumber")
            key = (str(source.ReferencedSOPInstanceUID), None if number is None else int(number))
            if key not in sources[at]["keys"]:
                errors.append(f"frame refers to {key} and lies at plane {at}")
        elif str(source.ReferencedSOPInstanceUID) in {uid for plane in sources for uid, _ in plane["keys"]}:
            errors.append("a new object refers to an old UID")
        if kind == "BINARY":
            number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            labels[at][plane == 1] = values[number - 1]
        else:
            labels[at] = plane
    if wanted.endswith(".npy"):
        expected = np.load(wanted)
        # A study of several stacks is looked at in one of them: then the planes with labels are compared, in their order.
        found = labels if labels.shape == expected.shape else labels[labels.any((1, 2))]
        expected = expected if labels.shape == expected.shape else expected[expected.any((1, 2))]
        if found.shape != expected.shape or (found != expected).any():
            errors.append(f"{found.shape} {expected.shape}: not the same labels")
    else:
        expected = np.stack([plane["pixels"] for plane in sources]) > float(wanted)
        both, either = int(((labels > 0) & expected).sum()), int(((labels > 0) | expected).sum())
        if both < 0.9 * either:
            errors.append(f"{both} of {either} pixels agree")
    if sources[0]["cosines"] is not None and "FrameOfReferenceUID" in seg:
        cosines = np.array(seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient, float)
        if np.abs(cosines - sources[0]["cosines"]).max() > 1e-4:
            errors.append(f"directions {cosines} {sources[0]['cosines']}")
    if "FrameOfReferenceUID" in seg and kind == "BINARY":
        # ITK's reader sees the frames too.
        import SimpleITK as sitk

        image = sitk.GetArrayFromImage(sitk.ReadImage(path))
        if int((image > 0).sum()) != int(pixels.sum()):
            errors.append("SimpleITK sees other pixels")
    for error in errors:
        print(error)
    print(f"{kind}, {len(pixels)} frames of {len(sources)} planes, {int((labels > 0).sum())} labelled pixels, {seg.Manufacturer}")
    sys.exit(1 if errors else 0)


main()
