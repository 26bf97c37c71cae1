"""Make tests/curves/, the curves of short runs, healthy ones and sick ones: `python -m tests.make_curves [NAME …]`."""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn

from sslflow.data.dataset import Dataset
from sslflow.methods.images.autoencoder import Autoencoder
from sslflow.methods.images.barlow_twins import BarlowTwins
from sslflow.methods.images.byol import BYOL, distance
from sslflow.methods.images.colorization import Colorization
from sslflow.methods.images.context_prediction import ContextPrediction
from sslflow.methods.images.deepcluster import DeepCluster
from sslflow.methods.images.denoising import Denoising
from sslflow.methods.images.densecl import DenseCL
from sslflow.methods.images.diet import DIET
from sslflow.methods.images.dino import DINO
from sslflow.methods.images.dinov2 import DINOv2
from sslflow.methods.images.distillation import Distillation
from sslflow.methods.images.ibot import IBOT
from sslflow.methods.images.ijepa import IJEPA, block_error
from sslflow.methods.images.inpainting import Inpainting
from sslflow.methods.images.jigsaw import Jigsaw
from sslflow.methods.images.lejepa import LeJEPA
from sslflow.methods.images.mae import MAE
from sslflow.methods.images.moco_v2 import MoCoV2
from sslflow.methods.images.moco_v3 import MoCoV3
from sslflow.methods.images.nnclr import NNCLR
from sslflow.methods.images.rotation import Rotation
from sslflow.methods.images.simclr import SimCLR
from sslflow.methods.images.simsiam import SimSiam, negative_cosine
from sslflow.methods.images.supervised import Supervised
from sslflow.methods.images.swav import SwAV
from sslflow.methods.images.vicreg import VICReg
from sslflow.monitoring.watch import Watch
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import Prototypes, mlp
from sslflow.networks.teacher import Teacher
from sslflow.runtime.rng import derive
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, of_examples
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.training.run import first_row, row
from sslflow.views.images import rgb_from_lab
from sslflow.views.strengths import Blur, Crop, Local
from sslflow.views.tiles import Tiles
from tests.cases import a_teacher
from tests.conftest import ROOT, first_images, write_dataset

CURVES = Path(__file__).parent / "curves"
CPU = torch.device("cpu")
READ = {
    *("step", "loss", "accuracy", "chance_loss", "chance_accuracy", "feature_std", "rankme", "alpha_req"),
    *("projection_std", "projection_rankme", "alignment", "uniformity"),
}
"""Columns that the verdict reads."""
SMALL: dict[str, Any] = {"name": "resnet10", "width": 8, "stem_stride": 2}
MAPS: dict[str, Any] = {**SMALL, "stem_stride": 1}
PATCHES: dict[str, Any] = {"name": "vit_tiny", "width": 64, "depth": 2, "patch_size": 4}

Row = dict[str, float]


@dataclass
class Run:
    kind: Callable[..., Method]
    settings: dict[str, Any] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=lambda: TWO_VIEWS)
    lr: float = 3e-3
    batch_size: int = 64
    epochs: int = 5
    images: Callable[[Path], Dataset] = field(default_factory=lambda: fashion)
    encoder: dict[str, Any] = field(default_factory=lambda: SMALL)
    length: int = 12
    """Rows of its curve, less the one before the first update."""

    def rows(self, dataset: Dataset) -> Iterator[tuple[Row, Choices | None]]:
        """Each row of its curve, as it is written, and what the loss chooses among."""
        torch.manual_seed(derive(0, "init"))
        kind: Any = self.kind
        given = {
            **of_examples(dataset, dataset.pretraining_rows, self.encoder),
            "teacher": lambda: a_teacher(dataset.format),
        }
        method: Method = build(kind, given, self.settings)
        views = method.Views(dataset.format, **self.views)
        watch = Watch(method, views, dataset, dataset.pretraining_rows[:160], CPU, 0)
        before = watch()
        for step in fit(method, views, dataset, CPU, 0, epochs=self.epochs, batch_size=self.batch_size, lr=self.lr):
            choices = method.choices(step.batch_size)
            if step.number == 1:
                yield first_row(step, before), choices
            if step.number * self.length // step.steps > (step.number - 1) * self.length // step.steps:
                yield row(step, watch()), choices
                method.train()


# What it learns from


def fashion(folder: Path) -> Dataset:
    return write_dataset(folder, *first_images(512), ["train"] * 512, shard=512)


def random_labels(folder: Path) -> Dataset:
    """Labels that have nothing to do with the images, three quarters of them the same."""
    numbers = np.random.default_rng(0)
    labels = np.where(numbers.random(2048) < 0.75, 0, numbers.integers(1, 10, 2048))
    return write_dataset(folder, first_images(2048)[0], labels, ["train"] * 2048, shard=2048)


def emoji(folder: Path) -> Dataset:
    table = pq.read_table(ROOT / "data" / "samples" / "emoji" / "noto.parquet", columns=["image", "split"]).to_pylist()
    images = [_on_white(one["image"]) for one in table if one["split"] == "train"][:512]
    return write_dataset(folder, np.stack(images), np.arange(512) % 2, ["train"] * 512, shard=512)


def _on_white(image: bytes) -> np.ndarray:
    drawn = Image.open(BytesIO(image)).convert("RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn)
    return np.asarray(whole.convert("RGB").resize((28, 28))).transpose(2, 0, 1)


def tinted(folder: Path) -> Dataset:
    """Grey images, each in one of three colours by chance, of which one is usual."""
    grey = torch.from_numpy(first_images(512)[0]).float() / 255
    usual = torch.tensor([[30.0, 30.0], [-30.0, 30.0], [0.0, -30.0]])
    drawn = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), 512, True, generator=torch.Generator().manual_seed(0))
    lightness = 50 + 20 * grey
    images = rgb_from_lab(torch.cat([lightness, usual[drawn][..., None, None].expand(-1, -1, 28, 28)], dim=1))
    rounded = (255 * images).round().to(torch.uint8).numpy()
    return write_dataset(folder, rounded, np.arange(512) % 2, ["train"] * 512, shard=512)


# What is wrong with it


class WithoutStoppedGradient(BYOL):
    def training_step(self, batch: Batch) -> Losses:
        za, zb = (self.projector(self.encoder(view)) for view in batch.views)
        return {"loss": distance(self.predictor(za), zb) + distance(self.predictor(zb), za)}


class WithoutPredictor(BYOL):
    def __init__(self, encoder: Encoder, **settings: Any) -> None:
        super().__init__(encoder, **settings)
        self.predictor = nn.Sequential()


class SimSiamWithoutStoppedGradient(SimSiam):
    def training_step(self, batch: Batch) -> Losses:
        za, zb = (self.projector(self.encoder(view)) for view in batch.views)
        return {"loss": (negative_cosine(self.predictor(za), zb) + negative_cosine(self.predictor(zb), za)) / 2}


class WithoutCentre(DINO):
    """And without the BatchNorm at the end of the projector, which is a kind of centre, too."""

    def __init__(self, encoder: Encoder, *, projector: tuple[int, ...], prototypes: int, **settings: Any) -> None:
        super().__init__(encoder, projector=projector, prototypes=prototypes, **settings)
        self.head = nn.Sequential(mlp(encoder.dim, *projector), Prototypes(projector[-1], prototypes))
        self.teacher = Teacher(self.student)

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        self.centre.zero_()


class DullTeacher(Distillation):
    """Its teacher sees the same in all images."""

    def __init__(self, encoder: Encoder, teacher: Encoder, **settings: Any) -> None:
        super().__init__(encoder, teacher, **settings)
        self.teacher.network.network.conv1.weight.zero_()


class IBOTWithoutCentre(IBOT):
    """And without the BatchNorm in its head of images, which is a kind of centre, too."""

    def __init__(self, encoder: Encoder, *, projector: tuple[int, ...], prototypes: int, **settings: Any) -> None:
        super().__init__(encoder, projector=projector, prototypes=prototypes, **settings)
        head = mlp(encoder.dim, *projector, norm=False)
        self.head = nn.Sequential(head, Prototypes(projector[-1], prototypes))
        self.teacher = Teacher(self.student)

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        self.centre.zero_()
        self.patch_centre.zero_()


class LearningTargets(IJEPA):
    """Its targets are its own tokens, and take their gradient."""

    def training_step(self, batch: Batch) -> Losses:
        view, noise, blocks = batch.views
        asked, keep = self.places(noise, blocks)
        taught = self.patches(self.encoder, view)
        return {"loss": block_error(self.predict(view, keep), taught, asked)}


class Dying(SimCLR):
    """Its encoder gives out nothing but zeros from some time on, a share of the run."""

    def __init__(self, encoder: Encoder, *, dies: float, **settings: Any) -> None:
        super().__init__(encoder, **settings)
        self.dies = dies
        self.after_step(0.0)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        if progress >= self.dies:
            for parameter in self.encoder.parameters():
                parameter.zero_()


HEAD: dict[str, Any] = {"projector": (256, 64)}
WIDE: dict[str, Any] = {"projector": (512, 256)}
CONTRAST = {**HEAD, "temperature": 0.2}
SLOW_SELF = {**HEAD, "predictor": 128, "momentum": 0.99}
NEIGHBOURS = {**HEAD, "predictor": 128, "queue": 2048, "temperature": 0.1}
SKETCH = {**HEAD, "slices": 64}
DENSE = {**CONTRAST, "queue": 2048, "momentum": 0.99}
ALIKE = {"teacher_temperature": 1000.0, "teacher_temperature_start": 1000.0}
PREDICT = {"predictor_width": 32, "predictor_depth": 1, "momentum": 0.95}
SELF = {"projector": (512, 512, 512), "predictor": 128}
CODES = {**HEAD, "prototypes": 64}
ANSWERS = {**CODES, "momentum": 0.9, "teacher_temperature": 0.04}
RATE = {"coding_rate": 1.0, "momentum": 0.95}
TWO_VIEWS = {"crop": Crop(0.4), "blur": Blur(p=0.0)}
CROPS = {**TWO_VIEWS, "local": Local(crops=0)}

HEALTHY = {
    "autoencoder": Run(Autoencoder, {"decoder": 16}, {}),
    "barlow_twins": Run(BarlowTwins, WIDE, lr=2e-2),
    "byol": Run(BYOL, SLOW_SELF),
    "colorization": Run(Colorization, {"decoder": 16}, {}, images=emoji, epochs=20),
    "colorization_regression": Run(Colorization, {"decoder": 16, "loss": "regression"}, {}, images=emoji, epochs=20),
    "context_prediction": Run(ContextPrediction, {}, {"tiles": Tiles(side=0.5)}, epochs=3, batch_size=32),
    "decoupled": Run(SimCLR, {**CONTRAST, "decoupled": True}),
    "deepcluster": Run(DeepCluster, {"clusters": 32, "directions": 32}),
    "denoising": Run(Denoising, {"decoder": 16}, {}),
    "densecl": Run(DenseCL, DENSE, encoder=MAPS),
    "diet": Run(DIET, epochs=20),
    "dino": Run(DINO, ANSWERS, CROPS, epochs=20),
    "dinov2": Run(DINOv2, {**ANSWERS, "spread": 0.01}, CROPS, lr=1e-3, encoder=PATCHES, epochs=10),
    "coding_rate": Run(DINOv2, {**HEAD, **RATE}, CROPS, lr=1e-3, encoder=PATCHES, epochs=10),
    "distillation": Run(Distillation),
    "ibot": Run(IBOT, ANSWERS, CROPS, lr=1e-3, encoder=PATCHES, epochs=10),
    "ijepa": Run(IJEPA, PREDICT, {}, lr=1e-3, encoder=PATCHES, epochs=10),
    "inpainting": Run(Inpainting, {"decoder": 16}, {}),
    "jigsaw": Run(Jigsaw, {"permutations": 64}, {"tiles": Tiles(side=0.5)}, epochs=3, batch_size=32),
    "lejepa": Run(LeJEPA, SKETCH, CROPS, lr=1e-2, epochs=10),
    "mae": Run(MAE, {"decoder_width": 32, "decoder_depth": 1}, {}, encoder=PATCHES, epochs=10),
    "moco_v2": Run(MoCoV2, {**CONTRAST, "queue": 65536, "momentum": 0.99}),
    "moco_v3": Run(MoCoV3, {"projector": (256, 64), "predictor": 128, "momentum": 0.99}),
    "nnclr": Run(NNCLR, NEIGHBOURS, epochs=10),
    "rotation": Run(Rotation, {}, {}, batch_size=16, epochs=2),
    "simclr": Run(SimCLR, CONTRAST),
    "simsiam": Run(SimSiam, SELF, lr=6e-3),
    "supervised": Run(Supervised, {}, {}),
    "swav": Run(SwAV, CODES, CROPS),
    "vicreg": Run(VICReg, HEAD, lr=1e-2),
}
SICK = {
    "rate_too_high": Run(Rotation, {}, {}, lr=3.0, batch_size=16, epochs=3),
    "rate_too_low": Run(SimCLR, CONTRAST, lr=1e-6, epochs=3),
    "dead_encoder": Run(Dying, {**CONTRAST, "dies": 0.0}, epochs=2),
    "encoder_dies_in_the_end": Run(Dying, {**CONTRAST, "dies": 0.92}, length=25),
    "temperature_too_high": Run(SimCLR, {**HEAD, "temperature": 100.0}, epochs=2),
    "decoupled_temperature_too_high": Run(SimCLR, {**HEAD, "temperature": 100.0, "decoupled": True}, epochs=2),
    "densecl_temperature_too_high": Run(DenseCL, {**DENSE, "temperature": 100.0}, encoder=MAPS, epochs=2),
    "diet_rate_too_high": Run(DIET, lr=0.1, epochs=3),
    "neighbours_all_the_same": Run(NNCLR, {**NEIGHBOURS, "queue": 1}, epochs=3),
    "dinov2_answers_all_alike": Run(DINOv2, {**ANSWERS, **ALIKE}, CROPS, lr=1e-3, encoder=PATCHES, epochs=3),
    "without_coding_rate": Run(DINOv2, {**HEAD, **RATE, "coding_rate": 1e-6}, CROPS, lr=1e-2, encoder=PATCHES),
    "dull_teacher": Run(DullTeacher, epochs=2),
    "ibot_without_centre": Run(IBOTWithoutCentre, ANSWERS, CROPS, lr=1e-2, encoder=PATCHES),
    "ijepa_learning_targets": Run(LearningTargets, PREDICT, {}, lr=1e-3, encoder=PATCHES, epochs=10),
    "random_labels": Run(Supervised, {}, {}, images=random_labels, batch_size=256),
    "colours_by_chance": Run(Colorization, {"decoder": 16}, {}, images=tinted),
    "colours_by_chance_regression": Run(Colorization, {"decoder": 16, "loss": "regression"}, {}, images=tinted),
    "without_redundancy_term": Run(BarlowTwins, {**WIDE, "redundancy": 0.0}, lr=2e-2),
    "without_stopped_gradient": Run(WithoutStoppedGradient, SLOW_SELF, lr=1e-2, epochs=3),
    "without_predictor": Run(WithoutPredictor, {**SLOW_SELF, "momentum": 0.5}, epochs=3),
    "simsiam_without_stopped_gradient": Run(SimSiamWithoutStoppedGradient, SELF, lr=6e-3),
    "without_gaussian": Run(LeJEPA, {**SKETCH, "gaussian": 0.0}, CROPS, lr=1e-2, epochs=10),
    "without_variance_and_covariance": Run(VICReg, {**HEAD, "variance": 0.0, "covariance": 0.0}, lr=1e-2),
    "without_centre": Run(WithoutCentre, ANSWERS, CROPS, lr=1e-2),
    "codes_all_alike": Run(SwAV, {**CODES, "iterations": 1, "epsilon": 1000.0}, CROPS),
}


def main(*names: str) -> None:
    torch.set_num_threads(1)
    CURVES.mkdir(exist_ok=True)
    runs = HEALTHY | SICK
    for name in names or runs:
        with tempfile.TemporaryDirectory() as folder:
            write(CURVES / f"{name}.csv", runs[name].rows(runs[name].images(Path(folder) / "prepared")))
        print(name, flush=True)


def write(file: Path, rows: Iterator[tuple[Row, Choices | None]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        for number, (one, choices) in enumerate(rows):
            kept = {name: value for name, value in one.items() if name in READ}
            if number == 0:
                writer.writerow([*kept, "choices"])
            writer.writerow([*(f"{value:.6g}" for value in kept.values()), choices.count if choices else 0])


if __name__ == "__main__":
    main(*sys.argv[1:])
