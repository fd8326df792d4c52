"""The commands that look at one artifact, or at a model: validate, predict and inspect."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitedge.cli.command import Call, command
from vitedge.cli.flags import command_line
from vitedge.cli.output import Json, print_json, raise_first
from vitedge.core.errors import InputError
from vitedge.measure import api

if TYPE_CHECKING:
    from vitedge.core.bundle import Bundle
    from vitedge.core.report import Report
    from vitedge.measure.inspection import Inspection
    from vitedge.measure.open_bundle import Prediction


class Form(str, Enum):
    """What `inspect` can print in place of its tables."""

    trtexec = "trtexec"
    cyclonedx = "cyclonedx"


@command(api.validate, opens=True)
def validate(call: Call[Report], as_json: Json = False) -> None:
    from vitedge.measure.accuracy import parity
    from vitedge.measure.accuracy.bundle_validation import has_own_images
    from vitedge.show.terminal import tables

    path = call.arguments["artifact"]
    bundle = call.opened(path)
    report = call(artifact=bundle)
    parts = [name for name in ("shard", "merge", "workers") if call.arguments.get(name)]
    parity_alone = not (call.arguments["data"] or parts) and not has_own_images(bundle)
    if as_json:
        print_json(report)
    elif parts != ["shard"]:
        tables.show(tables.reports([report], f"{path}"))
        tables.show_outputs([report])
        accuracy = report.accuracy
        if parity_alone and report.parity:
            typer.echo(tables.parity(report.parity))
        elif accuracy:
            skipped = "".join(f"; skipped {n}: {why}" for why, n in accuracy.skipped.items())
            typer.echo(f"{accuracy.n} images of {accuracy.data}{skipped}")
    errors = parity.broken([report]) if parity_alone else []
    raise_first([*errors, *parity.degenerate([report])])


@command(api.predict, opens=True)
def predict(
    call: Call[list[Prediction]],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for masks, as PNG of class indices, images with boxes drawn, as PNG, or "
            "dense maps, as .npy."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    from vitedge.show.terminal import tables

    bundle = call.opened(call.arguments["artifact"])
    task, labels = bundle.manifest.model.task, bundle.labels()
    if output and task not in _WRITTEN:
        raise InputError(f"{bundle.path} makes no masks, boxes or maps", fix="drop --output")
    images = [str(path) for path in call.arguments["images"]]
    if output:
        _refuse_namesakes(images)
    predictions = call(artifact=bundle)
    documents = [
        {"image": image, **_said(prediction, labels)}
        for image, prediction in zip(images, predictions, strict=True)
    ]
    if output:
        for document, prediction in zip(documents, predictions, strict=True):
            path = _write(prediction, output, Path(document["image"]), bundle)
            document[_WRITTEN[task]] = str(path)
    if as_json:
        print_json({"predictions": documents})
        return
    rows = [
        (document["image"], entry["label"], f"{entry.get('score', entry.get('share')):.1%}")
        for document in documents
        for entry in document.get("top", document.get("shares", ()))
    ]
    if rows:
        figure = "score" if task == "classification" else "share of pixels"
        tables.show(tables.listing(("image", "class", figure), rows))
    if task == "detection":
        head = ("image", "class", "score", "left", "top", "right", "bottom")
        tables.show(tables.listing(head, _object_rows(documents)))
    for document, prediction in zip(documents, predictions, strict=True):
        image, features = document["image"], prediction.features
        if prediction.objects == ():
            least = call.complete("min_score")["min_score"]
            typer.echo(f"{image}: no object of which it is {least:.0%} sure")
        if features is not None:
            size = "×".join(map(str, features.shape))
            typer.echo(f"{image}: {size} features, which --json has")
        if prediction.maps is not None:
            low, high = document["range"]
            size = "×".join(map(str, document["shape"]))
            advice = "" if output else "; --output FOLDER writes them"
            typer.echo(f"{image}: {size} values from {low:.4g} to {high:.4g}{advice}")
        for kind in _WRITTEN.values():
            if kind in document:
                typer.echo(f"{image}: {kind} in {document[kind]}")


_WRITTEN = {"segmentation": "mask", "detection": "drawing", "dense": "map"}
"""What `--output` writes, by task."""


def _object_rows(documents: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            *(document["image"], found["label"], f"{found['score']:.1%}"),
            *(f"{edge:.1f}" for edge in found["box"]),
        )
        for document in documents
        for found in document["objects"]
    ]


def _said(prediction: Prediction, labels: Sequence[str]) -> dict[str, Any]:
    """A prediction as a document: of a mask the share of pixels of each class, of maps their shape
    and range."""
    import msgspec
    import numpy as np

    if prediction.features is not None:
        return {"features": prediction.features.tolist()}
    if prediction.objects is not None:
        return {"objects": msgspec.to_builtins(prediction.objects)}
    if (maps := prediction.maps) is not None:
        return {"shape": maps.shape, "range": [float(maps.min()), float(maps.max())]}
    if prediction.mask is None:
        return {"top": msgspec.to_builtins(prediction.top)}
    counts = np.bincount(prediction.mask[prediction.mask >= 0], minlength=len(labels))
    best = [index for index in np.argsort(-counts, kind="stable").tolist() if counts[index]]
    size = prediction.mask.size
    return {
        "shares": [{"label": labels[i], "index": i, "share": float(counts[i] / size)} for i in best]
    }


def _refuse_namesakes(images: Sequence[str]) -> None:
    """Raise InputError where what two images come to would be one file."""
    paths: dict[str, str] = {}
    for image in dict.fromkeys(images):
        if (other := paths.setdefault(Path(image).stem, image)) != image:
            raise InputError(
                f"what {image} comes to would replace what {other} does: their names are the same",
                fix="rename one, or give each its own --output folder",
            )


def _write(prediction: Prediction, folder: Path, image: Path, bundle: Bundle) -> Path:
    """Write what `image` came to: a mask as a PNG of class indices, the image with boxes drawn on
    it, maps as .npy.

    Raises InputError.
    """
    import numpy as np
    from PIL import Image

    path = folder / f"{image.stem}{'.npy' if prediction.maps is not None else '.png'}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.samefile(image):
            raise InputError(
                f"what is written would replace {image}", fix="give another --output folder"
            )
        if prediction.mask is not None:
            kind = np.uint8 if prediction.mask.max() < 2**8 else np.uint16
            Image.fromarray(prediction.mask.astype(kind)).save(path)
        elif prediction.objects is not None:
            from vitedge.data.decode import decode
            from vitedge.show.drawn_boxes import drawn

            photograph = decode(str(image), bundle.manifest.preprocessing.host.exif)
            drawn(photograph, prediction.objects).save(path)
        elif prediction.maps is not None:
            np.save(path, prediction.maps)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", fix="choose another --output folder"
        ) from error
    return path


@command(api.inspect)
def inspect(
    call: Call[Inspection],
    html: Annotated[
        Path | None, typer.Option(help="Write a page with a picture of error against depth.")
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--as",
            help="Print the commands of NVIDIA's own tools, or an artifact's bill of materials "
            "(CycloneDX, JSON), instead.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    from msgspec.structs import replace

    from vitedge.measure.inspection import Lack
    from vitedge.show.page import inspection as page
    from vitedge.show.page import shell
    from vitedge.show.terminal import inspection as table

    if form and html:
        raise InputError("--as prints text, --html writes a page", fix="pass one of them")
    if form is Form.cyclonedx:
        from vitedge.ship.bom import bom

        print_json(bom(Path(call.complete("source")["source"])))
        return
    if form:
        from vitedge.core.bundle import MANIFEST
        from vitedge.runtimes.tensorrt import trtexec

        typed = call.complete("source", "target")
        path = Path(typed["source"])
        is_file = path.suffix == ".onnx" and not path.is_dir()
        if not typed["source"] or not (is_file or (path / MANIFEST).is_file()):
            raise InputError(
                f"--as {form.value} needs an artifact or an ONNX file"
                + (f", and {path} is neither" if typed["source"] else ""),
                fix="give the folder of a TensorRT artifact, or a FILE.onnx",
            )
        commands = trtexec.commands(path, typed["target"])
        print_json(commands) if as_json else trtexec.show(commands)
        return
    if html:
        shell.check_writable(html)
    inspection = call()
    layers = tuple(replace(row, why=command_line(row.why)) for row in inspection.layers)
    notes = tuple(map(command_line, inspection.notes))
    model = inspection.model
    if model:
        lacks = [(command_line(lack.what), command_line(lack.fix)) for lack in model.missing]
        model = replace(model, missing=tuple(Lack(what=what, fix=fix) for what, fix in lacks))
    inspection = replace(inspection, layers=layers, notes=notes, model=model)
    if html:
        shell.write(page.render(inspection), html)
    if as_json:
        print_json(inspection)
        return
    table.show(inspection)
