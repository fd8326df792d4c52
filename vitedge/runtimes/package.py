"""The Python package of a runtime, imported when it is needed."""

from __future__ import annotations

import importlib
from typing import Any

from vitedge.core.errors import UnavailableError, error_line, missing
from vitedge.core.runtime import runtimes


def load(name: str) -> Any:
    """The Python package of a runtime. Raises UnavailableError where it is missing or broken."""
    runtime = runtimes()[name]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise missing(error.name or name, runtime.extra) from error
    except (ImportError, OSError, RuntimeError) as error:  # its libraries do not load
        raise UnavailableError(
            f"{runtime.title} is installed but does not load: {error_line(error)}",
            fix=f"pip install --force-reinstall 'vitedge[{runtime.extra}]'",
        ) from error
