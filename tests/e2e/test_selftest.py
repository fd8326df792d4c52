"""`vitedge selftest` as a user types it, on artifacts that are there: building has its own tests.

`pytest -m heavy` runs all of it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.support.machine import ONNXRUNTIME, target_of

QUICK = ("--quick", "--json")


def selftest_of(vitedge, bundles, runtime, output, *options, **kwargs):
    pair = [bundles[runtime, precision] for precision in ("fp32", "int8")]
    return vitedge("selftest", *pair, *QUICK, "--output", output, *options, **kwargs)


def statuses(record):
    return {step["name"]: step["status"] for step in record["steps"]}


@pytest.fixture(scope="module")
def killed(bundles, tmp_path_factory):
    """The folder of a selftest of ONNX Runtime that was killed after a few steps, and its record
    as it was then."""
    folder = tmp_path_factory.mktemp("killed") / "evidence"
    pair = [str(bundles["onnxruntime", precision]) for precision in ("fp32", "int8")]
    command = [sys.executable, "-m", "vitedge", "selftest", *pair, *QUICK, "--output", str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.startswith("passed: validate digits fp32"):
                process.kill()
                break
    return folder, json.loads((folder / "selftest.json").read_text())


@pytest.fixture(
    scope="module",
    params=["onnxruntime", pytest.param("openvino", marks=pytest.mark.heavy)],
)
def evidence(request, bundles, vitedge, killed, tmp_path_factory):
    """A complete selftest of a runtime, its folder, and what was printed."""
    target_of(request.param)
    new = tmp_path_factory.mktemp(request.param) / "evidence"
    folder = killed[0] if request.param == "onnxruntime" else new
    return folder, selftest_of(vitedge, bundles, request.param, folder)


def test_every_step_passes_and_the_folder_is_complete(evidence):
    folder, ran = evidence
    record = json.loads((folder / "selftest.json").read_text())
    assert record == ran.document and record["exit_code"] == 0
    counts = [status for status in statuses(record).values() if status != "passed"]
    assert counts == ["cannot run"], "a CPU has no memory of its own to run out of"
    for step in record["steps"]:
        assert step["says"], step
        if step["status"] == "passed":
            slug = re.sub(r"[^A-Za-z0-9._]+", "-", step["name"])
            assert "passed" in (folder / "logs" / f"{slug}.log").read_text()
    page = (folder / "selftest.html").read_text()
    assert "✓ passed" in page and "what is executed of digits int8" in page
    (executed,) = (s for s in record["steps"] if s["name"].startswith("what is executed"))
    assert executed["figures"]["quantized"] >= 16
    assert {report["precision"] for report in record["reports"]} == {"fp32", "int8"}
    assert all(report["latency"] and report["accuracy"] for report in record["reports"])


def test_the_same_again_repeats_nothing_until_it_is_told_to(evidence, bundles, vitedge, tmp_path):
    folder, ran = evidence
    again = selftest_of(
        vitedge, bundles, ran.document["reports"][0]["target"].split("-")[0], folder
    )
    assert "0 steps here" in again.stderr
    assert again.document["steps"] == ran.document["steps"]
    other = vitedge("selftest", *QUICK, "--output", tmp_path, "--dry-run", "--target", ONNXRUNTIME)
    assert other.document["exit_code"] is None and not list(tmp_path.iterdir())
    (tmp_path / "letter.txt").write_text("mine")
    refused = vitedge("selftest", *QUICK, "--output", tmp_path, code=2)
    assert "holds other things than a selftest" in refused.stderr
    refused = vitedge("selftest", *QUICK, "--output", tmp_path / "letter.txt", code=2)
    assert "letter.txt is no folder" in refused.stderr


def test_one_that_was_killed_goes_on_with_the_step_that_had_not_ended(
    evidence, killed, bundles, vitedge
):
    folder, ran = evidence
    if folder != killed[0]:
        pytest.skip("that is another one")
    before = killed[1]
    assert before["exit_code"] is None
    kept = [step for step in before["steps"] if step["status"] == "passed"]
    assert len(kept) >= 3 and f"{len(kept)} passed before" in ran.stderr
    assert kept == [s for s in ran.document["steps"] if s["name"] in {k["name"] for k in kept}]
    assert ran.document["run"] == before["run"]

    record = folder / "selftest.json"
    changed = ran.document | {"bound": "of another machine"}  # as is one of another version
    record.write_text(json.dumps(changed))
    planned = selftest_of(vitedge, bundles, "onnxruntime", folder, "--dry-run")
    record.write_text(json.dumps(ran.document))
    assert not [s for s in planned.document["steps"] if s["status"] == "passed"]


@pytest.mark.parametrize("target", ["tensorrt", "jetson-orin"])
def test_what_needs_a_gpu_is_listed_beforehand_with_its_reason(vitedge, tmp_path, target):
    from vitedge.core.gpu import gpus

    if gpus():
        pytest.skip("there is a GPU")
    ran = vitedge("selftest", "--target", target, "--output", tmp_path / "none", "--dry-run")
    listed = dict(re.findall(r"cannot run here: (.*?): (.*)", ran.stdout))
    needed = "aarch64" if target == "jetson-orin" else "an NVIDIA GPU"
    for name in ("engine of digits int8", "refuse too little device memory digits fp32"):
        assert needed in listed[name]
    assert "drift of vit_tiny_patch16_224" in listed
    waiting = re.findall(r"^ (build|what is compiled of) ", ran.stdout, re.MULTILINE)
    assert "build" in waiting and "what is compiled of" in waiting
    assert "about" in ran.stdout and not (tmp_path / "none").exists()


def test_artifacts_of_two_targets_are_refused(bundles, vitedge, tmp_path):
    target_of("openvino")
    pair = [bundles[runtime, "fp32"] for runtime in ("onnxruntime", "openvino")]
    ran = vitedge("selftest", *pair, "--output", tmp_path / "none", code=2)
    assert "pass artifacts of one target" in ran.stderr or "`artifacts` of one" in ran.stderr


@pytest.mark.heavy
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_all_of_it_with_what_it_builds(vitedge, tmp_path, runtime):
    target_of(runtime)
    ran = vitedge("selftest", "--target", runtime, "--output", tmp_path / "out", "--json")
    record = ran.document
    assert record["exit_code"] == 0
    names = statuses(record)
    assert names["drift of vit_tiny_patch16_224"] == "passed"
    assert names["build vit_tiny_patch16_224 int8"] == "passed"


@pytest.mark.heavy
def test_what_was_built_and_is_gone_is_built_again_and_measured_again(vitedge, tmp_path):
    command = ("selftest", *QUICK, "--target", ONNXRUNTIME, "--output", tmp_path / "out")
    first = vitedge(*command).document
    shutil.rmtree(tmp_path / "out" / "artifacts")
    second = vitedge(*command).document
    assert second["exit_code"] == 0
    pairs = zip(first["steps"], second["steps"], strict=True)
    assert all(old["took_s"] != new["took_s"] for old, new in pairs if old["took_s"])
