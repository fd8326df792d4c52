"""The files of one page on loopback, under a token, with the headers that give WASM threads."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfileobj
from threading import Thread

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; worker-src 'self' blob:; "
        "connect-src 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""The first two isolate a page (`crossOriginIsolated`), without which it has no shared memory."""
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
}


@contextmanager
def serve(files: Mapping[str, Path], headers: Mapping[str, str]) -> Iterator[str]:
    """Serve `files`, by their paths below the URL that this gives; nothing else is there.

    On a port of its own of 127.0.0.1, to whoever knows the URL's token.
    """
    root = f"/{secrets.token_urlsafe(24)}/"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            file = files.get(path[len(root) :]) if path.startswith(root) else None
            if file is None or not file.is_file():
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            with file.open("rb") as content:
                self.send_response(HTTPStatus.OK)
                kind = _TYPES.get(file.suffix, "application/octet-stream")
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(file.stat().st_size))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                copyfileobj(content, self.wfile, 2**20)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: stderr is for people."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    thread = Thread(target=server.serve_forever, name="vitedge-page", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{root}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
