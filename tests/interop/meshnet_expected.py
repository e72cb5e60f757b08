"""Runs a brain segmentation (brainchop's MeshNet) on a real DICOM series in numpy and onnxruntime, and writes what the Rust test compares with.

python tests/interop/meshnet_expected.py SERIES_FOLDER MODEL.onnx CONTRACT.json OUT_FOLDER
needs: numpy scipy pydicom onnxruntime onnx (and about 6 GB of memory); then run the test with SMP_MESHNET_DIR=OUT_FOLDER

OUT_FOLDER gets volume.raw (float32, column fastest), geometry.json, labels.raw (uint8, on the volume's grid), MODEL and its contract.
"""

import json
import pathlib
import shutil
import sys
import time

import numpy as np
import onnxruntime
import pydicom

import inference_expected as road


def series(folder):
    files = [pydicom.dcmread(path) for path in sorted(pathlib.Path(folder).iterdir())]
    row, column = (np.array(files[0].ImageOrientationPatient[part], float) for part in (slice(0, 3), slice(3, 6)))
    normal = np.cross(row, column)
    files.sort(key=lambda f: float(np.dot(normal, np.array(f.ImagePositionPatient, float))))
    origins = np.array([f.ImagePositionPatient for f in files], float)
    spacing = [float(v) for v in files[0].PixelSpacing]
    affine = np.eye(4)
    # PixelSpacing is (between rows, between columns): the column index steps by the second.
    affine[:3, 0], affine[:3, 1] = row * spacing[1], column * spacing[0]
    affine[:3, 2], affine[:3, 3] = (origins[-1] - origins[0]) / (len(files) - 1), origins[0]
    slices = [f.pixel_array * float(getattr(f, "RescaleSlope", 1)) + float(getattr(f, "RescaleIntercept", 0)) for f in files]
    return np.stack(slices).astype(np.float32).transpose(2, 1, 0), affine


def main(folder, model, contract, out):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    made = json.loads(pathlib.Path(contract).read_text())
    shutil.copy(model, out / "model.onnx")
    shutil.copy(contract, out / "model.json")
    volume, affine = series(folder)
    array, places = road.road(volume, affine, made)
    array = road.intensities(array, made)
    frame, shape = array.shape, made["grid"]["size"]["shape"]
    lower = [road.centred(n, side) for n, side in zip(frame, shape)]
    array = road.cut(array, lower, shape, made["grid"]["size"].get("pad_value", 0.0))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    started = time.time()
    values = session.run(None, {made["inputs"][0]["name"]: array[None, None]})[0][0]
    seconds = time.time() - started
    values.argmax(0).astype(np.uint8).tofile(out / "conformed.raw")
    labels = road.back(values.argmax(0).astype(np.uint8), lower, places, frame, volume.shape, made)
    np.ascontiguousarray(volume.transpose(2, 1, 0)).tofile(out / "volume.raw")
    np.ascontiguousarray(labels.transpose(2, 1, 0)).tofile(out / "labels.raw")
    (out / "geometry.json").write_text(json.dumps({"dims": volume.shape, "affine": affine.tolist()}))
    ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    print(f"{volume.shape} run {seconds:.1f} s, ml by label:", {int(v): round(float((labels == v).sum() * ml), 1) for v in np.unique(labels)})


if __name__ == "__main__":
    main(*sys.argv[1:])
