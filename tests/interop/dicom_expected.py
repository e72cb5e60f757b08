#!/usr/bin/env python3
"""Expected grids and voxels of real DICOM series, from pydicom, numpy and SimpleITK, never from this library.

Usage: dicom_expected.py DATA > tests/data/dicom_expected.json
DATA is the folder of real series. Needs: dcmtk (dcmdjpeg), dcm2niix, nibabel, pydicom, numpy, scipy, SimpleITK, pylibjpeg with its libjpeg, openjpeg and rle plug-ins, imagecodecs.

Voxels: pixel_array, the modality transformation in float64, rounded to float32; SHA-256 of the little-endian bytes, column fastest.
Grids: from Image Position, Image Orientation and Pixel Spacing in numpy; compared here with SimpleITK's and dcm2niix's reading where they have one.
"""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import scipy.interpolate
import scipy.ndimage
import SimpleITK as sitk
from pydicom.pixels import apply_modality_lut

DATA = Path(sys.argv[1])


# JPEG with the cosine transform: baseline, extended, and two that were retired.
DCT = ["1.2.840.10008.1.2.4." + last for last in ("50", "51", "53", "55")]


def digest(voxels):
    return hashlib.sha256(np.ascontiguousarray(voxels, dtype="<f4").tobytes()).hexdigest()


def stored(ds):
    """Stored values; JPEG XL, which pydicom does not decode, through imagecodecs."""
    if str(ds.file_meta.TransferSyntaxUID).startswith("1.2.840.10008.1.2.4.11"):
        import imagecodecs

        frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
        return imagecodecs.jpegxl_decode(frame)
    return ds.pixel_array


def frame_group(ds, frame, group):
    own = ds.PerFrameFunctionalGroupsSequence[frame]
    shared = ds.get("SharedFunctionalGroupsSequence")
    for groups in (own, shared[0] if shared else {}):
        if group in groups:
            return groups[group].value[0]
    return None


def rescaled(ds):
    array = stored(ds)
    if "PerFrameFunctionalGroupsSequence" not in ds:
        return apply_modality_lut(array, ds).astype(np.float64).astype(np.float32)
    frames = array.reshape((-1,) + array.shape[-2:]).astype(np.float64)
    for k in range(len(frames)):
        group = frame_group(ds, k, "PixelValueTransformationSequence")
        if group is not None:
            frames[k] = frames[k] * float(group.RescaleSlope) + float(group.RescaleIntercept)
    return frames.astype(np.float32)


def grid(positions, orientation, spacing, thickness):
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    normal = np.cross(row, column)
    positions = np.array(positions, float)
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    step = (positions[-1] - positions[0]) / (len(positions) - 1) if len(positions) > 1 else normal / np.linalg.norm(normal) * thickness
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = row * spacing[1], column * spacing[0], step, positions[0]
    return order, affine, [float(spacing[1]), float(spacing[0]), float(np.linalg.norm(step))]


def folder(name):
    """A series of single-frame files, checked against SimpleITK."""
    paths = sorted(path for path in (DATA / name).iterdir() if path.is_file())
    files = [pydicom.dcmread(path) for path in paths]
    order, affine, spacing = grid(
        [ds.ImagePositionPatient for ds in files], files[0].ImageOrientationPatient, [float(v) for v in files[0].PixelSpacing], None
    )
    voxels = np.stack([rescaled(files[k]) for k in order])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(DATA / name)))
    check_sitk(reader.Execute(), voxels, affine)
    check_dcm2niix(DATA / name, voxels, affine)
    return entry(name, files[0], voxels, affine, spacing) | {"order": [int(k) + 1 for k in order]}


def check_sitk(image, voxels, affine):
    direction = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    assert np.allclose(direction, affine[:3, :3], atol=2e-3), (direction, affine)
    assert np.allclose(image.GetOrigin(), affine[:3, 3], atol=1e-4)
    array = sitk.GetArrayFromImage(image)
    assert array.shape == voxels.shape and np.allclose(array, voxels, rtol=1e-6, atol=1e-3 * max(1.0, np.abs(voxels).max() * 1e-3))


def check_dcm2niix(path, voxels, affine):
    """dcm2niix turns axes round at will, so each voxel is looked up by its place in the patient: one there, with the same value. Told not to use the
    scale that Philips keeps beside the rescale slope."""
    tool = shutil.which("dcm2niix", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if tool is None:
        print(f"{path.name} was not compared with dcm2niix: it is absent", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([tool, "-z", "n", "-b", "n", "-p", "n", "-o", folder, path], check=True, stdout=subprocess.DEVNULL)
        image = nibabel.load(next(Path(folder).glob("*.nii")))
        theirs = np.asarray(image.dataobj, dtype=np.float64)
    indices = np.stack(np.meshgrid(*[np.arange(n) for n in voxels.shape[::-1]], indexing="ij"), axis=-1).reshape(-1, 3)
    places = np.diag([-1, -1, 1]) @ (affine[:3, :3] @ indices.T + affine[:3, 3:])
    found = (np.linalg.inv(image.affine) @ np.vstack([places, np.ones(len(indices))]))[:3].T
    assert np.abs(found - np.round(found)).max() < 0.02, path
    ours = voxels[indices[:, 2], indices[:, 1], indices[:, 0]]
    assert np.allclose(theirs[tuple(np.round(found).astype(int).T)], ours, rtol=1e-5, atol=1e-2), path


def enhanced(name):
    ds = pydicom.dcmread(DATA / name)
    frames = int(ds.NumberOfFrames)
    positions = [frame_group(ds, k, "PlanePositionSequence").ImagePositionPatient for k in range(frames)]
    measures = frame_group(ds, 0, "PixelMeasuresSequence") or ds
    orientation = (frame_group(ds, 0, "PlaneOrientationSequence") or ds).ImageOrientationPatient
    # Several volumes are told apart by the type of their frames, sorted by its text.
    types = [list(ds.PerFrameFunctionalGroupsSequence[k].get("MRImageFrameTypeSequence", [ds])[0].get("FrameType", [])) for k in range(frames)]
    distinct = len({tuple(float(v) for v in position) for position in positions})
    groups = sorted({tuple(words) for words in types}) if distinct < frames else [None]
    volumes, grids = [], []
    for group in groups:
        members = [k for k in range(frames) if group is None or tuple(types[k]) == group]
        order, affine, spacing = grid([positions[k] for k in members], orientation, [float(v) for v in measures.PixelSpacing], None)
        volumes.append(rescaled(ds)[np.array(members)[order]])
        grids.append((affine, spacing))
    assert all(np.array_equal(affine, grids[0][0]) for affine, _ in grids) and all(len(volume) == distinct for volume in volumes)
    found = entry(name, ds, np.concatenate(volumes), *grids[0])
    found["dims"][2] = distinct
    return found if len(groups) == 1 else found | {"channels": [list(group) for group in groups]}


def single(name, orientation=(1, 0, 0, 0, 1, 0)):
    ds = pydicom.dcmread(DATA / name)
    spacing = ds.get("PixelSpacing") if "ImagePositionPatient" in ds else ds.get("PixelSpacing") or ds.get("ImagerPixelSpacing")
    thickness = float(ds.get("SpacingBetweenSlices") or ds.get("SliceThickness") or 1)
    _, affine, spacing = grid(
        [ds.get("ImagePositionPatient", [0, 0, 0])], ds.get("ImageOrientationPatient", orientation), [float(v) for v in spacing], thickness
    )
    return entry(name, ds, rescaled(ds)[None], affine, spacing)


def entry(name, ds, voxels, affine, spacing):
    dims = list(voxels.shape[::-1])
    return {
        "path": name,
        "modality": ds.Modality,
        "dims": dims,
        "spacing_mm": spacing,
        "affine_lps": affine.tolist(),
        "sha256": digest(voxels),
        "minimum": float(voxels.min()),
        "maximum": float(voxels.max()),
    }


def tilt(name):
    """Angle between the stack's direction and the normal of its slices."""
    files = [pydicom.dcmread(path, stop_before_pixels=True) for path in (DATA / name).iterdir()]
    row, column = np.array(files[0].ImageOrientationPatient[:3], float), np.array(files[0].ImageOrientationPatient[3:], float)
    normal = np.cross(row, column)
    positions = sorted((np.array(ds.ImagePositionPatient, float) for ds in files), key=lambda position: position @ normal)
    step = positions[-1] - positions[0]
    declared = {abs(float(ds.GantryDetectorTilt)) for ds in files if "GantryDetectorTilt" in ds}
    angle = float(np.degrees(np.arccos(step @ normal / np.linalg.norm(step))))
    return {"path": name, "degrees": angle, "declared": sorted(declared)}


def upright(name):
    """A tilted stack with uneven steps on an upright, even grid, by scipy.

    Every slice is moved in its own plane to where its position puts it; then the values are interpolated linearly along the normal. The grid has
    the slices' directions and spacing, covers all of them, and has the lowest value where no slice reaches. Its step is the length of the stack
    divided by the number of median steps that it holds, rounded.
    """
    files = [pydicom.dcmread(path) for path in sorted((DATA / name).iterdir())]
    row, column = np.array(files[0].ImageOrientationPatient[:3], float), np.array(files[0].ImageOrientationPatient[3:], float)
    normal = np.cross(row, column)
    # Cosines in files have six decimals.
    normal /= np.linalg.norm(normal)
    files.sort(key=lambda ds: np.array(ds.ImagePositionPatient, float) @ normal)
    positions = np.array([ds.ImagePositionPatient for ds in files], float)
    between_rows, between_columns = (float(value) for value in files[0].PixelSpacing)
    apart = positions - positions[0]
    # Parts of a pixel below a thousandth are rounding.
    snap = lambda values: np.where(np.abs(values - np.round(values)) <= 1e-3, np.round(values), values)
    shifts = np.stack([snap(apart @ column / between_rows), snap(apart @ row / between_columns)], axis=1)
    low, high = np.floor(shifts.min(axis=0)), np.ceil(shifts.max(axis=0))
    frames = np.stack([rescaled(ds) for ds in files]).astype(np.float64)
    rows, columns = (np.array(frames.shape[1:]) + high - low).astype(int)
    where = np.mgrid[0:rows, 0:columns].astype(float)
    moved = [where - (shift - low)[:, None, None] for shift in shifts]
    volume = [scipy.ndimage.map_coordinates(frame, at, order=1, mode="constant", cval=frames.min()) for frame, at in zip(frames, moved)]
    heights = apart @ normal
    steps = np.diff(heights)
    count = round(heights[-1] / np.percentile(steps, 50, method="lower"))
    step = float(heights[-1] / count)
    volume = scipy.interpolate.interp1d(heights, np.stack(volume), axis=0)(np.minimum(np.arange(count + 1) * step, heights[-1]))
    volume = volume.astype(np.float32)
    origin = positions[0] + low[0] * between_rows * column + low[1] * between_columns * row
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = row * between_columns, column * between_rows, normal * step, origin
    return {
        "dims": [int(columns), int(rows), int(count) + 1],
        "steps_mm": [float(steps.min()), float(steps.max())],
        "spacing_mm": [between_columns, between_rows, step],
        "affine_lps": affine.tolist(),
        "every_4099th": [float(value) for value in volume.ravel()[::4099]],
        "sum": float(volume.astype(np.float64).sum()),
    }


def syntax(path):
    """Every frame of one file, rescaled, in file order."""
    name = str(path.relative_to(DATA))
    ds = pydicom.dcmread(path)
    result = {"path": name, "syntax": str(ds.file_meta.TransferSyntaxUID), "name": ds.file_meta.TransferSyntaxUID.name}
    try:
        if result["syntax"] in DCT:
            # What dcmtk's decoder makes of it; pydicom's differ from it by one here and there, and know no progressive frames.
            with tempfile.NamedTemporaryFile(suffix=".dcm") as plain:
                subprocess.run(["dcmdjpeg", path, plain.name], check=True)
                ds = pydicom.dcmread(plain.name)
        voxels = rescaled(ds)
        result["sha256"] = digest(voxels)
        # Lossy decoders may round differently, so some voxels are compared with a tolerance.
        result["slope"] = float(ds.get("RescaleSlope", 1))
        result["every_4099th"] = [float(value) for value in voxels.ravel()[::4099]]
        result["minimum"], result["maximum"] = float(voxels.min()), float(voxels.max())
        result["sum"] = float(voxels.astype(np.float64).sum())
        result["voxels"] = int(voxels.size)
    except Exception as error:  # the reference has no decoder either
        result["reference"] = type(error).__name__
    return result


def main():
    expected = {
        "series": [folder("mr_t1_philips_mprage"), folder("seg_sr/segmentations/ct-3slice")],
        "enhanced": [
            enhanced(name)
            for name in (
                "enhanced_mr/IM_0027_fMAP.dcm",
                "enhanced_mr/hyperfine/anatomical/001/001.dcm",
                "enhanced_mr/siemens_multiframe/anatomical/001/IM-0001-0001-0001.dcm",
                "enhanced_mr_braintumour/BRTUM008",
            )
        ],
        "single": [single("ts_ct_one_slice/CTImage.dcm"), single("mammogram/GH133.dcm")],
        "tilt": {**tilt("ct_head_ge_tilt"), **upright("ct_head_ge_tilt")},
        "syntaxes": [
            syntax(path)
            for path in sorted([*(DATA / "ts_ct_one_slice").iterdir(), *(DATA / "ts_mr_derived").iterdir(), DATA / "xray/RG3_JLSL"])
        ],
    }
    text = json.dumps(expected, indent=1)
    # Lists of numbers on one line each.
    print(re.sub(r"\[[^\[\]{}\"]*\]", lambda found: " ".join(found.group().split()), text))


main()
