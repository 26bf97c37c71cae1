"""Segmenters, detectors and estimators of depth that take image files, by the name of a run or of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from sslflow import paths
from sslflow.data.formats import any_one
from sslflow.dense.boxes import detector
from sslflow.dense.boxes.detector import Detector, load_detector
from sslflow.dense.depth import estimator
from sslflow.dense.depth.estimator import DepthEstimator, load_estimator
from sslflow.dense.masks import segmenter
from sslflow.dense.masks.segmenter import Segmenter, load_segmenter
from sslflow.ingest.images.decode import Decoded
from sslflow.ingest.images.geometry import Placement, placement
from sslflow.ingest.images.raster import SixteenBit
from sslflow.ingest.records import Picture
from sslflow.networks.encoder import Encoder
from sslflow.networks.starts import MEAN
from sslflow.runtime.files import sha256
from sslflow.settings.params import closest
from sslflow.use.back import boxes_back, classes_back, depth_back
from sslflow.use.encoder import licence_of
from sslflow.use.images import Images, OfImages, images_of

Kind = Literal["segmenter", "detector", "estimator"]
KINDS: Mapping[Kind, str] = {"segmenter": segmenter.KEY, "detector": detector.KEY, "estimator": estimator.KEY}
"""By what a file's metadata say what it holds."""


class Placing(OfImages):
    """A segmenter, a detector or an estimator of depth: `classes` are what it knows; `sha256` is the hash of its file,
    `licence` what is known of that of its weights, `facts` how it was made."""

    kind: Kind
    model: Segmenter | Detector | DepthEstimator

    def __init__(self, model: Segmenter | Detector | DepthEstimator, images: Images, file: Path) -> None:
        """Raises `ValueError` for weights that are no numbers: nothing would be found, and nobody would know why."""
        super().__init__(images, str(file))
        if not all(weights.isfinite().all() for weights in model.state_dict().values()):
            raise ValueError(f"{file}: its weights are not finite numbers: damaged")
        self.model = model.eval().requires_grad_(False)
        self.sha256, self.licence = sha256(file), licence_of(model.encoder)
        self.classes, self.facts = model.classes, model.facts

    @property
    def encoder(self) -> Encoder:
        """The encoder within."""
        return self.model.encoder

    def described(self) -> dict[str, Any]:
        """Name, hash and licence of the weights, the classes, and what images must be, as plain values."""
        return {
            self.kind: str(Path(self.name).resolve()),
            "sha256": self.sha256,
            "licence": self.licence,
            "network": self.encoder.settings["name"],
            "classes": self.classes,
            "images": asdict(self.images),
        }

    def placed(self, picture: Decoded) -> Placement:
        """How a picture came into the square that the model sees."""
        return placement(picture.width, picture.height, self.images.side, self.images.fit)

    @torch.no_grad()
    def answers(self, pictures: Sequence[Picture | str]) -> tuple[np.ndarray, ...]:
        """What the network itself gives for image files, before anything is made of it."""
        found = self(self.shares([self.read(picture) for picture in pictures]))
        return tuple(one.cpu().numpy() for one in (found if isinstance(found, tuple) else (found,)))


class ImageSegmenter(Placing):
    """Images, shares of white, to logits `(n, classes, side, side)` of each pixel."""

    kind = "segmenter"
    model: Segmenter

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.normalised(images))

    def segment(self, pictures: Sequence[Picture | str]) -> list[np.ndarray]:
        """Masks of image files of any kind and size, uint8 `(height, width)` each, upright: numbers of `classes`, and
        `IGNORED`, where the model sees nothing of the image. Raises `ValueError` for a file that can't be used."""
        return list(self.masks([self.decoded(picture) for picture in pictures]))

    @torch.no_grad()
    def masks(self, pictures: Sequence[Decoded]) -> Iterator[np.ndarray]:
        """The same of pictures that have been read, one by one: each is as large as its picture."""
        logits = self(self.shares([one.pixels for one in pictures])).float()
        for one, picture in zip(logits, pictures, strict=True):
            yield classes_back(one, self.placed(picture), picture.width, picture.height)


class ImageEstimator(Placing):
    """Images, shares of white, to log depth `(n, 1, side, side)` of each pixel, in metres."""

    kind = "estimator"
    model: DepthEstimator

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.normalised(images))

    def estimate(self, pictures: Sequence[Picture | str]) -> list[np.ndarray]:
        """Depth maps of image files of any kind and size, metres, float32 `(height, width)` each, upright; 0 where the
        model sees nothing of the image. Raises `ValueError` for a file that can't be used."""
        return list(self.maps([self.decoded(picture) for picture in pictures]))

    @torch.no_grad()
    def maps(self, pictures: Sequence[Decoded]) -> Iterator[np.ndarray]:
        """The same of pictures that have been read, one by one: each is as large as its picture."""
        logs = self(self.shares([one.pixels for one in pictures])).float()
        for one, picture in zip(logs, pictures, strict=True):
            yield depth_back(one, self.placed(picture), picture.width, picture.height)


@dataclass(frozen=True)
class Boxes:
    """The things in an image, the surest first."""

    boxes: np.ndarray
    """float64 `(k, 4)`: left, top, right, bottom, in pixels of the image as large as it is, and upright."""
    labels: np.ndarray
    """int64 `(k,)`: indices into the classes."""
    scores: np.ndarray
    """float64 `(k,)`, from 0 to 1."""


class ImageDetector(Placing):
    """Images, shares of white, to `boxes` `(n, a, 4)`, left, top, right, bottom in pixels, and `scores` `(n, a,
    classes)`, from 0 to 1: of each anchor one box, most of which are of nothing; `levels` says how many anchors are of
    each map, the finest first. What of them is a thing, `detections` says."""

    kind = "detector"
    model: Detector
    anchors: Tensor

    def __init__(self, model: Detector, images: Images, file: Path) -> None:
        super().__init__(model, images, file)
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
        anchors = self.anchors.expand(codes.shape[0], -1, -1).reshape(-1, 4)
        boxes = self.model.box_coder.decode_single(codes.reshape(-1, 4), anchors)
        return boxes.view(codes.shape).clamp(0, self.images.side), scores

    def detect(self, pictures: Sequence[Picture | str], least: float = 0.3) -> list[Boxes]:
        """The things, with a score of `least` or more, in image files of any kind and size. Raises `ValueError` for a
        file that can't be used."""
        return self.things([self.decoded(picture) for picture in pictures], least)

    @torch.no_grad()
    def things(self, pictures: Sequence[Decoded], least: float) -> list[Boxes]:
        """The same in pictures that have been read."""
        answers = self.detections(self.shares([one.pixels for one in pictures]))
        return [self._of(picture, found, least) for picture, found in zip(pictures, answers, strict=True)]

    def detections(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Of each image, shares of white, `boxes` `(k, 4)`, `scores` and `labels` `(k,)` of what was found, the surest
        first."""
        return self.model(self.normalised(images))

    def _of(self, picture: Decoded, found: Mapping[str, Tensor], least: float) -> Boxes:
        boxes, labels, scores = (found[name].cpu().numpy() for name in ("boxes", "labels", "scores"))
        boxes = boxes_back(boxes.astype(np.float64), self.placed(picture), picture.width, picture.height)
        # A box in the border alone, which a picture that was padded has, is of nothing.
        kept = (scores >= least) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return Boxes(boxes[kept], labels[kept], scores[kept].astype(np.float64))


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


def open_estimator(name: str, sixteen_bit: SixteenBit | None = None) -> ImageEstimator:
    """The same of an estimator of depth, which lies in artifacts/estimators."""
    if re.fullmatch(rf"{MEAN}-\d+", name):
        raise ValueError(f"{name} is the mean of the depth maps, whatever the image: there is no model of it")
    file = place_of("estimator", name)
    model = load_estimator(file)
    return ImageEstimator(model, _images(model, file, sixteen_bit), file)


def place_of(kind: Kind, name: str) -> Path:
    """The file of a run's model, or the file of that name. Raises `ValueError` where there is none, and for one that
    holds something else."""
    if Path(name).is_file():
        if (held := held_by(Path(name))) not in (kind, None):
            raise ValueError(f"{name}: expected {any_one(kind)}, found {any_one(held)}")
        return Path(name)
    run = paths.ARTIFACTS / f"{kind}s" / f"{name}.safetensors"
    if run.is_file():
        return run
    if re.fullmatch(r"[\w.]+-\d+", name) and not name.endswith(".safetensors"):
        known = sorted(file.stem for file in run.parent.glob("*.safetensors"))
        row = {"segmenter": "run.segment", "detector": "run.detect", "estimator": "run.depth"}[kind]
        mend = closest(name, known) if known else f"; `sslflow run` trains those of {row} in params.yaml"
        raise ValueError(f"{run}: there is no {kind} of that run{mend}")
    raise ValueError(f"{name}: there is no such file, nor run; name a file, or a run such as simclr-0")


def held_by(file: Path) -> str | None:
    """What sslflow wrote into a file: an encoder, or one of `KINDS`; None: none of these, or not readable."""
    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
    except (SafetensorError, OSError):
        return None
    keys = {"encoder": "sslflow.encoder", **KINDS}
    return next((kind for kind, key in keys.items() if key in metadata), None)


def _images(model: Segmenter | Detector | DepthEstimator, file: Path, sixteen_bit: SixteenBit | None) -> Images:
    known = model.facts.get("images")
    if known is None:
        raise ValueError(f"{file} doesn't say how its images were read and normalised: its stage writes it anew")
    images = images_of(model.encoder.image_size, model.encoder.channels, known)
    return replace(images, sixteen_bit=sixteen_bit) if sixteen_bit else images
