"""What the stages before the report leave behind, made up: for tests of the report alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sslflow import paths
from sslflow.data.formats import ImageFormat, described
from sslflow.evaluation.efficiency import write_few
from sslflow.runtime.files import write_csv, write_json, write_metrics


def dataset(
    folder: Path,
    counts: dict[str, int],
    classes: Sequence[str] = (),
    *,
    channels: int = 1,
    size: int = 12,
    names: Sequence[str] = (),
) -> np.ndarray:
    """A prepared data set of blobs whose place tells their class; returns the class of each row (-1: none)."""
    draw = np.random.default_rng(0)
    total = sum(counts.values())
    kind = draw.integers(0, max(1, len(classes)), total)
    images = draw.integers(0, 60, (total, channels, size, size), dtype=np.uint8)
    for row, number in enumerate(kind):
        y, x = divmod(int(number), 3)
        images[row, :, 3 * y % size : 3 * y % size + 4, 4 * x : 4 * x + 4] += 180
    labels = kind if classes else np.full(total, -1)
    folder.mkdir(parents=True)
    np.save(folder / "images-00000.npy", images)
    shown = [*names, *(f"picture {row}.png" for row in range(len(names), total))]
    manifest = {
        "row": np.arange(total),
        "shard": np.zeros(total, dtype=np.int64),
        "index": np.arange(total),
        "path": shown,
        "split": [split for split, count in counts.items() for _ in range(count)],
        "label": labels,
        "group": shown,
        "width": np.full(total, size),
        "height": np.full(total, size),
        "sha256": ["0"] * total,
        "pixels": ["0"] * total,
    }
    pq.write_table(pa.table(manifest), folder / "manifest.parquet")
    form = ImageFormat(channels, size, (0.5,) * channels, (0.2,) * channels)
    write_json(folder / "dataset.json", described(form, classes))
    return labels


def features(method: str, seed: int, labels: np.ndarray, dim: int = 16, spread: float = 0.4) -> None:
    """Features that stand around a point of their own for each class."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(int(labels.max()) + 2, dim))
    array = (centres[labels] + spread * draw.normal(size=(len(labels), dim))).astype(np.float32)
    folder = paths.features(method, seed)
    folder.mkdir(parents=True)
    np.save(folder / "features.npy", array)
    write_json(folder / "meta.json", {"encoder_sha256": "0"})


def curve(method: str, seed: int, steps: int = 20, start: float = 5.0) -> None:
    """A curve that falls; its last RankMe was not measured."""
    rows = [
        [step, step / 10, start / step + seed / 10, 1e-3, 0.1 + step / 100, 10 + step / 2 if step < steps else "", 0.5]
        for step in range(1, steps + 1)
    ]
    columns = ["step", "epoch", "loss", "lr", "feature_std", "rankme", "accuracy"]
    write_csv(paths.curve(method, seed), columns, rows)


def metrics(stage: str, name: str, seed: int, **values: float) -> None:
    """The metrics file of one run."""
    write_metrics(paths.metrics(stage, paths.run_name(name, seed)), values)


def verdict(method: str, seed: int, *sick: str) -> None:
    """The verdict on a run: healthy, or what is named as sick."""
    found = [{"kind": kind, "words": f"It is {kind}.", "advice": "Try less.", "sick": True} for kind in sick]
    healthy = [{"kind": "healthy", "words": "Healthy: it learns.", "advice": "", "sick": False}]
    write_json(paths.verdict(method, seed), found or healthy)


def clusters(method: str, seed: int, labels: np.ndarray) -> None:
    """Clusters that are the classes, their sheet and their metrics."""
    folder = paths.pseudolabels(method, seed)
    folder.mkdir(parents=True)
    own = np.maximum(labels, 0).astype(np.int32)
    zeros = np.zeros(len(own), dtype=np.float32)
    table = pa.table({"row": np.arange(len(own)), "cluster": own, "distance": zeros, "margin": zeros})
    pq.write_table(table, folder / "labels.parquet")
    Image.new("RGB", (300, 200), "white").save(folder / "clusters.png")
    agreement = {"nmi": 0.7, "purity": 0.8} if (labels >= 0).any() else {}
    metrics("pseudolabel", method, seed, clusters=int(own.max()) + 1, size_min=1, size_max=9, **agreement)


def few(name: str, seed: int, labels: np.ndarray, rows: np.ndarray, classes: Sequence[str], every: int) -> None:
    """With 3 and 9 labels, two draws of each, all but every second or third answer is wrong; with all labels every
    answer is right but for the `every`th."""
    actual = labels[rows]
    fits = {
        ("linear", way, count, draw): np.where(np.arange(len(rows)) % part == draw, actual, (actual + 1) % len(classes))
        for way, count, part in (("share", 3, 3), ("share", 9, 2), ("each", 1, 3))
        for draw in (0, 1)
    }
    write_few(paths.few(name, seed), rows, actual, fits)
    predicted = [(label + (number % every == 0)) % len(classes) for number, label in enumerate(actual)]
    lines = [
        [row, classes[one], classes[guess], classes[guess], 0.5 + 0.2 * (guess == one)]
        for row, one, guess in zip(rows, actual, predicted, strict=True)
    ]
    write_csv(paths.predictions(name, seed), ["row", "actual", "predicted", "neighbours", "map"], lines)


def whole(methods: Sequence[str], seeds: Sequence[int], classes: Sequence[str], counts: dict[str, int]) -> np.ndarray:
    """Everything that a labelled run leaves, in the current folder; returns the labels."""
    labels = dataset(paths.PREPARED, counts, classes)
    test = np.arange(sum(counts.values()))[-counts["test"] :]
    for place, method in enumerate(methods):
        write_metrics(paths.metrics("preview", method), {"views": 9000.0, "encoder_fp32_channels_last": 2100.0})
        paths.views(method).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 100), "white").save(paths.views(method))
        for seed in seeds:
            features(method, seed, labels, spread=0.4 + 0.2 * place)
            curve(method, seed)
            verdict(method, seed, *(["flat"] if place and seed else []))
            paths.pictures(method, seed).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (200, 100), "white").save(paths.pictures(method, seed))
            clusters(method, seed, labels)
            few(method, seed, labels, test, classes, 5)
            metrics("pretrain", method, seed, rankme=30.0 + seed, seconds=90.0, loss=1.0, feature_std=0.3)
            metrics(
                "probe",
                method,
                seed,
                linear=0.85 - 0.05 * place + 0.01 * seed,
                knn=0.8,
                map=0.6,
                recall1=0.7,
                seconds=3.0,
            )
            metrics("finetune", method, seed, finetune_10pct=0.88, finetune_1pct=0.7 + 0.02 * seed)
    for seed in seeds:
        few("random", seed, labels, test, classes, 4)
        metrics("probe", "random", seed, linear=0.7, knn=0.6, map=0.5, recall1=0.6)
        metrics("probe", "pixels", seed, linear=0.75, knn=0.72)
        metrics("finetune", "scratch", seed, finetune_10pct=0.8, finetune_1pct=0.6)
    return labels
