"""Images/s of validation against the bare runtime loop on the same inputs, already in memory.

The loop runs both sessions over decoded batches and drops the logits: what is left of validation
is decoding, hashing, comparing and reporting. Both take turns, and the fastest pass of each
counts; where validation opens its sessions, so does the loop.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from benchmarks import peers
from vitedge.core.progress import SILENT
from vitedge.data.open import open_images
from vitedge.measure.accuracy.bundle_validation import evaluation_images, validate_bundle
from vitedge.measure.accuracy.validation import DYNAMIC_BATCH, run, validate
from vitedge.runtimes import open_session

SHARE = 0.9
PHOTO_SIZE = (480, 640)
"""Height and width of the generated photographs."""


def main():
    parser = peers.arguments(__doc__, model="vit_tiny_patch16_224")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--photos", type=int, default=200)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        folder = Path(name)
        photos = _photographs(folder / "photos", options.photos)
        for runtime in peers.RUNTIMES:
            rows.append(_digits(runtime, folder, options.rounds))
            rows.append(_folder(runtime, folder, options.model, photos, options.rounds))
    peers.table(("", "images", "validate images/s", "bare images/s", "share"), rows)
    for name, *_, share in rows:
        met = float(share.rstrip("%")) / 100 >= SHARE
        peers.verdict(f"{name}: {share} of the bare loop (≥ {SHARE:.0%})", met)


def _digits(runtime, folder, rounds):
    """All of validate_bundle, opening both sessions and writing the report included."""
    fp32, int8 = peers.export_bundles("digits", runtime, folder, "digits", num_samples=32)
    images = evaluation_images(int8, "")
    decoded = _decoded(images, int8)

    def ours():
        validate_bundle(int8, images, SILENT, allow_overlap=False)

    def bare():
        with open_session(int8) as artifact, open_session(fp32) as reference:
            _run((artifact, reference), decoded)

    return _compare(f"digits, {int8.manifest.target.name}", decoded, ours, bare, rounds)


def _folder(runtime, folder, model, photos, rounds):
    """Weights are random, so validate() is called directly: a bundle's accuracy means nothing."""
    fp32, int8 = peers.export_bundles(model, runtime, folder, str(photos), num_samples=8)
    manifest = int8.manifest
    images = open_images(str(photos), "evaluation", manifest.preprocessing.host, int8.labels())
    decoded = _decoded(images, int8)
    with open_session(int8) as artifact, open_session(fp32) as reference:

        def ours():
            validate(artifact, reference, images, "classification", calibration=frozenset())

        def bare():
            _run((artifact, reference), decoded)

        return _compare(f"JPEGs, {manifest.target.name}", decoded, ours, bare, rounds)


def _decoded(images, bundle):
    """Every batch that validation would run."""
    batch = bundle.manifest.inputs[0].shape[0]
    size = DYNAMIC_BATCH if batch == "batch" else batch
    return [chunk.images for chunk in images.batches(size)]


def _run(sessions, batches):
    for images in batches:
        for session in sessions:
            run(session, images)


def _compare(name, decoded, ours, bare, rounds):
    count = sum(map(len, decoded))
    times = peers.in_turn({"ours": ours, "bare": bare}, rounds)
    fastest = {label: min(seconds) for label, seconds in times.items()}  # others only add to it
    speeds = (f"{count / fastest[label]:.0f}" for label in ("ours", "bare"))
    return (name, str(count), *speeds, f"{100 * fastest['bare'] / fastest['ours']:.1f}%")


def _photographs(folder, count):
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
