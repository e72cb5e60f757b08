#!/usr/bin/env python3
"""Imaging, side by side: ours and other tools on the same volume in one run; prints Markdown. run.py [--quick] [--long] [--only JOB …].

The volume is a head phantom of 256 x 256 x 160 voxels, made here and always the same: ellipsoids of tissue, a smooth bias field, Rician noise of
sigma 20 on a scale of 1000. Each row is a process of its own, with one thread or with two, the best of up to five rounds (`peers.py`, `src/main.rs`).
Seconds are those of the work, without starting and without reading; peak memory is that of the process, Python included.

`cpu` compares processor seconds and `wall` the clock with our row of the same number of threads: above 1 the other tool needs more. A tool that
knows one thread only is compared with ours at one thread. `limit` says, for jobs that memory bounds, by what factor the row is slower than
moving the bytes that must be moved (`bytes` in src/jobs.rs) at the speed at which as many threads copy a large array. `result` is one number
of the result (mean, labels, threshold), which shows that the same was computed.

--quick takes 128 x 128 x 80 voxels, which may lie in a cache, and leaves out what takes more than ten seconds there; --long adds non-local
means with blocks of 5.
$IMAGING_BENCH names a program that was built elsewhere; without it it is built. The other tools:

    python3 -m venv ~/imaging-peers
    ~/imaging-peers/bin/pip install numpy scipy SimpleITK dipy scikit-image connected-components-3d
    ~/imaging-peers/bin/python benches/imaging/run.py

What is absent is left out and said.
"""

import argparse
import concurrent.futures
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = pathlib.Path(os.environ.get("IMAGING_BENCH", HERE / "../../target/release/imaging-bench"))
OURS = "**smp**"
# As peers.py calls them: the package, the name in the table, and how many threads it can use.
TOOLS = {
    "simpleitk": ("SimpleITK", "SimpleITK", 2),
    "dipy": ("dipy", "dipy", 2),
    "numpy": ("numpy", "numpy", 1),
    "scipy": ("scipy", "scipy.ndimage", 1),
    "skimage": ("scikit-image", "scikit-image", 1),
    "cc3d": ("connected-components-3d", "cc3d", 1),
}
# Job, title, file, tools.
JOBS = [
    ("n4-20", "N4, 20 iterations, all voxels", "head.raw", ["simpleitk"]),
    ("n4-shrink4", "N4, defaults, shrunk by 4", "head.raw", ["simpleitk"]),
    ("n4-full", "N4, defaults, all voxels", "head.raw", []),
    ("nlm-b2", "non-local means, patch 1, block 2", "head.raw", ["dipy"]),
    ("nlm-b3", "non-local means, patch 1, block 3", "head.raw", ["dipy"]),
    ("nlm-b5", "non-local means, patch 1, block 5", "head.raw", ["dipy"]),
    ("blockwise", "non-local means, blockwise, 3 and 1", "head.raw", ["dipy"]),
    ("gaussian", "Gaussian, sigma 1.5", "head.raw", ["scipy"]),
    ("median", "median, radius 1", "head.raw", ["simpleitk", "scipy"]),
    ("gradient", "gradient diffusion, 5 iterations", "head.raw", ["simpleitk"]),
    ("curvature", "curvature diffusion, 5 iterations", "head.raw", ["simpleitk"]),
    ("tv", "total variation, 30 iterations", "head.raw", ["skimage"]),
    ("linear", "resampling x 1.5, linear", "head.raw", ["simpleitk"]),
    ("bspline", "resampling x 1.5, cubic B-spline", "head.raw", ["simpleitk", "scipy"]),
    ("zscore", "z-score", "head.raw", ["numpy"]),
    ("percentiles", "percentiles 1 and 99", "head.raw", ["numpy"]),
    ("label-6", "components, 6 neighbours, head", "head.binary", ["cc3d", "scipy", "simpleitk"]),
    ("label-18", "components, 18 neighbours, head", "head.binary", ["cc3d", "scipy"]),
    ("label-26", "components, 26 neighbours, head", "head.binary", ["cc3d", "scipy", "simpleitk"]),
    ("label-6", "components, 6 neighbours, noise", "noise.binary", ["cc3d", "scipy", "simpleitk"]),
    ("label-18", "components, 18 neighbours, noise", "noise.binary", ["cc3d", "scipy"]),
    ("label-26", "components, 26 neighbours, noise", "noise.binary", ["cc3d", "scipy", "simpleitk"]),
    ("otsu", "Otsu's threshold, 128 bins", "head.raw", ["simpleitk", "skimage"]),
    ("foreground", "Otsu, largest component, holes filled", "head.raw", ["simpleitk"]),
    ("clahe", "CLAHE in 3-D", "head.raw", ["skimage"]),
]
# What --quick leaves out.
SLOW = {("n4-20", "simpleitk"), ("nlm-b3", "dipy")}
LONG = {"nlm-b5"}


def phantom(folder, dims):
    """Writes head.raw (float32), head.mask, head.binary (what is brighter than grey matter, about) and noise.binary (bytes), column fastest."""
    width, height, depth = dims
    z, y, x = np.ogrid[-1 : 1 : depth * 1j, -1 : 1 : height * 1j, -1 : 1 : width * 1j]
    z, y, x = (axis.astype(np.float32) for axis in (z, y, x))
    head = np.zeros((depth, height, width), np.float32)

    def distance(centre, radii):
        return sum(((axis - c) / r) ** 2 for axis, c, r in zip((x, y, z), centre, radii))

    for radii, value in (((0.72, 0.90, 0.90), 900), ((0.66, 0.84, 0.84), 250), ((0.60, 0.78, 0.78), 600)):
        head[distance((0, 0, 0), radii) < 1] = value
    # White matter, folded.
    radius = np.sqrt(distance((0, 0, 0), (0.60, 0.78, 0.78)))
    folds = np.sin(14 * np.arctan2(y, x)) * np.sin(11 * np.arctan2(z, np.hypot(x, y)))
    head[radius < 0.85 + 0.1 * folds] = 800
    for side in (-0.15, 0.15):
        head[distance((side, 0, 0), (0.10, 0.30, 0.20)) < 1] = 150
    head[distance((0, 0.1, -0.3), (0.20, 0.20, 0.10)) < 1] = 700
    mask = distance((0, 0, 0), (0.72, 0.90, 0.90)) < 1
    head *= np.exp(0.25 * x - 0.2 * y * y + 0.15 * z * x - 0.1 * z)
    random = np.random.default_rng(1)
    head += 20 * random.standard_normal(head.shape, np.float32)
    head = np.hypot(head, 20 * random.standard_normal(head.shape, np.float32))
    head.tofile(folder / "head.raw")
    mask.astype(np.uint8).tofile(folder / "head.mask")
    (head > 600).astype(np.uint8).tofile(folder / "head.binary")
    (random.random(head.shape, np.float32) < 0.5).astype(np.uint8).tofile(folder / "noise.binary")


def bandwidth(threads):
    """Bytes per second read and written by so many threads that copy a large array, each its part; best of several."""
    source, target = np.ones(1 << 26, np.float32), np.zeros(1 << 26, np.float32)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads)))
    best = 0.0
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for _ in range(8):
            start = time.perf_counter()
            list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))
            best = max(best, 2 * source.nbytes / (time.perf_counter() - start))
    return best


def measure(command, threads):
    """Seconds, processor seconds, peak MiB, bytes and a number of the result; None when it fails."""
    single = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")}
    done = subprocess.run([str(part) for part in command], env=os.environ | single, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        print(f"  {' '.join(map(str, command))} failed: {done.stderr[-300:]}", file=sys.stderr)
        return None
    return [float(part) for part in done.stdout.split()]


def versions():
    """The versions of the tools that are here, by the name that peers.py knows."""
    found = {}
    for tool, (package, _, _) in TOOLS.items():
        try:
            found[tool] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "an unknown processor")


def row(title, name, threads, found, ours, speed):
    """A line of the table; without measurements a remark."""
    if not found:
        return f"| {title} | {name} | {threads} | failed | | | | | | |"
    wall, cpu, peak, _, number = found
    ratios = ["", ""]
    if ours and name != OURS:
        ratios = [f"{theirs / own:.2f}" for theirs, own in ((cpu, ours[1]), (wall, ours[0]))]
    limit = f"{wall * speed[threads] / ours[3]:.1f}" if ours and ours[3] else ""
    return f"| {title} | {name} | {threads} | {wall:.4g} | {cpu:.4g} | {peak:.0f} | {ratios[0]} | {ratios[1]} | {limit} | {number:.7g} |"


def compare(folder, dims, options, here, speed):
    """Measures and prints, job after job."""
    print("| job | tool | threads | seconds | processor s | peak MiB | cpu | wall | limit | result |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for job, title, file, tools in JOBS:
        if (options.only and job not in options.only) or (job in LONG and not options.long):
            continue
        arguments = [folder / file, *dims]
        for threads in (1, 2):
            ours = None
            if not options.peers:
                ours = measure([PROGRAM, job, threads, *arguments], threads)
                print(row(title, OURS, threads, ours, ours, speed), flush=True)
            for tool in tools:
                _, name, most = TOOLS[tool]
                if tool not in here or threads > most or (options.quick and (job, tool) in SLOW):
                    continue
                found = measure([sys.executable, HERE / "peers.py", tool, job, threads, *arguments], threads)
                print(row(title, name, threads, found, ours, speed), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small volume, and nothing that takes long")
    parser.add_argument("--long", action="store_true", help="also what takes very long")
    parser.add_argument("--peers", action="store_true", help="only the other tools")
    parser.add_argument("--only", nargs="+", metavar="JOB", help="only these jobs: " + ", ".join(dict.fromkeys(job[0] for job in JOBS)))
    options = parser.parse_args()
    if "IMAGING_BENCH" not in os.environ and not options.peers:
        subprocess.run(["cargo", "build", "--release", "--target-dir", "../../target"], cwd=HERE, check=True)
    dims = [128, 128, 80] if options.quick else [256, 256, 160]
    here, start = versions(), time.perf_counter()
    speed = {threads: bandwidth(threads) for threads in (1, 2)}
    folder = pathlib.Path(tempfile.mkdtemp(prefix="smp-imaging-", dir="/dev/shm"))
    try:
        phantom(folder, dims)
        print(f"{' x '.join(map(str, dims))} voxels, {4 * np.prod(dims) / 2**20:.0f} MiB; {processor()}, {len(os.sched_getaffinity(0))} processors.")
        print(f"Copying moves {speed[1] / 1e9:.1f} GB/s with one thread and {speed[2] / 1e9:.1f} with two.")
        print("; ".join(f"{TOOLS[tool][1]} {version}" for tool, version in here.items()) + ".\n")
        compare(folder, dims, options, here, speed)
    finally:
        shutil.rmtree(folder)
    absent = [name for tool, (_, name, _) in TOOLS.items() if tool not in here]
    if absent:
        print(f"\nNot available here: {', '.join(absent)}.")
    left_out = [f"{job} by {TOOLS[tool][1]}" for job, tool in sorted(SLOW) if not options.only or job in options.only]
    if options.quick and left_out:
        print(f"\nLeft out as too slow: {', '.join(left_out)}.")
    print(f"\nTook {(time.perf_counter() - start) / 60:.1f} minutes.")


main()
