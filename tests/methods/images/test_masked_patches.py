"""iBOT, DINOv2 and I-JEPA: their losses against slow references and lightly, blocks, and what the student sees."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.methods.images.dinov2 import DINOv2, nearest_apart, rate_lacking, swapped_distance
from sslflow.methods.images.ibot import IBOT
from sslflow.methods.images.ijepa import IJEPA, BlockView, block_error
from sslflow.networks.answers import balanced, mean_over_all, patch_cross_entropy, sinkhorn
from sslflow.networks.encoder import Encoder
from sslflow.training.method import Batch
from sslflow.views.blocks import Hidden, MaskedCrops, draw_blocks, hidden_patches, inside
from sslflow.views.strengths import Local

FORMAT = ImageFormat(1, 28, (0.3,), (0.3,))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def encoder(**settings: int) -> Encoder:
    torch.manual_seed(0)
    return Encoder(1, 28, **{"name": "vit_tiny", "width": 32, "depth": 1, "patch_size": 7, **settings})  # pyright: ignore[reportArgumentType]


# Losses


ASKED = torch.tensor([[True, False, True, True], [False, False, False, False], [False, True, False, False]])


def slow_patch_loss(targets: Tensor, logits: Tensor) -> float:
    of_images, row = [], 0
    for image in ASKED.tolist():
        found = []
        for asked in image:
            if asked:
                norm = math.log(sum(math.exp(float(value)) for value in logits[row]))
                found.append(-sum(float(t) * (float(v) - norm) for t, v in zip(targets[row], logits[row], strict=True)))
                row += 1
        of_images.append(sum(found) / max(1, len(found)))
    return sum(of_images) / len(of_images)


def test_the_loss_of_patches_equals_the_slow_reference_and_lightly() -> None:
    from lightly.loss import IBOTPatchLoss

    teacher, student = drawn(4, 6), drawn(4, 6, seed=1)
    targets = (teacher / 0.04).softmax(dim=1)
    found = float(patch_cross_entropy(targets, student / 0.1, ASKED))
    assert found == pytest.approx(slow_patch_loss(targets, student / 0.1), rel=1e-5)
    theirs = IBOTPatchLoss(output_dim=6, teacher_temp=0.04, student_temp=0.1).double()
    assert found == pytest.approx(float(theirs(teacher, student, ASKED.view(3, 2, 2))), rel=1e-5)


def test_without_a_hidden_patch_the_loss_is_0_and_the_centre_stays() -> None:
    none = torch.zeros(3, 4, dtype=torch.bool)
    empty = torch.zeros(0, 6, requires_grad=True)
    loss = patch_cross_entropy(empty.detach(), empty, none)
    loss.backward()
    assert float(loss.detach()) == 0
    mean, count = mean_over_all(empty.detach())
    assert not mean.any()
    assert not count
    assert balanced(empty.detach(), 0.05).shape == (0, 6)


def test_balanced_answers_of_one_process_are_those_of_sinkhorn() -> None:
    logits = drawn(5, 4).float()
    assert torch.equal(balanced(logits, 0.1), sinkhorn(logits, 0.1, 3))


def slow_koleo(features: Tensor) -> float:
    z = [row / row.norm() for row in features]
    return -sum(math.log(min(float((a - b).norm()) for b in z if b is not a)) for a in z) / len(z)


def test_koleo_equals_the_slow_reference_and_lightly() -> None:
    from lightly.loss import KoLeoLoss

    features = drawn(9, 5)
    found = float(nearest_apart(features))
    assert found == pytest.approx(slow_koleo(features), rel=1e-6)
    assert found == pytest.approx(float(KoLeoLoss()(features)), rel=1e-6)


def slow_rate(vectors: Tensor) -> float:
    """½ log det of the identity and the vectors' outer products, through eigenvalues."""
    n, k = vectors.shape
    total = torch.eye(k, dtype=torch.float64)
    for row in vectors:
        unit = row / math.sqrt(sum(float(value) ** 2 for value in row))
        total += k / (n * 0.5) * torch.outer(unit, unit)
    return sum(math.log(float(value)) for value in torch.linalg.eigvalsh(total)) / 2


@pytest.mark.parametrize(("n", "k"), [(9, 5), (4, 7), (6, 6)])
def test_the_coding_rate_equals_the_slow_reference(n: int, k: int) -> None:
    """The largest is that of as many directions as there can be, at right angles."""
    vectors, even = drawn(n, k), torch.eye(k, dtype=torch.float64)[: min(n, k)]
    largest = slow_rate(even)
    assert float(rate_lacking(even)) == pytest.approx(0, abs=1e-6)
    assert float(rate_lacking(vectors)) == pytest.approx(1 - slow_rate(vectors) / largest, rel=1e-6)
    assert 0 < float(rate_lacking(vectors)) < float(rate_lacking(vectors[:1].expand(n, k)))


def test_the_coding_rate_pushes_equal_vectors_apart_as_soon_as_they_differ() -> None:
    vectors = (torch.ones(8, 4) + 0.01 * drawn(8, 4)).requires_grad_()
    loss = rate_lacking(vectors)
    loss.backward()
    assert vectors.grad is not None
    moved = (vectors - 0.1 * vectors.grad).detach()
    assert float(rate_lacking(moved)) < float(loss.detach())
    assert rate_lacking(torch.ones(1, 4)).isfinite()


def test_distances_of_crops_equal_the_slow_reference() -> None:
    targets, seen = drawn(2, 3, 4), drawn(5, 3, 4, seed=1)
    found = []
    for t in range(2):
        for crop in range(5):
            for one in range(3):
                a, b = targets[t, one], seen[crop, one]
                if crop != t:
                    found.append(float(((a / a.norm() - b / b.norm()) ** 2).sum()) / 2)
    assert float(swapped_distance(targets, seen)) == pytest.approx(sum(found) / len(found), rel=1e-6)


@pytest.mark.parametrize("features", [torch.ones(1, 4), torch.ones(5, 4), torch.eye(4).repeat(2, 1), torch.zeros(3, 4)])
def test_koleo_is_finite_for_one_image_and_for_equal_ones(features: Tensor) -> None:
    features = features.clone().requires_grad_()
    loss = nearest_apart(features)
    loss.backward()
    assert loss.isfinite()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert features.grad.abs().max() < 1e5


def test_koleo_pulls_the_nearest_apart() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], requires_grad=True)
    nearest_apart(features).backward()
    assert features.grad is not None
    moved = F.normalize((features - 0.1 * features.grad).detach(), dim=1)
    assert (moved[0] - moved[1]).norm() > 0.09


def test_the_loss_of_blocks_equals_the_slow_reference() -> None:
    predicted, taught = drawn(2, 4, 3), drawn(2, 4, 3, seed=1)
    asked = torch.tensor([[[1, 1, 0, 0], [0, 1, 1, 1]], [[0, 0, 0, 1], [1, 0, 0, 0]]]).bool()
    found = []
    for image in range(2):
        for block in range(2):
            inside_it = [patch for patch in range(4) if asked[image, block, patch]]
            errors = [
                sum((float(predicted[image, patch, k]) - float(taught[image, patch, k])) ** 2 for k in range(3)) / 3
                for patch in inside_it
            ]
            found.append(sum(errors) / len(errors))
    assert float(block_error(predicted, taught, asked)) == pytest.approx(sum(found) / 4, rel=1e-5)
    assert float(block_error(predicted, taught, asked & False)) == 0


# Blocks


def test_blocks_have_the_area_and_aspect_that_were_asked_for() -> None:
    torch.manual_seed(0)
    top, left, bottom, right = draw_blocks(500, 3, torch.tensor(0.16), (0.75, 1.5)).unbind(dim=2)
    heights, widths = bottom - top, right - left
    torch.testing.assert_close(heights * widths, torch.full((500, 3), 0.16))
    assert (heights / widths).min() >= 0.749
    assert (heights / widths).max() <= 1.501
    assert min(top.min(), left.min()) >= 0
    assert max(bottom.max(), right.max()) <= 1 + 1e-6
    assert top.std() > 0.1


def test_patches_are_inside_by_their_middles() -> None:
    blocks = torch.tensor([[[0.0, 0.0, 0.5, 0.3], [0.3, 0.6, 1.0, 1.0]], [[0.2, 0.2, 0.2, 0.9], [0.0, 0.0, 1.0, 1.0]]])
    for found, block in zip(inside(blocks, 4).flatten(0, 1), blocks.flatten(0, 1).tolist(), strict=True):
        top, left, bottom, right = block
        middles = [(number + 0.5) / 4 for number in range(4)]
        expected = [top <= y < bottom and left <= x < right for y in middles for x in middles]
        assert found.tolist() == expected


@pytest.mark.parametrize(("p", "low", "high"), [(0.0, 0.0, 0.0), (0.5, 0.1, 0.2), (1.0, 0.2, 0.5)])
def test_a_share_of_the_large_crops_is_hidden_in_part(p: float, low: float, high: float) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 28, 28), dtype=torch.uint8)
    *crops, blocks = MaskedCrops(FORMAT, hidden=Hidden(p=p), local=Local(crops=2))(Fields(images=images))
    assert [crop.shape[-1] for crop in crops] == [28, 28, 14, 14]
    hidden = hidden_patches(blocks, 28)
    assert hidden.shape == (120, 784)
    assert float(hidden.any(dim=1).float().mean()) == pytest.approx(p, abs=0.12)
    assert low <= float(hidden.float().mean()) <= high
    assert float(hidden.float().mean(dim=1).max()) < 0.55


# What a step sees


def crops(count: int, hidden: bool) -> Batch:
    torch.manual_seed(1)
    large = torch.randn(2, count, 1, 28, 28)
    block = torch.tensor([0.0, 0.0, 0.5, 0.5]) if hidden else torch.zeros(4)
    return Batch((*large, torch.randn(count, 1, 14, 14), block.expand(count, 2, 4)), torch.arange(count), 0.5)


@pytest.mark.parametrize("kind", [IBOT, DINOv2])
def test_the_teacher_sees_what_is_hidden_from_the_student(kind: type[IBOT | DINOv2]) -> None:
    method = kind(encoder(), projector=(16, 8), prototypes=12).eval()
    given, (first, second, small, blocks) = crops(4, hidden=True), crops(4, hidden=True).views
    first, second = first.clone(), second.clone()
    first[:, :, :14, :14], second[:, :, :14, :14] = 0.7, -0.7
    hidden = hidden_patches(blocks, 4)
    assert hidden.sum(dim=1).tolist() == [4] * 8
    with torch.no_grad():
        for view, other in zip(given.views[:2], (first, second), strict=True):
            seen, as_before = (method.student(one, hidden[:4], method.mask_token) for one in (view, other))
            assert all(torch.equal(a, b) for a, b in zip(seen, as_before, strict=True))
            taught, changed = (method.teacher(one, hidden[:4]) for one in (view, other))
            assert not any(torch.allclose(a, b) for a, b in zip(taught, changed, strict=True))
    assert small.shape[-1] == 14


@pytest.mark.parametrize("kind", [IBOT, DINOv2])
def test_a_batch_of_which_nothing_is_hidden_has_the_loss_of_images_alone(kind: type[IBOT | DINOv2]) -> None:
    method = kind(encoder(), projector=(16, 8), prototypes=12)
    losses = method.training_step(crops(4, hidden=False))
    assert float(losses["patches"].detach()) == 0
    losses["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_ibot_and_dinov2_weight_their_terms() -> None:
    losses = IBOT(encoder(), projector=(8,), prototypes=6, patches=0.3).training_step(crops(4, hidden=True))
    torch.testing.assert_close(losses["loss"], losses["images"] + 0.3 * losses["patches"])
    method = DINOv2(encoder(), projector=(8,), prototypes=6, patches=0.3, spread=0.2)
    losses = method.training_step(crops(4, hidden=True))
    expected = losses["images"] + 0.3 * losses["patches"] + 0.2 * losses["koleo"]
    torch.testing.assert_close(losses["loss"], expected)


def test_with_a_coding_rate_there_are_no_answers() -> None:
    """The teacher has the same head; patches count as much in each image; every parameter learns."""
    method = DINOv2(encoder(), projector=(16, 8), prototypes=6, patches=0.3, coding_rate=0.7)
    losses = method.training_step(crops(4, hidden=True))
    expected = losses["images"] + 0.3 * losses["patches"] + 0.7 * losses["rate_lacking"]
    torch.testing.assert_close(losses["loss"], expected)
    losses["loss"].backward()
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert not [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    assert method.choices(4) is None
    assert method.projections(torch.randn(4, method.encoder.dim)).shape == (4, 8)
    nothing = method.training_step(crops(4, hidden=False))
    assert float(nothing["patches"].detach()) == 0


def test_ijepa_sees_none_of_what_is_asked_for() -> None:
    method = IJEPA(encoder(depth=2), predictor_width=32, predictor_depth=1).eval()
    images = torch.randint(0, 256, (6, 1, 28, 28), dtype=torch.uint8)
    torch.manual_seed(0)
    view, noise, blocks = BlockView(FORMAT)(Fields(images=images))
    asked, keep = method.places(noise, blocks)
    assert asked.shape == (6, 4, 16)
    seen = torch.zeros(6, 16).scatter_(1, keep, 1.0).bool()
    assert not (seen & asked.any(dim=1)).any()
    assert bool((seen.sum(dim=1) == keep.shape[1]).all())
    pixels = F.interpolate((~seen).float().view(6, 1, 4, 4), size=28)
    with torch.no_grad():
        torch.testing.assert_close(method.predict(view, keep), method.predict(view + 3 * pixels, keep))


def test_ijepa_predicts_standardised_tokens_of_its_teacher() -> None:
    method = IJEPA(encoder(), predictor_width=32, predictor_depth=1).eval()
    view, noise = torch.randn(3, 1, 28, 28), torch.rand(3, 28, 28)
    blocks = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]]).expand(3, 2, 4)
    asked, keep = method.places(noise, blocks)
    assert keep.shape == (3, 12)
    with torch.no_grad():
        teacher: Any = method.teacher.network
        taught = teacher.tokens(view)[:, 1:]
        taught = (taught - taught.mean(dim=2, keepdim=True)) / (taught.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
        expected = block_error(method.predict(view, keep), taught, asked)
    torch.testing.assert_close(
        method.training_step(Batch((view, noise, blocks), torch.arange(3), 0.5))["loss"], expected
    )


@pytest.mark.parametrize("kind", [IBOT, DINOv2, IJEPA])
def test_a_vit_is_asked_for(kind: type[IBOT | DINOv2 | IJEPA]) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__.lower()} needs a ViT, .* set encoder\.name to vit_tiny"):
        kind(Encoder(1, 28, name="resnet10", width=4))
