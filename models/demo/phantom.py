#!/usr/bin/env python3
"""A breast-like MR phantom with or without one lesion, written as the DICOM series a scanner would send.

    python3 phantom.py OUT_DIR --seed N [--malignant | --benign | --none] [--oblique DEGREES] [--truth FILE.npy]

The volume is drawn from a seed: fat-suppressed T1 after contrast, one breast, chest wall, lung, blood pool, vessels,
smooth coil shading, Rician noise. Benign lesions are smooth, round and even; malignant ones are larger on average,
irregular or spiculated, and uneven or rim-enhancing. The distributions overlap. No part of it comes from a person.

The series is written the way real ones arrive: file names that say nothing, in no order, and headers full of identifiers
(all invented) at top level, in sequences, in free text and in private elements. That gives de-identification its work.

A seed gives the same files on any machine: PCG64 draws every number, arithmetic is float64, and every UID, name and date
follows from the seed. Needs numpy and pydicom, nothing else. It has no medical meaning.
"""
import argparse
import hashlib
import json
import os
import sys

import numpy as np

SHAPE = (40, 128, 128)  # slices, rows, columns
KINDS = ("none", "benign", "malignant")
KIND_ODDS = (0.16, 0.42, 0.42)  # when the caller does not choose

FAMILY = ["Lindqvist", "Okonkwo", "Weißmüller", "Castellanos", "Przybylski", "Nakashima", "Fairweather", "Dvořáková", "Abernathy", "Haugland"]
GIVEN = ["Ingeborg", "Chidinma", "Franziska", "Guadalupe", "Małgorzata", "Haruko", "Philippa", "Ludmila", "Georgette", "Solveig"]
DOCTORS = ["Thistlewood^Barnaby^^Dr.", "Quartermaine^Odile^^Dr.", "Vanderbrugge^Pieter^^Dr.", "Szilágyi^Borbála^^Dr."]
SITES = [
    ("Northgate Fictional Hospital", "14 Imaginary Avenue, Northgate"),
    ("Clínica Ficticia del Sur", "Calle Inventada 8, Villanueva"),
    ("Krankenhaus Musterhausen", "Beispielweg 21, Musterhausen"),
]


def smooth_noise(rng, shape, spacing, scale_mm):
    """White noise under a Gaussian of `scale_mm`, periodic, zero mean and unit variance."""
    noise = np.fft.rfftn(rng.standard_normal(shape))
    frequencies = [np.fft.fftfreq(n, d) for n, d in zip(shape[:2], spacing[:2])] + [np.fft.rfftfreq(shape[2], spacing[2])]
    fz, fy, fx = np.meshgrid(*frequencies, indexing="ij", sparse=True)
    noise *= np.exp(-2.0 * (np.pi * scale_mm) ** 2 * (fz**2 + fy**2 + fx**2))
    field = np.fft.irfftn(noise, s=shape, axes=(0, 1, 2))
    return (field - field.mean()) / field.std()


def soft(distance_mm, width_mm=1.2):
    """Share of a voxel inside a surface, from the distance to it (positive inside): the partial volume effect."""
    return np.clip(0.5 + distance_mm / width_mm, 0.0, 1.0)


def paint(image, share, value):
    """Blends `value` into the image where `share` says so."""
    image += share * (value - image)


def waves(rng, unit, frequency, count=12):
    """A smooth random function on the sphere (sum of plane waves), of about unit variance."""
    total = np.zeros(unit[0].shape)
    for _ in range(count):
        axis = rng.standard_normal(3)
        axis *= rng.uniform(0.6, 1.4) * frequency / np.linalg.norm(axis)
        total += np.cos(axis[0] * unit[0] + axis[1] * unit[1] + axis[2] * unit[2] + rng.uniform(0, 2 * np.pi))
    return total * np.sqrt(2.0 / count)


def lesion_parameters(rng, malignant):
    """Size, shape and enhancement of one lesion. The two classes overlap in every number."""
    if malignant:
        spiculated, rim = rng.random() < 0.7, rng.random() < 0.5
        return {
            "radius_mm": rng.uniform(6.5, 13.0),
            "roughness": rng.uniform(0.07, 0.18),
            "frequency": rng.uniform(3.0, 6.0),
            "spicules": int(rng.integers(4, 12)) if spiculated else int(rng.integers(0, 2)),
            "brightness": rng.uniform(470.0, 720.0),
            "unevenness": rng.uniform(0.08, 0.24),
            "core_drop": rng.uniform(0.2, 0.5) if rim else rng.uniform(0.0, 0.12),
        }
    return {
        "radius_mm": rng.uniform(5.0, 10.5),
        "roughness": rng.uniform(0.01, 0.09),
        "frequency": rng.uniform(1.5, 3.5),
        "spicules": int(rng.integers(0, 2)) if rng.random() < 0.15 else 0,
        "brightness": rng.uniform(420.0, 650.0),
        "unevenness": rng.uniform(0.02, 0.11),
        "core_drop": rng.uniform(0.0, 0.15) if rng.random() < 0.2 else 0.0,
    }


def lesion_distance(rng, grid, centre, parameters):
    """Distance to the lesion's surface in mm (positive inside) and distance to its centre over the local radius."""
    offset = [g - c for g, c in zip(grid, centre)]
    squeeze = rng.uniform(0.78, 1.0, 3)
    stretched = [o / s for o, s in zip(offset, squeeze)]
    r = np.sqrt(sum(o * o for o in stretched)) + 1e-9
    unit = [o / r for o in stretched]
    radius = parameters["radius_mm"] * (1.0 + parameters["roughness"] * np.clip(waves(rng, unit, parameters["frequency"]), -2.2, 2.2))
    distance = (radius - r) * squeeze.min()
    for _ in range(parameters["spicules"]):
        axis = rng.standard_normal(3) * (0.7, 1.0, 1.0)  # flatter across slices, where voxels are longer
        axis /= np.linalg.norm(axis)
        reach = parameters["radius_mm"] + rng.uniform(3.5, 8.0)
        base = rng.uniform(2.0, 3.2)
        along = sum(a * o for a, o in zip(axis, offset))
        across = np.sqrt(np.maximum(sum(o * o for o in offset) - along**2, 0.0))
        cone = base * (1.0 - np.clip(along / reach, 0.0, 1.0)) + 0.6 - across
        distance = np.maximum(distance, np.where((along > 0) & (along < reach), cone, -9.0))
    return distance, r / radius


def make_volume(seed, kind=None):
    """The phantom of a seed.

    Returns a dictionary: `voxels` (uint16) and `mask` (uint8, 1 = lesion), both (slices, rows, columns) with columns
    towards the patient's left, rows towards the back and slices towards the head; `spacing` (mm, same order); `kind`;
    `side` (L or R). A seed has one anatomy whatever `kind` is asked for.
    """
    rng = np.random.Generator(np.random.PCG64([20_250, seed]))
    drawn = KINDS[int(np.searchsorted(np.cumsum(KIND_ODDS), rng.random(), side="right").clip(0, 2))]
    kind = kind or drawn
    spacing = np.round(np.array([2.0, 1.0, 1.0]) * np.array([rng.uniform(0.92, 1.08), *[rng.uniform(0.94, 1.06)] * 2]), 3)
    extent = spacing * SHAPE
    grid = np.meshgrid(*[(np.arange(n) + 0.5) * d for n, d in zip(SHAPE, spacing)], indexing="ij")
    z, y, x = grid
    wobble = smooth_noise(rng, SHAPE, spacing, 14.0)

    # Surfaces. The breast is half an ellipsoid on a curved chest wall; all distances in mm, positive inside.
    centre = extent * (0.5, 0.0, 0.5) + rng.uniform(-4, 4, 3)
    wall = extent[1] * rng.uniform(0.72, 0.78)
    wall_y = wall + 0.0022 * (x - centre[2]) ** 2 * rng.uniform(0.4, 1.2) + 0.002 * (z - centre[0]) ** 2 + 1.2 * wobble
    axes = np.array([rng.uniform(40, 50), rng.uniform(66, 82), rng.uniform(46, 56)])
    rho = np.sqrt(((z - centre[0]) / axes[0]) ** 2 + ((y - wall) / axes[1]) ** 2 + ((x - centre[2]) / axes[2]) ** 2)
    breast = (1.0 - rho) * 48.0 + 1.5 * wobble
    chest = y - (wall_y - rng.uniform(5, 9))
    body = np.maximum(breast, chest)

    # Tissues, from the outside in (values are arbitrary signal units).
    image = np.zeros(SHAPE)
    paint(image, soft(body), rng.uniform(190, 270))  # skin
    fat = rng.uniform(80, 130)
    paint(image, soft(body - rng.uniform(1.6, 2.6)), fat * (1.0 + 0.06 * smooth_noise(rng, SHAPE, spacing, 4.0)))
    texture = 0.8 * smooth_noise(rng, SHAPE, spacing, 5.5) + 0.5 * smooth_noise(rng, SHAPE, spacing, 2.2)
    zone = soft(breast - 9.0, 10.0) * soft(wall_y - 6.0 - y, 6.0)
    gland = zone * np.clip(0.5 + 1.6 * (texture - rng.uniform(-0.5, 0.7)), 0.0, 1.0)
    paint(image, gland, rng.uniform(210, 310) * (1.0 + 0.1 * smooth_noise(rng, SHAPE, spacing, 1.5)))
    paint(image, soft(y - wall_y), rng.uniform(180, 240) * (1.0 + 0.05 * smooth_noise(rng, SHAPE, spacing, 2.0)))  # muscle
    paint(image, soft(y - wall_y - rng.uniform(9, 12), 2.0), rng.uniform(20, 45))  # lung
    pool = [centre[0] + rng.uniform(-12, 12), extent[1] + rng.uniform(0, 4), extent[2] * rng.uniform(0.35, 0.65)]
    size = rng.uniform(19, 24)
    pool_r = np.sqrt(((z - pool[0]) / 1.3) ** 2 + (y - pool[1]) ** 2 + ((x - pool[2]) / 1.5) ** 2)
    paint(image, soft(size - pool_r) * soft(y - wall_y - 8.0), rng.uniform(620, 820))  # heart and great vessels
    for _ in range(int(rng.integers(2, 6))):
        paint_vessel(rng, image, grid, centre, wall, axes)

    mask = np.zeros(SHAPE, np.uint8)
    if kind != "none":
        lesion_rng = np.random.Generator(np.random.PCG64([20_251, seed, KINDS.index(kind)]))
        parameters = lesion_parameters(lesion_rng, kind == "malignant")
        room = parameters["radius_mm"]
        while True:  # a place inside the breast, clear of skin, wall and the ends of the stack
            u = lesion_rng.uniform(-0.62, 0.62, 3)
            place = np.array([centre[0] + u[0] * axes[0], wall - (0.5 + 0.62 * u[1]) * axes[1], centre[2] + u[2] * axes[2]])
            depth = np.sqrt(((place - [centre[0], wall, centre[2]]) ** 2 / axes**2).sum())
            if (1.0 - depth) * 48.0 > room + 2.0 and place[1] < wall - room - 5.0 and room + 3.0 < place[0] < extent[0] - room - 3.0:
                break
        distance, relative = lesion_distance(lesion_rng, grid, place, parameters)
        inside = 1.0 + parameters["unevenness"] * smooth_noise(lesion_rng, SHAPE, spacing, 1.8)
        inside *= 1.0 - parameters["core_drop"] * soft(0.6 - relative, 0.3)
        paint(image, soft(distance), parameters["brightness"] * np.maximum(inside, 0.45))
        mask = (distance > 0).astype(np.uint8)

    # Coil shading, scale and noise of the scanner.
    shading = 0.10 * wobble * 0.5 - rng.uniform(0.0, 0.22) * (y / extent[1] - 0.5)
    shading = shading + sum(rng.uniform(-0.12, 0.12) * (g / e - 0.5) for g, e in zip(grid, extent))
    signal = image * np.exp(shading)
    sigma = rng.uniform(8.0, 18.0)
    real = signal + sigma * rng.standard_normal(SHAPE)
    imaginary = sigma * rng.standard_normal(SHAPE)
    voxels = np.clip(np.rint(rng.uniform(1.4, 2.6) * np.sqrt(real**2 + imaginary**2)), 0, 4095).astype(np.uint16)
    return {"voxels": voxels, "mask": mask, "spacing": spacing, "kind": kind, "side": "LR"[int(rng.integers(2))]}


def paint_vessel(rng, image, grid, centre, wall, axes):
    """One enhancing vessel: a bent tube of 0.7 to 1.5 mm radius from the chest wall into the breast."""
    start = np.array([centre[0] + rng.uniform(-25, 25), wall, centre[2] + rng.uniform(-35, 35)])
    end = np.array([centre[0], wall - 0.75 * axes[1], centre[2]]) + rng.uniform(-14, 14, 3)
    bend = (start + end) / 2 + rng.uniform(-12, 12, 3)
    radius, value = rng.uniform(0.7, 1.5), rng.uniform(330, 560)
    distance = np.full(image.shape, np.inf)
    points = [(1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end for t in np.linspace(0, 1, 9)]
    for a, b in zip(points, points[1:]):
        axis = b - a
        t = np.clip(sum((g - o) * d for g, o, d in zip(grid, a, axis)) / (axis @ axis), 0.0, 1.0)
        np.minimum(distance, sum((g - o - t * d) ** 2 for g, o, d in zip(grid, a, axis)), out=distance)
    paint(image, soft(radius - np.sqrt(distance)), value)


def uid(seed, *path):
    """A UID under 2.25 that follows from the seed (a UUID in decimal, PS3.5 B.2)."""
    digest = bytearray(hashlib.sha256("/".join(["smp-demo", str(seed), *map(str, path)]).encode()).digest()[:16])
    digest[6], digest[8] = (digest[6] & 0x0F) | 0x80, (digest[8] & 0x3F) | 0x80  # RFC 9562 version 8
    return "2.25." + str(int.from_bytes(digest, "big"))


def invent_person(seed, kind):
    """Identifiers of a person, a site and a visit that do not exist."""
    rng = np.random.Generator(np.random.PCG64([20_252, seed, KINDS.index(kind)]))
    pick = lambda things: things[int(rng.integers(len(things)))]
    site, address = pick(SITES)
    year = int(rng.integers(1941, 1990))
    return {
        "family": pick(FAMILY), "given": pick(GIVEN), "doctor": pick(DOCTORS), "surgeon": pick(DOCTORS), "site": site, "address": address,
        "birth": f"{year}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}",
        "date": f"{int(rng.integers(2019, 2025))}{int(rng.integers(1, 13)):02d}{int(rng.integers(1, 29)):02d}",
        "time": f"{int(rng.integers(7, 18)):02d}{int(rng.integers(60)):02d}{int(rng.integers(60)):02d}",
        "mrn": f"MRN{int(rng.integers(10**8, 10**9))}", "accession": f"ACC{int(rng.integers(10**7, 10**8))}",
        "phone": f"+1-202-555-01{int(rng.integers(10, 100))}", "insurer": f"INS-{int(rng.integers(10**7, 10**8))}",
    }  # fmt: skip


def header(phantom, seed):
    """The part of the header that all slices share: patient, study, series, equipment, MR acquisition."""
    from pydicom.dataset import Dataset

    p = invent_person(seed, phantom["kind"])
    key = (seed, phantom["kind"])
    name = f"{p['family']}^{p['given']}"
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"  # MR Image Storage
    for what in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, what + "Date", p["date"])
        setattr(ds, what + "Time", p["time"] + ".250000")
    ds.AccessionNumber, ds.StudyID, ds.Modality = p["accession"], p["accession"][-6:], "MR"
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions = "Fictional Magnets", "Phantom 1.5T", "PH 2.1"
    ds.InstitutionName, ds.InstitutionAddress = p["site"], p["address"]
    ds.InstitutionalDepartmentName, ds.StationName, ds.DeviceSerialNumber = "Breast Imaging, floor 3", "MRSUITE07", f"SN{p['mrn'][3:8]}"
    ds.ReferringPhysicianName, ds.PerformingPhysicianName, ds.OperatorsName = p["doctor"], p["surgeon"], "Radiographer^Ottoline"
    ds.StudyDescription, ds.SeriesDescription = f"MR breast, {p['family']} follow-up", "t1_fs_tra_post"
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = name, p["mrn"], p["site"]
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = p["birth"], "F", f"{int(p['date'][:4]) - int(p['birth'][:4]):03d}Y"
    ds.PatientSize, ds.PatientWeight, ds.PatientAddress = "1.67", "64.5", f"7 Nowhere Lane, {p['address'].split(', ')[1]}"
    ds.PatientTelephoneNumbers, ds.PatientMotherBirthName = p["phone"], "Merriweather^Cordelia"
    ds.AdditionalPatientHistory = f"Seen by {p['surgeon'].split('^')[0]} in 2018; call {p['phone']}"
    ds.PatientComments = f"{p['given']} {p['family']}, {p['mrn']}, prefers mornings"
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID, other.TypeOfPatientID = p["insurer"], "Fictional Mutual", "TEXT"
    ds.OtherPatientIDsSequence = [other]
    request = Dataset()
    request.ScheduledProcedureStepDescription = f"MR breast for {p['family']}"
    request.ScheduledProcedureStepID, request.RequestedProcedureID = "SPS" + p["accession"][3:], "RP" + p["accession"][3:]
    ds.RequestAttributesSequence = [request]
    ds.BodyPartExamined, ds.PatientPosition, ds.Laterality = "BREAST", "HFP", phantom["side"]
    ds.ProtocolName = f"breast {phantom['side']} {p['family']}"
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "GR", "SP", "FS", "3D"
    ds.RepetitionTime, ds.EchoTime, ds.FlipAngle, ds.EchoTrainLength = "4.6", "1.8", "10", "1"
    ds.MagneticFieldStrength, ds.ContrastBolusAgent = "1.5", "fictional contrast"
    ds.SliceThickness = ds.SpacingBetweenSlices = f"{phantom['spacing'][0]:.3f}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(*key, "study"), uid(*key, "series")
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid(*key, "frame"), ""
    ds.SeriesNumber, ds.AcquisitionNumber = "5", "1"
    ds.ImageComments = f"for {p['doctor'].split('^')[0]}, {p['accession']}"
    block = ds.private_block(0x0029, "FICTIONAL MAGNETS HEADER", create=True)
    block.add_new(0x10, "LO", f"{name} {p['mrn']}")
    block.add_new(0x11, "PN", name)
    block.add_new(0x12, "DA", p["birth"])
    block.add_new(0x20, "OB", f"PatientName={name};PatientID={p['mrn']};Tel={p['phone']};".encode().ljust(256, b"\0"))
    return ds


def write_series(folder, phantom, seed, oblique_degrees=0.0):
    """Writes one file per slice, explicit VR little endian, named by chance. `folder` is made when it is missing."""
    from pydicom import dcmwrite
    from pydicom.dataset import FileMetaDataset

    voxels, spacing, key = phantom["voxels"], phantom["spacing"], (seed, phantom["kind"])
    angle = np.deg2rad(oblique_degrees)
    row = np.array([np.cos(angle / 2), np.sin(angle / 2), 0.0])  # tilted about the head-foot axis by half the angle,
    column = np.array([-np.sin(angle / 2) * np.cos(angle), np.cos(angle / 2) * np.cos(angle), np.sin(angle)])  # then about the row
    normal = np.cross(row, column)
    middle = np.array([70.0 if phantom["side"] == "L" else -70.0, -60.0, 12.0])
    corner = middle - sum(axis * (n - 1) / 2 * d for axis, n, d in zip((normal, column, row), voxels.shape, spacing))
    rng = np.random.Generator(np.random.PCG64([20_253, seed, KINDS.index(phantom["kind"])]))
    names = [f"{number:08X}" for number in rng.choice(16**8, size=len(voxels), replace=False)]
    os.makedirs(folder, exist_ok=True)
    for index in rng.permutation(len(voxels)):
        ds = header(phantom, seed)
        position = corner + normal * (index * spacing[0])
        ds.SOPInstanceUID, ds.InstanceNumber = uid(*key, "slice", index), str(index + 1)
        ds.ImagePositionPatient = [f"{v:.6f}" for v in position]
        ds.ImageOrientationPatient = [f"{v + 0.0:.10f}" for v in (*row, *column)]
        ds.SliceLocation = f"{position @ normal:.4f}"
        ds.PixelSpacing = [f"{spacing[1]:.3f}", f"{spacing[2]:.3f}"]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns = voxels.shape[1:]
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.WindowCenter, ds.WindowWidth = "700", "1400"
        ds.add_new(0x7FE00010, "OW", voxels[index].astype("<u2").tobytes())
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
        meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"  # explicit VR little endian
        meta.ImplementationClassUID, meta.ImplementationVersionName = uid("implementation"), "PHANTOM_1"
        ds.file_meta = meta
        dcmwrite(os.path.join(folder, names[index]), ds, enforce_file_format=True)


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="where the series goes; must be empty or missing")
    parser.add_argument("--seed", type=int, required=True, help="0 or more; the same seed gives the same files")
    kind = parser.add_mutually_exclusive_group()
    for name in KINDS:
        kind.add_argument("--" + name, dest="kind", action="store_const", const=name, help=f"lesion: {name} (default: the seed decides)")
    parser.add_argument("--oblique", type=float, default=0.0, metavar="DEGREES", help="tilt of the stack (default 0: plain axial)")
    parser.add_argument("--truth", metavar="FILE", help="also write the lesion mask (.npy, uint8) and, beside it, a .json with the label")
    options = parser.parse_args(arguments)
    if options.seed < 0 or not abs(options.oblique) <= 30.0:
        parser.error("the seed must be 0 or more, the tilt at most 30 degrees")
    if os.path.isdir(options.folder) and os.listdir(options.folder):
        parser.error("the folder is not empty")
    phantom = make_volume(options.seed, options.kind)
    write_series(options.folder, phantom, options.seed, options.oblique)
    if options.truth:
        np.save(options.truth, phantom["mask"])
        label = {"seed": options.seed, "kind": phantom["kind"], "malignant": phantom["kind"] == "malignant", "lesion_voxels": int(phantom["mask"].sum())}
        with open(os.path.splitext(options.truth)[0] + ".json", "w", encoding="utf-8") as file:
            json.dump(label, file)
    print(f"{len(phantom['voxels'])} files, {phantom['voxels'].shape[1]} x {phantom['voxels'].shape[2]}, in {options.folder}")


if __name__ == "__main__":
    sys.exit(main())
