"""Models with several outputs, and dense ones: nothing is dropped in silence or hidden."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import several_outputs as small
from tests.support.machine import ONNXRUNTIME

INT8 = ("--int8", "--calibration", "fast", "--num-samples", 8, "--duration", 0)


def exported(vitedge, folder, *outputs, flags=(), targets=(ONNXRUNTIME,), large=1.0):
    """What `vitedge export --int8` said and wrote of a model that gives `outputs`."""
    model = small.write(folder, *outputs, large=large)
    images = small.images(folder)
    named = [word for name in targets for word in ("--target", name)]
    given = ("--preprocess", folder / "model.toml", "--calib-data", images)
    to = ("--output", folder / "out")
    return vitedge("export", model, *named, *INT8, *given, *flags, *to)


@pytest.fixture(scope="module")
def two(tmp_path_factory, vitedge, openvino):
    """The folder of a model that gives tokens, logits and a class index; and what was said."""
    folder = tmp_path_factory.mktemp("two")
    outputs = ("tokens", "logits", "label")
    done = exported(vitedge, folder, *outputs, targets=(ONNXRUNTIME, openvino))
    return folder, done


def test_x(two):
    print(two[1].stdout, two[1].stderr)
