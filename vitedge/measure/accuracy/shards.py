"""The evidence of a share of the images, and the whole report from that of all shares.

A shard is bound to the model files, the data, the runtime and the CPU: what of these differs
between two could make their figures those of two artifacts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import msgspec

import vitedge
from vitedge.core import report
from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError, error_line, first_few
from vitedge.core.host import Host
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.progress import Steps
from vitedge.core.report import Numerics, Report
from vitedge.core.runtime import runtime_of
from vitedge.data.imageset import ImageSet, unusable
from vitedge.measure.accuracy import evidence
from vitedge.measure.accuracy.bundle_validation import (
    check_precision,
    finished,
    record,
    tally_bundle,
)
from vitedge.measure.accuracy.share import MOST, Share
from vitedge.measure.accuracy.tally import Tally
from vitedge.runtimes import open_session

SCHEMA = "vitedge.shard/1"
FOLDER = Path("shards")
"""Where shards are written, each artifact's in a folder of its name."""
_AGAIN = "validate that share again"


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence of a share belongs to."""

    schema: str = SCHEMA
    index: int
    count: int
    images: int
    """Of the whole set."""
    data: str
    """Its name."""
    data_digest: str
    """SHA-256 of what it lists."""
    files: dict[str, str]
    """The artifact's model files, and their SHA-256."""
    fp32_files: dict[str, str]
    """FP32's likewise; empty where it was not run."""
    preprocessing: str
    """SHA-256 of what the manifest says of it."""
    versions: dict[str, str]
    """Of vitedge and the runtime."""
    allow_overlap: bool
    skipped: dict[str, int]
    """Images left out, by reason."""
    outputs: tuple[str, ...]
    """The artifact's, in the order of its session."""
    golden: Numerics | None
    """The error on the golden images, where FP32 was not run."""
    host: Host

    @property
    def share(self) -> Share:
        """Which it is."""
        return Share(self.index, self.count)

    @property
    def alike(self) -> dict[str, object]:
        """What shards of one validation have in common, and what it is called."""
        host = self.host
        return {
            "of another bundle": (self.files, self.fp32_files, self.preprocessing),
            "of other data, or of data that has changed since": (self.data_digest, self.images),
            "of another version of vitedge or the runtime": self.versions,
            "of another kind of CPU": (host.machine, host.cpu, host.isa, host.accelerator),
            "cut into another number of shards": self.count,
            "with another `allow_overlap`": self.allow_overlap,
        }


def file_name(share: Share) -> str:
    """Of a shard's evidence."""
    digits = len(str(share.count))
    return f"shard-{share.index:0{digits}}-of-{share.count}.npz"


def write_shard(
    bundle: Bundle,
    images: ImageSet,
    share: Share,
    folder: Path,
    steps: Steps,
    *,
    allow_overlap: bool,
) -> Path:
    """Validate a share of `images` and write what it came to into `folder`; returns the file.

    Raises InputError, UnavailableError and LimitError as `validate_bundle` does.
    """
    check_precision(bundle)
    folder.mkdir(parents=True, exist_ok=True)
    digest, fp32 = images.digest(), bundle.reference()
    load = partial(open_session, threads=0)
    tally, golden = tally_bundle(
        bundle, fp32, load, images, steps, allow_overlap=allow_overlap, share=share
    )
    about = Shard(
        index=share.index,
        count=share.count,
        images=len(images),
        data=images.name,
        data_digest=digest,
        files=bundle.model_files,
        fp32_files=fp32.model_files if fp32 else {},
        preprocessing=evidence.preprocessing_digest(bundle),
        versions=_versions(bundle),
        allow_overlap=allow_overlap,
        skipped=dict(images.skipped),
        outputs=tuple(tally.outputs),
        golden=golden,
        host=report.host_of(bundle, describe_machine(usable_cores())),
    )
    path = folder / file_name(share)
    evidence.save(path, about, tally.arrays())
    return path


def merge_shards(bundle: Bundle, folders: Sequence[Path], *, here: bool = False) -> Report:
    """The report that one process would have written, from the shards in `folders`.

    It is of the machine that the first was made on or, with `here`, of this one.
    Raises InputError where they are not all of one validation of `bundle`, or not all there.
    """
    report.check_writable(bundle)
    files = _files(folders)
    shards = {path: _header(path) for path in files}
    first = next(iter(shards.values()))
    _check(bundle, shards)
    model = bundle.manifest
    tally = Tally(model.model.task, first.outputs, model.orders, model.model.detection)
    skipped: dict[str, int] = {}
    for path, shard in sorted(shards.items(), key=lambda item: item[1].index):
        try:
            tally.join(_arrays(path))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not whole: {error_line(error)}", fix=_AGAIN) from error
        for reason, count in shard.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
    if not tally.seen:
        raise unusable(first.data, skipped)
    machine = report.host_of(bundle, describe_machine(usable_cores())) if here else first.host
    return record(bundle, finished(tally, first.golden, first.data, skipped), machine)


def _versions(bundle: Bundle) -> dict[str, str]:
    name = runtime_of(bundle.manifest.target).name
    installed = describe_machine(threads=0).runtimes.get(name, "")
    return {"vitedge": vitedge.__version__, name: installed}


def _files(folders: Sequence[Path]) -> list[Path]:
    """The shards in `folders`; a shard's file may stand for one. Raises InputError."""
    files: list[Path] = []
    for folder in folders:
        inside = [folder] if folder.is_file() else sorted(folder.glob("shard-*-of-*.npz"))
        if not inside:
            raise InputError(
                f"there are no shards in {folder}",
                fix="give the folders that `shard` wrote them to",
            )
        files += inside
    if len(files) > MOST:
        raise InputError(f"{len(files):,} shards are too many", fix=f"merge {MOST:,} at most")
    return list(dict.fromkeys(path.resolve() for path in files))


def _header(path: Path) -> Shard:
    header = evidence.load_header(path, SCHEMA, _AGAIN)
    try:
        shard = msgspec.convert(header, Shard)
    except msgspec.ValidationError as error:
        raise InputError(f"{path} cannot be read: {error}", fix=_AGAIN) from error
    if not 1 <= shard.index <= shard.count <= MOST:
        raise InputError(f"{path} says it is shard {shard.share}", fix=_AGAIN)
    return shard


def _arrays(path: Path) -> dict[str, evidence.Array]:
    return evidence.load(path, SCHEMA, _AGAIN)[1]


def _check(bundle: Bundle, shards: dict[Path, Shard]) -> None:
    """Raise InputError unless the shards are the whole of one validation of the bundle."""
    first_path, first = next(iter(shards.items()))
    own = (bundle.model_files, evidence.preprocessing_digest(bundle))
    if (first.files, first.preprocessing) != own:
        raise InputError(
            f"{first_path} is not of {bundle.path}, or of what it was before",
            fix="merge the shards of this very artifact",
        )
    for path, shard in shards.items():
        for difference, value in shard.alike.items():
            if value != first.alike[difference]:
                raise InputError(
                    f"{path.name} is {difference}, beside {first_path.name}",
                    fix="merge shards of one artifact, one data set and one kind of machine",
                )
    indices = [shard.index for shard in shards.values()]
    twice = sorted({index for index in indices if indices.count(index) > 1})
    if twice:
        raise InputError(
            f"shards that are there twice: {_listed(twice, first.count)}",
            fix="merge each once",
        )
    missing = sorted(set(range(1, first.count + 1)) - set(indices))
    if missing:
        raise InputError(
            f"{len(missing)} of {first.count} shards are missing: {_listed(missing, first.count)}",
            fix=f"make them, for example with `shard='{missing[0]}/{first.count}'`",
        )


def _listed(indices: Iterable[int], count: int) -> str:
    return first_few([str(Share(index, count)) for index in indices])
