#!/usr/bin/env python3
"""Judges a structured report: sr.py REPORT SEG|- MASK.npy|- VOXEL_MM3 EXPECTED.json; needs pydicom, highdicom and numpy, and takes dcmtk's dsrdump where it is.

EXPECTED: {"labels": {"name": [value, segment]}, "predicted": [[model, version, concept, number, unit]]}. Volumes are counted here in the mask.
Prints what was found; exits with 1 for an error.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import highdicom
import numpy as np
import pydicom


def validated(path, has_label_map):
    tool = shutil.which("dciodvfy", path=str(pathlib.Path(sys.executable).parent)) or shutil.which("dciodvfy")
    said = subprocess.run([tool, path], capture_output=True, text=True, errors="replace")
    errors = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
    # dcmtk before 3.6.9 knows no label maps and takes no reference to one.
    if shutil.which("dsrdump") and not has_label_map:
        said = subprocess.run(["dsrdump", path], capture_output=True, text=True, errors="replace")
        errors += [line for line in said.stderr.splitlines() if line.startswith("E:")]
        if said.returncode != 0:
            errors.append(f"dsrdump ends with {said.returncode}: {said.stderr[-300:]}")
    return errors


def items(item, meaning):
    """Items of content in an item, by the meaning of their name."""
    return [one for one in item.ContentSequence if one.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def number(item):
    measured = item.MeasuredValueSequence[0]
    unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
    value = measured.FloatingPointValue if "FloatingPointValue" in measured else float(measured.NumericValue)
    by = {one.ConceptNameCodeSequence[0].CodeMeaning: one.TextValue for one in item.ContentSequence}
    return value, unit, by["Algorithm Name"], by["Algorithm Version"]


def main():
    path, seg, mask, voxel, expected = sys.argv[1:6]
    has_label_map = seg != "-" and pydicom.dcmread(seg, specific_tags=["SegmentationType"]).SegmentationType == "LABELMAP"
    errors, expected = validated(path, has_label_map), json.loads(expected)
    report = highdicom.sr.srread(path)
    if not isinstance(report, highdicom.sr.Comprehensive3DSR):
        errors.append(f"highdicom reads a {type(report).__name__}")
    groups = items(items(report, "Imaging Measurements")[0], "Measurement Group")
    volumes, predicted = {}, []
    for group in groups:
        name = items(group, "Tracking Identifier")[0].TextValue
        segments = items(group, "Referenced Segment")
        for item in group.ContentSequence:
            if item.ValueType == "NUM":
                value, unit, model, version = number(item)
                if segments:
                    reference = segments[0].ReferencedSOPSequence[0]
                    volumes[name] = (value, unit, reference.get("ReferencedSegmentNumber"), reference.ReferencedSOPInstanceUID)
                else:
                    predicted.append([model, version, item.ConceptNameCodeSequence[0].CodeMeaning, round(value, 9), unit])
    # highdicom's own eyes on the template: TID 1411 and TID 1501.
    roi = report.content.get_volumetric_roi_measurement_groups()
    if len(roi) != len(expected["labels"]) or len(report.content.get_image_measurement_groups()) != len({tuple(one[:2]) for one in expected["predicted"]}):
        errors.append(f"highdicom finds {len(roi)} and {len(report.content.get_image_measurement_groups())} groups")
    labels = np.load(mask) if mask != "-" else None
    for name, (value, segment) in expected["labels"].items():
        wanted = (float((labels == value).sum()) * float(voxel) / 1000, "mL", segment, pydicom.dcmread(seg, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
        found = volumes.pop(name, None)
        if found is None or abs(found[0] - wanted[0]) > 1e-6 * max(1, wanted[0]) or found[1:] != wanted[1:]:
            errors.append(f"{name}: {found} {wanted}")
    if volumes or predicted != expected["predicted"]:
        errors.append(f"{volumes} {predicted} {expected['predicted']}")
    texts = [one.TextValue for one in items(report, "Comment")]
    if not any("research" in text for text in texts):
        errors.append("nothing says that it is for research")
    for error in errors:
        print(error)
    print(f"{len(groups)} groups, {len(predicted)} predictions")
    sys.exit(1 if errors else 0)


main()
