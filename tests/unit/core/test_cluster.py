"""What is asked of a host of a cluster before any work."""

from vitedge.core.cluster import _differences
from vitedge.core.code_version import code_version


def test_a_host_of_other_versions_is_named():
    here = code_version()
    assert not _differences(here, dict(here))
    there = {**here, "Python": "3.1.4"}
    del there["onnxruntime"]
    said = _differences(here, there)
    assert f"onnxruntime missing and not {here['onnxruntime']}" in said
    assert f"Python 3.1.4 and not {here['Python']}" in said and "vitedge" not in said
