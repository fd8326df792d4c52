"""Cold start and memory of an artifact, taken in processes of their own.

In the caller's process both would be those of everything it ever loaded.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

from vitedge.core.bundle import MANIFEST, open_bundle, read_manifest
from vitedge.core.errors import InputError, UnavailableError, VitedgeError
from vitedge.core.machine import ROOT
from vitedge.core.measurements import ColdStart, Memory
from vitedge.core.runtime import runtime_of
from vitedge.measure.latency.clock import images_feed
from vitedge.measure.latency.processes import peak_bytes
from vitedge.runtimes import open_session

RUNS = 5
"""Runs after opening: arenas grow with the first few."""
ALLOW = "--allow-host-code"
STARTS = 5
"""Processes at most; their median is reported."""


def cold_starts(
    bundle: Path, threads: int, duration_s: float, *, allow_host_code: bool = False
) -> tuple[ColdStart, Memory]:
    """Start a process that opens `bundle` and runs it, again until `duration_s` is over.

    One start at least and 5 at most. Memory counts the Python interpreter, numpy and the runtime,
    a browser's processes, too: what the device must have free.

    Args:
        bundle: the artifact's folder.
        threads: inference threads; 0: every core this process may use.
        duration_s: seconds to spend.
        allow_host_code: let its engine run code of its own.

    Raises:
        InputError: `bundle` is not a sound artifact.
        UnavailableError: its runtime is missing, or the process was killed, or Windows.
    """
    end = perf_counter() + duration_s
    start = partial(fresh_process, bundle, threads, allow_host_code=allow_host_code)
    processes = [start()]
    while len(processes) < STARTS and perf_counter() < end:
        processes.append(start())
    starts, memories = zip(*processes, strict=True)
    cold = ColdStart(
        load_ms=median(start.load_ms for start in starts),
        first_inference_ms=median(start.first_inference_ms for start in starts),
        process_to_ready_ms=median(start.process_to_ready_ms for start in starts),
        n=len(starts),
    )
    peak = max(memory.peak_rss_bytes for memory in memories)
    return cold, Memory(peak_rss_bytes=peak, device_bytes=memories[0].device_bytes)


def fresh_process(
    bundle: Path, threads: int = 0, *, allow_host_code: bool = False
) -> tuple[ColdStart, Memory]:
    """Open and run `bundle` in one fresh process. Raises as `cold_starts` does."""
    module = "vitedge.measure.latency.cold_start"
    command = [sys.executable, "-m", module, str(bundle), str(threads)]
    command += [ALLOW] if allow_host_code else []
    start = perf_counter()
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        ) as child,
    ):
        assert child.stdout is not None
        first = child.stdout.readline()
        ready_ms = (perf_counter() - start) * 1e3
        rest, _ = child.communicate()
        log.seek(0)
        errors = log.read()
    if child.returncode == 0:
        cold = ColdStart(process_to_ready_ms=ready_ms, n=1, **json.loads(first))
        return cold, Memory(**json.loads(rest))
    for kind in (InputError, UnavailableError):
        if child.returncode == kind.exit_code and first:
            message = rest if first.startswith("{") else first + rest
            what, _, fix = message.rstrip("\n").partition("\n")
            raise kind(what, fix=fix)
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise UnavailableError(
            f"the process that ran {bundle} to measure its memory died of {name}",
            fix="free some memory, or run on a machine with more",
        )
    reason = (errors.splitlines() or ["no message"])[-1]
    raise VitedgeError(f"{bundle} failed to run while its memory was measured: {reason}")


def _run(bundle: Path, threads: int, *, allow_host_code: bool) -> None:
    """Open `bundle`, run it on its golden images, and print what that took."""
    there = (bundle / MANIFEST).is_file()
    on_gpu = there and runtime_of(read_manifest(bundle).target).processor == "gpu"
    before = _gpu_bytes() if on_gpu else None
    start = perf_counter()
    artifact = open_bundle(bundle, allow_host_code=allow_host_code)
    with open_session(artifact, threads) as session:
        loaded = perf_counter()
        feed = images_feed(artifact, session, session.inputs[0].shape[0] or 1)
        read = perf_counter()
        session.run(feed)
        first_ms = (perf_counter() - read) * 1e3
        ready = {"load_ms": (loaded - start) * 1e3, "first_inference_ms": first_ms}
        print(json.dumps(ready), flush=True)
        for _ in range(RUNS):
            session.run(feed)
        after = _gpu_bytes() if on_gpu else None
        started_bytes = peak_bytes(ROOT)
    gpu_bytes = None if before is None or after is None else max(0, after - before)
    peak = _peak() + started_bytes
    print(json.dumps({"peak_rss_bytes": peak, "device_bytes": gpu_bytes}))


def _gpu_bytes() -> int | None:
    """Memory in use on the GPU; None where there is none, or NVML does not tell."""
    from vitedge.core.gpu import gpus
    from vitedge.measure.latency.energy import Nvml

    try:
        return Nvml().used_bytes() if gpus() else None
    except UnavailableError:
        return None


def _peak() -> int:
    """Peak resident memory of this process, bytes."""
    if sys.platform == "win32":
        raise UnavailableError("peak memory is not measured on Windows")
    import resource

    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss: Linux carries it over exec, so it would hold the parent's memory too.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    match = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    if match is None:
        raise UnavailableError("this kernel does not report peak memory (VmHWM)")
    return int(match[1]) * 1024


if __name__ == "__main__":
    try:
        _run(Path(sys.argv[1]), int(sys.argv[2]), allow_host_code=ALLOW in sys.argv[3:])
    except VitedgeError as error:
        print(error.what, error.fix, sep="\n")
        sys.exit(error.exit_code)
