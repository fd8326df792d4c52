"""ONNX Runtime in a browser: WebAssembly on the CPU, or WebGPU."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from vitedge.core.bundle import MODEL
from vitedge.core.errors import UnavailableError
from vitedge.core.host import Host
from vitedge.core.manifest import Manifest
from vitedge.core.runtime import Processor, Progress, Rule, Session, VerifiedFiles
from vitedge.core.spec import Target
from vitedge.runtimes.onnxruntime_web import install


class ONNXRuntimeWeb:
    """Runs `model.onnx` as it is, in a page of headless Chromium that is served on loopback."""

    name = install.PACKAGE
    title = "ONNX Runtime Web"
    packages: tuple[str, ...] = ()
    """npm brings it."""
    extra = install.EXTRA
    processor: Processor = "browser"
    options = frozenset(
        (
            *("provider", "timeout_s"),
            *("session.disable_quant_qdq", "session.set_denormal_as_zero"),
            *("session.force_spinning_stop", "session.intra_op.allow_spinning"),
        )
    )
    """`provider`: wasm or webgpu; `timeout_s`: of any one answer of the page; the rest is session
    configuration."""

    def probe(self, host: Host) -> str:
        """Playwright, onnxruntime-web and a Chromium."""
        return install.lacking()[0]

    def lacking(self) -> UnavailableError | None:
        """What it takes that is not here, and how to get it; None where all is."""
        return install.lacking()[1]

    def accelerator(self, host: Host) -> str:
        """`ONNX Runtime Web 1.30.0 in Chromium 156.0.8078.114`."""
        if self.lacking():
            return ""
        browser = install.browser_version(install.browser())
        return f"{self.title} {install.ort_web().version} in {browser}"

    def rules(self) -> tuple[Rule, ...]:
        """Traps of INT8 and FP16 in a browser."""
        from vitedge.runtimes.onnxruntime_web.lint import RULES

        return RULES

    def files(self, manifest: Manifest) -> tuple[str, ...]:
        """The graph, and its data where that lies beside it."""
        return tuple(name for name in manifest.files if name in (MODEL, f"{MODEL}.data"))

    def lower(self, model: Path, target: Target, out: Path, progress: Progress) -> None:
        """Save the ONNX file as `model.onnx`, weights inside where they fit."""
        from vitedge.graph.external import pack

        pack(model, out / MODEL)

    def open(self, verified: VerifiedFiles, target: Target) -> AbstractContextManager[Session]:
        """Load the graph in a page on `target.threads` threads.

        Raises UnavailableError where the browser or onnxruntime-web is missing, hangs or dies.
        """
        from vitedge.runtimes.onnxruntime_web.session import open_model

        return open_model(verified, target)
