"""The README's `bash` blocks and the manual's `python` blocks run as they are, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from vitedge.core import catalog
from vitedge.core.machine import describe_machine

ROOT = Path(__file__).parents[2]


def test_every_bash_block_of_the_readme_runs(tmp_path):
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    script = "set -e\n" + "\n".join(blocks)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    target = catalog.find_target("onnxruntime", describe_machine(threads=0)).name
    assert (tmp_path / "artifacts" / f"digits-{target}-int8" / "report.json").exists()


def test_every_python_block_of_the_manual_runs(tmp_path, held_out, monkeypatch, capsys):
    text = (ROOT / "docs" / "python-api.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    Image.fromarray(held_out.images[0]).save(tmp_path / "digit.png")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {})
    said = capsys.readouterr().out
    assert f"Class(label='{held_out.labels[0]}'" in said and "passed" in said
