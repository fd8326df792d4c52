"""Whatever bytes there are: a reader gives what they say, or one InputError that names the file."""

import json
import string

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.hostile import content
from vitedge.core import json_document, npz, onnx_outline, safetensors, toml, torch_file
from vitedge.core.bundle import read_manifest
from vitedge.core.errors import InputError
from vitedge.core.report import read as read_report
from vitedge.core.spec import Preprocess
from vitedge.graph.io import read as read_onnx

anything = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def refused_or(read, path):
    """What `read` gives of the file, None where it refuses."""
    try:
        return read(path)
    except InputError as error:
        assert path.name in error.what or path.parent.name in error.what
        assert error.fix or path.suffix == ".toml"
        return None


@anything
@given(text=documents.map(lambda document: json.dumps(document).encode()) | st.binary())
def test_json(tmp_path, text):
    path = tmp_path / "d.json"
    path.write_bytes(text)
    document = refused_or(json_document.read_json, path)
    if document is not None:
        assert document == msgspec.json.decode(text)


@anything
@given(
    document=documents | st.dictionaries(st.sampled_from(["schema", "files", "sizes"]), documents)
)
@example(document={"schema": "vitedge.artifact/1"})
def test_manifests(tmp_path, document):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(document))
    assert refused_or(lambda path: read_manifest(path.parent), path) is None


@pytest.fixture(scope="module")
def whole(small_bundle, tmp_path_factory):
    folder = small_bundle(tmp_path_factory.mktemp("whole") / "small")
    return json.loads((folder / "manifest.json").read_bytes())


@anything
@given(data=st.data())
def test_manifests_with_another_value_somewhere(tmp_path, whole, data):
    key = data.draw(st.sampled_from(sorted(whole)))
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**whole, key: data.draw(documents)}))
    refused_or(lambda path: read_manifest(path.parent), path)


@anything
@given(document=st.dictionaries(st.text(max_size=8), documents))
def test_reports(tmp_path, document):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"schema": "vitedge.report/1", **document}))
    refused_or(read_report, path)


toml_text = st.text(
    alphabet=string.ascii_letters + string.digits + "[]{}=.,\"'#\n -+_\\", max_size=120
)
settings_text = st.dictionaries(
    st.sampled_from(["height", "width", "mean", "resize", "evil"]), documents, max_size=4
).map(lambda table: "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items()))


@anything
@given(text=toml_text | settings_text)
def test_toml(tmp_path, text):
    path = tmp_path / "t.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    made = refused_or(lambda path: toml.load_toml(path, Preprocess), path)
    assert made is None or isinstance(made, Preprocess)


@anything
@given(data=st.data(), cut=st.integers(0, 400))
def test_npz(tmp_path, data, cut):
    path = tmp_path / "a.npz"
    array = np.arange(data.draw(st.integers(0, 50)), dtype=data.draw(st.sampled_from("bhifd")))
    np.savez(path, a=array, b=np.ones(3))
    stored = bytearray(path.read_bytes())
    changes = data.draw(
        st.dictionaries(st.integers(0, len(stored) - 1), st.integers(0, 255), max_size=4)
    )
    for place, byte in changes.items():
        stored[place] = byte
    path.write_bytes(stored[: len(stored) - cut] if data.draw(st.booleans()) else stored)

    def read(path):
        with npz.arrays(path) as arrays:
            return {name: arrays[name] for name in arrays}

    named = refused_or(read, path)
    assert named is None or sum(a.nbytes for a in named.values()) <= 128 * len(stored) + 2**26


@anything
@given(header=documents | st.dictionaries(st.text(max_size=3), st.fixed_dictionaries({
    "dtype": st.sampled_from(["F32", "I8", "F4", "X"]),
    "shape": st.lists(st.integers(-1, 2**63), max_size=3),
    "data_offsets": st.lists(st.integers(-1, 2**63), min_size=2, max_size=2),
}), max_size=3), body=st.binary(max_size=64))  # fmt: skip
def test_safetensors(tmp_path, header, body):
    path = tmp_path / "w.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    refused_or(safetensors.check, path)


@anything
@given(stored=st.binary(max_size=300))
@example(stored=b"PK\x03\x04")
@example(stored=b"\x80\x02}.")
def test_checkpoints(tmp_path, stored):
    path = tmp_path / "w.pt"
    path.write_bytes(stored)
    refused_or(torch_file.check, path)


@pytest.fixture(scope="module")
def small_onnx():
    return content.linear().SerializeToString()


@anything
@given(data=st.data())
def test_onnx(tmp_path, small_onnx, data):
    path = tmp_path / "m.onnx"
    stored = bytearray(small_onnx)
    places = st.integers(0, min(len(stored), 400) - 1)
    for place, byte in data.draw(st.dictionaries(places, st.integers(0, 255), max_size=4)).items():
        stored[place] = byte
    path.write_bytes(stored)
    file = refused_or(read_onnx, path)
    assert file is None or file.sha256


@anything
@given(stored=st.binary(max_size=200))
def test_an_outline_ends(stored):
    try:
        outline = onnx_outline.read(stored)
    except onnx_outline.Malformed:
        return
    assert outline.fields <= len(stored)
