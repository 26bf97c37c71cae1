"""Small encoders as a run leaves them."""

from __future__ import annotations

from typing import Any

import torch

from sslflow.networks.encoder import Encoder

IMAGES = {"mean": [0.3, 0.4, 0.5], "std": [0.2, 0.3, 0.25], "fit": "crop", "background": "white", "sixteen_bit": "full"}
RUN = {"method": "simclr", "seed": 0, "settings": {"methods.simclr": {"temperature": 0.2}}}
DATA = {"sha256": "5" * 64, "examples": 4431}


def small(name: str = "resnet10", channels: int = 3, side: int = 16, **settings: Any) -> Encoder:
    """An encoder with random weights and statistics, and facts."""
    torch.manual_seed(0)
    settings = settings or {"width": 4, "stem_stride": 2}
    encoder = Encoder(channels, side, name=name, **settings).eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # pyright: ignore[reportOptionalMemberAccess]
            module.running_var.uniform_(0.5, 1.5)  # pyright: ignore[reportOptionalMemberAccess]
    images = {**IMAGES, "mean": IMAGES["mean"][:channels], "std": IMAGES["std"][:channels]}
    encoder.facts = {"images": images, "run": RUN, "data": DATA}
    return encoder
