"""Patches that are left out: how many, which, where not, and that a stopped run draws them again."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.methods.images.dino import DINO
from sslflow.methods.images.mae import MAE
from sslflow.methods.images.simclr import SimCLR
from sslflow.networks.batch_norm import fresh_statistics
from sslflow.networks.encoder import Encoder, leave_out
from sslflow.networks.token_dropout import UnfitTokens, averages
from sslflow.training.fit import fit
from sslflow.training.run import Journal, Run
from sslflow.views.images import Local, MultiCrop
from tests.cases import image_case

CPU = torch.device("cpu")
VIT = {"name": "vit_tiny", "width": 32, "depth": 2, "patch_size": 4}
TRAIN: Any = {"epochs": 1, "batch_size": 20, "lr": 1e-3}


def vit(share: float = 0.0, grid: int = 2) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(1, 28, **VIT, grid=grid)
    encoder.dropout.share = share
    return encoder


def images(count: int = 3, side: int = 28) -> Tensor:
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(1))


def lengths(network: nn.Module) -> list[int]:
    """How many tokens pass through a ViT's first block, from now on, in each pass."""
    found: list[int] = []
    network.get_submodule("blocks.0").register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].shape[1]))
    return found


@pytest.mark.parametrize(("share", "kept"), [(0.0, 49), (0.25, 37), (0.5, 24), (0.75, 12), (0.999, 1)])
@pytest.mark.parametrize("grid", [0, 1, 2])
def test_so_many_patches_pass_in_training_and_all_in_evaluation(share, kept, grid):
    encoder = vit(share, grid)
    found = lengths(encoder.network)
    assert encoder(images()).shape == encoder.eval()(images()).shape == (3, encoder.dim)
    assert found == [1 + kept, 50]
    assert encoder.train()(images(side=16)).shape == (3, encoder.dim)
    assert found[2] == 1 + max(1, round((1 - share) * 16))


@pytest.mark.parametrize("grid", [0, 1, 2])
def test_patches_keep_their_places(grid):
    whole, nearly = vit(0.0, grid), vit(0.001, grid)
    assert nearly.dropout.active
    torch.testing.assert_close(nearly(images()), whole(images()), msg="all of 49, in another order")


def test_each_image_keeps_others_and_the_generator_says_which():
    encoder = vit(0.5)
    torch.manual_seed(3)
    same = encoder(images(1).expand(2, -1, -1, -1))
    assert not torch.allclose(same[0], same[1])
    torch.manual_seed(3)
    assert torch.equal(encoder(images(1).expand(2, -1, -1, -1)), same)
    assert not torch.equal(encoder(images(1).expand(2, -1, -1, -1)), same)


def test_evaluation_is_as_without_and_draws_nothing():
    encoder = vit(0.5).eval()
    before = torch.get_rng_state()
    assert torch.equal(encoder(images()), vit().eval()(images()))
    assert torch.equal(encoder.map(images()), vit().eval().map(images()))
    assert torch.equal(torch.get_rng_state(), before)
    found = lengths(encoder.network)
    with fresh_statistics(encoder):
        encoder(images())
    assert found == [50], "statistics are those of evaluation"


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_averages_are_of_what_was_kept_alone(cells):
    numbers = torch.Generator().manual_seed(2)
    kept = torch.rand(2, 20, generator=numbers).argsort(dim=1)[:, :7]
    seen = torch.randn(2, 7, 5, generator=numbers)
    found = averages(seen, kept, (4, 5), nn.AdaptiveAvgPool2d(cells))
    for image in range(2):
        places = {int(place): seen[image, number] for number, place in enumerate(kept[image])}
        for row in range(cells):
            for column in range(cells):
                rows = range(row * 4 // cells, -(-(row + 1) * 4 // cells))
                columns = range(column * 5 // cells, -(-(column + 1) * 5 // cells))
                inside = [places[5 * r + c] for r in rows for c in columns if 5 * r + c in places]
                right = torch.stack(inside).mean(dim=0) if inside else torch.zeros(5)
                torch.testing.assert_close(found[image, :, row, column], right)


def dino(dataset) -> tuple[DINO, MultiCrop]:
    method = DINO(vit(), projector=(16, 8), prototypes=12)
    return method, MultiCrop(dataset.format, local=Local(crops=2, size=0.7))


def test_students_and_teachers_leave_out_and_a_resumed_run_ends_with_the_same_bits(dataset):
    whole, views = dino(dataset)
    teacher: Any = whole.teacher.network
    passes = lengths(whole.encoder.network), lengths(teacher[0].network)
    kept: dict[str, Any] = {}
    for step in fit(whole, views, dataset, CPU, 0, **TRAIN, token_dropout=0.5):
        if step.number == 3:
            kept = copy.deepcopy(step.state())
    assert passes[0] == [25, 13] * 6, "two large crops, then two small ones of 20 pixels"
    assert passes[1] == [25] * 6
    resumed, views = dino(dataset)
    torch.manual_seed(99)
    assert len(list(fit(resumed, views, dataset, CPU, 0, kept, **TRAIN, token_dropout=0.5))) == 3
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_share_of_nothing_leaves_the_bits_as_they_are(dataset):
    one, other = (SimCLR(vit(share), projector=(16, 8)) for share in (0.0, 0.5))
    ways: list[tuple[SimCLR, Any]] = [(one, {}), (other, {"token_dropout": 0.0})]
    for method, settings in ways:
        next(fit(method, method.Views(dataset.format), dataset, CPU, 0, **TRAIN, **settings))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("name", ["mae", "ijepa", "ibot", "dinov2", "densecl"])
def test_methods_that_need_every_patch_refuse(name):
    case = image_case(name)
    if not case.method.encoder.is_vit:
        case.method.encoder = vit()
    case.method.encoder.dropout.share = 0.5
    with pytest.raises(UnfitTokens, match=r"token_dropout is 0\.5, and this method needs all patches"):
        case.method.train().training_step(case.batch())


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (
            lambda: MAE(vit(), decoder_width=32, decoder_depth=1),
            "here: token_dropout is 0.5, and this method needs all patches",
        ),
        (
            lambda: SimCLR(Encoder(1, 28, name="resnet10", width=4, stem_stride=2), projector=(8,)),
            "here: token_dropout is 0.5, a share of the patches of a ViT, and no encoder of this method is one",
        ),
    ],
)
def test_a_run_says_which_setting_it_is(dataset, monkeypatch, tmp_path, method, words):
    monkeypatch.chdir(tmp_path)
    made, run = method(), Run("test", "x", 0, Journal(), CPU, [], unit="images")
    steps = run.train(
        made, made.Views(dataset.format), dataset, dataset.pretraining_rows, "here", **TRAIN, token_dropout=0.5
    )
    with pytest.raises(ValueError, match=words):
        list(steps)


def test_a_vit_of_timm_leaves_out_too():
    encoder = Encoder(3, 32, name="vit_tiny_patch16_224")
    leave_out(encoder, 0.5)
    found = lengths(encoder.network)
    features = encoder(F.pad(images(2).expand(-1, 3, -1, -1), (2, 2, 2, 2)))
    assert found == [1 + 2]
    assert features.shape == (2, encoder.dim)
