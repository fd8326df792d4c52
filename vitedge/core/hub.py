"""Repositories of models on the Hugging Face Hub: what lies in one, and files out of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vitedge.core.errors import InputError, UnavailableError, error_line, missing

_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


class Repository(NamedTuple):
    """A repository of models as it is at one commit."""

    name: str
    """`USER/REPO`."""
    commit: str
    sizes: Mapping[str, int]
    """Bytes of each file, by its path there."""


def split(text: str) -> tuple[str, str]:
    """`USER/REPO@REV` as name and revision, which may be empty. Raises InputError."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise InputError(
            f"'{text}' names no repository of the Hub", fix="write it as USER/REPO or USER/REPO@REV"
        )
    return match["name"], match["revision"] or ""


def repository(text: str) -> Repository:
    """What lies in `USER/REPO[@REV]`.

    Raises InputError where there is none, and UnavailableError where the Hub cannot be reached or
    its client is missing.
    """
    name, revision = split(text)
    with explained(text):
        from huggingface_hub import HfApi

        info = HfApi().model_info(name, revision=revision or None, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        if not info.sha:
            raise InputError(f"{text} has no commit", fix="push something into it")
        return Repository(name, info.sha, sizes)


def fetch(source: Repository, file: str, folder: Path) -> Path:
    """Download one file into `folder`, under its path there; again only where it is not yet.

    Raises as `repository` does.
    """
    with explained(source.name):
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(source.name, file, revision=source.commit, local_dir=folder)
        return Path(path)


def folder(source: Repository) -> Path:
    """Where files of that commit are kept for later, in the repository's part of the cache."""
    with explained(source.name):
        from huggingface_hub import constants

        cache = Path(constants.HF_HUB_CACHE)
        return cache / f"models--{source.name.replace('/', '--')}" / "vitedge" / source.commit


@contextmanager
def explained(text: str) -> Iterator[None]:
    """One message for whatever the Hub's client raises about the repository `text`."""
    try:
        from huggingface_hub import errors
    except ImportError as error:
        raise missing("huggingface_hub", "hub") from error
    try:
        yield
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.EntryNotFoundError) as error:
        raise InputError(
            f"the Hub refuses {text}: {error_line(error)}",
            fix="check the name, the revision and, with `hf auth whoami`, who you are",
        ) from error
    except Exception as error:
        client = type(error).__module__.partition(".")[0]  # httpx or httpx2, by version
        offline = isinstance(error, errors.OfflineModeIsEnabled)
        if not offline and not client.startswith("httpx"):
            raise
        raise UnavailableError(
            f"the Hub cannot be reached for {text}: {error_line(error)}",
            fix="look at the network, HF_ENDPOINT and HF_HUB_OFFLINE",
        ) from error
