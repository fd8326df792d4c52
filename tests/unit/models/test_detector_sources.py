"""A detector from an ONNX file or a module: which output is which, and how it is read."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import vitedge as ve
from vitedge.core.errors import InputError
from vitedge.core.spec import Detection
from vitedge.models.sources import ModelRequest, resolve

PREPROCESS = ve.Preprocess(height=8, width=8, resize="exact")
NAMES = ("cat", "dog", "eel")


def write(folder, outputs, **metadata):
    """An ONNX file with `outputs`: name -> columns, of 6 queries."""
    pixels = helper.make_tensor_value_info("pixels", 1, ["batch", 3, 8, 8])
    nodes = [helper.make_node("Flatten", ["pixels"], ["flat"])]
    constants, values = [], []
    for name, columns in outputs.items():
        weight = np.random.default_rng(columns).normal(0, 0.1, (192, 6 * columns))
        constants += [
            numpy_helper.from_array(weight.astype(np.float32), f"{name}.w"),
            numpy_helper.from_array(np.array([-1, 6, columns]), f"{name}.s"),
        ]
        nodes += [
            helper.make_node("MatMul", ["flat", f"{name}.w"], [f"{name}.m"]),
            helper.make_node("Reshape", [f"{name}.m", f"{name}.s"], [name]),
        ]
        values.append(helper.make_tensor_value_info(name, 1, ["batch", 6, columns]))
    graph = helper.make_graph(nodes, "detector", [pixels], values, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, metadata)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def identity(path, **request):
    return resolve(ModelRequest(str(path), preprocess=PREPROCESS, **request)).identity


def test_a_file_has_logits_and_boxes_whatever_their_order(tmp_path):
    path = write(tmp_path, {"pred_boxes": 4, "extra": 7, "scores": 3})
    model = resolve(ModelRequest(str(path), preprocess=PREPROCESS, task="detection"))
    assert model.identity.task == "detection" and model.identity.labels == tuple("0123456")
    asked = ("scores", "pred_boxes")
    known = identity(path, task="detection", model_output=asked, labels=NAMES)
    assert known.labels == NAMES and known.detection == Detection(scores="sigmoid")
    assert "scores by a sigmoid of each class" in known.notes[0]


def test_a_name_fewer_than_columns_leaves_no_object(tmp_path):
    path = write(tmp_path, {"logits": 4, "boxes": 4})
    known = identity(path, task="detection", labels=NAMES)
    assert known.detection == Detection(scores="softmax") and known.labels == NAMES
    assert "a softmax over its classes and, last, no object" in known.notes[0]
    with pytest.raises(InputError, match="2 classes"):
        identity(path, task="detection", labels=NAMES[:2])


def test_the_config_beside_a_file_says_how_it_is_read(tmp_path):
    path = write(tmp_path, {"logits": 3, "pred_boxes": 4})
    config = {"model_type": "deformable_detr", "id2label": dict(enumerate(NAMES))}
    (tmp_path / "config.json").write_text(json.dumps(config))
    known = identity(path, task="detection")
    assert known.detection == Detection(scores="sigmoid", most=100) and known.labels == NAMES


def test_without_being_asked_a_file_of_queries_is_refused_with_what_it_may_be(tmp_path):
    path = write(tmp_path, {"logits": 3, "boxes": 4})
    with pytest.raises(InputError) as caught:
        identity(path)
    assert "`task='detection'`" in caught.value.fix


def test_logits_without_boxes_are_no_detector(tmp_path):
    with pytest.raises(InputError) as caught:
        identity(write(tmp_path, {"logits": 3}), task="detection")
    assert "no output is boxes (B, 6, 4)" in caught.value.what


class Detector(torch.nn.Module):
    """Four queries of two classes and no object."""

    def __init__(self):
        super().__init__()
        self.logits, self.boxes = torch.nn.Linear(192, 12), torch.nn.Linear(192, 16)

    def forward(self, x):
        flat = x.flatten(1)
        logits, boxes = self.logits(flat), self.boxes(flat)
        return {"logits": logits.view(-1, 4, 3), "boxes": boxes.view(-1, 4, 4).sigmoid()}


def test_a_module_is_a_detector_where_its_user_says_so():
    model = ve.load(Detector(), preprocess=PREPROCESS, task="detection", labels=["cat", "dog"])
    assert model.outputs == ("logits", "boxes")
    assert model.identity.detection == Detection(scores="softmax")
    assert model.identity.labels == ("cat", "dog")
