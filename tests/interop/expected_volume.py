"""What pydicom and SimpleITK make of a folder with one series: JSON with dims, spacing, affine (LPS, row-major) and the SHA-256 of the
rescaled voxels as little-endian float32, column fastest, then row, then slice.

Voxels come from pydicom (pixel_array and apply_modality_lut in float64, rounded once to float32), the grid from SimpleITK's series reader.
"""
import hashlib
import json
import sys

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.pixels import apply_modality_lut

folder = sys.argv[1]
names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder)
image = sitk.ReadImage(names)
direction = np.array(image.GetDirection()).reshape(3, 3)
spacing = np.array(image.GetSpacing())
affine = np.eye(4)
affine[:3, :3] = direction * spacing
affine[:3, 3] = image.GetOrigin()

slices = [pydicom.dcmread(name) for name in names]
digest = hashlib.sha256()
for ds in slices:
    voxels = apply_modality_lut(ds.pixel_array, ds).astype(np.float64)
    digest.update(voxels.astype("<f4").tobytes())
print(json.dumps({
    "dims": list(image.GetSize()),
    "spacing": [float(x) for x in spacing],
    "affine": [float(x) for x in affine.ravel()],
    "sha256_f32_le": digest.hexdigest(),
}))
