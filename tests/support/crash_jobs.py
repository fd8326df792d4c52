"""What is run and broken off: export, qat, validate and gate --accept, of a small classifier."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import vitedge as ve
from tests.support import crash
from vitedge.core import report
from vitedge.core.bundle import bundles_in, open_bundle
from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess, Training
from vitedge.gate import baseline
from vitedge.measure.accuracy import evidence

SIDE, CLASSES = 16, ("a", "b", "c", "d")
INT8 = "small-onnxruntime-cpu-int8"
PREPROCESS = Preprocess(height=SIDE, width=SIDE)
TRAINING = Training(epochs=2, batch_size=4, held_out=0.25, checkpoint_steps=2, floats="fp32")


def prepare() -> object:
    """What jobs import, before they are forked."""
    import onnx
    import onnxruntime
    import onnxscript

    return onnx, onnxruntime, onnxscript


def template(folder: Path) -> None:
    """Images, the artifacts of an older model, and their baseline."""
    images = np.random.default_rng(0).integers(0, 256, (24, SIDE, SIDE, 3), np.uint8)
    labels = np.arange(24) % len(CLASSES)
    np.savez(folder / "calib.npz", images=images[:8], labels=labels[:8])
    np.savez(folder / "eval.npz", images=images[8:], labels=labels[8:])
    np.savez(folder / "train.npz", images=images[8:])
    _export(folder, seed=0)
    _validate(folder)
    _accept(folder)


def _export(folder: Path, seed: int = 1) -> None:
    ve.export(
        _model(seed),
        targets=["onnxruntime-cpu"],
        precision="int8",
        only=True,
        calib_data=folder / "calib.npz",
        output=folder / "artifacts",
        duration_s=0,
        force=True,
    )


def _qat(folder: Path) -> None:
    """Train; where a run was broken off, go on with it."""
    resume = any((folder / "artifacts").glob(".*.qat"))
    ve.qat(
        _model(seed=1),
        target="onnxruntime-cpu",
        train_data=str(folder / "train.npz"),
        training=TRAINING,
        calib_data=str(folder / "calib.npz"),
        output=folder / "artifacts",
        duration_s=0,
        resume=resume,
        force=True,
    )


def _model(seed: int) -> ve.ReferenceModel:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 64),
        nn.GELU(),
        nn.Linear(64, len(CLASSES)),
    )
    return ve.load(module, preprocess=PREPROCESS, labels=CLASSES, name="small")


def _validate(folder: Path) -> None:
    ve.validate(folder / "artifacts" / INT8, folder / "eval.npz")


def _accept(folder: Path) -> None:
    limits = {"min_sqnr_db": 1.0}
    ve.gate([folder / "artifacts" / INT8], baseline=folder / "baseline.json", accept=True, **limits)


JOBS: dict[str, Callable[[Path], None]] = {
    "export": _export,
    "qat": _qat,
    "validate": _validate,
    "accept": _accept,
}


def trace(folder: str, name: str) -> dict[str, Any]:
    """The sites of a job, and the models that it leaves."""
    path = Path(folder)
    sites = crash.sites(path, lambda: JOBS[name](path))
    return {"sites": [list(site) for site in sites], "models": models(path)}


def strike(folder: str, name: str, site: list[str], how: str) -> dict[str, Any]:
    """Run a job and break it off."""
    path = Path(folder)
    return {"ended": crash.hit(path, lambda: JOBS[name](path), crash.Site(*site), how)}


def models(path: Path) -> dict[str, dict[str, str]]:
    """The hashes of each bundle's model, all of them verified, their reports and evidence read."""
    hashes = {}
    for place in bundles_in(path / "artifacts"):
        bundle = open_bundle(place)
        report.of_bundle(bundle)
        evidence.read(place)
        hashes[place.name] = bundle.model_files
    return hashes


def examine(folder: str, name: str, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What is wrong with what a job has left, and with what the next run makes of it."""
    path, wrong = Path(folder), []
    left = models(path)
    if left.keys() != old.keys():
        wrong.append(f"{sorted(left)} is left of {sorted(old)}")
    wrong += [f"{n} is neither" for n in left if left[n] not in (old.get(n), new.get(n))]
    mixed = left not in (old, new)
    try:
        open_bundle(path / "artifacts" / INT8).reference()
    except InputError:
        wrong += [] if mixed else ["an INT8 that does not know its FP32"]
    else:
        wrong += ["an INT8 beside another FP32"] if mixed else []
    baseline.read(path / "baseline.json")
    JOBS[name](path)
    if (again := models(path)) != new:
        wrong.append(f"the next run left {again}")
    open_bundle(path / "artifacts" / INT8).reference()
    baseline.read(path / "baseline.json")
    stray = [p for p in path.rglob(".*") if p.is_dir() or not p.name.startswith(".report")]
    wrong += [f"{p.relative_to(path)} stayed" for p in stray]
    return {"wrong": wrong}


def copy(source: Path, place: Path) -> str:
    """A folder to break."""
    shutil.copytree(source, place)
    return str(place)
