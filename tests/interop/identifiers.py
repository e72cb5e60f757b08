#!/usr/bin/env python3
"""Whether anything of some DICOM files is left in what was made of them: identifiers.py INPUT OUTPUT [OUTPUT ...].

INPUT is a folder of DICOM files, an OUTPUT a file or a folder of files of any kind, looked at byte by byte, and once more inflated where it is gzip. Looked for are, at every depth of
every input, names and their parts, ids, accession and serial numbers, institutions, people, stations, descriptions, dates, and UIDs that are not the
standard's own: in UTF-8, Latin-1 and UTF-16. Prints how much was compared; exits with 1 and says under which attribute a value was found, never the value.
"""
import gzip
import sys
from pathlib import Path

import pydicom

IDENTITY = """
AccessionNumber InstitutionName InstitutionAddress ReferringPhysicianName StationName InstitutionalDepartmentName PerformingPhysicianName OperatorsName PatientName
PatientID IssuerOfPatientID OtherPatientIDs PatientBirthName PatientAddress PatientTelephoneNumbers DeviceSerialNumber StudyID PerformedProcedureStepID ScheduledProcedureStepID
RequestedProcedureID StudyDescription SeriesDescription ProtocolName PerformedProcedureStepDescription RequestedProcedureDescription PatientComments ImageComments
PerformedStationAETitle PerformedStationName PhysiciansOfRecord NameOfPhysiciansReadingStudy DetectorID CassetteID
""".split()
# What the outputs say of their own accord: one test patient is called REMOVED, and these words are technique.
OWN = {"REMOVED", "ANONYMIZED", "SEGMENTATION"}


def harvest(ds, found):
    for element in ds.iterall():
        if element.VR == "SQ" or element.value is None:
            continue
        values = element.value if element.VM > 1 else [element.value]
        if element.VR == "UI":
            texts = [str(one) for one in values if not str(one).startswith("1.2.840.10008.")]
        elif element.VR in ("DA", "DT"):
            texts = [str(one)[:8] for one in values]
        elif element.VR == "PN":
            texts = [part for one in values for part in [str(one), *str(one).replace("=", "^").split("^")]]
        elif element.keyword in IDENTITY:
            texts = [str(one) for one in values]
        else:
            continue
        for text in texts:
            text = text.strip(" \0")
            # Empty fields that are filled with zeros are nobody's.
            if len(text) >= 6 and text.strip("0") and text.upper() not in OWN:
                found.setdefault(text, element.keyword or str(element.tag))


def main():
    source, outputs = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    found = {}
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        harvest(pydicom.dcmread(path, stop_before_pixels=True), found)
    assert found, "nothing to look for"
    needles = {}
    for text, where in found.items():
        for coding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be"):
            needles[text.encode(coding, "ignore")] = where
    files = [path for output in outputs for path in ([output] if output.is_file() else sorted(output.rglob("*"))) if path.is_file()]
    assert files, "no outputs"
    left, size = [], 0
    for path in files:
        data = path.read_bytes()
        size += len(data)
        for view in [data] + ([gzip.decompress(data)] if data[:2] == b"\x1f\x8b" else []):
            left += [f"a value of {where} in {path.name}" for needle, where in needles.items() if needle in view]
    for line in sorted(set(left))[:40]:
        print(line)
    print(f"{len(found)} values looked for in {len(files)} files of {size} bytes")
    sys.exit(1 if left else 0)


main()
