"""The exported graph takes photographs as they are, and computes what its source computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from vitedge.core.errors import InputError
from vitedge.data.imageset import Batch
from vitedge.export.onnx import export
from vitedge.graph.run import Runner
from vitedge.models.sources import ModelRequest, resolve
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.vit import VisionTransformer

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[3]
BATCHES = pytest.mark.parametrize("batch", [1, 4, "dynamic"])
Graph = Callable[..., Any]


def nodes(path: Path) -> Counter[str]:
    return Counter(n.op_type for n in onnx.load(path, load_external_data=False).graph.node)


# -- from torch ---------------------------------------------------------------------------------


@BATCHES
def test_layer_norm_and_gelu_are_fused(digits_graph: Graph, batch: int | str) -> None:
    ops = nodes(digits_graph(batch).path)
    assert ops["LayerNormalization"] == 2 * 4 + 1
    assert ops["Gelu"] == 4
    assert ops["Softmax"] == 4
    for piece in ("Pow", "Sqrt", "ReduceMean", "Erf", "Tanh", "Exp"):
        assert ops[piece] == 0, piece


@BATCHES
def test_it_takes_uint8_images_and_gives_float_logits(
    digits_graph: Graph, batch: int | str
) -> None:
    exported = digits_graph(batch)
    (entry,) = ort.InferenceSession(exported.path).get_inputs()
    lead = None if batch == "dynamic" else batch
    assert (entry.name, entry.type, entry.shape[1:]) == ("image", "tensor(uint8)", [32, 32, 3])
    assert entry.shape[0] == lead or (lead is None and isinstance(entry.shape[0], str))
    assert exported.input == ("image", (lead, 32, 32, 3), "uint8")
    assert exported.output == ("logits", (lead, 10), "float32")


@BATCHES
def test_preprocessing_is_inside(digits_graph: Graph, batch: int | str, held_out: Batch) -> None:
    images = held_out.images[: 4 if batch == "dynamic" else batch]
    model = resolve(ModelRequest())
    pixels = (images.astype(np.float64) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        want = model.content(torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32))
    got = Runner(digits_graph(batch).path)(images)[0]
    np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=1e-4)


def test_each_channel_has_its_own_mean_and_std(tmp_path: Path) -> None:
    imagenet = tmp_path / "imagenet.toml"
    imagenet.write_text(
        "height = 32\nwidth = 32\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
    )
    model = resolve(ModelRequest(preprocess=imagenet))
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    pixels = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.inference_mode():
        want = model.content(torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32))
    got = Runner(export(model, tmp_path, 1, 20).path)(image)[0]
    np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_a_dynamic_batch_runs_any_number_of_images(
    digits_graph: Graph, held_out: Batch, count: int
) -> None:
    images = held_out.images[:count]
    got = Runner(digits_graph("dynamic").path)(images)[0]
    one_by_one = [Runner(digits_graph(1).path)(images[i : i + 1])[0] for i in range(count)]
    np.testing.assert_allclose(got, np.concatenate(one_by_one), rtol=0, atol=1e-4)


def test_a_static_batch_runs_no_other_number(digits_graph: Graph, held_out: Batch) -> None:
    with pytest.raises(Exception, match=r"(?i)invalid dimensions"):
        Runner(digits_graph(4).path)(held_out.images[:3])[0]


@BATCHES
def test_parity_with_the_source_is_measured(digits_graph: Graph, batch: int | str) -> None:
    exported = digits_graph(batch)
    assert 0 < exported.max_rel_error < 1e-5
    assert 0 < exported.max_abs_error < 1e-4


@BATCHES
def test_logits_of_any_number_of_images_are_those_of_the_graph(
    digits_graph: Graph, batch: int | str, held_out: Batch
) -> None:
    (got,) = digits_graph(batch).outputs(held_out.images[:7])
    want = Runner(digits_graph("dynamic").path)(held_out.images[:7])[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


@BATCHES
def test_nodes_are_named_after_their_layer_and_once(digits_graph: Graph, batch: int | str) -> None:
    model = onnx.load(digits_graph(batch).path)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names) and all(names)
    assert {"blocks.0.attn.qkv/MatMul", "blocks.3.mlp.fc2/MatMul"} <= set(names)
    onnx.checker.check_model(model, full_check=True)


@BATCHES
def test_nothing_tells_where_it_was_exported(digits_graph: Graph, batch: int | str) -> None:
    path = digits_graph(batch).path
    content = path.read_bytes()
    for trace in (
        b"/home",
        b"site-packages",
        b".py",
        str(ROOT).encode(),
        str(path.parent).encode(),
    ):
        assert trace not in content, trace
    model = onnx.load(path, load_external_data=False)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert not any(value.metadata_props for value in model.graph.value_info)


@pytest.mark.parametrize("opset", [17, 19])
def test_an_older_opset_is_kept(tmp_path: Path, opset: int) -> None:
    exported = export(resolve(ModelRequest()), tmp_path, 1, opset)
    model = onnx.load(exported.path)
    assert {o.version for o in model.opset_import if o.domain == ""} == {opset}
    assert nodes(exported.path)["LayerNormalization"] == 9


class Deceiver(VisionTransformer):
    """A model whose export computes something else than it does."""

    def forward(self, x: Any) -> Any:
        logits = super().forward(x)
        return logits * 1.01 if torch.compiler.is_exporting() else logits


def test_a_graph_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    model = resolve(ModelRequest())
    deceiver = Deceiver(ZOO["digits"].config).eval()
    deceiver.load_state_dict(model.content.state_dict())
    with pytest.raises(
        InputError, match=r"differs from its source by .*e-0[23] relative"
    ) as caught:
        export(replace(model, content=deceiver), tmp_path, 1, 20)
    assert "digits" in caught.value.what and caught.value.fix


def test_a_model_that_gives_nan_is_refused(tmp_path: Path) -> None:
    model = resolve(ModelRequest())
    module = VisionTransformer(ZOO["digits"].config).eval()
    with torch.no_grad():
        module.head.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="gives NaN from head/"):
        export(replace(model, content=module), tmp_path, 1, 20)


# -- from somebody's ONNX file ------------------------------------------------------------------


def linear(batch: int | str, uint8: bool = False, names: bool = True) -> ModelProto:
    """Three logits of an 8×8 image: differently weighted sums of its pixels."""
    shape = [batch, 8, 8, 3] if uint8 else [batch, 3, 8, 8]
    kind = TensorProto.UINT8 if uint8 else TensorProto.FLOAT
    weight = np.random.default_rng(0).normal(0, 0.1, (192, 3)).astype(np.float32)
    called = (lambda name: name) if names else (lambda name: "same")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["float"], called("cast"), to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["rows"], called("flatten")),
            helper.make_node("MatMul", ["rows", "weight"], ["logits"], called("linear")),
        ],
        "linear",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


PREPROCESS = "height = 8\nwidth = 8\nmean = [0.1, 0.2, 0.3]\nstd = [0.4, 0.5, 0.6]\n"


def foreign(folder: Path, model: ModelProto) -> Any:
    onnx.save(model, folder / "mine.onnx")
    (folder / "mine.toml").write_text(PREPROCESS)
    uint8 = model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    spec = None if uint8 else folder / "mine.toml"
    return resolve(ModelRequest(str(folder / "mine.onnx"), preprocess=spec))


@pytest.mark.parametrize("uint8", [True, False], ids=["uint8", "float"])
@pytest.mark.parametrize(("batch", "asked"), [("batch", "dynamic"), ("batch", 4), (2, 2)])
def test_somebodys_model_gets_the_batch_asked_for(
    tmp_path: Path, batch: int | str, asked: int | str, uint8: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    exported = export(foreign(tmp_path, linear(batch, uint8)), out, asked, 20)
    count = 3 if asked == "dynamic" else asked
    images = np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3), np.uint8)
    pixels = images.astype(np.float64)
    if not uint8:
        pixels = (pixels / 255 - [0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6]
        pixels = pixels.transpose(0, 3, 1, 2)
    weight = numpy_helper.to_array(linear(1).graph.initializer[0])
    want = pixels.reshape(count, -1) @ weight
    np.testing.assert_allclose(Runner(exported.path)(images)[0], want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("asked", [1, "dynamic"])
def test_somebodys_fixed_batch_is_not_changed(tmp_path: Path, asked: int | str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match="fixed at batch 2") as caught:
        export(foreign(tmp_path, linear(2)), out, asked, 20)
    assert "`batch=2`" in caught.value.fix


def test_nodes_without_a_name_of_their_own_get_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    exported = export(foreign(tmp_path, linear("batch", names=False)), out, 1, 20)
    names = [n.name for n in onnx.load(exported.path, load_external_data=False).graph.node]
    assert len(set(names)) == len(names) and all(names)


def test_somebodys_file_is_left_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    model = foreign(tmp_path, linear("batch"))
    before = (tmp_path / "mine.onnx").read_bytes()
    export(model, out, 1, 20)
    assert (tmp_path / "mine.onnx").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"mine.onnx", "mine.toml", "out"}


def renamed(model: ModelProto, names: dict[str, str]) -> ModelProto:
    """`model` with its values called otherwise."""
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    return model


@pytest.mark.parametrize("name", ["image", "image.float"])
def test_names_of_ones_own_do_not_clash_with_the_preprocessings(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    exported = export(foreign(tmp_path, renamed(linear(1), {"pixels": name})), out, 1, 20)
    assert exported.input.name == "image"
    assert exported.output.name == "logits"


def test_a_graph_that_takes_no_such_batch_is_refused(tmp_path: Path) -> None:
    model = linear("batch")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 192]), "shape"))
    model.graph.node[1].CopyFrom(helper.make_node("Reshape", ["float", "shape"], ["rows"], "one"))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match="cannot be exported at 8×8, batch 4") as caught:
        export(foreign(tmp_path, model), out, 4, 20)
    assert "`batch`" in caught.value.fix


def test_a_graph_with_other_logits_than_it_states_is_refused(tmp_path: Path) -> None:
    model = foreign(tmp_path, linear(1))
    seven = replace(model.identity, labels=tuple("abcdefg"))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match="gives 3 logits for 7 classes"):
        export(replace(model, identity=seven), out, 1, 20)


def test_what_a_module_raises_itself_is_what_the_user_reads(tmp_path: Path) -> None:
    class Choosy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise InputError("no logits here", fix="look elsewhere")

    with pytest.raises(InputError, match="no logits here"):
        export(replace(resolve(ModelRequest()), content=Choosy()), tmp_path, 1, 20)


def test_an_output_of_no_values_is_refused_by_its_name(tmp_path: Path) -> None:
    class Empty(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 3:]

    digits = resolve(ModelRequest())
    dense = replace(digits.identity, task="dense", labels=())
    with pytest.raises(InputError, match=r"of shape \(1, 0, 32, 32\): there is nothing"):
        export(replace(digits, content=Empty().eval(), identity=dense), tmp_path, 1, 20)
