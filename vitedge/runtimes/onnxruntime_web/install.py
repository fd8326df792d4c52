"""Where onnxruntime-web and Chromium are: both are the user's own, and nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import util
from pathlib import Path
from typing import NamedTuple

from vitedge.core.catalog import in_range
from vitedge.core.errors import InputError, UnavailableError, missing
from vitedge.core.json_document import read_settings

ORT_WEB, BROWSER = "VITEDGE_ORT_WEB", "VITEDGE_BROWSER"
"""Variables of the environment: a folder, and a program."""
EXTRA = "browser"
PACKAGE = "onnxruntime-web"
SINCE = "1.22"
"""The first version that says what a model's inputs and outputs are."""
_PROGRAMS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    *("chrome", "microsoft-edge", "msedge"),
)
_INSTALLED = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
_PLAYWRIGHT = {"linux": ".cache", "darwin": "Library/Caches", "win32": "AppData/Local"}
_PLAYWRIGHT_CHROMIUM = ("chrome", "chrome.exe", "Chromium", "Google Chrome for Testing")
ANSWER_S = 20.0
"""In which a browser says its version."""


class OrtWeb(NamedTuple):
    """An npm package of onnxruntime-web."""

    dist: Path
    """The folder with its scripts and WASM."""
    version: str


def ort_web() -> OrtWeb:
    """The onnxruntime-web of VITEDGE_ORT_WEB, or else of the nearest `node_modules`.

    Raises UnavailableError where there is none.
    """
    for folder in _ort_web_places():
        if (folder / "package.json").is_file():
            return _package(folder)
    looked = f"node_modules/{PACKAGE} of {Path.cwd()} and of the folders above it"
    if os.environ.get(ORT_WEB):
        looked = " and ".join(map(str, _ort_web_places()))
    raise UnavailableError(
        f"no {PACKAGE} is here: there is no package.json in {looked}",
        fix=f"npm install {PACKAGE}, or let {ORT_WEB} name the folder that npm made of it",
    )


def _ort_web_places() -> Iterator[Path]:
    if stated := os.environ.get(ORT_WEB):
        folder = Path(stated).absolute()
        yield folder
        if folder.name == "dist":
            yield folder.parent
        return
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield folder / "node_modules" / PACKAGE


def _package(folder: Path) -> OrtWeb:
    again = f"install it again: npm install {PACKAGE}"
    try:
        stated = read_settings(folder / "package.json")
    except InputError as error:
        raise UnavailableError(error.what, fix=again) from error
    name, version = stated.get("name"), stated.get("version")
    if name != PACKAGE or not isinstance(version, str):
        raise UnavailableError(
            f"{folder} holds {name!r} and not {PACKAGE}", fix=f"let {ORT_WEB} name its folder"
        )
    if not in_range(version, (SINCE, "")):
        raise UnavailableError(
            f"{PACKAGE} {version} in {folder} is too old: it must be {SINCE} or newer",
            fix=f"npm install {PACKAGE}@latest",
        )
    if not (folder / "dist").is_dir():
        raise UnavailableError(f"{folder} has no dist/, where its scripts are", fix=again)
    return OrtWeb(folder / "dist", version)


def browser() -> Path:
    """The Chromium of VITEDGE_BROWSER, or Playwright's own, or else the system's.

    Raises UnavailableError where there is none.
    """
    if stated := os.environ.get(BROWSER):
        path = shutil.which(stated)
        if path is None:
            raise UnavailableError(
                f"{BROWSER} names {stated}, which is no program that can be run",
                fix="let it name a Chromium, Chrome or Edge",
            )
        return Path(path)
    on_path = (Path(path) for name in _PROGRAMS if (path := shutil.which(name)))
    for program in (*_of_playwright(), *on_path, *map(Path, _INSTALLED)):
        if program.is_file():
            return program
    raise UnavailableError(
        f"no Chromium is here: looked for Playwright's own, and for {', '.join(_PROGRAMS)} on PATH",
        fix=f"playwright install chromium, or apt install chromium; or let {BROWSER} name one",
    )


def _of_playwright() -> Iterator[Path]:
    """The browsers that `playwright install chromium` left, the newest first."""
    cache = Path.home() / _PLAYWRIGHT.get(sys.platform, ".cache") / "ms-playwright"
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or cache)
    for version in sorted(folder.glob("chromium-*"), reverse=True):
        for name in _PLAYWRIGHT_CHROMIUM:
            yield from version.glob(f"chrome-*/**/{name}")


@cache
def browser_version(program: Path) -> str:
    """`Chromium 156.0.8078.114`; `Chromium` where it does not say."""
    if sys.platform != "win32":  # there it opens a window
        command = [str(program), "--version"]
        try:
            answer = subprocess.run(
                command, capture_output=True, text=True, timeout=ANSWER_S, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError):
            answer = ""
        for line in answer.splitlines():
            words = line.split()
            numbers = [i for i, word in enumerate(words) if word[0].isdigit()]
            if numbers:
                return " ".join(words[: numbers[0] + 1])
    return "Chromium"


def playwright() -> None:
    """Raise UnavailableError where Playwright is not installed."""
    if util.find_spec("playwright") is None:
        raise missing("playwright", EXTRA)


PARTS: dict[str, Callable[[], object]] = {
    "the package playwright": playwright,
    PACKAGE: ort_web,
    "a Chromium": browser,
}
"""What a page takes, and what raises UnavailableError where it is not here."""


def lacking() -> tuple[str, UnavailableError | None]:
    """The first of `PARTS` that is not here, and how to get it; empty and None where all are."""
    for name, find in PARTS.items():
        try:
            find()
        except UnavailableError as error:
            return name, error
    return "", None
