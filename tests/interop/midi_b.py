#!/usr/bin/env python3
"""De-identified DICOM scored in the manner of MIDI-B, the Medical Image De-Identification Benchmark (TCIA, MICCAI 2024).

  midi_b.py make FOLDER [--data DATA]                        studies FOLDER/<study>/*.dcm with invented identifiers, and the answer key FOLDER/key.json
  midi_b.py score FOLDER OUTPUT MAPPING [--refused A,B]      scores OUTPUT/<study>/*.dcm by that key; the last line is JSON
  midi_b.py selftest                                         the scorer against untouched studies, perfect ones, and perfect ones with one fault each

The key says what PS3.15 2026d demands of the Basic Profile with retain_longitudinal_modified_dates, clean_descriptors, retain_patient_characteristics and
retain_safe_private, beside the 18 identifiers of the HIPAA safe harbor (A to R). A row is one demand on one attribute, or on the pixels, of one instance:

  tag_retained      the attribute is there, perhaps empty            date_shifted      another date, moved as far as the patient's other dates
  text_notnull      the attribute is there with a value              uid_changed       not the old UID
  text_retained     every word or number of the row is still there   uid_consistent    the UID of the mapping; outside it, the same new UID for one old UID
  text_removed      no word of the planted identifier is left        patid_consistent  the Patient ID of the mapping
  pixels_retained   the decoded samples are the same                 pixels_hidden     burned-in text can no longer be made out

MAPPING holds patient_id_mapping.csv and uid_mapping.csv (header id_old,id_new), itself or in a folder for each study. All rows of a missing output fail. Text
is compared as in MIDI-B by its words, without stop words, numbers as numbers. Stricter than there: a date must be there and move with its patient's others, and
the pixels of text are compared with the letters that were drawn instead of being read by a machine. DATA adds a study made of real headers.
The exit status is 0 whatever the score, 2 for unusable input; a failed selftest is 1.
"""
import argparse
import copy
import csv
import datetime
import json
import re
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from midi_b_studies import PACS, digest, find, letters, make, put, uid, values

# Words that say what kind of identifier follows, and say nothing about anybody.
STOP_WORDS = set("the and for from with near http https www com invalid doctor".split())


# ---- score ----


def words_of(text):
    return [word.strip(".") for word in re.findall(r"[^\W_.]+(?:\.[^\W_.]+)*", text.lower())]


def text_is_gone(there, identifier):
    """No word of the identifier among the words that are there, no longer one within them, and not the whole of it without its punctuation."""
    text = " ".join(there).lower()
    found, tokens = set(words_of(text)), [word for word in words_of(identifier) if len(word) > 2 and word not in STOP_WORDS]
    whole, squeezed = (re.sub(r"[\W_]", "", one) for one in (identifier.lower(), text))
    return not any(token in found or len(token) > 4 and token in text for token in tokens) and whole not in squeezed


def text_is_there(there, expected):
    try:
        before, after = [float(one) for one in expected.split("\\")], [float(one) for one in there]
    except ValueError:
        return set(words_of(expected)) <= set(words_of(" ".join(there)))
    return len(before) == len(after) and all(abs(one - other) <= 1e-6 * abs(one) + 1e-9 for one, other in zip(before, after))


def shift_of(there, old):
    """Days from the old date to the new one; None where there is no date, or more than one."""
    try:
        new, old = (datetime.date(int(one[:4]), int(one[4:6]), int(one[6:8])) for one in ("".join(there or ""), old))
        return (new - old).days if len(there) == 1 else None
    except ValueError:
        return None


def is_hidden(array, row):
    """Whether the samples of the rectangle no longer follow the letters that were drawn there."""
    top, left, bottom, right = row["rectangle"]
    crop, ink = array[top:bottom, left:right].astype(float), np.pad(letters(row["value"]), 2)
    crop = crop.mean(axis=2) if crop.ndim == 3 else crop
    return crop.shape == ink.shape and (crop.std() == 0 or abs(np.corrcoef(crop.ravel(), ink.ravel())[0, 1]) < 0.3)


class Score:
    """The rows against the outputs. outputs: by new SOP Instance UID; uids and patients: the sets of new ids of each old one."""

    def __init__(self, key, outputs, uids, patients, refused=()):
        self.key, self.outputs, self.uids, self.patients = key, outputs, uids, patients
        self.rows = [row for row in key["rows"] if row["study"] not in refused]
        self.by_new = Counter(new for news in uids.values() for new in news)
        self.shifts, seen = defaultdict(Counter), defaultdict(Counter)
        for row in self.rows:  # What the outputs agree upon, before any of them is judged by it.
            if row["predicate"] in ("date_shifted", "uid_consistent") and (ds := self.output(row)) and (there := values(ds, row["path"])):
                if row["predicate"] == "uid_consistent":
                    seen[row["value"]][there[0]] += 1
                elif shift := shift_of(there, row["value"]):
                    self.shifts[self.patient(row)][shift] += 1
        self.agreed = {old: news.most_common(1)[0][0] for old, news in seen.items()}
        self.agreed_by_new = Counter(self.agreed.values())
        self.failed = [row for row in self.rows if not self.passes(row)]

    def patient(self, row):
        return self.key["studies"][row["study"]]["patient_id"]

    def output(self, row):
        return next((self.outputs[new] for new in self.uids.get(row["sop_instance_uid"], ()) if new in self.outputs), None)

    def uid_is_right(self, there, row):
        if not there:
            return bool(row.get("may_go"))
        if news := self.uids.get(row["value"]):  # One new UID for one old, and the other way round.
            return news == set(there) and self.by_new[there[0]] == 1
        return there == [self.agreed[row["value"]]] and self.agreed_by_new[there[0]] == 1

    def passes(self, row):
        ds, predicate, value = self.output(row), row["predicate"], row["value"]
        if ds is None:
            return False
        if predicate in ("pixels_hidden", "pixels_retained"):
            try:
                return is_hidden(ds.pixel_array, row) if predicate == "pixels_hidden" else digest(ds.pixel_array, row.get("rectangles", ())) == value
            except Exception:  # Whatever a decoder raises, these are no pixels.
                return False
        there = values(ds, row["path"])
        return bool({
            "tag_retained": lambda: there is not None,
            "text_notnull": lambda: there,
            "text_retained": lambda: there and text_is_there(there, value),
            "text_removed": lambda: not there or text_is_gone(there, value),
            "date_shifted": lambda: (shift := shift_of(there, value)) and shift == self.shifts[self.patient(row)].most_common(1)[0][0],
            "uid_changed": lambda: value not in (there or []),
            "uid_consistent": lambda: self.uid_is_right(there, row),
            "patid_consistent": lambda: there and self.patients.get(value) == set(there) and sum(there[0] in news for news in self.patients.values()) == 1,
        }[predicate]())

    def table(self, field):
        total, failed = Counter(row[field] for row in self.rows), Counter(row[field] for row in self.failed)
        return {name: {"passed": total[name] - failed[name], "total": total[name]} for name in sorted(total)}

    def share(self, of=lambda row: True):
        """A share is 1 only where nothing failed, however it is rounded."""
        total, failed = sum(map(of, self.rows)), sum(map(of, self.failed))
        return 1.0 if not failed else min(round(1 - failed / total, 4), 0.9999)

    def report(self):
        for field in ("predicate", "category"):
            print(f"{field:<18}{'passed':>8}{'total':>8}")
            for name, counts in self.table(field).items():
                print(f"{'HIPAA ' + name if len(name) == 1 else name:<18}{counts['passed']:>8}{counts['total']:>8}")
        # Slices of a series fail alike: one line for all of them, and no value, which could be an identifier.
        groups = Counter(" ".join(row[field] for field in ("study", "path", "predicate", "category")) for row in self.failed)
        for group, count in list(groups.items())[:40]:
            print(f"failed {group} x{count}")
        if len(groups) > 40:
            print(f"and {len(groups) - 40} more attributes")
        print(json.dumps({"score": self.share(), "hipaa": self.share(lambda row: len(row["category"]) == 1), "rows": len(self.rows), "failed": len(self.failed),
                          "by_predicate": self.table("predicate"), "by_category": self.table("category")}))


def read_mapping(folder, name):
    """Old to new, of the folder and of the folders in it; a set, so that two answers for one old id show."""
    mapping, files = defaultdict(set), [file for file in [folder / name, *sorted(folder.glob("*/" + name))] if file.is_file()]
    if not files:
        raise ValueError(f"no {name} in the mapping folder")
    for file in files:
        lines = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))
        if not lines or lines[0][:2] != ["id_old", "id_new"]:
            raise ValueError(f"{file}: the header is not id_old,id_new")
        for line in filter(None, lines[1:]):
            mapping[line[0].strip()].add(line[1].strip())
    return dict(mapping)


def read_outputs(folder):
    outputs = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            ds = pydicom.dcmread(file)
            outputs[str(ds.SOPInstanceUID)] = ds
        except (InvalidDicomError, AttributeError):
            continue  # Not an image: a report, a list, a mapping.
    return outputs


# ---- selftest ----


def perfect(studies, key):
    """What a de-identifier that reads the key would write, and its mappings."""
    by_sop, uids = defaultdict(lambda: defaultdict(dict)), {}
    for row in key["rows"]:
        by_sop[row["sop_instance_uid"]][row["path"]][row["predicate"]] = row
    patients = {study.patient["id"]: {uid("new", study.patient["id"])[-16:]} for study in studies}

    def renew(_, element):
        if element.VR == "UI" and element.value and not str(element.value).startswith("1.2.840.10008."):
            uids[str(element.value)] = {uid("new", element.value)}
            element.value = uid("new", element.value)

    outputs = {}
    for study, ds in ((study, copy.deepcopy(ds)) for study in studies for ds in study.datasets):
        for path, rows in by_sop[str(ds.SOPInstanceUID)].items():
            holder, tag = find(ds, path)
            if "patid_consistent" in rows:
                holder[tag].value = next(iter(patients[study.patient["id"]]))
            elif "text_removed" in rows and "text_retained" in rows:
                holder[tag].value = rows["text_retained"]["value"]
            elif "text_removed" in rows and "text_notnull" in rows:
                holder[tag].value = "090Y" if holder[tag].VR == "AS" else "ANONYMIZED"
            elif "text_removed" in rows and "tag_retained" in rows:
                holder[tag].value = ""
            elif "text_removed" in rows:
                del holder[tag]
            elif "date_shifted" in rows:
                old = rows["date_shifted"]["value"]
                new = datetime.date(int(old[:4]), int(old[4:6]), int(old[6:])) - datetime.timedelta(700 + 7 * len(study.patient["family"]))
                holder[tag].value = f"{new:%Y%m%d}" + str(holder[tag].value)[8:]
            elif "pixels_hidden" in rows:
                array = ds.pixel_array.copy()
                for top, left, bottom, right in rows["pixels_retained"]["rectangles"]:
                    array[top:bottom, left:right] = 0
                ds.PixelData = array.tobytes()
        ds.walk(renew)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        outputs[str(ds.SOPInstanceUID)] = ds
    return outputs, uids, patients


def selftest():
    with tempfile.TemporaryDirectory() as folder:
        studies, key = make(Path(folder), None)
        untouched = read_outputs(Path(folder))
    same = {str(row["value"]): {str(row["value"])} for row in key["rows"] if row["predicate"].startswith(("uid", "patid"))}
    identity = Score(key, untouched, same, same)
    passed = {name: counts["passed"] / counts["total"] for name, counts in identity.table("predicate").items()}
    faults = [f"untouched: {name} passes" for name in ("text_removed", "uid_changed", "date_shifted", "pixels_hidden") if passed[name]]
    faults += [f"untouched: {name} fails" for name in ("text_retained", "tag_retained", "text_notnull", "pixels_retained") if passed[name] < 1]
    outputs, uids, patients = perfect(studies, key)
    ideal = Score(key, outputs, uids, patients)
    faults += [f"perfect: {row['study']} {row['path']} {row['predicate']}" for row in ideal.failed[:10]]
    faults += [f"no rows of category {name}" for name in [*"ABCDEFGHIJKLMNOPQR", "DICOM", "TCIA"] if name not in ideal.table("category")]

    def mutate(name, change, expected, study="quillfeather-mr-2021"):
        """One change to the first output of a study; exactly the expected predicates may fail. The study's other files are asked for their dates only."""
        before = next(one for one in studies if one.name == study).datasets[0]
        new = next(iter(uids[str(before.SOPInstanceUID)]))
        changed = copy.deepcopy(outputs[new])
        if isinstance(change, str):  # `-spec` deletes, `spec = value` sets, `spec` alone restores.
            spec, _, value = change.lstrip("-").partition(" = ")
            if change[0] == "-":
                del changed[spec]
            else:
                put(changed, spec, value if " = " in change else before[spec].value)
        else:
            changed.PixelData = change(changed.PixelData)
        rows = [row for row in key["rows"] if row["study"] == study and (row["sop_instance_uid"] == before.SOPInstanceUID or row["predicate"] == "date_shifted")]
        failed = {row["predicate"] for row in Score({**key, "rows": rows}, {**outputs, new: changed}, uids, patients).failed}
        if failed != set(expected.split()):
            faults.append(f"{name}: {sorted(failed)} instead of {expected}")

    for name, change, expected, *study in (
        ("a name in a description", "StudyDescription = MR T2 FLAIR BRAIN WITHOUT CONTRAST Quillfeather", "text_removed"),
        ("half a name, in capitals", "RequestAttributesSequence.ScheduledProcedureStepDescription = MR T2 FLAIR BRAIN ZEBEDIAH", "text_removed"),
        ("a birth date", "PatientBirthDate", "text_removed"),
        ("a private name", PACS + "01)LO = Zebediah", "text_removed"),
        ("a description emptied", "SeriesDescription = ", "text_retained"),
        ("an echo time", "EchoTime = 92.5", "text_retained"),
        ("a safe private value", '(0019,"SIEMENS MR HEADER",0C)IS = 0', "text_retained"),
        ("an attribute of Type 2 gone", "-AccessionNumber", "tag_retained"),
        ("a time emptied", "StudyTime = ", "text_notnull"),
        ("the old date", "StudyDate", "date_shifted"),
        ("a date of its own", "StudyDate = 20150101", "date_shifted"),
        ("no date", "-AcquisitionDate", "date_shifted"),
        ("a nested date", "ContributingEquipmentSequence.ContributionDateTime = 20150101101500", "date_shifted"),
        ("an old UID", "FrameOfReferenceUID", "uid_changed uid_consistent"),
        ("a UID gone", "-FrameOfReferenceUID", "uid_consistent"),
        ("another UID", "ReferencedSeriesSequence.SeriesInstanceUID = 2.25.7", "uid_consistent", "quillfeather-seg-2021"),
        ("a removable reference gone", "-ReferencedStudySequence", ""),
        ("another patient", "PatientID = SOMEBODY", "patid_consistent"),
        ("a pixel", lambda data: bytes([data[0] ^ 1]) + data[1:], "pixels_retained"),
        ("pixels that do not decode", lambda data: b"\0\0", "pixels_retained"),
        ("burned-in text in colour", "PixelData", "pixels_hidden", "brambleworth-sc"),
        ("burned-in text", "PixelData", "pixels_hidden", "snapdrake-us"),
    ):
        mutate(name, change, expected, *study)
    first = studies[0].datasets[0]
    fewer = {new: ds for new, ds in outputs.items() if new not in uids[str(first.SOPInstanceUID)]}
    if Score(key, fewer, uids, patients).failed != [row for row in key["rows"] if row["sop_instance_uid"] == first.SOPInstanceUID]:
        faults.append("a missing output: other rows than its own fail")
    # A UID that the mapping does not tell must still be the same wherever it occurs, and two UIDs must not become one.
    frame = str(first.FrameOfReferenceUID)
    if Score(key, outputs, {old: news for old, news in uids.items() if old != frame}, patients).failed:
        faults.append("a UID outside the mapping: consistent, but not accepted")
    if not Score(key, outputs, {**uids, frame: uids[str(first.StudyInstanceUID)]}, patients).failed:
        faults.append("two UIDs became one unnoticed")
    print("\n".join(faults) or f"{len(key['rows'])} rows: untouched {identity.share()}, perfect {ideal.share()}, every fault is found by its predicate")
    return 1 if faults else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, names in (("make", ["folder"]), ("score", ["folder", "output", "mapping"]), ("selftest", [])):
        one = commands.add_parser(command)
        for name in names:
            one.add_argument(name, type=Path)
        one.add_argument("--data" if command == "make" else "--refused", type=Path if command == "make" else str)
    given = parser.parse_args()
    if given.command == "selftest":
        return selftest()
    if given.command == "make":
        studies, key = make(given.folder, given.data)
        print(f"{len(studies)} studies, {sum(len(study.datasets) for study in studies)} files, {len(key['rows'])} rows")
        return 0
    try:
        key, refused = json.loads((given.folder / "key.json").read_text()), set(filter(None, (given.refused or "").split(",")))
        if not given.output.is_dir() or refused - set(key["studies"]):
            raise ValueError("the output is not a folder, or a refused study is not in the key")
        Score(key, read_outputs(given.output), *(read_mapping(given.mapping, name + "_mapping.csv") for name in ("uid", "patient_id")), refused).report()
    except (OSError, ValueError, KeyError, IndexError) as error:
        print(f"unusable: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
