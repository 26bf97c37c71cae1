"""A method of every family as its recipe has it: data, networks, views, for benchmarks of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from benchmarks.kept import ROOT, make
from benchmarks.stages import run_python
from sslflow import paths
from sslflow.audiovisual.ingredients import clip_rows, of_clips
from sslflow.audiovisual.plan import sections
from sslflow.data.dataset import Dataset
from sslflow.networks.encoder import Encoder
from sslflow.runtime.files import write_text
from sslflow.settings.params import load, read
from sslflow.stages.pretrain import schemas
from sslflow.training.ingredients import build, example_rows, of_examples
from sslflow.training.method import Method

WORK = Path("work/benchmarks/steps")
CPU = torch.device("cpu")
CLIPS = "instruments"
VIT = {"name": "vit_tiny", "width": 64, "depth": 4, "patch_size": 4, "grid": 2}


@dataclass(frozen=True)
class Family:
    """A method, and the recipe by which it is trained."""

    name: str
    method: str
    recipe: str = "full"
    encoder: dict[str, Any] = field(default_factory=dict)
    """In place of the recipe's."""
    kind: str = "images"

    @property
    def folder(self) -> Path:
        """Where the recipe's stages run."""
        return WORK / self.recipe

    @property
    def of_clips(self) -> bool:
        """Whether it is a method for clips."""
        return self.kind == "clips"

    @property
    def prepared(self) -> Path:
        """The recipe's examples."""
        return self.folder / (paths.clips(CLIPS) if self.of_clips else paths.PREPARED)


FAMILIES = (
    Family("contrastive", "simclr"),
    Family("without negatives", "byol"),
    Family("clustering", "swav"),
    Family("own teacher", "dino"),
    Family("a teacher that exists", "distillation"),
    Family("redundancy reduction", "barlow_twins"),
    Family("masked images", "mae", encoder=VIT),
    Family("reconstruction", "autoencoder"),
    Family("pretext", "rotation"),
    Family("dense", "densecl"),
    Family("text", "masked_lm", "text", kind="text"),
    Family("volumes", "simclr_3d", "volumes", kind="volumes"),
    Family("captions", "clip", "captions"),
    Family("depth", "depth_prediction", "depth"),
    Family("clips", "alignment", "videos", kind="clips"),
)


@dataclass(frozen=True)
class Made:
    """What a step needs, as the recipe has it."""

    method: Method
    views: Any
    dataset: Any
    rows: Any
    train: dict[str, Any]


def prepare(family: Family) -> None:
    """The recipe's examples, by the pipeline's own stages."""
    folder = family.folder
    folder.mkdir(parents=True, exist_ok=True)
    text = StringIO()
    YAML(typ="safe").dump(load(ROOT / f"recipes/{family.recipe}.yaml"), text)
    write_text(folder / "params.yaml", text.getvalue())
    samples = folder / paths.SAMPLES
    samples.parent.mkdir(exist_ok=True)
    if not samples.exists():
        samples.symlink_to((ROOT / paths.SAMPLES).resolve(), target_is_directory=True)
    stages = [["clips", CLIPS]] if family.of_clips else [["scan"], ["prepare"]]

    def run() -> None:
        for words in stages:
            run_python(
                ["-m", f"sslflow.stages.{words[0]}", *words[1:]], folder, words[0], f"{family.recipe}, {words[0]}"
            )

    made_of = load(folder / "params.yaml")["clips" if family.of_clips else "data"]
    make(family.prepared, made_of, ("data", "ingest"), run)


def assemble(family: Family) -> Made:
    """Method and views with the recipe's settings, weights by chance."""
    name, block = family.method, f"{'clip_' * family.of_clips}methods.{family.method}"
    schema = sections(name) if family.of_clips else schemas(name)
    settings = read(schema, family.folder / "params.yaml")
    kind: Any = schema[block]
    dataset = Dataset[Any](family.prepared)
    given: Mapping[str, Any]
    if family.of_clips:
        rows, _ = clip_rows(kind, name, dataset, 0.1, 0)
        given = of_clips(dataset, rows, settings["clip_encoders.picture"], settings["clip_encoders.sound"])
    else:
        rows, encoder = example_rows(kind, dataset), {**settings["encoder"], **family.encoder}
        words, form = settings.get(f"{block}.text_encoder", {}), dataset.format
        given = {
            **of_examples(dataset, rows, encoder, text_encoder=words),
            "teacher": lambda: Encoder(form.channels, form.size, name="resnet18", width=32),
        }
    torch.manual_seed(0)
    method = build(kind, given, settings[block])
    views = kind.Views(dataset.format, **settings[f"{block}.views"])
    seen = dataset if family.of_clips else dataset.for_views(views.resizes, CPU)
    return Made(method, views, seen, rows, settings[f"{block}.train"])
