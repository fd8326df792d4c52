"""What a lint rule is: a function from graph and target to complaints, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vitedge.core.manifest import Consequence
from vitedge.core.spec import Target
from vitedge.graph.structure import Structure

Complaint = tuple[str, str]
"""The node (empty: the whole graph), and what is wrong with it."""
Find = Callable[[Structure, Target], Iterator[Complaint]]


@dataclass(frozen=True)
class Rule:
    """One known trap: how to find it, what it costs, and the way out."""

    id: str
    consequence: Consequence
    fix: str
    find: Find
