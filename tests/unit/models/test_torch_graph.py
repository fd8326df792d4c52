"""What the export of a torch module leaves in the environment and on the terminal: nothing."""

import os

import pytest
import torch
from torch import nn

from vitedge.models.torch_graph import program, quiet

CHECK = "TRANSFORMERS_DISABLE_TORCH_CHECK"


class Checked(nn.Module):
    """Checks what it computes as transformers' detectors do."""

    def __init__(self, check):
        super().__init__()
        self.check = check

    def forward(self, x):
        self.check(x >= 0, "no pixel is negative")
        return x.mean((2, 3))


class DependsOnData(nn.Module):
    """No graph: what it computes next depends on values."""

    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else x.flatten(1) + 1


def test_checks_of_transformers_are_left_out_and_put_back(peers, monkeypatch):
    from transformers.utils.import_utils import torch_compilable_check

    monkeypatch.setenv(CHECK, "0")

    with quiet():
        exported = program(Checked(torch_compilable_check), torch.zeros(1, 3, 8, 8), 19, ["mean"])

    assert [output.name for output in exported.model.graph.outputs] == ["mean"]
    assert os.environ[CHECK] == "0"


def test_an_export_that_fails_prints_no_graph(capfd):
    with pytest.raises(torch.onnx.errors.OnnxExporterError), quiet():
        program(DependsOnData(), torch.zeros(1, 3, 8, 8), 19, ["flat"])

    assert capfd.readouterr() == ("", "")
