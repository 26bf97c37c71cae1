"""What every method must do, whoever wrote it: run over every file in sslflow/methods/."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.features.extract import extract
from sslflow.monitoring.diagnostics import feature_std
from sslflow.networks.encoder import Encoder
from sslflow.runtime.rng import derive
from sslflow.settings.params import Over, read
from sslflow.training.fit import fit
from sslflow.training.ingredients import build
from sslflow.training.method import Batch, Method, Pool, find, names
from sslflow.views.images import Views
from tests.conftest import RECIPE, write_dataset

CPU = torch.device("cpu")
MOVING_TARGETS = ("dino", "swav")
"""Their loss is measured against targets that change: what falls is the distance of two views of an image."""


def make(
    name: str,
    channels: int = 1,
    size: int = 28,
    seed: int = 0,
    labels: np.ndarray | None = None,
    start: bool = True,
) -> tuple[Method, Views]:
    """The method with its settings from the recipe, on a small encoder of a kind that it can train; unless `fit` is to
    do it, started as before an epoch of 16 images."""
    kind, block = find(name), f"methods.{name}"
    schemas = {block: kind, f"{block}.views": Over("views", kind.Views), f"{block}.train": Over("train", fit)}
    settings = read(schemas, RECIPE)
    if labels is None:
        labels = np.arange(64) % 4

    def built(channels: int, **encoder: Any) -> tuple[Method, Views]:
        torch.manual_seed(derive(seed, "init"))
        format = ImageFormat(channels, size, (0.3,) * channels, (0.3,) * channels)
        views = kind.Views(format, **settings[f"{block}.views"])
        given = {"encoder": lambda: Encoder(channels, size, **encoder), "labels": lambda: torch.from_numpy(labels)}
        method = build(kind, given, settings[block])
        if start:
            images = torch.randint(0, 256, (16, channels, size, size), dtype=torch.uint8)
            features = method.encoder.eval()(views.normalise(images)).detach()
            method.train().start_epoch(Pool(16, torch.arange(16), lambda: features, seed=0))
        return method, views

    try:
        return built(channels, name="resnet10", width=8, stem_stride=2)
    except ValueError as error:
        if "needs a ViT" in str(error):
            return built(channels, name="vit_tiny", width=64, depth=2, patch_size=4)
        if "needs colour" in str(error):
            return built(3, name="resnet10", width=8, stem_stride=2)
        raise


def tinted(images: torch.Tensor) -> torch.Tensor:
    """Colour images of grey ones: dark blue to light yellow."""
    grey = images.float() / 255
    return (torch.cat([grey, grey * 0.9, 0.4 + 0.2 * grey], dim=1) * 255).to(torch.uint8)


def batch(views: Views, images: torch.Tensor) -> Batch:
    torch.manual_seed(1)
    if images.shape[1] < len(views.normalise.mean[0]):
        images = tinted(images)
    return Batch(views(Fields(images=images)), torch.arange(len(images)), progress=0.0)


@pytest.fixture
def images(fashion) -> torch.Tensor:
    return torch.from_numpy(fashion[0][:16])


@pytest.mark.parametrize("name", names())
def test_loss_is_a_finite_scalar(name, images):
    method, views = make(name)
    losses = method.training_step(batch(views, images))
    assert losses["loss"].isfinite()
    assert losses["loss"].requires_grad
    assert all(value.shape == () for value in losses.values())


@pytest.mark.parametrize("name", names())
def test_every_trainable_parameter_gets_a_gradient(name, images):
    method, views = make(name)
    method.training_step(batch(views, images))["loss"].backward()
    missing = [key for key, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not missing


@pytest.mark.parametrize("name", names())
def test_what_is_frozen_moves_after_a_step(name, images):
    method, views = make(name)
    before = copy.deepcopy(method.state_dict())
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    method.training_step(batch(views, images))["loss"].backward()
    optimizer.step()
    method.after_step(0.5)
    still = [key for key, p in method.named_parameters() if torch.equal(p, before[key])]
    assert not still


@pytest.mark.parametrize("name", names())
def test_inputs_are_not_changed(name, images):
    method, views = make(name)
    kept = images.clone()
    given = batch(views, images)
    copies = [view.clone() for view in given.views]
    method.training_step(given)
    assert torch.equal(images, kept)
    assert all(torch.equal(view, copy) for view, copy in zip(given.views, copies, strict=True))


@pytest.mark.parametrize("name", names())
def test_order_of_the_batch_does_not_matter(name, images):
    method, views = make(name)
    given = batch(views, images)
    order = torch.randperm(len(images))
    shuffled = Batch(tuple(view[order] for view in given.views), given.rows[order], given.progress)
    torch.manual_seed(2)
    first = copy.deepcopy(method).training_step(given)["loss"]
    torch.manual_seed(2)
    second = copy.deepcopy(method).training_step(shuffled)["loss"]
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", names())
def test_state_round_trip_gives_the_same_loss(name, images):
    method, views = make(name)
    method.training_step(batch(views, images))["loss"].backward()
    other, _ = make(name, seed=1)
    other.load_state_dict(method.state_dict())
    given = batch(views, images)
    torch.manual_seed(2)
    first = method.training_step(given)["loss"]
    torch.manual_seed(2)
    assert torch.equal(other.training_step(given)["loss"], first)


@torch.no_grad()
def apart(method: Method, given: Batch) -> float:
    """Squared distance of two views of an image in the features, as a share of that of two images."""
    za, zb = (F.normalize(method.encoder(view), dim=1) for view in given.views[:2])
    return float((za - zb).square().sum(dim=1).mean() / torch.cdist(za, zb).square().mean())


@pytest.mark.parametrize("name", names())
def test_a_few_dozen_steps_learn_without_collapse(name, tmp_path, fashion):
    images, labels = fashion[0][:64], fashion[1][:64]
    method, views = make(name, labels=labels, start=False)
    if method.encoder.channels == 3:
        images = tinted(torch.from_numpy(images)).numpy()
    dataset = write_dataset(tmp_path / "prepared", images, labels, ["train"] * 64)
    given = batch(views, torch.from_numpy(images))
    before = apart(copy.deepcopy(method), given) if name in MOVING_TARGETS else 0.0
    losses = [
        float(step.losses["loss"]) for step in fit(method, views, dataset, CPU, 0, epochs=20, batch_size=32, lr=3e-3)
    ]
    if name in MOVING_TARGETS:
        assert apart(method, given) < 0.8 * before
    else:
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    features = torch.from_numpy(extract(method.encoder, dataset, dataset.pretraining_rows, CPU))
    assert feature_std(features) > 0.1


@pytest.mark.parametrize("name", names())
def test_colour_images_are_seen(name):
    method, views = make(name, channels=3, size=32)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    assert method.training_step(batch(views, images))["loss"].isfinite()


def test_unknown_method_is_named_with_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'simclr'"):
        find("simclrr")
