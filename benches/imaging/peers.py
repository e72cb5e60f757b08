#!/usr/bin/env python3
"""One imaging job by one of the other tools, measured as imaging-bench measures: peers.py TOOL JOB THREADS FILE COLUMNS ROWS SLICES.

FILE is what run.py makes: float32 voxels, column fastest, or bytes for jobs that label; for N4 the mask lies beside it. Each tool gets the input as it
wants it before the clock starts. Up to five rounds, or as many as begin within four seconds of work. Prints the least seconds and processor
seconds of the work alone, the peak memory of the process in MiB (Python and what it imports are part of it) and one number of the result: its
mean, how many labels, a threshold, or a sum of percentiles.
"""

import pathlib
import sys
import time

import numpy as np

ROUNDS = 5
ENOUGH = 4.0
SIGMA = 20.0
TV_ITERATIONS = 30


def read(file, dims):
    kind = np.uint8 if file.suffix in (".mask", ".binary") else np.float32
    return np.fromfile(file, kind).reshape(dims[::-1])


def simpleitk(job, file, dims, threads):
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    image = sitk.GetImageFromArray(read(file, dims))
    size = image.GetSize()

    def n4(levels, threshold, shrink):
        tool = sitk.N4BiasFieldCorrectionImageFilter()
        tool.SetMaximumNumberOfIterations(levels)
        tool.SetConvergenceThreshold(threshold)
        mask = sitk.GetImageFromArray(read(file.with_suffix(".mask"), dims))

        def work():
            if shrink == 1:
                return tool.Execute(image, mask)
            tool.Execute(sitk.Shrink(image, [shrink] * 3), sitk.Shrink(mask, [shrink] * 3))
            return image / sitk.Cast(sitk.Exp(tool.GetLogBiasFieldAsImage(image)), sitk.sitkFloat32)

        return work

    def resample(how):
        finer, spacing = [round(n * 1.5) for n in size], [1 / 1.5] * 3
        return lambda: sitk.Resample(image, finer, sitk.Transform(), how, (0.0,) * 3, spacing, image.GetDirection(), 0.0, sitk.sitkFloat32)

    def diffusion(tool):
        return lambda: tool(image, timeStep=0.0625, conductanceParameter=3.0, conductanceScalingUpdateInterval=1, numberOfIterations=5)

    def label(is_fully):
        tool = sitk.ConnectedComponentImageFilter()
        tool.SetFullyConnected(is_fully)

        def work():
            # Both are the result; a tuple with the number last, as cc3d and scipy return.
            return tool.Execute(image), tool.GetObjectCount()

        return work

    def otsu():
        tool = sitk.OtsuThresholdImageFilter()
        tool.SetNumberOfHistogramBins(128)
        tool.Execute(image)
        return tool.GetThreshold()

    def foreground():
        found = sitk.ConnectedComponent(sitk.OtsuThreshold(image, 0, 1, 128))
        return sitk.BinaryFillhole(sitk.Cast(sitk.RelabelComponent(found) == 1, sitk.sitkUInt8), False, 1)

    return {
        "n4-20": lambda: n4([20], 0.0, 1),
        "n4-shrink4": lambda: n4([50] * 4, 0.001, 4),
        "median": lambda: lambda: sitk.Median(image, [1] * 3),
        "gradient": lambda: diffusion(sitk.GradientAnisotropicDiffusion),
        "curvature": lambda: diffusion(sitk.CurvatureAnisotropicDiffusion),
        "linear": lambda: resample(sitk.sitkLinear),
        "bspline": lambda: resample(sitk.sitkBSpline),
        "label-6": lambda: label(False),
        "label-26": lambda: label(True),
        "otsu": lambda: otsu,
        "foreground": lambda: foreground,
    }[job]()


def dipy(job, file, dims, threads):
    from dipy.denoise.nlmeans import nlmeans

    voxels = read(file, dims)
    if job == "blockwise":
        return lambda: nlmeans(voxels, SIGMA, patch_radius=3, block_radius=1, rician=True, num_threads=threads, method="blockwise")
    block = {"nlm-b2": 2, "nlm-b3": 3, "nlm-b5": 5}[job]
    return lambda: nlmeans(voxels, SIGMA, patch_radius=1, block_radius=block, rician=True, num_threads=threads, method="classic")


def scipy(job, file, dims, threads):
    import scipy.ndimage

    data = read(file, dims)
    if job.startswith("label"):
        structure = scipy.ndimage.generate_binary_structure(3, {"6": 1, "18": 2, "26": 3}[job.removeprefix("label-")])
        return lambda: scipy.ndimage.label(data, structure)
    return {
        "gaussian": lambda: scipy.ndimage.gaussian_filter(data, 1.5),
        "median": lambda: scipy.ndimage.median_filter(data, 3),
        # Another grid than the others' (the first and last voxels stay where they are), of the same size.
        "bspline": lambda: scipy.ndimage.zoom(data, 1.5, order=3, mode="mirror"),
    }[job]


def skimage(job, file, dims, threads):
    import skimage.exposure
    import skimage.filters
    import skimage.restoration

    voxels = read(file, dims)
    if job == "clahe":
        # It takes floats between -1 and 1 only.
        voxels = (voxels - voxels.min()) / (voxels.max() - voxels.min())
    return {
        "tv": lambda: skimage.restoration.denoise_tv_chambolle(voxels, weight=SIGMA, eps=0, max_num_iter=TV_ITERATIONS),
        "otsu": lambda: skimage.filters.threshold_otsu(voxels, nbins=128),
        "clahe": lambda: skimage.exposure.equalize_adapthist(voxels),
    }[job]


def numpy(job, file, dims, threads):
    voxels = read(file, dims)
    return {
        "zscore": lambda: (voxels - voxels.mean()) / voxels.std(),
        "percentiles": lambda: np.percentile(voxels, [1, 99]),
    }[job]


def cc3d(job, file, dims, threads):
    import cc3d as tool

    mask = read(file, dims).astype(bool)
    neighbours = int(job.removeprefix("label-"))
    return lambda: tool.connected_components(mask, connectivity=neighbours, return_N=True)


def peak_mib():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def number(job, result):
    """One number of the result, the same that imaging-bench tells."""
    if job.startswith("label"):
        return result[1]
    if job == "otsu":
        return result
    if job == "percentiles":
        return result.sum()
    if not isinstance(result, np.ndarray):
        import SimpleITK as sitk

        result = sitk.GetArrayViewFromImage(result)
    return result.mean(dtype=np.float64)


def main():
    tool, job, threads, file, *dims = sys.argv[1:]
    work = globals()[tool](job, pathlib.Path(file), [int(n) for n in dims], int(threads))
    walls, processors, result = [], [], None
    while not walls or (len(walls) < ROUNDS and sum(walls) <= ENOUGH):
        result = None
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        processors.append(time.process_time() - processor)
        walls.append(time.perf_counter() - wall)
    peak = peak_mib()
    print(min(walls), min(processors), peak, 0, float(number(job, result)))


main()
