"""Methods that draw images: decoders, noise, holes and hidden patches, and errors against slow references."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.data.normalise import Normalise
from sslflow.methods.images import autoencoder, denoising, inpainting, mae
from sslflow.networks.decoder import Decoder, from_features
from sslflow.networks.encoder import Encoder
from sslflow.networks.positions import positions
from sslflow.training.method import Batch
from sslflow.training.patches import hidden_error, patchify, standardise, unpatchify
from sslflow.views.images import CropView

GREY = ImageFormat(1, 28, (0.3,), (0.3,))
STILL: dict[str, Any] = {"shift": 0.0, "flip": 0.0}


@pytest.fixture
def images(fashion) -> torch.Tensor:
    return torch.from_numpy(fashion[0][:32])


@pytest.fixture
def clean(images) -> torch.Tensor:
    return Normalise([0.3], [0.3])(images)


def built(kind: Any, **settings) -> Any:
    torch.manual_seed(0)
    vit = kind is mae.MAE
    encoder = (
        Encoder(1, 28, name="vit_tiny", width=32, depth=2, patch_size=7)
        if vit
        else Encoder(1, 28, name="resnet10", width=4, stem_stride=2, grid=2)
    )
    return kind(encoder, **settings)


# Decoders


@pytest.mark.parametrize("side", [2, 3, 28, 33, 64])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (40, 40)])
def test_a_decoder_brings_any_map_to_its_side_with_all_its_layers(side, size):
    torch.manual_seed(0)
    decoder = Decoder(5, 3, side, width=8)
    drawn = decoder(torch.randn(2, 5, *size))
    assert drawn.shape == (2, 3, side, side)
    drawn.square().sum().backward()
    assert not [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()]


def test_a_decoder_doubles_up_to_sides_that_are_no_power_of_two():
    assert Decoder(4, 1, 28).sizes == [2, 4, 7, 14, 28]
    assert Decoder(4, 1, 33).sizes == [2, 3, 5, 9, 17, 33]
    assert Decoder(4, 1, 33, smallest=8).sizes == [5, 9, 17, 33]


@pytest.mark.parametrize("side", [5, 28, 96])
def test_features_become_images_with_all_layers(side):
    torch.manual_seed(0)
    decoder = from_features(6, 3, side, width=8)
    drawn = decoder(torch.randn(4, 6))
    assert drawn.shape == (4, 3, side, side)
    drawn.square().sum().backward()
    assert not [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()]


def test_a_decoder_repeats_its_gradients_to_the_bit():
    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)
        decoder = Decoder(8, 1, 28, width=16)
        decoder(torch.randn(4, 8, 3, 3)).square().mean().backward()
        return [p.grad.clone() for p in decoder.parameters() if p.grad is not None]

    torch.use_deterministic_algorithms(True)
    try:
        assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("kind", ["map of 1x1", "features"])
def test_a_decoder_draws_different_images_from_different_codes(kind, clean):
    torch.manual_seed(0)
    codes, wanted = torch.eye(8), clean[:8]
    decoder = Decoder(8, 1, 28, width=32) if kind == "map of 1x1" else from_features(8, 1, 28, width=32)
    given = codes[:, :, None, None] if kind == "map of 1x1" else codes
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        error = (decoder(given) - wanted).square().mean()
        error.backward()
        optimizer.step()
    # Who can't tell the codes apart draws the mean of the eight.
    assert float(error.detach()) < 0.25 * float(wanted.var(dim=0, correction=0).mean())


# Autoencoder


def test_squared_error_is_the_mean_over_pixels():
    a, b = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64).float()
    slow = sum((float(x) - float(y)) ** 2 for x, y in zip(a.flatten(), b.flatten(), strict=True)) / a.numel()
    assert float(autoencoder.squared_error(a, b)) == pytest.approx(slow, rel=1e-6)
    assert float(denoising.squared_error(a, b)) == pytest.approx(slow, rel=1e-6)
    assert float(autoencoder.squared_error(a, a)) == 0


@pytest.mark.parametrize("kind", [autoencoder.Autoencoder, denoising.Denoising, inpainting.Inpainting])
def test_all_that_is_drawn_comes_through_the_features(kind, images):
    method = built(kind, decoder=8).eval()
    views = kind.Views(GREY, **STILL)(Fields(images=images))
    blank = torch.zeros(len(images), method.encoder.dim)
    method.encoder.forward = lambda images: blank
    drawn = list(method.pictures(Batch(views, torch.arange(len(images)), 0.0)).values())[1]
    # Where the image is kept around what is drawn, what is drawn is in the holes.
    mask = views[2].expand_as(drawn).bool() if len(views) == 3 else torch.ones_like(drawn, dtype=torch.bool)
    everywhere = method.decoder(blank[:1]).expand_as(drawn)
    torch.testing.assert_close(drawn[mask], everywhere[mask])


# Denoising


def test_dropped_pixels_have_the_mean_colour_in_all_channels_and_the_others_stay():
    format = ImageFormat(3, 32, (0.3, 0.4, 0.5), (0.3, 0.2, 0.1))
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(0)
    noisy, clean = denoising.NoisyViews(format, **STILL, noise=0.0, dropped=0.3)(Fields(images=images))
    assert torch.equal(clean, Normalise(format.mean, format.std)(images))
    gone = (noisy == 0).all(dim=1, keepdim=True)
    assert torch.equal(noisy, clean * ~gone)
    assert float(gone.float().mean()) == pytest.approx(0.3, abs=0.01)
    assert len(gone.flatten(1).unique(dim=0)) == 64


def test_gaussian_noise_has_its_deviation_and_is_added(images):
    torch.manual_seed(0)
    noisy, clean = denoising.NoisyViews(GREY, **STILL, noise=0.7, dropped=0.0)(Fields(images=images))
    assert float((noisy - clean).std()) == pytest.approx(0.7, rel=0.02)
    assert float((noisy - clean).mean()) == pytest.approx(0, abs=0.02)


def test_without_noise_the_views_are_the_same(images):
    noisy, clean = denoising.NoisyViews(GREY, noise=0.0, dropped=0.0)(Fields(images=images))
    assert torch.equal(noisy, clean)


def test_the_clean_view_is_what_is_compared_with(images):
    method = built(denoising.Denoising, decoder=8).eval()
    noisy, clean = denoising.NoisyViews(GREY, **STILL)(Fields(images=images))
    loss = method.training_step(Batch((noisy, clean), torch.arange(32), 0.0))["loss"]
    drawn = method.decoder(method.encoder(noisy))
    torch.testing.assert_close(loss, (drawn - clean).square().mean())


# Inpainting


def slow_hole_error(drawn, whole, mask):
    total = 0.0
    for image in range(len(drawn)):
        squares, pixels = 0.0, 0
        for row in range(drawn.shape[2]):
            for column in range(drawn.shape[3]):
                if mask[image, 0, row, column]:
                    pixels += 1
                    for channel in range(drawn.shape[1]):
                        difference = float(drawn[image, channel, row, column]) - float(
                            whole[image, channel, row, column]
                        )
                        squares += difference**2 / drawn.shape[1]
        total += squares / pixels
    return total / len(drawn)


def holed(count: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    drawn, whole = torch.randn(2, count, 3, 6, 6, dtype=torch.float64)
    return drawn, whole, inpainting.squares(torch.randint(4, (count, 2, 2)), 3, 6).double()


def test_hole_error_equals_the_slow_reference():
    assert float(inpainting.hole_error(*holed())) == pytest.approx(slow_hole_error(*holed()), rel=1e-5)


def test_hole_error_looks_into_the_holes_only():
    drawn, whole, mask = holed()
    loss = inpainting.hole_error(drawn, whole, mask)
    assert torch.equal(inpainting.hole_error(drawn + 5 * (1 - mask), whole, mask), loss)
    assert not torch.isclose(inpainting.hole_error(drawn + 5 * mask, whole, mask), loss)


def test_squares_equal_the_slow_reference():
    torch.manual_seed(0)
    corners = torch.randint(0, 8, (5, 3, 2))
    mask = inpainting.squares(corners, 4, 11)
    slow = torch.zeros(5, 1, 11, 11)
    for image in range(5):
        for row, column in corners[image].tolist():
            slow[image, 0, row : row + 4, column : column + 4] = 1
    assert torch.equal(mask, slow)


@pytest.mark.parametrize(("holes", "share"), [(1, 0.25), (4, 0.25), (3, 0.5), (1, 1.0)])
def test_holes_hide_what_they_cover_and_nothing_else(images, holes, share):
    torch.manual_seed(0)
    given, whole, mask = inpainting.HoledViews(GREY, **STILL, holes=holes, share=share)(Fields(images=images))
    assert mask.shape == (32, 1, 28, 28)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(given[mask == 0], whole[mask == 0])
    assert not given[mask == 1].any()
    covered = mask.mean(dim=(1, 2, 3))
    assert float(covered.max()) <= share + 0.03
    assert float(covered.min()) >= share / holes - 0.03
    assert len(mask.flatten(1).unique(dim=0)) > 16 or share == 1.0


def test_every_pixel_is_hidden_now_and_then(images):
    torch.manual_seed(0)
    views = inpainting.HoledViews(GREY, **STILL, holes=2, share=0.25)
    assert torch.cat([views(Fields(images=images))[2] for _ in range(20)]).any(dim=0).all()


def test_a_hole_in_the_centre_is_in_the_centre(images):
    _, _, mask = inpainting.HoledViews(GREY, place="centre", share=0.25)(Fields(images=images))
    expected = torch.zeros(28, 28)
    expected[7:21, 7:21] = 1
    assert torch.equal(mask, expected.expand(32, 1, 28, 28))


def test_shown_views_are_images(images):
    for kind, count in ((denoising.NoisyViews, 2), (inpainting.HoledViews, 2), (mae.MaskedViews, 1)):
        views = kind(GREY)
        shown = views.shown(views(Fields(images=images)))
        assert [(view.shape, view.dtype) for view in shown] == [(images.shape, torch.uint8)] * count


# MAE


@pytest.mark.parametrize(("channels", "size", "patch"), [(1, 28, 4), (3, 12, 3), (2, 8, 4)])
def test_patches_are_the_images_squares_row_by_row_and_go_back(channels, size, patch):
    images = torch.randn(2, channels, size, size)
    patches, across = patchify(images, patch), size // patch
    assert patches.shape == (2, across**2, channels * patch**2)
    for number in range(across**2):
        y, x = number // across * patch, number % across * patch
        assert torch.equal(patches[:, number], images[:, :, y : y + patch, x : x + patch].flatten(1))
    assert torch.equal(unpatchify(patches, patch, across), images)


def test_patches_equal_lightlys_but_for_the_order_of_their_pixels():
    from lightly.models import utils

    images = torch.randn(2, 3, 12, 12)
    theirs = utils.patchify(images, 4).unflatten(2, (4, 4, 3)).permute(0, 1, 4, 2, 3).flatten(2)
    assert torch.equal(patchify(images, 4), theirs)


def test_standardised_patches_have_mean_0_and_unbiased_variance_1():
    patches = 3 + 2 * torch.randn(2, 3, 16, dtype=torch.float64)
    standard, mean, deviation = standardise(patches)
    for row in range(2):
        for number in range(3):
            pixels = patches[row, number].tolist()
            middle = sum(pixels) / 16
            spread = math.sqrt(sum((pixel - middle) ** 2 for pixel in pixels) / 15 + 1e-6)
            assert float(mean[row, number]) == pytest.approx(middle)
            assert float(deviation[row, number]) == pytest.approx(spread)
            assert standard[row, number].tolist() == pytest.approx([(pixel - middle) / spread for pixel in pixels])
    torch.testing.assert_close(standard * deviation + mean, patches)


def test_standardised_patches_equal_lightlys():
    from lightly.models.utils import normalize_mean_var

    patches = torch.randn(2, 3, 16)
    torch.testing.assert_close(standardise(patches)[0], normalize_mean_var(patches), rtol=1e-5, atol=1e-5)


def test_patches_of_one_colour_are_all_zero():
    standard, _, _ = standardise(torch.full((1, 2, 16), 0.7))
    torch.testing.assert_close(standard, torch.zeros(1, 2, 16), rtol=0, atol=1e-4)


def test_hidden_error_equals_the_slow_reference_and_looks_at_hidden_patches_only():
    torch.manual_seed(0)
    drawn, target = torch.randn(2, 3, 5, 4)
    hidden = torch.tensor([[0, 4], [2, 1], [3, 0]])
    slow = 0.0
    for row in range(3):
        for number in hidden[row].tolist():
            slow += sum(
                (float(a) - float(b)) ** 2 for a, b in zip(drawn[row, number], target[row, number], strict=True)
            )
    assert float(hidden_error(drawn, target, hidden)) == pytest.approx(slow / (3 * 2 * 4), rel=1e-5)
    drawn.requires_grad_()
    hidden_error(drawn, target, hidden).backward()
    assert drawn.grad is not None
    touched = drawn.grad.any(dim=2)
    assert torch.equal(touched, torch.zeros(3, 5, dtype=torch.bool).scatter(1, hidden, True))


def test_positions_equal_lightlys_and_differ():
    from lightly.models.utils import get_2d_sine_cosine_positional_embedding

    ours, theirs = positions(4, 32), get_2d_sine_cosine_positional_embedding(32, 4, cls_token=False)
    theirs = torch.as_tensor(theirs, dtype=torch.float32).view(16, 32)
    # Halves for rows and columns may stand the other way round.
    swapped = theirs.roll(16, dims=1)
    assert torch.allclose(ours, theirs, atol=1e-6) or torch.allclose(ours, swapped, atol=1e-6)
    assert torch.cdist(ours, ours).fill_diagonal_(9).min() > 0.5


def masked_batch(images: torch.Tensor) -> tuple[Any, torch.Tensor, torch.Tensor]:
    method = built(mae.MAE, decoder_width=32, decoder_depth=1)
    torch.manual_seed(1)
    view, noise = mae.MaskedViews(GREY, **STILL)(Fields(images=images[:6]))
    return method, view, method.order_of(noise)


@pytest.mark.parametrize(("mask", "visible"), [(0.75, 4), (0.5, 8), (0.0, 15), (1.0, 1)])
def test_so_many_patches_are_seen(mask, visible):
    assert built(mae.MAE, mask=mask, decoder_width=32, decoder_depth=1).visible == visible


def test_orders_are_permutations_drawn_for_each_image_and_all_patches_get_their_turn(images):
    method, _, order = masked_batch(images)
    assert torch.equal(order.sort(dim=1).values, torch.arange(16).expand(6, 16))
    torch.manual_seed(0)
    drawn = torch.cat([method.order_of(mae.MaskedViews(GREY)(Fields(images=images))[1]) for _ in range(32)])
    assert len(drawn.unique(dim=0)) == 1024
    seen = torch.bincount(drawn[:, : method.visible].flatten(), minlength=16) / 1024
    assert float((seen - 0.25).abs().max()) < 0.06


def test_what_is_hidden_is_not_seen_by_anyone_and_what_is_seen_is(images):
    method, view, order = masked_batch(images)
    patches = patchify(view, 7)
    seen = torch.zeros(6, 16, 1).scatter_(1, order[:, : method.visible, None], 1.0)
    without = unpatchify(torch.where(seen.bool(), patches, torch.randn_like(patches)), 7, 4)
    other = unpatchify(torch.where(seen.bool(), torch.randn_like(patches), patches), 7, 4)
    drawn = method.draw(view, order)
    assert torch.equal(method.draw(without, order), drawn)
    assert not torch.isclose(method.draw(other, order), drawn).all(dim=2).any()


def test_patches_are_known_by_their_place_not_by_when_they_were_drawn(images):
    method, view, order = masked_batch(images)
    k = method.visible
    other = torch.cat([order[:, :k].flip(1), order[:, k:].roll(3, dims=1)], dim=1)
    torch.testing.assert_close(method.draw(view, other), method.draw(view, order), rtol=1e-4, atol=1e-5)


def test_its_loss_is_over_hidden_patches_with_standardised_pixels(images):
    method, view, order = masked_batch(images)
    torch.manual_seed(1)
    views = mae.MaskedViews(GREY, **STILL)(Fields(images=images[:6]))
    loss = method.training_step(Batch(views, torch.arange(6), 0.0))["loss"]
    drawn, total = method.draw(view, order).detach(), 0.0
    for row in range(6):
        for number in order[row, method.visible :].tolist():
            y, x = number // 4 * 7, number % 4 * 7
            pixels = view[row, 0, y : y + 7, x : x + 7].flatten().double()
            wanted = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
            total += float((drawn[row, number].double() - wanted).square().mean())
    assert float(loss.detach()) == pytest.approx(total / 6 / 12, rel=1e-4)


def test_a_picture_keeps_what_was_seen_and_colours_the_rest_by_its_own_patches(images):
    method, view, order = masked_batch(images)
    target = standardise(patchify(view, 7))[0]
    # A decoder that knows the answer: its picture is the image.
    method.draw = lambda view, order: target
    torch.manual_seed(1)
    pictures = method.pictures(Batch(mae.MaskedViews(GREY, **STILL)(Fields(images=images[:6])), torch.arange(6), 0.0))
    seen, filled, whole = pictures.values()
    assert torch.equal(whole, view)
    torch.testing.assert_close(filled, view)
    kept = patchify(seen, 7)
    for row in range(6):
        assert torch.equal(kept[row, order[row, :4]], patchify(view, 7)[row, order[row, :4]])
        assert not kept[row, order[row, 4:]].any()


def test_mae_says_what_it_needs():
    with pytest.raises(ValueError, match=r"needs a ViT.*set encoder.name to vit_tiny"):
        mae.MAE(Encoder(1, 28, name="resnet10", width=4))
    for patch in (5, 1, 28):
        with pytest.raises(ValueError, match=f"patch_size {patch}: set it to one of 2, 4, 7, 14"):
            mae.MAE(Encoder(1, 28, name="vit_tiny", width=32, depth=1, patch_size=patch))
    with pytest.raises(ValueError, match=r"set data\.image_size"):
        mae.MAE(Encoder(1, 31, name="vit_tiny", width=32, depth=1, patch_size=4))
    with pytest.raises(ValueError, match="decoder_width is 48: set it to a multiple of 32"):
        mae.MAE(Encoder(1, 28, name="vit_tiny", width=32, depth=1, patch_size=4), decoder_width=48)


# All


def test_gradients(monkeypatch):
    # The losses work in float32 for the sake of half precision; a numerical gradient needs float64.
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    drawn, whole, mask = holed(2)
    drawn.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: inpainting.hole_error(x, whole, mask), drawn)
    assert torch.autograd.gradcheck(lambda x: autoencoder.squared_error(x, whole), drawn)
    patches = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    target, hidden = torch.randn(2, 3, 4, dtype=torch.float64), torch.tensor([[0, 2], [1, 0]])
    assert torch.autograd.gradcheck(lambda x: hidden_error(x, target, hidden), patches)


def test_augmentation_comes_before_noise_and_holes(images):
    """What is drawn again is the image as shifted and flipped: otherwise the task would be to guess the shift."""
    for kind in (denoising.NoisyViews, inpainting.HoledViews, mae.MaskedViews):
        torch.manual_seed(3)
        (plain,) = CropView(GREY, shift=0.2, flip=0.5)(Fields(images=images))
        torch.manual_seed(3)
        views = kind(GREY, shift=0.2, flip=0.5)(Fields(images=images))
        assert torch.equal(views[0] if kind is mae.MaskedViews else views[1], plain)
