"""An engine that runs code of its own needs a user's word; no bundle can give it itself."""

import json

import msgspec
import pytest

import vitedge as ve
from vitedge.core import catalog
from vitedge.core.bundle import ENGINE, open_bundle, read_manifest, seal
from vitedge.core.errors import InputError, UnavailableError
from vitedge.runtimes import open_session


@pytest.fixture
def bundle(small_bundle, tmp_path):
    """One for TensorRT whose engine brings its own runtime."""
    target = catalog.targets()["jetson-orin"]
    compiled = msgspec.structs.replace(target.compile, version_compatible=True)
    folder = small_bundle(
        tmp_path / "small", target=msgspec.structs.replace(target, compile=compiled)
    )
    (folder / ENGINE).write_bytes(b"engine")
    seal(folder, read_manifest(folder))
    return folder


def test_it_is_refused_before_anything_is_loaded(bundle):
    with (
        pytest.raises(InputError, match="runs code of its own") as caught,
        open_session(open_bundle(bundle)),
    ):
        pass
    assert "allow_host_code=True" in caught.value.fix


def test_the_command_line_says_what_to_add(bundle, vitedge):
    ran = vitedge("validate", bundle, code=2)
    what, fix = ran.stderr.splitlines()[-2:]
    assert what.startswith("error: the engine of")
    assert fix == "  fix: if you trust who built it, open it with --allow-host-code"


def test_with_a_users_word_it_is_a_question_of_hardware(bundle):
    for opened in (
        open_bundle(bundle, allow_host_code=True),
        ve.open(bundle, allow_host_code=True),
        open_bundle(bundle).allowing_host_code(),
    ):
        assert opened.allows_host_code
        with pytest.raises(UnavailableError, match="was built for"), open_session(opened):
            pass


def test_a_bundle_cannot_say_it_itself(bundle):
    path = bundle / "manifest.json"
    stated = json.loads(path.read_text())
    path.write_text(json.dumps({**stated, "allows_host_code": True}))
    with pytest.raises(InputError, match="allows_host_code"):
        open_bundle(bundle)
