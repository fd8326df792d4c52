"""The gate as CI runs it: the GitHub Action's own steps, and the README's examples."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
import yaml

from tests.conftest import Vitedge
from tests.support.machine import ONNXRUNTIME

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github" / "actions" / "gate"
INT8 = f"digits-{ONNXRUNTIME}-int8"
README = (ROOT / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Job:
    """A job of a GitHub runner after the action ran in it."""

    code: int
    log: str
    outputs: dict[str, str]
    summary: str


@pytest.fixture
def workspace(tmp_path: Path, bundles: dict[tuple[str, str], Path]) -> Path:
    """A checkout with validated artifacts, in a folder that people may well have."""
    folder = tmp_path / "my checkout"
    for precision in ("fp32", "int8"):
        bundle = bundles["onnxruntime", precision]
        shutil.copytree(bundle, folder / "artifacts" / bundle.name)
    return folder


def run_action(workspace: Path, **inputs: str) -> Job:
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

    def fill(text: str) -> str:
        return re.sub(r"\$\{\{ (\S+) \}\}", lambda found: values[found[1]], text)

    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]  # an input in a script would be code
        outputs = temporary / f"{step['id']}.txt"
        outputs.write_text("")
        script = temporary / f"{step['id']}.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=workspace,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "RUNNER_TEMP": str(temporary),
                "GITHUB_ACTION_PATH": str(ACTION),
                "GITHUB_OUTPUT": str(outputs),
                "GITHUB_STEP_SUMMARY": str(summary),
                **{name: fill(text) for name, text in step["env"].items()},
            },
            capture_output=True,
            text=True,
        )
        code, log = done.returncode, log + done.stdout + done.stderr
        for line in outputs.read_text().splitlines():
            name, _, value = line.partition("=")
            values[f"steps.{step['id']}.outputs.{name}"] = value
        if code:
            break
    told = {name: fill(about["value"]) for name, about in action["outputs"].items()}
    return Job(code, log, told, summary.read_text())


def test_the_action_passes_and_hands_on_answer_verdict_summary_and_files(workspace: Path) -> None:
    job = run_action(
        workspace,
        version="installed",
        artifacts="artifacts/*-int8",
        max_drop="2",
        junit="out.xml",
        write="json=out verdict.json\nmarkdown=comment.md\n",
    )
    assert job.code == 0, job.log
    assert job.outputs["answer"] == "passed"
    verdict = msgspec.json.decode(Path(job.outputs["verdict"]).read_bytes())
    assert verdict["answer"] == "passed"
    assert "vitedge gate: passed" in job.summary
    assert f"|{INT8}|drop|" in job.summary
    suites = ElementTree.parse(workspace / "out.xml").getroot()
    assert [suite.get("name") for suite in suites] == [INT8]
    assert msgspec.json.decode((workspace / "out verdict.json").read_bytes()) == verdict
    assert (workspace / "comment.md").read_text() == job.summary


@pytest.mark.heavy
def test_the_action_installs_the_vitedge_of_its_own_commit(workspace: Path) -> None:
    job = run_action(workspace, artifacts="artifacts/*", max_drop="2")
    assert job.code == 0, job.log
    assert (workspace.parent / "runner temp" / "vitedge-gate" / "bin" / "vitedge").exists()


def test_the_action_fails_where_a_limit_is_broken_and_says_so_in_the_summary(
    workspace: Path,
) -> None:
    job = run_action(
        workspace,
        version="installed",
        artifacts=f"artifacts/digits-{ONNXRUNTIME}-fp32\nartifacts/*8",
        max_drop="2",
        min_speedup="1.5",  # was never measured
    )
    assert job.code == 1, job.log
    assert job.outputs["answer"] == "failed"
    assert "vitedge gate: failed" in job.summary
    assert job.summary.count("|not measured|") == 2


@pytest.mark.parametrize(("allow", "code"), [("false", 4), ("true", 0)])
def test_an_inconclusive_answer_fails_the_job_unless_that_is_allowed(
    workspace: Path, allow: str, code: int
) -> None:
    job = run_action(
        workspace,
        version="installed",
        artifacts=f"artifacts/{INT8}",
        max_drop="0.1",
        allow_inconclusive=allow,
    )
    assert job.code == code, job.log
    assert job.outputs["answer"] == "inconclusive"
    assert ("::warning" in job.log) == (allow == "true")


def test_an_input_is_never_run_as_code_nor_taken_for_an_option(workspace: Path) -> None:
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


def examples(language: str, name: str) -> Any:
    """The README's example of a file called `name`, parsed."""
    (text,) = re.findall(rf"```{language}\n# {re.escape(name)}\n(.*?)```", README, re.DOTALL)
    return yaml.safe_load(text)


def shell(script: str, workspace: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-ec", script], cwd=workspace, env=environment, capture_output=True, text=True
    )


def test_the_gitlab_job_of_the_readme_runs_and_leaves_its_reports(workspace: Path) -> None:
    job = examples("yaml", ".gitlab-ci.yml")["gate"]
    done = shell("\n".join(job["script"]), workspace)
    assert done.returncode == 0, done.stderr
    reports = job["artifacts"]["reports"]
    assert ElementTree.parse(workspace / reports["junit"]).getroot().get("errors") == "0"
    assert job["allow_failure"]["exit_codes"] == 4


def test_the_pre_commit_hook_of_the_readme_runs(workspace: Path) -> None:
    (repository,) = examples("yaml", ".pre-commit-config.yaml")["repos"]
    (hook,) = repository["hooks"]
    assert repository["repo"] == "local"
    assert (hook["language"], hook["pass_filenames"]) == ("system", False)
    done = shell(hook["entry"].replace("onnxruntime-cpu", ONNXRUNTIME), workspace)
    assert done.returncode == 0, done.stderr
    assert re.search(hook["files"], f"artifacts/{INT8}/model.onnx")


def test_the_github_workflow_of_the_readme_gives_the_action_inputs_that_it_has(
    workspace: Path,
) -> None:
    steps = examples("yaml", ".github/workflows/gate.yml")["jobs"]["gate"]["steps"]
    (step,) = [step for step in steps if "actions/gate@" in step.get("uses", "")]
    inputs = {name.replace("-", "_"): str(value) for name, value in step["with"].items()}
    job = run_action(workspace, version="installed", **inputs)
    assert job.code == 0, job.log
    assert job.outputs["answer"] == "passed"


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, vitedge: Vitedge
) -> None:
    for option in ("--junit=nowhere/gate.xml", "--write=json=nowhere/gate.json"):
        ran = vitedge("gate", "no-artifact", "--max-drop", 1, option, code=2, cwd=tmp_path)
        assert "cannot write nowhere/gate." in ran.stderr
    assert not [*tmp_path.iterdir()]
