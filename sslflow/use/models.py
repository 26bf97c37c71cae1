"""Segmenters and detectors that take image files, by the name of a run or of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from sslflow import paths
from sslflow.dense import detector, segmenter
from sslflow.dense.detector import Detector, load_detector
from sslflow.dense.segmenter import Segmenter, load_segmenter
from sslflow.ingest.images.raster import SixteenBit
from sslflow.runtime.files import sha256
from sslflow.settings.params import closest
from sslflow.use.encoder import licence_of
from sslflow.use.images import Images, OfImages, images_of

Kind = Literal["segmenter", "detector"]
KINDS: Mapping[Kind, str] = {"segmenter": segmenter.KEY, "detector": detector.KEY}
"""By what a file's metadata say what it holds."""


class Placing(OfImages):
    """A segmenter or a detector: `classes` are what it knows; `sha256` is the hash of its file, `licence` what is known
    of that of its weights, `facts` how it was made."""

    kind: Kind

    def __init__(self, model: Segmenter | Detector, images: Images, file: Path) -> None:
        """Raises `ValueError` for weights that are no numbers: nothing would be found, and nobody would know why."""
        super().__init__(images, str(file))
        if not all(weights.isfinite().all() for weights in model.state_dict().values()):
            raise ValueError(f"{file}: its weights are not finite numbers: damaged")
        self.sha256, self.licence, self.facts = sha256(file), licence_of(model.encoder), model.facts
        self.classes, self.settings = model.classes, {**model.encoder.settings, "head_width": model.width}

    def described(self) -> dict[str, Any]:
        """Name, hash and licence of the weights, the classes, and what images must be, as plain values."""
        return {
            self.kind: str(Path(self.name).resolve()),
            "sha256": self.sha256,
            "licence": self.licence,
            "network": self.settings["name"],
            "classes": self.classes,
            "images": asdict(self.images),
        }


class ImageSegmenter(Placing):
    """Images, shares of white, to logits `(n, classes, side, side)` of each pixel."""

    kind = "segmenter"

    def __init__(self, model: Segmenter, images: Images, file: Path) -> None:
        super().__init__(model, images, file)
        self.model = model.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.normalised(images))


class ImageDetector(Placing):
    """Images, shares of white, to `boxes` `(n, a, 4)`, left, top, right, bottom in pixels, and `scores` `(n, a,
    classes)`, from 0 to 1: of each anchor one box, most of which are of nothing; `levels` says how many anchors are of
    each map, the finest first. What of them is a thing, `detections` says."""

    kind = "detector"
    anchors: Tensor

    def __init__(self, model: Detector, images: Images, file: Path) -> None:
        super().__init__(model, images, file)
        self.model = model.eval().requires_grad_(False)
        blank = torch.zeros(1, images.channels, images.side, images.side)
        with torch.no_grad():
            maps = list(model.backbone(blank).values())
            anchors = model.anchor_generator(ImageList(blank, [(images.side, images.side)]), maps)[0]
        cells = [found.shape[-2] * found.shape[-1] for found in maps]
        self.levels = [count * len(anchors) // sum(cells) for count in cells]
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model.head(list(self.model.backbone(self.normalised(images)).values()))
        codes, scores = found["bbox_regression"], found["cls_logits"].sigmoid()
        anchors = self.anchors.expand(len(codes), -1, -1).reshape(-1, 4)
        boxes = self.model.box_coder.decode_single(codes.reshape(-1, 4), anchors)
        return boxes.view(codes.shape).clamp(0, self.images.side), scores

    def detections(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Of each image `boxes` `(k, 4)`, `scores` and `labels` `(k,)` of what was found, the surest first."""
        return self.model(self.normalised(images))


def open_segmenter(name: str, sixteen_bit: SixteenBit | None = None) -> ImageSegmenter:
    """A segmenter of a run such as `simclr-0`, which lies in artifacts/segmenters, or of a file. `sixteen_bit` stands
    instead of what it was trained with. Raises `ValueError` for what can't be had or used."""
    file = place_of("segmenter", name)
    model = load_segmenter(file)
    return ImageSegmenter(model, _images(model, file, sixteen_bit), file)


def open_detector(name: str, sixteen_bit: SixteenBit | None = None) -> ImageDetector:
    """The same of a detector, which lies in artifacts/detectors."""
    file = place_of("detector", name)
    model = load_detector(file)
    return ImageDetector(model, _images(model, file, sixteen_bit), file)


def place_of(kind: Kind, name: str) -> Path:
    """The file of a run's segmenter or detector, or the file of that name. Raises `ValueError` where there is none, and
    for one that holds something else."""
    if Path(name).is_file():
        if (held := held_by(Path(name))) not in (kind, None):
            raise ValueError(f"{name}: expected a {kind}, found {'an' if held == 'encoder' else 'a'} {held}")
        return Path(name)
    run = paths.ARTIFACTS / f"{kind}s" / f"{name}.safetensors"
    if run.is_file():
        return run
    if re.fullmatch(r"[\w.]+-\d+", name) and not name.endswith(".safetensors"):
        known = sorted(file.stem for file in run.parent.glob("*.safetensors"))
        row = {"segmenter": "run.segment", "detector": "run.detect"}[kind]
        mend = closest(name, known) if known else f"; `sslflow run` trains those of {row} in params.yaml"
        raise ValueError(f"{run}: there is no {kind} of that run{mend}")
    raise ValueError(f"{name}: there is no such file, nor run; name a file, or a run such as simclr-0")


def held_by(file: Path) -> str | None:
    """What sslflow wrote into a file: an encoder, a segmenter or a detector; None: none of these, or not readable."""
    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
    except (SafetensorError, OSError):
        return None
    keys = {"encoder": "sslflow.encoder", **KINDS}
    return next((kind for kind, key in keys.items() if key in metadata), None)


def _images(model: Segmenter | Detector, file: Path, sixteen_bit: SixteenBit | None) -> Images:
    known = model.facts.get("images")
    if known is None:
        raise ValueError(f"{file} doesn't say how its images were read and normalised: its stage writes it anew")
    images = images_of(model.encoder.image_size, model.encoder.channels, known)
    return replace(images, sixteen_bit=sixteen_bit) if sixteen_bit else images
