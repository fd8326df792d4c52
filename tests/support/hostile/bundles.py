"""Bundles that were altered: with the hashes of before, or sealed anew."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, load, numpy_helper

from tests.support.hostile import content
from vitedge.core import catalog, manifest
from vitedge.core.bundle import Golden, seal
from vitedge.core.errors import VitedgeError
from vitedge.core.spec import Preprocess

SIDE_PX, CLASSES, IMAGES = 8, 3, 4
FILES = ("model.onnx", "golden.npz", "labels.txt", "manifest.json")


@dataclass(frozen=True)
class Base:
    """A whole bundle, and what it computes."""

    folder: Path
    images: NDArray[np.uint8]
    """(n, H, W, 3)."""
    outputs: NDArray[np.float32]
    """(n, classes)."""


def base(folder: Path) -> Base:
    """Seal a bundle of a Linear in `folder`, with its report and evidence."""
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (IMAGES, SIDE_PX, SIDE_PX, 3), np.uint8)
    weight = chance.normal(0, 0.01, (SIDE_PX * SIDE_PX * 3, CLASSES)).astype(np.float32)
    outputs = images.reshape(IMAGES, -1).astype(np.float32) @ weight
    folder.mkdir(parents=True)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["rows"], "flatten"),
        helper.make_node("MatMul", ["rows", "weight"], ["logits"], "head"),
    ]
    takes = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIDE_PX, SIDE_PX, 3])
    gives = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])
    stored = [numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph(nodes, "g", [takes], [gives], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    Golden(images, outputs, np.arange(IMAGES) % CLASSES).write(folder)
    (folder / "labels.txt").write_text("cat\ndog\nzebra\n")
    seal(folder, _manifest(folder.name))
    from vitedge.measure import api

    api.validate(folder)
    return Base(folder, images, _run(folder, images))


def _manifest(name: str) -> manifest.Manifest:
    tensor = manifest.Tensor
    return manifest.Manifest(
        schema=manifest.SCHEMA,
        name=name,
        precision="fp32",
        model=manifest.Model(
            name="small",
            source="small.onnx",
            task="classification",
            num_classes=CLASSES,
            weights_sha256="",
        ),
        inputs=(
            tensor(
                name="images", shape=("batch", SIDE_PX, SIDE_PX, 3), dtype="uint8", layout="NHWC"
            ),
        ),
        outputs=(tensor(name="logits", shape=("batch", CLASSES), dtype="float32", layout=""),),
        preprocessing=manifest.Preprocessing(
            host=Preprocess(height=SIDE_PX, width=SIDE_PX), graph=("cast to float32",)
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


def _run(bundle: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    from vitedge.core.bundle import open_bundle
    from vitedge.core.runtime import Session
    from vitedge.measure.accuracy.validation import run_all
    from vitedge.runtimes import open_session

    opened = open_bundle(bundle)
    opened.labels()
    opened.golden()
    session: Session
    with open_session(opened, threads=1) as session:
        outputs: NDArray[np.float32] = run_all(session, images)[0]
    return outputs


def attempt(
    alter: Callable[[random.Random, Path], object], chance: random.Random, base: Base, folder: Path
) -> str:
    """Alter a copy of `base` in `folder`, and use it.

    Raises AssertionError where that does harm.
    """
    from vitedge.gate import api as gate
    from vitedge.measure import api

    bundle, victim = folder / base.folder.name, folder / "victim"
    shutil.copytree(base.folder, bundle)
    victim.mkdir()
    (victim / "secret").write_bytes(b"canary" * 100)
    alter(chance, bundle)
    before = contents(victim), contents(bundle)
    outcome = "harmless"
    try:
        outputs = _run(bundle, base.images)
        assert np.array_equal(outputs, base.outputs), "it computes something else"
        report = api.validate(bundle)
        gate.gate([bundle], min_sqnr_db=1, max_size_mb=100)
        assert report.parity is not None
        if report.parity.broken:
            outcome = "refused"
    except VitedgeError as error:
        said(error)
        outcome = "refused"
    assert contents(victim) == before[0], "it wrote outside"
    after = contents(bundle)
    changed = {name for name in {*before[1], *after} if before[1].get(name) != after.get(name)}
    assert changed <= {"report.json"}, f"it changed {changed}"
    return outcome


def said(error: VitedgeError) -> None:
    """Raise AssertionError unless a refusal says something, of bearable length."""
    assert error.exit_code in (1, 2, 3, 4)
    assert 0 < len(error.what) < 100_000


def contents(folder: Path) -> dict[str, str]:
    """Every file below `folder`, by what it holds; links by where they lead."""
    held = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if path.is_symlink():
                held[name] = os.readlink(path)
            elif path.is_file() and path.stat().st_size < 2**26:
                held[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                held[name] = "other"
    return held


def _stated(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / "manifest.json").read_bytes()))


def _sealed(alter: Callable[[random.Random, Path, dict[str, Any]], object]) -> Any:
    """`alter`, and then hashes and sizes of the files as they are."""

    def altered(chance: random.Random, bundle: Path) -> None:
        stated = _stated(bundle)
        text = alter(chance, bundle, stated)
        for name in stated["files"] if isinstance(stated.get("files"), dict) else ():
            path = bundle / name if name and "\0" not in name and len(name) < 250 else bundle
            if path.is_file() and isinstance(stated.get("sizes"), dict):
                stated["files"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
                stated["sizes"][name] = path.stat().st_size
        if not isinstance(text, bytes):
            text = json.dumps(stated).encode()
        (bundle / "manifest.json").write_bytes(text)

    return altered


@_sealed
def _options(chance: random.Random, bundle: Path, stated: dict[str, Any]) -> None:
    victim = str(bundle.parent / "victim")
    options = {
        "ep.context_enable": "1",
        "ep.context_file_path": f"{victim}/context.onnx",
        "session.model_external_initializers_file_folder_path": victim,
        "session.optimized_model_external_initializers_file_name": f"{victim}/x.bin",
        "session.load_model_format": "ORT",
        "CACHE_DIR": victim,
        "optimized_model_filepath": f"{victim}/optimized.onnx",
        "session.intra_op.allow_spinning": chance.choice(("x" * 10**6, "", "0", "\0")),
        "profile_file_prefix": f"{victim}/profile",
        **{text: chance.choice(("1", text)) for text in content.TEXTS},
    }
    keys = chance.sample(list(options), chance.randrange(1, 4))
    stated["target"]["options"] = {key: options[key] for key in keys}


@_sealed
def _fields(chance: random.Random, bundle: Path, stated: dict[str, Any]) -> bytes:
    return content.document(chance, stated)


@_sealed
def _names(chance: random.Random, bundle: Path, stated: dict[str, Any]) -> None:
    name = chance.choice((*content.TEXTS, "../victim/secret", "x/model.onnx", "report.json"))
    match chance.randrange(5):
        case 0:
            stated["files"][name] = "0" * 64
            stated["sizes"][name] = 600
        case 1:
            del stated["files"][chance.choice(FILES[:3])]
        case 2:
            stated["sizes"][chance.choice(FILES[:3])] = chance.choice((-1, 0, 2**62, 1.5, None))
            stated.setdefault("files", {})["model.x"] = "0"
        case 3:
            stated["files"] |= {f"f{index}": "0" * 64 for index in range(20_000)}
        case _:
            (bundle / "model.bin").write_bytes(b"\x7fELF")
            (bundle / "model.onnx").replace(bundle / "model2.onnx")
            stated["files"]["model2.onnx"] = stated["files"].pop("model.onnx")


@_sealed
def _graph(chance: random.Random, bundle: Path, stated: dict[str, Any]) -> None:
    path = bundle / "model.onnx"
    path.write_bytes(content.graph(chance, load(path)))


@_sealed
def _golden(chance: random.Random, bundle: Path, stated: dict[str, Any]) -> None:
    path = bundle / "golden.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    path.write_bytes(content.npz(chance, arrays))


@_sealed
def _labels(chance: random.Random, bundle: Path, stated: dict[str, Any]) -> None:
    lines = [chance.choice(content.TEXTS) for _ in range(chance.choice((0, 1, 3, 3, 3, 1000)))]
    text = chance.choice(("\n", "\r\n", "\x0c", "\u2028")).join(lines).encode()
    more = chance.choice((b"", b"", b"\xff\xfe", b"\n" * 20_000_000))
    (bundle / "labels.txt").write_bytes(text + more)


def _damaged(chance: random.Random, bundle: Path) -> None:
    path = bundle / chance.choice(FILES)
    whole = path.read_bytes()
    damaged = content.bytes_of(chance, whole)
    path.write_bytes(damaged if damaged != whole else whole + b" {")


def _folder(chance: random.Random, bundle: Path) -> None:
    path, victim = bundle / chance.choice(FILES), bundle.parent / "victim" / "secret"
    match chance.randrange(9):
        case 0:
            (bundle / chance.choice(("evil.so", "model.bin", "x\n\x1b[31m"))).write_bytes(
                b"\x7fELF"
            )
        case 1:
            path.rename(bundle.parent / "moved")
            path.symlink_to("../moved")
        case 2:
            path.unlink()
            os.mkfifo(path)
        case 3:
            path.unlink()
        case 4:
            path.unlink()
            path.mkdir()
        case 5:
            os.truncate(path, 2**40)
        case 6:
            path.unlink()
            path.symlink_to(chance.choice(("/dev/zero", path.name, "/proc/self/mem")))
        case 7:
            made = bundle / chance.choice(("report.json", "evidence.npz", "signature.json"))
            made.unlink(missing_ok=True)
            made.symlink_to(victim)
        case _:
            os.mkfifo(bundle / "evidence.npz")


def _report(chance: random.Random, bundle: Path) -> None:
    path = bundle / "report.json"
    path.write_bytes(content.document(chance, json.loads(path.read_bytes())))


def _evidence(chance: random.Random, bundle: Path) -> None:
    about = {"schema": "vitedge.evidence/1", "metric": "top-1", "files": {}, "n": 4}
    header = np.frombuffer(content.document(chance, about), np.uint8)
    arrays = {"about": header, "artifact": np.ones(4, bool), "fp32": np.ones(4, bool)}
    (bundle / "evidence.npz").write_bytes(content.npz(chance, arrays))


SEALED = {
    "options of the target": _options,
    "fields of the manifest": _fields,
    "names in the manifest": _names,
    "model.onnx": _graph,
    "golden.npz": _golden,
    "labels.txt": _labels,
}
KINDS = {
    **SEALED,
    "damaged file": _damaged,
    "links, FIFOs, others": _folder,
    "report.json": _report,
    "evidence.npz": _evidence,
}
