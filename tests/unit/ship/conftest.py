"""A signed bundle of a few bytes, with everything that measuring puts into one."""

from __future__ import annotations

import pytest

import vitedge
from tests.support.keys import pair


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """The release's, and a stranger's."""
    folder = tmp_path_factory.mktemp("keys")
    return {name: pair(folder, name) for name in ("release", "stranger")}


@pytest.fixture
def signed(tmp_path, small_bundle, keys):
    """Signed by the release's key, its report and evidence, too."""
    bundle = small_bundle(tmp_path / "small-fp32")
    (bundle / "report.json").write_text('{"a": "report"}')
    (bundle / "report-jetson.json").write_text('{"another": "report"}')
    (bundle / "evidence.npz").write_bytes(b"PK evidence")
    vitedge.sign(bundle, key=keys["release"].private, report=True)
    return bundle
