"""Images/s of validation against the bare runtime loop on the same inputs, already in memory.

The loop runs both sessions over decoded batches and drops the logits: what is left of validation
is decoding, hashing, comparing and reporting. Both take turns, pass by pass.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.benchmarks import peers
from vitedge.artifact import Bundle
from vitedge.backends.base import Session
from vitedge.data import ImageSet, open_images
from vitedge.proof import evaluation_images, validate_bundle
from vitedge.validate import DYNAMIC_BATCH, predict, validate

SHARE = 0.9
PHOTO_SIZE = (480, 640)
"""Height and width of the generated photographs: a Full-HD frame would decode at a quarter."""


def main() -> None:
    parser = peers.arguments(__doc__, model="vit_tiny_patch16_224")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--photos", type=int, default=200)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        folder = Path(name)
        photos = _photographs(folder / "photos", options.photos)
        for runtime in ("openvino", "onnxruntime"):
            rows.append(_digits(runtime, folder, options.rounds))
            rows.append(_folder(runtime, folder, options.model, photos, options.rounds))
    peers.table(("", "images", "validate images/s", "bare images/s", "share"), rows)
    for row in rows:
        peers.verdict(f"{row[0]}: {row[-1]} of the bare loop (≥ {SHARE:.0%})", _share(row) >= SHARE)


def _share(row: Sequence[str]) -> float:
    return float(row[-1].rstrip("%")) / 100


def _digits(runtime: str, folder: Path, rounds: int) -> tuple[str, ...]:
    fp32, int8 = peers.export_bundles("digits", runtime, folder, "digits", 32)
    images = evaluation_images(int8, "")

    def ours(_: Session, __: Session) -> None:
        validate_bundle(int8, images, peers.SILENT, allow_overlap=False)

    return _compare(f"digits, {int8.manifest.target.name}", fp32, int8, images, ours, rounds)


def _folder(runtime: str, folder: Path, model: str, photos: Path, rounds: int) -> tuple[str, ...]:
    """Weights are random, so validate() is called directly: a bundle's accuracy means nothing."""
    fp32, int8 = peers.export_bundles(model, runtime, folder, str(photos), 8)
    manifest = int8.manifest
    images = open_images(str(photos), "evaluation", manifest.preprocessing.host, int8.labels())

    def ours(artifact: Session, reference: Session) -> None:
        validate(artifact, reference, images, calibration=frozenset())

    return _compare(f"JPEGs, {manifest.target.name}", fp32, int8, images, ours, rounds)


def _compare(
    name: str,
    fp32: Bundle,
    int8: Bundle,
    images: ImageSet,
    ours: Callable[[Session, Session], None],
    rounds: int,
) -> tuple[str, ...]:
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(peers.open_ours(bundle)) for bundle in (int8, fp32)]
        size = sessions[0].inputs[0].shape[0] or DYNAMIC_BATCH
        decoded = [batch.images for batch in images.batches(size)]
        count = sum(map(len, decoded))
        for turn in range(rounds + 1):
            for label, job in (
                ("ours", lambda: ours(*sessions)),
                ("bare", lambda: _bare(sessions, decoded)),
            ):
                start = time.perf_counter()
                job()
                if turn:  # the first warms both up
                    times[label].append(time.perf_counter() - start)
    share = median(b / o for o, b in zip(times["ours"], times["bare"], strict=True))
    speeds = (f"{count / median(times[label]):.0f}" for label in ("ours", "bare"))
    return (name, str(count), *speeds, f"{100 * share:.1f}%")


def _bare(sessions: Sequence[Session], batches: Sequence[NDArray[np.uint8]]) -> None:
    for images in batches:
        for session in sessions:
            predict(session, images)


def _photographs(folder: Path, count: int) -> Path:
    """JPEG files in one class folder named after the model's first class."""
    (folder / "0").mkdir(parents=True)
    for start in range(0, count, 20):
        many = peers.photographs(min(20, count - start), *PHOTO_SIZE, seed=start)
        for offset, image in enumerate(many):
            path = folder / "0" / f"{start + offset:04d}.jpg"
            Image.fromarray(image).save(path, quality=90)
    return folder


if __name__ == "__main__":
    main()
