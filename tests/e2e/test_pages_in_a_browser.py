"""The pages in a real browser, at a phone's and a desktop's width, light and dark.

`python -m benchmarks.screenshots FOLDER` makes pictures of the same for people to look at.
"""

from __future__ import annotations

import html
import json
import re
import subprocess

import pytest

from tests.support.browser import CHROMIUM, SCHEMES, arguments
from tests.support.page_artifacts import page, shown, three
from tests.support.page_reports import HOSTILE, field, measured
from vitedge.show.page import bench, shell

pytestmark = [
    pytest.mark.heavy,  # installing Chromium takes a CI a minute
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here"),
]

WIDTHS = (390, 1280)
POLICY_HERE = shell.POLICY.replace("'none';", "'none'; script-src 'nonce-probe';", 1)
PROBE = """<script nonce="probe">
const blocked = [];
addEventListener("securitypolicyviolation", event => blocked.push(event.blockedURI));
addEventListener("error", event => blocked.push(event.message), true);
addEventListener("load", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
  const box = element => element.getBoundingClientRect();
  const outside = [...document.querySelectorAll("main *")].filter(element =>
    box(element).right > innerWidth + 1 && !element.closest(".scroll"));
  parent.postMessage({
    name: NAME, width: innerWidth, blocked,
    overflow: document.documentElement.scrollWidth - innerWidth,
    outside: outside.map(element => element.outerHTML.slice(0, 80)),
    charts: [...document.querySelectorAll("svg[role=img]")].map(svg => box(svg).height),
    images: [...document.images].filter(image => !image.naturalWidth).length,
    scrolls: [...document.querySelectorAll(".scroll")].filter(element => element.tabIndex).length,
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.querySelector("h1")).color,
    scripts: document.scripts.length,
  }, "*");
});
</script>"""
OUTER = """<!doctype html><html><body><pre id="seen"></pre><script>
addEventListener("message", event =>
  document.getElementById("seen").append(JSON.stringify(event.data) + "\\n"));
</script>"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A page that shows ours in frames of each width, with a probe in each."""
    folder = tmp_path_factory.mktemp("pages")
    hostile = [measured(HOSTILE, "int8", 1.2, 0.83), *field()]
    texts = {
        "bench": bench.render(hostile, f"vitedge bench {HOSTILE}"),
        "gate": page([*three(), shown(HOSTILE, "failed", 2.0)]),
    }
    frames = []
    for name, text in texts.items():
        policy = f'content="{shell.POLICY}">'
        assert text.count(policy) == 1
        probe = PROBE.replace("NAME", json.dumps(name))
        path = folder / f"{name}.html"
        shell.write(text.replace(policy, f'content="{POLICY_HERE}">{probe}'), path)
        frames += [f'<iframe src="{path.name}" width="{w}" height="900"></iframe>' for w in WIDTHS]
    outer = folder / "outer.html"
    outer.write_text(OUTER + "".join(frames))
    return outer


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_fits_every_width_and_fetches_nothing(opened, tmp_path, scheme):
    done = subprocess.run(
        [*arguments(tmp_path, scheme), "--virtual-time-budget=3000", "--dump-dom", opened.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    seen = [
        json.loads(html.unescape(line))
        for line in re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)[0].splitlines()
    ]
    assert sorted((each["name"], each["width"]) for each in seen) == [
        (name, width) for name in ("bench", "gate") for width in WIDTHS
    ]
    for each in seen:
        assert each["blocked"] == [] and each["images"] == 0, each
        assert each["overflow"] <= 0 and each["outside"] == [], each
        assert len(each["charts"]) >= 5 and min(each["charts"]) > 50, each
        assert each["scrolls"] == 0 and each["scripts"] == 1, each
        dark = sum(map(int, re.findall(r"\d+", each["paper"]))) < 128 * 3
        assert dark == (scheme == "dark") and each["ink"] != each["paper"]
