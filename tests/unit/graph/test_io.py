"""A foreign ONNX file is checked before any runtime sees it."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from vitedge.core.bundle import sha256
from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.graph import external
from vitedge.graph import io as files
from vitedge.graph.outputs import Outputs

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


def graph(*args, **options):
    """A classifier as it is once it was read."""
    return ir.from_proto(classifier(*args, **options))


def save(path, model=None):
    path.write_bytes((model or classifier()).SerializeToString())
    return path


def with_external(location, where="initializer", **entries):
    """`weight`, 12 bytes, kept in another file: as an initializer, a constant or in a branch."""
    model = classifier()
    stored = model.graph.initializer[0]
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        stored.external_data.add(key=key, value=value)
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


def weight_of(path):
    """The values of `weight` as `read` gives them."""
    return files.read(path).model.graph.initializers["weight"].const_value.numpy()


def refusal(path):
    with pytest.raises(InputError) as caught:
        files.read(path)
    assert str(path) in caught.value.what
    assert caught.value.fix
    return caught.value


# -- reading ------------------------------------------------------------------------------------


def test_a_sound_file_is_read(tmp_path):
    read = files.read(save(tmp_path / "a.onnx"))
    assert [node.name for node in read.model.graph] == ["cast", "sum", "column", "logits"]
    np.testing.assert_array_equal(weight_of(tmp_path / "a.onnx"), WEIGHT)


def test_data_beside_the_file_is_read(tmp_path):
    (tmp_path / "a.data").write_bytes(WEIGHT.tobytes())
    path = save(tmp_path / "a.onnx", with_external("a.data"))
    np.testing.assert_array_equal(weight_of(path), WEIGHT)


def test_a_number_may_lie_there_too_and_is_taken_into_the_graph(tmp_path):
    """onnx's own helper moves every tensor at a threshold of 0; runtimes look for shapes inside."""
    model = classifier()
    model.graph.initializer.append(numpy_helper.from_array(np.array(2, np.float32), "two"))
    everything = {"save_as_external_data": True, "location": "a.data", "size_threshold": 0}
    onnx.save(model, tmp_path / "a.onnx", **everything)
    stored = files.read(tmp_path / "a.onnx").model.graph.initializers
    assert stored["two"].const_value.numpy() == 2
    assert not isinstance(stored["two"].const_value, ir.ExternalTensor)


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
@pytest.mark.parametrize(
    "location",
    ["../secret", "sub/../../secret", "..\\secret", "C:\\a", "{absolute}", "link", ""],
)
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


def test_a_missing_data_file_is_named_with_where_it_belongs(tmp_path):
    refused = refusal(save(tmp_path / "a.onnx", with_external("sub/a.data")))
    assert "'sub/a.data' is missing" in refused.what
    assert f"copy it beside: to {tmp_path / 'sub' / 'a.data'}" in refused.fix


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({}, "at bytes 0 to 12 of 'a.data', which has 8"),
        ({"offset": "100"}, "at bytes 100 to 112"),
        ({"offset": "4", "length": "12"}, "at bytes 4 to 16"),
        ({"offset": "-4"}, "offset '-4'"),
        ({"offset": "0x4"}, "offset '0x4'"),
        ({"length": "8"}, "takes 12 bytes, and has 8"),
        ({"length": "-12"}, "length '-12'"),
        ({"length": str(2**70)}, f"has {2**70}"),
    ],
)
def test_data_that_is_not_all_in_its_file_is_refused(tmp_path, entries, says):
    (tmp_path / "a.data").write_bytes(b"\0" * 8)
    what = refusal(save(tmp_path / "a.onnx", with_external("a.data", **entries))).what
    assert "not a valid model" in what and says in what


def test_several_data_files_of_which_none_says_how_long_its_tensors_are(tmp_path):
    model = with_external("a.data", offset="4")
    other = model.graph.initializer.add(name="axis", data_type=TensorProto.INT64, dims=[1])
    other.data_location = TensorProto.EXTERNAL
    other.external_data.add(key="location", value="sub/b.data")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.data").write_bytes(np.array([7, 8]).tobytes())
    (tmp_path / "a.data").write_bytes(b"\0" * 4 + WEIGHT.tobytes() + b"\0" * 4)
    path = save(tmp_path / "a.onnx", model)
    np.testing.assert_array_equal(weight_of(path), WEIGHT)
    stored = files.read(path).model.graph.initializers["axis"].const_value
    assert (stored.tobytes(), stored.numpy().tolist()) == (np.array([7]).tobytes(), [7])


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
def test_the_digest_is_of_the_weights_wherever_they_lie(tmp_path, where):
    path = save(tmp_path / "a.onnx", with_external("a.data", where))
    digests = []
    for first in (1, 2, 1):
        (tmp_path / "a.data").write_bytes(np.array([first, 1, 1], np.float32).tobytes())
        digests.append(files.read(path).sha256)
    assert digests[0] == digests[2] != digests[1]


def test_the_digest_of_a_file_without_data_files_is_its_own(tmp_path):
    path = save(tmp_path / "a.onnx")
    assert files.read(path).sha256 == sha256(path)


# -- links --------------------------------------------------------------------------------------


@pytest.fixture
def cached(tmp_path):
    """A model as huggingface_hub stores it: links, and what they lead to elsewhere."""
    repository = tmp_path / "models--somebody--vit"
    snapshot = repository / "snapshots" / "0f1e" / "onnx"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    save(repository / "blobs" / "aaaa", with_external("model.onnx_data"))
    (repository / "blobs" / "bbbb").write_bytes(WEIGHT.tobytes())
    for name, blob in {"model.onnx": "aaaa", "model.onnx_data": "bbbb"}.items():
        (snapshot / name).symlink_to(f"../../../blobs/{blob}")
    return snapshot / "model.onnx"


def test_a_model_in_the_hugging_face_cache_is_read_through_its_links(cached):
    np.testing.assert_array_equal(weight_of(cached), WEIGHT)


@pytest.mark.parametrize("name", ["link.onnx", "folder/a.onnx"])
def test_a_link_to_a_model_or_its_folder_finds_the_data_beside_the_model(tmp_path, name):
    folder = tmp_path / "v3"
    folder.mkdir()
    (folder / "a.data").write_bytes(WEIGHT.tobytes())
    save(folder / "a.onnx", with_external("a.data"))
    (tmp_path / "link.onnx").symlink_to(folder / "a.onnx")
    (tmp_path / "folder").symlink_to(folder)
    np.testing.assert_array_equal(weight_of(tmp_path / name), WEIGHT)


def test_a_cached_model_whose_data_links_elsewhere_is_refused(cached, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(WEIGHT.tobytes())
    data = cached.with_name("model.onnx_data")
    data.unlink()
    data.symlink_to(secret)
    refused = refusal(cached)
    assert f"'model.onnx_data', a link to {secret}, outside" in refused.what
    assert "in place of the link" in refused.fix


def test_a_cached_model_whose_data_was_not_fetched_says_that_the_link_is_dead(cached):
    cached.with_name("model.onnx_data").resolve().unlink()
    assert "is missing: " in (what := refusal(cached).what) and "a link to nothing" in what


@pytest.mark.parametrize("kind", ["hard link", "pipe", "folder"])
def test_data_that_is_no_file_of_its_own_is_refused(tmp_path, kind):
    secret, data = tmp_path / "secret", tmp_path / "a.data"
    secret.write_bytes(WEIGHT.tobytes())
    make = {"hard link": lambda: data.hardlink_to(secret), "folder": data.mkdir}
    make.get(kind, lambda: os.mkfifo(data))()
    refused = refusal(save(tmp_path / "a.onnx", with_external("a.data")))
    assert ("a hard link" if kind == "hard link" else "no regular file") in refused.what


def test_what_was_checked_is_what_is_used(tmp_path):
    (tmp_path / "a.data").write_bytes(WEIGHT.tobytes())
    model = files.read(save(tmp_path / "a.onnx", with_external("a.data"))).model
    (tmp_path / "a.data").unlink()
    (tmp_path / "a.data").write_bytes(b"\0" * 12)
    stored = model.graph.initializers["weight"].const_value
    np.testing.assert_array_equal(stored.numpy(), WEIGHT)
    (tmp_path / "copy").mkdir()
    external.write(model, tmp_path / "copy" / "a.onnx")
    np.testing.assert_array_equal(weight_of(tmp_path / "copy" / "a.onnx"), WEIGHT)


# -- what is no model ---------------------------------------------------------------------------


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
    known = files.image_model(graph(), PATH, SIZE_8, None)
    assert known == (SIZE_8, Outputs(("logits",), "classification", 3, ()))
    with pytest.raises(InputError, match="does not say how they are made") as caught:
        files.image_model(graph(), PATH, None, None)
    assert "`preprocess`" in caught.value.fix


def test_uint8_images_need_none():
    model = graph("uint8[batch, 8, 6, 3] pixels")
    assert files.image_model(model, PATH, None, None)[0] == Preprocess(height=8, width=6)


def test_stored_tensors_listed_as_inputs_are_no_inputs():
    model = graph("float[batch, 3, 8, 8] pixels, float[1, 3] weight")
    files.image_model(model, PATH, SIZE_8, None)
    assert [value.name for value in model.graph.inputs] == ["pixels"]


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
        files.image_model(graph(inputs), PATH, SIZE_8, None)
    assert inputs.split("] ")[1].partition(",")[0] in caught.value.what
    assert "(B, 3, H, W)" in caught.value.fix


@pytest.mark.parametrize(
    ("shape", "task", "classes"),
    [
        ("batch, 7", "classification", 7),
        ("batch, 7, 4, 4", "segmentation", 7),
        ("batch, 7, 4, w", "segmentation", 7),
        ("batch, 1, 4, 4", "dense", 0),
    ],
)
def test_the_rank_of_the_output_says_what_it_is(shape, task, classes):
    model = graph(outputs=f"float[{shape}] out")
    assert files.image_model(model, PATH, SIZE_8, None)[1][1:3] == (task, classes)


def kept(outputs, task=None, requested=()):
    """The outputs that stay of a graph's `outputs`, and what is said of them."""
    model = graph(outputs=outputs)
    chosen = files.image_model(model, PATH, SIZE_8, task, requested)[1]
    assert tuple(value.name for value in model.graph.outputs) == chosen.names
    return chosen


SEVERAL = "float[batch, 4, 8] tokens, float[batch, 7] out, int64[batch] label, float[1, 9] fixed"


def test_all_float_outputs_are_kept_and_the_first_that_fits_is_the_main_one():
    outputs = kept(SEVERAL)
    assert outputs[:3] == (("out", "tokens"), "classification", 7)
    main, left = outputs.notes
    assert "'out' is its main output" in main and "tokens" in main
    assert left == "outputs left out: label int64 (?), fixed (1, 9)"
    assert kept(SEVERAL, "features")[:3] == (("tokens", "out"), "features", 0)


def test_a_user_says_which_outputs_are_kept_and_which_is_the_main_one():
    outputs = kept(SEVERAL, requested=("out",))
    assert outputs.names == ("out",)
    assert outputs.notes == ("outputs left out: tokens (?, 4, 8), label int64 (?), fixed (1, 9)",)
    assert kept(SEVERAL, "features", ("tokens", "out")).names == ("tokens", "out")


@pytest.mark.parametrize(
    ("requested", "says"),
    [
        (("outt",), ("has no output 'outt'", "'out'", "its outputs: tokens (?, 4, 8), out (?, 7)")),
        (("label",), ("'label' is int64", "`model_output`")),
        (("tokens",), ("neither", "`task='features'`")),
        ((), ("none fits",)),
    ],
)
def test_an_output_that_cannot_be_the_main_one_is_refused(requested, says):
    outputs = SEVERAL if requested else "int64[batch] label, float[batch, 4, 8] tokens"
    with pytest.raises(InputError) as caught:
        kept(outputs, requested=requested)
    for text in says:
        assert text.replace("none fits", "tokens (?, 4, 8)") in caught.value.what + caught.value.fix


@pytest.mark.parametrize("shape", ["batch, 7", "batch, 4, 7", "batch, n"])
def test_any_output_may_be_features_when_the_user_says_so(shape):
    model = graph(outputs=f"float[{shape}] out")
    assert files.image_model(model, PATH, SIZE_8, "features")[1][1:3] == ("features", 0)


@pytest.mark.parametrize("shape", ["batch, 4, 7", "batch, 3, 4, 7"])
def test_maps_may_be_dense_when_the_user_says_so(shape):
    model = graph(outputs=f"float[{shape}] out")
    assert files.image_model(model, PATH, SIZE_8, "dense")[1][1:3] == ("dense", 0)
    with pytest.raises(InputError, match="neither"):
        files.image_model(graph(outputs="float[batch, 7] out"), PATH, SIZE_8, "dense")


def test_a_task_that_does_not_fit_the_output_is_refused():
    with pytest.raises(InputError, match="neither"):
        files.image_model(graph(), PATH, SIZE_8, "segmentation")


@pytest.mark.parametrize("shape", ["batch, 3, 4", "batch, classes", "batch"])
def test_an_output_that_is_no_logits_is_refused(shape):
    with pytest.raises(InputError, match="logits"):
        files.image_model(graph(outputs=f"float[{shape}] logits"), PATH, SIZE_8, None)


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear", "MatMulInteger"])
def test_a_quantized_model_is_refused(op):
    model = graph()
    model.graph.append(ir.node(op, [model.graph.outputs[0]]))
    with pytest.raises(InputError, match="quantized already") as caught:
        files.image_model(model, PATH, SIZE_8, None)
    assert "FP32" in caught.value.fix


def test_preprocessing_for_another_size_is_refused():
    with pytest.raises(InputError, match="8×8 pixels, but `preprocess` says 16×8"):
        files.image_model(graph(), PATH, Preprocess(height=16, width=8), None)


# -- writing ------------------------------------------------------------------------------------


def test_a_small_model_is_one_file(tmp_path):
    files.write(classifier(), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_model_beyond_protobufs_limit_keeps_its_weights_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(external, "SINGLE_FILE_BYTES", 100)
    weight = np.arange(3000, dtype=np.float32).reshape(1, 3000)
    files.write(classifier(weight=weight), tmp_path / "model.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    np.testing.assert_array_equal(weight_of(tmp_path / "model.onnx"), weight)
