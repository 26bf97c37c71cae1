"""Encoders: whatever the name, channels and size, what they say of themselves is what they do."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from sslflow.judging import pictures
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder, save_encoder

RESNET = {"name": "resnet10", "width": 4, "stem_stride": 2}
VIT = {"name": "vit_tiny", "width": 32, "depth": 2, "patch_size": 4}


def images(channels: int = 1, size: int = 28, count: int = 2) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(count, channels, size, size)


def build(channels: int = 1, size: int = 28, **settings) -> Encoder:
    torch.manual_seed(0)
    return Encoder(channels, size, **settings).eval()


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(
    "settings",
    [
        RESNET,
        {**RESNET, "stem_stride": 1, "grid": 2},
        {**RESNET, "stem_stride": 4},
        {"name": "resnet18", "width": 8},
        {"name": "resnet50"},
        {"name": "convnext_atto"},
        {"name": "mobilenetv3_small_050"},
        {**VIT, "grid": 0},
        {**VIT, "grid": 2},
        {"name": "vit_tiny_patch16_224"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_features_and_maps_have_the_width_that_was_told(channels, settings):
    encoder = build(channels, 32, **settings)
    views = images(channels, 32)
    with torch.no_grad():
        features, maps = encoder(views), encoder.map(views)
    assert features.shape == (2, encoder.dim)
    assert maps.shape[:2] == (2, encoder.map_dim)
    assert maps.ndim == 4
    assert not torch.allclose(features[0], features[1])


@pytest.mark.parametrize(
    ("name", "width", "heads"), [("vit_tiny", 192, 3), ("vit_small", 384, 6), ("vit_base", 768, 12)]
)
def test_vits_have_the_usual_widths_unless_told_otherwise(name, width, heads):
    encoder = build(1, 28, name=name, depth=1, patch_size=14)
    assert encoder.dim == width
    assert encoder.network.blocks[0].attn.num_heads == heads
    assert build(1, 28, name=name, width=96, depth=1, patch_size=14).network.blocks[0].attn.num_heads == 3


@pytest.mark.parametrize(("size", "patch", "across"), [(28, 4, 7), (28, 7, 4), (33, 8, 5), (28, 5, 6), (16, 16, 1)])
@pytest.mark.parametrize("grid", [0, 1, 2])
def test_vits_take_any_size_of_image_and_patch(size, patch, across, grid):
    encoder = build(1, size, **{**VIT, "patch_size": patch, "grid": grid})
    views = images(1, size)
    assert encoder.map(views).shape == (2, 32, across, across)
    assert encoder(views).shape == (2, encoder.dim) == (2, 32 * max(1, grid) ** 2)


@pytest.mark.parametrize("size", [13, 27, 33, 64])
@pytest.mark.parametrize("settings", [RESNET, VIT], ids=["resnet", "vit"])
def test_crops_of_another_size_pass(settings, size):
    encoder = build(**settings)
    assert encoder(images(1, size)).shape == (2, encoder.dim)


def test_crops_of_another_size_pass_when_compiled():
    encoder = build(3, 16, name="vit_tiny", width=32, depth=1, patch_size=8)
    compiled = copy.deepcopy(encoder)
    torch.compiler.reset()
    compiled.compile(backend="aot_eager")
    for size in (16, 8, 16):
        crops = images(3, size)
        assert torch.allclose(compiled(crops), encoder(crops), atol=1e-5)
        compiled(crops).sum().backward()
    assert all(p.grad is not None for p in compiled.network.patch_embed.parameters())


@pytest.mark.parametrize("settings", [RESNET, {**VIT, "patch_size": 14}], ids=["resnet", "vit"])
def test_features_are_averages_of_the_maps_cells(settings):
    encoder = build(**settings, grid=2)
    maps = encoder.map(images())
    assert maps.shape[-2:] == (2, 2)
    torch.testing.assert_close(encoder(images()), maps.flatten(1))
    torch.testing.assert_close(build(**settings, grid=1)(images()), maps.mean(dim=(2, 3)))


@pytest.mark.parametrize("grid", [0, 1, 2])
@pytest.mark.parametrize("settings", [RESNET, VIT, {"name": "tf_efficientnet_lite0"}], ids=["resnet", "vit", "timm"])
def test_features_and_the_map_come_of_one_pass(settings, grid):
    if not grid and settings != VIT:
        grid = 1
    encoder = build(1, 28, **settings, grid=grid).eval()
    features, last = encoder.features_and_map(images())
    torch.testing.assert_close(features, encoder(images()))
    torch.testing.assert_close(last, encoder.map(images()))


@pytest.mark.parametrize("grid", [0, 2])
def test_what_is_masked_is_not_seen(grid):
    encoder, token = build(**VIT, grid=grid), torch.linspace(-1, 1, 32)
    hidden = torch.zeros(2, 49, dtype=torch.bool)
    for found, plain in zip(encoder.masked(images(), hidden, token), encoder.features_and_map(images()), strict=True):
        torch.testing.assert_close(found, plain)
    hidden[:, 8] = True  # the second patch of the second row
    changed = images()
    changed[:, :, 4:8, 4:8] = 0.7
    for found, other in zip(*(encoder.masked(one, hidden, token) for one in (images(), changed)), strict=True):
        assert torch.equal(found, other)
    assert not torch.allclose(encoder.masked(images(), hidden, token)[0], encoder(images()))
    assert not torch.allclose(
        encoder.masked(images(), hidden, 0 * token)[0], encoder.masked(images(), hidden, token)[0]
    )


def test_features_of_grid_0_are_the_class_token():
    encoder = build(**VIT, grid=0)
    torch.testing.assert_close(encoder(images()), encoder.tokens(images())[:, 0])


def test_tokens_are_the_class_token_and_the_maps_patches_row_by_row():
    encoder = build(**VIT)
    tokens = encoder.tokens(images())
    assert tokens.shape == (2, 1 + 49, 32)
    torch.testing.assert_close(tokens[:, 1:].transpose(1, 2).unflatten(2, (7, 7)), encoder.map(images()))


def test_keeping_all_patches_is_keeping_no_list_and_their_order_does_not_matter():
    encoder = build(**VIT)
    order = torch.stack([torch.randperm(49) for _ in range(2)])
    tokens, kept = encoder.tokens(images()), encoder.tokens(images(), order)
    torch.testing.assert_close(kept[:, 0], tokens[:, 0])
    for row in range(2):
        torch.testing.assert_close(kept[row, 1:], tokens[row, 1:][order[row]])


def test_patches_that_are_not_kept_are_not_seen():
    encoder, keep = build(**VIT), torch.tensor([[0, 8], [0, 8]])
    changed = images()
    changed[:, :, 4:8, 0:4] += 1  # patch 7
    assert torch.equal(encoder.tokens(changed, keep), encoder.tokens(images(), keep))
    changed[:, :, 4:8, 4:8] += 1  # patch 8
    assert not torch.allclose(encoder.tokens(changed, keep), encoder.tokens(images(), keep))


@pytest.mark.parametrize("grid", [0, 1])
@pytest.mark.parametrize("size", [28, 30])
def test_attention_is_what_the_last_layer_computes(grid, size):
    encoder = build(1, size, **VIT, grid=grid)
    last = encoder.network.blocks[-1].attn
    found: list[torch.Tensor] = []
    last.fused_attn = False
    last.attn_drop.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    attention = encoder.attention(images(1, size))
    assert not found
    encoder(images(1, size))
    weights = found[0].mean(dim=1)
    asking = weights[:, 0] if grid == 0 else weights[:, 1:].mean(dim=1)
    across = -(-size // 4)
    torch.testing.assert_close(attention, asking[:, 1:].unflatten(1, (across, across)))
    assert (attention > 0).all()
    assert (attention.sum(dim=(1, 2)) < 1).all()


def test_a_picture_of_attention_shows_the_image_where_it_is_highest_and_darkness_where_there_is_none(monkeypatch):
    # 10 pixels in patches of 4: the last patch of a row is half outside.
    encoder, views = build(1, 10, **VIT), images(1, 10)
    weights = torch.zeros(2, 3, 3)
    weights[:, 0, 2], weights[:, 2, 1] = 0.3, 0.15
    monkeypatch.setattr(encoder, "attention", lambda _: weights)
    seen = pictures.attention(encoder, views)
    darkest = views.amin(dim=(2, 3), keepdim=True)
    expected = darkest.expand_as(views).clone()
    expected[:, :, 0:4, 8:10] = views[:, :, 0:4, 8:10]
    expected[:, :, 8:10, 4:8] = (views[:, :, 8:10, 4:8] + darkest) / 2
    torch.testing.assert_close(seen, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_of_attention_is_an_image_of_the_views_size(channels):
    views = images(channels, 30)
    seen = pictures.attention(build(channels, 28, **VIT, grid=0), views)
    assert seen.shape == views.shape
    assert (seen <= views + 1e-6).all()
    assert (seen.amax(dim=(1, 2, 3)) > views.amin(dim=(1, 2, 3))).all()


@pytest.mark.parametrize(
    "settings",
    [{**RESNET, "grid": 2}, {**VIT, "grid": 0}, {"name": "mobilenetv3_small_050"}],
    ids=["resnet", "vit", "timm"],
)
def test_an_encoder_comes_back_from_its_file(settings, tmp_path):
    encoder = build(**settings)
    encoder.facts = {"images": {"mean": [0.5], "fit": "pad"}, "run": {"method": "simclr", "seed": 0}}
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    again = load_encoder(tmp_path / "encoder.safetensors")
    assert (again.settings, again.facts) == (encoder.settings, encoder.facts)
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(images()), encoder(images()))


def test_a_file_without_facts_is_read(tmp_path):
    """As an earlier version wrote it."""
    from safetensors.torch import save_file

    encoder = build(**RESNET)
    described = {"sslflow.encoder": json.dumps(encoder.settings)}
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors", metadata=described)
    assert load_encoder(tmp_path / "encoder.safetensors").facts == {}


def test_a_file_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not an encoder written by sslflow"):
        load_encoder(tmp_path / "other.safetensors")


@pytest.mark.parametrize("settings", [RESNET, {**VIT, "grid": 2}], ids=["resnet", "vit"])
def test_the_memory_format_changes_nothing(settings):
    plain, last = build(3, 28, **settings), build(3, 28, **settings).to(memory_format=torch.channels_last)
    views = images(3)
    torch.testing.assert_close(
        last(views.contiguous(memory_format=torch.channels_last)), plain(views), rtol=1e-4, atol=1e-5
    )


def test_all_of_an_encoder_learns():
    for settings in (RESNET, {**VIT, "grid": 0}, {**VIT, "grid": 1}):
        encoder = build(**settings).train()
        F.normalize(encoder(images(count=4)))[:, 0].sum().backward()
        assert not [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "vit_tinny"}, "did you mean 'vit_tiny'"),
        ({"name": "convnext_ato"}, "did you mean 'convnext_atto"),
        ({**VIT, "width": 100}, "choose a multiple of 64, or of 32"),
        ({**VIT, "patch_size": 32}, "larger than the images, 28 pixels; choose a smaller"),
        ({**RESNET, "grid": 0}, "resnet10 has none; set it to 1 or more"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_say_what_to_do(settings, says):
    with pytest.raises(ValueError, match=says):
        Encoder(1, 28, **settings)


def test_networks_without_a_map_say_so():
    encoder = build(3, 32, name="mixer_s32_224")
    assert encoder(images(3, 32)).shape == (2, encoder.dim)
    with pytest.raises(ValueError, match=r"mixer_s32_224 makes no map .* such as resnet18 or vit_tiny"):
        encoder.map(images(3, 32))


def test_only_vits_say_that_they_are():
    assert build(**VIT).is_vit
    assert not build(**RESNET).is_vit
