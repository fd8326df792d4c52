"""A CMake project: two C++ files that are always the same, and a `config.h` from the manifest."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError
from vitedge.core.manifest import Manifest
from vitedge.core.spec import Detection
from vitedge.ship.package import copy_labels, copy_model, options
from vitedge.ship.packages.openvino_device import device

_RUNTIMES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "openvino_gpu": "openvino",
    "openvino_npu": "openvino",
}
"""The templates of a runtime, by its name."""
_LINKED = {
    "openvino": """\
find_package(OpenVINO REQUIRED COMPONENTS Runtime) # -DOpenVINO_DIR: of the wheel, openvino/cmake
target_link_libraries(predict PRIVATE openvino::runtime)""",
    "onnxruntime": """\
# -DONNXRUNTIME_DIR: the folder of a release archive, which holds include/ and lib/
find_path(ONNXRUNTIME_INCLUDE onnxruntime_cxx_api.h REQUIRED HINTS ${ONNXRUNTIME_DIR}
          PATH_SUFFIXES include include/onnxruntime onnxruntime)
find_library(ONNXRUNTIME_LIBRARY onnxruntime REQUIRED HINTS ${ONNXRUNTIME_DIR} PATH_SUFFIXES lib)
target_include_directories(predict PRIVATE ${ONNXRUNTIME_INCLUDE})
target_link_libraries(predict PRIVATE ${ONNXRUNTIME_LIBRARY})""",
}
_FIND = {
    "openvino": """-DOpenVINO_DIR="$(python -c 'import openvino, os; \
print(os.path.join(os.path.dirname(openvino.__file__), "cmake"))')\"""",
    "onnxruntime": "-DONNXRUNTIME_DIR=FOLDER",
}
_NOT_HERE = {"resize": ("box",), "pad": ("mirror",), "sampling": ("blur",)}
"""Rules of preprocessing that `image.h` does not have."""


class CppProject:
    """`main.cpp`, `image.h` and `CMakeLists.txt` beside `config.h`, the model and its labels."""

    name = "cpp"
    title = "C++ project"
    runtimes = frozenset(_RUNTIMES)

    def write(self, bundle: Bundle, folder: Path) -> tuple[str, ...]:
        """Raises InputError where it is preprocessed in a way that `image.h` does not have."""
        _check(bundle)
        model, *_ = copy_model(bundle, folder)
        copy_labels(bundle, folder)
        runtime = _RUNTIMES[bundle.manifest.target.runtime]
        program = _filled("main.cpp.in", "//", MODEL=_template(f"model_{runtime}.cpp.in").strip())
        project = _filled("CMakeLists.txt.in", "#", RUNTIME=_LINKED[runtime])
        (folder / "main.cpp").write_text(program, encoding="utf-8")
        (folder / "image.h").write_text(_template("image.h.in"), encoding="utf-8")
        (folder / "config.h").write_text(_config(bundle, model), encoding="utf-8")
        (folder / "CMakeLists.txt").write_text(project, encoding="utf-8")
        return (
            f"cmake -B build {_FIND[runtime]}",
            "cmake --build build",
            "build/predict IMAGE…",
            "build/predict --bench 10",
        )


def _check(bundle: Bundle) -> None:
    host = bundle.manifest.preprocessing.host
    for field, values in _NOT_HERE.items():
        if (value := getattr(host, field)) in values:
            raise InputError(
                f"{bundle.path} takes images with {field} '{value}', which a package of kind 'cpp' "
                "does not do",
                fix="package it with `form='python'`",
            )


def _template(name: str) -> str:
    template = files("vitedge.ship.packages") / "templates" / name
    return template.read_text(encoding="utf-8")


def _filled(name: str, comment: str, **parts: str) -> str:
    mark = rf"^{re.escape(comment)}@(\w+)@$"
    return re.sub(mark, lambda line: parts[line[1]], _template(name), flags=re.MULTILINE)


def _config(bundle: Bundle, model: str) -> str:
    """What the manifest says, as constants."""
    manifest = bundle.manifest
    host = manifest.preprocessing.host
    rule = manifest.model.detection or Detection(scores="softmax")
    texts = {
        "MODEL": model,
        "DEVICE": device(manifest.target.runtime),
        "TASK": manifest.model.task,
        "SCORES": rule.scores,
        "BOXES": rule.boxes,
        "RESIZE": host.resize,
        "RESIZE_ROUNDING": host.resize_rounding,
        "INTERPOLATION": host.interpolation,
        "SAMPLING": host.sampling,
        "PAD": host.pad,
        "CROP_ROUNDING": host.crop_rounding,
    }
    whole = {
        "THREADS": manifest.target.threads,
        "WIDTH": host.width,
        "HEIGHT": host.height,
        "RESIZE_PX": host.resize_px,
        "RESIZE_LIMIT_PX": host.resize_limit_px,
    }
    names = ", ".join(quoted(output.name) for output in manifest.outputs)
    pairs = "".join(f"\n    {{{quoted(k)}, {quoted(v)}}}," for k, v in options(bundle).items())
    lines = [
        _title(manifest),
        "#pragma once",
        "#include <array>",
        "#include <cstdint>",
        "#include <string_view>",
        "#include <utility>",
        "",
        *(f"constexpr std::string_view {name} = {quoted(text)};" for name, text in texts.items()),
        *(f"constexpr int {name} = {value};" for name, value in whole.items()),
        f"constexpr bool EXIF = {str(host.exif == 'apply').lower()};",
        f"constexpr bool ROWS_FIRST = {str(rows_first()).lower()};",
        f"constexpr double CROP_SHARE = {host.crop_share!r};",
        f"constexpr uint8_t PAD_COLOR[3] = {{{', '.join(map(str, host.pad_color))}}};",
        f"constexpr std::array<const char*, {len(manifest.outputs)}> OUTPUTS = {{{names}}};",
        f"constexpr std::array<std::pair<const char*, const char*>, {len(options(bundle))}> "
        f"OPTIONS = {{{{{pairs}\n}}}};",
    ]
    return "\n".join(lines) + "\n"


def _title(manifest: Manifest) -> str:
    """As a comment: whatever a manifest says stays on its line, which no backslash continues."""
    name = manifest.name.encode("unicode_escape").decode()
    return f"// {name}: {manifest.model.task} on {manifest.target.runtime}, {manifest.precision}"


def rows_first() -> bool:
    """Whether this machine's Pillow resizes rows before columns where that is less to compute, as
    13 does: what lies between is rounded, so pixels differ by a few grey levels."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 20), np.uint8)
    image = Image.fromarray(noise)
    rows = image.resize((20, 7)).resize((15, 7))
    return image.resize((15, 7)).tobytes() == rows.tobytes()


def quoted(text: str) -> str:
    """A C++ string literal of the UTF-8 of `text`: whatever is in it stays in it."""
    plain = {byte for byte in range(32, 127)} - set(b'"\\?')
    octets = (chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(octets)}"'
