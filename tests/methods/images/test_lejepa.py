"""LeJEPA: its terms against slow references and lightly, and the directions that a step looks along."""

from __future__ import annotations

import cmath
import itertools
import math

import pytest
import torch
from torch import Tensor

from sslflow.methods.images.lejepa import LeJEPA, prediction_error, sigreg
from sslflow.networks.encoder import Encoder
from sslflow.training.method import Batch


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def slow_sigreg(z: Tensor, directions: Tensor) -> float:
    """The statistic by complex numbers, over 17 points from −5 to 5."""
    found = []
    points = [-5 + 10 * number / 16 for number in range(17)]
    for view in z:
        for direction in directions.T:
            unit = direction / direction.norm()
            numbers = [float(row @ unit) for row in view]
            values = []
            for t in points:
                phi = sum(cmath.exp(1j * t * x) for x in numbers) / len(numbers)
                values.append(abs(phi - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2))
            area = sum((a + b) / 2 * 10 / 16 for a, b in itertools.pairwise(values))
            found.append(len(numbers) * area)
    return sum(found) / len(found)


def test_sigreg_equals_the_slow_reference() -> None:
    z, directions = drawn(3, 7, 4), drawn(4, 5, seed=1)
    assert float(sigreg(z, directions)) == pytest.approx(slow_sigreg(z, directions), rel=1e-8)


def test_sigreg_equals_lightly(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightly.loss import SIGReg

    z, directions = drawn(2, 40, 6).float(), drawn(6, 30, seed=1).float()
    theirs = SIGReg(knots=9, t_max=5.0, num_vectors=30)  # from 0 on, each but that for two
    monkeypatch.setattr(theirs, "_generate_unit_vectors", lambda *_, **__: directions / directions.norm(dim=0))
    torch.testing.assert_close(sigreg(z, directions), theirs(z))


def test_the_prediction_equals_the_slow_reference_and_lightly() -> None:
    from lightly.loss.lejepa_loss import lejepa_invariance_loss

    z = drawn(4, 5, 3)
    total = sum(
        (float(z[view, image, k]) - (float(z[0, image, k]) + float(z[1, image, k])) / 2) ** 2
        for view in range(4)
        for image in range(5)
        for k in range(3)
    )
    assert float(prediction_error(z)) == pytest.approx(total / 60, rel=1e-8)
    torch.testing.assert_close(prediction_error(z), lejepa_invariance_loss(all_proj=z, global_proj=z[:2]))


def test_sigreg_is_least_for_a_gaussian() -> None:
    directions = drawn(4, 50, seed=1)
    gaussian = drawn(1, 2000, 4)
    apart = {
        "to a point": torch.zeros_like(gaussian),
        "too wide": 2 * gaussian,
        "too narrow": gaussian / 2,
        "on a line": gaussian[..., :1].expand(-1, -1, 4),
        "moved": gaussian + 1,
        "two heaps": gaussian.sign(),
    }
    least = float(sigreg(gaussian, directions))
    for what, z in apart.items():
        assert float(sigreg(z, directions)) > 5 * least, what


def test_gradients() -> None:
    z, directions = drawn(2, 5, 3).requires_grad_(), drawn(3, 4, seed=1)
    assert torch.autograd.gradcheck(lambda z: sigreg(z, directions) + prediction_error(z), (z,))


def made(**settings: float) -> LeJEPA:
    torch.manual_seed(0)
    encoder = Encoder(1, 28, name="resnet10", width=4, stem_stride=2)
    return LeJEPA(encoder, projector=(8, 6), slices=10, **settings).eval()  # pyright: ignore[reportArgumentType]


def a_batch(progress: float) -> Batch:
    views = torch.rand(3, 5, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return Batch(tuple(views), torch.arange(5), progress)


def test_directions_follow_from_the_step_alone() -> None:
    method = made()
    found = []
    for progress, seed in ((0.25, 1), (0.25, 2), (0.26, 1)):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        found.append(float(method.training_step(a_batch(progress))["sigreg"].detach()))
        assert torch.equal(torch.get_rng_state(), state)
    assert found[0] == found[1] != found[2]


def test_the_weight_is_shared_between_both_terms() -> None:
    losses = made(gaussian=0.3).training_step(a_batch(0.5))
    torch.testing.assert_close(losses["loss"], 0.7 * losses["prediction"] + 0.3 * losses["sigreg"])
