"""What the pipeline adds to the bare arithmetic, as ratios measured side by side: `python -m benchmarks.speed`.

Each pair of rivals takes turns, so that a machine whose speed drifts treats both alike; the ratio is the median of the
rounds' ratios. One CPU thread, the encoder of recipes/full.yaml, real images from the fashion sample. Training steps:
`benchmarks.steps`.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from sslflow.data.dataset import Dataset
from sslflow.data.normalise import Normalise
from sslflow.features.extract import extract
from sslflow.ingest.images.prepare import prepare
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import place
from sslflow.settings.params import read
from sslflow.views.images import TwoViews

RECIPE = Path(__file__).resolve().parent.parent / "recipes/full.yaml"
CPU = torch.device("cpu")
ROUNDS = 7


def ratio(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Median over the rounds of seconds of `ours` by seconds of `theirs`, and both medians in seconds."""
    times: list[tuple[float, float]] = []
    for number in range(rounds + 2):
        pair = tuple(_seconds(run) for run in (ours, theirs))
        if number >= 2:
            times.append(pair)  # pyright: ignore[reportArgumentType]
    return (
        statistics.median(a / b for a, b in times),
        statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times),
    )


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def extraction(dataset: Dataset) -> tuple[float, float, float]:
    """Extraction from prepared files beside the encoder's forward pass on a tensor in memory."""
    settings = read({"encoder": Encoder}, RECIPE)["encoder"]
    encoder = Encoder(dataset.format.channels, dataset.format.size, **settings)
    rows = np.arange(2048)
    place(encoder.eval(), CPU, "channels_last")
    images = Normalise(dataset.format.mean, dataset.format.std)(dataset.read(rows)["images"]).contiguous(
        memory_format=torch.channels_last
    )

    @torch.no_grad()
    def bare() -> None:
        for part in images.split(256):
            encoder(part.contiguous(memory_format=torch.channels_last))

    return ratio(lambda: extract(encoder, dataset, rows, CPU, batch_size=256), bare)


def augmentation(dataset: Dataset) -> tuple[float, float, float]:
    """Two views of a batch by torchvision, image by image, beside ours of the whole batch, with the same operations."""
    fields = dataset.read(dataset.pretraining_rows[:256])
    ours = TwoViews(dataset.format)
    size = dataset.format.size
    theirs = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4)], p=0.8),
            v2.RandomApply([v2.GaussianBlur(3, (0.1, 2.0))], p=0.5),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(dataset.format.mean, dataset.format.std),
        ]
    )
    return ratio(
        lambda: [torch.stack([theirs(image) for image in fields["images"]]) for _ in range(2)], lambda: ours(fields)
    )


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared"
        prepare(prepared, lambda line: None, source="samples:fashion", image_size=28, channels=1)
        dataset = Dataset(prepared)
        versions = f"Python {sys.version.split()[0]}, torch {torch.__version__}"
        print(f"{platform.machine()}, {versions}, 1 thread, median of {ROUNDS} rounds")
        value, ours, bare = extraction(dataset)
        print(f"extraction        {1 / value:17.2f} of bare    ({2048 / ours:.0f} img/s, {2048 / bare:.0f} img/s)")
        value, theirs, ours = augmentation(dataset)
        print(f"two views         {value:17.1f} x per image ({1e3 * ours:.0f} ms, {1e3 * theirs:.0f} ms)")


if __name__ == "__main__":
    main()
