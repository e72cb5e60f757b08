#!/usr/bin/env python3
"""Makes tests/data/mosaic.json: small Siemens mosaics that no scanner wrote, and what other readers say their voxels and places are.

    python mosaic_expected.py OUT.json        # needs numpy, pydicom, nibabel (requirements: versions are written into the file)

The files are written here with pydicom and with a CSA header writer that shares nothing with the reader under test. What is expected of
them is computed by nibabel's MosaicWrapper and turned into the crate's conventions:

* nibabel's array is [row, column, slice], its affine's columns go with that; ours are column, row, slice (numpy order "F").
* nibabel keeps the slices as they come and lets the third column run against row x column where the CSA normal does. Ours are sorted
  along row x column, so such a volume is turned round: slices reversed, third column negated, origin at the last slice.

Cross-checks, each of which ends the script when it fails:

* dcm2niix, where it is on the PATH or named by DCM2NIIX: every voxel of the NIfTI file lies where the expected affine says, with the same
  value, and there are no others. dcm2niix flips axes at will, so world coordinates are compared.
* The layout the file was made with (the first pixel's position of slice k is first + k * step), from which the header was derived by the
  rule "a slice as large as the mosaic around the centre of the first slice".
* The CSA writer: nibabel's csareader, and csa_header and GDCM where installed, and for CSA1 SPM's rule as it stands in spm_dicom_headers.

Where the others disagree or cannot read:

* CSA1: nibabel (5.4) fails on every CSA1 header with an item (issue 817), dcm2niix skips CSA1. nibabel's MosaicWrapper is given the same
  tags as read from a CSA2 header; dcm2niix takes the number of slices from (0019,100A) and the upward direction, which is right there.
* No CSA header: nibabel's MosaicWrapper falls back to column x row (the negative of row x column), dcm2niix to "upwards". Siemens numbers
  transverse slices from feet to head unless told otherwise, so dcm2niix is believed: nibabel is given that normal.
"""

import base64
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

warnings.simplefilter("ignore")
import nibabel  # noqa: E402
from nibabel.nicom import csareader, dicomwrappers  # noqa: E402

ROOT = "2.25.151515"  # UIDs made from nothing


# ---------------------------------------------------------------------------------------------------------------- CSA headers

SYNGO = {"IS": 6, "US": 10, "FD": 4, "DS": 3, "SH": 22, "LO": 19, "UN": 0}


def csa(version, tags, items_when_filled=6):
    """A CSA header. Filled tags have empty items behind their values; names and values are followed by rubbish, as in real files."""
    out = [b"SV10\x04\x03\x02\x01"] if version == 2 else []
    out.append(struct.pack("<II", len(tags), 77))
    for number, (name, vr, multiplicity, values) in enumerate(tags):
        items = max(items_when_filled, len(values)) if values else 0
        rubbish = bytes((number * 37 + i * 11) % 255 + 1 for i in range(64))
        field = (name.encode() + b"\0" + rubbish)[:64]
        out.append(field + struct.pack("<i4siii", multiplicity, vr.encode() + b"\0\0", SYNGO[vr], items, 77 if values else 205))
        for index in range(items):
            if index < len(values):
                value = values[index].encode() + b"\0"
                check = 77
            else:
                value, check = b"", 205
            out.append(struct.pack("<iiii", len(value), len(value), check, len(value)))
            out.append(value + b"\0" * (-len(value) % 4))
    return b"".join(out) + (b"\0" * 8)


def tags_of(case):
    number = f"{case['count']:<8d}"
    tags = [
        ("EchoLinePosition", "IS", 1, ["64      "]),
        ("B_value", "IS", 1, []),
        ("ProtocolSliceNumber", "IS", 1, [f"{case.get('protocol_slice', 0):<8d}"]),
        ("PixelFile", "UN", 1, []),
        ("AcquisitionMatrixText", "SH", 1, [f"{case['rows']}p*{case['columns']}"]),
        ("NumberOfImagesInMosaic", "US", 1, [number]),
        ("DiffusionGradientDirection", "FD", 3, []),
        ("SliceNormalVector", "FD", 3, [f"{value:.8f}" for value in case["normal"]]),
        ("ImaCoilString", "LO", 1, ["HEA;HEP"]),
    ]
    return tags


def spm_csa1(data):
    """SPM's decode_csa1: length is the first number less the first tag's number of items, padding is 4 - rem(length, 4)."""
    (count, _), at, first, found = struct.unpack_from("<II", data), 8, None, {}
    for _ in range(count):
        name = data[at : at + 64].split(b"\0")[0].decode()
        items = struct.unpack_from("<i", data, at + 76)[0]
        first = items if first is None else first
        at += 84
        found[name] = []
        for _ in range(items):
            length = struct.unpack_from("<i", data, at)[0] - first
            at += 16
            if length < 0:
                found[name].append("")
                break
            found[name].append(data[at : at + length].decode())
            at += length + 4 - length % 4
    return found


def check_csa(version, data, tags):
    wanted = {name: [value.strip() for value in values] for name, _, _, values in tags}
    if version == 2:
        read = csareader.read(data)["tags"]
        for name, values in wanted.items():
            items = read[name]["items"]
            assert [str(float(v)) if isinstance(v, float) else str(v).strip() for v in items if v != ""] == [
                str(float(v)) if read[name]["vr"] == "FD" else v for v in values
            ], (name, items)
        try:
            from csa_header import CsaHeader

            read = CsaHeader(data).read()
            assert read["NumberOfImagesInMosaic"]["value"] == int(wanted["NumberOfImagesInMosaic"][0])
            assert read["SliceNormalVector"]["value"] == [float(v) for v in wanted["SliceNormalVector"]]
            READERS.add("csa_header " + importlib.metadata.version("csa_header"))
        except ImportError:
            pass
    else:
        read = spm_csa1(data)
        assert {name: [v.strip() for v in values if v] for name, values in read.items()} == wanted, read


def check_gdcm(path, case):
    """GDCM reads both versions of the header."""
    try:
        import gdcm
    except ImportError:
        return
    reader = gdcm.Reader()
    reader.SetFileName(path)
    assert reader.Read()
    header = gdcm.CSAHeader()
    block = case.get("block", 0x10)
    assert header.LoadFromDataElement(reader.GetFile().GetDataSet().GetDataElement(gdcm.Tag(0x0029, block * 0x100 + 0x10)))
    assert header.GetFormat() == (gdcm.CSAHeader.SV10 if case["csa"] == 2 else gdcm.CSAHeader.NOMAGIC)
    for name, _, _, values in tags_of(case):
        value = header.GetCSAElementByName(name).GetByteValue()
        text = "" if value is None else str(value)
        assert [part.strip() for part in text.split("\\") if part.strip()] == [value.strip() for value in values], (name, text)
    READERS.add("gdcm " + gdcm.Version.GetVersion())


READERS = set()


# ---------------------------------------------------------------------------------------------------------------- DICOM files


def rotation(degrees_x, degrees_y, degrees_z):
    x, y, z = np.radians([degrees_x, degrees_y, degrees_z])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return rz @ ry @ rx


AXIAL = [[1, 0, 0], [0, 1, 0]]
CORONAL = [[1, 0, 0], [0, 0, -1]]
SAGITTAL = [[0, 1, 0], [0, 0, -1]]


def cases():
    """What each file is made from. `along` is +1 or -1: whether the slices follow one another along row x column or against it."""
    plain = dict(axes=AXIAL, turn=(0, 0, 0), along=1, csa=2, private=True, between=3.3, thickness=3.0, spacing=(1.5, 2.0))
    some = [
        dict(name="axial_13", note="4 x 4 tiles, 3 of them blank, not square", columns=16, rows=12, count=13),
        dict(name="coronal_9_scaled", note="3 x 3 tiles, none blank, signed samples, rescaled", columns=10, rows=11, count=9, axes=CORONAL,
             signed=True, rescale=(2.5, -7.0)),
        dict(name="oblique_3_odd", note="2 x 2 tiles of odd size: the shift is no whole number of pixels", columns=15, rows=11, count=3,
             turn=(12, -23, 31), spacing=(1.25, 1.75)),
        dict(name="sagittal_7_against", note="normal against row x column, as sagittal mosaics have it", columns=12, rows=14, count=7,
             axes=SAGITTAL, along=-1),
        dict(name="oblique_8_against", note="reversed image numbering: head to feet", columns=16, rows=16, count=8, turn=(-17, 9, 5), along=-1,
             protocol_slice=7, spacing=(2.0, 2.0)),
        dict(name="axial_5_csa1", note="CSA1 header, one item per tag", columns=9, rows=8, count=5, csa=1, turn=(8, 0, 0)),
        dict(name="axial_6_without_csa", note="number of slices in (0019,100A) only", columns=12, rows=10, count=6, csa=0, turn=(10, 4, 0)),
        dict(name="axial_10_without_private", note="number of slices in the CSA header only", columns=8, rows=12, count=10, private=False,
             turn=(0, 15, 0)),
        dict(name="axial_4_block_11", note="implicit VR, CSA header at (0029,1110), normal against row x column", columns=14, rows=9, count=4, along=-1,
             implicit=True, block=0x11),
        dict(name="axial_12_thickness", note="no Spacing Between Slices", columns=10, rows=10, count=12, between=None, turn=(5, 5, 5)),
    ]
    return [plain | case for case in some]


def build(case, number):
    turn = rotation(*case["turn"])
    row, column = (turn @ np.array(axis, float) for axis in case["axes"])
    across = np.cross(row, column)
    case["normal"] = case["along"] * across
    between = case["between"] or case["thickness"]
    step = case["normal"] * between
    side = 1
    while side * side < case["count"]:
        side += 1
    columns, rows, count = case["columns"], case["rows"], case["count"]
    first = np.array([-31.25 + number, -47.5, 12.75 + 2 * number])
    # Siemens' position: a slice of the mosaic's size around the centre of the first slice.
    per_column, per_row = row * case["spacing"][1], column * case["spacing"][0]
    centre = first + per_column * (columns - 1) / 2 + per_row * (rows - 1) / 2
    position = centre - per_column * (side * columns - 1) / 2 - per_row * (side * rows - 1) / 2

    # Each voxel has a value of its own kind; blank tiles hold something too, so that reading one shows.
    k, r, c = np.meshgrid(np.arange(count), np.arange(rows), np.arange(columns), indexing="ij")
    volume = (c * 3 + r * 61 + k * 509 + (c * r * (k + 1)) % 17) % 4096
    if case.get("signed"):
        volume = volume - 2048
    sheet = np.full((side * rows, side * columns), 77)
    for index in range(count):
        top, left = index // side * rows, index % side * columns
        sheet[top : top + rows, left : left + columns] = volume[index]

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = f"{ROOT}.{number}.1"
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if case.get("implicit") else ExplicitVRLittleEndian
    meta.ImplementationClassUID = f"{ROOT}.0"
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    ds.SOPClassUID = meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.ReferringPhysicianName, ds.StudyID = "20200101", "120000", "", "", "1"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "MR", "SIEMENS", "None"
    ds.SeriesDescription = case["name"]
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Nobody^Mosaic", f"M{number}", "", ""
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "EP", "SK", "", "2D"
    ds.SliceThickness = f"{case['thickness']:.6f}"
    if case["between"]:
        ds.SpacingBetweenSlices = f"{case['between']:.6f}"
    ds.RepetitionTime, ds.EchoTime = "2000", "30"
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{ROOT}.{number}.2", f"{ROOT}.{number}.3", f"{ROOT}.{number}.4"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = str(number), "1", "1"
    ds.ImagePositionPatient = [f"{value:.8f}" for value in position]
    ds.ImageOrientationPatient = [f"{value:.8f}" for value in [*row, *column]]
    ds.PixelSpacing = [f"{value:.6f}" for value in case["spacing"]]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = sheet.shape
    signed = bool(case.get("signed"))
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16 if signed else 12, 15 if signed else 11, int(signed)
    if case.get("rescale"):
        ds.RescaleSlope, ds.RescaleIntercept = (str(value) for value in case["rescale"])
    if case["private"]:
        ds.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
        ds.add_new(0x0019100A, "US", count)
    if case["csa"]:
        tags = tags_of(case)
        header = csa(case["csa"], tags, 6 if case["csa"] == 2 else 1)
        header += b"\0" * (len(header) % 2)
        check_csa(case["csa"], header, tags)
        block = case.get("block", 0x10)
        if block != 0x10:
            ds.add_new(0x00290010, "LO", "SIEMENS MEDCOM HEADER2")
        ds.add_new(0x00290000 + block, "LO", "SIEMENS CSA HEADER")
        ds.add_new(0x00290000 + block * 0x100 + 0x10, "OB", header)
    ds.add_new(0x7FE00010, "OW", sheet.astype("<i2" if signed else "<u2").tobytes())
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    slope, intercept = case.get("rescale", (1.0, 0.0))
    made = dict(first=first, step=step, per_column=per_column, per_row=per_row, volume=volume * slope + intercept, across=across)
    return out.getvalue(), made


# ------------------------------------------------------------------------------------------------------- what the others say


def by_nibabel(data, case):
    """Array [column, row, slice] and affine of nibabel, sorted along row x column."""
    ds = pydicom.dcmread(io.BytesIO(data))
    if case["csa"] == 2:
        wrapper = dicomwrappers.wrapper_from_data(ds)
        assert isinstance(wrapper, dicomwrappers.MosaicWrapper)
    else:
        tags = csareader.read(csa(2, tags_of(case)))
        wrapper = dicomwrappers.MosaicWrapper(ds, csa_header=tags)
    array = np.asarray(wrapper.get_data()).transpose(1, 0, 2)
    affine = wrapper.affine[:, [1, 0, 2, 3]]
    across = np.cross(affine[:3, 0], affine[:3, 1])
    if across @ affine[:3, 2] < 0:
        affine[:3, 3] += (array.shape[2] - 1) * affine[:3, 2]
        affine[:3, 2] *= -1
        array = array[:, :, ::-1]
    return array.astype("<f4"), affine


def check_made(array, affine, made):
    """The same from what the file was made from."""
    count = array.shape[2]
    order = range(count) if made["step"] @ made["across"] > 0 else reversed(range(count))
    for place, k in enumerate(order):
        assert np.array_equal(array[:, :, place].T, made["volume"][k].astype("f4"))
        assert np.allclose(affine[:3] @ [0, 0, place, 1], made["first"] + k * made["step"], atol=2e-6)
    assert np.allclose(affine[:3, 0], made["per_column"], atol=1e-6) and np.allclose(affine[:3, 1], made["per_row"], atol=1e-6)


def check_dcm2niix(program, array, affine, folder):
    run = subprocess.run([program, "-b", "n", "-z", "n", "-f", "out", "-o", folder, folder], capture_output=True, text=True)
    outputs = [name for name in os.listdir(folder) if name.endswith(".nii")]
    assert len(outputs) == 1, run.stdout + run.stderr
    image = nibabel.load(os.path.join(folder, outputs[0]))
    theirs = image.get_fdata()
    assert theirs.shape == array.shape, (theirs.shape, array.shape)
    # LPS to RAS, then to their indices.
    index = np.indices(array.shape).reshape(3, -1)
    world = np.diag([-1, -1, 1, 1]) @ affine @ np.vstack([index, np.ones(index.shape[1])])
    at = (np.linalg.inv(image.affine) @ world)[:3]
    assert np.abs(at - at.round()).max() < 1e-3, np.abs(at - at.round()).max()
    at = at.round().astype(int)
    assert (at >= 0).all() and (at < np.array(array.shape)[:, None]).all()
    assert len(set(map(tuple, at.T))) == at.shape[1]
    assert np.abs(theirs[tuple(at)] - array[tuple(index)]).max() < 1e-4
    return [line for line in run.stdout.splitlines() if line.startswith("Warning")]


def main():
    program = os.environ.get("DCM2NIIX") or shutil.which("dcm2niix")
    images = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases(), 1):
            data, made = build(case, number)
            array, affine = by_nibabel(data, case)
            check_made(array, affine, made)
            place = os.path.join(folder, case["name"])
            os.makedirs(place)
            with open(os.path.join(place, "in.dcm"), "wb") as file:
                file.write(data)
            if case["csa"]:
                check_gdcm(os.path.join(place, "in.dcm"), case)
            if program:
                for warning in check_dcm2niix(program, array, affine, place):
                    print(f"{case['name']}: dcm2niix: {warning}")
            packed = base64.b64encode(zlib.compress(data, 9)).decode()
            assert len(packed) < 30_000
            images.append(
                dict(
                    name=case["name"],
                    note=case["note"],
                    dims=list(array.shape),
                    affine_lps=[[round(float(value), 9) + 0.0 for value in line] for line in affine],
                    sha256=hashlib.sha256(array.tobytes(order="F")).hexdigest(),
                    dicom=packed,
                )
            )
            print(f"{case['name']}: {array.shape}, {len(data)} bytes, {len(packed)} packed")
    if program:
        text = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()
        READERS.add("dcm2niix " + text[-1])
    else:
        print("dcm2niix is not on the PATH: not compared")
    readers = [f"{name} {importlib.metadata.version(name)}" for name in ("nibabel", "pydicom", "numpy")] + sorted(READERS)
    about = "made by mosaic_expected.py; dicom: base64 of zlib; sha256: of little-endian f32, column fastest, then row, then slice"
    with open(sys.argv[1], "w") as file:
        json.dump(dict(about=about, readers=readers, images=images), file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
