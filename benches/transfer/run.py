#!/usr/bin/env python3
"""Download, verification and decryption beside other tools, over loopback and in one run: run.py [ROUNDS].

A study of 170 files (80 MiB) and one of 4,096 files (2 GiB), sealed for this library, and encrypted file by file with AES-256-GCM for Python.
The store serves out of memory, once as fast as it can and once at 125 MB/s (1 Gbit/s). Rows:

- smp: fetch, verify, decrypt; every file ends in memory
- GET: bare ranged GETs of the sealed bytes over 8 connections, thrown away: the least that any download does
- boto3 + cryptography: each file by `get_object`, 8 threads, decrypted in memory: no signature, no file digests
- aws s3 cp, rclone copy: the sealed objects, to /dev/shm; nothing is decrypted

Needs about 10 GiB in /dev/shm; `boto3`, `cryptography` and `awscli` in this Python; `rclone` on the path. What is absent is left out and said.
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
PROGRAM = HERE / "../../target/release/transfer-bench"
FILE = 512 * 512 * 2
# Nothing of the machine's own cloud settings.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_DEFAULT_REGION": "us-east-1",
    "NO_PROXY": "127.0.0.1",
}


def measure(command):
    """Seconds by the clock, processor seconds and peak MiB of a program; None when it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        print(f"  {command[0]} failed: {message.decode(errors='replace')[-300:]}", file=sys.stderr)
        return None
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def make(place, files):
    """A study, sealed, and encrypted file by file."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    study, store = place / "study", place / "store"
    study.mkdir()
    (store / "plain-gcm").mkdir(parents=True)
    block = os.urandom(FILE + 4096)
    key = AESGCM(bytes(32))
    for number in range(files):
        content = block[number % 4096 :][:FILE]
        (study / f"slice-{number:06}.dcm").write_bytes(content)
        nonce = number.to_bytes(12, "big")
        (store / "plain-gcm" / f"{number:06}").write_bytes(nonce + key.encrypt(nonce, content, None))
    subprocess.run([PROGRAM, "seal", study, store, place / "keys"], check=True)
    shutil.rmtree(study)
    return store


def rows(port, place):
    endpoint = f"http://127.0.0.1:{port}"
    scratch = place / "scratch"
    aws = pathlib.Path(sys.executable).with_name("aws")
    rclone = shutil.which("rclone")
    target = f":s3,provider=Other,env_auth=true,endpoint='{endpoint}',region=us-east-1,force_path_style=true:b/sealed"
    yield "smp: fetch, verify, decrypt", [PROGRAM, "open", str(port), place / "keys"]
    yield "bare GET, 8 connections", [PROGRAM, "get", str(port), "sealed", "8"]
    yield "boto3 + cryptography", [sys.executable, HERE / "python_way.py", endpoint]
    yield "aws s3 cp (no decryption)", [aws, "s3", "cp", "--recursive", "--endpoint-url", endpoint, "s3://b/sealed", scratch] if aws.exists() else None
    yield "rclone copy (no decryption)", [rclone, "copy", "--config", "/dev/null", "--multi-thread-streams", "8", target, scratch] if rclone else None


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    subprocess.run(["cargo", "build", "--release", "--target-dir", "../../target"], cwd=HERE, check=True)
    for files in (170, 4096):
        place = pathlib.Path(tempfile.mkdtemp(prefix="smp-transfer-", dir="/dev/shm"))
        try:
            store = make(place, files)
            for rate in (0, 125_000_000):
                server = subprocess.Popen([PROGRAM, "serve", store, str(rate)], stdout=subprocess.PIPE)
                try:
                    port = int(server.stdout.readline())
                    spent = {}
                    for _ in range(rounds):
                        for name, command in rows(port, place):
                            if command is None:
                                spent.setdefault(name, [])
                                continue
                            found = measure(command)
                            spent.setdefault(name, []).extend([found] if found else [])
                            shutil.rmtree(place / "scratch", ignore_errors=True)
                    report(files, rate, spent)
                finally:
                    server.kill()
                    server.wait()
        finally:
            shutil.rmtree(place)


def report(files, rate, spent):
    line = f"{rate / 1e6:.0f} MB/s" if rate else "as fast as the store can"
    print(f"{files} files, {files * FILE >> 20} MiB, {line}")
    print(f"  {'':32} {'wall s':>8} {'cpu s':>8} {'peak MiB':>9} {'smp is':>9}")
    ours = statistics.median(wall for wall, _, _ in spent["smp: fetch, verify, decrypt"])
    for name, values in spent.items():
        if not values:
            print(f"  {name:32} not available here")
            continue
        wall, cpu, peak = (statistics.median(column) for column in zip(*values))
        print(f"  {name:32} {wall:8.2f} {cpu:8.2f} {peak:9.0f} {wall / ours:8.2f}x")
    sys.stdout.flush()


main()
