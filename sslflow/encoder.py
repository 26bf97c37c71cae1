"""Encoders by name: images to features."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sslflow.files import replacing
from sslflow.params import Count, closest

SMALL_RESNETS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


# timm is imported where an encoder is built: it takes longer to load than torch, and stages that only read features and
# settings build none.


class Encoder(nn.Module):
    """Images to features, without a classifier. `dim` is the width of the features, known before any image is seen."""

    def __init__(
        self,
        channels: int,
        image_size: int,
        *,
        name: str = "resnet18",
        width: Count = 64,
        stem_stride: Literal[1, 2, 4] = 4,
        grid: Count = 1,
    ) -> None:
        """`resnet10`, `resnet18` and `resnet34` take a `width` (channels of the first block; the last has 8 times as
        many), a stem (stride 4 is the usual 7x7 convolution with max-pooling, 1 and 2 are a 3x3 convolution for small
        images) and a `grid`: features are averages over grid x grid cells of the last map, `8 * width * grid**2`
        wide, so that above 1 they keep where something is. Any other `name` is timm's, as timm builds it.

        Raises `ValueError` for a name that neither knows.
        """
        super().__init__()
        self.settings = {
            "channels": channels,
            "image_size": image_size,
            "name": name,
            "width": width,
            "stem_stride": stem_stride,
            "grid": grid,
        }
        if name in SMALL_RESNETS:
            self.network: Any = _small_resnet(channels, name, width, stem_stride, grid)
        else:
            self.network = _from_timm(channels, image_size, name)
        self.dim: int = self.network.num_features

    def forward(self, images: Tensor) -> Tensor:
        """Features `(n, dim)` of normalised images `(n, channels, height, width)`."""
        return self.network(images)


def save_encoder(encoder: Encoder, file: Path) -> None:
    """Write the weights, and the settings that rebuild the encoder, to one safetensors file, the same bytes for the
    same weights."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    with replacing(file) as temporary:
        save_file(weights, temporary, metadata={"sslflow.encoder": json.dumps(encoder.settings, sort_keys=True)})


def load_encoder(file: Path) -> Encoder:
    """The encoder that `save_encoder` wrote, on the CPU, in evaluation mode. Raises `ValueError` for any other file."""
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata() or {}
        if "sslflow.encoder" not in metadata:
            raise ValueError(f"{file}: not an encoder written by sslflow (its metadata lack 'sslflow.encoder')")
        settings = json.loads(metadata["sslflow.encoder"])
        encoder = Encoder(settings.pop("channels"), settings.pop("image_size"), **settings)
        encoder.load_state_dict({name: content.get_tensor(name) for name in content.keys()})  # noqa: SIM118
    return encoder.eval()


def _small_resnet(channels: int, name: str, width: int, stem_stride: int, grid: int) -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    network: Any = ResNet(
        BasicBlock,  # pyright: ignore[reportArgumentType]  (timm annotates the class as an instance)
        SMALL_RESNETS[name],
        num_classes=0,
        in_chans=channels,
        channels=(width, 2 * width, 4 * width, 8 * width),
        zero_init_last=False,
    )
    # timm's stem is always 64 channels wide.
    kernel, stride = (7, 2) if stem_stride == 4 else (3, stem_stride)
    network.conv1 = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    network.bn1 = nn.BatchNorm2d(width)
    network.layer1[0] = BasicBlock(width, width)
    if stem_stride != 4:
        network.maxpool = nn.Identity()
    network.global_pool = nn.Sequential(nn.AdaptiveAvgPool2d(grid), nn.Flatten())
    network.num_features = 8 * width * grid * grid
    network.init_weights(zero_init_last=False)
    return network


def _from_timm(channels: int, image_size: int, name: str) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise ValueError(f"encoder.name: there is no encoder '{name}'{closest(name, _similar(name))}")
    try:
        return timm.create_model(name, num_classes=0, in_chans=channels, img_size=image_size)
    except TypeError:  # convolutional networks take images of any size and no `img_size`
        return timm.create_model(name, num_classes=0, in_chans=channels)


def _similar(name: str) -> list[str]:
    import timm

    family = re.match(r"[a-z]*", name.lower())
    return [*SMALL_RESNETS, *(timm.list_models(f"{family.group()[:6]}*") if family else [])][:60]
