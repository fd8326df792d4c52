"""What is expensive is made once: exported graphs, and bundles as a user's `vitedge export`."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray

from tests.support import command
from tests.support.machine import TARGETS, target_of
from vitedge.core.spec import Batch as BatchSize
from vitedge.core.spec import Preprocess
from vitedge.data.imageset import Batch
from vitedge.data.open import open_images
from vitedge.models.zoo import ZOO

DIGITS = ZOO["digits"]

os.environ["HF_HUB_OFFLINE"] = "1"  # read on import: else it tries for a while to get online
os.environ["HF_HUB_CACHE"] = os.devnull  # and on import, too: no test finds what was loaded before
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it


@dataclass(frozen=True)
class Ran:
    """One run of the command line."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; fails if there is anything else."""
        return msgspec.json.decode(self.stdout)


Vitedge = Callable[..., Ran]
Once = Callable[[str, Callable[[Path], object]], Path]


def _ran(code: int, done: Ran) -> Ran:
    assert done.code == code, f"exit {done.code}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="session")
def vitedge() -> Vitedge:
    """Run `vitedge ARGUMENTS` in this process and demand its exit code."""

    def run(*arguments: object, code: int = 0, cwd: Path | None = None, **environment: str) -> Ran:
        return _ran(code, Ran(*command.call([*map(str, arguments)], cwd, environment)))

    return run


@pytest.fixture(scope="session")
def vitedge_process() -> Vitedge:
    """The same in a process of its own: for what depends on one, as a PYTHONPATH does."""

    def run(*arguments: object, code: int = 0, cwd: Path | None = None, **environment: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "vitedge", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return _ran(code, Ran(done.returncode, done.stdout, done.stderr))

    return run


@pytest.fixture(scope="session", autouse=True)
def turns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Benches take turns within a worker, not on the whole machine: they would wait idle."""
    from vitedge.measure.latency.lock import exclusive_timing

    place = tmp_path_factory.mktemp("turns") / "bench.lock"
    timing = exclusive_timing.__wrapped__  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "__defaults__", (place, *timing.__defaults__[1:]))
        yield


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Have a folder made once for all workers: the first makes it, the others wait."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        path, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(path, ignore_errors=True)  # of a worker that failed
                path.mkdir()
                make(path)
                done.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def artifacts(once: Once, vitedge: Vitedge) -> Path:
    """A folder with `digits` in FP32 and INT8 for each CPU runtime. Copy what you change."""
    targets = [word for name in TARGETS.values() for word in ("--target", name)]
    export = ("export", *targets, "--int8", "--duration", 0)
    return once("artifacts", lambda folder: vitedge(*export, "--output", folder))


class Bundles(dict[tuple[str, str], Path]):
    """By runtime and precision; a test is skipped where no target of the runtime fits."""

    def __missing__(self, kind: tuple[str, str]) -> Path:
        target_of(kind[0])
        raise KeyError(kind)


@pytest.fixture(scope="session")
def bundles(artifacts: Path) -> dict[tuple[str, str], Path]:
    """The bundle of each runtime and precision in `artifacts`."""
    by_kind = Bundles()
    for path in sorted(artifacts.iterdir()):
        _, runtime, _, precision = path.name.split("-")  # digits-openvino-cpu-int8
        by_kind[runtime, precision] = path
    return by_kind


@pytest.fixture(scope="session")
def openvino() -> str:
    """The OpenVINO target that runs here; a test that asks for it is skipped where none does."""
    return target_of("openvino")


@pytest.fixture(scope="session")
def onnx_model(bundles: dict[tuple[str, str], Path]) -> Path:
    """`digits` as somebody's ONNX file: uint8 NHWC in, batch 1. Exporting it takes no torch."""
    return bundles["onnxruntime", "fp32"] / "model.onnx"


@pytest.fixture(scope="session")
def digits_graph(
    once: Once, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[BatchSize], Any]:
    """`digits` exported to FP32 ONNX, once for each batch size asked for.

    Each worker has a copy: what is quantized is tapped in a file beside the graph.
    """
    record = "exported.pickle"
    copies: dict[BatchSize, Any] = {}

    def make(batch: BatchSize, folder: Path) -> None:
        from vitedge.export.onnx import export
        from vitedge.models.sources import ModelRequest, resolve

        exported = export(resolve(ModelRequest()), folder, batch, 20)
        (folder / record).write_bytes(pickle.dumps(exported))

    def graph(batch: BatchSize) -> Any:
        if batch not in copies:
            shared = once(f"graph-{batch}", partial(make, batch))
            folder = tmp_path_factory.mktemp(f"graph-{batch}") / "copy"
            shutil.copytree(shared, folder)
            exported = pickle.loads((folder / record).read_bytes())
            copies[batch] = replace(exported, path=folder / exported.path.name)
        return copies[batch]

    return graph


@pytest.fixture(scope="session")
def held_out() -> Batch:
    """The 719 digits that neither training nor calibration has seen."""
    images = open_images("digits", "evaluation", DIGITS.preprocess, DIGITS.labels)
    (batch,) = images.batches(len(images))
    return batch


@pytest.fixture(scope="session")
def calibration_batches() -> Callable[[int, int], list[NDArray[np.uint8]]]:
    """`count` calibration digits, in runs of `size`."""

    def batches(count: int, size: int) -> list[NDArray[np.uint8]]:
        images = open_images("digits", "calibration", DIGITS.preprocess, DIGITS.labels)
        pictures = np.concatenate([batch.images for batch in images.sample(count, seed=0)])
        return [pictures[start : start + size] for start in range(0, count, size)]

    return batches


@pytest.fixture(scope="session")
def sqnr_db() -> Callable[[NDArray[Any], NDArray[Any]], float]:
    """Signal to noise of `got` against `want`, decibels."""

    def measure(want: NDArray[Any], got: NDArray[Any]) -> float:
        noise = np.square(want.astype(np.float64) - got).sum()
        return float(10 * np.log10(np.square(want.astype(np.float64)).sum() / max(noise, 1e-30)))

    return measure


@pytest.fixture(scope="session")
def small_bundle() -> Callable[..., Path]:
    """Seal a bundle of a few bytes, no model in it, whose manifest is as `changes` say."""
    from vitedge.core import bundle, catalog, manifest

    def make(folder: Path, content: bytes = b"weights", **changes: Any) -> Path:
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(content)
        images = np.zeros((2, 8, 8, 3), np.uint8)
        bundle.Golden(images, np.zeros((2, 3), np.float32), np.array([0, 1])).write(folder)
        (folder / "labels.txt").write_text("cat\ndog\nzèbre\n", encoding="utf-8")
        plain = manifest.Manifest(
            schema=manifest.SCHEMA,
            name=folder.name,
            precision="fp32",
            model=manifest.Model(
                name="small", source="test", task="classification", num_classes=3, weights_sha256=""
            ),
            inputs=(),
            outputs=(),
            preprocessing=manifest.Preprocessing(
                host=Preprocess(height=8, width=8), graph=("cast to float32",)
            ),
            target=catalog.targets()["onnxruntime-cpu"],
            quantization=None,
            parity=manifest.ExportParity(max_abs_error=0, max_rel_error=0),
            accuracy="measurable",
            accuracy_note="",
            reference=None,
            tools={},
            files={},
            sizes={},
        )
        bundle.seal(folder, msgspec.structs.replace(plain, **changes))
        return folder

    return make


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Write files by their paths and contents, as under / of a device; returns their root."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return write


@pytest.fixture(scope="session")
def peers() -> Iterator[None]:
    """Let timm, transformers and torchvision import beside CPU torch.

    torchvision's wheel is a CUDA build whose native operators do not load; its Python parts only
    ask that two of them be declared. Import the peers inside tests that use this fixture.
    """
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield  # the declarations go when `library` does


@pytest.fixture
def hf_folder(tmp_path, peers):
    """A ViT classifier and its processor, saved by transformers."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        id2label={0: "tench", 1: "goldfish", 2: "white shark"},
    )
    folder = tmp_path / "my-vit"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.ViTImageProcessor(size=size, image_mean=[0.4, 0.5, 0.6]).save_pretrained(folder)
    return folder
