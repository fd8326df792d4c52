"""Outlier channels in a trained ViT, with and without equalisation, beside NNCF and ONNX Runtime.

`digits` with function-preserving outliers of growing strength; 719 held-out images, 300 for
calibration. Must reach: within 1 dB of the model without outliers, at most 0.3 points lost.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks import peers
from tests.support.outliers import Site, write_digits
from vitedge.core import catalog
from vitedge.data.open import open_images
from vitedge.export.job import export
from vitedge.export.request import ExportRequest
from vitedge.export.result import ExportResult
from vitedge.measure.accuracy.validation import predict_all
from vitedge.models.sources import ModelRequest
from vitedge.models.zoo import ZOO

DIGITS = ZOO["digits"]
RUNTIMES = ("onnxruntime", "openvino")
STRENGTHS = (2, 5, 10, 100, 1000)
SITES: tuple[Site, ...] = ("norm", "value", "query", "all")
MAX_LOSS_DB, MAX_DROP_PP = 1.0, 0.3
Row = tuple[str, ...]


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sites", nargs="+", choices=SITES, default=SITES)
    parser.add_argument("--strengths", nargs="+", type=float, default=STRENGTHS)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    rows: list[Row] = []
    losses: list[float] = []
    drops: list[float] = []
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        folder = Path(name)
        cases: list[tuple[Site, float, int]] = [("all", 1, 0)]
        cases += [
            (s, k, seed)
            for s in options.sites
            for k in options.strengths
            for seed in range(options.seeds)
        ]
        plain: dict[str, float] = {}
        for site, strength, seed in cases:
            case = folder / f"{site}-{strength:g}-{seed}"
            for runtime, found in _measure(case, site, strength, seed, options).items():
                plain.setdefault(runtime, found["equalized"][0])
                losses.append(plain[runtime] - found["equalized"][0])
                drops.append(found["equalized"][1])
                cells = [f"{db:.1f} ({drop:+.2f})" for db, drop in found.values()]
                cells += ["–"] * (4 - len(cells))
                row = (f"{site} ×{strength:g} seed {seed}", runtime, *cells)
                rows.append(row)
                print(*row, sep="  ", file=sys.stderr, flush=True)
    peers.table(("outliers", "runtime", "equalized", "not", "NNCF", "ORT static"), rows)
    print("SQNR dB (points of top-1 lost)")
    peers.verdict(
        f"at most {max(losses):.2f} dB below no outliers ({MAX_LOSS_DB})",
        max(losses) <= MAX_LOSS_DB,
    )
    peers.verdict(
        f"at most {max(drops):.2f} points lost ({MAX_DROP_PP})", max(drops) <= MAX_DROP_PP
    )


def _measure(  # type: ignore[no-untyped-def]
    folder: Path, site: Site, strength: float, seed: int, options
) -> dict[str, dict[str, tuple[float, float]]]:
    """SQNR and drop of every way to quantize one model, by runtime."""
    folder.mkdir()
    weights = write_digits(folder / "weights.safetensors", site, strength, seed)
    recipe = folder / "off.toml"
    fields = msgspec.structs.asdict(catalog.calibrations()["default"]) | {"equalize": "off"}
    recipe.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items()))
    on = _export(weights, folder / "on", "default")
    off = _export(weights, folder / "off", str(recipe))
    evaluation = open_images("digits", "evaluation", DIGITS.preprocess, DIGITS.labels)
    held_out = next(evaluation.batches(len(evaluation)))
    calibration = open_images("digits", "calibration", DIGITS.preprocess, DIGITS.labels)
    images = [batch.images for batch in calibration.sample(300, 0)]
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for index, runtime in enumerate(RUNTIMES):
        fp32, ours = on[2 * index].bundle, on[2 * index + 1].bundle
        with peers.open_ours(fp32) as session:
            want = predict_all(session, held_out.images)

        def score(
            logits: NDArray[np.float32], want: NDArray[np.float32] = want
        ) -> tuple[float, float]:
            right = [(x.argmax(-1) == held_out.labels).mean() for x in (want, logits)]
            return peers.sqnr_db(want, logits), 100 * float(right[0] - right[1])

        scores = found[runtime] = {}
        for name, bundle in (("equalized", ours), ("not", off[2 * index + 1].bundle)):
            with peers.open_ours(bundle) as session:
                scores[name] = score(predict_all(session, held_out.images))
        if options.no_peers or site != "all" or seed:
            continue
        ways: dict[str, tuple[Callable[..., Path], Path]] = {
            "NNCF": (peers.nncf_openvino, fp32.path / "model.xml")
        }
        if runtime == "onnxruntime":
            model = fp32.path / "model.onnx"
            ways = {"NNCF": (peers.nncf_onnx, model), "ORT static": (peers.ort_static, model)}
        for name, (quantize, model) in ways.items():
            theirs = quantize(model, images, folder / f"{name}-{runtime}")
            with peers.open_file(theirs, ours.manifest.target) as session:
                scores[name] = score(predict_all(session, held_out.images))
    return found


def _export(weights: Path, folder: Path, recipe: str) -> list[ExportResult]:
    return export(
        ExportRequest(
            model=ModelRequest("digits", weights=weights),
            targets=RUNTIMES,
            precision="int8",
            calib_data="digits",
            calibration=recipe,
            duration_s=0,
            output=folder,
        ),
        peers.SILENT,
    )


if __name__ == "__main__":
    main()
