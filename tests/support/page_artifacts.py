"""What a gate found, made up: answers, per-image evidence, manifests, as a page gets them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.support import verdicts
from tests.support.page_reports import measured
from vitedge.core import catalog, manifest
from vitedge.core.spec import Calibration, Preprocess
from vitedge.gate.verdict import Judged
from vitedge.measure.accuracy.evidence import PerImage
from vitedge.show.page import gate
from vitedge.show.page.artifacts import ArtifactFiles

CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def per_image(images, changed, classes=10, side_px=32):
    """`changed` of `images` get another class; 24 thumbnails of noise on a gradient."""
    rng = np.random.default_rng(images)
    labels = rng.integers(0, classes, images)
    fp32 = np.where(rng.random(images) < 0.84, labels, rng.integers(0, classes, images))
    artifact = fp32.copy()
    which = rng.choice(images, changed, replace=False)
    artifact[which] = (fp32[which] + 1 + rng.geometric(0.5, changed)) % classes
    ramp = np.linspace(0, 190, side_px)[None, :, None, None] * np.ones((24, 1, side_px, 3))
    noise = rng.integers(0, 60, (24, side_px, side_px, 3))
    return PerImage(
        digests=np.arange(images, dtype=np.uint64),
        labels=labels.astype(np.int32),
        fp32=fp32.astype(np.uint16),
        artifact=artifact.astype(np.uint16),
        worst=np.sort(which[:24]).astype(np.int64),
        thumbnails=(ramp + noise).astype(np.uint8)[: min(24, changed)],
    )


def layer(depth, node=""):
    """One operator that loses a little more than the one before."""
    in_int8 = depth % 4 != 3
    figures = manifest.Figures(
        activation_scales=(0.02,) if in_int8 else (),
        weight_scales=(0.001, 0.004) if in_int8 else None,
        clipped_share=0.001 if in_int8 else None,
        sqnr_db=42 - 5 * np.sin(depth) if in_int8 else None,
        accumulated_sqnr_db=46 - depth / 10 - 3 * np.cos(depth),
        macs=1000,
    )
    return manifest.Layer(
        node=node or f"blocks.{depth // 6}.op{depth % 6}/MatMul",
        **{"op": "MatMul", "role": "linear", "quantized": in_int8, "why": "constant weights"},
        figures=figures,
    )


def manifest_of(name, layers=50):
    """The manifest of an INT8 artifact."""
    recipe = Calibration(
        name="default", description="", num_samples=512, activations="mse", weights="mse"
    )
    used = manifest.CalibrationSet(
        **{"recipe": recipe, "source": "images/train", "images": 512, "digest": "ab" * 32},
        image_digests=(),
        skipped={},
    )
    return manifest.Manifest(
        **{"schema": manifest.SCHEMA, "name": name, "precision": "int8", "reference": None},
        **{"accuracy": "measurable", "accuracy_note": "", "tools": {"onnxruntime": "1.31.1"}},
        model=manifest.Model(
            **{
                "name": "vit_small_patch16_224",
                "source": "timm:vit_small_patch16_224",
                "task": "classification",
            },
            num_classes=10,
            weights_sha256="12" * 32,
        ),
        inputs=(
            manifest.Tensor(name="images", shape=(1, 224, 224, 3), dtype="uint8", layout="NHWC"),
        ),
        outputs=(),
        preprocessing=manifest.Preprocessing(
            host=Preprocess(height=224, width=224), graph=("cast to float32", "normalise")
        ),
        target=catalog.targets()["onnxruntime-cpu"],
        quantization=manifest.QuantizationRecord(
            layers=tuple(layer(depth) for depth in range(1, layers + 1)),
            calibration=used,
            settled=manifest.Settled(equalize="off", activations="mse", tried=()),
            equalization=manifest.Equalization(pairs=(), max_rel_error=0.0),
        ),
        parity=manifest.ExportParity(max_abs_error=1e-6, max_rel_error=2e-7),
        files={"model.onnx": "cd" * 32, "golden.npz": "ef" * 32},
        sizes={"model.onnx": 1, "golden.npz": 1},
    )


def check(metric, answer, value, **parts):
    """One limit."""
    known = {"interval": None, "reason": f"it {answer}"}
    return verdicts.check(metric, answer=answer, value=value, **{**known, **parts})


def judged(name, answer, drop_pp):
    """An artifact with four limits, the first of which decides."""
    reasons = {
        "passed": "the bound of the drop lies under the limit",
        "failed": "the drop is above the limit at this confidence",
        "inconclusive": "the limit lies inside the interval: more images would tell",
    }
    drop = check(
        *("drop_pp", answer, drop_pp),
        interval=(drop_pp - 0.3, drop_pp + 0.3),
        reason=reasons[answer],
        needed=17_300 if answer == "inconclusive" else None,
    )
    others = (
        check("speedup", "passed", 1.75, bound="min", limit=1.5, interval=(1.67, 1.83)),
        check("p90_ms", "passed", 1.56, limit=2.0),
        check("size_bytes", "passed", 22e6, limit=25e6),
    )
    return verdicts.judged(drop, *others, artifact=name, model="vit_small_patch16_224")


@dataclass(frozen=True)
class Shown:
    """One artifact of a gate."""

    judged: Judged
    files: ArtifactFiles


def shown(name, answer, drop_pp, images=5000, **parts):
    """An artifact with everything there is to show of it; `parts` are of its files."""
    known = {
        "report": measured(name, "int8", 1.2 + drop_pp / 3, 0.84 - drop_pp / 100),
        "manifest": manifest_of(name),
        "labels": CLASSES,
        "per_image": per_image(images, images // 60),
    }
    return Shown(judged(name, answer, drop_pp), ArtifactFiles(**{**known, **parts}))


def three():
    """One artifact of each answer."""
    return [
        shown("vit_small_patch16_224-onnxruntime-cpu-int8", "passed", 0.1),
        shown("vit_small_patch16_224-openvino-cpu-int8", "inconclusive", 0.4),
        shown("vit_small_patch16_224-tensorrt-int8", "failed", 1.3),
    ]


def page(artifacts, command="vitedge gate"):
    """The page of a gate that judged them."""
    decided = verdicts.verdict(*(artifact.judged for artifact in artifacts))
    files = {artifact.judged.path: artifact.files for artifact in artifacts}
    return gate.render(decided, files, command)
