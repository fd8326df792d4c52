"""What `vitedge package` writes: from the manifest alone, whole or not, and it runs."""

import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

import vitedge as ve
from tests.support.hostile import content
from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.core.manifest import Build, Model, Tensor
from vitedge.core.spec import Detection
from vitedge.ship.package import kinds
from vitedge.ship.packages.cpp import quoted

ONNX = content.linear().SerializeToString()
HOSTILE = 'a "b" {c} \\d\n[e]: \x07é'
IMAGE = Tensor(name="image", shape=(1, 8, 8, 3), dtype="uint8", layout="NHWC")
LOGITS = Tensor(name="logits", shape=(1, 3), dtype="float32", layout="NC")
GOLDEN = """
import sys, numpy as np
import predict
session = predict.Session()
images = np.load(sys.argv[1])["images"]
np.save(sys.argv[2], np.stack([predict.outputs(session, image)[0] for image in images]))
assert not [name for name in sys.modules if name.partition(".")[0] == "vitedge"]
"""


def photograph(path):
    """Stripes and noise, wider than high."""
    rows = np.indices((150, 221)).sum(0)
    noise = np.random.default_rng(0).integers(0, 256, rows.shape)
    pixels = np.stack([rows % 256, rows * 3 % 256, noise], -1).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_python_file_gives_what_vitedge_gives(runtime, bundles, vitedge, tmp_path):
    bundle, folder = bundles[runtime, "int8"], tmp_path / "out"
    document = vitedge("package", bundle, "--as", "python", "--output", folder, "--json").document
    assert set(document["sizes"]) == {path.name for path in folder.iterdir()}
    outputs = tmp_path / "outputs.npy"
    words = [sys.executable, "-c", GOLDEN, bundle / "golden.npz", outputs]
    subprocess.run(words, cwd=folder, check=True)
    with ve.open(bundle) as opened:
        from vitedge.measure.accuracy.validation import run_all

        expected = run_all(opened._session, opened.golden().images)[0]
    np.testing.assert_array_equal(np.load(outputs), expected)

    image = photograph(tmp_path / "a.png")
    words = [sys.executable, folder / "predict.py", image, "--json", "--top", "3"]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert json.loads(printed) == vitedge("predict", bundle, image, "--top", 3, "--json").document


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection", "dense"])
def test_a_python_file_of_any_task_has_all_it_names(task, small_bundle, tmp_path):
    rule = Detection(scores="softmax") if task == "detection" else None
    source = Model(name="x", source="", task=task, num_classes=3, weights_sha256="", detection=rule)
    boxes = Tensor(name="boxes", shape=(1, 9, 4), dtype="float32", layout="NQ4")
    named = {"model": source, "name": HOSTILE, "outputs": (LOGITS, boxes)}
    bundle = small_bundle(tmp_path / "bundle", ONNX, **named)
    ve.package(bundle, form="python", output=tmp_path / "out")
    program = (tmp_path / "out" / "predict.py").read_text()
    assert program.index("'logits': ") < program.index("'boxes': "), "the main output comes first"
    check = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E9,F8"]
    subprocess.run([*check, tmp_path / "out" / "predict.py"], check=True)


def config(bundle, folder, name):
    """Its config.pbtxt as Triton's own message."""
    pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    ve.package(bundle, form="triton", output=folder)
    text = (folder / name / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, pb.ModelConfig())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_model_repository_is_what_triton_reads(runtime, bundles, tmp_path):
    bundle = bundles[runtime, "int8"]
    model = config(bundle, tmp_path / "out", bundle.name)
    assert (model.name, model.backend, model.max_batch_size) == (bundle.name, runtime, 0)
    (image,), (logits,) = model.input, model.output
    assert (image.name, list(image.dims)) == ("image", [1, 32, 32, 3])
    assert image.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[
        image.data_type
    ].name == ("TYPE_UINT8")
    assert (list(logits.dims), logits.label_filename) == ([1, 10], "labels.txt")
    assert [group.count for group in model.instance_group] == [1]
    assert not model.HasField("dynamic_batching")
    version = tmp_path / "out" / bundle.name / "1"
    assert (version / model.default_model_filename).is_file()
    assert (version.parent / logits.label_filename).read_text().split() == list("0123456789")


def test_a_dynamic_batch_is_triton_s_to_fill(small_bundle, tmp_path):
    batched = [
        msgspec.structs.replace(tensor, shape=("batch", *tensor.shape[1:]))
        for tensor in (IMAGE, LOGITS, msgspec.structs.replace(LOGITS, name="s", shape=(1,)))
    ]
    target = msgspec.structs.replace(catalog.targets()["onnxruntime-cpu"], threads=3)
    bundle = small_bundle(
        tmp_path / "small", ONNX, inputs=(batched[0],), outputs=tuple(batched[1:]), target=target
    )
    model = config(bundle, tmp_path / "out", "small")
    assert model.max_batch_size == 32 and model.HasField("dynamic_batching")
    assert list(model.input[0].dims) == [8, 8, 3]
    assert [list(output.dims) for output in model.output] == [[3], [1]]
    assert model.output[1].HasField("reshape"), "a number an image is no axis"
    assert model.parameters["intra_op_thread_count"].string_value == "3"


def test_an_engine_runs_on_a_gpu_in_the_batch_it_is_tuned_for(small_bundle, tmp_path):
    batched = [
        msgspec.structs.replace(tensor, shape=("batch", *tensor.shape[1:]))
        for tensor in (IMAGE, LOGITS)
    ]
    made = {"inputs": (batched[0],), "outputs": (batched[1],)}
    folder = small_bundle(tmp_path / "rt", **made)
    (folder / "model.onnx").rename(folder / "model.engine")
    from vitedge.core import bundle as bundles

    manifest = bundles.read_manifest(folder)
    target = catalog.targets()["tensorrt"]
    sealed = bundles.seal(folder, msgspec.structs.replace(manifest, target=target))
    model = config(sealed.path, tmp_path / "out", "rt")
    assert model.backend == "tensorrt" and model.default_model_filename == "model.engine"
    assert list(model.dynamic_batching.preferred_batch_size) == [target.compile.opt_batch]
    assert model.instance_group[0].kind == model.instance_group[0].KIND_GPU
    waiting = msgspec.structs.replace(manifest, target=target, build=Build(state="on the device"))
    with pytest.raises(InputError, match="no engine yet"):
        ve.package(bundles.seal(folder, waiting).path, form="triton", output=tmp_path / "no")


def test_names_that_would_end_a_string_stay_in_it(small_bundle, tmp_path):
    name = HOSTILE.replace("\n", " ")
    outputs = (msgspec.structs.replace(LOGITS, name=HOSTILE),)
    bundle = small_bundle(tmp_path / "small", ONNX, name=name, inputs=(IMAGE,), outputs=outputs)
    model = config(bundle, tmp_path / "out", name)
    assert (model.name, model.output[0].name) == (name, HOSTILE)
    slashed = small_bundle(tmp_path / "slashed", ONNX, name="../up", outputs=outputs)
    with pytest.raises(InputError, match="no name of a folder"):
        ve.package(slashed, form="triton", output=tmp_path / "up")
    assert quoted('a"\\\né??/') == r'"a\042\134\012\303\251\077\077/"'


@pytest.mark.parametrize("name", ["", "n" * 256])
def test_triton_s_folder_has_a_name_that_a_folder_can_have(name, small_bundle, tmp_path):
    bundle = small_bundle(tmp_path / "b", ONNX, name=name, inputs=(IMAGE,), outputs=(LOGITS,))
    with pytest.raises(InputError, match="no name of a folder"):
        ve.package(bundle, form="triton", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_type_that_triton_has_not_is_refused(small_bundle, tmp_path):
    outputs = (msgspec.structs.replace(LOGITS, dtype="uint4"),)
    bundle = small_bundle(tmp_path / "b", ONNX, inputs=(IMAGE,), outputs=outputs)
    with pytest.raises(InputError, match="'uint4', which Triton does not have"):
        ve.package(bundle, form="triton", output=tmp_path / "out")


def test_a_version_that_says_more_to_pip_is_refused(small_bundle, tmp_path):
    tools = {"numpy": "2.0\n--index-url http://127.0.0.1/"}
    bundle = small_bundle(tmp_path / "b", ONNX, inputs=(IMAGE,), outputs=(LOGITS,), tools=tools)
    with pytest.raises(InputError, match=r"numpy is .* no version"):
        ve.package(bundle, form="python", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_packaged_is_said_and_nothing_is_written(
    bundles, small_bundle, vitedge, tmp_path
):
    bundle, out = bundles["onnxruntime", "fp32"], tmp_path / "out"
    package = ("package", bundle, "--output", out)
    assert "did you mean 'python'" in vitedge(*package, "--as", "pyton", code=2).stderr
    out.mkdir()
    assert "is there already" in vitedge(*package, "--as", "python", code=2).stderr
    out.rmdir()
    target = catalog.targets()["tensorrt"]
    engine = small_bundle(tmp_path / "engine", target=target, inputs=(IMAGE,), outputs=(LOGITS,))
    said = vitedge("package", engine, "--as", "cpp", "--output", out, code=2).stderr
    assert "is for the runtime 'tensorrt'" in said and "--as triton" in said
    damaged = small_bundle(tmp_path / "damaged")
    (damaged / "model.onnx").write_bytes(b"another")
    vitedge("package", damaged, "--as", "python", "--output", out, code=2)
    assert {path.name for path in tmp_path.iterdir()} == {"engine", "damaged"}


def test_a_package_with_a_rule_that_cpp_has_not_is_refused(small_bundle, tmp_path):
    from vitedge.core.manifest import Preprocessing
    from vitedge.core.spec import Preprocess

    host = Preprocess(height=8, width=8, pad="mirror")
    bundle = small_bundle(tmp_path / "b", preprocessing=Preprocessing(host=host, graph=()))
    with pytest.raises(InputError, match="pad 'mirror'") as caught:
        ve.package(bundle, form="cpp", output=tmp_path / "out")
    assert "python" in caught.value.fix


def test_a_third_party_adds_a_kind(bundles, tmp_path, monkeypatch):
    (tmp_path / "my_kind.py").write_text(
        "class Bare:\n"
        "    name, title, runtimes = 'bare', 'The model alone', frozenset(['onnxruntime'])\n"
        "    def write(self, bundle, folder):\n"
        "        (folder / 'name').write_text(bundle.manifest.name)\n"
        "        return ('cat name',)\n"
    )
    info = tmp_path / "my_kind-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-kind\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vitedge.packages]\nbare = my_kind:Bare\n")
    monkeypatch.syspath_prepend(tmp_path)
    kinds.cache_clear()
    try:
        package = ve.package(bundles["onnxruntime", "fp32"], form="bare", output=tmp_path / "out")
    finally:
        kinds.cache_clear()
    assert package.commands == ("cat name",) and set(package.sizes) == {"name"}
