"""What runs in a browser is tested where everything for it is here: `make web`."""

import pytest

from vitedge.core.runtime import runtimes

LACKING = runtimes()["onnxruntime-web"].lacking()
needs_browser = pytest.mark.skipif(LACKING is not None, reason=LACKING.what if LACKING else "")
