"""Which targets an FP8 export takes, and what it makes of them."""

import re

import pytest
from msgspec.structs import replace

from tests.support.machine import HERE, machine_with
from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.core.fp8 import CAPABILITIES, fp8_target

TARGETS = catalog.targets()
HOPPER, AMPERE = machine_with("x86_64", "9.0"), machine_with("x86_64", "8.6")


@pytest.mark.parametrize("name", [n for n, t in TARGETS.items() if "fp8" not in t.precisions])
def test_other_targets_are_refused_with_the_gpus_that_have_it(name):
    with pytest.raises(InputError, match=f"'{name}'.* does not run fp8") as caught:
        fp8_target(TARGETS[name], HERE)
    for words in ("8.9 (Ada)", "9.0 (Hopper)", "(Blackwell)", "11.0 (Thor)"):
        assert words in caught.value.what
    named = re.findall(r"targets='([\w-]+)'", caught.value.fix)
    assert sorted(named) == ["jetson-thor", "rtx-40", "rtx-50", "tensorrt"]


def test_a_target_that_says_so_for_older_gpus_is_refused():
    older = replace(TARGETS["rtx-40"], compute_capabilities=("8.6", "8.7"))
    with pytest.raises(InputError, match=r"compute capability 8\.6 and 8\.7"):
        fp8_target(older, HERE)


def test_of_several_gpus_those_that_have_it_are_built_for():
    both = replace(TARGETS["rtx-40"], compute_capabilities=("8.6", "8.9", "12.0"))
    assert fp8_target(both, HERE).compute_capabilities == ("8.9", "12.0")


def test_a_target_of_any_gpu_is_then_one_of_those_that_have_it():
    made = fp8_target(TARGETS["tensorrt"], replace(HERE, gpus=()))
    assert made.compute_capabilities == CAPABILITIES
    assert fp8_target(TARGETS["tensorrt"], HOPPER) == made
    assert catalog.lacks_hardware(made, HOPPER) == ""
    assert "compute capability 8.9 or 9.0" in catalog.lacks_hardware(made, AMPERE)
    with pytest.raises(InputError, match=r"GPU here, .*, has compute capability 8\.6"):
        fp8_target(TARGETS["tensorrt"], AMPERE)


def test_its_attention_has_no_limits_of_int8():
    dialect = fp8_target(TARGETS["rtx-50"], HERE).quantization
    assert dialect.number_format == "fp8"
    assert (dialect.attention_head_sizes, dialect.attention_max_tokens) == ((), 0)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (replace(TARGETS["openvino-cpu"], precisions=("fp32", "fp8")), "OpenVINO does not run"),
        (
            replace(
                TARGETS["rtx-40"],
                quantization=replace(TARGETS["rtx-40"].quantization, number_format="fp8"),
            ),
            "number_format",
        ),
    ],
    ids=["a runtime without it", "set by a file"],
)
def test_a_file_that_says_so_is_refused(target, says):
    with pytest.raises(InputError, match=says):
        catalog.check_options(target)
