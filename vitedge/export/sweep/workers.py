"""Who does the trials: this process, one after the other, or Ray's workers on one host or many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vitedge.core import cluster
from vitedge.core.cluster import TIMING, Cluster, Node
from vitedge.core.errors import InputError, UnavailableError, VitedgeError
from vitedge.export.sweep.spec import Resources

TRIES = 2
"""Of a trial that fails by no fault that a message names."""
Task = Callable[..., Any]
Outcome = tuple[int, Any, int]
"""(place, what came or the error, tries)."""


class Workers(Protocol):
    """Who does the trials."""

    def run(self, task: Task, calls: Sequence[tuple[Any, ...]]) -> Iterator[Outcome]:
        """Do `task` with the arguments of each of `calls`, in any order; errors are outcomes."""
        ...

    def time(self, task: Task, calls: Sequence[tuple[Any, ...]]) -> Iterator[Outcome]:
        """Likewise, each alone on its host."""
        ...


class InSequence:
    """This process."""

    def run(self, task: Task, calls: Sequence[tuple[Any, ...]]) -> Iterator[Outcome]:
        """As `Workers` says."""
        for place, arguments in enumerate(calls):
            yield _tried(task, place, arguments)

    time = run


def _tried(task: Task, place: int, arguments: tuple[Any, ...]) -> Outcome:
    for tries in range(1, TRIES + 1):
        try:
            return place, task(*arguments), tries
        except Exception as error:
            if isinstance(error, VitedgeError) or tries == TRIES:
                return place, error, tries
    raise AssertionError


@dataclass
class RayWorkers:
    """Ray's, each trial on its share of a host."""

    cluster: Cluster
    resources: Resources

    def run(self, task: Task, calls: Sequence[tuple[Any, ...]]) -> Iterator[Outcome]:
        """As `Workers` says; a worker that dies, or a host, is a try that failed."""
        share = {
            "num_cpus": self.resources.cores,
            "memory": round(self.resources.memory_gb * 2**30),
        }
        yield from self._collected(task, calls, lambda: share)

    def time(self, task: Task, calls: Sequence[tuple[Any, ...]]) -> Iterator[Outcome]:
        """As `Workers` says: with all cores of a host, and the one thing that it has to time with.

        Raises InputError where no host has it.
        """
        turns: dict[str, int] = {}

        def options() -> dict[str, Any]:
            nodes = [node for node in self.cluster.nodes() if node.times]
            if not nodes:
                raise InputError(
                    f"no host of the cluster has the resource '{TIMING}' that timing takes",
                    fix=f"""start each that may time with --resources '{{"{TIMING}": 1}}'""",
                )
            node = min(nodes, key=lambda node: turns.get(node.id, 0))
            turns[node.id] = turns.get(node.id, 0) + 1
            return self._alone(node)

        yield from self._collected(task, calls, options)

    def _alone(self, node: Node) -> dict[str, Any]:
        return {
            "num_cpus": node.cores,
            "resources": {TIMING: 1},
            "scheduling_strategy": self.cluster.on(node),
        }

    def _collected(
        self,
        task: Task,
        calls: Sequence[tuple[Any, ...]],
        options: Callable[[], Mapping[str, Any]],
    ) -> Iterator[Outcome]:
        ray = self.cluster.ray
        remote = ray.remote(max_retries=0)(_call)

        def submit(place: int) -> Any:
            return remote.options(**options()).remote(task, calls[place])

        running = {submit(place): (place, 1) for place in range(len(calls))}
        while running:
            (done, *_), _ = ray.wait([*running], num_returns=1)
            place, tries = running.pop(done)
            try:
                outcome = ray.get(done)
            except Exception as error:
                cause = getattr(error, "cause", None) or error
                if not isinstance(cause, VitedgeError) and tries < TRIES:
                    running[submit(place)] = (place, tries + 1)
                    continue
                outcome = cause
            yield place, outcome, tries


def _call(task: Task, arguments: tuple[Any, ...]) -> Any:
    """What a worker of Ray's does."""
    return task(*arguments)


@contextmanager
def workers(
    count: int | None, address: str, resources: Resources, output: Path
) -> Iterator[Workers]:
    """Those asked for: Ray's at `address`, or `count` of them here; without either, this process.

    Raises UnavailableError without Ray, InputError for a cluster that does not fit.
    """
    if count is None and not address:
        yield InSequence()
        return
    if count is not None and address:
        raise InputError("`workers` are of this machine, and `address` has its own", fix="drop one")
    with cluster.cluster(address, (count or 0) * resources.cores) as connected:
        connected.check(output)
        needed_bytes = resources.memory_gb * 2**30
        fits = [
            node
            for node in connected.nodes()
            if node.cores >= resources.cores and node.memory_bytes >= needed_bytes
        ]
        if not fits:
            raise UnavailableError(
                f"no host has the {resources.cores} cores and {resources.memory_gb:g} GB that a "
                "trial takes",
                fix="set less in [trial] of the sweep's file",
            )
        yield RayWorkers(connected, resources)
