#!/usr/bin/env python3
"""An image before and after regions of it were blacked out: blackout.py INPUT OUTPUT LEFT TOP WIDTH HEIGHT.

INPUT and OUTPUT are DICOM files of gray frames. SimpleITK reads both; outside the region the output has the input's values (to 1 where the input is lossy, for two
decoders of the cosine transform may round differently), inside each frame has one value, its darkest of before. pydicom finds an uncompressed
file that says that nothing is burned in and that pixels were cleaned, and dcmdump, where it is installed, opens it.
"""
import shutil
import subprocess
import sys

import numpy as np
import pydicom
import SimpleITK as sitk

LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91")


def frames(path, region):
    return sitk.GetArrayFromImage(sitk.ReadImage(path)).astype(float).reshape(-1, *region.shape)


def main():
    source, made = sys.argv[1:3]
    left, top, width, height = map(int, sys.argv[3:])
    ds = pydicom.dcmread(made)
    assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1", ds.file_meta.TransferSyntaxUID
    assert ds.BurnedInAnnotation == "NO" and "113101" in [item.CodeValue for item in ds.DeidentificationMethodCodeSequence]
    assert len(ds.PixelData) == int(ds.get("NumberOfFrames") or 1) * ds.Rows * ds.Columns * (ds.BitsAllocated // 8)
    region = np.zeros((ds.Rows, ds.Columns), bool)
    region[top:top + height, left:left + width] = True
    after = frames(made, region)
    for frame in after:
        assert np.unique(frame[region]).size == 1, "the region is not of one value"
    syntax = pydicom.dcmread(source, stop_before_pixels=True).file_meta.TransferSyntaxUID
    try:
        before = frames(source, region)
    except RuntimeError:
        print(f"{syntax}: SimpleITK does not read the input, only the region was compared")
        return
    tolerance = 1 if syntax in LOSSY else 0
    assert len(before) == len(after)
    for one, other in zip(before, after):
        worst = np.abs(one - other)[~region].max()
        assert worst <= tolerance, f"{syntax}: values outside the region differ by {worst}"
        assert abs(other[region][0] - one.min()) <= tolerance, f"{syntax}: {other[region][0]} instead of {one.min()}"
    if dcmdump := shutil.which("dcmdump"):
        subprocess.run([dcmdump, "-q", made], check=True, stdout=subprocess.DEVNULL)
    print(f"{syntax}: {int((~region).sum())} values as before, {int(region.sum())} black")


main()
