"""What of a command line goes to a device, and what is of this machine alone."""

from __future__ import annotations

import inspect

from vitedge.cli.bench import bench
from vitedge.cli.devices import LOCAL


def test_no_path_of_this_machine_is_sent_to_a_device() -> None:
    options = inspect.signature(bench).parameters.items()
    paths = {name for name, option in options if "Path" in str(option.annotation)}
    assert {"artifacts", "csv", "html"} <= paths <= LOCAL
