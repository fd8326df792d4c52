"""Pictures of pages for people to look at: `python -m benchmarks.screenshots FOLDER [PAGE…]`.

Without a PAGE, those of bench and gate with made-up numbers. Needs Chromium.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.browser import CHROMIUM, SCHEMES, arguments
from tests.support.page_artifacts import page, three
from tests.support.page_reports import field
from vitedge.show.page import bench, shell

SIZES = {"phone": (390, 9000), "desktop": (1280, 7000)}


def made_up(folder):
    """The two pages with everything on them."""
    pages = {
        "bench": bench.render(field(), "vitedge bench --html bench.html"),
        "gate": page(three(), "vitedge gate --max-drop 0.5 --html gate.html"),
    }
    for name, text in pages.items():
        shell.write(text, folder / f"{name}.html")
    return [folder / f"{name}.html" for name in pages]


def picture(source, out, size, scheme):
    """Show the page in a frame: a window of Chromium's is never as narrow as a phone."""
    width, height = size
    with tempfile.TemporaryDirectory() as work:
        outer = Path(work) / "outer.html"
        frame = f'<iframe src="{source.resolve().as_uri()}" width="{width}" height="{height}"'
        outer.write_text(f'<body style="margin:0">{frame} style="border:0"></iframe>')
        window = (f"--window-size={max(width, 500)},{height}", f"--screenshot={out}")
        command = [*arguments(Path(work) / "profile", scheme), *window, outer.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def main():
    if CHROMIUM is None:
        sys.exit("no chromium here")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for source in [Path(name) for name in sys.argv[2:]] or made_up(folder):
        for name, size in SIZES.items():
            for scheme in SCHEMES:
                out = folder / f"{source.stem}-{name}-{scheme}.png"
                picture(source, out, size, scheme)
                print(out)


if __name__ == "__main__":
    main()
