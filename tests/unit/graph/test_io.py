"""A foreign ONNX file is checked before any runtime sees it."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.graph import io as files

SIZE_8 = Preprocess(height=8, width=8)
PATH = Path("mine.onnx")
WEIGHT = np.arange(3, dtype=np.float32).reshape(1, 3)


def classifier(
    inputs="float[batch, 3, 8, 8] pixels", outputs="float[batch, 3] logits", opset=17, weight=WEIGHT
):
    """Sums of the pixels, times a weight: three logits."""
    model = parser.parse_model(f"""<ir_version: 9, opset_import: ["": {opset}]>
        classifier ({inputs}) => ({outputs}) <int64[3] axes = {{1, 2, 3}}, int64[1] last = {{1}}> {{
            cast = Cast <to = 1> (pixels)
            sum = ReduceSum <keepdims = 0> (cast, axes)
            column = Unsqueeze(sum, last)
            logits = MatMul(column, weight)
        }}""")
    model.graph.initializer.insert(0, numpy_helper.from_array(weight, "weight"))
    return model


def save(path, model=None):
    path.write_bytes((model or classifier()).SerializeToString())
    return path


def with_external(location, where="initializer"):
    """`weight`, 12 bytes, kept in another file: as an initializer, a constant or in a branch."""
    model = classifier()
    stored = model.graph.initializer[0]
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    entry = stored.external_data.add()
    entry.key, entry.value = "location", location
    if where != "initializer":
        moved = TensorProto()
        moved.CopyFrom(stored)
        del model.graph.initializer[0]
        constant = helper.make_node("Constant", [], ["weight"], "constant", value=moved)
        if where == "branch":
            output = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [1, 3])
            branch = helper.make_graph([constant], "branch", [], [output])
            condition = numpy_helper.from_array(np.array(True), "yes")
            model.graph.initializer.append(condition)
            constant = helper.make_node(
                "If", ["yes"], ["weight"], "if", then_branch=branch, else_branch=branch
            )
        model.graph.node.insert(0, constant)
    return model


def refusal(path):
    with pytest.raises(InputError) as caught:
        files.read(path)
    assert str(path) in caught.value.what
    assert caught.value.fix
    return caught.value


# -- reading ------------------------------------------------------------------------------------


def test_a_sound_file_is_read(tmp_path):
    assert files.read(save(tmp_path / "a.onnx")) == classifier()


def test_data_beside_the_file_is_read(tmp_path):
    (tmp_path / "a.data").write_bytes(WEIGHT.tobytes())
    model = files.read(save(tmp_path / "a.onnx", with_external("a.data")))
    (weight,) = (t for t in model.graph.initializer if t.name == "weight")
    np.testing.assert_array_equal(numpy_helper.to_array(weight), WEIGHT)


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("location", ["../secret", "sub/../../secret", "{absolute}", "link", ""])
def test_data_outside_the_folder_is_refused_wherever_the_tensor_hides(tmp_path, location, where):
    secret = tmp_path / "secret"
    secret.write_bytes(WEIGHT.tobytes())
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to(secret)
    model = with_external(location.format(absolute=secret), where)
    assert "outside the model's folder" in refusal(save(folder / "a.onnx", model)).what


def test_an_absolute_path_to_the_files_own_folder_is_refused_too(tmp_path):
    (tmp_path / "a.data").write_bytes(b"\0" * 12)
    refusal(save(tmp_path / "a.onnx", with_external(str(tmp_path / "a.data"))))


@pytest.mark.parametrize("data", [None, b"\0" * 4], ids=["missing", "too short"])
def test_a_data_file_that_is_missing_or_too_short_is_refused(tmp_path, data):
    if data is not None:
        (tmp_path / "a.data").write_bytes(data)
    assert "not a valid model" in refusal(save(tmp_path / "a.onnx", with_external("a.data"))).what


@pytest.mark.parametrize(
    "content", [b"no protobuf at all", b"", b"\x08", classifier().SerializeToString()[:-40]]
)
def test_a_file_that_is_no_onnx_or_cut_short_is_refused(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    refusal(tmp_path / "a.onnx")


def test_no_file_is_refused(tmp_path):
    assert "no ONNX file" in refusal(tmp_path / "a.onnx").what


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_in_weights_are_refused(tmp_path, bad):
    path = save(tmp_path / "a.onnx", classifier(weight=np.array([[0, bad, 0]], np.float32)))
    assert "NaN or infinity" in refusal(path).what


# -- what is an image classifier ----------------------------------------------------------------


def test_float_pixels_need_their_preprocessing():
    known = files.image_model(classifier(), PATH, SIZE_8, None)
    assert known == (SIZE_8, "classification", 3)
    with pytest.raises(InputError, match="does not say how they are made") as caught:
        files.image_model(classifier(), PATH, None, None)
    assert "`preprocess=FILE.toml`" in caught.value.fix


def test_uint8_images_need_none():
    model = classifier("uint8[batch, 8, 6, 3] pixels")
    assert files.image_model(model, PATH, None, None)[0] == Preprocess(height=8, width=6)


def test_stored_tensors_listed_as_inputs_are_no_inputs():
    model = classifier("float[batch, 3, 8, 8] pixels, float[1, 3] weight")
    files.image_model(model, PATH, SIZE_8, None)
    assert [value.name for value in model.graph.input] == ["pixels"]


@pytest.mark.parametrize(
    "inputs",
    [
        *("float[batch, 3, 8, 8] pixels, float[1] mask", "float[batch, 10] pixels"),
        *("float[batch, 1, 8, 8] pixels", "float[batch, 3, height, width] pixels"),
        *("float16[batch, 3, 8, 8] pixels", "uint8[batch, 8, 8, 4] pixels"),
        *("uint8[batch, 3, 8, 8] pixels", "int64[batch, 16] tokens"),
    ],
)
def test_anything_but_one_image_input_is_refused(inputs):
    with pytest.raises(InputError, match="no single image input") as caught:
        files.image_model(classifier(inputs), PATH, SIZE_8, None)
    assert inputs.split("] ")[1].partition(",")[0] in caught.value.what
    assert "(B, 3, H, W)" in caught.value.fix


@pytest.mark.parametrize(
    ("shape", "task", "classes"),
    [
        ("batch, 7", "classification", 7),
        ("batch, 7, 4, 4", "segmentation", 7),
        ("batch, 7, 4, w", "segmentation", 7),
    ],
)
def test_the_rank_of_the_output_says_what_it_is(shape, task, classes):
    model = classifier(outputs=f"float[{shape}] out, float[batch, 3] more")
    assert files.image_model(model, PATH, SIZE_8, None)[1:] == (task, classes)
    assert [value.name for value in model.graph.output] == ["out"]


@pytest.mark.parametrize("shape", ["batch, 7", "batch, 4, 7", "batch, n"])
def test_any_output_may_be_features_when_the_user_says_so(shape):
    model = classifier(outputs=f"float[{shape}] out")
    assert files.image_model(model, PATH, SIZE_8, "features")[1:] == ("features", 0)


def test_a_task_that_does_not_fit_the_output_is_refused():
    with pytest.raises(InputError, match="neither"):
        files.image_model(classifier(), PATH, SIZE_8, "segmentation")


@pytest.mark.parametrize("shape", ["batch, 3, 4", "batch, classes", "batch"])
def test_an_output_that_is_no_logits_is_refused(shape):
    with pytest.raises(InputError, match="logits"):
        files.image_model(classifier(outputs=f"float[{shape}] logits"), PATH, SIZE_8, None)


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear", "MatMulInteger"])
def test_a_quantized_model_is_refused(op):
    model = classifier()
    model.graph.node.append(helper.make_node(op, ["logits", "s", "z"], ["q"]))
    with pytest.raises(InputError, match="quantized already") as caught:
        files.image_model(model, PATH, SIZE_8, None)
    assert "FP32" in caught.value.fix


def test_preprocessing_for_another_size_is_refused():
    with pytest.raises(InputError, match="8×8 pixels, but `preprocess` says 16×8"):
        files.image_model(classifier(), PATH, Preprocess(height=16, width=8), None)


# -- writing ------------------------------------------------------------------------------------


def test_a_small_model_is_one_file(tmp_path):
    files.write(classifier(), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_model_beyond_protobufs_limit_keeps_its_weights_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SINGLE_FILE_BYTES", 100)
    weight = np.arange(3000, dtype=np.float32).reshape(1, 3000)
    files.write(classifier(weight=weight), tmp_path / "model.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    read = files.read(tmp_path / "model.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(read.graph.initializer[0]), weight)
