"""What else a GPU may do: JPEG, K-means and nearest neighbours, beside the CPU."""

from __future__ import annotations

import functools
import io
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu_data import GREY, numbers, pictures
from benchmarks.gpu_report import Line, Report
from benchmarks.gpu_speed import synchronize
from sslflow.clustering.kmeans import kmeans
from sslflow.data.encoded import EncodedImages, Stored
from sslflow.data.formats import ImageFormat
from sslflow.evaluation.knn import knn_predict

CPU = torch.device("cpu")
ROUNDS = 2
BATCH = 256
CLASSES = 10


@dataclass(frozen=True)
class Asked:
    """How much of it."""

    images: int
    side: int
    points: int
    dim: int
    clusters: int


FULL = Asked(2048, 256, 60_000, 128, 100)
SMALL = Asked(4, 32, 200, 8, 5)


def shard(folder: Path, asked: Asked) -> EncodedImages:
    """JPEG images as `prepare` keeps them, of quality 90."""
    folder.mkdir()
    contents = []
    for image in pictures(min(BATCH, asked.images), 3, asked.side).permute(0, 2, 3, 1).numpy():
        written = io.BytesIO()
        Image.fromarray(image).save(written, "JPEG", quality=90)
        contents.append(written.getvalue())
    contents = [contents[number % len(contents)] for number in range(asked.images)]
    (folder / "images-00000.jpegs").write_bytes(b"".join(contents))
    lengths = np.array([len(content) for content in contents])
    columns = {
        "shard": np.zeros(len(contents), np.int64),
        "start": np.cumsum(lengths) - lengths,
        "length": lengths,
        "crc32": np.array([zlib.crc32(content) for content in contents]),
    }
    return EncodedImages(folder, Stored(asked.side, 90), ImageFormat(3, asked.side, *GREY), columns)


def decoding(folder: Path, asked: Asked, device: torch.device, line: Line) -> None:
    """Images of JPEG shards to the device, decoded there, and decoded by the CPU's threads and copied."""
    images = shard(folder / "jpeg", asked)
    parts = np.array_split(np.arange(asked.images), max(1, asked.images // BATCH))

    def there() -> None:
        for rows in parts:
            images.read(rows, device=device)

    def here() -> None:
        for rows in parts:
            images.read(rows).to(device)

    compare(line, device, there, here)
    line.values |= {f"images/s, {side}": asked.images / line.values[f"{side}, s"] for side in ("device", "CPU")}
    rows = parts[0][:8]
    apart = images.read(rows, device=device).cpu().float() - images.read(rows).float()
    line.note = f"{asked.side} px; pixels differ by {float(apart.abs().mean()):.2f} of 255 in the mean"


def clustering(asked: Asked, device: torch.device, line: Line) -> None:
    """K-means from the same start, one restart."""
    points = blobs(asked)
    found: dict[str, float] = {}

    def on(place: torch.device) -> Callable[[], None]:
        here = points.to(place)

        def run() -> None:
            found[place.type] = kmeans(here, 0, clusters=asked.clusters, metric="euclidean", restarts=1).inertia

        return run

    compare(line, device, on(device), on(CPU))
    line.values["difference of inertia"] = abs(found[device.type] / found["cpu"] - 1)
    line.note = f"{asked.points:,} x {asked.dim}, {asked.clusters} clusters"


def neighbours(asked: Asked, device: torch.device, line: Line) -> None:
    """A class for each of a sixth of the points by the others."""
    points, queries = blobs(asked), asked.points // 6
    labels = torch.arange(asked.points) % CLASSES
    found: dict[str, torch.Tensor] = {}

    def on(place: torch.device) -> Callable[[], None]:
        bank, known = points.to(place), labels.to(place)

        def run() -> None:
            found[place.type] = knn_predict(bank[queries:], known[queries:], bank[:queries], CLASSES).cpu()

        return run

    compare(line, device, on(device), on(CPU))
    line.values["answers alike, %"] = 100 * float((found[device.type] == found["cpu"]).float().mean())
    line.note = f"{queries:,} queries, {asked.points - queries:,} x {asked.dim}"


def blobs(asked: Asked) -> torch.Tensor:
    """Points around as many centres as there are to be clusters."""
    drawn = numbers("blobs")
    centres = torch.randn(asked.clusters, asked.dim, generator=drawn)
    which = torch.randint(asked.clusters, (asked.points,), generator=drawn)
    return centres[which] + torch.randn(asked.points, asked.dim, generator=drawn)


def compare(line: Line, device: torch.device, there: Callable[[], Any], here: Callable[[], Any]) -> None:
    """Seconds of both, the faster of the rounds."""
    for title, work in (("device, s", there), ("CPU, s", here)):
        took = []
        for _ in range(ROUNDS):
            synchronize(device)
            started = time.perf_counter()
            work()
            synchronize(device)
            took.append(time.perf_counter() - started)
        line.values[title] = min(took)
    line.values["CPU : device"] = line.values["CPU, s"] / line.values["device, s"]


def others(report: Report, device: torch.device, folder: Path, asked: Asked) -> None:
    """A line for each."""
    report.measure("others", "JPEG shards", functools.partial(decoding, folder, asked, device))
    report.measure("others", "K-means", functools.partial(clustering, asked, device))
    report.measure("others", "nearest neighbours", functools.partial(neighbours, asked, device))
