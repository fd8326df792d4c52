"""GitHub's and GitLab's runners as far as the shipped workflows go: each step is bash, as there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


class Comments:
    """A forge's comments on one request, over HTTP."""

    def __init__(self):
        self.texts, self.asked, self.tokens = {}, [], set()

    def answer(self, method, path, body, token):
        """What the forge's API answers."""
        self.asked.append(method)
        self.tokens.add(token)
        if method == "GET":
            return [{"id": number, "body": text} for number, text in self.texts.items()]
        last = path.rpartition("/")[2]
        number = int(last) if method in ("PATCH", "PUT") else len(self.texts) + 1
        self.texts[number] = body["body"]
        return {"id": number}

    @contextmanager
    def served(self):
        """Its address, while it is served."""
        comments = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self):
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                token = self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN")
                answer = json.dumps(comments.answer(self.command, self.path, body, token)).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PATCH = do_PUT = handle_any

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


def evaluate(text, lookup, functions):
    """`text` with each ${{ expression }} filled in; one alone keeps its type."""

    def value(expression):
        strings = []

        def keep(match):
            strings.append(match[1])
            return f" strings[{len(strings) - 1}] "

        code = re.sub(r"'([^']*)'", keep, expression)
        code = re.sub(r"\b([a-z]+(?:\.[\w-]+)+)", r"lookup('\1')", code)
        code = code.replace("&&", " and ").replace("||", " or ")
        code = re.sub(r"!(?!=)", " not ", code)
        return eval(code.strip(), {"lookup": lookup, "strings": strings, **functions})

    whole = re.fullmatch(r"\$\{\{(.*)\}\}", text.strip(), re.DOTALL)
    if whole and "}}" not in whole[1]:
        return value(whole[1])
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: as_text(value(match[1])), text)


def as_text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


class GitHub:
    """Runs the reusable workflow on one event of a repository, a bare one."""

    def __init__(self, folder, repository, api):
        self.folder, self.repository, self.api = folder, repository, api
        self.workflow = yaml.safe_load((ROOT / ".github/workflows/gate.yml").read_text())
        self.log = ""

    def run(self, commit, event, **given):
        """Results of the jobs by name."""
        asked = self.workflow[True]["workflow_call"]["inputs"]  # YAML 1.1 reads `on` so
        given = {name.replace("_", "-"): value for name, value in given.items()}
        assert given.keys() <= asked.keys()
        inputs = {name: given.get(name, about["default"]) for name, about in asked.items()}
        github = {
            "event_name": event,
            "ref_name": "main" if event == "push" else "7/merge",
            "ref": "refs/heads/main" if event == "push" else "refs/pull/7/merge",
            "event.repository.default_branch": "main",
            "event.pull_request.number": "7",
            "token": "a-token",
        }
        values = {
            **{f"inputs.{name}": value for name, value in inputs.items()},
            **{f"github.{name}": value for name, value in github.items()},
        }
        store, results = self.folder / f"store-{commit[:8]}-{event}", {}
        for name, job in self.workflow["jobs"].items():
            needs = {f"needs.{n}.result": result for n, result in results.items()}
            lookup = (values | needs).__getitem__
            functions = {"cancelled": lambda: False, "success": lambda: True}
            required = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
            condition = job.get("if", "")
            wanted = all(results[n] == "success" for n in required) or "cancelled()" in condition
            if not wanted or (condition and not evaluate(condition, lookup, functions)):
                results[name] = "skipped"
                continue
            results[name] = self._job(name, job, commit, values | needs, store)
        return results

    def _job(self, name, job, commit, values, store):
        work = self.folder / f"{store.name}-{name}" / "my checkout"
        temporary = work.parent / "runner temp"
        for folder in (work, temporary):
            folder.mkdir(parents=True)
        path = temporary / "path"
        path.touch()
        ok = True
        about = {"success": lambda: ok, "cancelled": lambda: False}
        own = {}
        for key, text in self.workflow["env"].items():
            own[key] = as_text(evaluate(text, values.__getitem__, about))
        values = values | {f"env.{key}": value for key, value in own.items()}
        for step in job["steps"]:
            condition = step.get("if", "${{ success() }}")
            if not evaluate(condition, values.__getitem__, about):
                continue
            if "uses" in step:
                self._action(step, values, about, work, store, commit)
                continue
            assert step["shell"] == "bash" and "${{" not in step["run"]
            extra = {
                key: as_text(evaluate(text, values.__getitem__, about))
                for key, text in step.get("env", {}).items()
            }
            script = temporary / "step.sh"
            script.write_text(step["run"])
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
                cwd=work,
                env={
                    **os.environ,
                    **own,
                    **extra,
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    "RUNNER_TEMP": str(temporary),
                    "GITHUB_PATH": str(path),
                    "GITHUB_API_URL": self.api,
                    "GITHUB_REPOSITORY": "owner/name",
                    "GITHUB_SHA": commit,
                },
                capture_output=True,
                text=True,
                check=False,
            )
            self.log += f"== {name}: {step['name']}\n{done.stdout}{done.stderr}"
            ok = ok and done.returncode == 0
        return "success" if ok else "failure"

    def _action(self, step, values, about, work, store, commit):
        """checkout, upload-artifact and download-artifact, by copies."""
        action = step["uses"].partition("@")[0]
        given = {
            key: evaluate(text, values.__getitem__, about)
            for key, text in step.get("with", {}).items()
        }
        if action == "actions/checkout":
            subprocess.run(["git", "clone", "-q", self.repository, work], check=True)
            subprocess.run(["git", "checkout", "-q", commit], cwd=work, check=True)
        elif action == "actions/download-artifact":
            shutil.copytree(store / given["name"], work / given["path"], dirs_exist_ok=True)
        else:
            assert action == "actions/upload-artifact"
            for line in given["path"].split():
                source, to = work / line, store / given["name"]
                if source.is_dir():
                    shutil.copytree(source, to)
                elif source.exists():
                    to.mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, to)


class GitLab:
    """Runs the jobs of .gitlab/gate.yml in one clone, as one pipeline."""

    def __init__(self, folder, repository, api):
        self.folder, self.repository, self.api = folder, repository, api
        self.jobs = yaml.safe_load((ROOT / ".gitlab/gate.yml").read_text())
        self.log = ""

    def run(self, commit, event, **given):
        """Exit codes of the jobs that ran, by name."""
        work = self.folder / f"gitlab-{commit[:8]}-{event}"
        subprocess.run(["git", "clone", "-q", self.repository, work], check=True)
        subprocess.run(["git", "checkout", "-q", commit], cwd=work, check=True)
        merge = {"CI_MERGE_REQUEST_IID": "7"} if event == "merge_request_event" else {}
        variables = {
            **self.jobs["variables"],
            **{f"VITEDGE_{name.upper()}": value for name, value in given.items()},
            **{"CI_API_V4_URL": self.api, "CI_PROJECT_ID": "3", "CI_COMMIT_SHA": commit},
            **{"VITEDGE_REMOTE": str(self.repository), "VITEDGE_TOKEN": "a-token"},
        }
        codes = {}
        for stage in self.jobs["stages"]:
            for name, job in self.jobs.items():
                if not isinstance(job, dict) or job.get("stage") != stage:
                    continue
                if name == "vitedge-time" and not variables["VITEDGE_DEVICE"]:
                    continue
                if any(codes.values()):
                    return codes
                done = subprocess.run(
                    ["bash", "-eo", "pipefail", "-c", "\n".join(job["script"])],
                    cwd=work,
                    env={
                        **os.environ,
                        **variables,
                        **merge,
                        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    },
                    capture_output=True,
                    text=True,
                    check=False,
                )
                self.log += f"== {name}\n{done.stdout}{done.stderr}"
                codes[name] = done.returncode
        return codes
