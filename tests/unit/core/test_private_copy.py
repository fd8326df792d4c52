"""What was checked is what is read: private copies, made while they are hashed."""

import gc
import hashlib
import os
import signal
import stat
import subprocess
import sys

import pytest

from vitedge.core.errors import InputError
from vitedge.core.private_copy import BLOCK_BYTES, PREFIX, PrivateCopy, copy_verified

CONTENT = os.urandom(2 * BLOCK_BYTES + 12345)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CODE = """
import time
from vitedge.core.private_copy import PrivateCopy
copy = PrivateCopy()
print(copy.path, flush=True)
time.sleep(60)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    place = tmp_path / "private"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield place
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "model.onnx").write_bytes(CONTENT)
    return tmp_path / "in"


def copied(source, name="model.onnx"):
    return copy_verified(source, {name: SHA256}, {name: len(CONTENT)})


def test_it_is_this_users_alone_and_goes_with_the_object(place, source):
    copy = copied(source)
    file = copy.path / "model.onnx"
    assert file.read_bytes() == CONTENT
    assert copy.path.parent == place
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o700
    del copy
    gc.collect()
    assert not list(place.iterdir())


def test_what_happens_to_the_file_afterwards_does_not_matter(place, source):
    copy = copied(source)
    with (source / "model.onnx").open("r+b") as file:
        file.write(b"changed in place")
    os.replace(source / "model.onnx", source / "elsewhere")
    assert (copy.path / "model.onnx").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(CONTENT[:-1]),
        lambda path: path.write_bytes(CONTENT + b"x"),
        lambda path: path.write_bytes(b"x" + CONTENT[1:]),
        lambda path: os.truncate(path, 2**40),
    ],
    ids=["shorter", "longer", "another byte", "a hole of 1 TiB"],
)
def test_another_content_is_refused(place, source, change):
    change(source / "model.onnx")
    with pytest.raises(InputError, match=r"'model\.onnx' is not the file .*SHA-256"):
        copied(source)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("elsewhere"),
        lambda path: path.symlink_to("/dev/zero"),
        os.mkfifo,
        lambda path: path.mkdir(),
    ],
    ids=["link", "link to a device", "FIFO", "folder"],
)
def test_what_is_no_regular_file_is_refused_at_once(place, source, make):
    (source / "model.onnx").rename(source / "elsewhere")
    make(source / "model.onnx")
    with pytest.raises(InputError, match=r"model\.onnx"):
        copied(source)


def test_what_a_killed_process_left_goes_and_what_is_in_use_stays(place):
    in_use = PrivateCopy()
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True
    ) as process:
        left = process.stdout.readline().strip()
        os.kill(process.pid, signal.SIGKILL)
    assert os.path.isdir(left)
    newer = PrivateCopy()
    assert not os.path.exists(left)
    assert in_use.path.is_dir()
    assert newer.path.is_dir()
    assert len(list(place.glob(f"{PREFIX}*"))) == 2


def test_a_fork_that_ends_takes_nothing_with_it(place):
    copy = PrivateCopy()
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        copy._finalizer()
        os._exit(0)
    os.waitpid(child, 0)
    assert copy.path.is_dir()


def test_processes_that_begin_at_once_do_not_take_each_others_folder_for_a_left_one(place):
    """Each removes what is not locked; between making a folder and locking it there is a moment."""
    code = (
        "from vitedge.core.private_copy import PrivateCopy\n"
        "for _ in range(150):\n"
        "    copy = PrivateCopy(); copy.write('name', b'content'); assert copy.path.is_dir()\n"
        "    copy._finalizer()\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(4)
    ]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, errors
    assert not list(place.iterdir())
