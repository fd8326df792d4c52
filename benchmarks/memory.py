"""Peak memory of post-training quantization, by number of images: it must not grow with them.

Every run is a process of its own, on an FP32 graph exported beforehand. Images are made as they
are needed; `auto` tries every estimator on what one pass has kept.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec

from benchmarks import peers
from vitedge.core import catalog
from vitedge.core.spec import Calibration
from vitedge.data.calibration import CalibrationImages
from vitedge.data.imageset import UNLABELLED, ImageSet, Sample
from vitedge.models.sources import ModelRequest, resolve
from vitedge.models.zoo import ZOO
from vitedge.quant.int8 import Quantizer

STATUS = Path("/proc/self/status")
SAMPLE_S = 0.01
TOLERANCE = 0.1
ACTIVATIONS = ("minmax", "percentile", "mse", "entropy", "auto")


def main() -> None:
    parser = peers.arguments(__doc__, model="vit_tiny_patch16_224")
    parser.add_argument("--images", nargs="+", type=int, default=(32, 300, 3200))
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=ACTIVATIONS)
    parser.add_argument("--runtime", default="onnxruntime")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        folder = Path(name)
        _child("export", options.model, options.runtime, folder)
        rows, worst = [], 0.0
        for activations in options.activations:
            runs = [
                _child("calibrate", options.model, options.runtime, folder, activations, count)
                for count in options.images
            ]
            for count, run in zip(options.images, runs, strict=True):
                ratio = run["peak"] / runs[0]["peak"]
                worst = max(worst, abs(ratio - 1))
                figures = (f"{run['peak']:.0f}", f"{run['anon']:.0f}", f"{ratio:.3f}")
                rows.append((activations, count, *figures, f"{run['wall']:.1f}"))
                print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    first = options.images[0]
    peers.table(("activations", "images", "peak MiB", "anon MiB", f"× {first}", "wall s"), rows)
    peers.verdict(
        f"peak memory within {worst:.1%} of that with {first} images (±{TOLERANCE:.0%})",
        worst <= TOLERANCE,
    )


def _child(step: str, *arguments: object) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", "--child", step]
    done = subprocess.run(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


# -- in the child -------------------------------------------------------------------------------


def _export(model: str, runtime: str, folder: Path) -> dict[str, float]:
    from vitedge.export.onnx import export

    target = peers.target_here(runtime)
    reference = resolve(ModelRequest(model, random_weights=True))
    exported = export(reference, folder, target.batch, target.opset)
    fields = (exported.path.name, exported.input, exported.output)
    (folder / "exported.json").write_bytes(msgspec.json.encode(fields))
    return {}


def _calibrate(
    model: str, runtime: str, folder: Path, activations: str, images: int
) -> dict[str, float]:
    from vitedge.core.runtime import TensorSpec
    from vitedge.graph.run import Fp32Graph

    name, *specs = msgspec.json.decode(
        (folder / "exported.json").read_bytes(), type=tuple[str, TensorSpec, TensorSpec]
    )
    fields = msgspec.structs.asdict(catalog.calibrations()["default"])
    fields |= {"activations": activations, "num_samples": images}
    recipe = msgspec.convert(fields, Calibration)
    height, width = ZOO[model].preprocess.height, ZOO[model].preprocess.width

    def photograph(index: int) -> Sample:
        return peers.photographs(1, height, width, seed=index)[0], UNLABELLED

    drawn = ImageSet("made as needed", images, photograph, decodes=False)
    quantizer = Quantizer(
        Fp32Graph(folder / name, *specs, 0.0, 0.0),
        peers.target_here(runtime),
        CalibrationImages(drawn, recipe, peers.SILENT),
        peers.SILENT,
    )
    # Not ru_maxrss: Linux carries it over exec, so it would hold the parent's memory too.
    Path("/proc/self/clear_refs").write_text("5")
    anon = [0.0]
    threading.Thread(target=_sample, args=(anon,), daemon=True).start()
    start = time.perf_counter()
    quantizer.write(folder / f"{activations}-{images}", {})
    return {
        "peak": _status_mib("VmHWM"),
        "anon": anon[0],
        "wall": time.perf_counter() - start,
    }


def _sample(anon: list[float]) -> None:
    while True:
        anon[0] = max(anon[0], _status_mib("RssAnon"))
        time.sleep(SAMPLE_S)


def _status_mib(field: str) -> float:
    match = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert match
    return int(match[1]) / 1024


def _run_child(step: str, model: str, runtime: str, folder: str, *arguments: str) -> None:
    if step == "export":
        result = _export(model, runtime, Path(folder))
    else:
        activations, images = arguments
        result = _calibrate(model, runtime, Path(folder), activations, int(images))
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _run_child(*sys.argv[2:])
    else:
        main()
