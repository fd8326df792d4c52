"""What of a state dict does not fit a model, and the error that says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from vitedge.core.errors import InputError, first_few


def refuse_misfit(problems: Mapping[str, list[str]], source: str | Path, fix: str) -> None:
    """Raise InputError if there are `problems`: lists of tensors by kind ("missing", ...)."""
    listing = "; ".join(
        f"{len(names)} {kind} ({first_few(names)})" for kind, names in problems.items() if names
    )
    if listing:
        what = _other_classes(problems) or "does not fit the model"
        raise InputError(f"{source} {what}: {listing}", fix=fix)


def _other_classes(problems: Mapping[str, list[str]]) -> str:
    """That a head alone does not fit, and how many classes both have; empty for other misfits."""
    if problems.get("missing") or problems.get("unexpected"):
        return ""
    shape = r"\((\d+),?(.*?)\)"
    names = "\n".join(problems.get("misshaped", ()))
    matches = re.findall(f"^.*? {shape}, not {shape}$", names, re.MULTILINE)
    counts = {(theirs, ours) for theirs, inputs, ours, own in matches if inputs == own}
    if len(counts) != 1 or any(inputs != own for _, inputs, _, own in matches):
        return ""
    ((theirs, ours),) = counts
    return f"has {theirs} classes, and the model {ours}"


def misfit(error: Exception) -> dict[str, list[str]]:
    """What torch's `load_state_dict` says does not fit, by kind; empty for any other error."""
    said = str(error)
    quoted = {
        kind: re.findall(r'"([^"]+)"', match[1])
        for kind, title in (("missing", "Missing"), ("unexpected", "Unexpected"))
        if (match := re.search(rf"{title} key\(s\) in state_dict: (.*)", said))
    }
    shapes = re.findall(
        r"size mismatch for (\S+): .*?torch\.Size\(\[(.*?)\]\).*?torch\.Size\(\[(.*?)\]\)", said
    )
    misshaped = [f"{name} ({theirs}), not ({ours})" for name, theirs, ours in shapes]
    return quoted | ({"misshaped": misshaped} if misshaped else {})


def problems(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What of `state` does not fit `model`, by kind; empty where all does."""
    own = model.state_dict()
    misfits = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "misshaped": [
            f"{name} {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if state[name].shape != own[name].shape
        ],
    }
    return {kind: names for kind, names in misfits.items() if names}
