"""From paths to a verdict: what is refused, what is compared, and what a baseline may speak for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.unit.gate.conftest import N, Write, gate, per_image, sections
from vitedge.core.errors import InputError
from vitedge.core.machine import describe_machine
from vitedge.core.report import Parity
from vitedge.gate.compare import compare
from vitedge.measure.accuracy import evidence
from vitedge.measure.accuracy.evidence import PerImage


def test_the_worst_of_several_artifacts_decides(write: Write) -> None:
    good = write("good")
    slow = write("slow", latency=msgspec.structs.replace(sections()["latency"], speedup=0.5))
    verdict = gate(good, slow, max_drop_pp=1, min_speedup=1.2)
    assert [judged.answer for judged in verdict.judged] == ["passed", "failed"]
    assert (verdict.answer, verdict.confidence) == ("failed", 0.95)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b'{"schema": "vitedge.report/1", "artifact"', "cannot be read"),
        (b'{"schema": "vitedge.report/2"}', "not of schema"),
        (b'{"schema": "vitedge.report/1"}', "missing required field"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"schema": "\xff"}', "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_a_report_that_is_none_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as raised:
        gate(path, max_drop_pp=1)
    assert str(path) in raised.value.what and raised.value.fix


def test_a_report_with_nonsense_in_a_section_is_refused(write: Write) -> None:
    path = write(accuracy={"metric": "top1", "n": "many"})
    with pytest.raises(InputError, match=r"\$\.accuracy"):
        gate(path, max_drop_pp=1)


def test_nothing_asked_of_an_artifact_is_no_gate(write: Write) -> None:
    with pytest.raises(InputError, match="nothing to pass"):
        gate(write())


def test_an_accepted_artifact_is_compared_image_by_image(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "baseline.npz"
    first = write("first", kept=per_image(lost=2, gained=1))
    assert gate(first, max_drop_pp=1, baseline=file, accept=True).answer == "passed"
    judgements = gate(first, max_drop_pp=0.31, baseline=file).judged
    assert [judgement.against for judgement in judgements] == ["fp32", str(file)]
    assert [judgement.answer for judgement in judgements] == [
        "inconclusive",
        "passed",
    ]  # nothing changed since
    worse = gate(write("worse", kept=per_image(lost=40, gained=1)), max_drop_pp=2, baseline=file)
    check = worse.judged[1].checks[0]
    assert check.value == pytest.approx(3.8)
    assert check.answer == "failed"


def test_images_are_paired_in_whatever_order_they_came(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "baseline.npz"
    kept = per_image(lost=5, gained=0)
    gate(write("a", kept=kept), max_drop_pp=5, baseline=file, accept=True)
    order = np.random.default_rng(1).permutation(N)
    turned = PerImage(
        kept.digests[order],
        kept.labels[order],
        kept.fp32[order],
        kept.artifact[order],
        kept.worst,
        kept.thumbnails,
    )
    check = gate(write("b", kept=turned), max_drop_pp=0.31, baseline=file).judged[1].checks[0]
    assert (check.value, check.answer) == (0, "passed")


def test_what_does_not_pass_is_not_accepted(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "baseline.npz"
    bad = write(kept=per_image(lost=60, gained=0))
    assert gate(bad, max_drop_pp=1, baseline=file, accept=True).answer == "failed"
    assert not file.exists()


def test_accepting_one_keeps_the_others(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "baseline.npz"
    first = write("one", kept=per_image(2, 1))
    second = write("two", kept=per_image(3, 1), model="deit")
    for path in (first, second):
        gate(path, max_drop_pp=2, baseline=file, accept=True)
    assert gate(first, second, max_drop_pp=2, baseline=file).answer == "passed"
    with pytest.raises(InputError, match="same model, target and precision"):
        gate(first, write("again", kept=per_image(2, 1)), max_drop_pp=2, baseline=file, accept=True)


@pytest.fixture
def accepted(write: Write, tmp_path: Path) -> Path:
    """A baseline of 1,000 images, timed on machine 0123456789ab."""
    file = tmp_path / "baseline.npz"
    gate(write("accepted", kept=per_image(2, 1)), max_drop_pp=2, baseline=file, accept=True)
    return file


def test_a_baseline_of_other_images_cannot_speak(write: Write, accepted: Path) -> None:
    other = write("other", kept=per_image(2, 1, seed=5, n=900))
    with pytest.raises(InputError, match="other images") as raised:
        gate(other, max_drop_pp=2, baseline=accepted)
    assert "1,000 and 900" in raised.value.what


def test_a_baseline_with_other_labels_cannot_speak(write: Write, accepted: Path) -> None:
    kept = per_image(2, 1)
    kept.labels[:] = kept.labels[::-1].copy()
    with pytest.raises(InputError, match="label the same images differently"):
        gate(write("other", kept=kept), max_drop_pp=90, baseline=accepted)


def test_a_baseline_with_other_preprocessing_cannot_speak(write: Write, accepted: Path) -> None:
    path = write("other", kept=per_image(2, 1))
    validation = evidence.read(path.parent)
    about = msgspec.structs.replace(validation.about, preprocessing="q" * 64)
    evidence.save(path.parent / "evidence.npz", about, evidence.arrays(validation.per_image))
    with pytest.raises(InputError, match="other preprocessing"):
        gate(path, max_drop_pp=2, baseline=accepted)


def test_latency_is_compared_with_a_baseline_of_the_same_machine(
    write: Write, accepted: Path
) -> None:
    same = write("same", kept=per_image(2, 1))
    check = gate(same, max_slowdown=1.1, baseline=accepted).judged[0].checks[0]
    assert (check.metric, check.value, check.answer) == ("slowdown", 1.0, "passed")
    latency = msgspec.structs.replace(sections()["latency"], speedup=1.1)
    slower = write("slower", kept=per_image(2, 1), latency=latency)
    check = gate(slower, max_slowdown=1.1, baseline=accepted).judged[0].checks[0]
    assert (check.value, check.answer) == (pytest.approx(1.5 / 1.1), "failed")


def test_a_baseline_of_another_machine_speaks_for_accuracy_alone(
    write: Write, accepted: Path
) -> None:
    conditions = sections()["conditions"] | {"fingerprint": "ba9876543210"}
    moved = write("moved", kept=per_image(2, 1), conditions=conditions)
    assert gate(moved, max_drop_pp=2, baseline=accepted).answer == "passed"
    with pytest.raises(InputError, match="another machine"):
        gate(moved, max_drop_pp=2, max_slowdown=1.1, baseline=accepted)


def test_a_baseline_that_never_saw_the_model_is_refused(write: Write, accepted: Path) -> None:
    with pytest.raises(InputError, match="has no deit onnxruntime-cpu int8") as raised:
        gate(write("new", kept=per_image(2, 1), model="deit"), max_drop_pp=2, baseline=accepted)
    assert "--accept" in raised.value.fix


def test_a_baseline_of_the_future_is_refused_before_anything_else(
    write: Write, accepted: Path, tmp_path: Path
) -> None:
    with np.load(accepted) as file:
        named = {name: file[name] for name in file.files}
    header = named["about"].tobytes().replace(b"vitedge.baseline/1", b"vitedge.baseline/2")
    future = tmp_path / "future.npz"
    np.savez(future, **(named | {"about": np.frombuffer(header, np.uint8)}))
    for accept in (False, True):
        with pytest.raises(InputError, match=r"baseline/2"):
            gate(write(), max_drop_pp=2, baseline=future, accept=accept)


@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_a_damaged_baseline_is_refused(write: Write, accepted: Path, damage: str) -> None:
    if damage == "missing":
        accepted.unlink()
    else:
        whole = accepted.read_bytes()
        accepted.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"not a baseline")
    with pytest.raises(InputError, match=r"baseline\.npz"):
        gate(write(kept=per_image(2, 1)), max_drop_pp=2, baseline=accepted)


def test_a_report_without_evidence_cannot_be_accepted_or_compared(
    write: Write, accepted: Path
) -> None:
    bare = write("bare")
    with pytest.raises(InputError, match="no evidence"):
        gate(bare, max_drop_pp=2, baseline=accepted, accept=True)
    check = gate(bare, max_drop_pp=2, baseline=accepted).judged[1].checks[0]
    assert check.answer == "failed" and "no evidence.npz" in check.reason


def test_evidence_of_other_bytes_is_not_believed(write: Write, accepted: Path) -> None:
    path = write("changed", kept=per_image(0, 0))
    write("changed", files={"model.onnx": "b" * 64})  # exported again, and not validated
    check = gate(path, max_drop_pp=2, baseline=accepted).judged[1].checks[0]
    assert check.answer == "failed"


def test_two_artifacts_are_compared_on_the_same_images(write: Write) -> None:
    first = write("first", kept=per_image(2, 1))
    latency = msgspec.structs.replace(sections()["latency"], speedup=3.0)
    second = write("second", kept=per_image(22, 1), latency=latency)
    comparison = compare(first, second)
    assert comparison.accuracy.drop_pp == pytest.approx(2.0)
    assert comparison.accuracy.drop_ci_pp[0] > 1 and comparison.accuracy.n == N
    assert comparison.accuracy.agreement == pytest.approx(0.98)
    assert comparison.latency.speedup == pytest.approx(2.0)
    assert 1.7 < comparison.latency.speedup_ci[0] < 2 < comparison.latency.speedup_ci[1] < 2.3
    assert comparison.notes == ()


def test_what_cannot_be_paired_is_said(write: Write) -> None:
    first = write("first", kept=per_image(2, 1))
    conditions = sections()["conditions"] | {"fingerprint": "ba9876543210"}
    second = write("second", kept=per_image(2, 1, seed=5), conditions=conditions)
    comparison = compare(first, second)
    assert (comparison.accuracy, comparison.latency) == (None, None)
    assert "other images" in comparison.notes[0] and "different machines" in comparison.notes[1]


def test_two_models_are_not_compared(write: Write) -> None:
    with pytest.raises(InputError, match=r"a vit and .* a deit"):
        compare(write("first"), write("second", model="deit"))


def test_nothing_is_accepted_by_a_limit_that_is_over_a_baseline_alone(
    write: Write, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nothing to pass"):
        gate(write(kept=per_image(2, 1)), max_slowdown=2, baseline=tmp_path / "b", accept=True)
    with pytest.raises(InputError, match="--baseline"):
        gate(write(), max_drop_pp=2, baseline=tmp_path / "nowhere" / "b", accept=True)


def test_what_replaces_an_accepted_artifact_must_pass_against_it(
    write: Write, tmp_path: Path
) -> None:
    file = tmp_path / "baseline.npz"

    def accept(lost: int, gained: int) -> list[str]:
        path = write(kept=per_image(lost, gained))
        verdict = gate(path, max_drop_pp=3.5, baseline=file, accept=True)
        return [judged.answer for judged in verdict.judged]

    assert accept(lost=0, gained=30) == ["passed"]
    before = file.read_bytes()
    assert accept(lost=20, gained=0) == ["passed", "failed"]
    assert file.read_bytes() == before
    assert accept(lost=5, gained=30) == ["passed", "passed"]
    assert file.read_bytes() != before


def test_what_is_slower_than_what_was_accepted_does_not_replace_it(
    write: Write, accepted: Path
) -> None:
    before = accepted.read_bytes()
    latency = msgspec.structs.replace(sections()["latency"], speedup=1.0)
    slower = write("slower", kept=per_image(2, 1), latency=latency)
    verdict = gate(slower, max_drop_pp=2, max_slowdown=1.1, baseline=accepted, accept=True)
    assert [judged.answer for judged in verdict.judged] == ["passed", "failed"]
    assert accepted.read_bytes() == before


def test_no_limit_over_a_baseline_is_dropped_in_silence(
    write: Write, accepted: Path, tmp_path: Path
) -> None:
    path = write(kept=per_image(2, 1))
    options = {"max_drop_pp": 2, "max_slowdown": 1.1, "accept": True}
    with pytest.raises(InputError, match="not there yet"):
        gate(path, baseline=tmp_path / "new.npz", **options)
    with pytest.raises(InputError, match="has no deit"):
        gate(write(kept=per_image(2, 1), model="deit"), baseline=accepted, **options)
    with pytest.raises(InputError, match="no limit is over the baseline"):
        gate(path, min_top1=0.5, baseline=accepted)


def test_latency_of_another_batch_is_not_compared(write: Write, accepted: Path) -> None:
    latency = msgspec.structs.replace(sections()["latency"], batch=8)
    path = write("eight", kept=per_image(2, 1), latency=latency)
    with pytest.raises(InputError, match="at batch 1, and timed at 8"):
        gate(path, max_slowdown=1.1, baseline=accepted)
    comparison = compare(write("one"), path)
    assert comparison.latency is None and "at batch 1 and at batch 8" in comparison.notes[-1]


def test_latency_of_a_machine_that_is_not_known_is_not_compared(
    write: Write, accepted: Path
) -> None:
    machine = describe_machine(2)  # that of the last validation, which need not have timed it
    path = write("moved", kept=per_image(2, 1), conditions=None, host=machine)
    check = gate(path, max_slowdown=1.1, baseline=accepted).judged[0].checks[0]
    assert check.answer == "failed" and "not known where it was timed" in check.reason
    assert "not known where both were timed" in compare(path, path).notes[-1]


def test_an_artifact_that_lost_parity_is_not_compared_with_a_baseline(
    write: Write, accepted: Path
) -> None:
    parity = Parity(n=8, numerics=None, agreement=None, at_export_db=None, broken="NaN")
    path = write("broken", kept=per_image(2, 1), parity=parity)
    verdict = gate(path, max_drop_pp=9, baseline=accepted)
    assert [judged.answer for judged in verdict.judged] == ["failed", "failed"]


def test_a_rival_is_what_lay_at_its_path_then(write: Write) -> None:
    first = write("first")
    latency = msgspec.structs.replace(
        sections()["latency"], against=str(first.parent), speedup=1.25
    )
    latency_difference = compare(first, write("second", latency=latency)).latency
    assert latency_difference.speedup == 1.25 and latency_difference.how.endswith(
        f"{first.parent} was then"
    )
