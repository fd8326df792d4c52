"""hf: detectors, read as transformers' own image processors read them."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import detectors
from vitedge.core.detections import detections
from vitedge.core.errors import InputError
from vitedge.data.geometry import fit
from vitedge.data.placement import placement
from vitedge.models.sources import ModelRequest, resolve

pytestmark = pytest.mark.usefixtures("peers")

SIZE = (90, 57)
"""Width and height of the photograph, pixels."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, peers):
    """The folder of a detector, made once."""
    made = {}

    def of(architecture):
        if architecture not in made:
            path = tmp_path_factory.mktemp(architecture)
            made[architecture] = detectors.save(architecture, path)
        return made[architecture]

    return of


@pytest.mark.parametrize("architecture", detectors.DETECTORS)
def test_detections_are_those_of_the_librarys_own_post_processing(folder, architecture):
    path = folder(architecture)
    processor = detectors.processor_of(architecture)
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    photograph = Image.fromarray(pixels)
    model = resolve(ModelRequest(f"hf:{path}"))
    identity, rule = model.identity, model.identity.detection
    fitted = fit(photograph, identity.preprocess)
    inputs = processor(images=photograph, return_tensors="pt")["pixel_values"]
    mean, std = (np.float32(x) for x in (identity.preprocess.mean, identity.preprocess.std))
    ours = torch.from_numpy(((fitted / np.float32(255) - mean) / std).astype(np.float32))
    assert torch.allclose(ours.permute(2, 0, 1)[None], inputs, atol=0.01)
    with torch.inference_mode():
        whole = model.content.module(pixel_values=inputs)
        logits, boxes = (x[0].numpy() for x in model.content(inputs))
    (want,) = processor.post_process_object_detection(
        whole, threshold=0.0, target_sizes=[(SIZE[1], SIZE[0])]
    )
    got = detections(logits, boxes, rule)
    in_pixels = placement(SIZE, identity.preprocess).in_pixels(got.boxes)
    order = torch.argsort(want["scores"], descending=True, stable=True)
    assert identity.task == "detection" and identity.labels == ("circle", "square", "star")
    assert np.array_equal(got.classes, want["labels"][order].numpy())
    assert np.allclose(got.scores, want["scores"][order].numpy(), rtol=1e-4)
    assert np.allclose(in_pixels, want["boxes"][order].numpy(), rtol=1e-4, atol=1e-4)
    assert len(got.scores) == {"softmax": 12, "sigmoid": min(rule.most or 12, 36)}[rule.scores]


def test_who_keeps_the_logits_alone_has_features(folder):
    path = folder("YolosForObjectDetection")
    model = resolve(ModelRequest(f"hf:{path}", model_output=("logits",)))
    assert model.identity.task == "features" and model.identity.detection is None
    with pytest.raises(InputError, match="beside 'logits' no output is boxes"):
        resolve(ModelRequest(f"hf:{path}", model_output=("logits",), task="detection"))
