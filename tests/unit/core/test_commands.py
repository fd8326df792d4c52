"""What is printed to be copied, a shell takes back as it was meant."""

import shlex
from pathlib import Path

import pytest

from vitedge.core.bundle import open_bundle
from vitedge.core.commands import command
from vitedge.core.errors import InputError
from vitedge.core.progress import SILENT
from vitedge.export.build import build
from vitedge.show.terminal.tables import next_commands

HOSTILE = ("a b # c", "артефакты", "it's", "$HOME;ls", "-x*?")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_path_survives_a_shell(name):
    path = Path(name) / "digits-openvino-cpu-fp32"
    words = shlex.split(next_commands([path]).removeprefix("next: "), comments=True)
    assert words == ["vitedge", "bench", str(path), "--duration", "10"]
    words = shlex.split(command("build", path, force=True))
    assert words == ["vitedge", "build", str(path), "--force"]


def test_a_fix_with_a_path_is_a_command(small_bundle, tmp_path):
    folder = small_bundle(tmp_path / "a b # c" / "digits")
    with pytest.raises(InputError) as caught:
        build(open_bundle(folder), SILENT, force=False)
    words = shlex.split(caught.value.fix.partition(": ")[2], comments=True)
    assert words == ["vitedge", "bench", str(folder)]
