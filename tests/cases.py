"""Every method of every kind, small, with data that it can learn something from in seconds. Methods are found by their
files, and what each needs, it says itself: nothing here knows a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.adaptation import method as of_adaptation
from sslflow.adaptation.method import Adapter, Pair
from sslflow.audiovisual import method as of_clips
from sslflow.audiovisual.ingredients import of_clips as clip_ingredients
from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.data.tokens import BETWEEN, FIRST, PAD
from sslflow.networks.encoder import Encoder
from sslflow.runtime.rng import derive
from sslflow.settings.params import Over, load, read
from sslflow.training import method as of_images
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, own_schemas
from sslflow.training.ingredients import of_examples as image_ingredients
from sslflow.training.method import Batch, Method, Pool
from sslflow.views.images import Views
from tests.av_fixtures import MemoryClips
from tests.conftest import RECIPE, ROOT, first_images
from tests.text_fixtures import MemoryText
from tests.volume_fixtures import MemoryVolumes

TEXT_RECIPE = ROOT / "recipes" / "text.yaml"
VOLUMES_RECIPE = ROOT / "recipes" / "volumes.yaml"
NETWORK = {"name": "resnet10", "width": 8, "stem_stride": 2}
VIT = {"name": "vit_tiny", "width": 64, "depth": 2, "patch_size": 4}


@dataclass
class Case:
    method: Method
    views: Views
    data: Any

    def batch(self, count: int = 12, progress: float = 0.4) -> Batch:
        """Views of the first examples, the same at each call."""
        torch.manual_seed(1)
        return Batch(self.views(self.data.read(self.data.pretraining_rows[:count])), torch.arange(count), progress)


class MemoryImages:
    """What a `Dataset` of images offers, of images in memory, with captions: some have two, some one, and many the
    same; and with depth maps: the brighter, the farther away."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        shares = images / 255
        mean, std = shares.mean(axis=(0, 2, 3)), shares.std(axis=(0, 2, 3))
        self.format = ImageFormat(images.shape[1], images.shape[2], tuple(mean.tolist()), tuple(std.tolist()))
        self.captions = made_up_captions(images, labels)
        self.depth = (1 + 9 * shares.mean(axis=1, keepdims=True)).astype(np.float32)
        self.depth[:, :, :2] = 0
        logs = np.log(self.depth[self.depth > 0])
        self.beside = {
            "captions": {"per_image": 3, "length": self.captions.shape[2], "vocabulary": 32},
            "depth": {"mean_log": float(logs.mean()), "std_log": float(logs.std())},
        }

    def column(self, name: str, rows: np.ndarray) -> np.ndarray:
        if name == "depth":
            return (self.depth[rows] > 0).mean(axis=(1, 2, 3))
        assert name == "captions"
        return (self.captions[rows][:, :, 0] != PAD).sum(axis=1)

    @property
    def pretraining_rows(self) -> np.ndarray:
        return np.arange(len(self.images))

    def read(self, rows: np.ndarray) -> Fields:
        read = (torch.from_numpy(one[np.asarray(rows)].copy()) for one in (self.images, self.captions, self.depth))
        return Fields(**dict(zip(("images", "captions", "depth"), read, strict=True)))


def made_up_captions(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Tokens of captions, int32 `(n, 3, 6)`: the class, and of every other image also how bright it is; the third is
    padding."""
    found = np.full((len(images), 3, 6), PAD, np.int32)
    bright = 20 + (images.mean(axis=(1, 2, 3)) // 32).astype(np.int32)
    for row, label in enumerate(labels.tolist()):
        found[row, 0, :3] = FIRST, 8 + label, BETWEEN
        if row % 2:
            found[row, 1, :4] = FIRST, bright[row], 8 + label, BETWEEN
    return found


def recipe_of(method: str) -> Path:
    """The recipe with the settings of a method for images: the one of all of these, or else one that has it."""
    others = (file for file in sorted(RECIPE.parent.glob("*.yaml")) if method in (load(file).get("methods") or {}))
    return RECIPE if method in load(RECIPE)["methods"] else next(others, RECIPE)


def tinted(images: np.ndarray) -> np.ndarray:
    """Colour images of grey ones: dark blue to light yellow."""
    grey = images.astype(np.float32) / 255
    return (np.concatenate([grey, grey * 0.9, 0.4 + 0.2 * grey], axis=1) * 255).astype(np.uint8)


def image_case(name: str, *, seed: int = 0, start: bool = True, colour: bool = False, count: int = 64) -> Case:
    """The method with its settings from the recipe, on the first real images and a small encoder of a kind that it can
    train; unless `fit` is to do it, started as before an epoch."""
    kind, block = of_images.find(name), f"methods.{name}"
    own = {f"{block}.views": Over("views", kind.Views), f"{block}.train": Over("train", fit), **own_schemas(name)}
    settings = read({block: kind, **own}, recipe_of(name))
    grey, labels = first_images(count)

    def made(images: np.ndarray, encoder: dict[str, Any]) -> Case:
        data: Any = MemoryImages(images, labels)
        words = settings.get(f"{block}.text_encoder", {})
        known = image_ingredients(data, data.pretraining_rows, encoder, text_encoder=words)
        given = {**known, "teacher": lambda: a_teacher(data.format)}
        torch.manual_seed(derive(seed, "init"))
        method = build(kind, given, settings[block])
        return Case(method, kind.Views(data.format, **settings[f"{block}.views"]), data)

    tried = [(tinted(grey), NETWORK), (tinted(grey), VIT)]
    case = _first(made, tried if colour else [(grey, NETWORK), (grey, VIT), *tried])
    if start:
        images = case.views.normalise(case.data.read(case.data.pretraining_rows)["images"])
        _start(case.method, case.method.encoder.eval()(images).detach())
    return case


def a_teacher(format: ImageFormat) -> Encoder:
    """One and the same network, whatever the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return Encoder(format.channels, format.size, name="resnet10", width=16, stem_stride=2)


def clip_case(name: str, *, seed: int = 0, start: bool = True, clips: MemoryClips | None = None) -> Case:
    """The same of a method for clips."""
    kind, block = of_clips.find(name), f"clip_methods.{name}"
    schemas = {block: kind, f"{block}.views": Over("clip_views", kind.Views), f"{block}.train": Over("clip_train", fit)}
    settings = read(schemas, RECIPE)
    data: Any = MemoryClips(24, move=20) if clips is None else clips

    def made(picture: dict[str, Any], sound: dict[str, Any]) -> Case:
        torch.manual_seed(derive(seed, "init"))
        method = build(kind, clip_ingredients(data, data.pretraining_rows, picture, sound), settings[block])
        return Case(method, kind.Views(data.format, **settings[f"{block}.views"]), data)

    case = _first(made, [({**NETWORK, "grid": 2}, NETWORK), (VIT, NETWORK)])
    if start:
        _start(case.method, torch.zeros(len(data.pretraining_rows), case.method.encoder.dim))
    return case


def text_case(name: str, *, seed: int = 0, start: bool = True, units: str = "words") -> Case:
    """The same of a method for text."""
    kind, block = of_images.find(name), f"methods.{name}"
    schemas = {block: kind, f"{block}.views": Over("views", kind.Views), f"{block}.train": Over("train", fit)}
    settings = read(schemas, TEXT_RECIPE)
    data: Any = MemoryText(units=units)
    torch.manual_seed(derive(seed, "init"))
    given = image_ingredients(data, data.pretraining_rows, {"dim": 32, "depth": 1, "heads": 2, "standardise": True})
    case = Case(build(kind, given, settings[block]), kind.Views(data.format, **settings[f"{block}.views"]), data)
    if start:
        _start(case.method, torch.zeros(len(data.pretraining_rows), case.method.encoder.dim))
    return case


def volume_case(name: str, *, seed: int = 0, start: bool = True) -> Case:
    """The same of a method for volumes."""
    kind, block = of_images.find(name), f"methods.{name}"
    schemas = {block: kind, f"{block}.views": Over("views", kind.Views), f"{block}.train": Over("train", fit)}
    settings = read(schemas, VOLUMES_RECIPE)
    data: Any = MemoryVolumes()

    def made(_: None, encoder: dict[str, Any]) -> Case:
        torch.manual_seed(derive(seed, "init"))
        method = build(kind, image_ingredients(data, data.pretraining_rows, encoder), settings[block])
        return Case(method, kind.Views(data.format, **settings[f"{block}.views"]), data)

    vit = {"name": "vit", "width": 32, "depth": 2, "patch_size": 4}
    case = _first(made, [(None, {"name": "resnet10", "width": 8}), (None, vit)])
    if start:
        _start(case.method, torch.zeros(len(data.pretraining_rows), case.method.encoder.dim))
    return case


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.layer(inputs)


def domains(seed: int = 0, classes: int = 4, unknown: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Well separated groups; in the target a little moved, and one of them (the last) lacking in the source."""
    numbers = torch.Generator().manual_seed(seed)
    centres = 3 * F.one_hot(torch.arange(classes + 1), 6).float()
    centres[classes] = centres[:classes].mean(dim=0)
    labels = torch.arange(classes).repeat(15)
    source = centres[labels] + 0.4 * torch.randn(len(labels), 6, generator=numbers)
    truth = torch.arange(classes + unknown).repeat(15)
    target = centres[truth] + 0.3 + 0.4 * torch.randn(len(truth), 6, generator=numbers)
    return source, labels, target, torch.where(truth == classes, -1, truth)


@dataclass
class AdapterCase:
    method: Adapter

    def batch(self) -> Pair:
        """Some of both domains, late in the run, when every term of a loss counts."""
        source, labels, target, _ = domains()
        rows = torch.arange(12)
        return Pair(source[:20].clone(), labels[:20].clone(), target[rows], rows, 0.9)


def adapter_case(name: str, *, seed: int = 0) -> AdapterCase:
    """The method of adaptation with its own defaults, on a small layer, started as before its first step."""
    source, labels, target, _ = domains()
    torch.manual_seed(seed)
    method = of_adaptation.find(name)(Layer(), 6, 4, len(target))
    method.start(source, labels, target)
    return AdapterCase(method)


METHODS = [
    *(f"images {name}" for name in of_images.names("images")),
    *(f"text {name}" for name in of_images.names("text")),
    *(f"volumes {name}" for name in of_images.names("volumes")),
    *(f"clips {name}" for name in of_clips.names()),
]
ADAPTERS = [f"adaptation {name}" for name in of_adaptation.names()]


def make(name: str, **settings: Any) -> Any:
    """The case of one of `METHODS` or `ADAPTERS`."""
    kind, _, method = name.partition(" ")
    cases = {"images": image_case, "text": text_case, "volumes": volume_case}
    cases |= {"clips": clip_case, "adaptation": adapter_case}
    return cases[kind](method, **settings)


def _first(made: Callable[..., Case], tried: list[tuple[Any, Any]]) -> Case:
    """The case of the first data and encoder that the method accepts."""
    refused: list[ValueError] = []
    for given in tried:
        try:
            return made(*given)
        except ValueError as error:
            refused.append(error)
    raise ExceptionGroup("no data and no encoder suit the method", refused)


def _start(method: Method, features: Tensor) -> None:
    count = len(features)
    method.train().start_epoch(Pool(count, torch.arange(count), lambda: features, seed=0))
