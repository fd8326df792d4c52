"""50,000 images in shards: equal to one process, merged in seconds, in memory that does not grow.

    python -m benchmarks.shards FOLDER [--images 50000] [--scale]

Generated images in tar files, digits on ONNX Runtime. `--scale`: one worker against two, too, each
pinned to a core: for a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

import vitedge as ve

PARTS = 64
FEW = 1000
PEAK = """
import re, sys, vitedge
words = sys.argv[1:]
vitedge.validate(*words)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
"""KiB. `ru_maxrss` would count the process that started this one, too."""


def images(folder: Path, count: int) -> Path:
    """Tar files of `count` PNGs of 32×32, noise around one of ten patterns, with that as class."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    patterns = random.integers(0, 200, (10, 32, 32, 3))
    for start in range(0, count, 10_000):
        with tarfile.open(folder / f"part-{start // 10_000:03}.tar", "w") as archive:
            for number in range(start, min(count, start + 10_000)):
                noisy = patterns[number % 10] + random.integers(0, 56, (32, 32, 3))
                png = io.BytesIO()
                Image.fromarray(noisy.astype(np.uint8)).save(png, "PNG", compress_level=1)
                for name, content in (("png", png.getvalue()), ("cls", b"%d" % (number % 10))):
                    member = tarfile.TarInfo(f"{number:06}.{name}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder


def peak_mib(*words: object) -> float:
    """Peak memory of a process that validates."""
    command = [sys.executable, "-c", PEAK, *map(str, words)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def figures(report: ve.Report) -> bytes:
    return msgspec.json.encode((report.accuracy, report.numerics))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--scale", action="store_true")
    asked = parser.parse_args()
    made = ve.export(targets=["onnxruntime"], precision="int8", output=asked.folder, duration_s=0)
    bundle = made[-1].bundle.path
    many = images(asked.folder / "many", asked.images)
    few = images(asked.folder / "few", FEW)
    peaks = [peak_mib(bundle, data) for data in (few, many)]
    print(
        f"peak: {peaks[0]:.0f} MiB of {FEW:,} images, {peaks[1]:.0f} MiB of {asked.images:,}: "
        f"{peaks[1] / peaks[0]:.2f}x (≤ 1.1)"
    )
    whole = ve.validate(bundle, many)
    evidence = (bundle / "evidence.npz").read_bytes()
    shards = asked.folder / "shards"
    for index in range(1, PARTS + 1):
        ve.validate(bundle, many, shard=f"{index}/{PARTS}", output=shards)
    size = sum(file.stat().st_size for file in shards.iterdir())
    start, cpu = time.perf_counter(), time.process_time()
    merged = ve.validate(bundle, merge=[str(shards)])
    wall, used = time.perf_counter() - start, time.process_time() - cpu
    equal = figures(merged) == figures(whole) and evidence == (bundle / "evidence.npz").read_bytes()
    print(
        f"merge of {PARTS} shards, {size / 2**20:.1f} MiB: {wall:.2f} s, {used:.2f} s of CPU "
        f"(< 5 s); {'equal' if equal else 'NOT EQUAL'} to the one process"
    )
    if asked.scale:
        cores = sorted(os.sched_getaffinity(0))[:2]
        walls = []
        for workers in (1, 2):
            start = time.perf_counter()
            ve.validate(bundle, many, workers=workers)
            walls.append(time.perf_counter() - start)
        print(
            f"1 worker {walls[0]:.1f} s, 2 on cores {cores} {walls[1]:.1f} s: "
            f"{walls[0] / walls[1]:.2f}x (≥ 1.8)"
        )


if __name__ == "__main__":
    main()
