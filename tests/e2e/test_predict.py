"""`vitedge predict`: classes of images, and the masks of a segmentation."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tests.support.machine import ONNXRUNTIME
from vitedge.data import shapes


def test_predict_prints_the_likeliest_classes(tmp_path, vitedge, bundles, held_out):
    bundle, files = bundles["onnxruntime", "int8"], [tmp_path / f"{i}.png" for i in range(2)]
    for file, image in zip(files, held_out.images, strict=False):
        Image.fromarray(image).save(file)
    document = vitedge("predict", bundle, *files, "--json").document
    for file, label, prediction in zip(
        files, held_out.labels, document["predictions"], strict=False
    ):
        assert prediction["image"] == str(file) and len(prediction["top"]) == 5
        assert prediction["top"][0]["label"] == str(label)
    assert len(vitedge("predict", bundle, files[0]).stdout.splitlines()) == 6
    assert "makes no masks" in vitedge("predict", bundle, files[0], "--output", "x", code=2).stderr
    assert "no image" in vitedge("predict", bundle, tmp_path / "absent.png", code=2).stderr


def test_predict_writes_the_masks_of_a_segmentation(tmp_path, vitedge):
    vitedge("export", "shapes", "--target", ONNXRUNTIME, "--output", tmp_path)
    image, _ = shapes.draw(shapes.HELD_OUT[0])
    Image.fromarray(image).save(tmp_path / "a.png")
    arguments = ("predict", tmp_path / f"shapes-{ONNXRUNTIME}-fp32", tmp_path / "a.png")
    (document,) = vitedge(*arguments, "--json").document["predictions"]
    assert document["shares"][0]["label"] == "background" and "mask" not in document
    assert "mask in" in vitedge(*arguments, "--output", tmp_path / "masks").stdout
    mask = np.asarray(Image.open(tmp_path / "masks" / "a.png"))
    assert mask.shape == (64, 64) and (mask == 0).mean() == document["shares"][0]["share"]
    refused = vitedge(*arguments, "--output", tmp_path, code=2)  # a.png is the image itself
    assert "would replace" in refused.stderr
    (tmp_path / "more").mkdir()
    Image.fromarray(image).save(tmp_path / "more" / "a.jpg")
    namesake = (tmp_path / "more" / "a.jpg", "--output", tmp_path / "masks")
    assert "their names are the same" in vitedge(*arguments, *namesake, code=2).stderr
