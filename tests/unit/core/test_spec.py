"""Settings are strict: every shipped one loads, and every mistake is named with its cure."""

import sys
from pathlib import Path

import pytest

from vitedge.core.errors import InputError
from vitedge.core.runtime import runtimes
from vitedge.core.spec import Calibration, Preprocess, Target
from vitedge.core.toml import load_toml

ROOT = Path(__file__).parents[3]
TARGETS = sorted((ROOT / "targets").glob("*.toml"))
RECIPES = sorted((ROOT / "calibration").glob("*.toml"))
SHIPPED = [*((path, Target) for path in TARGETS), *((path, Calibration) for path in RECIPES)]
TARGET = (ROOT / "targets" / "openvino-cpu.toml").read_text(encoding="utf-8")
RECIPE = (ROOT / "calibration" / "default.toml").read_text(encoding="utf-8")


def refusal(tmp_path, text, kind):
    """What is wrong with `text`, and how to fix it."""
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_toml(file, kind)
    assert str(file) in caught.value.what
    return caught.value.what, caught.value.fix


@pytest.mark.parametrize(("path", "kind"), SHIPPED, ids=[path.stem for path, _ in SHIPPED])
def test_every_shipped_file_loads_and_is_named_as_it_is(path, kind):
    loaded = load_toml(path, kind)
    assert loaded.name == path.stem
    assert loaded.description
    if isinstance(loaded, Target):  # one that can be built
        assert loaded.runtime in runtimes()
        assert loaded.machines and loaded.precisions
        assert loaded.opset_min <= loaded.opset <= loaded.opset_max


@pytest.mark.parametrize(
    ("text", "kind", "key", "nearest"),
    [
        (TARGET.replace("opset =", "opzet ="), Target, "opzet", "opset"),
        (TARGET.replace("weights =", "wieghts ="), Target, "wieghts", "weights"),
        (RECIPE.replace("num_samples", "num_sample"), Calibration, "num_sample", "num_samples"),
        (RECIPE.replace("selection", "selecton"), Calibration, "selecton", "selection"),
        ("height = 8\nwidth = 8\nmaen = [0, 0, 0]", Preprocess, "maen", "mean"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(tmp_path, text, kind, key, nearest):
    what, fix = refusal(tmp_path, text, kind)
    assert f"`{key}`" in what
    assert f"'{nearest}'" in fix


@pytest.mark.parametrize(
    ("text", "kind", "key"),
    [
        (TARGET.replace("opset = 20", 'opset = "20"'), Target, "opset"),
        (TARGET.replace('"openvino"', '"../openvino"'), Target, "runtime"),
        (TARGET.replace('"pair_safe"', '"safe"'), Target, "weights"),
        (TARGET.replace("attention = []", 'attention = ["kq"]'), Target, "attention"),
        (TARGET.replace('operators = ["MatMul"', "operators = [1"), Target, "operators"),
        (TARGET.replace('"LATENCY"', "1"), Target, "options"),
        (TARGET.replace('name = "openvino-cpu"', 'name = "../up"'), Target, "name"),
        ("batch = 0\n" + TARGET, Target, "batch"),
        ("threads = -1\n" + TARGET, Target, "threads"),
        (RECIPE.replace("300", "0", 1).replace("300", "0"), Calibration, "num_samples"),
        (RECIPE.replace('"mse"', '"median"', 1), Calibration, "activations"),
        (RECIPE.replace('"random"', '"best"'), Calibration, "selection"),
        ("seed = -1\n" + RECIPE, Calibration, "seed"),
        (RECIPE.replace("equalize = 0.5", "equalize = 1.5"), Calibration, "equalize"),
        (RECIPE.replace("equalize = 0.5", 'equalize = "on"'), Calibration, "equalize"),
        (RECIPE.replace("equalize = 0.5", "equalize = true"), Calibration, "equalize"),
        ("height = 0\nwidth = 8", Preprocess, "height"),
        ("height = 8.5\nwidth = 8", Preprocess, "height"),
        ("height = 8\nwidth = 8\nresize_px = -1", Preprocess, "resize_px"),
        ("height = 8\nwidth = 8\nmean = [0.5, 0.5]", Preprocess, "mean"),
        ("height = 8\nwidth = 8\nmean = [123.7, 116.3, 103.5]", Preprocess, "mean"),
        ("height = 8\nwidth = 8\nstd = [0.5, 0.5, 0.0]", Preprocess, "std"),
        ("height = 8\nwidth = 8\nstd = [0.5, 0.5, nan]", Preprocess, "std"),
        ('height = 8\nwidth = 8\ninterpolation = "cubic"', Preprocess, "interpolation"),
        ('height = 8\nwidth = 8\nresize = "longer_side"', Preprocess, "resize"),
        ('height = 8\nwidth = 8\ncrop_rounding = "up"', Preprocess, "crop_rounding"),
        ('height = 8\nwidth = 8\nchannels = "bgr"', Preprocess, "channels"),
    ],
)
def test_a_wrong_value_is_named_by_its_key(tmp_path, text, kind, key):
    what, fix = refusal(tmp_path, text, kind)
    assert f"$.{key}" in what or f".{key}" in what
    assert kind.__name__ in fix


@pytest.mark.parametrize("resize", ["exact", "shorter_side"])
@pytest.mark.parametrize(("height", "width"), [(224, 224), (192, 224), (224, 192)])
def test_a_crop_larger_than_the_resized_image_is_refused(tmp_path, resize, height, width):
    text = f'height = {height}\nwidth = {width}\nresize = "{resize}"\nresize_px = 200'
    what, _ = refusal(tmp_path, text, Preprocess)
    assert f"`resize_px` is 200, too small to crop {height}×{width}" in what
    assert "at least 224" in what


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('resize = "inside"', "leaves a margin; set `pad`"),
        ('sampling = "points"\ninterpolation = "lanczos"', "bilinear or bicubic or nearest"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, text, says):
    assert says in refusal(tmp_path, f"height = 8\nwidth = 8\n{text}", Preprocess)[0]


def test_what_a_preprocess_file_leaves_out_has_its_default(tmp_path):
    (tmp_path / "mine.toml").write_text("height = 224\nwidth = 224\nresize_px = 256")
    loaded = load_toml(tmp_path / "mine.toml", Preprocess)
    assert (loaded.height, loaded.width, loaded.resize_px) == (224, 224, 256)
    assert (loaded.resize, loaded.interpolation) == ("shorter_side", "bicubic")
    assert (loaded.crop_rounding, loaded.channels) == ("even", "RGB")
    assert loaded.mean == loaded.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("selection", ["first", "random", "stratified", "diverse"])
def test_a_recipe_says_which_images_it_takes(tmp_path, selection):
    text = RECIPE.replace('"random"', f'"{selection}"')
    (tmp_path / "mine.toml").write_text("seed = 7\n" + text)
    loaded = load_toml(tmp_path / "mine.toml", Calibration)
    assert (loaded.selection, loaded.seed) == (selection, 7)


def test_shipped_recipes_and_those_that_leave_it_out_draw_at_random(tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE.replace('selection = "random"\n', ""))
    for path in (tmp_path / "mine.toml", *RECIPES):
        loaded = load_toml(path, Calibration)
        assert (loaded.selection, loaded.seed) == ("random", 0)


def test_a_missing_key_is_named(tmp_path):
    what, fix = refusal(tmp_path, "height = 8", Preprocess)
    assert "`width`" in what
    assert fix


@pytest.mark.parametrize("text", ["height =", "height = 8\nheight = 9", "\0"])
def test_a_file_that_is_no_toml_is_named(tmp_path, text):
    assert "not valid TOML" in refusal(tmp_path, text, Preprocess)[0]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_bytes(b"\xff"), id])
def test_a_file_that_cannot_be_read_is_named(tmp_path, make):
    make(tmp_path / "mine.toml")
    with pytest.raises(InputError, match=r"cannot read .*mine\.toml"):
        load_toml(tmp_path / "mine.toml", Preprocess)


def test_settings_cannot_be_changed_later():
    with pytest.raises(AttributeError):
        Preprocess(height=8, width=8).height = 9


def test_the_code_is_python_3_10():
    """Every module compiles with the oldest grammar; and toml is read without 3.11's tomllib."""
    import ast

    for path in sorted((ROOT / "vitedge").rglob("*.py")):
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 10))
        text = path.read_text(encoding="utf-8")
        assert "import tomllib" not in text or "sys.version_info >= (3, 11)" in text, path
    assert sys.version_info >= (3, 10)
