"""A container's limits and kind, from the files that it shows to those inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vitedge.core import container

Tree = Callable[[dict[str, str]], Path]

V1_GROUP = {"proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/pod/app\n0::/"}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        # v2: the tightest of the group and those above it
        (
            {
                "proc/self/cgroup": "0::/pod/app",
                "sys/fs/cgroup/cpu.max": "max 100000",
                "sys/fs/cgroup/pod/cpu.max": "50000 100000",
                "sys/fs/cgroup/pod/app/cpu.max": "90000 100000",
            },
            0.5,
        ),
        # v2 in a container: its own group is the root
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "25000 100000"}, 0.25),
        # v1, and the path of the host's namespace is not mounted
        (
            {
                **V1_GROUP,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "30000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            0.3,
        ),
        # no limit
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
        (
            {
                **V1_GROUP,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({}, None),  # no cgroups
    ],
)
def test_cpu_quota(tree: Tree, files: dict[str, str], quota: float | None) -> None:
    assert container.cpu_quota(tree(files)) == quota


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        (
            {
                "proc/self/cgroup": "0::/pod/app",
                "sys/fs/cgroup/pod/memory.max": "536870912",
                "sys/fs/cgroup/pod/app/memory.max": "max",
            },
            512 << 20,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/app",
                "sys/fs/cgroup/memory/app/memory.limit_in_bytes": "1073741824",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            1 << 30,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_memory_limit(tree: Tree, files: dict[str, str], limit: int | None) -> None:
    assert container.memory_limit_bytes(tree(files)) == limit


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/user.slice/user-1000.slice"}, None),
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": 'engine="podman-4.9.3"'}, "podman"),
        ({"proc/self/cgroup": "1:cpu:/kubepods/burstable/pod7", ".dockerenv": ""}, "kubernetes"),
        ({"var/run/secrets/kubernetes.io/serviceaccount/token": "x"}, "kubernetes"),
        ({"proc/self/cgroup": "1:cpu:/lxc/web"}, "lxc"),
        ({"run/systemd/container": "systemd-nspawn"}, "systemd-nspawn"),
    ],
    ids=str,
)
def test_kind_of_container(tree: Tree, files: dict[str, str], kind: str | None) -> None:
    assert container.kind(tree(files)) == kind
