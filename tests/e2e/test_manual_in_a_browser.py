"""Pages of the manual in a real Chromium: none scrolls sideways, on a phone or a desktop."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.browser import CHROMIUM

pytestmark = pytest.mark.heavy
ROOT = Path(__file__).parents[2]
WIDTHS = (390, 1280)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Address and folder of the manual, served on loopback."""
    folder = tmp_path_factory.mktemp("site")
    mkdocs = Path(sys.executable).with_name("mkdocs")
    subprocess.run([mkdocs, "build", "--quiet", "--site-dir", folder], cwd=ROOT, check=True)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_scrolls_sideways(site, scheme):
    play_api = pytest.importorskip("playwright.sync_api", reason="vitedge[browser] is not here")

    address, folder = site
    pages = sorted(path.parent.relative_to(folder) for path in folder.rglob("index.html"))
    with play_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        wide = []
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            for path in pages:
                page.goto(f"{address}/{path}/")
                over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                wide += [(str(path), width, over)] if over > 0 else []
        browser.close()
    assert len(pages) > 50 and wide == []
