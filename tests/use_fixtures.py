"""Small encoders as a run leaves them."""

from __future__ import annotations

from typing import Any

import torch

from sslflow.data.depth import DepthFacts
from sslflow.data.formats import ImageFormat
from sslflow.dense.boxes.detector import Detector
from sslflow.dense.depth.estimator import DepthEstimator
from sslflow.dense.masks.segmenter import Segmenter
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


def placing_facts(kind: str, fit: str = "crop") -> dict[str, Any]:
    """What the stages write into the files of segmenters, detectors and estimators."""
    how = {"protocol": "tuned", "fraction": 0.1}
    return {"images": {**IMAGES, "fit": fit}, kind: how, "run": RUN, "data": DATA}


def segmenter(fit: str = "crop", side: int = 16, width: int = 4) -> Segmenter:
    """A segmenter whose classes are of random weights."""
    torch.manual_seed(1)
    form = ImageFormat(3, side, tuple(IMAGES["mean"]), tuple(IMAGES["std"]))
    model = Segmenter(small(side=side), ["ground", "sky", "bird"], form, width=width).eval()
    for weights in model.decoder.parameters():
        torch.nn.init.normal_(weights)
    model.facts = placing_facts("segmenter", fit)
    return model


def estimator(fit: str = "crop", side: int = 16) -> DepthEstimator:
    """An estimator of depth by random weights, of a few metres."""
    torch.manual_seed(1)
    form = ImageFormat(3, side, tuple(IMAGES["mean"]), tuple(IMAGES["std"]))
    model = DepthEstimator(small(side=side), DepthFacts(1.1, 0.3), form, width=4).eval()
    torch.nn.init.normal_(model.decoder.last.weight)
    model.facts = placing_facts("estimator", fit)
    return model


def detector(fit: str = "crop", side: int = 16) -> Detector:
    """A detector that takes much for things, by random weights."""
    torch.manual_seed(1)
    form = ImageFormat(3, side, tuple(IMAGES["mean"]), tuple(IMAGES["std"]))
    model = Detector(small(side=side), ["cat", "dog"], form, width=8).eval()
    torch.nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.1)
    model.head.classification_head.cls_logits.bias.data.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    torch.nn.init.normal_(model.head.regression_head.bbox_reg.weight, std=0.1)
    model.facts = placing_facts("detector", fit)
    return model
