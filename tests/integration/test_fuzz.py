"""Some seconds of fuzzing of every reader; `python -m benchmarks.fuzz --seconds N` for more."""

import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 15


def test_no_reader_raises_anything_but_what_it_should():
    pytest.importorskip("atheris")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", "--seconds", str(SECONDS)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = int(done.stderr.rpartition("Done ")[2].split()[0])
    assert runs > 500  # else nothing was tried
