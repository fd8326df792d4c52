"""Ray, where work is spread: started in this process, or a cluster that is there.

Nothing else imports it. What is started here listens on loopback alone and reports to nobody.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitedge.core.code_version import code_version
from vitedge.core.errors import InputError, UnavailableError, error_line, missing
from vitedge.core.machine import usable_cores

TIMING = "vitedge_timing"
"""The resource, one a host, that whoever times there holds."""
OBJECT_STORE_BYTES = 80 * 2**20
"""Of a local one, whose tasks hand paths and figures about: Ray's least, nearly."""
START_S = 90
"""For which a local one may take to start, on a machine that is busy."""
STARTS = 3
"""Tries to start one."""
_STARTED_HERE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: addresses are loopback
    "RAY_agent_register_timeout_ms": str(START_S * 1000),
}


@dataclass(frozen=True)
class Node:
    """A host of a cluster."""

    id: str
    address: str
    cores: int
    memory_bytes: int
    times: bool
    """Whether it has the resource that timing takes."""


@dataclass(frozen=True)
class Cluster:
    """Ray, connected."""

    ray: Any
    """The module."""
    local: bool

    def nodes(self) -> list[Node]:
        """The hosts that are up, by address."""
        alive = [node for node in self.ray.nodes() if node["Alive"]]
        nodes = [
            Node(
                id=node["NodeID"],
                address=node["NodeManagerAddress"],
                cores=int(node["Resources"].get("CPU", 0)),
                memory_bytes=int(node["Resources"].get("memory", 0)),
                times=node["Resources"].get(TIMING, 0) >= 1,
            )
            for node in alive
        ]
        return sorted(nodes, key=lambda node: (node.address, node.id))

    def on(self, node: Node, *, soft: bool = False) -> Any:
        """The strategy that puts a task on `node`, or near where that is `soft`."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node.id, soft=soft)

    def check(self, folder: Path | None = None) -> None:
        """Refuse, before any work, a host of other versions, or without the `folder` of this one.

        Raises InputError, naming host and versions.
        """
        if self.local:
            return
        here, token = code_version(), _token(folder)
        probe = self.ray.remote(num_cpus=0, max_retries=0)(_probe)
        for node in self.nodes():
            task = probe.options(scheduling_strategy=self.on(node)).remote(_place(folder))
            try:
                there, read = self.ray.get(task, timeout=START_S)
            except Exception as error:  # of several kinds, by what is missing there
                raise InputError(
                    f"the host {node.address} cannot run vitedge: {error_line(error)}",
                    fix="install the same vitedge and runtimes there, then start its Ray",
                ) from error
            if differences := _differences(here, there):
                raise InputError(
                    f"the host {node.address} has {differences}",
                    fix="install the same versions on every host, or leave it out",
                )
            if read != token:
                raise InputError(
                    f"the host {node.address} does not see {folder}",
                    fix="put `output` on a file system that every host mounts in the same place",
                )


def installed() -> bool:
    """Whether Ray is; it is not imported."""
    return importlib.util.find_spec("ray") is not None


@contextmanager
def cluster(address: str = "", workers: int = 0) -> Iterator[Cluster]:
    """Ray at `address`, or started here with so many `workers` (0: one a core) and stopped after.

    Raises UnavailableError where it is not installed or does not start, InputError where nothing
    answers at `address`.
    """
    if not installed():
        raise missing("ray", "ray")
    if "ray" not in sys.modules:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if not address:
            os.environ.update(_STARTED_HERE)
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            _start(ray, workers or usable_cores(), quiet)
    except Exception as error:
        if address:
            raise InputError(
                f"no Ray cluster answers at `address={address}`: {error_line(error)}",
                fix="start one with 'ray start --head' and give its HOST:PORT",
            ) from error
        raise UnavailableError(
            f"Ray does not start here: {error_line(error)}",
            fix="leave `workers` out: all runs in sequence",
        ) from error
    try:
        with redirect_stdout(sys.stderr):  # where Ray tells of workers that died
            yield Cluster(ray, local=not address)
    finally:
        ray.shutdown()


def _start(ray: Any, cores: int, quiet: Mapping[str, Any]) -> None:
    """Start Ray here; again where a busy machine was too slow, as Ray waits for 30 s alone."""
    for tries in range(1, STARTS + 1):
        try:
            ray.init(
                address="local",  # a cluster that is left here, or in RAY_ADDRESS, is not ours
                num_cpus=cores,
                num_gpus=0,
                resources={TIMING: 1},
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
            return
        except Exception as error:
            ray.shutdown()
            if tries == STARTS or "timed out" not in str(error):
                raise


def _place(folder: Path | None) -> str:
    return "" if folder is None else str(folder.resolve())


def _token(folder: Path | None) -> tuple[str, ...]:
    """What tells a folder from another of its name: what is in it."""
    return () if folder is None or not folder.is_dir() else tuple(sorted(os.listdir(folder)))


def _probe(folder: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """What a host has, and what it sees of `folder`."""
    return code_version(), _token(Path(folder) if folder else None)


def _differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """In words, where versions differ; empty where they do not."""
    names: Sequence[str] = sorted({*here, *there}, key=str.lower)
    return ", ".join(
        f"{name} {there.get(name, 'missing')} and not {here.get(name, 'none')}"
        for name in names
        if here.get(name) != there.get(name)
    )
