"""Puzzles: tiles and where they belong, and colours; against loops, and against what each must not give away."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.methods.images import colorization, context_prediction, jigsaw
from sslflow.networks.encoder import Encoder
from sslflow.runtime.checkpoint import Checkpoint
from sslflow.runtime.distributed import average_gradients
from sslflow.runtime.rng import derive
from sslflow.training.fit import fit
from sslflow.training.method import Batch
from sslflow.views import tiles
from sslflow.views.images import lab, rgb_from_lab
from sslflow.views.tiles import Tiles, TileViews, assembled, cells, corners, cut, even
from tests.conftest import write_dataset

CPU = torch.device("cpu")
GREY = ImageFormat(1, 28, (0.3,), (0.3,))
COLOUR = ImageFormat(3, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def built(kind: Any, format: ImageFormat, **settings) -> Any:
    torch.manual_seed(derive(0, "init"))
    encoder = Encoder(format.channels, format.size, name="resnet10", width=4, stem_stride=2, grid=2)
    return kind(encoder, **settings)


def seen_by(views, images: Tensor) -> Batch:
    torch.manual_seed(1)
    return Batch(views(Fields(images=images)), torch.arange(len(images)), progress=0.0)


@pytest.fixture
def images(fashion) -> Tensor:
    return torch.from_numpy(fashion[0][:12])


@pytest.fixture
def colours() -> Tensor:
    torch.manual_seed(0)
    coarse = torch.rand(12, 3, 4, 4)
    return (255 * nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")).round().to(torch.uint8)


# Tiles


def test_tiles_are_cut_where_they_are_asked_for():
    torch.manual_seed(0)
    images, begin = torch.rand(3, 2, 11, 11), torch.randint(7, (3, 5, 2))
    found = cut(images, begin, 4)
    assert found.shape == (3, 5, 2, 4, 4)
    for image in range(3):
        for tile, (row, column) in enumerate(begin[image].tolist()):
            assert torch.equal(found[image, tile], images[image, :, row : row + 4, column : column + 4])


@pytest.mark.parametrize("size", [28, 30, 32])
@pytest.mark.parametrize(("gap", "jitter"), [(0.1, 0.2), (0.3, 0.0), (0.0, 0.4)])
def test_tiles_move_all_over_their_cells_and_leave_the_gap(size, gap, jitter, monkeypatch):
    # Each pixel says where it is: its row in one channel, its column in the other.
    monkeypatch.setattr(tiles, "even", lambda given: given)
    cell = size // 3
    free, move = round(gap * cell), round(jitter * cell)
    length = cell - free - move
    place = torch.arange(size, dtype=torch.uint8)
    image = torch.stack([place[:, None].expand(size, size), place.expand(size, size)])
    views = TileViews(
        ImageFormat(2, size, (0, 0), (1 / 255,) * 2), tiles=Tiles(gap, jitter, side=length / size, drop=0.0), flip=0.0
    )
    torch.manual_seed(0)
    found, whole = views(Fields(images=image.expand(200, -1, -1, -1)))
    assert torch.equal(whole[0], image.float())
    begin = found[..., 0, 0].unflatten(1, (3, 3))
    end = found[..., -1, -1].unflatten(1, (3, 3))
    assert torch.equal(end - begin, torch.full_like(begin, length - 1))
    assert begin.min() >= 0
    assert end.max() < size
    assert (begin[:, 1:, :, 0] - end[:, :-1, :, 0]).min() - 1 == free
    assert (begin[:, :, 1:, 1] - end[:, :, :-1, 1]).min() - 1 == free
    # Neighbours move by themselves, and by all that is allowed.
    for axis in (0, 1):
        moves = begin[..., axis] - begin[..., axis].amin(dim=0)
        assert torch.equal(moves.amax(dim=0), torch.full((3, 3), float(move)))
    if move:
        assert torch.corrcoef(begin[..., 0].flatten(1).T).triu(1).abs().max() < 0.4


def test_gap_and_jitter_that_leave_no_tile_are_an_error():
    with pytest.raises(ValueError, match="leave no tile of a cell of 9 pixels"):
        TileViews(GREY, tiles=Tiles(gap=0.5, jitter=0.4))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_tiles_are_even_and_as_large_as_asked_for(channels):
    views = TileViews(ImageFormat(channels, 32, (0.5,) * channels, (0.2,) * channels), tiles=Tiles(side=0.5, drop=0.0))
    found, whole = views(Fields(images=torch.randint(0, 256, (4, channels, 32, 32), dtype=torch.uint8)))
    assert found.shape == (4, 9, channels, 16, 16)
    assert whole.shape == (4, channels, 32, 32)
    torch.testing.assert_close(found.mean(dim=(3, 4)), torch.zeros(4, 9, channels), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.std(dim=(3, 4), correction=0), torch.ones(4, 9, channels))


def test_light_and_contrast_are_taken_from_tiles_and_empty_ones_stay_empty():
    torch.manual_seed(0)
    made = torch.randn(6, 2, 5, 5)
    torch.testing.assert_close(even(3 * made + 7), even(made))
    assert even(torch.full((1, 1, 5, 5), 4.0)).abs().max() == 0
    assert even(0.01 * made).abs().max() < 0.5


def test_a_slope_of_light_says_nothing_about_places():
    slope = torch.arange(0, 252, 9, dtype=torch.uint8).expand(20, 1, 28, 28)
    found, _ = TileViews(GREY, flip=0.0)(Fields(images=slope))
    torch.testing.assert_close(found, found[:1, :1].expand_as(found), rtol=0, atol=1e-4)


def test_images_without_colours_keep_one_channel_the_same_in_all_tiles(colours):
    torch.manual_seed(0)
    found, _ = TileViews(COLOUR, tiles=Tiles(drop=1.0))(Fields(images=colours.repeat(4, 1, 1, 1)))
    spread = found.std(dim=(3, 4))
    kept = spread > 0.03
    assert torch.equal(kept.sum(dim=2), torch.ones(48, 9, dtype=torch.int64))
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert set(kept[:, 0].float().argmax(dim=1).tolist()) == {0, 1, 2}
    torch.testing.assert_close(spread[~kept], torch.full((48 * 9 * 2,), tiles.NOISE), rtol=0.2, atol=0)
    torch.manual_seed(0)
    tile = TileViews(COLOUR, tiles=Tiles(drop=0.3))(Fields(images=colours.repeat(40, 1, 1, 1)))[0]
    some = (tile.std(dim=(3, 4)) > 0.03).all(dim=2).all(dim=1)
    assert 0.6 < some.float().mean() < 0.8


def test_the_one_channel_of_grey_images_is_never_dropped(images):
    torch.manual_seed(0)
    kept = TileViews(GREY, tiles=Tiles(drop=0.0))(Fields(images=images))
    torch.manual_seed(0)
    for view, same in zip(TileViews(GREY, tiles=Tiles(drop=1.0))(Fields(images=images)), kept, strict=True):
        assert torch.equal(view, same)


@pytest.mark.parametrize("size", [28, 30, 32, 224])
def test_tiles_are_drawn_at_their_places(size):
    numbers = torch.arange(1.0, 10).view(1, 9, 1, 1, 1).expand(2, 9, 3, 5, 5)
    drawn = assembled(numbers, size)
    assert drawn.shape == (2, 3, size, size)
    for number, (row, column) in enumerate(corners(drawn).tolist(), start=1):
        cell = size // 3
        inside = drawn[..., row : row + cell - 1, column : column + cell - 1]
        assert torch.allclose(inside, torch.tensor(float(number)))
        drawn[..., row : row + cell - 1, column : column + cell - 1] = 0
    assert not drawn.any()


def test_what_is_shown_are_images(images, colours):
    for kind, format, given in (
        (TileViews, GREY, images),
        (jigsaw.Puzzles, COLOUR, colours),
        (colorization.GreyViews, COLOUR, colours),
    ):
        views = kind(format)
        (shown,) = views.shown(views(Fields(images=given)))
        assert (shown.shape, shown.dtype) == (given.shape, torch.uint8)


# Context prediction


@torch.no_grad()
def test_context_is_asked_for_each_neighbour_of_the_centre(images):
    method = built(context_prediction.ContextPrediction, GREY, hidden=16).eval()
    batch = seen_by(TileViews(GREY), images[:3])
    found, answers = batch.views[0], [0, 1, 2, 3, 5, 6, 7, 8]
    losses, right = [], []
    for image in found:
        for side, other in enumerate(answers):
            pair = torch.cat([method.encoder(image[4:5]), method.encoder(image[other : other + 1])], dim=1)
            logs = method.classifier(pair).log_softmax(dim=1)[0]
            losses.append(-float(logs[side]))
            right.append(float(logs.argmax() == side))
    told = method.training_step(batch)
    assert float(told["loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert float(told["accuracy"]) == pytest.approx(sum(right) / len(right))


def test_context_pictures_put_the_neighbour_where_it_is_told_to_be(images, monkeypatch):
    method = built(context_prediction.ContextPrediction, GREY, hidden=16)
    batch = seen_by(TileViews(GREY), images)
    drawn = {}
    for turned in (0, 3):
        right = torch.eye(8).roll(turned, dims=1).expand(len(images), 8, 8)
        monkeypatch.setattr(method, "_where", lambda tiles, right=right: right)
        drawn[turned] = method.pictures(batch)
    assert torch.equal(drawn[0]["told"], drawn[0]["true"])
    assert not torch.equal(drawn[3]["told"], drawn[3]["true"])
    ordered = assembled(cells(batch.views[1]), 28)
    for number, (told, true) in enumerate(zip(drawn[3]["told"], drawn[3]["true"], strict=True)):
        side, wrong = number % 8, (number + 3) % 8
        begin = [corner for tile, corner in enumerate(corners(ordered).tolist()) if tile != 4]
        (row, column), (y, x) = begin[side], begin[wrong]
        assert torch.equal(
            true[:, row : row + 8, column : column + 8], ordered[number, :, row : row + 8, column : column + 8]
        )
        assert torch.equal(told[:, y : y + 8, x : x + 8], ordered[number, :, row : row + 8, column : column + 8])
        assert torch.equal(true[:, 9:17, 9:17], ordered[number, :, 9:17, 9:17])


# Jigsaw


def distances(orders: Tensor) -> Tensor:
    """How many places each two of the orders differ in, `(pairs,)`."""
    apart = (orders[:, None] != orders[None]).sum(dim=2)
    return apart[*torch.triu_indices(len(orders), len(orders), 1)]


def test_permutations_are_far_apart_and_always_the_same():
    orders = jigsaw.distant_permutations(64)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(9).expand(64, 9))
    assert torch.equal(jigsaw.distant_permutations(64), orders)
    assert distances(orders[:9]).min() >= 8
    torch.manual_seed(0)
    by_chance = [torch.stack([torch.randperm(9) for _ in range(64)]) for _ in range(50)]
    assert distances(orders).min() >= 7 > max(int(distances(some).min()) for some in by_chance)
    # No tile has a usual place, from which a single tile would tell.
    usual = torch.stack([(orders == tile).sum(dim=0) for tile in range(9)])
    assert usual.min() >= 5
    assert usual.max() <= 9


def test_more_permutations_begin_with_the_same_ones():
    assert torch.equal(jigsaw.distant_permutations(80)[:20], jigsaw.distant_permutations(20))
    assert len(jigsaw.distant_permutations(1000).unique(dim=0)) == 1000


def test_each_permutation_is_the_one_furthest_from_those_before(monkeypatch):
    monkeypatch.setattr(jigsaw, "CANDIDATES", 500)
    orders = jigsaw.distant_permutations(12)
    many = jigsaw.distant_permutations(500)
    for count in range(1, 12):
        apart = (many[:, None] != orders[:count]).sum(dim=2)
        worth = list(zip(apart.amin(dim=1).tolist(), apart.sum(dim=1).tolist(), strict=True))
        assert worth[count] == max(worth)


@torch.no_grad()
def test_jigsaw_lays_out_features_as_it_would_lay_out_tiles(images):
    method = built(jigsaw.Jigsaw, GREY, permutations=10, per_tile=6, hidden=16).eval()
    batch = seen_by(jigsaw.Puzzles(GREY, puzzles=3), images[:4])
    found, numbers, _ = batch.views
    assert numbers.shape == (4, 3)
    losses, right = [], []
    for image, drawn in zip(found, numbers.tolist(), strict=True):
        for number in drawn:
            order = method.permutations[number % 10]
            puzzle = torch.stack([image[tile] for tile in order.tolist()])
            features = torch.cat([method.narrow(method.encoder(tile[None])) for tile in puzzle], dim=1)
            logs = method.classifier(features).log_softmax(dim=1)[0]
            losses.append(-float(logs[number % 10]))
            right.append(float(logs.argmax() == number % 10))
    told = method.training_step(batch)
    assert float(told["loss"]) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert float(told["accuracy"]) == pytest.approx(sum(right) / len(right))


def test_every_permutation_is_drawn():
    numbers = jigsaw.Puzzles(GREY, puzzles=40)(Fields(images=torch.zeros(100, 1, 28, 28, dtype=torch.uint8)))[1]
    times = (numbers % 64).flatten().bincount(minlength=64)
    assert times.min() > 30
    assert times.max() < 100


def test_a_puzzle_is_solved_by_the_right_permutation_alone(images, monkeypatch):
    method = built(jigsaw.Jigsaw, GREY, permutations=10, per_tile=6, hidden=16)
    batch = seen_by(jigsaw.Puzzles(GREY), images)
    whole = assembled(cells(batch.views[-1]), 28)
    drawn = {}
    for wrong in (0, 1):
        answer = (batch.views[1][:, :1] % 10 + wrong) % 10
        logits = nn.functional.one_hot(answer, 10).float()
        monkeypatch.setattr(method, "_solve", lambda tiles, given, logits=logits: logits)
        drawn[wrong] = method.pictures(batch)
    assert torch.equal(drawn[0]["solved"], whole)
    different = [
        [not torch.equal(image, true) for image, true in zip(drawn[wrong][name], whole, strict=True)]
        for wrong, name in ((0, "shown"), (1, "solved"))
    ]
    assert all(map(all, different))


# Colorization


def test_colours_in_lab_are_those_of_the_standard():
    # D65, 2°: white, black, and the three primaries, from the standard's formulas to two digits.
    known = {
        (1, 1, 1): (100, 0, 0),
        (0, 0, 0): (0, 0, 0),
        (1, 0, 0): (53.24, 80.09, 67.20),
        (0, 1, 0): (87.73, -86.18, 83.18),
        (0, 0, 1): (32.30, 79.19, -107.86),
    }
    found = lab(torch.tensor(list(known)).float().T.reshape(1, 3, 1, -1))[0, :, 0].T
    torch.testing.assert_close(found, torch.tensor(list(known.values())).float(), rtol=0, atol=0.06)


def test_lab_and_back(colours):
    rgb = colours.float() / 255
    torch.testing.assert_close(rgb_from_lab(lab(rgb)), rgb, rtol=0, atol=2e-3)


def test_the_encoder_sees_lightness_and_nothing_of_the_colours(colours):
    views = colorization.GreyViews(COLOUR, shift=0.0, flip=0.0)
    grey, true, _ = views(Fields(images=colours))
    seen = views.normalise.restore(grey)
    assert (seen.float() - seen[:, :1].float()).abs().max() <= 1
    torch.testing.assert_close(lab(seen.float() / 255)[:, 0], true[:, 0], rtol=0, atol=0.5)
    torch.testing.assert_close(true, lab(colours.float() / 255))
    # Other colours of the same lightness look the same.
    other = rgb_from_lab(torch.cat([true[:, :1], 0.5 * true[:, 1:].flip(1)], dim=1))
    fits = (lab(other)[:, 0] - true[:, 0]).abs() < 0.01
    assert fits.float().mean() > 0.5
    difference = (views(Fields(images=(255 * other).round().to(torch.uint8)))[0] - grey).abs().amax(dim=1)
    assert difference[fits].max() < 0.05


def test_images_without_colours_are_an_error():
    with pytest.raises(ValueError, match=r"colorization needs colour images: set data.channels to 3"):
        colorization.GreyViews(GREY)


def test_bins_are_where_colours_are():
    bins = colorization.gamut()
    assert torch.equal(bins, (bins / 10).round() * 10)
    assert len(bins.unique(dim=0)) == len(bins)
    torch.manual_seed(0)
    ab = lab(torch.rand(1, 3, 100, 100))[0, 1:].flatten(1).T
    # Each colour lies within half a step of a bin, and each bin is used.
    assert torch.cdist(ab, bins, p=torch.inf).amin(dim=1).max() < 5.01
    assert len(bins) > 200
    corner = torch.tensor([[100.0, 100], [-100, -100], [0, 110], [0, -110]])
    assert torch.cdist(corner, bins).amin(dim=1).min() > 10


def test_a_colour_is_shared_out_among_its_five_nearest_bins():
    torch.manual_seed(0)
    bins, colours = colorization.gamut(), 40 * torch.randn(2, 2, 3, 4)
    nearest, shares = colorization.shared_out(colours, bins)
    assert nearest.shape == shares.shape == (2, 5, 3, 4)
    for image in range(2):
        for row in range(3):
            for column in range(4):
                a, b = colours[image, :, row, column].tolist()
                found = sorted((math.dist((a, b), place), number) for number, place in enumerate(bins.tolist()))[:5]
                weights = [math.exp(-(distance**2) / 50) for distance, _ in found]
                assert nearest[image, :, row, column].tolist() == [number for _, number in found]
                expected = [weight / sum(weights) for weight in weights]
                assert shares[image, :, row, column].tolist() == pytest.approx(expected, abs=1e-5)


def colour_problem(bins: int = 12) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, nearest bins, shares and weights."""
    torch.manual_seed(0)
    nearest = torch.rand(2, bins, 3, 2).topk(5, dim=1).indices
    shares = torch.rand(2, 5, 3, 2, dtype=torch.float64).softmax(dim=1)
    return torch.randn(2, bins, 3, 2, dtype=torch.float64), nearest, shares, torch.rand(bins, dtype=torch.float64)


def test_colour_cross_entropy_equals_the_slow_reference():
    logits, nearest, shares, weights = colour_problem()
    total = 0.0
    for image in range(2):
        for row in range(3):
            for column in range(2):
                pixel = logits[image, :, row, column].tolist()
                normaliser = math.log(sum(map(math.exp, pixel)))
                numbers, parts = nearest[image, :, row, column].tolist(), shares[image, :, row, column].tolist()
                entropy = -sum(part * (pixel[number] - normaliser) for number, part in zip(numbers, parts, strict=True))
                total += (
                    sum(part * float(weights[number]) for number, part in zip(numbers, parts, strict=True)) * entropy
                )
    found = colorization.colour_cross_entropy(logits, nearest, shares, weights)
    assert float(found) == pytest.approx(total / 12, rel=1e-5)


def test_a_guess_at_colours_costs_the_log_of_the_bins(colours):
    bins = colorization.gamut()
    nearest, shares = colorization.shared_out(lab(colours.float() / 255)[:, 1:], bins)
    weights = colorization.rarity(colorization.frequencies(nearest, shares, len(bins)), 0.5)
    guess = torch.zeros(12, len(bins), 32, 32)
    found = colorization.colour_cross_entropy(guess, nearest, shares, weights)
    assert float(found) == pytest.approx(math.log(len(bins)), rel=1e-4)


def test_gradient_of_the_colour_cross_entropy(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    logits, *rest = colour_problem(6)
    assert torch.autograd.gradcheck(lambda x: colorization.colour_cross_entropy(x, *rest), logits.requires_grad_())


def test_rare_colours_count_more_and_the_mean_weight_is_one():
    seen = torch.tensor([900.0, 90, 10, 0])
    for uniform in (0.0, 0.5, 1.0):
        weights = colorization.rarity(seen, uniform)
        assert float((seen / seen.sum()) @ weights) == pytest.approx(1.0)
        assert torch.equal(weights, weights.sort().values)
    torch.testing.assert_close(colorization.rarity(seen, 1.0), torch.ones(4))
    # Without a uniform part all colours seen count the same in sum.
    torch.testing.assert_close((seen * colorization.rarity(seen, 0.0))[:3], torch.full((3,), 1000 / 3))
    mixed = colorization.rarity(seen, 0.5)
    assert float(mixed[3] / mixed[0]) == pytest.approx((0.45 + 0.125) / 0.125)


def test_what_was_seen_are_the_shares_of_all_steps(colours):
    method = built(colorization.Colorization, COLOUR, decoder=8)
    views = colorization.GreyViews(COLOUR, shift=0.0, flip=0.0)
    method.training_step(seen_by(views, colours[:6]))
    method.training_step(seen_by(views, colours[6:]))
    true = nn.functional.avg_pool2d(lab(colours.float() / 255)[:, 1:], 4)
    expected = torch.zeros(len(method.bins))
    for numbers, parts in zip(
        *(x.movedim(1, -1).reshape(-1, 5) for x in colorization.shared_out(true, method.bins)), strict=True
    ):
        expected[numbers] += parts
    torch.testing.assert_close(method.seen / 2, expected / expected.sum(), rtol=1e-4, atol=1e-6)


def test_annealed_mean_lies_between_the_mean_and_the_likeliest():
    bins = torch.tensor([[0.0, 0.0], [100.0, 0.0]])
    probable = torch.tensor([0.3, 0.7]).log().view(1, 2, 1, 1)
    a, b = colorization.annealed_mean(probable, bins).flatten().tolist()
    parts = 0.3 ** (1 / 0.38), 0.7 ** (1 / 0.38)
    assert (a, b) == pytest.approx((100 * parts[1] / sum(parts), 0))
    assert 70 < a < 100


@pytest.mark.parametrize("loss", ["classification", "regression"])
def test_pictures_show_the_colours_told_and_the_true_ones(colours, loss):
    method = built(colorization.Colorization, COLOUR, loss=loss, decoder=8)
    views = colorization.GreyViews(COLOUR, shift=0.0, flip=0.0)
    batch = seen_by(views, colours)
    answer = torch.tensor([30.0, -20.0]).view(1, 2, 1, 1)
    if loss == "classification":
        right = (method.bins == answer.flatten()).all(dim=1).float()
        told = 1000 * right.view(1, -1, 1, 1)
    else:
        told = answer / colorization.UNIT
    method.decoder = _Always(told)
    drawn = method.pictures(batch)
    assert (views.normalise.restore(drawn["true"]).int() - colours.int()).abs().max() <= 1
    assert torch.equal(drawn["shown"], batch.views[0])
    wanted = rgb_from_lab(torch.cat([batch.views[1][:, :1], answer.expand(12, 2, 32, 32)], dim=1))
    torch.testing.assert_close(drawn["told"], views.normalise(255 * wanted), rtol=0, atol=1e-3)


class _Always(nn.Module):
    """A decoder that tells the same colour everywhere."""

    def __init__(self, told: Tensor) -> None:
        super().__init__()
        self.told = told

    def forward(self, maps: Tensor) -> Tensor:
        return self.told.expand(len(maps), -1, 8, 8)


def test_colours_as_numbers(colours):
    method = built(colorization.Colorization, COLOUR, loss="regression", decoder=8)
    batch = seen_by(colorization.GreyViews(COLOUR, shift=0.0, flip=0.0), colours)
    method.decoder = _Always(torch.zeros(1, 2, 1, 1))
    true = nn.functional.avg_pool2d(lab(colours.float() / 255)[:, 1:], 4)
    assert float(method.training_step(batch)["loss"]) == pytest.approx(float(true.square().mean()) / 25**2, rel=1e-4)
    assert method.choices(8) is None


@pytest.mark.parametrize("loss", ["classification", "regression"])
def test_no_constant_colour_costs_less_than_chance_level(colours, loss):
    method = built(colorization.Colorization, COLOUR, loss=loss, decoder=8)
    given = seen_by(colorization.GreyViews(COLOUR, shift=0.0, flip=0.0), colours)
    told = nn.Parameter(torch.zeros(1, len(method.bins) if loss == "classification" else 2, 1, 1))
    method.decoder = _Always(told)
    optimizer = torch.optim.Adam([told], lr=0.5)
    for step in range(200):
        losses = method.training_step(given)
        if step == 0:
            assert losses["chance_loss"] < losses["loss"] - 1e-3
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.97
    found, chance = float(losses["loss"].detach()), float(losses["chance_loss"])
    assert chance - 1e-4 < found < chance + 0.02


def test_chance_level_of_colours_is_of_all_steps_so_far(colours):
    views = colorization.GreyViews(COLOUR, shift=0.0, flip=0.0)
    method = built(colorization.Colorization, COLOUR, loss="regression", decoder=8)
    for part in colours[:6], colours[6:]:
        chance = method.training_step(seen_by(views, part))["chance_loss"]
    true = nn.functional.avg_pool2d(lab(colours.float() / 255)[:, 1:], 4) / colorization.UNIT
    expected = (true[6:] - true.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
    torch.testing.assert_close(chance, expected, rtol=1e-4, atol=1e-6)


def coloured(dataset_images: Tensor) -> Tensor:
    """Colours that follow the lightness, so that there is something to learn."""
    grey = dataset_images.float()
    return torch.cat([grey, 0.7 * grey, 255 - grey], dim=1).to(torch.uint8)


def test_a_resumed_colorization_ends_with_the_same_bits(fashion, tmp_path, monkeypatch):
    images, labels = coloured(torch.from_numpy(fashion[0][:60])).numpy(), fashion[1][:60]
    dataset = write_dataset(tmp_path / "prepared", images, labels, ["train"] * 60)
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 20, "lr": 1e-3}

    def made() -> tuple[Any, Any]:
        method = built(colorization.Colorization, dataset.format, decoder=8)
        return method, colorization.GreyViews(dataset.format)

    monkeypatch.chdir(tmp_path)
    whole, views = made()
    for step in fit(whole, views, dataset, CPU, 0, **settings):
        if step.number == 4:
            Checkpoint("pretrain", "x").save(step.state())
    torch.manual_seed(99)
    resumed, views = made()
    steps = fit(resumed, views, dataset, CPU, 0, Checkpoint("pretrain", "x").load(), **settings)
    assert [step.number for step in steps] == [5, 6]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert float(whole.seen.sum()) == pytest.approx(6)


# Several processes


def colour_step(rows: slice) -> dict[str, Tensor]:
    """Loss, chance level, gradients and what was seen after two steps on these rows; without statistics of the batch,
    which CPU processes don't share."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    format = ImageFormat(3, 16, COLOUR.mean, COLOUR.std)
    method = built(colorization.Colorization, format, decoder=8).eval()
    views = colorization.GreyViews(format, shift=0.0, flip=0.0)
    method.training_step(seen_by(views, images.flip(0)[rows]))
    losses = method.training_step(seen_by(views, images[rows]))
    loss = losses["loss"]
    loss.backward()
    parameters = [p for p in method.parameters() if p.grad is not None]
    average_gradients(parameters)
    gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    return {"loss": loss.detach(), "chance": losses["chance_loss"], "gradient": gradient, "seen": method.seen}


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    torch.save(colour_step(slice(4 * number, 4 * number + 4)), Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def test_two_processes_weigh_colours_as_one_does(tmp_path):
    spawn(process, args=(str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2)]
    whole = colour_step(slice(0, 8))
    for part in found:
        torch.testing.assert_close(part["seen"], whole["seen"])
        torch.testing.assert_close(part["gradient"], whole["gradient"], rtol=1e-4, atol=1e-6)
    for name in ("loss", "chance"):
        torch.testing.assert_close((found[0][name] + found[1][name]) / 2, whole[name])
