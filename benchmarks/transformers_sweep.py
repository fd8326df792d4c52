"""transformers' vision models of one image, tiny, through INT8 exports: a JSON line for each.

`python -m benchmarks.transformers_sweep [FILE] [--only WORD…]`: goes on where FILE ends.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks import sweep
from benchmarks.peers import declare_torchvision_ops
from tests.support import tiny_transformers
from tests.support.sweep import TARGETS, Model, measure, summary
from tests.support.warm import Warm
from vitedge.models.sources import imports


def main() -> None:
    options = sweep.options(__doc__, "transformers.jsonl").parse_args()
    sweep.one_thread()
    listing = Warm(_library)
    models = [Model(*row) for row in listing.run(_listed)["models"]]
    models = [model for model in models if sweep.named(model.name, options.only)]
    workers = [(Warm(_library), Warm(_product)) for _ in range(options.jobs)]
    rows = sweep.sweep(models, _run, workers, options.file)
    print(summary(rows))


def _listed() -> dict[str, object]:
    return {"models": tiny_transformers.models()}


def _run(worker: tuple[Warm, Warm], model: Model) -> dict:
    """Write one model's folder, and export it."""
    library, product = worker
    with tempfile.TemporaryDirectory() as work:
        folder = model.folder(Path(work))
        facts = library.run(tiny_transformers.write, model, str(folder))
        if "crashed" in facts:
            return {"not_made": facts["crashed"]}
        facts.pop("terminal", None)
        if "not_made" in facts:
            return facts
        given = facts.pop("given")
        row = product.run(measure, f"hf:{folder}", given, Path(work), TARGETS)
        return {**facts, "given": given, **sweep.without(row, work)}


def _library() -> object:
    """transformers with all it has, to write folders."""
    library = declare_torchvision_ops()
    import torch
    import transformers
    from transformers.models.auto import image_processing_auto, modeling_auto  # noqa: F401

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    return library


def _product() -> None:
    """What an export imports."""
    sweep.warm_product()
    imports.import_transformers()
    from transformers.models.auto import modeling_auto  # noqa: F401


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
