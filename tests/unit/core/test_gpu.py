"""GPUs are asked of the driver; a machine without one has none, and that is no error."""

import os
import subprocess
import sys

from vitedge.core.gpu import gpus
from vitedge.core.machine import describe_machine


def test_every_gpu_of_this_machine_has_a_name_a_capability_and_memory():
    for gpu in gpus():
        major, minor = gpu.compute_capability.split(".")
        assert gpu.name and int(major) >= 3 and 0 <= int(minor) <= 9
        assert gpu.memory_bytes > 2**28
    assert describe_machine(threads=0).gpus == gpus()


def test_where_the_driver_shows_no_gpu_there_is_none():
    code = "from vitedge.core.gpu import gpus; print(gpus())"
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=hidden, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("()\n", "")
