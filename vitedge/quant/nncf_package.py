"""NNCF as a package that may be absent, of another version, or talkative.

It stays as quiet as a library should be: no logs, no bars on stdout, no telemetry.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from types import ModuleType
from typing import Any

from vitedge.core.errors import InputError, UnavailableError, VitedgeError, error_line, missing
from vitedge.core.spec import Target

PACKAGE, EXTRA = "nncf", "nncf"


def check(targets: Sequence[Target]) -> None:
    """Refuse what NNCF cannot do, before anything is loaded.

    Raises InputError for a target whose dialect it does not write, UnavailableError without NNCF.
    """
    for target in targets:
        dialect = target.quantization
        if dialect.fused_attention:
            what = "symmetric INT8 in a form that its compiler fuses, with floats in FP16"
        elif dialect.floats != "fp32":
            what = "INT8 beside floats in FP16"
        else:
            continue
        raise InputError(
            f"target '{target.name}' takes {what}, and NNCF's ONNX path writes neither",
            fix="pass `calibration='default'`, or a target of ONNX Runtime or OpenVINO on a CPU",
        )
    if importlib.util.find_spec(PACKAGE) is None:
        raise missing(PACKAGE, EXTRA)


@contextlib.contextmanager
def silent_nncf() -> Iterator[ModuleType]:
    """NNCF, silent; what goes wrong in it is one message.

    Raises UnavailableError where it is absent or not the NNCF that we know, InputError where it
    cannot quantize a model.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield _imported()
    except (VitedgeError, OSError, MemoryError):
        raise
    except AttributeError as error:
        if not isinstance(error.obj, ModuleType) or error.obj.__name__ != PACKAGE:
            raise _failed(error) from error
        raise _unknown(error) from error
    except Exception as error:
        raise _failed(error) from error
    finally:
        logging.disable(disabled)


def _imported() -> ModuleType:
    """NNCF, without the telemetry that it sends unless a user has opted out."""
    absent = object()
    telemetry = sys.modules.get("openvino_telemetry", absent)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        nncf = importlib.import_module(PACKAGE)
    except ImportError as error:
        if error.name == PACKAGE:
            raise missing(PACKAGE, EXTRA) from error
        raise _unknown(error) from error
    finally:
        if telemetry is absent:
            del sys.modules["openvino_telemetry"]
        else:
            sys.modules["openvino_telemetry"] = telemetry  # type: ignore[assignment]
    return nncf


def bound(function: Callable[..., Any], *given: Any, **named: Any) -> Callable[[], Any]:
    """The call of a function of NNCF, if it takes what it is `given`."""
    try:
        inspect.signature(function).bind(*given, **named)
    except TypeError as error:
        raise _unknown(error) from error
    return lambda: function(*given, **named)


def _unknown(error: Exception) -> UnavailableError:
    return UnavailableError(
        f"{title()} is not one that this works with: {error_line(error)}",
        fix=f"pip install 'vitedge[{EXTRA}]'",
    )


def _failed(error: Exception) -> InputError:
    return InputError(
        f"{title()} does not quantize this model: {type(error).__name__}: {error_line(error)}",
        fix="pass `calibration='default'`, our own engine",
    )


def title() -> str:
    """Its name and version."""
    try:
        return f"NNCF {metadata.version(PACKAGE)}"
    except metadata.PackageNotFoundError:
        return "NNCF of no known version"
