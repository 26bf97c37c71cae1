"""Methods for volumes: losses against slow references, and what each must not give away."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import VolumeFormat
from sslflow.methods.volumes import mae_3d, rotation_3d, rubik
from sslflow.networks.positions import positions
from sslflow.networks.volumes import VolumeEncoder
from sslflow.training.method import Batch
from sslflow.training.patches import patchify, unpatchify
from sslflow.views.orientations import turned

FORMAT = VolumeFormat(1, 12, (0.4,), (0.2,))
VIT = {"name": "vit", "width": 32, "depth": 1, "patch_size": 4}


def built(kind: Any, network: dict[str, Any] | None = None, **settings: Any) -> Any:
    torch.manual_seed(0)
    return kind(VolumeEncoder(1, 12, **(network or {"width": 4})), **settings)


def seen_by(method: Any, count: int = 6, **settings: Any) -> Batch:
    torch.manual_seed(1)
    given = torch.randint(0, 256, (count, 1, 12, 12, 12), dtype=torch.uint8)
    return Batch(method.Views(FORMAT, **settings)(Fields(volumes=given)), torch.arange(count), progress=0.0)


# Rotation


@pytest.mark.parametrize("orientations", [10, 24])
def test_rotation_asks_for_different_orientations_of_each_volume(orientations: Any) -> None:
    method = built(rotation_3d.Rotation3D, orientations=orientations, turns=3).eval()
    batch = seen_by(method, shift=0.0)
    view, numbers = batch.views
    own = [[k for k in row if k < orientations][:3] for row in numbers.tolist()]
    assert all(len(set(row)) == 3 for row in own)
    losses, right = [], []
    for volume, row in zip(view, own, strict=True):
        for k in row:
            logits = method.classifier(method.encoder(turned(volume, k)[None]))[0]
            losses.append(-logits.log_softmax(dim=0)[k])
            right.append(int(logits.argmax()) == k)
    found = method.training_step(batch)
    torch.testing.assert_close(found["loss"], torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)
    assert float(found["accuracy"]) == pytest.approx(sum(right) / len(right))
    assert method.choices(6).count == orientations


def test_all_orientations_are_drawn_alike() -> None:
    method = built(rotation_3d.Rotation3D)
    numbers = seen_by(method, 600).views[1][:, 0]
    assert torch.equal(numbers.unique(), torch.arange(24))
    assert numbers.bincount().max() < 60


def test_more_turns_than_orientations_are_an_error() -> None:
    with pytest.raises(ValueError, match="turns is 11, and there are 10 orientations"):
        built(rotation_3d.Rotation3D, orientations=10, turns=11)


# Rubik's cube


def test_permutations_are_different_and_far_apart() -> None:
    found = rubik.distant_permutations(64)
    assert torch.equal(found.sort(dim=1).values, torch.arange(8).expand(64, -1))
    apart = (found[:, None] != found[None]).sum(dim=2)
    assert apart[~torch.eye(64, dtype=torch.bool)].min() >= 6
    assert torch.equal(found, rubik.distant_permutations(64))
    assert len(rubik.distant_permutations(1000).unique(dim=0)) == 1000


def test_two_bits_are_half_turns_about_two_axes() -> None:
    cube = torch.arange(27).view(3, 3, 3)
    for first, second in itertools.product((0, 1), repeat=2):
        wanted = torch.rot90(cube, 2 * first, (1, 2))
        wanted = torch.rot90(wanted, 2 * second, (0, 2))
        place = int(rubik.orientations(torch.tensor([first, second])))
        assert torch.equal(turned(cube, rubik.HALF_TURNS[place]), wanted)


@pytest.mark.parametrize(("order", "orientation"), [(0.5, 0.5), (1.0, 0.0), (0.0, 2.0)])
def test_the_puzzle_is_that_of_a_loop(order: float, orientation: float) -> None:
    method = built(rubik.Rubik, permutations=10, order=order, orientation=orientation, per_block=8, hidden=16).eval()
    batch = seen_by(method, puzzles=3)
    blocks, numbers, bits, _ = batch.views
    of_orders, of_turns, right = [], [], []
    for volume in range(6):
        features = []
        for block in range(8):
            a, b = bits[volume, block].tolist()
            one = torch.rot90(torch.rot90(blocks[volume, block], 2 * a, (2, 3)), 2 * b, (1, 3))
            features.append(method.narrow(method.encoder(one[None]))[0])
        for number in numbers[volume].tolist():
            answer = number % 10
            places = method.permutations[answer].tolist()
            laid_out = torch.cat([features[block] for block in places])[None]
            if order:
                logits = method.places(laid_out)[0]
                of_orders.append(-logits.log_softmax(dim=0)[answer])
                right.append(int(logits.argmax()) == answer)
            if orientation:
                for place, two in zip(places, method.turns(laid_out).view(8, 2), strict=True):
                    of_turns += [-F.logsigmoid(x if y else -x) for x, y in zip(two, bits[volume, place], strict=True)]
    found = method.training_step(batch)
    expected = order * (torch.stack(of_orders).mean() if order else 0) + orientation * (
        torch.stack(of_turns).mean() if orientation else 0
    )
    torch.testing.assert_close(found["loss"], expected, rtol=1e-5, atol=1e-6)
    assert float(found["chance_loss"]) == pytest.approx(order * math.log(10) + orientation * math.log(2))
    if order:
        assert float(found["accuracy"]) == pytest.approx(sum(right) / len(right))


def test_a_solved_cube_is_the_blocks_in_their_order_and_as_they_were() -> None:
    method = built(rubik.Rubik, permutations=10, per_block=8, hidden=16).eval()
    batch = seen_by(method)
    blocks, numbers, bits, whole = batch.views
    given = method.permutations[numbers[:, :1] % 10]

    def right(*_: Any) -> tuple[Tensor, Tensor]:
        orders = F.one_hot(numbers[:, :1] % 10, 10).float()
        return orders, 2.0 * rubik.shuffled(bits, given) - 1

    method._solve = right
    found = method.pictures(batch)
    assert torch.equal(found["solved"], rubik.assembled(blocks, 12))
    assert not torch.equal(found["shown"], found["solved"])
    assert found["volume"] is whole


def test_orientation_loss_at_chance_is_ln_2_and_has_the_right_gradient() -> None:
    bits = torch.randint(2, (3, 8, 2))
    assert float(rubik.orientation_loss(torch.zeros(3, 8, 2), bits)) == pytest.approx(math.log(2))
    logits = torch.randn(3, 8, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rubik.orientation_loss(x, bits), logits)


def test_a_puzzle_without_a_question_is_an_error() -> None:
    with pytest.raises(ValueError, match="both 0"):
        built(rubik.Rubik, order=0.0, orientation=0.0)


# MAE


def test_patches_of_a_volume_are_those_of_a_loop_and_come_back() -> None:
    volumes = torch.rand(2, 3, 12, 12, 12)
    found = patchify(volumes, 4)
    for number, (x, y, z) in enumerate(itertools.product(range(0, 12, 4), repeat=3)):
        assert torch.equal(found[:, number], volumes[:, :, x : x + 4, y : y + 4, z : z + 4].flatten(1))
    assert torch.equal(unpatchify(found, 4, 3, 3), volumes)


def test_the_encoder_sees_nothing_of_hidden_patches_and_is_asked_for_these_alone() -> None:
    method = built(mae_3d.MAE3D, VIT, mask=0.75, decoder_width=32, decoder_depth=1).eval()
    batch = seen_by(method)
    view, noise = batch.views
    order = method.order_of(noise)
    assert method.visible == 7
    patches = patchify(view, 4).clone()
    for row, hidden in enumerate(order[:, 7:]):
        patches[row, hidden] = 100.0
    other = unpatchify(patches, 4, 3, 3)
    torch.testing.assert_close(method.draw(view, order), method.draw(other, order))
    drawn, target = method.draw(view, order), patchify(view, 4)
    target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
    errors = [(drawn[n, p] - target[n, p]).square().mean() for n in range(6) for p in order[n, 7:].tolist()]
    torch.testing.assert_close(method.training_step(batch)["loss"], torch.stack(errors).mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "words"),
    [({"width": 4}, "mae_3d needs a ViT"), ({**VIT, "patch_size": 5}, "set it to one of 2, 3, 4, 6")],
)
def test_what_mae_can_not_learn_on_is_told(network: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        built(mae_3d.MAE3D, network)


def test_places_of_patches_are_all_different() -> None:
    found = positions(3, 32, 3)
    assert found.shape == (27, 32)
    assert torch.cdist(found, found)[~torch.eye(27, dtype=torch.bool)].min() > 0.1


# Encoders


@pytest.mark.parametrize("network", [{"width": 4}, {"name": "resnet18", "width": 4, "stem_stride": 1}, VIT])
def test_features_are_means_over_cells_of_the_last_map(network: dict[str, Any]) -> None:
    torch.manual_seed(0)
    encoder = VolumeEncoder(1, 12, grid=2 if network.get("name") == "vit" else 1, **network).eval()
    volumes = torch.randn(2, 1, 12, 12, 12)
    grid, found = encoder.settings["grid"], encoder.map(volumes)
    assert found.shape[1] == encoder.map_dim
    assert [one.shape[1] for one in encoder.maps(volumes)] == list(encoder.dims)
    torch.testing.assert_close(encoder(volumes), F.adaptive_avg_pool3d(found, grid).flatten(1))
    assert encoder(volumes).shape[1] == encoder.dim
    if encoder.is_vit:
        torch.testing.assert_close(encoder.tokens(volumes), found.flatten(2).mT)
        keep = torch.arange(27).expand(2, -1)
        torch.testing.assert_close(encoder.tokens(volumes, keep), encoder.tokens(volumes))


def test_a_vit_takes_cubes_of_any_size() -> None:
    encoder = VolumeEncoder(1, 12, **VIT).eval()
    assert encoder.map(torch.randn(2, 1, 5, 5, 5)).shape == (2, 32, 2, 2, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grid": 0}, "encoder.grid is 0"),
        ({**VIT, "width": 40}, "width 40"),
        ({**VIT, "patch_size": 16}, "patch_size 16"),
    ],
)
def test_settings_of_an_encoder_that_do_not_fit_are_told(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VolumeEncoder(1, 12, **settings)
