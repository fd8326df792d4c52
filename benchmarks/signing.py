"""`sign` and `verify` of a 350 MB bundle, against hashlib over the same files, in turn.

Either reads every byte once, so the two are held to two passes of hashlib's SHA-256. What a process
takes to start, and to import what signs, is printed apart.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

import vitedge
from benchmarks import peers
from vitedge.core.bundle import open_bundle, seal

SIZE_MB = 350
LIMIT = 1.5


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size-mb", type=int, default=SIZE_MB)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        bundle, key, public = _bundle(Path(place), options.size_mb)
        accepted = Path(place) / "accepted.json"
        jobs = {
            "hashlib": partial(_hash, bundle),
            "sign": partial(vitedge.sign, bundle, key=key),
            "verify": partial(vitedge.verify, bundle, trust=public, accepted=accepted),
        }
        vitedge.sign(bundle, key=key)
        seconds = peers.in_turn(jobs, options.rounds)
        starts = peers.in_turn(
            {
                "vitedge --version": partial(_start, "-m", "vitedge", "--version"),
                "import model_signing": partial(_start, "-c", "import model_signing.signing"),
                "import cryptography": partial(
                    _start, "-c", "import cryptography.hazmat.primitives.serialization"
                ),
            },
            5,
        )
    ratios = {
        name: median(a / b for a, b in zip(times, seconds["hashlib"], strict=True))
        for name, times in seconds.items()
    }
    peers.table(
        ("", "median s", "fastest s", "of hashlib's"),
        [
            *(
                (name, f"{median(times):.3f}", f"{min(times):.3f}", f"{ratios[name]:.2f}")
                for name, times in seconds.items()
            ),
            *((name, f"{median(t):.3f}", f"{min(t):.3f}", "") for name, t in starts.items()),
        ],
    )
    both = zip(seconds["sign"], seconds["verify"], seconds["hashlib"], strict=True)
    ratio = median((sign + verify) / (2 * once) for sign, verify, once in both)
    peers.verdict(
        f"sign and verify take {ratio:.2f}× of hashing {options.size_mb} MB twice (≤ {LIMIT})",
        ratio <= LIMIT,
    )


def _bundle(place, size_mb):
    """A bundle of random bytes, and a pair of keys."""
    exported = vitedge.export(targets=["onnxruntime"], duration_s=0, output=place)
    path = exported[0].bundle.path
    manifest = open_bundle(path).manifest
    noise = np.random.default_rng(0)
    with (path / "model.bin").open("wb") as file:
        for _ in range(size_mb):
            file.write(noise.bytes(10**6))
    seal(path, manifest)
    key, public = place / "key.pem", place / "key.pub"
    make = f"openssl ecparam -name prime256v1 -genkey -noout -out {key}"
    subprocess.run(make.split(), check=True)
    publish = f"openssl ec -in {key} -pubout -out {public}"
    subprocess.run(publish.split(), check=True, capture_output=True)
    return path, key, public


def _hash(bundle):
    for path in sorted(bundle.iterdir()):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)


def _start(*words):
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
