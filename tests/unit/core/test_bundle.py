"""A bundle is opened whole or refused, and replaced whole or not at all."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vitedge.core import catalog
from vitedge.core.bundle import Bundle, bundles_in, open_bundle, seal, sha256
from vitedge.core.errors import InputError
from vitedge.core.manifest import Reference
from vitedge.core.publication import publish, workspace


@pytest.fixture
def bundle(tmp_path, small_bundle):
    return small_bundle(tmp_path / "small-fp32")


def edit(bundle, **changes):
    """Change the manifest by hand."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def refusal(bundle):
    with pytest.raises(InputError) as caught:
        open_bundle(bundle)
    assert caught.value.fix
    assert str(bundle) in caught.value.what
    return caught.value.what


# -- opening ------------------------------------------------------------------------------------


def test_a_sealed_bundle_opens_with_everything_in_it(bundle):
    (bundle / "report.json").write_text("anything")  # is not part of it
    opened = open_bundle(bundle)
    assert set(opened.manifest.files) == {"model.onnx", "golden.npz", "labels.txt"}
    assert set(opened.model_files) == {"model.onnx"}
    assert opened.size_bytes == len(b"weights")
    assert opened.labels() == ("cat", "dog", "zèbre")
    golden = opened.golden()
    assert (golden.images.shape, golden.outputs.shape) == ((2, 8, 8, 3), (2, 3))
    np.testing.assert_array_equal(golden.labels, [0, 1])


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "labels.txt"])
def test_one_changed_byte_in_any_file_and_a_missing_file_are_refused(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    assert f"'{name}' is not the file the manifest describes" in refusal(bundle)
    (bundle / name).unlink()
    assert f"'{name}' is missing" in refusal(bundle)


def test_a_link_in_the_place_of_a_file_is_refused(bundle, tmp_path):
    (bundle / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (bundle / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    assert "model.onnx" in refusal(bundle)


@pytest.mark.parametrize("name", ["evil.so", "model.onnx.data", "..hidden", "report", "\n\x1b[31m"])
def test_a_file_that_is_not_listed_is_refused(bundle, name):
    (bundle / name).write_bytes(b"\x7fELF")
    said = refusal(bundle)
    assert f"{name!r} is not listed" in said
    assert said.isprintable()


@pytest.mark.parametrize("name", ["report.json", "report-ssh-orin.json", "evidence.npz", "sub"])
@pytest.mark.parametrize(
    "make",
    [lambda path: path.symlink_to("/etc/hostname"), Path.mkdir, os.mkfifo],
    ids=["link", "folder", "FIFO"],
)
def test_nothing_in_it_is_a_link_or_a_device(bundle, name, make):
    make(bundle / name)
    assert repr(name) in refusal(bundle)


def test_what_measuring_makes_and_a_killed_process_leaves_is_no_part_of_it(bundle):
    for name in ("report.json", "report-orin.json", "evidence.npz", ".report.json.17"):
        (bundle / name).write_bytes(b"anything")
    assert set(open_bundle(bundle).manifest.files) == {"model.onnx", "golden.npz", "labels.txt"}


def test_sizes_are_of_the_files_that_are_listed(bundle):
    edit(bundle, sizes={"model.onnx": 7})
    assert "says no size" in refusal(bundle)


def test_what_was_checked_is_what_is_read(bundle):
    opened = open_bundle(bundle)
    (bundle / "labels.txt").write_text("dog\ncat\nbird\n")
    with (bundle / "model.onnx").open("r+b") as file:
        file.write(b"changed")
    (bundle / "golden.npz").unlink()
    assert opened.labels() == ("cat", "dog", "zèbre")
    assert opened.golden().images.shape == (2, 8, 8, 3)
    assert (opened.checked / "model.onnx").read_bytes() == b"weights"


def test_one_that_was_changed_before_it_is_first_read_is_refused(bundle):
    exported = Bundle(bundle, open_bundle(bundle).manifest)
    edit(bundle, name="another")
    with pytest.raises(InputError, match="was changed"):
        exported.labels()


@pytest.mark.parametrize("name", ["../secret", "sub/secret", "/etc/hostname", "..", ".", ""])
def test_a_manifest_cannot_point_outside_its_folder(bundle, name):
    (bundle.parent / "secret").write_bytes(b"weights")
    (bundle / "sub").mkdir()
    (bundle / "sub" / "secret").write_bytes(b"weights")
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    edit(bundle, files={**files, name: files["model.onnx"]})
    assert f"'{name}'" in refusal(bundle)


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_a_truncated_manifest_is_refused(bundle, keep):
    whole = (bundle / "manifest.json").read_bytes()
    (bundle / "manifest.json").write_bytes(whole[:keep])
    assert "manifest.json cannot be read" in refusal(bundle)


@pytest.mark.parametrize(
    "content",
    [
        *(b"\xff\xfe", b'{"schema": "\xff"}', b"[" * 100_000),
        *(b"[]", b'"vitedge.artifact/1"', b"null", b"{}"),
    ],
)
def test_a_manifest_that_is_something_else_is_refused(bundle, content):
    (bundle / "manifest.json").write_bytes(content)
    assert "manifest.json" in refusal(bundle)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        *(({"schema": name}, "'vitedge.artifact/1'") for name in ("vitedge.artifact/2", "", None)),
        ({"schema": 1}, "'vitedge.artifact/1'"),
        ({"surprise": 1}, "surprise"),
        ({"precision": "int3"}, "precision"),
        ({"files": []}, "files"),
        ({"files": {"model.onnx": 3}}, "files"),
        ({"files": {}}, "lists no model"),
    ],
    ids=str,
)
def test_a_manifest_of_another_shape_is_refused(bundle, changes, says):
    edit(bundle, **changes)
    assert says in refusal(bundle)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    assert "no vitedge artifact" in refusal(tmp_path)


def test_a_misspelt_bundle_is_answered_with_its_neighbour(bundle):
    with pytest.raises(InputError, match="no artifact at") as caught:
        open_bundle(bundle.with_name("smal-fp32"))
    assert "'small-fp32'" in caught.value.fix


def test_only_bundles_are_listed(bundle, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").write_text("")
    assert bundles_in(tmp_path) == [bundle]
    assert bundles_in(tmp_path / "absent") == []


# -- the FP32 bundle beside it ------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path, small_bundle):
    fp32 = small_bundle(tmp_path / "small-fp32")
    reference = Reference(bundle=fp32.name, files=open_bundle(fp32).model_files)
    int8 = small_bundle(tmp_path / "small-int8", b"small", precision="int8", reference=reference)
    return fp32, int8


def test_an_int8_bundle_finds_the_fp32_one_beside_it_or_has_none(pair):
    fp32, int8 = pair
    reference_bundle = open_bundle(int8).reference()
    assert reference_bundle.path == fp32.resolve()
    assert open_bundle(fp32).reference() is not None  # itself
    fp32.rename(fp32.with_name("elsewhere"))
    assert open_bundle(int8).reference() is None


def test_another_models_fp32_bundle_is_no_reference(pair, small_bundle):
    fp32, int8 = pair
    fp32.rename(fp32.with_name("elsewhere"))
    small_bundle(fp32, b"other weights")
    with pytest.raises(InputError, match="not the FP32 model"):
        open_bundle(int8).reference()


def test_an_engine_built_on_the_device_leaves_the_reference_what_it_was(tmp_path, small_bundle):
    target = catalog.targets()["tensorrt"]
    fp32 = small_bundle(tmp_path / "small-fp32", target=target)
    files = {**open_bundle(fp32).model_files, "model.engine": "of the machine that exported"}
    reference = Reference(bundle=fp32.name, files=files)
    int8 = open_bundle(small_bundle(tmp_path / "small-int8", b"int8", reference=reference))
    manifest = open_bundle(fp32).manifest
    (fp32 / "model.engine").write_bytes(b"built here")
    seal(fp32, manifest)
    reference_bundle = int8.reference()
    assert reference_bundle.path == fp32
    assert reference_bundle.size_bytes == len(b"built here")


@pytest.mark.parametrize("name", ["../small-fp32", "../../etc", "/etc"])
def test_a_reference_cannot_lie_elsewhere(tmp_path, small_bundle, name):
    small_bundle(tmp_path / "small-fp32")
    files = open_bundle(tmp_path / "small-fp32").model_files
    int8 = small_bundle(tmp_path / "in" / "x", reference=Reference(bundle=name, files=files))
    with pytest.raises(InputError):
        open_bundle(int8).reference()


# -- writing ------------------------------------------------------------------------------------


def test_publishing_replaces_the_old_bundle_whole(tmp_path, small_bundle):
    final = small_bundle(tmp_path / "x", b"old")
    (final / "report.json").write_text("of the old one")
    with workspace(tmp_path) as work:
        publish(small_bundle(work / "x", b"new"), final)
    assert (open_bundle(final).path / "model.onnx").read_bytes() == b"new"
    assert not (final / "report.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs renameat2")
def test_a_reader_finds_the_old_or_the_new_at_every_moment(tmp_path, small_bundle):
    final = small_bundle(tmp_path / "x", b"old")
    done, seen = threading.Event(), set()

    def read():
        while not done.is_set():
            seen.add((final / "model.onnx").read_bytes())

    with ThreadPoolExecutor() as pool:
        reader = pool.submit(read)
        for turn in range(100):
            with workspace(tmp_path) as work:
                publish(small_bundle(work / "x", b"even" if turn % 2 else b"odd"), final)
        done.set()
        reader.result()
    assert {b"even", b"odd"} <= seen <= {b"old", b"even", b"odd"}


@pytest.mark.parametrize(
    "make",
    [
        lambda path: (path.mkdir(), (path / "thesis.tex").write_text("mine")),
        lambda path: path.write_text("mine"),
        lambda path: path.symlink_to("elsewhere"),
    ],
    ids=["folder", "file", "link"],
)
def test_only_a_bundle_is_replaced(tmp_path, small_bundle, make):
    final = tmp_path / "out" / "x"
    final.parent.mkdir()
    make(final)
    with workspace(tmp_path) as work, pytest.raises(InputError, match="no artifact"):
        publish(small_bundle(work / "x"), final)
    assert os.path.lexists(final)


KILL = """
import os, signal, sys
from pathlib import Path
from vitedge.core.publication import publish, workspace

final, staged, moment, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
seen = 0

def watch(event, arguments):
    global seen
    if event == moment:
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

with workspace(final.parent) as work:
    staged.rename(work / staged.name)
    sys.addaudithook(watch)
    publish(work / staged.name, final)
"""


@pytest.mark.parametrize("there_was", ["an old bundle", "nothing"])
@pytest.mark.parametrize(
    ("moment", "number"), [("open", 0), ("os.rename", 0), ("os.rename", 1), ("shutil.rmtree", 0)]
)
def test_a_kill_while_publishing_leaves_a_whole_bundle_or_none(
    tmp_path, small_bundle, there_was, moment, number
):
    output = tmp_path / "out"
    output.mkdir()
    final = output / "x"
    if there_was == "an old bundle":
        small_bundle(final, b"old")
    staged = small_bundle(tmp_path / "staged" / "x", b"new")
    command = [sys.executable, "-c", KILL, str(final), str(staged), moment, str(number)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    left = [path.name for path in bundles_in(output)]
    assert set(left) <= {"x"}
    if left:
        content = (open_bundle(final).path / "model.onnx").read_bytes()
        assert content in (b"old", b"new")
    with workspace(output):  # the next export
        pass
    assert {path.name for path in output.iterdir()} == set(left)


def test_a_failed_publish_keeps_the_old_bundle(tmp_path, small_bundle):
    final = small_bundle(tmp_path / "x", b"old")
    with pytest.raises(OSError), workspace(tmp_path) as work:
        publish(work / "never staged", final)
    assert open_bundle(final).path == final


def test_a_workspace_is_gone_after_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), workspace(tmp_path / "new" / "folder") as work:
        (work / "file").write_text("")
        1 / 0  # noqa: B018
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_what_a_killed_export_left_is_removed_and_a_running_ones_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale = tmp_path / f".vitedge-{dead.pid}-abc"
    running = tmp_path / f".vitedge-{os.getppid()}-abc"
    others = tmp_path / ".vitedge-notes"
    for folder in (stale, running, others):
        folder.mkdir()
        (folder / "file").write_text("")
    with workspace(tmp_path):
        pass
    assert not stale.exists()
    assert running.exists() and others.exists()


def test_an_output_that_is_a_file_is_the_users_mistake(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="cannot write to") as caught, workspace(tmp_path / "out"):
        pass
    assert caught.value.fix
    assert (tmp_path / "out").read_text() == "mine"


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    content = b"x" * (2**20 + 1)  # more than is read at once
    (tmp_path / "file").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert sha256(tmp_path / "file") == expected
