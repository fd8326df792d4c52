"""Outlier channels in a trained ViT, with and without equalisation, beside NNCF and ONNX Runtime.

`digits` with function-preserving outliers of growing strength; 719 held-out images, 300 for
calibration. Must reach: within 1 dB of the model without outliers, at most 0.3 points lost.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import product
from pathlib import Path

import msgspec

from benchmarks import peers
from tests.support.outliers import write_digits
from vitedge.core import catalog
from vitedge.models.sources import ModelRequest

STRENGTHS = (2, 5, 10, 100, 1000)
SITES = ("norm", "value", "query", "all")
MAX_LOSS_DB, MAX_DROP_PP = 1.0, 0.3
PEERS = {"NNCF": "NNCF", "ORT MinMax": "ORT static"}
"""By their names in `peers.quantizers`."""


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sites", nargs="+", choices=SITES, default=SITES)
    parser.add_argument("--strengths", nargs="+", type=float, default=STRENGTHS)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    rows = []
    losses_db = []
    drops_pp = []
    plain_db = {}
    cases = [("all", 1, 0), *product(options.sites, options.strengths, range(options.seeds))]
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        for site, strength, seed in cases:
            case = Path(name) / f"{site}-{strength:g}-{seed}"
            for runtime, scores in _measure(case, site, strength, seed, options).items():
                equalized_db, drop_pp = scores["equalized"]
                plain_db.setdefault(runtime, equalized_db)
                losses_db.append(plain_db[runtime] - equalized_db)
                drops_pp.append(drop_pp)
                cells = [f"{db:.1f} ({drop:+.2f})" for db, drop in scores.values()]
                cells += ["–"] * (4 - len(cells))
                rows.append((f"{site} ×{strength:g} seed {seed}", runtime, *cells))
                print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    peers.table(("outliers", "runtime", "equalized", "not", *PEERS.values()), rows)
    print("SQNR dB (points of top-1 lost)")
    loss_db, drop_pp = max(losses_db), max(drops_pp)
    peers.verdict(
        f"at most {loss_db:.2f} dB below no outliers ({MAX_LOSS_DB})", loss_db <= MAX_LOSS_DB
    )
    peers.verdict(f"at most {drop_pp:.2f} points lost ({MAX_DROP_PP})", drop_pp <= MAX_DROP_PP)


def _measure(folder, site, strength, seed, options):
    """SQNR and drop of every way to quantize one model, by runtime."""
    folder.mkdir()
    request = ModelRequest(
        "digits", weights=write_digits(folder / "weights.safetensors", site, strength, seed)
    )
    recipe = folder / "off.toml"
    fields = msgspec.structs.asdict(catalog.calibrations()["default"]) | {"equalize": "off"}
    recipe.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items()))
    equalized, plain = (
        peers.export(
            request, peers.RUNTIMES, folder / name, calib_data="digits", calibration=calibration
        )
        for name, calibration in (("on", "default"), ("off", str(recipe)))
    )
    images, held_out = peers.digits()
    scores = {}
    for index, runtime in enumerate(peers.RUNTIMES):
        fp32, ours = (result.bundle for result in equalized[2 * index : 2 * index + 2])
        score = _against(peers.logits(fp32, held_out.images), held_out.labels)
        bundles = {"equalized": ours, "not": plain[2 * index + 1].bundle}
        scores[runtime] = {
            name: score(peers.logits(bundle, held_out.images)) for name, bundle in bundles.items()
        }
        if options.no_peers or site != "all" or seed:
            continue
        for name, quantize in peers.quantizers(runtime, None).items():
            if name in PEERS:
                theirs = quantize(peers.model_file(fp32), images, folder / f"{name}-{runtime}")
                logits = peers.logits(theirs, held_out.images, ours.manifest.target)
                scores[runtime][PEERS[name]] = score(logits)
    return scores


def _against(want, labels):
    """What scores logits against those of FP32: SQNR in dB, and the points of top-1 lost."""

    def score(logits):
        right = [(values.argmax(-1) == labels).mean() for values in (want, logits)]
        return peers.sqnr_db(want, logits), 100 * float(right[0] - right[1])

    return score


if __name__ == "__main__":
    main()
