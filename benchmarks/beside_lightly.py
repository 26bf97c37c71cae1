"""Our methods beside lightly's parts for the same methods: `python -m benchmarks.beside_lightly`.

On both sides the same encoder, images, number of images seen, batch size, optimiser and learning rates, widths of heads
and strengths of augmentation (those of recipes/full.yaml), on the fashion sample, one CPU thread. Lightly's side is the
plain loop of its own examples: its transforms on PIL images in a DataLoader, its heads and its losses.

Speed: steps of both take turns in one process, the ratio is the median of the rounds' ratios. Accuracy: a linear
classifier and kNN on the frozen features, tested on the test images; runs that are done are kept in
work/benchmarks/lightly and not run again.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import lightly
import torch
from lightly import loss as losses
from lightly import transforms
from lightly.models import modules, utils
from lightly.models.modules import heads
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from lightly.utils.scheduler import cosine_schedule
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.kept import code_of, commit, make, note, other_code
from benchmarks.methods import ENCODERS
from benchmarks.tables import show
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.features.extract import extract
from sslflow.ingest.images.prepare import prepare
from sslflow.networks.encoder import Encoder
from sslflow.runtime.files import read_json, write_json
from sslflow.runtime.rng import derive
from sslflow.settings.params import Over, read
from sslflow.training.fit import fit
from sslflow.training.method import find
from sslflow.training.optim import make_optimizer, warmup_cosine

WORK = Path("work/benchmarks/lightly")
RECIPE = Path(__file__).resolve().parent.parent / "recipes/full.yaml"
CPU = torch.device("cpu")
EPOCHS = 2
ROUNDS = 7
METHODS = ("simclr", "moco_v2", "byol", "barlow_twins", "vicreg", "dino", "swav", "mae")

Step = Callable[[list[Tensor], float], Tensor]
"""Views and progress to the loss."""


class Pictures(TorchDataset):
    """Images as lightly's transforms want them, in memory."""

    def __init__(self, dataset: Dataset, transform: Callable[[Image.Image], Any]) -> None:
        images = dataset.read(dataset.pretraining_rows)["images"].numpy()
        self.images = [Image.fromarray(image[0]) for image in images]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Any:
        return self.transform(self.images[number])


class Theirs(nn.Module):
    """One method put together from lightly's parts. Its loss is a part, too: some have buffers, which are to be where
    the method is."""

    def __init__(self, name: str, encoder: Encoder, settings: dict[str, Any]) -> None:
        super().__init__()
        self.encoder, self.settings = encoder, settings
        self.step: Step = getattr(self, f"_{name}")(encoder.dim, **settings)

    def _simclr(self, dim: int, *, projector: tuple[int, ...], temperature: float, **_: Any) -> Step:
        self.head = heads.SimCLRProjectionHead(dim, projector[0], projector[1])
        self.loss = losses.NTXentLoss(temperature)
        return lambda views, _: self.loss(*(self.head(self.encoder(view)) for view in views))

    def _barlow_twins(self, dim: int, *, projector: tuple[int, ...], redundancy: float) -> Step:
        self.head = heads.BarlowTwinsProjectionHead(dim, projector[0], projector[-1])
        self.loss = losses.BarlowTwinsLoss(redundancy)
        return lambda views, _: self.loss(*(self.head(self.encoder(view)) for view in views))

    def _vicreg(
        self, dim: int, *, projector: tuple[int, ...], invariance: float, variance: float, covariance: float
    ) -> Step:
        self.head = heads.VICRegProjectionHead(dim, projector[0], projector[-1], num_layers=len(projector))
        self.loss = losses.VICRegLoss(invariance, variance, covariance)
        return lambda views, _: self.loss(*(self.head(self.encoder(view)) for view in views))

    def _byol(self, dim: int, *, projector: tuple[int, ...], predictor: int, momentum: float) -> Step:
        self.head = heads.BYOLProjectionHead(dim, *projector)
        self.predictor = heads.BYOLPredictionHead(projector[-1], predictor, projector[-1])
        self._add_teacher()
        self.loss = losses.NegativeCosineSimilarity()

        def step(views: list[Tensor], progress: float) -> Tensor:
            self._move_teacher(cosine_schedule(round(1000 * progress), 1001, momentum, 1.0))
            predicted = [self.predictor(self.head(self.encoder(view))) for view in views]
            targets = [self._taught(view) for view in views]
            return 0.5 * (self.loss(predicted[0], targets[1]) + self.loss(predicted[1], targets[0]))

        return step

    def _moco_v2(
        self, dim: int, *, projector: tuple[int, ...], queue: int, temperature: float, momentum: float
    ) -> Step:
        self.head = heads.MoCoProjectionHead(dim, *projector, batch_norm=True)
        self._add_teacher()
        self.loss = losses.NTXentLoss(temperature, memory_bank_size=(queue, projector[-1]))

        def step(views: list[Tensor], progress: float) -> Tensor:
            self._move_teacher(momentum)
            return self.loss(self.head(self.encoder(views[0])), self._taught(views[1]))

        return step

    def _dino(
        self,
        dim: int,
        *,
        projector: tuple[int, ...],
        prototypes: int,
        temperature: float,
        teacher_temperature: float,
        momentum: float,
        centre_momentum: float = 0.9,
        **_: Any,
    ) -> Step:
        self.head, copied = (
            heads.DINOProjectionHead(dim, projector[0], projector[-1], prototypes, batch_norm=True) for _ in range(2)
        )
        copied.load_state_dict(self.head.state_dict())
        self._add_teacher(copied)
        self.loss = losses.DINOLoss(prototypes, student_temp=temperature, center_momentum=centre_momentum)

        def step(views: list[Tensor], progress: float) -> Tensor:
            self._move_teacher(cosine_schedule(round(1000 * progress), 1001, momentum, 1.0))
            answers = [self.head(self.encoder(view)) for view in views]
            return self.loss([self._taught(view) for view in views[:2]], answers, teacher_temp=teacher_temperature)

        return step

    def _swav(
        self,
        dim: int,
        *,
        projector: tuple[int, ...],
        prototypes: int,
        temperature: float,
        epsilon: float,
        iterations: int = 3,
        **_: Any,
    ) -> Step:
        self.head = heads.SwaVProjectionHead(dim, *projector)
        self.prototypes = heads.SwaVPrototypes(projector[-1], prototypes)
        self.loss = losses.SwaVLoss(temperature, iterations, epsilon)

        def step(views: list[Tensor], progress: float) -> Tensor:
            self.prototypes.normalize()
            z = [nn.functional.normalize(self.head(self.encoder(view)), dim=1) for view in views]
            scores: list[Any] = [self.prototypes(one) for one in z]
            return self.loss(scores[:2], scores[2:])

        return step

    def _mae(self, dim: int, *, mask: float, decoder_width: int, decoder_depth: int) -> Step:
        encoder = self.encoder
        patch, width, channels = encoder.settings["patch_size"], encoder.map_dim, encoder.channels
        self.vit = modules.MaskedVisionTransformerTIMM(encoder.network)
        count = (encoder.image_size // patch) ** 2
        self.embed = nn.Linear(width, decoder_width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(count, decoder_width, decoder_depth, decoder_width // 32)
        self.draw = nn.Linear(decoder_width, channels * patch**2)

        def step(views: list[Tensor], progress: float) -> Tensor:
            (images,) = views
            n = len(images)
            keep, hidden = utils.random_token_mask((n, count + 1), mask_ratio=mask)
            seen = self.embed(self.vit.encode(images, idx_keep=keep))
            tokens = utils.repeat_token(self.decoder.mask_token, (n, count + 1)).type_as(seen)
            drawn = self.decoder(utils.set_at_index(tokens, keep, seen))
            patches = utils.normalize_mean_var(utils.patchify(images, patch))
            target = utils.get_at_index(patches, hidden - 1)
            return nn.functional.mse_loss(self.draw(utils.get_at_index(drawn, hidden)), target)

        return step

    def _add_teacher(self, head: nn.Module | None = None) -> None:
        # A head with torch's weight norm can't be copied: it comes with its copy.
        head = head or copy.deepcopy(self.head)
        self.teacher = nn.Sequential(copy.deepcopy(self.encoder), head).requires_grad_(False)

    def _move_teacher(self, momentum: float) -> None:
        utils.update_momentum(self.encoder, self.teacher[0], momentum)  # pyright: ignore[reportArgumentType]
        utils.update_momentum(self.head, self.teacher[1], momentum)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def _taught(self, view: Tensor) -> Tensor:
        return self.teacher(view)


def transform_of(name: str, form: ImageFormat, views: dict[str, Any]) -> Callable[[Image.Image], Any]:
    """Lightly's transform for a method, as strong as ours; grey images have no saturation and hue."""
    size, coloured = form.size, form.channels == 3
    normalize = {"mean": list(form.mean), "std": list(form.std)}
    if name == "mae":
        return transforms.MAETransform(size, min_scale=0.6, normalize=normalize)
    colour, blur, smallest = views["colour"], views["blur"].p, views["crop"].smallest
    same = {
        "hf_prob": views.get("flip", 0.5),
        "cj_prob": colour.jitter,
        "cj_strength": 1.0,
        "cj_bright": colour.brightness,
        "cj_contrast": colour.contrast,
        "cj_sat": colour.saturation if coloured else 0.0,
        "cj_hue": colour.hue if coloured else 0.0,
        "random_gray_scale": colour.grey if coloured else 0.0,
        "normalize": normalize,
    }
    if name in ("dino", "swav"):
        crops = views["local"]
        local, scale, count = round(crops.size * size), crops.scale, crops.crops
        if name == "swav":
            return transforms.SwaVTransform(
                (size, local), (2, count), (smallest, scale[0]), (1.0, scale[1]), gaussian_blur=blur, **same
            )
        return transforms.DINOTransform(
            size, (smallest, 1.0), local, scale, count, gaussian_blur=(blur,) * 3, solarization_prob=0.0, **same
        )
    return transforms.SimCLRTransform(size, min_scale=smallest, gaussian_blur=blur, **same)


def settings_of(name: str) -> dict[str, dict[str, Any]]:
    """The method's own settings, its views and its training, as the recipe has them."""
    kind, block = find(name), f"methods.{name}"
    schemas = {block: kind, f"{block}.views": Over("views", kind.Views), f"{block}.train": Over("train", fit)}
    found = read(schemas, RECIPE)
    return {"method": found[block], "views": found[f"{block}.views"], "train": found[f"{block}.train"]}


def make_encoder(name: str, seed: int, dataset: Dataset) -> Encoder:
    """The same weights for both sides."""
    torch.manual_seed(derive(seed, "init"))
    return Encoder(dataset.format.channels, dataset.format.size, **ENCODERS["vit" if name == "mae" else "resnet"])


def ours(name: str, seed: int, dataset: Dataset, epochs: int) -> tuple[Encoder, Iterator[Any]]:
    """Our method's encoder, and its steps."""
    settings, kind = settings_of(name), find(name)
    method = kind(make_encoder(name, seed, dataset), **settings["method"])
    views = kind.Views(dataset.format, **settings["views"])
    return method.encoder, fit(method, views, dataset, CPU, seed, **{**settings["train"], "epochs": epochs})


def theirs(name: str, seed: int, dataset: Dataset, epochs: int) -> tuple[Encoder, Iterator[Any]]:
    """Lightly's encoder, and its steps."""
    settings = settings_of(name)
    method = Theirs(name, make_encoder(name, seed, dataset), settings["method"])
    return method.encoder, _plain_loop(name, method, dataset, settings, epochs)


def _plain_loop(name: str, method: Theirs, dataset: Dataset, settings: dict[str, Any], epochs: int) -> Iterator[None]:
    train = settings["train"]
    pictures = Pictures(dataset, transform_of(name, dataset.format, settings["views"]))
    loader = DataLoader(pictures, batch_size=train["batch_size"], shuffle=True, drop_last=True)
    updates = make_optimizer(method, train["optimizer"], train["lr"], train["weight_decay"], train.get("momentum", 0.9))
    steps, done = epochs * len(loader), 0
    for _ in range(epochs):
        for views in loader:
            for group in updates.param_groups:
                group["lr"] = train["lr"] * warmup_cosine(done, steps, train["warmup"])
            loss = method.step(views, done / steps)
            updates.zero_grad()
            loss.backward()
            updates.step()
            done += 1
            yield


SIDES = {"sslflow": ours, "lightly": theirs}


def prepared() -> Dataset:
    """The fashion sample."""
    folder = WORK / "prepared"
    settings: dict[str, Any] = {"source": "samples:fashion", "image_size": 28, "channels": 1}
    make(folder, settings, ("data", "ingest"), lambda: prepare(folder, print, **settings))
    return Dataset(folder)


def result_file(name: str, side: str, seed: int) -> Path:
    """Where a run's result is kept: another name for other settings."""
    content = json.dumps([settings_of(name), ENCODERS, EPOCHS], sort_keys=True, default=str)
    return WORK / f"{name}-{side}-{seed}-{derive(0, content):016x}.json"


def code(name: str) -> dict[str, str]:
    """The code of ours that a method reaches today."""
    return code_of(("pretrain", "probe"), f"sslflow.methods.images.{name}")


def accuracy(name: str, side: str, seed: int) -> dict[str, float]:
    """Train one side, probe it, keep the result."""
    file = result_file(name, side, seed)
    if file.exists():
        return read_json(file)
    torch.set_num_threads(1)
    dataset = prepared()
    started = time.process_time()
    encoder, steps = SIDES[side](name, seed, dataset, EPOCHS)
    torch.manual_seed(seed)
    for _ in steps:
        pass
    seconds = time.process_time() - started
    train, test = dataset.labelled_rows("train"), dataset.labelled_rows("test")
    x_train, x_test = (torch.from_numpy(extract(encoder, dataset, rows, CPU)) for rows in (train, test))
    y_train, y_test = (torch.from_numpy(dataset.labels[rows]) for rows in (train, test))
    classes = len(dataset.classes)
    probe = fit_linear(x_train, y_train, classes, derive(seed, "probe"), tolerance=3e-4)
    found = {
        "linear": float((probe.predict(x_test) == y_test).float().mean()),
        "knn": float((knn_predict(x_train, y_train, x_test, classes) == y_test).float().mean()),
        "seconds": seconds,
    }
    write_json(file, {**found, "commit": commit(), "code": code(name)})
    print(f"{name} {side} {seed}: linear {100 * found['linear']:.1f} %, {seconds:.0f} s", flush=True)
    return found


def speed(name: str) -> tuple[float, float, float]:
    """Images a second of ours, of theirs, and the median over the rounds of their ratio; steps take turns."""
    dataset = prepared()
    steps = [side(name, 0, dataset, 1000)[1] for side in SIDES.values()]
    batch = settings_of(name)["train"]["batch_size"]
    rounds: list[list[float]] = []
    for number in range(ROUNDS + 1):
        pair = []
        for one in steps:
            started = time.perf_counter()
            next(one)
            pair.append(time.perf_counter() - started)
        if number:
            rounds.append(pair)
    ours_, theirs_ = (statistics.median(batch / pair[side] for pair in rounds) for side in (0, 1))
    return ours_, theirs_, statistics.median(pair[1] / pair[0] for pair in rounds)


def table(methods: list[str], seeds: list[int], speeds: dict[str, tuple[float, float, float]]) -> Iterator[str]:
    """The comparison in Markdown."""
    now = datetime.datetime.now(datetime.UTC).date()
    yield (
        f"{platform.machine()}, one thread, Python {platform.python_version()}, torch {torch.__version__}, lightly "
        f"{lightly.__version__}; {now}. fashion, {EPOCHS} epochs, {len(seeds)} seeds, accuracy on the test images in %."
    )
    yield ""
    pairs = [f"{metric}, {side}" for metric in ("linear", "kNN", "img/s") for side in SIDES]
    yield f"| | {' | '.join(pairs)} | ratio |"
    yield f"|---|{'---|' * len(pairs)}---|"
    others = {
        name: [other_code(read_json(result_file(name, side, seed)), code(name)) for side in SIDES for seed in seeds]
        for name in methods
    }
    for name in methods:
        cells = []
        for metric in ("linear", "knn"):
            for side in SIDES:
                values = [100 * read_json(result_file(name, side, seed))[metric] for seed in seeds]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.fmean(values):.1f}{spread}")
        fast, slow, ratio = speeds[name]
        mark = " ‡" if any(others[name]) else ""
        yield f"| {name}{mark} | {' | '.join(cells)} | {fast:.0f} | {slow:.0f} | {ratio:.1f} |"
    yield from note(others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side, one thread each")
    parser.add_argument("--table", type=Path, help="write the table to this file, between its marks")
    asked = parser.parse_args()
    prepared()
    with ProcessPoolExecutor(asked.jobs) as workers:
        for outcome in [
            workers.submit(accuracy, name, side, seed)
            for seed in asked.seeds
            for name in asked.methods
            for side in SIDES
        ]:
            outcome.result()
    torch.set_num_threads(1)
    show(table(asked.methods, asked.seeds, {name: speed(name) for name in asked.methods}), asked.table, "lightly")


if __name__ == "__main__":
    main()
