"""What makes classes of maps: against hypercolumns written anew, on encoders of every family, and back from a file."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sslflow.data.formats import ImageFormat
from sslflow.dense.decoders import LinearMaps
from sslflow.dense.masks.segmenter import Segmenter, load_segmenter, save_segmenter
from sslflow.networks.encoder import Encoder
from sslflow.networks.given import Given
from sslflow.networks.saved import save_encoder
from sslflow.runtime.files import sha256

FORM = ImageFormat(3, 32, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
GIVEN = Given("package:some", "0", "MIT", (0.5,) * 3, (0.5,) * 3, FORM.mean, FORM.std, 64)
ENCODERS: dict[str, dict[str, Any]] = {
    "resnet10": {"width": 4, "stem_stride": 2, "grid": 2},
    "resnet18": {"width": 4, "stem_stride": 4},
    "vit_tiny": {"width": 32, "depth": 2, "patch_size": 8},
    "tf_efficientnet_lite0": {"given": GIVEN},
    "convnext_atto": {},
}
FAMILIES = pytest.mark.parametrize("name", ENCODERS)


def made(name: str, width: int) -> Any:
    torch.manual_seed(3)
    return Segmenter(Encoder(3, 32, name=name, **ENCODERS[name]), ["ground", "square", "disc"], FORM, width=width)


def test_the_linear_layer_is_one_on_the_stacked_maps():
    torch.manual_seed(0)
    maps = [torch.randn(5, 3, 8, 8), 40 + 9 * torch.randn(5, 6, 4, 4), torch.randn(5, 2, 1, 1)]
    layer: Any = LinearMaps((3, 6, 2), 4)
    flat = [one.transpose(0, 1).flatten(1) for one in maps]
    layer.normalise_by(
        [torch.stack([torch.full((len(one),), one.shape[1]), one.sum(1), (one**2).sum(1)]) for one in flat]
    )
    with torch.no_grad():
        for one in layer.layers:
            one.weight.normal_()
        layer.layers[0].bias.normal_()
    found = layer.eval()(maps)

    normed = [
        (one - one.mean((0, 2, 3), keepdim=True)) / (one.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        for one in maps
    ]
    stacked = torch.cat(
        [F.interpolate(one, size=(8, 8), mode="bilinear", align_corners=False) for one in normed], dim=1
    )
    weight = torch.cat([one.weight[:, :, 0, 0] for one in layer.layers], dim=1)
    wanted = torch.einsum("kd,ndyx->nkyx", weight, stacked) + layer.layers[0].bias.view(1, -1, 1, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@FAMILIES
@pytest.mark.parametrize("width", [0, 8])
def test_every_family_of_encoders_gives_a_class_for_each_pixel(name, width, tmp_path):
    model = made(name, width).train()
    images = torch.randn(3, 3, 32, 32)
    logits = model(images)
    assert logits.shape == (3, 3, 32, 32)
    (logits * torch.randn_like(logits)).sum().backward()
    last: Any = model.decoder.layers if isinstance(model.decoder, LinearMaps) else [model.decoder.last]
    assert all(layer.weight.grad.abs().sum() > 0 for layer in last), "every map has its part"

    file = tmp_path / "one.safetensors"
    model.facts, model.encoder.facts = {"images": {"fit": "pad"}}, {"run": {"method": "simclr"}}
    save_segmenter(model, file)
    again = load_segmenter(file)
    assert (again.classes, again.format, again.width) == (["ground", "square", "disc"], FORM, width)
    assert (again.facts, again.encoder.facts) == (model.facts, model.encoder.facts)
    assert not again.training
    assert torch.equal(again(images), model.eval()(images))
    save_segmenter(again, tmp_path / "two.safetensors")
    assert sha256(tmp_path / "two.safetensors") == sha256(file)


@FAMILIES
def test_logits_have_half_the_rows_of_the_image_at_least_before_they_are_enlarged(name):
    model = made(name, 8).eval()
    found = model.decoder(model.stages(torch.randn(1, 3, 32, 32)))
    assert 16 <= found.shape[-1] <= max(16, model.stages.across[0])


def test_every_map_matters_to_the_decoder():
    model = made("resnet10", 8)
    torch.nn.init.normal_(model.decoder.last.weight)
    maps = [one.detach().requires_grad_() for one in model.stages(torch.randn(2, 3, 32, 32))]
    model.decoder.eval()(maps).square().sum().backward()
    assert len(maps) == 4
    assert all(one.grad.abs().sum() > 0 for one in maps)


def test_a_file_without_a_segmenter_says_so(tmp_path: Path):
    save_segmenter(None, tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="there were no masks"):
        load_segmenter(tmp_path / "none.safetensors")
    save_encoder(Encoder(3, 32, name="resnet10", width=4), tmp_path / "encoder.safetensors")
    with pytest.raises(ValueError, match="not a segmenter"):
        load_segmenter(tmp_path / "encoder.safetensors")
