"""sweep.toml: strict, and its trials counted and chosen without a list of them all."""

import pytest

from vitedge.core.errors import InputError
from vitedge.export.sweep.spec import Trials, read

TWELVE = """
targets = ["onnxruntime-cpu", "openvino-cpu"]
precisions = ["fp32", "int8"]
calibrations = ["default", "fast"]
[[models]]
model = "digits"
[grid]
activations = ["minmax", "mse"]
"""
MILLION = """
targets = ["onnxruntime-cpu"]
[[models]]
[grid]
num_samples = {hundred}
seed = {hundred}
equalize = [{levels}]
"""


@pytest.fixture
def trials(tmp_path):
    def trials(text):
        (tmp_path / "sweep.toml").write_text(text)
        return Trials(read(tmp_path / "sweep.toml"), "sweep.toml")

    return trials


def test_a_grid_is_every_combination_once(trials):
    grid = trials(TWELVE.replace('"fast"', '"thorough"'))
    names = [trial.name for trial in grid]
    assert len(grid) == len(set(names)) == 10  # FP32 has no recipe: 2 + 2 × 2 × 2
    int8 = [trial for trial in grid if trial.precision == "int8"]
    assert {(t.target, t.recipe.name, t.recipe.activations) for t in int8} == {
        (target, recipe, activations)
        for target in ("onnxruntime-cpu", "openvino-cpu")
        for recipe in ("default", "thorough")
        for activations in ("minmax", "mse")
    }
    assert int8[0].parameters == {"activations": int8[0].recipe.activations}


def test_a_name_that_is_there_twice_is_one_trial(trials):
    once = trials(TWELVE).spread(None)
    twice = trials(TWELVE.replace('"openvino-cpu"]', '"openvino-cpu", "openvino-cpu"]')).spread(
        None
    )
    assert {trial.name for trial in twice} == {trial.name for trial in once}
    assert len(twice) == len(once)


def test_a_million_trials_ask_for_a_limit(trials):
    hundred = [*range(1, 101)]
    levels = ", ".join(str(level / 200) for level in range(1, 101))
    grid = trials(MILLION.format(hundred=hundred, levels=levels))
    assert len(grid) == 10**6
    with pytest.raises(InputError, match="1,000,000 trials") as caught:
        grid.spread(None)
    assert "`limit=300`" in caught.value.fix
    spread = grid.spread(20)
    assert len(spread) == 20 and len({trial.recipe.equalize for trial in spread}) == 20


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('target = ["openvino"]\n[[models]]', "unknown field `target`"),
        ("targets = []\n[[models]]", "`targets` is empty"),
        ('targets = ["openvino"]\nmodels = []', "`models` is empty"),
        ('targets = ["openvino"]\ncalibrations = ["defualt"]\n[[models]]', "recipe 'defualt'"),
        ('targets = ["openvino"]\n[[models]]\n[grid]\nactivation = ["mse"]', "`activation`"),
        ('targets = ["openvino"]\n[[models]]\n[grid]\nactivations = ["max"]', "'max'"),
        ('targets = ["openvino"]\n[[models]]\n[grid]\nseed = []', "grid.seed is empty"),
        ('targets = ["openvino"]\nkeep = "best"\n[[models]]', "'best'"),
        ('targets = ["openvino"]\n[[models]]\n[trial]\ncores = 0', "cores"),
    ],
)
def test_what_no_sweep_is_says_where(trials, text, says):
    with pytest.raises(InputError, match=says.replace("[", r"\[")) as caught:
        trials(text)
    assert caught.value.fix


def test_paths_are_those_beside_the_file(tmp_path, trials):
    (tmp_path / "val.npz").write_bytes(b"")
    (trial,) = trials('targets = ["openvino-cpu"]\n[[models]]\neval_data = "val.npz"')
    assert trial.model.eval_data == str(tmp_path / "val.npz") and trial.model.model == ""
