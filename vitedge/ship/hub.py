"""Artifacts on the Hugging Face Hub: what a manifest lists goes up and comes down, no more."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import msgspec

from vitedge.core import hub
from vitedge.core.bundle import MANIFEST, Bundle, made_anew, open_bundle, read_manifest
from vitedge.core.errors import InputError
from vitedge.core.publication import check_replaceable, publish, workspace
from vitedge.core.spec import Name
from vitedge.core.trust import Trust
from vitedge.ship import local_paths
from vitedge.ship.card import card

README = "README.md"
MANIFEST_BYTES = 64 * 2**20
MADE_BYTES = 256 * 2**20
"""Of a report, evidence or a signature."""


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What was uploaded, and as which commit."""

    artifact: str
    repository: str
    commit: str
    url: str
    files: tuple[str, ...]


def push(bundle: Bundle, name: str, licence: str, *, private: bool) -> Pushed:
    """Upload a verified bundle with its card, reports and signature as one commit.

    Raises InputError, before anything is sent, for paths of this machine in any of them.
    """
    repository, revision = hub.split(name)
    if revision:
        raise InputError(f"'{name}' names a revision", fix="push to USER/REPO: it adds a commit")
    text = card(bundle, licence).replace("USER/REPO", repository)
    unlisted = sorted(path for path in bundle.path.iterdir() if made_anew(path.name))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        staged = [work / README]
        staged[0].write_text(text, encoding="utf-8")
        for path in unlisted:
            staged.append(work / path.name)
            shutil.copyfile(path, staged[-1], follow_symlinks=False)
        staged += [bundle.checked / listed for listed in (MANIFEST, *bundle.manifest.files)]
        local_paths.refuse(staged)
        with hub.explained(name):
            from huggingface_hub import CommitOperationAdd, HfApi

            api = HfApi()
            api.create_repo(repository, exist_ok=True, private=private)
            commit = api.create_commit(
                repository,
                [CommitOperationAdd(path.name, path) for path in staged],
                commit_message=f"{bundle.manifest.name}, by vitedge push",
            )
    return Pushed(
        artifact=str(bundle.path),
        repository=repository,
        commit=commit.oid,
        url=str(commit.commit_url),
        files=tuple(path.name for path in staged),
    )


def pull(name: str, output: Path, trust: Trust | None, *, force: bool) -> Bundle:
    """Download the bundle in `USER/REPO[@REV]` into `output`, under its own name, and verify it.

    Fetched are the manifest, what it lists, and what measuring and signing made. Raises
    InputError where they are not what it says, and UnavailableError as `hub.repository` does.
    """
    source = hub.repository(name)
    if MANIFEST not in source.sizes:
        raise InputError(f"{name} holds no artifact: it has no {MANIFEST}", fix="check the name")
    with workspace(output) as work:
        staged = work / "pulled"
        _fetch(source, MANIFEST, staged, MANIFEST_BYTES)
        manifest = read_manifest(staged)
        try:
            final = output / msgspec.convert(manifest.name, Name)
        except msgspec.ValidationError:
            raise InputError(
                f"the artifact in {name} calls itself {manifest.name!r}, which is no name of a "
                "folder",
                fix="ask who pushed it",
            ) from None
        if final.exists() and not force:
            raise InputError(f"{final} is there already", fix="pass `force=True` to replace it")
        check_replaceable(final)
        for file, size_bytes in manifest.sizes.items():
            if source.sizes.get(file) != size_bytes or Path(file).name != file:
                raise InputError(
                    f"{name} has no {file!r} of {size_bytes:,} bytes, which its manifest lists",
                    fix="ask who pushed it to push it again",
                )
            _fetch(source, file, staged, size_bytes)
        for file in filter(made_anew, source.sizes):
            _fetch(source, file, staged, MADE_BYTES)
        shutil.rmtree(staged / ".cache", ignore_errors=True)  # of the Hub's client
        open_bundle(staged, trust)
        publish(staged, final)
    return open_bundle(final, trust)


def _fetch(source: hub.Repository, file: str, folder: Path, limit_bytes: int) -> None:
    """Download a file of at most `limit_bytes`. Raises InputError for a larger one."""
    if source.sizes[file] > limit_bytes:
        raise InputError(
            f"{file} in {source.name} has {source.sizes[file]:,} bytes, and {limit_bytes:,} are "
            "taken at most",
            fix="is it the right repository?",
        )
    hub.fetch(source, file, folder)
