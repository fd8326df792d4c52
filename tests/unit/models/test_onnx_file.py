"""What an ONNX file leaves open is bound, and what lies beside it is read."""

import json
import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from vitedge.core.errors import InputError
from vitedge.graph.run import Runner
from vitedge.models.sources import ModelRequest, resolve

SIDE = 8
HF = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}
OPEN = ("batch_size", "num_channels", "height", "width")


def write(folder, dims=OPEN, classes="classes", kind=1, **metadata):
    """Three logits of the pixels' mean over whichever axes are not the channels'."""
    last = dims[3] == 3
    weight = np.arange(9, dtype=np.float32).reshape(3, 3)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["float"], to=1),
            helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2] if last else [2, 3]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        ],
        "mean",
        [helper.make_tensor_value_info("pixels", kind, dims)],
        [helper.make_tensor_value_info("logits", 1, [dims[0], classes])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    helper.set_model_props(model, metadata)
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "mine.onnx")
    return str(folder / "mine.onnx")


def identity(path, **request):
    return resolve(ModelRequest(path, **request)).identity


def test_an_open_size_that_nobody_gives_is_an_error_that_names_the_parameters(tmp_path):
    with pytest.raises(
        InputError, match="pixels is batch_size × num_channels × height × width"
    ) as e:
        identity(write(tmp_path))
    assert "`height` and `width`" in e.value.fix and "`preprocess`" in e.value.fix


def test_the_preprocessor_beside_it_gives_size_and_pixels(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HF))
    known = identity(write(tmp_path))
    assert (known.preprocess.height, known.preprocess.width) == (SIDE, SIDE)
    assert known.preprocess.mean == (0.1, 0.2, 0.3)
    assert known.labels == ("0", "1", "2")
    assert "preprocessor_config.json" in known.notes[0]


def test_it_is_read_above_a_folder_called_onnx_too(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HF))
    assert identity(write(tmp_path / "onnx")).preprocess.std == (0.4, 0.5, 0.6)


def test_height_and_width_go_before_what_the_preprocessing_says(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HF))
    known = identity(write(tmp_path), height=16, width=12)
    assert (known.preprocess.height, known.preprocess.width) == (16, 12)


def test_an_image_processor_in_a_processors_file_is_read_too(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": HF}))
    assert identity(write(tmp_path)).preprocess.std == (0.4, 0.5, 0.6)
    (tmp_path / "processor_config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HF | {"image_std": [1, 1, 1]}))
    assert identity(write(tmp_path)).preprocess.std == (1, 1, 1)


def test_a_detectors_images_are_squashed_to_the_models_input(tmp_path):
    detr = {"image_processor_type": "DetrImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(detr))
    known = identity(write(tmp_path, dims=(1, 3, 16, 24)))
    assert (known.preprocess.height, known.preprocess.width) == (16, 24)
    assert "squashed to 16×24" in known.notes[1]
    with pytest.raises(InputError, match="differ in size") as e:
        identity(write(tmp_path))
    assert "`height` and `width`" in e.value.fix


@pytest.mark.parametrize("name", ["p.toml", "p.json", "preprocessor_config.json"])
def test_preprocess_takes_toml_and_json_and_a_processors(tmp_path, name):
    own = "height = 8\nwidth = 8\nmean = [0.1, 0.2, 0.3]\nstd = [0.4, 0.5, 0.6]\n"
    other = {"height": 8, "width": 8, "mean": HF["image_mean"], "std": HF["image_std"]}
    texts = {"p.toml": own, "p.json": json.dumps(other)}
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / name).write_text(texts.get(name, json.dumps(HF)))
    known = identity(write(tmp_path), preprocess=folder / name)
    assert (known.preprocess.mean, known.preprocess.height) == ((0.1, 0.2, 0.3), 8)


@pytest.mark.parametrize("text", ["{", "[]", '{"height": 8, "widht": 8}'])
def test_a_json_that_is_no_preprocessing_is_refused(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(InputError, match=r"p\.json"):
        identity(write(tmp_path), preprocess=tmp_path / "p.json")


def test_a_size_that_is_fixed_is_not_changed(tmp_path):
    with pytest.raises(InputError, match="takes 8×8 pixels, not 16×8") as caught:
        identity(write(tmp_path, (1, 3, 8, 8)), height=16)
    assert "`height`" in caught.value.fix


def test_float_pixels_may_come_channels_last(tmp_path):
    path = write(tmp_path, ("n", "h", "w", 3))
    (tmp_path / "p.toml").write_text("height = 8\nwidth = 6\n")
    model = resolve(ModelRequest(path, preprocess=tmp_path / "p.toml"))
    assert model.identity.labels == ("0", "1", "2")
    ir.save(model.content, tmp_path / "bound.onnx")
    pixels = np.random.default_rng(0).random((1, 3, 8, 6), np.float32)
    (got,) = Runner(tmp_path / "bound.onnx")(pixels)
    (want,) = Runner(tmp_path / "mine.onnx")(pixels.transpose(0, 2, 3, 1).copy())
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_classes_are_called_as_metadata_or_config_say(tmp_path):
    size = {"height": SIDE, "width": SIDE}
    uint8 = {"dims": (1, SIDE, SIDE, 3), "kind": onnx.TensorProto.UINT8}
    named = write(tmp_path, names="{0: 'cat', 1: 'dog', 2: 'a  bird'}", **uint8)
    assert identity(named, **size).labels == ("cat", "dog", "a bird")
    plain = write(tmp_path, **uint8)
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "x", "2": "z", "1": "y"}}))
    assert identity(plain, **size).labels == ("x", "y", "z")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "x", "1": "y"}}))
    known = identity(plain, **size)
    assert known.labels == ("0", "1", "2") and "2 names of classes" in known.notes[0]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            {0: "zero", 2: "two", 5: "five"},
            "class 5 ('five') is none of 0 to 2; no name for output 1",
        ),
        ({1: "a", 2: "b", 3: "c"}, "class 3 ('c') is none of 0 to 2; no name for output 0"),
        ({0: "a", 2: "c"}, "no name for output 1"),
    ],
)
@pytest.mark.parametrize("place", ["metadata", "config.json"])
def test_names_that_skip_an_output_are_refused(tmp_path, place, names, says):
    metadata = {"names": str(names)} if place == "metadata" else {}
    path = write(tmp_path, (1, SIDE, SIDE, 3), kind=onnx.TensorProto.UINT8, **metadata)
    if place == "config.json":
        (tmp_path / place).write_text(json.dumps({"id2label": names}))
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        identity(path, height=SIDE, width=SIDE)
    assert place in caught.value.what
    own = identity(path, height=SIDE, width=SIDE, labels=("x", "y", "z"))
    assert own.labels == ("x", "y", "z")


def test_windows_mls_metadata_say_how_pixels_are_made(tmp_path):
    metadata = {
        "Image.BitmapPixelFormat": "Bgr8",
        "Image.NominalPixelRange": "Normalized_0_1",
    }
    known = identity(write(tmp_path, (1, 3, 8, 8), **metadata)).preprocess
    assert (known.channels, known.mean, known.std) == ("BGR", (0.0,) * 3, (1.0,) * 3)


def test_a_size_the_graph_does_not_take_is_said(tmp_path):
    path = write(tmp_path)
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((8, 8), np.float32), "map"))
    model.graph.node[0].output[0] = "raw"
    model.graph.node.insert(1, helper.make_node("Add", ["raw", "map"], ["float"]))
    onnx.save(model, path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HF))
    with pytest.raises(InputError, match="does not run on an image of 3×5×5") as caught:
        identity(path, height=5, width=5)
    assert "`height`" in caught.value.fix


def test_other_sources_take_no_size():
    with pytest.raises(InputError, match="`height` does not apply"):
        identity("digits", height=32)
