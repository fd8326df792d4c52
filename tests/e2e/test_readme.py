"""The README's `bash` blocks run as they are, in order, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from vitedge.core import catalog
from vitedge.core.machine import describe_machine

ROOT = Path(__file__).parents[2]


def test_every_bash_block_of_the_readme_runs(tmp_path: Path) -> None:
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
