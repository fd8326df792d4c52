"""What of a command line goes to a device, and what is of this machine alone."""

from __future__ import annotations

from typing import get_type_hints

from vitedge.cli.bench import bench
from vitedge.cli.devices import LOCAL


def test_no_path_of_this_machine_is_sent_to_a_device() -> None:
    paths = {name for name, kind in get_type_hints(bench).items() if "Path" in str(kind)}
    assert {"csv", "html"} <= paths <= LOCAL
