"""The gate as a process has it: whatever its output can show."""

from __future__ import annotations

import io
import signal
import sys

import pytest

from vitedge.cli import main


def test_a_terminal_that_lacks_a_sign_does_not_fail_what_passes(write, monkeypatch):
    raw = io.BytesIO()
    path = write(artifact="модель-int8")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    monkeypatch.setattr(sys, "argv", ["vitedge", "gate", str(path), "--max-drop=1"])
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as raised:
            main.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert not raised.value.code
    sys.stdout.flush()
    assert b"??????-int8" in raw.getvalue() and b"gate: passed" in raw.getvalue()
