"""The recommendation agrees with the figures beside it, and goes when they do."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.support.machine import ONNXRUNTIME
from vitedge.core import catalog, report
from vitedge.core.bundle import open_bundle
from vitedge.core.machine import describe_machine
from vitedge.core.progress import Steps
from vitedge.export.job import export
from vitedge.export.request import ExportRequest
from vitedge.measure.latency.bench import bench_bundles
from vitedge.measure.latency.request import BenchRequest
from vitedge.measure.recommendation import candidates_of, recommend
from vitedge.models.sources import ModelRequest

QUIET = Steps(None)
SHORT_S = 0.1


@pytest.fixture(scope="module")
def export_digits(onnx_model, held_out, tmp_path_factory):
    """Export `digits` from its ONNX file, with few images and as little timing as it takes."""
    data = tmp_path_factory.mktemp("data") / "some.npz"
    np.savez(data, images=held_out.images[:40], labels=held_out.labels[:40])
    shipped = catalog.data_folder("targets") / f"{ONNXRUNTIME}.toml"
    target = data.with_name(shipped.name)  # with Arm's, FP16 would be exported beside INT8
    target.write_text(shipped.read_text().replace("fp16_kernels = true", ""))

    def run(**changes):
        request = ExportRequest(
            ModelRequest(str(onnx_model)),
            (str(target),),
            "int8",
            calib_data="digits",
            num_samples=8,
            eval_data=str(data),
            max_drop_pp=2.0,
            duration_s=SHORT_S,
            output=tmp_path_factory.mktemp("out"),
        )
        return export(replace(request, **changes), QUIET)

    return run


@pytest.fixture(scope="module")
def timed(export_digits):
    """FP32 and INT8 for ONNX Runtime. Copy what you change."""
    return export_digits()


@pytest.fixture
def copied(timed, tmp_path):
    paths = [tmp_path / artifact.bundle.path.name for artifact in timed]
    for artifact, path in zip(timed, paths, strict=True):
        shutil.copytree(artifact.bundle.path, path)
    return paths


def stored(path):
    return report.read(path / "report.json")


def test_every_bundle_carries_the_recommendation_and_its_figures_are_those_measured(timed):
    fp32, int8 = (stored(artifact.bundle.path) for artifact in timed)
    recommendation = int8.recommendation
    assert timed[0].report.recommendation == timed[1].report.recommendation
    assert timed[1].report.recommendation.reason == recommendation.reason
    assert fp32.recommendation == recommendation
    assert recommendation.max_drop_pp == 2.0 and recommendation.reason

    first, second = recommendation.candidates
    assert (first.precision, second.precision) == ("fp32", "int8")
    assert first.p50_ms == int8.latency.fp32.p50_ms == fp32.latency.p50_ms
    assert (first.speedup, first.speedup_ci) == (1, (1, 1))
    assert first.bytes == fp32.size.bytes
    for key, section in {
        "p50_ms": int8.latency,
        "speedup": int8.latency,
        "speedup_ci": int8.latency,
        "drop_pp": int8.accuracy,
        "drop_ci_pp": int8.accuracy,
        "sqnr_db": int8.numerics,
        "bytes": int8.size,
    }.items():
        assert getattr(second, key) == getattr(section, key), key

    low, _ = int8.latency.speedup_ci
    assert recommendation.precision == ("int8" if low > 1 else "fp32")
    assert ("faster than FP32" in recommendation.reason) == (low > 1)


@pytest.mark.parametrize("changes", [{"duration_s": 0.0}, {"precision": "fp32"}])
def test_nothing_timed_is_nothing_recommended(export_digits, changes):
    unasked = {"calib_data": "", "num_samples": None, "max_drop_pp": None}
    for artifact in export_digits(**changes, **(unasked if "precision" in changes else {})):
        assert artifact.report.recommendation is None and artifact.report.latency is None
        assert artifact.report.accuracy is not None


def test_a_target_of_another_machine_is_not_timed(export_digits):
    host = describe_machine(threads=0)
    known = catalog.targets().values()
    cpus = [target for target in known if target.runtime in ("onnxruntime", "openvino")]
    elsewhere = next(target.name for target in cpus if not catalog.runs_on(target, host))
    artifacts = export_digits(targets=(elsewhere,), max_drop_pp=None)
    for artifact in artifacts:
        assert artifact.report.recommendation is None and artifact.report.latency is None
    notes = [note for artifact in artifacts for note in artifact.notes()]
    lower = sum(artifact.bundle.manifest.precision != "fp32" for artifact in artifacts)
    assert sum("run 'vitedge bench' on the device" in note for note in notes) == lower > 0


@pytest.mark.parametrize("which", [slice(1, 2), slice(0, 2)], ids=["INT8", "both"])
def test_bench_refreshes_it_and_keeps_the_loss_allowed(copied, which):
    before = stored(copied[1]).latency
    bench_bundles([open_bundle(path) for path in copied[which]], QUIET, BenchRequest(SHORT_S))
    reports = [stored(path) for path in copied[which]]
    latest = reports[-1]
    for timed_again in reports:
        assert timed_again.recommendation.max_drop_pp == 2.0
        _, int8 = timed_again.recommendation.candidates
        assert int8.p50_ms == latest.latency.p50_ms != before.p50_ms
    recommendation = recommend(candidates_of(reports), 2.0)
    assert recommendation.precision == latest.recommendation.precision
    assert recommendation.reason == latest.recommendation.reason


def test_what_is_timed_without_fp32_loses_it(copied):
    shutil.rmtree(copied[0])
    (latest,), _ = bench_bundles([open_bundle(copied[1])], QUIET, BenchRequest(SHORT_S))
    assert latest.latency.fp32 is None
    assert latest.recommendation is None
    assert latest.accuracy is not None
