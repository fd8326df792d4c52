"""Where a device is, as users write it."""

from pathlib import Path

import pytest

from vitedge.core.errors import InputError
from vitedge.export.request import ExportRequest, plan_export
from vitedge.measure.remote.address import Address, parse_address
from vitedge.models.sources import ModelRequest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("text", "destination", "port", "slug"),
    [
        ("ssh://Orin", "Orin", None, "Orin"),
        ("ssh://root@orin.local:2222", "root@orin.local", 2222, "root@orin.local-2222"),
        ("ssh://me@[fe80::1%eth0]:22/", "me@fe80::1%eth0", 22, "me@-fe80-1-eth0-22"),
    ],
)
def test_an_address(text, destination, port, slug):
    address = parse_address(text)
    assert address == Address(text, destination, port)
    assert address.slug == slug


@pytest.mark.parametrize(
    "text",
    [
        *("orin", "ssh://", "ssh://a:secret@host", "ssh://host:0", "ssh://host:65536"),
        *("ssh://-oProxyCommand=x", "ssh://-x@host", "ssh://host;reboot", "http://host"),
    ],
)
def test_what_is_none(text):
    with pytest.raises(InputError, match="is no address") as error:
        parse_address(text)
    assert "ssh://[user@]host[:port]" in error.value.fix


def test_a_targets_file_names_it_and_an_artifact_does_not_carry_it(tmp_path):
    text = (ROOT / "targets" / "onnxruntime-cpu.toml").read_text()
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InputError, match="names no device"):
        parse_address(str(file))
    file.write_text(f'device = "orin"\n{text}')
    with pytest.raises(InputError, match="device"):
        parse_address(str(file))
    file.write_text(f'device = "ssh://orin:2222"\n{text}')
    assert parse_address(str(file)).port == 2222
    request = ExportRequest(ModelRequest(), (str(file),), "fp32", duration_s=0, output=tmp_path)
    (target,) = plan_export(request).targets
    assert target.name == "onnxruntime-cpu" and target.device == ""


def test_no_shipped_target_names_one():
    from vitedge.core import catalog

    assert not any(target.device for target in catalog.targets().values())
