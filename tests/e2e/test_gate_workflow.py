"""The shipped workflows, step by step on real repositories: export, gate, comment, accept."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.machine import ONNXRUNTIME
from tests.support.runner import Comments, GitHub, GitLab
from tests.support.sabotage import classes_swapped, outputs_times, sabotage

INT8 = f"digits-{ONNXRUNTIME}-int8"
IDENTITY = {
    f"GIT_{who}_{what}": "someone@localhost"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}
LIMITS = "--max-drop 1 --min-sqnr-db 35"
EXPORT = "cp -r models artifacts"
"""In an export's place, which takes longer: what commits made of the model lies there."""


def git(*words, cwd):
    """Run git with `words`; returns what it prints."""
    environment = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        ["git", *words], cwd=cwd, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory, bundles, vitedge):
    """A repository, and its commits: main's, one that loses nothing, one that loses much."""
    folder = tmp_path_factory.mktemp("forge")
    clone, bare = folder / "clone", folder / "forge.git"
    git("init", "-q", "-b", "main", clone, cwd=folder)
    for precision in ("fp32", "int8"):
        bundle = bundles["onnxruntime", precision]
        shutil.copytree(bundle, clone / "models" / bundle.name)

    def commit(message):
        git("add", "-A", cwd=clone)
        git("commit", "-q", "-m", message, cwd=clone)
        return git("rev-parse", "HEAD", cwd=clone)

    commits = {"main": commit("a model")}
    for name, how in (("harmless", outputs_times(1.001)), ("harmful", classes_swapped)):
        git("checkout", "-q", "-b", name, "main", cwd=clone)
        shutil.rmtree(clone / "models" / INT8)
        sabotage(bundles["onnxruntime", "int8"], clone / "models" / INT8, how)
        vitedge("validate", clone / "models" / INT8, "--data", "digits")
        commits[name] = commit(name)
    git("clone", "-q", "--bare", clone, bare, cwd=folder)
    return bare, commits


@pytest.fixture
def commits(made, tmp_path):
    """The same, in a bare repository of the test's own."""
    bare, commits = made
    return shutil.copytree(bare, tmp_path / "forge.git"), commits


@pytest.fixture
def forge():
    comments = Comments()
    with comments.served() as address:
        yield comments, address


def accepted(bare):
    """What the baseline's branch says it accepted, newest first."""
    return git("log", "--format=%s", "vitedge-baseline", cwd=bare).splitlines()


def test_githubs_workflow_from_a_first_merge_to_a_refused_request(tmp_path, commits, forge):
    (bare, commit), (comments, address) = commits, forge
    asked = {"version": "installed", "export": EXPORT, "limits": LIMITS}
    runner = GitHub(tmp_path, bare, address)

    first = runner.run(commit["main"], "push", **asked)
    assert first == {"export": "success", "time": "skipped", "gate": "success"}, runner.log
    assert "no baseline yet" in runner.log and accepted(bare) == [f"Accepted: {commit['main']}"]
    assert not comments.texts  # there is no request

    timed = {**asked, "device_runner": "jetson", "duration": "0.1"}
    good = runner.run(commit["harmless"], "pull_request", **timed)
    assert set(good.values()) == {"success"}, runner.log
    assert "passed" in comments.texts[1] and "baseline.npz" in runner.log
    assert accepted(bare) == [f"Accepted: {commit['main']}"]  # not before it is merged

    bad = runner.run(commit["harmful"], "pull_request", **asked)
    assert bad == {"export": "success", "time": "skipped", "gate": "failure"}, runner.log
    assert list(comments.texts) == [1] and "failed" in comments.texts[1]  # the same comment
    assert comments.tokens == {"Bearer a-token"}
    (folder,) = tmp_path.glob(f"store-{commit['harmful'][:8]}*/vitedge-gate")
    assert sorted(path.name for path in folder.iterdir()) == ["gate.html", "gate.xml"]

    assert runner.run(commit["harmful"], "push", **asked)["gate"] == "failure"
    assert accepted(bare) == [f"Accepted: {commit['main']}"]
    assert runner.run(commit["harmless"], "push", **asked)["gate"] == "success", runner.log
    assert accepted(bare)[0] == f"Accepted: {commit['harmless']}"
    assert len(accepted(bare)) == 2


def test_an_export_that_fails_is_not_judged(tmp_path, commits, forge):
    (bare, commit), (_, address) = commits, forge
    runner = GitHub(tmp_path, bare, address)
    results = runner.run(commit["main"], "push", version="installed", export="false; true")
    assert results == {"export": "failure", "time": "skipped", "gate": "skipped"}


def test_a_forge_that_takes_no_comment_fails_nothing(tmp_path, commits):
    bare, commit = commits
    runner = GitHub(tmp_path, bare, "http://127.0.0.1:1")
    asked = {"version": "installed", "export": EXPORT, "limits": LIMITS}
    assert runner.run(commit["main"], "pull_request", **asked)["gate"] == "success", runner.log
    assert "no comment written" in runner.log


def test_gitlabs_pipeline_from_a_first_merge_to_a_refused_request(tmp_path, commits, forge):
    (bare, commit), (comments, address) = commits, forge
    asked = {"version": "installed", "export": EXPORT, "limits": LIMITS}
    runner = GitLab(tmp_path, bare, address)
    assert set(runner.run(commit["main"], "push", **asked).values()) == {0}, runner.log
    assert accepted(bare) == [f"Accepted: {commit['main']}"]
    good = runner.run(commit["harmless"], "merge_request_event", **asked)
    assert good == {"vitedge-export": 0, "vitedge-gate": 0}, runner.log
    bad = runner.run(commit["harmful"], "merge_request_event", **asked)
    assert bad == {"vitedge-export": 0, "vitedge-gate": 1}, runner.log
    assert list(comments.texts) == [1] and "failed" in comments.texts[1]
    assert comments.asked == ["GET", "POST", "GET", "PUT"]
    assert accepted(bare) == [f"Accepted: {commit['main']}"]


def test_what_the_workflow_is_given_is_never_code(tmp_path, commits, forge):
    (bare, commit), (_, address) = commits, forge
    runner = GitHub(tmp_path, bare, address)
    hostile = {"limits": "--max-drop 1 $(touch one) `touch two`; touch three"}
    results = runner.run(
        commit["main"], "pull_request", version="installed", export=EXPORT, **hostile
    )
    assert results["gate"] == "failure"
    assert not [path for name in ("one", "two", "three") for path in Path(tmp_path).rglob(name)]
