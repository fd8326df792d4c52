"""A stand-in of the Hub's endpoints that its client uses, on loopback: repositories in memory."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.commits = {}
        """Of each repository: its commits, oldest first, as (id, {path: content})."""
        self.requested = []
        """Every path that was asked for."""

    @property
    def environment(self):
        """What lets a process of the command line use it."""
        return {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "hf_nobody",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def commit(self, name, files):
        """Add or replace files of a repository; returns the commit's id."""
        commits = self.commits.setdefault(name, [])
        content = {**(commits[-1][1] if commits else {}), **files}
        oid = hashlib.sha1(f"{name}{len(commits)}".encode()).hexdigest()
        commits.append((oid, content))
        return oid

    def at(self, name, revision):
        """The commit that a branch or an id means; None where there is none."""
        commits = self.commits.get(name, [])
        if revision in ("", "main"):
            return commits[-1] if commits else None
        return next((commit for commit in commits if commit[0] == revision), None)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, code, body=b"", **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def missing(self, code):
        self.send(404, {"error": "not found"}, X_Error_Code=code)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requested.append(self.path)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
            self.server.commits.setdefault(name, [])
            self.send(200, {"url": f"{self.server.environment['HF_ENDPOINT']}/{name}", "id": name})
        elif self.path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            metadata = yaml.safe_load(text.split("---\n")[1])
            named = all(
                model["name"] and model["results"] for model in metadata.get("model-index", [])
            )
            wrong = [] if named else [{"message": "a model without a name or results"}]
            self.send(400 if wrong else 200, {"warnings": [], "errors": wrong})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main.*", self.path):
            asked = json.loads(body)["files"]
            mode = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self.send(200, {"files": [{"path": file["path"], **mode} for file in asked]})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main.*", self.path):
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            oid = self.server.commit(match[1], files)
            url = f"{self.server.environment['HF_ENDPOINT']}/{match[1]}/commit/{oid}"
            self.send(200, {"success": True, "commitOid": oid, "commitUrl": url})
        else:
            self.missing("NotHere")

    def do_GET(self):
        self.server.requested.append(self.path)
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            commit = self.server.at(match[1], match[2] or "")
            if commit is None:
                self.missing(
                    "RevisionNotFound" if match[1] in self.server.commits else "RepoNotFound"
                )
                return
            files = [{"rfilename": name, "size": len(c)} for name, c in commit[1].items()]
            self.send(200, {"id": match[1], "sha": commit[0], "siblings": files, "tags": []})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            commit = self.server.at(match[1], match[2])
            if commit is None or match[3] not in commit[1]:
                self.missing("EntryNotFound")
                return
            content = commit[1][match[3]]
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self.send(200, content, ETag=etag, X_Repo_Commit=commit[0])
        else:
            self.missing("NotHere")

    do_HEAD = do_GET


@contextmanager
def served():
    """A Hub of nobody's, while it is used."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
