"""`vitedge check-data`: reads a set as calibration and evaluation do, so that what is said here is
what an export would do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

from vitedge.core.errors import InputError
from vitedge.core.progress import Steps
from vitedge.core.spec import WITH_CLASSES, Exif
from vitedge.data import header
from vitedge.data.decode import listing
from vitedge.data.header import Header
from vitedge.data.imageset import ImageSet
from vitedge.data.open import Source, has_labels
from vitedge.measure.data_check import DataCheck, DataFinding
from vitedge.measure.data_check.classes import classes_of, of_labels
from vitedge.measure.data_check.images import (
    examples_of,
    look,
    of_duplicates,
    of_files,
    of_headers,
    of_overlap,
    of_skipped,
)
from vitedge.measure.data_check.reader import Reader


def check(source: Source, reader: Reader, against: Source | None, steps: Steps) -> DataCheck:
    """Look at every image of `source` as `reader` takes it, and for those of `against`, too.

    Raises InputError where there is nothing to look at.
    """
    images, findings = _opened(source, reader)
    seen = look(images, steps, "checking images")
    if isinstance(seen.error, InputError):  # a mask that does not fit ends evaluation
        what, fix = seen.error.what, seen.error.fix
        if not reader.model:
            what = f"a mask in '{source}' holds a class above {len(reader.labels) - 1}"
            fix = "give class indices that 8 bits hold, and 255 where ignored"
        findings.append(DataFinding(severity="error", what=what, fix=fix))
        if len(seen.digests) + len(images.unusable) < len(images):
            images = reader.open(source, "calibration")
            seen = look(images, steps, "checking images without masks")
    headers = _headers(images, reader.preprocess.exif, steps)
    folders = _class_folders(source, images, reader)
    classes = classes_of(images, seen, reader, folders)
    of_classes = [*of_labels(source, reader, folders, classes)]
    if any(finding.severity == "error" for finding in of_classes):
        findings = []  # opening was refused for the same
    findings += of_classes
    findings += of_skipped(images)
    findings += of_headers(images, headers, reader)
    findings += of_duplicates(images, seen)
    findings += of_files(source, images)
    if against is not None:
        findings += of_overlap(seen, images, reader, against, steps)
    sizes = [(h.width, h.height) for h in headers.values()]
    width, height = zip(*sizes, strict=True) if sizes else ((), ())
    role = _used_as(images, reader, source)
    rank = ("error", "warning", "info")
    return DataCheck(
        data=str(source),
        model=reader.model,
        task=reader.task,
        used_as=role,
        images=len(images),
        usable=len(seen.digests),
        skipped=dict(Counter(images.unusable.values()).most_common()),
        classes=classes,
        width_px=_spread(width),
        height_px=_spread(height),
        modes=dict(Counter(h.mode for h in headers.values()).most_common()),
        findings=tuple(sorted(findings, key=lambda finding: rank.index(finding.severity))),
    )


def _used_as(
    images: ImageSet, reader: Reader, source: Source
) -> Literal["evaluation", "calibration"]:
    masked = isinstance(source, str) and (source == "shapes" or (Path(source) / "masks").is_dir())
    boxed = reader.task == "detection" and has_labels(source, reader.task)
    labelled = images.strata or (reader.task == "segmentation" and masked) or boxed
    return "evaluation" if labelled or reader.task not in WITH_CLASSES else "calibration"


def _opened(source: Source, reader: Reader) -> tuple[ImageSet, list[DataFinding]]:
    """To evaluate on, or, where that is refused, to calibrate on, and why."""
    try:
        return reader.open(source, "evaluation"), []
    except InputError as error:
        images = reader.open(source, "calibration")
        labelled = _used_as(images, reader, source) == "evaluation"
        below = [index for index, label in enumerate(images.strata) if label < 0]
        if labelled and not reader.model and below:
            finding = DataFinding(
                severity="error",
                what=f"'labels' of '{source}' goes below 0",
                count=len(below),
                examples=examples_of(images, below),
                fix="give class indices from 0 on, or leave the images out",
            )
        elif labelled:
            finding = DataFinding(severity="error", what=error.what, fix=error.fix)
        else:
            what = f"for calibration only: {error.what}"
            finding = DataFinding(severity="info", what=what, fix=error.fix)
        return images, [finding]


def _headers(images: ImageSet, exif: Exif, steps: Steps) -> dict[int, Header]:
    headers = {}
    for index, path in enumerate(images.paths):
        if known := header.read(path, exif):
            headers[index] = known
        steps("reading headers", index + 1, len(images))
    return headers


def _spread(values: Sequence[int]) -> tuple[int, int, int] | None:
    return (min(values), round(median(values)), max(values)) if values else None


def _class_folders(source: Source, images: ImageSet, reader: Reader) -> list[str]:
    """Names of the class folders of a set that has them."""
    masked = reader.task == "segmentation"
    if masked or not images.strata or not isinstance(source, str) or not images.paths:
        return []
    return listing(source)[0]
