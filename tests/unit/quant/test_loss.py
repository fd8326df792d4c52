"""Losses are what their papers say, and a rate is a function of its step."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitedge.core.spec import Training
from vitedge.quant.qat.loss import Mixed, NetworkOutputs, distillation, loss, mix
from vitedge.quant.qat.trainer import rate

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(2, 4, 5, generator=GENERATOR)
LABELS = torch.tensor([0, 3, -1, 2])


def outputs(logits, tokens=1.0):
    return NetworkOutputs(logits, torch.full((4, 2, 3), tokens))


def batch(others=LABELS, share=1.0):
    return Mixed(torch.zeros(4, 2, 2, 3, dtype=torch.uint8), LABELS, others, share)


def test_distillation_is_the_divergence_from_the_teacher():
    p, q = (torch.softmax(logits / 2, 1) for logits in (TEACHER, STUDENT))
    expected = float((p * (p / q).log()).sum(1).mean()) * 4
    assert float(distillation(STUDENT, TEACHER, "classification", 2.0)) == pytest.approx(expected)
    assert float(distillation(TEACHER, TEACHER, "classification", 2.0)) == pytest.approx(0)


def test_segmentation_is_distilled_pixel_by_pixel_and_features_by_their_relative_error():
    maps = (logits[:, :, None, None].expand(4, 5, 3, 2) for logits in (STUDENT, TEACHER))
    pixels = float(distillation(*maps, "segmentation", 1.0))
    assert pixels == pytest.approx(float(distillation(STUDENT, TEACHER, "classification", 1.0)))
    assert float(distillation(2 * TEACHER, TEACHER, "features", 1.0)) == pytest.approx(1)


def test_every_output_is_distilled():
    student, teacher = (
        NetworkOutputs(maps, maps, (maps * share,))
        for maps, share in ((TEACHER, 1.5), (TEACHER, 1.0))
    )
    total = loss(student, teacher, batch(), "classification", Training(distillation=2.0))
    assert float(total) == pytest.approx(2 * 0.5**2)


def test_losses_are_weighed_and_unlabelled_images_count_for_nothing():
    how = Training(distillation=0.0, features=0.5, labels=2.0)
    total = loss(outputs(STUDENT, 3.0), outputs(TEACHER, 2.0), batch(), "classification", how)
    known = LABELS >= 0
    expected = 0.5 * 0.25 + 2 * float(F.cross_entropy(STUDENT[known], LABELS[known]))
    assert float(total) == pytest.approx(expected)


def test_a_mixed_image_has_both_labels():
    how = Training(distillation=0.0, labels=1.0)
    others = LABELS.flip(0)
    mixed = batch(others, 0.75)
    total = loss(outputs(STUDENT), outputs(TEACHER), mixed, "classification", how)
    parts = [float(F.cross_entropy(STUDENT, label, ignore_index=-1)) for label in (LABELS, others)]
    assert float(total) == pytest.approx(0.75 * parts[0] + 0.25 * parts[1])


IMAGES = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 6, 6, 3) * 30
EACH = torch.arange(8)


def test_images_are_left_alone_by_default():
    mixed = mix(IMAGES, EACH, Training(), torch.Generator())
    assert torch.equal(mixed.images, IMAGES) and mixed.share == 1


def test_mixup_is_the_mean_of_two_images_by_the_share_of_their_labels():
    mixed = mix(IMAGES, EACH, Training(mixup=0.8), torch.Generator().manual_seed(1))
    first, second = mixed.labels.double() * 30, mixed.others.double() * 30
    expected = mixed.share * first + (1 - mixed.share) * second
    assert 0 < mixed.share < 1
    np.testing.assert_allclose(mixed.images[:, 0, 0, 0], expected, atol=0.51)


def test_cutmix_replaces_a_box_as_large_as_its_share():
    mixed = mix(IMAGES, EACH, Training(cutmix=1.0), torch.Generator().manual_seed(3))
    kept = (mixed.images == IMAGES).all(-1).float().mean((1, 2))
    moved = mixed.labels != mixed.others
    assert 0 < mixed.share < 1 and moved.any()
    np.testing.assert_allclose(kept[moved], mixed.share, atol=1e-6)


def test_flipping_mirrors_about_half():
    images = torch.arange(6, dtype=torch.uint8).view(1, 1, 6, 1).expand(400, 6, 6, 3)
    mixed = mix(images, torch.arange(400), Training(flip=True), torch.Generator().manual_seed(1))
    mirrored = (mixed.images == images.flip(2)).all((1, 2, 3))
    same = (mixed.images == images).all((1, 2, 3))
    assert (mirrored ^ same).all() and 150 < int(mirrored.sum()) < 250


def test_the_rate_rises_and_falls_to_nothing():
    rates = [rate(step, 100, 0.1) for step in range(100)]
    assert rates[9] == rates[10] == 1 and rates[0] == pytest.approx(0.1)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5) and 0 < rates[99] < 1e-3


def test_a_detectors_boxes_are_distilled_beside_its_logits():
    logits = torch.randn(2, 5, 4)
    boxes = torch.rand(2, 5, 4)
    moved = (boxes + 0.1).requires_grad_()
    tokens = torch.zeros(2, 1, 1)
    teacher = NetworkOutputs(logits, tokens, (boxes,))
    whole = Mixed(torch.zeros(2, 1, 1, 3), torch.zeros(2), torch.zeros(2), 1.0)
    same = loss(teacher, teacher, whole, "detection", Training())
    value = loss(NetworkOutputs(logits, tokens, (moved,)), teacher, whole, "detection", Training())
    value.backward()
    spread = (boxes - boxes.mean(dim=1, keepdim=True)).square().mean()
    assert same == 0 and torch.isclose(value, 0.01 / spread)
    assert (moved.grad > 0).all()
