"""The gate as CI runs it: the GitHub Action's own steps, and the manual's examples."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import msgspec
import pytest
import yaml

from tests.support.machine import ONNXRUNTIME

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github" / "actions" / "gate"
INT8 = f"digits-{ONNXRUNTIME}-int8"
PAGE = (ROOT / "docs" / "gate-ci.md").read_text(encoding="utf-8")


class Job(NamedTuple):
    """A job of a GitHub runner after the action ran in it."""

    code: int
    log: str
    outputs: dict[str, str]
    summary: str


@pytest.fixture
def workspace(tmp_path, bundles):
    """A checkout with validated artifacts, in a folder that people may well have."""
    folder = tmp_path / "my checkout"
    for precision in ("fp32", "int8"):
        bundle = bundles["onnxruntime", precision]
        shutil.copytree(bundle, folder / "artifacts" / bundle.name)
    return folder


def bash(workspace, *arguments, **variables):
    """Run bash in the workspace, with this vitedge on the PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", *arguments],
        cwd=workspace,
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
    )


def run_action(workspace, **inputs):
    """Run the action's steps as a runner does: inputs filled in, one bash process a step."""
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    given = {name.replace("_", "-"): value for name, value in inputs.items()}
    assert given.keys() <= action["inputs"].keys()
    known = action["inputs"].items()
    values = {f"inputs.{name}": given.get(name, about["default"]) for name, about in known}
    temporary = workspace.parent / "runner temp"
    temporary.mkdir(exist_ok=True)
    summary = temporary / "summary.md"
    summary.touch()
    code, log = 0, ""

    def fill(text):
        return re.sub(r"\$\{\{ (\S+) \}\}", lambda found: values[found[1]], text)

    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]  # an input in a script would be code
        outputs = temporary / f"{step['id']}.txt"
        outputs.write_text("")
        script = temporary / f"{step['id']}.sh"
        script.write_text(step["run"])
        done = bash(
            workspace,
            *("-e", "-o", "pipefail", str(script)),
            **{"RUNNER_TEMP": str(temporary), "GITHUB_ACTION_PATH": str(ACTION)},
            **{"GITHUB_OUTPUT": str(outputs), "GITHUB_STEP_SUMMARY": str(summary)},
            **{name: fill(text) for name, text in step["env"].items()},
        )
        code, log = done.returncode, log + done.stdout + done.stderr
        for line in outputs.read_text().splitlines():
            name, _, value = line.partition("=")
            values[f"steps.{step['id']}.outputs.{name}"] = value
        if code:
            break
    told = {name: fill(about["value"]) for name, about in action["outputs"].items()}
    return Job(code, log, told, summary.read_text())


def example(name):
    """The manual's example of a YAML file called `name`, parsed."""
    (text,) = re.findall(rf"```yaml\n# {re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
    return yaml.safe_load(text)


def test_the_action_passes_and_hands_on_answer_verdict_summary_and_files(workspace):
    """With the inputs of the manual's workflow, and more."""
    steps = example(".github/workflows/gate.yml")["jobs"]["gate"]["steps"]
    (step,) = [step for step in steps if "actions/gate@" in step.get("uses", "")]
    job = run_action(
        workspace,
        **{"version": "installed", "max_size_mb": "1", "min_sqnr_db": "20", "min_top1": "0.5"},
        **{"confidence": "0.9", "baseline": "accepted.npz", "accept": "true"},
        **{"html": "page.html", "write": "json=out verdict.json\nmarkdown=comment.md\n"},
        **{name.replace("-", "_"): str(value) for name, value in step["with"].items()},
    )
    assert job.code == 0, job.log
    assert job.outputs["answer"] == "passed"
    verdict = msgspec.json.decode(Path(job.outputs["verdict"]).read_bytes())
    assert (verdict["answer"], verdict["confidence"]) == ("passed", 0.9)
    metrics = [check["metric"] for check in verdict["judged"][0]["checks"]]
    assert metrics == ["drop_pp", "size_bytes", "sqnr_db", "top1"]
    assert (workspace / "accepted.npz").exists() and (workspace / "page.html").exists()
    assert "vitedge gate: passed" in job.summary
    assert f"|{INT8}|drop|" in job.summary
    suites = ElementTree.parse(workspace / "gate.xml").getroot()
    assert [suite.get("name") for suite in suites] == [INT8]
    assert msgspec.json.decode((workspace / "out verdict.json").read_bytes()) == verdict
    assert (workspace / "comment.md").read_text() == job.summary


@pytest.mark.heavy
def test_the_action_installs_the_vitedge_of_its_own_commit(workspace):
    job = run_action(workspace, artifacts="artifacts/*", max_drop="2")
    assert job.code == 0, job.log
    assert (workspace.parent / "runner temp" / "vitedge-gate" / "bin" / "vitedge").exists()


@pytest.mark.parametrize(
    ("inputs", "code", "answer"),
    [
        ({"max_drop": "2", "min_speedup": "1.5"}, 1, "failed"),  # which was never measured
        ({"max_drop": "0.1"}, 4, "inconclusive"),
        ({"max_drop": "0.1", "allow_inconclusive": "true"}, 0, "inconclusive"),
    ],
)
def test_the_action_fails_where_not_all_passed_unless_inconclusive_is_allowed(
    workspace, inputs, code, answer
):
    artifacts = f"artifacts/digits-{ONNXRUNTIME}-fp32\nartifacts/*8"
    job = run_action(workspace, version="installed", artifacts=artifacts, **inputs)
    assert job.code == code, job.log
    assert job.outputs["answer"] == answer
    assert f"vitedge gate: {answer}" in job.summary
    assert job.summary.count("|not measured|") == (2 if answer == "failed" else 0)
    assert ("::warning" in job.log) == (code == 0)


def test_an_input_is_never_run_as_code_nor_taken_for_an_option(workspace):
    job = run_action(
        workspace,
        version="installed",
        artifacts="--help\n$(touch one)\n`touch two`",
        max_drop='1"; touch three; echo "',
        allow_inconclusive="$(touch four)",
    )
    assert job.code == 2, job.log
    assert job.outputs == {"answer": "error", "verdict": ""}
    assert [path.name for path in workspace.iterdir()] == ["artifacts"]


def test_the_gitlab_job_of_the_readme_runs_and_leaves_its_reports(workspace):
    job = example(".gitlab-ci.yml")["gate"]
    done = bash(workspace, "-ec", "\n".join(job["script"]))
    assert done.returncode == 0, done.stderr
    reports = job["artifacts"]["reports"]
    assert ElementTree.parse(workspace / reports["junit"]).getroot().get("errors") == "0"
    assert job["allow_failure"]["exit_codes"] == 4


def test_the_pre_commit_hook_of_the_readme_runs(workspace, vitedge):
    (repository,) = example(".pre-commit-config.yaml")["repos"]
    (hook,) = repository["hooks"]
    assert repository["repo"] == "local"
    assert (hook["language"], hook["pass_filenames"]) == ("system", False)
    name, *arguments = shlex.split(hook["entry"].replace("onnxruntime-cpu", ONNXRUNTIME))
    assert name == "vitedge" and vitedge(*arguments, cwd=workspace)
    assert re.search(hook["files"], f"artifacts/{INT8}/model.onnx")


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, vitedge):
    for option, file in (("--junit", "gate.xml"), ("--write", "json=gate.json")):
        given = f"{option}={file.replace('gate', 'nowhere/gate')}"
        ran = vitedge("gate", "no-artifact", "--max-drop", 1, given, code=2, cwd=tmp_path)
        assert "cannot write nowhere/gate." in ran.stderr and option in ran.stderr
        assert ran.stdout == ""
    assert not [*tmp_path.iterdir()]
