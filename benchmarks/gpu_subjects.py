"""Every method with a recipe's settings and examples to be trained on, for the GPU's benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.gpu_data import (
    GREY,
    Memory,
    captioned_in_memory,
    clips_in_memory,
    depths_in_memory,
    images_in_memory,
    text_in_memory,
    volumes_in_memory,
)
from benchmarks.gpu_report import SEED
from benchmarks.methods_runs import ENCODERS, ONLY_VIT
from sslflow.audiovisual import method as clip_methods
from sslflow.audiovisual.ingredients import of_clips
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.networks.encoder import Encoder
from sslflow.runtime.rng import derive
from sslflow.settings.params import Over, read
from sslflow.training import method as pretraining_methods
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, of_examples, own_schemas
from sslflow.training.method import Method
from sslflow.views.images import Views

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
CAPTIONED, WITH_DEPTH = ("clip", "virtex"), ("depth_alignment", "depth_prediction")


@dataclass(frozen=True)
class Sizes:
    """How large examples are, and how many there are in a step."""

    images: int
    clips: int
    form: ClipFormat
    volumes: int
    side: int
    """Voxels."""
    passages: int
    limit: float
    """Seconds that a line may take."""


FULL = Sizes(64, 16, ClipFormat(36, 96, 12.0, 16_000, 3.0, *GREY), 16, 24, 64, 60.0)
MINI = Sizes(16, 4, ClipFormat(24, 32, 8.0, 8000, 3.0, *GREY), 8, 16, 16, 60.0)


def all_names() -> list[str]:
    """Every method, such as `images/simclr`."""
    kinds = {kind: pretraining_methods.names(kind) for kind in ("images", "text", "volumes")}
    kinds["clips"] = clip_methods.names()
    return [f"{kind}/{name}" for kind, names in kinds.items() for name in names]


@dataclass(frozen=True)
class Subject:
    """A method, built anew with the same weights at each call of `build`, and what it is trained on."""

    build: Callable[[], Method]
    views: Views
    data: Memory

    @property
    def train(self) -> dict[str, Any]:
        """Two steps."""
        return {"epochs": 1, "batch_size": len(self.data) // 2, "lr": 1e-3}


def by_recipe(kind: type[Method], block: str, shared: str = "", recipe: str = "full") -> dict[str, dict[str, Any]]:
    """The recipe's settings of a method (`block`), of its views and of its training (`block.views`, `block.train`);
    where it has none, the constructors' defaults. The shared sections' names begin with `shared`."""
    over = {"views": kind.Views, "train": fit}
    schemas = {f"{block}.{part}": Over(f"{shared}{part}", target) for part, target in over.items()}
    own = {} if shared else own_schemas(block.rpartition(".")[2])
    return read({block: kind, **schemas, **own}, RECIPES / f"{recipe}.yaml")


def of_kind(kind: str, name: str, sizes: Sizes) -> Subject:
    """The method `name` of `images`, `text`, `volumes` or `clips`, with its recipe's settings."""
    return _of_clips(name, sizes) if kind == "clips" else _of_examples(kind, name, sizes)


def _of_examples(kind: str, name: str, sizes: Sizes) -> Subject:
    found, block = pretraining_methods.find(name), f"methods.{name}"
    encoder: Mapping[str, Any] = ENCODERS["vit" if name in ONLY_VIT else "resnet"]
    recipe, data = "full", None
    if kind == "text":
        recipe, data = "text", text_in_memory(2 * sizes.passages, 48, 1000)
        encoder = {"dim": 64, "depth": 2, "heads": 4, "standardise": True}
    elif kind == "volumes":
        recipe, data = "volumes", volumes_in_memory(2 * sizes.volumes, sizes.side)
        encoder = {"name": "vit", "width": 96, "depth": 2} if name == "mae_3d" else {"name": "resnet10", "width": 8}
    elif name in CAPTIONED:
        recipe, data = "captions", captioned_in_memory(2 * sizes.images, 32)
    elif name in WITH_DEPTH:
        recipe, data = "depth", depths_in_memory(2 * sizes.images, 32)
    data = data or images_in_memory(2 * sizes.images, 32)
    settings = by_recipe(found, block, recipe=recipe)
    examples = cast("Dataset[Any]", data)
    words = settings.get(f"{block}.text_encoder", {})
    given = {
        **of_examples(examples, data.pretraining_rows, encoder, text_encoder=words),
        # Of the teacher, what it costs counts here, not what it knows.
        "teacher": lambda: Encoder(data.format.channels, data.format.size, **encoder),
    }
    return _subject(found, given, settings, block, data)


def _of_clips(name: str, sizes: Sizes) -> Subject:
    found, block = clip_methods.find(name), f"clip_methods.{name}"
    data = clips_in_memory(2 * sizes.clips, sizes.form)
    encoders = read({"clip_encoders.picture": Encoder, "clip_encoders.sound": Encoder}, RECIPES / "full.yaml")
    picture, sound = encoders.values()
    given = of_clips(cast("Dataset[ClipFormat]", data), data.pretraining_rows, picture, sound)
    return _subject(found, given, by_recipe(found, block, "clip_"), block, data)


def _subject(found: type[Method], given: Any, settings: Mapping[str, Any], block: str, data: Memory) -> Subject:
    def built() -> Method:
        torch.manual_seed(derive(SEED, "init"))
        return build(found, given, settings[block])

    return Subject(built, found.Views(data.format, **settings[f"{block}.views"]), data)
