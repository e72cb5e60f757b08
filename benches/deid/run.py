#!/usr/bin/env python3
"""A folder of DICOM files to de-identified files, beside other tools and in one run: run.py [STUDY] [ROUNDS].

STUDY is a folder with a real series (170 MR slices, say). Rows from memory to memory: smp, on all processors and on one (scan, headers, geometry, all
voxels decoded, de-identification, search for what is left, files); dcmanon, dicom-anonymizer, dicognito and deid in Python, each with its own
default profile and called as its documentation shows. Rows from files to files in /dev/shm: smp and the command dcmanon, both as whole processes.

Seconds in memory are those of the work, without starting Python and with all input already in memory; peak memory is that of the process. Rows of
files are compared with smp's row of files. smp and the command dcmanon use all processors, the tools in Python one. What the tools take away differs,
so the second table counts what of the input's identifying values still stands in the bytes of the output.

Needs `pydicom`, `dcmanon`, `dicom-anonymizer`, `dicognito` and `deid` in this Python, and `dcmanon` (cargo install dicom-anonymization) in the PATH
or in $DCMANON; what is absent is left out and said. $DEID_BENCH names a program that was built elsewhere; without it it is built.
"""

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = pathlib.Path(os.environ.get("DEID_BENCH", HERE / "../../target/release/deid-bench"))
PYTHON = """
import io, pathlib, sys, time
{imports}
files = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[1]).iterdir())]
written = []
start = time.perf_counter()
{prepare}
for place, data in enumerate(files):
    files[place] = None
{work}
    written.append(out)
seconds = time.perf_counter() - start
print(seconds, len(written), sum(map(len, written)))
if len(sys.argv) > 2:
    for number, out in enumerate(written):
        (pathlib.Path(sys.argv[2]) / f"{{number:05}}.dcm").write_bytes(out)
"""
WITH_PYDICOM = """
    dataset = pydicom.dcmread(io.BytesIO(data))
    CALL
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    out = buffer.getbuffer()
"""
TOOLS = {
    "dcmanon (Rust in Python)": ("import dcmanon", "tool = dcmanon.Anonymizer()", "    out = tool.anonymize(io.BytesIO(data))"),
    # The function that its command and its own function for files call between reading and writing.
    "dicom-anonymizer": ("import pydicom, dicomanonymizer", "", "dicomanonymizer.anonymize_dataset(dataset)"),
    "dicognito": ("import pydicom, dicognito.anonymizer", "tool = dicognito.anonymizer.Anonymizer()", "tool.anonymize(dataset)"),
    "deid": (
        "import pydicom, deid.config, deid.dicom",
        "tool = deid.config.DeidRecipe()",
        "dataset = deid.dicom.replace_identifiers(dataset, deid=tool)[0]",
    ),
}
VALUES = [
    ("PatientName", "name"),
    ("PatientID", "id"),
    ("PatientBirthDate", "birth"),
    ("InstitutionName", "instit."),
    ("StudyDate", "date"),
    ("StudyInstanceUID", "study"),
    ("SeriesInstanceUID", "series"),
    ("SOPInstanceUID", "SOP"),
]


def rows(folder, out):
    """Name, command, and whether the whole process counts."""
    yield "smp", [PROGRAM, "memory", folder], False
    yield "smp, one processor", ["taskset", "-c", "0", PROGRAM, "memory", folder], False
    for name, (imports, prepare, work) in TOOLS.items():
        work = work if "out =" in work else WITH_PYDICOM.replace("CALL", work)
        yield name, [sys.executable, "-c", PYTHON.format(imports=imports, prepare=prepare, work=work), folder], False
    yield "smp, files", [PROGRAM, "files", folder, out], True
    tool = shutil.which(os.environ.get("DCMANON", "dcmanon"))
    yield "dcmanon (command), files", [tool, "anonymize", "-i", folder, "-o", out] if tool else None, True


def measure(command, is_whole):
    """Seconds of the work, processor seconds, peak MiB and what the program said; None when it fails."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace")
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            print(f"  {command[0]} failed: {errors.read()[-300:]}", file=sys.stderr)
            return None
    last = said.strip().splitlines()[-1].split() if said.strip() else []
    return wall if is_whole else float(last[0]), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, last


def empty(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def look(folder):
    """Of a folder of DICOM files: their bytes, private elements, pixels and SOP Instance UIDs, and the values of the attributes above."""
    import warnings

    import pydicom

    # Of one tool's outputs: a character set that no reader knows.
    warnings.simplefilter("ignore")
    datas, private, pixels, uids, values = [], 0, set(), set(), {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        datas.append(path.read_bytes())
        dataset = pydicom.dcmread(path)
        private += sum(element.tag.is_private for element in dataset.iterall())
        pixels.add(bytes(dataset.PixelData))
        uids.add(str(dataset.get("SOPInstanceUID", "")))
        for keyword, _ in VALUES:
            values.setdefault(keyword, set()).add(str(dataset.get(keyword, "")).encode())
    return datas, private, pixels, uids - {""}, values


def leaks(before, after):
    """For each attribute the outputs with one of its values in their bytes, then private elements, images that are the input's, distinct UIDs."""
    datas, private, pixels, uids, _ = after
    for keyword, _ in VALUES:
        sought = before[4][keyword] - {b""}
        yield sum(any(value in data for value in sought) for data in datas) if sought else "-"
    yield from (private, len(pixels & before[2]), len(uids))


def main():
    study = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "../../../shared/data/mr_t1_philips_mprage"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    if "DEID_BENCH" not in os.environ:
        subprocess.run(["cargo", "build", "--release", "--target-dir", "../../target"], cwd=HERE, check=True)
    place = pathlib.Path(tempfile.mkdtemp(prefix="smp-deid-", dir="/dev/shm"))
    try:
        folder, out = place / "in", place / "out"
        shutil.copytree(study, folder)
        count = sum(1 for _ in folder.iterdir())
        everything = list(rows(folder, out))
        spent = {name: [] for name, _, _ in everything}
        for number in range(rounds):
            # Every other round backwards, so that no tool always follows the same one.
            for name, command, is_whole in everything if number % 2 == 0 else reversed(everything):
                empty(out)
                found = measure(command, is_whole) if command else None
                spent[name].extend([found] if found else [])
        print(f"{count} files, {sum(path.stat().st_size for path in folder.iterdir()) / 2**20:.1f} MiB; medians of {rounds} rounds")
        print(f"  {'':26} {'wall s':>8} {'range':>15} {'cpu s':>7} {'peak MiB':>9} {'files/s':>8} {'smp is':>8}")
        for name, _, is_whole in everything:
            values = spent[name]
            if not values:
                print(f"  {name:26} not available here")
                continue
            ours = statistics.median(value[0] for value in spent["smp, files" if is_whole else "smp"])
            wall, cpu, peak = (statistics.median(column) for column in list(zip(*values))[:3])
            spread = f"{min(value[0] for value in values):.3f}-{max(value[0] for value in values):.3f}"
            print(f"  {name:26} {wall:8.3f} {spread:>15} {cpu:7.2f} {peak:9.0f} {count / wall:8.0f} {wall / ours:7.2f}x")
        for name in ("smp", "smp, one processor", "smp, files"):
            parts = [statistics.median(float(value[3][part]) for value in spent[name]) for part in (3, 4, 5)]
            print("  {}: load {:.3f}, de-identify {:.3f}, write {:.3f}".format(name, *parts))

        before = look(folder)
        print(f"\nOutputs (of {count}) with a value of the input in their bytes; private elements in all (input: {before[1]});")
        print("images that are the input's bit for bit; distinct SOP Instance UIDs")
        print(f"  {'':26} " + " ".join(f"{head:>8}" for head in [*(head for _, head in VALUES), "private", "images", "UIDs"]))
        for name, command, is_whole in everything:
            if not spent[name] or name == "smp, one processor":
                continue
            empty(out)
            measure(command if is_whole else [*command, out], is_whole)
            print(f"  {name:26} " + " ".join(f"{number:>8}" for number in leaks(before, look(out))))
    finally:
        shutil.rmtree(place)


main()
