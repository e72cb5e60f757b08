#!/usr/bin/env python3
"""Makes tests/data/colour.json: small images in colour that no scanner wrote, and the red, green and blue that pydicom finds in them.

Usage: colour_expected.py > tests/data/colour.json
Needs: pydicom, numpy, pylibjpeg with its openjpeg and rle plug-ins, imagecodecs, dcmtk (dcmcjpeg).

Images of 12 x 7 pixels (8 or 16 bits) in the photometric interpretations and transfer syntaxes that images in colour come in. Expected are the samples
after conversion to RGB or through the palette, by pydicom (`pixel_array`, `convert_color_space`, `apply_color_lut`); of lossy and subsampled ones each
sample may differ by what the two roundings of a conversion differ, which `tolerance` says.
"""
import base64
import io
import json
import subprocess
import tempfile
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, convert_color_space
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

ROWS, COLUMNS = 7, 12
JXL, JXL_STANDIN = "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.201"


def image(interpretation, samples, bits=8, planar=0, syntax=ExplicitVRLittleEndian):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.3.4.5"
    ds.Modality, ds.SeriesInstanceUID, ds.StudyInstanceUID = "OT", "1.2.3.4", "1.2.3"
    ds.NominalScannedPixelSpacing = [0.5, 0.5]
    ds.Rows, ds.Columns, ds.SamplesPerPixel = ROWS, COLUMNS, samples
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, 0
    ds.PhotometricInterpretation = interpretation
    if samples == 3:
        ds.PlanarConfiguration = planar
    return ds


def picture(bits=8):
    """Ramps, edges and a little noise, the same each time."""
    noise = np.random.default_rng(7)
    y, x = np.mgrid[:ROWS, :COLUMNS]
    planes = [x * 20, y * 35, (x + y) % 5 * 50]
    rgb = np.stack(planes, axis=-1) + noise.integers(0, 6, (ROWS, COLUMNS, 3))
    return (np.clip(rgb, 0, 255).astype(np.uint8)) if bits == 8 else (np.clip(rgb, 0, 255) * 200).astype(np.uint16)


def raw(array, planar):
    data = (array.transpose(2, 0, 1) if planar else array).tobytes()
    return data + b"\0" * (len(data) % 2)


def saved(ds):
    out = io.BytesIO()
    # pydicom does not write JPEG XL; another syntax of the same length stands in while it writes.
    is_jxl = ds.file_meta.TransferSyntaxUID == JXL
    if is_jxl:
        ds.file_meta.TransferSyntaxUID = JXL_STANDIN
    pydicom.dcmwrite(out, ds, enforce_file_format=True, little_endian=ds.file_meta.TransferSyntaxUID != ExplicitVRBigEndian, implicit_vr=False)
    return out.getvalue().replace(JXL_STANDIN.encode(), JXL.encode()) if is_jxl else out.getvalue()


def entry(name, ds, rgb, tolerance=0):
    packed = base64.b64encode(zlib.compress(saved(ds), 9)).decode()
    return {"name": name, "dicom": packed, "rgb": [int(v) for v in np.asarray(rgb).transpose(2, 0, 1).ravel()], "tolerance": tolerance}


def read(ds):
    """What pydicom reads from the file's bytes."""
    return pydicom.dcmread(io.BytesIO(saved(ds)))


def main():
    found = []
    for bits in (8, 16):
        for planar in (0, 1):
            ds = image("RGB", 3, bits, planar)
            ds.add_new("PixelData", "OB" if bits == 8 else "OW", raw(picture(bits), planar))
            found.append(entry(f"rgb_{bits}_planar{planar}", ds, read(ds).pixel_array))
    ds = image("RGB", 3, 16, 0, ExplicitVRBigEndian)
    ds.add_new("PixelData", "OW", picture(16).astype(">u2").tobytes())
    found.append(entry("rgb_16_big_endian", ds, picture(16)))
    # YBR_FULL, and YBR_FULL_422 without compression: pydicom gives the samples as they are, the conversion is a step of its own.
    ybr = convert_color_space(picture(), "RGB", "YBR_FULL")
    ds = image("YBR_FULL", 3)
    ds.add_new("PixelData", "OB", raw(ybr, 0))
    found.append(entry("ybr_full", ds, convert_color_space(ybr, "YBR_FULL", "RGB"), 1))
    shared = ybr.copy()
    shared[:, 1::2, 1:] = shared[:, 0::2, 1:]
    pairs = np.stack([shared[:, 0::2, 0], shared[:, 1::2, 0], shared[:, 0::2, 1], shared[:, 0::2, 2]], axis=-1)
    ds = image("YBR_FULL_422", 3)
    ds.add_new("PixelData", "OB", pairs.tobytes())
    whole = read(ds).pixel_array
    assert np.array_equal(whole, convert_color_space(shared, "YBR_FULL", "RGB")) or np.array_equal(whole, shared)
    found.append(entry("ybr_full_422", ds, convert_color_space(shared, "YBR_FULL", "RGB"), 1))
    # Palettes: entries of 16 bits, of 8 bits, of 8 bits two to a word, first entry not 0, segmented.
    index = (np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, COLUMNS) * 3) % 67
    table = np.random.default_rng(3).integers(0, 65536, (3, 60), dtype=np.uint16)
    for name, bits, first, entries in (("16", 16, 0, table), ("8", 8, 4, table >> 8)):
        ds = image("PALETTE COLOR", 1)
        for color, values in zip(("Red", "Green", "Blue"), entries):
            setattr(ds, f"{color}PaletteColorLookupTableDescriptor", [60, first, bits])
            data = values.astype("<u2").tobytes() if bits == 16 else values.astype(np.uint8).tobytes()
            setattr(ds, f"{color}PaletteColorLookupTableData", data)
        for element in ds:
            if "Descriptor" in element.keyword:
                element.VR = "US"
        ds.add_new("PixelData", "OB", index.tobytes())
        found.append(entry(f"palette_{name}", ds, apply_color_lut(index, read(ds))))
    ds = image("PALETTE COLOR", 1)
    segments = np.array([0, 3, 100, 2000, 30000, 1, 20, 60000, 1, 10, 500, 2, 2, 0, 0, 0, 4, 7, 8, 9, 10], dtype="<u2")
    for color in ("Red", "Green", "Blue"):
        setattr(ds, f"{color}PaletteColorLookupTableDescriptor", [60, 0, 16])
        setattr(ds, f"Segmented{color}PaletteColorLookupTableData", segments.tobytes())
    for element in ds:
        if "Descriptor" in element.keyword:
            element.VR = "US"
    ds.add_new("PixelData", "OB", np.minimum(index, 59).tobytes())
    found.append(entry("palette_segmented", ds, apply_color_lut(np.minimum(index, 59), read(ds)), 1))
    # Compressed.
    for bits in (8, 16):
        ds = image("RGB", 3, bits)
        ds.add_new("PixelData", "OW", raw(picture(bits), 0))
        ds.compress(RLELossless, picture(bits), encoding_plugin="pydicom", generate_instance_uid=False)
        found.append(entry(f"rle_{bits}", ds, read(ds).pixel_array))
    for name, mct, interpretation in (("plain", False, "RGB"), ("rct", True, "YBR_RCT")):
        ds = image(interpretation, 3, syntax=JPEG2000Lossless)
        stream = imagecodecs.jpeg2k_encode(picture(), codecformat="j2k", reversible=True, mct=mct, level=0)
        ds.add_new("PixelData", "OB", encapsulate([stream]))
        rgb = read(ds).pixel_array
        assert np.array_equal(rgb, picture())
        found.append(entry(f"jpeg2000_{name}", ds, rgb))
    ds = image("RGB", 3, syntax=JXL)
    ds.add_new("PixelData", "OB", encapsulate([imagecodecs.jpegxl_encode(picture(), lossless=True)]))
    found.append(entry("jpeg_xl", ds, picture()))
    # JPEG by dcmtk, whose baseline frames are YBR_FULL_422 or, told so, RGB; lossless JPEG keeps RGB.
    for name, options, tolerance in (("baseline_ybr", ["+eb", "+q", "95", "+s4"], 1), ("baseline_rgb", ["+eb", "+q", "95", "+cr"], 0), ("lossless_rgb", ["+e1"], 0)):
        ds = image("RGB", 3)
        ds.add_new("PixelData", "OB", raw(picture(), 0))
        with tempfile.TemporaryDirectory() as folder:
            plain, coded, decoded = (Path(folder, part) for part in ("a.dcm", "b.dcm", "c.dcm"))
            plain.write_bytes(saved(ds))
            subprocess.run(["dcmcjpeg", *options, "+un", plain, coded], check=True)
            # dcmdjpeg converts to RGB itself.
            subprocess.run(["dcmdjpeg", "+cp", coded, decoded], check=True)
            rgb = pydicom.dcmread(decoded)
            assert rgb.PhotometricInterpretation == "RGB"
            found.append(entry(name, pydicom.dcmread(coded), rgb.pixel_array, tolerance))
    lines = ",\n".join(json.dumps(image) for image in found)
    print(f'{{"rows": {ROWS}, "columns": {COLUMNS}, "images": [\n{lines}\n]}}')


main()
