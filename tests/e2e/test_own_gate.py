"""Our own CI's gate, `make gate`: what is unchanged passes, what lost 5 dB or a point does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.machine import HERE, ONNXRUNTIME
from tests.support.sabotage import logit_raised, outputs_times, sabotage
from vitedge.core.bundle import open_bundle
from vitedge.measure.accuracy.validation import run_all
from vitedge.runtimes import open_session

ROOT = Path(__file__).parents[2]
LOST_DB, LOST = 5.0, 8
"""Of 719 images: 1.1 points."""

pytestmark = pytest.mark.skipif(
    ONNXRUNTIME != "onnxruntime-cpu", reason=f"the baseline is of x86, and this is {HERE.machine}"
)


@pytest.fixture
def checkout(tmp_path, bundles):
    """The configuration and the baseline as CI has them, and FP32."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    fp32 = bundles["onnxruntime", "fp32"]
    shutil.copytree(fp32, tmp_path / "artifacts" / "gate" / fp32.name)
    return tmp_path


@pytest.fixture
def gate(checkout, vitedge):
    """Validate and judge a bundle there."""

    def judge(bundle, code):
        again = ("--data", "digits")
        return vitedge("gate", bundle, "--config", ".ci/vitedge.toml", *again, code=code).stdout

    return judge


@pytest.fixture
def int8(bundles):
    return bundles["onnxruntime", "int8"]


@pytest.fixture
def broken(checkout, int8):
    """INT8 with its graph changed, in CI's place."""
    return lambda how: sabotage(int8, checkout / "artifacts" / "gate" / int8.name, how).path


def unchanged(checkout, int8):
    return shutil.copytree(int8, checkout / "artifacts" / "gate" / int8.name)


def test_an_unchanged_artifact_passes(checkout, int8, gate, monkeypatch):
    monkeypatch.chdir(checkout)
    said = gate(unchanged(checkout, int8), code=0)
    assert "gate: passed" in said and "against .ci/baseline.npz" in said


@pytest.mark.heavy
def test_20_runs_of_an_unchanged_artifact_pass(checkout, int8, gate, monkeypatch):
    monkeypatch.chdir(checkout)
    path = unchanged(checkout, int8)
    for _ in range(20):
        assert "gate: passed" in gate(path, code=0)


def test_5_db_less_fail(checkout, int8, gate, broken, monkeypatch):
    monkeypatch.chdir(checkout)
    lost = 10 ** ((LOST_DB - before_db(int8)) / 10) - 10 ** (-before_db(int8) / 10)
    said = gate(broken(outputs_times(1 + lost**0.5)), code=1)
    assert "gate: failed" in said
    (row,) = [line for line in said.splitlines() if " SQNR " in line]
    measured = float(row.split("SQNR")[1].split()[0])
    assert "failed" in row and measured == pytest.approx(before_db(int8) - LOST_DB, abs=0.3)


def test_a_point_less_fails(checkout, int8, gate, broken, held_out, monkeypatch):
    monkeypatch.chdir(checkout)
    with open_session(open_bundle(int8)) as session:
        (logits,) = run_all(session, held_out.images)
    raised = np.eye(10, dtype=np.float32)[3]

    def right(by):
        return int(((logits + by * raised).argmax(1) == held_out.labels).sum())

    shifts = np.arange(0, 40, 0.02)
    by = next(by for by in shifts if right(0) - right(by) >= LOST)
    lost = right(0) - right(by)
    said = gate(broken(logit_raised(3, by)), code=1)
    assert "gate: failed" in said
    rows = [line for line in said.splitlines() if "against .ci/baseline" in line]
    row = next(row for row in rows if " drop " in row)
    assert f"{100 * lost / 719:.4g} pp" in row and "passed" not in row


def before_db(bundle):
    from vitedge.core import report

    return report.of_bundle(open_bundle(bundle)).numerics.sqnr_db


def test_what_ci_runs_gates_our_own_artifacts():
    assert "make gate" in (ROOT / ".ci" / "run").read_text()
    settings = (ROOT / ".ci" / "vitedge.toml").read_text()
    makefile = (ROOT / "Makefile").read_text()
    assert "for model in digits shapes" in makefile
    for model in ("digits", "shapes"):
        assert f"../artifacts/gate/{model}-onnxruntime-cpu-int8" in settings
