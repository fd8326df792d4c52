"""The smallest of each timm family with attention, through INT8 exports: a JSON line for each.

`python -m benchmarks.timm_sweep [FILE] [--only WORD…]`: goes on where FILE ends.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from benchmarks import sweep
from benchmarks.peers import declare_torchvision_ops
from tests.support import tiny_timm
from tests.support.sweep import TARGETS, Model, measure, summary
from tests.support.warm import Warm


def main() -> None:
    options = sweep.options(__doc__, "timm.jsonl").parse_args()
    sweep.one_thread()
    workers = [Warm(_all) for _ in range(options.jobs)]
    models = [Model(*names) for names in _chosen(workers[0], options.file)]
    models = [model for model in models if sweep.named(model.name, options.only)]
    rows = sweep.sweep(models, _run, workers, options.file)
    print(summary(rows))


def _chosen(worker: Warm, file: Path) -> list[list[str]]:
    """The models with attention; chosen once for a FILE and a timm."""
    import importlib.metadata

    kept = file.with_suffix(f".timm-{importlib.metadata.version('timm')}.json")
    if kept.exists():
        return json.loads(kept.read_text())["attention"]
    chosen: dict[str, list[list[str]]] = {"attention": [], "none": [], "unknown": []}
    for key, names in worker.run(_listed)["families"]:
        answer = worker.run(tiny_timm.smallest, tuple(key), names)
        kind = "unknown" if "crashed" in answer else "attention" if answer["attention"] else "none"
        chosen[kind].append(answer.get("model") or [*key, answer["crashed"][-300:]])
    kept.write_text(json.dumps(chosen, indent=1))
    return chosen["attention"]


def _listed() -> dict[str, object]:
    return {"families": list(tiny_timm.families().items())}


def _run(worker: Warm, model: Model) -> dict:
    """Write one model's folder, and export it."""
    with tempfile.TemporaryDirectory() as work:
        folder = model.folder(Path(work))
        facts = worker.run(tiny_timm.write, model, str(folder))
        if "crashed" in facts:
            return {"not_made": facts["crashed"]}
        given = facts.pop("given")
        source = f"timm:local-dir:{folder}"
        row = worker.run(measure, source, given, Path(work), TARGETS)
        return {**facts, **sweep.without(row, work)}


def _all() -> object:
    """timm, and what an export imports."""
    library = declare_torchvision_ops()
    sweep.warm_product()
    import timm
    import timm.data  # noqa: F401

    return library


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
