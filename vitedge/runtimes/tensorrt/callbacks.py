"""What TensorRT calls while it compiles: a log that is kept, and progress that can be cancelled."""

from __future__ import annotations

from typing import Any

from vitedge.core.runtime import Progress


def logger(trt: Any) -> Any:
    """A new `ILogger` that keeps `layers`, `errors` and `warnings`, each a list of messages.

    `layers` are the messages that describe compiled layers. It prints nothing.
    """

    class CompilerLog(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.layers: list[str] = []
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(message)
            elif "LayerType: " in message:
                self.layers.append(message)

    return CompilerLog()


def monitor(trt: Any, step: str, progress: Progress) -> Any:
    """A new `IProgressMonitor` that shows all phases as one `step`; `cancelled` stops the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._phases: dict[str, _Phase] = {}
            self._furthest = 0.0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._phases[name] = _Phase(self._phases.get(parent or ""), max(1, steps))

        def step_complete(self, name: str, index: int) -> bool:
            phase = self._phases.get(name)
            if phase:
                phase.done = index + 1
                self._furthest = max(self._furthest, phase.share())
                progress(step, self._furthest, 1.0)
            return not self.cancelled

        def phase_finish(self, name: str) -> None:
            self._phases.pop(name, None)

    return Monitor()


class _Phase:
    """A part of the build, which is one step of its parent's."""

    def __init__(self, parent: _Phase | None, steps: int) -> None:
        self._parent, self._steps, self.done = parent, steps, 0

    def share(self) -> float:
        """How much of the outermost phase is done, 0-1."""
        phase, inner = self, 0.0
        while True:
            inner = min(1.0, (phase.done + inner) / phase._steps)
            if phase._parent is None:
                return inner
            phase, inner = phase._parent, inner
