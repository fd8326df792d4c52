"""vitedge: Vision Transformers to INT8 on edge runtimes, with accuracy and latency proof."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitedge.core.bundle import Bundle as Bundle
    from vitedge.core.catalog import calibrations as calibrations
    from vitedge.core.catalog import targets as targets
    from vitedge.core.errors import InputError as InputError
    from vitedge.core.errors import LimitError as LimitError
    from vitedge.core.errors import UnavailableError as UnavailableError
    from vitedge.core.errors import VitedgeError as VitedgeError
    from vitedge.core.progress import SILENT as SILENT
    from vitedge.core.report import Report as Report
    from vitedge.core.spec import Preprocess as Preprocess
    from vitedge.core.spec import Training as Training
    from vitedge.export.api import build as build
    from vitedge.export.api import demo as demo
    from vitedge.export.api import export as export
    from vitedge.export.api import qat as qat
    from vitedge.export.result import ExportFailure as ExportFailure
    from vitedge.export.result import ExportResult as ExportResult
    from vitedge.export.result import Exports as Exports
    from vitedge.export.selftest.api import selftest as selftest
    from vitedge.export.selftest.record import Selftest as Selftest
    from vitedge.export.sweep.api import sweep as sweep
    from vitedge.export.sweep.job import SweepResult as SweepResult
    from vitedge.gate.api import compare as compare
    from vitedge.gate.api import gate as gate
    from vitedge.gate.verdict import Verdict as Verdict
    from vitedge.measure.api import bench as bench
    from vitedge.measure.api import check_data as check_data
    from vitedge.measure.api import inspect as inspect
    from vitedge.measure.api import open as open
    from vitedge.measure.api import predict as predict
    from vitedge.measure.api import validate as validate
    from vitedge.measure.data_check import DataCheck as DataCheck
    from vitedge.measure.open_bundle import OpenBundle as OpenBundle
    from vitedge.measure.open_bundle import Prediction as Prediction
    from vitedge.models.api import load as load
    from vitedge.models.api import models as models
    from vitedge.models.sources import ReferenceModel as ReferenceModel
    from vitedge.runtimes.doctor import doctor as doctor
    from vitedge.ship.api import card as card
    from vitedge.ship.api import package as package
    from vitedge.ship.api import pull as pull
    from vitedge.ship.api import push as push
    from vitedge.ship.api import sign as sign
    from vitedge.ship.api import verify as verify

__version__ = "0.2.0"

_HOMES = {
    "core.bundle": "Bundle",
    "core.catalog": "calibrations targets",
    "core.errors": "InputError LimitError UnavailableError VitedgeError",
    "core.progress": "SILENT",
    "core.report": "Report",
    "core.spec": "Preprocess Training",
    "export.api": "build demo export qat",
    "export.result": "ExportFailure ExportResult Exports",
    "export.sweep.api": "sweep",
    "export.sweep.job": "SweepResult",
    "export.selftest.api": "selftest",
    "export.selftest.record": "Selftest",
    "gate.api": "compare gate",
    "gate.verdict": "Verdict",
    "measure.api": "bench check_data inspect open predict validate",
    "measure.data_check": "DataCheck",
    "measure.open_bundle": "OpenBundle Prediction",
    "models.api": "load models",
    "models.sources": "ReferenceModel",
    "runtimes.doctor": "doctor",
    "ship.api": "card package pull push sign verify",
}
"""Module -> the public names it holds; they are imported when they are first asked for."""
_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'vitedge' has no attribute '{name}'")
    value = getattr(import_module(f"vitedge.{_MODULES[name]}"), name)
    return globals().setdefault(name, value)  # the package of that name, which is callable, stays


def __dir__() -> list[str]:
    return sorted(__all__)
