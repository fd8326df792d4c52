"""A container's limits and kind, from the files that it shows to those inside."""

import pytest

from vitedge.core import container

V1_MEMORY = "sys/fs/cgroup/memory"
HUGE = "9223372036854771712"
"""What v1 writes for no limit."""


def v2(group, **quotas):
    """Of a process in `group`, and the quotas of groups by name; `root` is that of all."""
    files = {f"sys/fs/cgroup/{name}/cpu.max": quota for name, quota in quotas.items()}
    if "root" in quotas:
        files["sys/fs/cgroup/cpu.max"] = files.pop("sys/fs/cgroup/root/cpu.max")
    return {"proc/self/cgroup": f"0::{group}", **files}


def v1(quota_us):
    return {
        "proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/pod/app\n0::/",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota_us,
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        # v2: the tightest of the group and those above it
        (v2("/a/b", root="max 100000", a="50000 100000", **{"a/b": "90000 100000"}), 0.5),
        (v2("/", root="25000 100000"), 0.25),  # v2 in a container: its own group is the root
        (v1("30000"), 0.3),  # v1, and the path of the host's namespace is not mounted
        (v2("/", root="max 100000"), None),  # no limit
        (v1("-1"), None),
        ({}, None),  # no cgroups
    ],
)
def test_cpu_quota(tree, files, quota):
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
                f"{V1_MEMORY}/app/memory.limit_in_bytes": "1073741824",
                f"{V1_MEMORY}/memory.limit_in_bytes": HUGE,
            },
            1 << 30,
        ),
        ({"proc/self/cgroup": "4:memory:/", f"{V1_MEMORY}/memory.limit_in_bytes": HUGE}, None),
        ({}, None),
    ],
)
def test_memory_limit(tree, files, limit):
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
def test_kind_of_container(tree, files, kind):
    assert container.kind(tree(files)) == kind
