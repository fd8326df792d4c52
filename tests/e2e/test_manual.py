"""The manual cannot be wrong: its blocks run as they are, its pages are those of the code."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from docs.tools import outputs
from docs.tools.pages import DOCS, generated
from tests.support.lineage import photographs

ROOT = DOCS.parent
PAGES = {str(page.relative_to(ROOT)): page for page in (ROOT / "README.md", *DOCS.rglob("*.md"))}
QUICK = ("README.md", "docs/data.md", "docs/python-api.md")
"""Whose blocks run in CI; the others are heavy."""
LONGEST = {"README.md": 120}
MOST_LINES = 250
FRESH_CLONE = "in a fresh clone"
"""Of blocks that are run there."""
NOT_RUN = 0.1
"""Of all commands, at most; each block of them says what it needs."""


class Block(NamedTuple):
    language: str
    needs: str
    text: str

    @property
    def commands(self) -> int:
        lines = re.sub(r"\\\n", "", self.text).splitlines()
        return sum(bool(line.strip()) and not line.startswith("#") for line in lines)


def blocks(page: Path) -> list[Block]:
    """Those of bash and Python; a title says why one is not run."""
    fence = re.compile(r'^```(bash|python)(?: title="([^"]*)")?\n(.*?)^```', re.M | re.S)
    return [Block(*match.groups(default="")) for match in fence.finditer(page.read_text())]


def with_blocks(language: str) -> list[object]:
    """The pages that have some to run, as parameters."""
    return [
        pytest.param(page, id=name, marks=() if name in QUICK else pytest.mark.heavy)
        for name, page in PAGES.items()
        if any(block.language == language and not block.needs for block in blocks(page))
    ]


@pytest.fixture
def yours(tmp_path, held_out, monkeypatch):
    """A folder with what the manual takes as the reader's own: images, and a checkpoint."""
    for index, image in enumerate(held_out.images[:40]):
        folder = tmp_path / "val" / str(held_out.labels[index])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    Image.fromarray(held_out.images[0]).save(tmp_path / "digit.png")
    (tmp_path / "photos").mkdir()
    for index, photograph in enumerate(photographs(12)):
        Image.fromarray(photograph).save(tmp_path / "photos" / f"{index}.jpg")
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "photos" / "0.jpg").read_bytes())
    weights = ROOT / "vitedge" / "models" / "zoo" / "digits.safetensors"
    (tmp_path / "vit.safetensors").write_bytes(weights.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def settings(page, yours):
    """The files of settings that the page shows: blocks of TOML that begin with their name."""
    for name, text in re.findall(
        r"^```toml\n# (\S+\.toml)\n(.*?)^```", page.read_text(), re.M | re.S
    ):
        (yours / name).write_text(text)


@pytest.fixture
def models(request, page, yours):
    """Folders of Hugging Face's layout, where the page speaks of them."""
    if "./my-vit" in page.read_text():
        request.getfixturevalue("hf_folder")
    if "./my-clip" in page.read_text():
        request.getfixturevalue("peers")
        from tests.support import two_towers

        two_towers.save("clip", yours / "my-clip")
        (yours / "labels.txt").write_text("\n".join(two_towers.CLASSES))


@pytest.mark.parametrize("page", with_blocks("bash"))
def test_every_bash_block_of_a_page_runs(page, settings, models):
    script = "\n".join(
        block.text for block in blocks(page) if block.language == "bash" and not block.needs
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", f"set -e\n{script}"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if page.name != "README.md":  # which shows what the demo prints
        assert outputs.missing(page.read_text(), done.stdout) == []


@pytest.mark.parametrize("page", with_blocks("python"))
def test_every_python_block_of_a_page_runs(page, yours, held_out, capsys):
    text = "\n".join(
        block.text for block in blocks(page) if block.language == "python" and not block.needs
    )
    exec(text, {})
    if page.name == "python-api.md":
        said = capsys.readouterr().out
        assert f"Class(label='{held_out.labels[0]}'" in said and "passed" in said


@pytest.mark.heavy
def test_what_is_typed_in_a_fresh_clone_ends_with_the_table_of_readme(tmp_path):
    run = functools.partial(subprocess.run, check=True, capture_output=True, text=True)
    run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"])
    for name in ("README.md", "docs/quickstart.md"):
        (block,) = (block for block in blocks(PAGES[name]) if block.needs == FRESH_CLONE)
        done = run(["bash", "-c", block.text], cwd=tmp_path / "clone")
    assert outputs.missing((ROOT / "README.md").read_text(), done.stdout) == []


def test_few_commands_are_not_run_and_each_says_what_it_needs():
    bash = [block for page in PAGES.values() for block in blocks(page) if block.language == "bash"]
    left = sum(block.commands for block in bash if block.needs not in ("", FRESH_CLONE))
    assert 0 < left <= NOT_RUN * sum(block.commands for block in bash)
    for name, page in PAGES.items():
        assert not re.search(r"^```(sh|console|shell)?\nvitedge", page.read_text(), re.M), name


def test_commands_and_errors_are_those_of_the_code():
    for name, text in generated().items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"{name}: run `make manual`"


@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_long(name):
    lines = PAGES[name].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST.get(name, MOST_LINES)
