"""DenseCL: which places are partners, and its loss, against slow references and lightly."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.methods.images.densecl import DenseCL, partners
from sslflow.networks.encoder import Encoder
from sslflow.training.method import Batch


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosine(one: Tensor, other: Tensor) -> float:
    dot = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(float(a) ** 2 for a in one) * sum(float(b) ** 2 for b in other))


def slow_partners(seen: Tensor, taught: Tensor, keys: Tensor) -> Tensor:
    rows = []
    for image in range(len(seen)):
        best = [max(range(len(taught[image])), key=lambda j: cosine(place, taught[image, j])) for place in seen[image]]
        rows.append(torch.stack([keys[image, j] for j in best]))
    return torch.stack(rows)


def test_partners_equal_the_slow_reference_and_lightly() -> None:
    from lightly.models.utils import select_most_similar

    seen, taught, keys = drawn(3, 4, 5), drawn(3, 4, 5, seed=1), drawn(3, 4, 6, seed=2)
    found = partners(seen, taught, keys)
    assert torch.equal(found, slow_partners(seen, taught, keys))
    assert torch.equal(found, select_most_similar(seen, taught, keys))


def made(**settings: float) -> DenseCL:
    torch.manual_seed(0)
    encoder = Encoder(1, 28, name="resnet10", width=4, stem_stride=1)
    return DenseCL(encoder, projector=(8, 6), queue=8, **settings).eval()  # pyright: ignore[reportArgumentType]


def a_batch(seed: int, rows: range) -> Batch:
    first, second = torch.rand(2, len(rows), 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    return Batch((first, second), torch.tensor(rows), progress=0.0)


def slow_nce(query: Tensor, right: Tensor, wrong: list[Tensor], temperature: float) -> float:
    scores = [math.exp(cosine(query, key) / temperature) for key in (right, *wrong)]
    return -math.log(scores[0] / sum(scores))


def test_both_losses_equal_the_slow_reference() -> None:
    method, first, second = made(dense=0.3), a_batch(0, range(4)), a_batch(1, range(2, 6))
    method.training_step(first)
    with torch.no_grad():
        queries, places, seen = method.student(second.views[0])
        keys, place_keys, taught = method.teacher.network(second.views[1])
    assert places.shape == (4, 16, 6)
    place_keys = F.normalize(place_keys, dim=2)
    right = slow_partners(seen, taught, place_keys)
    of_images, of_places = [], []
    for image, row in enumerate(second.rows.tolist()):
        others = [number for number, held in enumerate(method.queue.rows.tolist()) if held != row]
        of_images.append(slow_nce(queries[image], keys[image], [method.queue.vectors[k] for k in others], 0.2))
        wrong = [method.place_queue.vectors[k] for k in others]
        of_places += [slow_nce(places[image, p], right[image, p], wrong, 0.2) for p in range(16)]
    losses = {name: float(value.detach()) for name, value in method.training_step(second).items()}
    assert losses["images"] == pytest.approx(sum(of_images) / 4, rel=1e-4)
    assert losses["places"] == pytest.approx(sum(of_places) / 64, rel=1e-4)
    assert losses["loss"] == pytest.approx(0.7 * losses["images"] + 0.3 * losses["places"], rel=1e-5)


def test_the_queue_of_places_holds_the_means_of_images() -> None:
    method, given = made(), a_batch(0, range(8))
    _, place_keys, _ = method.teacher(given.views[1])
    method.training_step(given)
    assert sorted(method.place_queue.rows.tolist()) == list(range(8))
    means = F.normalize(F.normalize(place_keys, dim=2).mean(dim=1), dim=1)
    torch.testing.assert_close(method.place_queue.vectors[method.place_queue.rows.argsort()], means)


def test_a_network_without_a_map_is_refused() -> None:
    encoder = Encoder(3, 32, name="mixer_s32_224")
    with pytest.raises(ValueError, match="makes no map of the image"):
        DenseCL(encoder, projector=(8, 6), queue=4).student(torch.rand(2, 3, 32, 32))
