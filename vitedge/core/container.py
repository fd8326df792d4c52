"""What this process is allowed of its machine: a container's limits, and which kind it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vitedge.core.cpu import read


def cpu_quota(root: Path) -> float | None:
    """CPU quota of this process in cores, the tightest of its cgroup and those above.

    `root` holds proc/ and sys/. Reads cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us).
    """
    quotas = []
    for files in _groups(root, "cpu", ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        words = " ".join(files).split()
        if len(words) == 2 and words[0] not in ("max", "-1"):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_limit_bytes(root: Path) -> int | None:
    """What this process may use of the machine's memory, None where nothing limits it."""
    limits = []
    for files in _groups(root, "memory", ["memory.max"], ["memory.limit_in_bytes"]):
        limits += [int(text) for text in files if text.isdigit()]
    limit = min(limits, default=None)
    return None if limit is None or limit >= 2**60 else limit  # v1 writes a huge number for none


def kind(root: Path) -> str | None:
    """`docker`, `podman`, `kubernetes`, `lxc`, …; None where this is no container."""
    groups = read(root / "proc/self/cgroup") or ""
    if (root / "var/run/secrets/kubernetes.io").exists() or "kubepods" in groups:
        return "kubernetes"
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists() or "/docker" in groups:
        return "docker"
    if "/lxc" in groups:
        return "lxc"
    return read(root / "run/systemd/container")


def _groups(root: Path, controller: str, v2: list[str], v1: list[str]) -> Iterator[list[str]]:
    """What `v2` or `v1`, files of a controller, say of this process's cgroup and of those above."""
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, names = root / "sys/fs/cgroup", v2
        elif controller in controllers.split(","):
            mount, names = root / "sys/fs/cgroup" / controller, v1
        else:
            continue
        folder = mount / path.strip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(mount):
                break
            yield [read(group / name) or "" for name in names]
