"""DIET: its loss against a slow reference, what a class is, and what a step leaves alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sslflow.methods.images.diet import DIET, classes_of, smoothed_entropy
from sslflow.networks.encoder import Encoder
from sslflow.training.ingredients import build, of_examples
from sslflow.training.method import Batch, Choices


def made(images: int, **settings: float) -> DIET:
    torch.manual_seed(0)
    return DIET(Encoder(1, 28, name="resnet10", width=4, stem_stride=2), images, **settings).eval()  # pyright: ignore[reportArgumentType]


def a_batch(rows: list[int]) -> Batch:
    first, second = torch.rand(2, len(rows), 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return Batch((first, second), torch.tensor(rows), progress=0.0)


def slow(logits: Tensor, answers: list[int], smoothing: float) -> float:
    """Kullback-Leibler divergence of the answers from the smoothed labels."""
    total = 0.0
    for row, answer in zip(logits.double().tolist(), answers, strict=True):
        norm = math.log(sum(math.exp(value) for value in row))
        for number, value in enumerate(row):
            target = smoothing / len(row) + (1 - smoothing) * (number == answer)
            total += target * (math.log(target) - value + norm) if target else 0.0
    return total / len(answers)


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 0.8])
def test_the_loss_is_a_mean_over_both_views_and_equals_the_slow_reference(smoothing: float) -> None:
    method, given = made(7, smoothing=smoothing), a_batch([3, 0, 6, 5])
    losses = method.training_step(given)
    logits = [view.detach() @ method.classifier.weight.T for view in map(method.encoder, given.views)]
    expected = sum(slow(one, [3, 0, 6, 5], smoothing) for one in logits) / 2
    assert float(losses["loss"].detach()) == pytest.approx(expected, rel=1e-5)
    right = [int(row.argmax()) == answer for one in logits for row, answer in zip(one, [3, 0, 6, 5], strict=True)]
    assert float(losses["accuracy"]) == pytest.approx(sum(right) / 8)


def test_a_constant_answer_costs_chance_level_and_the_best_one_nothing() -> None:
    method = made(50, smoothing=0.3)
    torch.nn.init.zeros_(method.classifier.weight)
    losses = method.training_step(a_batch([1, 40]))
    assert float(losses["loss"].detach()) == pytest.approx(float(losses["chance_loss"]), rel=1e-5)
    assert float(losses["chance_accuracy"]) == pytest.approx(0.02)
    best = torch.full((50,), 0.3 / 50)
    best[7] += 0.7
    assert slow(best.log()[None], [7], 0.3) == pytest.approx(0.0, abs=1e-6)
    assert float(-(best * best.log()).sum()) == pytest.approx(smoothed_entropy(50, 0.3), rel=1e-5)
    assert method.choices(64) == Choices(50, "classes of images")


def test_images_are_classes_and_above_the_cap_they_share_them_evenly() -> None:
    assert torch.equal(classes_of(torch.arange(30), 30), torch.arange(30))
    shared = classes_of(torch.arange(100), 30)
    assert set(shared.bincount(minlength=30).tolist()) == {3, 4}
    assert bool((shared[1:] != shared[:-1]).all())


@pytest.mark.parametrize(("images", "most", "classes"), [(20, 100, 20), (20, 20, 20), (20, 6, 6)])
def test_the_head_is_as_wide_as_there_are_classes(images: int, most: int, classes: int) -> None:
    method = made(images, most=most)
    assert tuple(method.classifier.weight.shape) == (classes, method.encoder.dim)
    assert method.training_step(a_batch([images - 1, 0]))["loss"].isfinite()


def test_it_is_told_how_many_images_its_run_has(dataset) -> None:
    small = {"name": "resnet10", "width": 4, "stem_stride": 2}
    assert build(DIET, of_examples(dataset, dataset.pretraining_rows, small), {}).classes == 120
    assert build(DIET, of_examples(dataset, dataset.pretraining_rows[:33], small), {}).classes == 33
