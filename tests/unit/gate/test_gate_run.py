"""From paths to a verdict: what is refused, what is compared, and what a baseline may speak for."""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from tests.support import jetsons
from tests.unit.core.test_host import PI
from tests.unit.gate.conftest import ELSEWHERE, KEPT, N, changed, gate, per_image
from vitedge.core.errors import InputError
from vitedge.core.host import fingerprint
from vitedge.core.jetson import jetson
from vitedge.core.machine import describe_machine
from vitedge.core.report import Parity
from vitedge.gate.compare import compare

RELABELLED = replace(KEPT, labels=KEPT.labels[::-1].copy())


def test_the_worst_of_several_artifacts_decides(write):
    good, slow = write("good"), write("slow", **changed("latency", speedup=0.5))
    verdict = gate(good, slow, max_drop_pp=1, min_speedup=1.2)
    assert [judged.answer for judged in verdict.judged] == ["passed", "failed"]
    assert (verdict.answer, verdict.confidence) == ("failed", 0.95)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": "vitedge.report/2"}, "not of schema"),
        ({"accuracy": {"metric": "top1", "n": "many"}}, r"\$\.accuracy"),
        (changed("accuracy", n=0), r"\$\.accuracy"),
        (changed("numerics", n=0), r"\$\.numerics"),
        (changed("latency", speedup_log_se=1e4), r"\$\.latency"),
        (changed("latency", p90_share_se=-1.0), r"\$\.latency"),
        ({"latency": {"distribution": {"quantiles_ms": [], "series": []}}}, r"\$\.latency"),
    ],
)
def test_a_report_that_nobody_writes_is_refused(write, changes, said):
    path = write(**changes)
    with pytest.raises(InputError, match=said) as raised:
        gate(path, max_drop_pp=1)
    assert str(path) in raised.value.what and raised.value.fix


def test_what_is_no_report_is_refused(tmp_path):
    path = tmp_path / "report.json"
    with pytest.raises(InputError, match="no artifact and no report at"):
        gate(path, max_drop_pp=1)
    for content in (b"", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"report\.json cannot be read"):
            gate(path, max_drop_pp=1)


@pytest.fixture
def accepted(write, tmp_path):
    """A baseline of 1,000 images, timed on machine 0123456789ab."""
    file = tmp_path / "baseline.npz"
    verdict = gate(write("accepted", kept=KEPT), max_drop_pp=2, baseline=file, accept=True)
    assert verdict.answer == "passed"
    return file


def since(path, baseline, **limit):
    """The check of what was lost since."""
    (check,) = gate(path, baseline=baseline, **limit).judged[-1].checks
    return check


def test_an_accepted_artifact_is_compared_image_by_image(write, accepted):
    judgements = gate(write(kept=KEPT), max_drop_pp=0.31, baseline=accepted).judged
    assert [(judgement.against, judgement.answer) for judgement in judgements] == [
        ("fp32", "inconclusive"),
        (str(accepted), "passed"),  # nothing changed since
    ]
    check = since(write(kept=per_image(lost=40, gained=1)), accepted, max_drop_pp=2)
    assert (check.value, check.answer) == (pytest.approx(3.8), "failed")


def test_images_are_paired_in_whatever_order_they_came(write, accepted):
    order = np.random.default_rng(1).permutation(N)
    arrays = {name: getattr(KEPT, name) for name in ("digests", "labels", "fp32", "artifact")}
    turned = replace(KEPT, **{name: array[order] for name, array in arrays.items()})
    check = since(write(kept=turned), accepted, max_drop_pp=0.31)
    assert (check.value, check.answer) == (0, "passed")


def test_accepting_one_keeps_the_others(write, accepted):
    first, second = write(kept=KEPT), write("two", kept=per_image(3, 1), model="deit")
    gate(second, max_drop_pp=2, baseline=accepted, accept=True)
    assert gate(first, second, max_drop_pp=2, baseline=accepted).answer == "passed"
    with pytest.raises(InputError, match="same model, target and precision"):
        again = write("again", kept=KEPT)
        gate(first, again, max_drop_pp=2, baseline=accepted, accept=True)


@pytest.mark.parametrize(
    ("artifact", "limits", "said"),
    [
        ({"kept": per_image(2, 1, seed=5, n=900)}, {"max_drop_pp": 2}, "images .* 1,000 and 900"),
        ({"kept": RELABELLED}, {"max_drop_pp": 90}, "label the same images differently"),
        ({"preprocessing": "q"}, {"max_drop_pp": 2}, "other preprocessing"),
        ({"model": "deit"}, {"max_drop_pp": 2}, "has no deit onnxruntime-cpu int8"),
        (ELSEWHERE, {"max_drop_pp": 2, "max_slowdown": 1.1}, "another machine"),
        (changed("latency", batch=8), {"max_slowdown": 1.1}, "at batch 1, and timed at 8"),
    ],
)
def test_a_baseline_of_something_else_cannot_speak(write, accepted, artifact, limits, said):
    with pytest.raises(InputError, match=said) as raised:
        gate(write(**({"kept": KEPT} | artifact)), baseline=accepted, **limits)
    assert raised.value.fix


def of_jetson(root):
    """Timed on a Jetson with the files under `root`."""
    machine = msgspec.structs.replace(PI, jetson=jetson(root))
    return {"host": machine, **changed("conditions", fingerprint=fingerprint(machine))}


def test_latency_of_another_power_mode_is_not_compared(tree, write, tmp_path):
    locked = of_jetson(tree(jetsons.ORIN_NANO | jetsons.ORIN_LOCKED))
    capped = of_jetson(tree(jetsons.ORIN_NANO | {"var/lib/nvpmodel/status": "pmode:0003"}))
    before, now = write("before", kept=KEPT, **locked), write("now", kept=KEPT, **capped)
    file = tmp_path / "baseline.npz"
    gate(before, max_drop_pp=2, baseline=file, accept=True)
    assert gate(before, max_slowdown=1.1, baseline=file).answer == "passed"
    with pytest.raises(InputError, match=r"in power mode MAXN_SUPER .* timed in power mode 7W"):
        gate(now, max_slowdown=1.1, baseline=file)
    comparison = compare(before, now)
    assert comparison.latency is None and "power mode 7W" in comparison.notes[0]


def test_a_baseline_of_another_machine_speaks_for_accuracy(write, accepted):
    moved = write(kept=KEPT, **ELSEWHERE)
    assert gate(moved, max_drop_pp=2, baseline=accepted).answer == "passed"


def test_latency_is_compared_with_a_baseline_of_the_same_machine(write, accepted):
    check = since(write(kept=KEPT), accepted, max_slowdown=1.1)
    assert (check.metric, check.value, check.answer) == ("slowdown", 1.0, "passed")
    slower = write(kept=KEPT, **changed("latency", speedup=1.1))
    check = since(slower, accepted, max_slowdown=1.1)
    assert (check.value, check.answer) == (pytest.approx(1.5 / 1.1), "failed")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"latency": None}, "run vitedge bench vit-int8"),
        (changed("latency", against=None), "it was not timed in turn with FP32"),
        # of the last validation, which need not have timed it
        ({"conditions": None, "host": describe_machine(2)}, "not known where it was timed"),
    ],
)
def test_latency_that_was_not_timed_alike_fails(write, accepted, changes, why):
    check = since(write(kept=KEPT, **changes), accepted, max_slowdown=1.1)
    assert check.answer == "failed" and why in check.reason


def test_a_baseline_of_the_future_is_refused_before_anything_else(write, accepted, tmp_path):
    with np.load(accepted) as file:
        named = {name: file[name] for name in file.files}
    header = named["about"].tobytes().replace(b"vitedge.baseline/1", b"vitedge.baseline/2")
    future = tmp_path / "future.npz"
    np.savez(future, **(named | {"about": np.frombuffer(header, np.uint8)}))
    for accept in (False, True):
        with pytest.raises(InputError, match=r"baseline/2"):
            gate(write(), max_drop_pp=2, baseline=future, accept=accept)


@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_a_damaged_baseline_is_refused(write, accepted, damage):
    if damage == "missing":
        accepted.unlink()
    else:
        whole = accepted.read_bytes()
        accepted.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"not a baseline")
    with pytest.raises(InputError, match=r"baseline\.npz"):
        gate(write(kept=KEPT), max_drop_pp=2, baseline=accepted)


def test_a_report_without_evidence_cannot_be_accepted_or_compared(write, accepted):
    bare = write("bare")
    with pytest.raises(InputError, match="no evidence"):
        gate(bare, max_drop_pp=2, baseline=accepted, accept=True)
    check = since(bare, accepted, max_drop_pp=2)
    assert check.answer == "failed" and "no evidence.npz" in check.reason


def test_evidence_of_other_bytes_is_not_believed(write, accepted):
    path = write(kept=per_image(0, 0))
    write(files={"model.onnx": "b" * 64})  # exported again, and not validated
    assert since(path, accepted, max_drop_pp=2).answer == "failed"


def test_an_artifact_that_lost_parity_is_not_compared_with_a_baseline(write, accepted):
    parity = Parity(n=8, numerics=None, agreement=None, at_export_db=None, broken="NaN")
    verdict = gate(write(kept=KEPT, parity=parity), max_drop_pp=9, baseline=accepted)
    assert [judged.answer for judged in verdict.judged] == ["failed", "failed"]


def test_no_limit_and_no_baseline_is_dropped_in_silence(write, accepted, tmp_path):
    path, new = write(kept=KEPT), tmp_path / "new.npz"
    with pytest.raises(InputError, match="nothing to pass"):
        gate(path)
    with pytest.raises(InputError, match="nothing to pass"):
        gate(path, max_slowdown=2, baseline=new, accept=True)
    with pytest.raises(InputError, match="`max_slowdown` is over a baseline"):
        gate(path, max_slowdown=2)
    with pytest.raises(InputError, match="nowhere to accept"):
        gate(path, max_drop_pp=2, accept=True)
    with pytest.raises(InputError, match="`baseline`"):
        gate(path, max_drop_pp=2, baseline=tmp_path / "nowhere" / "b", accept=True)
    with pytest.raises(InputError, match="not there yet"):
        gate(path, max_drop_pp=2, max_slowdown=1.1, baseline=new, accept=True)
    with pytest.raises(InputError, match="no limit is over the baseline"):
        gate(path, min_top1=0.5, baseline=accepted)
    with pytest.raises(InputError, match="has no deit"):
        other = write(kept=KEPT, model="deit")
        gate(other, max_drop_pp=2, max_slowdown=1.1, baseline=accepted, accept=True)


def test_what_replaces_an_accepted_artifact_must_pass_against_it(write, tmp_path):
    file = tmp_path / "baseline.npz"

    def accept(lost, gained, **limits):
        """The answers, and whether it was accepted."""
        before = file.read_bytes() if file.exists() else b""
        path = write(kept=per_image(lost, gained), **changed("latency", speedup=1.5 - lost / 50))
        verdict = gate(path, max_drop_pp=3.5, baseline=file, accept=True, **limits)
        after = file.read_bytes() if file.exists() else b""
        return [judged.answer for judged in verdict.judged], after != before

    assert accept(lost=60, gained=0) == (["failed"], False)
    assert accept(lost=0, gained=30) == (["passed"], True)
    assert accept(lost=20, gained=0) == (["passed", "failed"], False)
    assert accept(lost=5, gained=30) == (["passed", "passed"], True)
    assert accept(lost=20, gained=30, max_slowdown=1.1) == (["passed", "failed"], False)


def test_two_artifacts_are_compared_on_the_same_images(write):
    first = write("first", kept=KEPT)
    second = write("second", kept=per_image(22, 1), **changed("latency", speedup=3.0))
    comparison = compare(first, second)
    assert comparison.accuracy.drop_pp == pytest.approx(2.0)
    assert comparison.accuracy.drop_ci_pp[0] > 1 and comparison.accuracy.n == N
    assert comparison.accuracy.agreement == pytest.approx(0.98)
    assert comparison.latency.speedup == pytest.approx(2.0)
    assert 1.7 < comparison.latency.speedup_ci[0] < 2 < comparison.latency.speedup_ci[1] < 2.3
    assert comparison.notes == ()


@pytest.mark.parametrize(
    ("artifact", "notes"),
    [
        (
            {"kept": per_image(2, 1, seed=5)} | ELSEWHERE,
            ("accuracy is not paired: .* other images", "different machines"),
        ),
        ({}, ("has no evidence of each image",)),
        ({"kept": KEPT} | changed("latency", batch=8), ("at batch 1 and at batch 8",)),
        ({"kept": KEPT, "conditions": None}, ("not known where both were timed",)),
        ({"kept": KEPT, "latency": None}, ("not both were timed",)),
    ],
)
def test_what_cannot_be_paired_is_said(write, artifact, notes):
    comparison = compare(write("first", kept=KEPT), write("second", **artifact))
    for note, pattern in zip(comparison.notes, notes, strict=True):
        assert re.search(pattern, note)
    assert [comparison.accuracy, comparison.latency].count(None) == len(notes)


def test_two_models_are_not_compared(write):
    with pytest.raises(InputError, match=r"a vit and .* a deit"):
        compare(write("first"), write("second", model="deit"))


def test_a_rival_is_what_lay_at_its_path_then(write):
    first = write("first")
    rival = changed("latency", against=str(first.parent), speedup=1.25)
    latency = compare(first, write("second", **rival)).latency
    assert latency.speedup == 1.25
    assert latency.how == f"the second timed in turn with what {first.parent} was then"
