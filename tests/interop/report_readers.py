"""Reads files that the library wrote with NumPy, nibabel, SimpleITK (and Pillow, when there is one), and compares voxels and positions.

Run by the test `numpy_nibabel_and_simpleitk_read_what_was_written` with a folder as its argument. For each grid the folder holds
NAME.json (dims, spacing, LPS affine), NAME_volume.raw and NAME_mask.raw (what must be found), and the files under test.
"""

import gzip
import json
import pathlib
import sys

import nibabel
import numpy
import SimpleITK

# The header holds positions as float32.
CLOSE = dict(rtol=1e-6, atol=2e-5)


def check(folder, name):
    facts = json.loads((folder / f"{name}.json").read_text())
    lps = numpy.array(facts["affine_lps"])
    ras = numpy.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    shape = tuple(reversed(facts["dims"]))
    for what, kind in (("volume", "<f4"), ("mask", "u1")):
        channels = facts["channels"] if what == "volume" else 1
        expected = numpy.fromfile(folder / f"{name}_{what}.raw", dtype=kind).reshape(shape if channels == 1 else (channels, *shape))

        array = numpy.load(folder / f"{name}_{what}.npy", allow_pickle=False)
        assert array.dtype == numpy.dtype(kind) and array.flags["C_CONTIGUOUS"], f"{name} {what}: numpy type"
        assert numpy.array_equal(array, expected), f"{name} {what}: numpy voxels"

        for ending in (".nii", ".nii.gz"):
            path = folder / f"{name}_{what}{ending}"
            image = nibabel.load(path)
            assert isinstance(image, nibabel.Nifti1Image), f"{path.name}: not NIfTI-1"
            assert image.get_data_dtype() == numpy.dtype(kind), f"{path.name}: type"
            assert numpy.array_equal(numpy.asarray(image.dataobj).transpose(), expected), f"{path.name}: nibabel voxels"
            assert image.header.get_xyzt_units()[0] == "mm", f"{path.name}: units"
            assert numpy.allclose(image.header.get_zooms()[:3], facts["spacing_mm"], **CLOSE), f"{path.name}: zooms"
            sform, scode = image.get_sform(coded=True)
            qform, qcode = image.get_qform(coded=True)
            assert (scode, qcode) == (1, 1), f"{path.name}: codes {scode} {qcode}"
            assert numpy.allclose(sform, ras, **CLOSE), f"{path.name}: sform\n{sform}\n{ras}"
            assert numpy.allclose(qform, ras, **CLOSE), f"{path.name}: qform\n{qform}\n{ras}"
            assert image.header["pixdim"][0] == numpy.sign(numpy.linalg.det(ras)), f"{path.name}: handedness"

            read = SimpleITK.ReadImage(str(path))
            assert numpy.array_equal(SimpleITK.GetArrayFromImage(read), expected), f"{path.name}: SimpleITK voxels"
            axes = read.GetDimension()
            assert axes == (3 if channels == 1 else 4), f"{path.name}: {axes} axes"
            affine = numpy.eye(4)
            affine[:3, :3] = (numpy.array(read.GetDirection()).reshape(axes, axes) * numpy.array(read.GetSpacing()))[:3, :3]
            affine[:3, 3] = read.GetOrigin()[:3]
            assert numpy.allclose(affine, lps, **CLOSE), f"{path.name}: SimpleITK affine\n{affine}\n{lps}"

        plain = (folder / f"{name}_{what}.nii").read_bytes()
        assert gzip.decompress((folder / f"{name}_{what}.nii.gz").read_bytes()) == plain, f"{name} {what}: gzip"

    try:
        from PIL import Image
    except ImportError:
        return
    with Image.open(folder / f"{name}.png") as picture:
        picture.load()
        assert picture.mode == "RGB", f"{name}.png: mode"


def main():
    folder = pathlib.Path(sys.argv[1])
    names = sorted(path.stem for path in folder.glob("*.json"))
    for name in names:
        check(folder, name)
    print(f"{len(names)} grids read by numpy {numpy.__version__}, nibabel {nibabel.__version__}, SimpleITK {SimpleITK.__version__}")


main()
