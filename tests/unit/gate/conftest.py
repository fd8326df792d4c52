"""Reports and evidence as `validate` and `bench` write them, without a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from vitedge.core import measurements, report
from vitedge.core.progress import SILENT
from vitedge.gate import api
from vitedge.measure.accuracy import evidence
from vitedge.measure.accuracy.evidence import About, PerImage

N = 1000
CLASSES = 10
Write = Callable[..., Path]


def per_image(lost, gained, n=N, seed=0):
    """FP32 is right on 800 of 1,000; the artifact errs on `lost` of these, mends `gained`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n).astype(np.int32)
    wrong = (labels + 1) % CLASSES
    place = np.arange(n)
    fp32 = np.where(place < 0.8 * n, labels, wrong)
    artifact = np.where(place < lost, wrong, fp32)
    artifact = np.where(place >= n - gained, labels, artifact)
    return PerImage(
        digests=rng.integers(0, 2**63, n).astype(np.uint64),
        labels=labels,
        fp32=fp32.astype(np.int32),
        artifact=artifact.astype(np.int32),
        worst=np.arange(min(lost, 24)),
        thumbnails=np.zeros((min(lost, 24), 8, 8, 3), np.uint8),
    )


KEPT = per_image(lost=2, gained=1)


def sections(lost=2, gained=1, n=N):
    """A report that has everything."""
    drop = 100 * (lost - gained) / n
    return {
        **{"schema": report.SCHEMA, "artifact": "vit-int8", "model": "vit"},
        **{"target": "onnxruntime-cpu", "precision": "int8", "files": {"model.onnx": "a" * 64}},
        "accuracy": report.Accuracy(
            **{"metric": "top1", "fp32": 0.8, "artifact": 0.8 - drop / 100, "drop_pp": drop},
            **{"drop_ci_pp": (drop - 0.5, drop + 0.5), "confidence": 0.95, "n": n},
            **{"agreement": 1 - (lost + gained) / n, "lost": lost, "gained": gained},
            **{"data": "pictures", "also": {}, "skipped": {}},
        ),
        "numerics": report.Numerics(
            **{"sqnr_db": 35.0, "max_abs_error": 0.1, "cosine": 0.99, "n": n},
            token_sqnr_db=report.TokenSqnr(worst=21.5, p5=30.0),
            data="pictures",
        ),
        "latency": measurements.Latency(
            **{"p50_ms": 1.0, "p90_ms": 1.81, "p99_ms": None, "mean_ms": 1.1, "n": 400},
            distribution=measurements.Distribution(
                quantiles_ms=tuple(1 + 0.009 * k for k in range(101)), series=()
            ),
            **{"batch": 1, "against": "fp32", "fp32": None, "other": None, "rounds": 20},
            **{"speedup": 1.5, "speedup_ci": (1.4, 1.6), "speedup_log_se": 0.03},
            p90_share_se=0.01,
        ),
        "size": report.Size(bytes=5_000_000, fp32_bytes=20_000_000),
        "memory": measurements.Memory(peak_rss_bytes=90_000_000, device_bytes=None),
        "conditions": measurements.Conditions(
            **{"fingerprint": "0123456789ab", "measured_at": "", "noise_percent": 1.0},
            **{"other_cores": None, "steal_percent": None, "frequency_mhz": None, "warnings": ()},
        ),
    }


def changed(section, **changes):
    """One section of such a report, in part otherwise."""
    return {section: msgspec.structs.replace(sections()[section], **changes)}


ELSEWHERE = changed("conditions", fingerprint="ba9876543210")
"""Timed on another machine."""


def write_report(folder, kept=None, preprocessing="p", **changes):
    """Write a report, with what `changes` say; with `kept`, the evidence beside it."""
    folder.mkdir(exist_ok=True)
    content = msgspec.to_builtins(sections()) | msgspec.to_builtins(changes)
    if kept is not None:
        right, right_fp32 = kept.artifact == kept.labels, kept.fp32 == kept.labels
        lost, gained = int((right_fp32 & ~right).sum()), int((~right_fp32 & right).sum())
        accuracy = sections(lost, gained, len(kept.labels))["accuracy"]
        content["accuracy"] = msgspec.to_builtins(accuracy)
        about = About(
            metric="top1", data="pictures", files=content["files"], preprocessing=preprocessing
        )
        evidence.save(folder / "evidence.npz", about, evidence.arrays(kept))
    path = folder / "report.json"
    path.write_bytes(msgspec.json.encode(content))
    return path


@pytest.fixture
def write(tmp_path):
    """Write a report into a folder of its `name`."""
    return lambda name="vit", **content: write_report(tmp_path / name, **content)


def gate(*sources, confidence=None, baseline=None, accept=False, **limits):
    """One run of the gate on finished reports."""
    asked = {"confidence": confidence, "baseline": baseline, "accept": accept}
    return api.gate(sources, **asked, progress=SILENT, **limits)
