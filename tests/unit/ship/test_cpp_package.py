"""A package of kind `cpp`: its pixels are ours, it builds, and its outputs are Python's."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitedge as ve
from tests.support.hostile import content
from tests.unit.ship.test_package import photograph
from vitedge.core.spec import Preprocess
from vitedge.data.decode import decode
from vitedge.data.geometry import fit
from vitedge.data.placement import placement
from vitedge.ship.packages.cpp import rows_first

needs_compiler = pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("g++")), reason="no cmake, or no g++"
)
CONFIG = """
#include <cstdint>
#include <string>
inline std::string RESIZE, RESIZE_ROUNDING, INTERPOLATION, SAMPLING, PAD, CROP_ROUNDING;
inline int WIDTH, HEIGHT, RESIZE_PX, RESIZE_LIMIT_PX;
inline double CROP_SHARE;
inline bool EXIF = true, ROWS_FIRST = {rows_first};
inline uint8_t PAD_COLOR[3] = {{1, 128, 250}};
"""
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
RULES = [
    *({"interpolation": name} for name in FILTERS),
    *({"interpolation": name, "resize": "exact"} for name in FILTERS),
    *(
        {"interpolation": name, "sampling": sampling, "resize": "exact"}
        for name in ("bilinear", "bicubic", "nearest")
        for sampling in ("points", "corners")
    ),
    {"resize_px": 70},
    {"resize_px": 71, "crop_rounding": "down", "resize_rounding": "nearest"},
    {"resize_px": 64, "resize_limit_px": 70, "pad": "end"},
    *(
        {"resize": "inside", "pad": pad, "resize_rounding": rounding}
        for pad in ("end", "center", "square")
        for rounding in ("down", "nearest", "up")
        if pad != "square"
    ),
    {"pad": "square"},
    {"crop_share": 0.875, "resize": "exact"},
    {"resize": "shorter_then_inside", "resize_px": 80, "pad": "center"},
]


STB = next(filter(Path.is_dir, map(Path, ("/usr/include/stb", "/usr/local/include/stb"))), None)


@pytest.fixture(scope="module")
def fit_program(tmp_path_factory):
    """`image.h` as a program that takes a rule and an image a line."""
    folder = tmp_path_factory.mktemp("fit")
    (folder / "config.h").write_text(CONFIG.format(rows_first=str(rows_first()).lower()))
    header = files("vitedge.ship.packages") / "templates" / "image.h.in"
    (folder / "image.h").write_text(header.read_text())
    source = Path(__file__).parents[2] / "support" / "fit.cpp"
    with_stb = ["-DWITH_STB", "-I", STB] if STB else []
    build = ["g++", "-std=c++17", "-O1", "-I", folder, *with_stb, source, "-o", folder / "fit"]
    subprocess.run(build, check=True)
    return folder / "fit"


def line(image, out, spec):
    """One case of that program."""
    return (
        f"{image} {out} {spec.width} {spec.height} {spec.resize} {spec.resize_px} "
        f"{spec.resize_limit_px} {spec.resize_rounding} {spec.interpolation} {spec.sampling} "
        f"{spec.pad} {spec.crop_rounding} {spec.crop_share}"
    )


@needs_compiler
@pytest.mark.skipif(STB is None, reason="no stb_image.h")
def test_it_reads_photographs_upright(fit_program, tmp_path):
    spec = Preprocess(height=150, width=221, resize="exact")
    image = Image.open(photograph(tmp_path / "a.png"))
    cases = {"a.png": image}
    image.convert("RGBA").save(tmp_path / "opaque.png")
    image.convert("L").save(tmp_path / "grey.png")
    cases |= {"opaque.png": image, "grey.png": image.convert("L").convert("RGB")}
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        smooth = image.resize((60, 40)).resize((221, 150))
        smooth.save(tmp_path / f"{turn}.jpg", quality=95, subsampling=0, exif=exif)
        cases[f"{turn}.jpg"] = decode(str(tmp_path / f"{turn}.jpg"), "apply")
    text = "\n".join(line(name, f"{name}.rgb", spec) for name in cases)
    subprocess.run([fit_program], input=text, cwd=tmp_path, check=True, text=True)
    for name, expected in cases.items():
        pixels = np.fromfile(tmp_path / f"{name}.rgb", np.uint8).reshape(150, 221, 3)
        apart = np.abs(pixels - fit(expected, spec).astype(int))
        assert apart.max() <= (4 if name.endswith("jpg") else 0), name
    glass = image.convert("RGBA")
    glass.putpixel((3, 3), (1, 2, 3, 100))
    glass.save(tmp_path / "glass.png")
    (tmp_path / "cut.ppm").write_bytes(b"P6 2 2 255\n12")
    cut = subprocess.run([fit_program], input=line("cut.ppm", "x", spec), cwd=tmp_path, text=True)
    assert cut.returncode, "too short"
    refused = subprocess.run(
        [fit_program],
        input=line("glass.png", "x", spec),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert refused.returncode and "transparent" in refused.stderr


@needs_compiler
def test_its_pixels_are_ours(fit_program, tmp_path):
    words, cases = [], []
    sizes = ((221, 150), (97, 160), (40, 41), (64, 64))
    for (width, height), rule in itertools.product(sizes, RULES):
        spec = Preprocess(height=48, width=64, pad_color=(1, 128, 250), **rule)
        image = Image.open(photograph(tmp_path / "a.png")).resize((width, height))
        name = f"{width}x{height}.ppm"
        image.save(tmp_path / name)
        out = f"{len(cases)}.rgb"
        cases.append((image, spec, out))
        words.append(line(name, out, spec))
    text = "\n".join(words)
    ran = subprocess.run(
        [fit_program], input=text, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    equal = 0
    for (image, spec, out), placed in zip(cases, ran.stdout.splitlines(), strict=True):
        expected = fit(image, spec).astype(int)
        pixels = np.fromfile(tmp_path / out, np.uint8).reshape(expected.shape)
        assert np.abs(pixels - expected).max() <= 1, spec
        equal += np.array_equal(pixels, expected)
        place = placement(image.size, spec)
        scale = np.array(placed.split(), float) / ([spec.width, spec.height] * 2)
        np.testing.assert_allclose(scale, place.frame, atol=1e-7)
    assert equal > 0.9 * len(cases)


def built(bundle, folder):
    """The program that a package of `bundle` in `folder` builds."""
    openvino = pytest.importorskip("openvino")
    package = ve.package(bundle, form="cpp", output=folder)
    assert package.commands[0].startswith("cmake -B build -DOpenVINO_DIR=")
    cmake = Path(openvino.__file__).parent / "cmake"
    subprocess.run(
        ["cmake", "-B", "build", f"-DOpenVINO_DIR={cmake}", "-DCMAKE_BUILD_TYPE=Debug"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    subprocess.run(["cmake", "--build", "build"], cwd=folder, check=True, capture_output=True)
    return folder / "build" / "predict"


def compare(program, bundle, folder, vitedge):
    """Its outputs on the golden images within 1e-4 of Python's, its labels those of `predict`."""
    with ve.open(bundle) as opened:
        golden = opened.golden().images
        from vitedge.measure.accuracy.validation import run_all

        expected = run_all(opened._session, golden)
    images = [folder / f"{index}.rgb" for index in range(len(golden))]
    for path, pixels in zip(images, golden, strict=True):
        path.write_bytes(pixels.tobytes())
    ran = subprocess.run(
        [program, *images, "--outputs", folder / "outputs"],
        check=True,
        capture_output=True,
        text=True,
    )
    joined = np.concatenate([part.reshape(len(golden), -1) for part in expected], axis=1)
    outputs = np.fromfile(folder / "outputs", np.float32).reshape(joined.shape)
    np.testing.assert_allclose(outputs, joined, atol=1e-4, rtol=1e-4)
    return ran.stdout


@needs_compiler
def test_it_builds_and_its_outputs_are_python_s(bundles, vitedge, tmp_path):
    bundle = bundles["openvino", "int8"]
    program = built(bundle, tmp_path / "out")
    printed = compare(program, bundle, tmp_path, vitedge)
    image = photograph(tmp_path / "a.png")
    Image.open(image).save(tmp_path / "a.ppm")
    ran = subprocess.run([program, tmp_path / "a.ppm"], check=True, capture_output=True, text=True)
    rows = vitedge("predict", bundle, image, "--json").document["predictions"][0]["top"]
    lines = [f"  {100 * row['score']:7.2f}%  {row['label']}" for row in rows]
    assert ran.stdout.splitlines()[1:] == lines
    assert printed.count(".rgb") == 8
    timed = subprocess.run(
        [program, "--bench", "0.2"], check=True, capture_output=True, text=True
    ).stdout
    assert re.fullmatch(r"p50 \d+\.\d+ ms, p90 \d+\.\d+ ms, \d+ runs of 1\n", timed)
    (tmp_path / "short.rgb").write_bytes(b"123")
    short = subprocess.run([program, tmp_path / "short.rgb"], capture_output=True, text=True)
    assert short.returncode == 2 and "is not of the model's size, 3072 bytes" in short.stderr
    absent = subprocess.run([program, "absent.ppm"], capture_output=True, text=True)
    assert absent.returncode == 2 and "absent.ppm is no image" in absent.stderr


@needs_compiler
def test_every_file_stays_short(small_bundle, tmp_path):
    bundle = small_bundle(tmp_path / "b", content.linear().SerializeToString())
    ve.package(bundle, form="cpp", output=tmp_path / "out")
    for name in ("main.cpp", "image.h", "config.h", "CMakeLists.txt"):
        assert len((tmp_path / "out" / name).read_text().splitlines()) < 300


@needs_compiler
@pytest.mark.heavy
@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "shapes", "shapes-detr"])
def test_larger_models_and_other_tasks_are_python_s_too(model, openvino, vitedge, tmp_path):
    further = ("--random-weights",) if model.startswith("vit") else ()
    vitedge("export", model, "--target", openvino, "--output", tmp_path, "--duration", 0, *further)
    (bundle,) = tmp_path.glob(f"{model}-*-fp32")
    compare(built(bundle, tmp_path / "out"), bundle, tmp_path, vitedge)
    image = photograph(tmp_path / "a.png")
    ve.package(bundle, form="python", output=tmp_path / "python")
    words = [sys.executable, tmp_path / "python" / "predict.py", image, "--json"]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    (row,) = json.loads(printed)["predictions"]
    (expected,) = vitedge("predict", bundle, image, "--json").document["predictions"]
    assert row == expected
