"""How time and memory grow with the number of images: `python -m benchmarks.scale`.

Each number is of a process of its own, on one thread, on Linux: seconds of the processor, and how much larger the
process became than it was with its input. What has been measured is kept in work/scale.json and not measured again; the
tables of docs/scale.md are printed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.processor import used
from sslflow.clustering.kmeans import kmeans
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat, described
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.evaluation.same_class import find_same
from sslflow.features.extract import write_features
from sslflow.ingest.images.book import COLUMNS, Book, tasks
from sslflow.ingest.images.captioned import Captioned
from sslflow.ingest.images.decode import MAX_PIXELS, decode
from sslflow.ingest.images.encoded import EncodedWriter, encode
from sslflow.ingest.images.examine import Examined, Work
from sslflow.ingest.images.losses import Losses
from sslflow.ingest.images.measured import Measured
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.images.sources import open_source
from sslflow.ingest.images.together import Together
from sslflow.ingest.images.truths import Truths
from sslflow.ingest.listing import write_listing
from sslflow.ingest.shards import Moments
from sslflow.networks.encoder import Encoder
from sslflow.runtime.files import write_json
from sslflow.runtime.turns import Turns
from sslflow.training.epochs import Epochs

FILE = Path("work/scale.json")
ROWS = (10_000, 100_000, 1_000_000)
DIM, SIDE, QUERIES = 128, 32, 2_000
PER_FOLDER = 1_000


def features(rows: int) -> torch.Tensor:
    """Of 300 groups that overlap, the same in every process."""
    numbers = np.random.default_rng(0)
    middles = numbers.normal(size=(300, DIM)).astype(np.float32)
    found = numbers.standard_normal((rows, DIM), dtype=np.float32)
    found *= 1.5
    for start in range(0, rows, 65_536):
        part = found[start : start + 65_536]
        part += middles[numbers.integers(0, 300, len(part))]
    return torch.from_numpy(found)


def labels(rows: int) -> torch.Tensor:
    """Classes 0 to 99."""
    return torch.arange(rows) % 100


def files(root: Path, rows: int) -> None:
    """Names of image files without a content of their own: links to some, of which each may have 10,000."""
    content = encode(np.zeros((3, SIDE, SIDE), np.uint8), 90)
    for number in range(rows):
        place = root / f"{number // PER_FOLDER:04d}"
        if number % PER_FOLDER == 0:
            place.mkdir(parents=True)
        first = root / f"{number // 10_000 * 10_000 // PER_FOLDER:04d}" / "0.jpg"
        file = place / f"{number % PER_FOLDER}.jpg"
        if number % 10_000 == 0:
            file.write_bytes(content)
        else:
            file.hardlink_to(first)


def pictures(rows: int) -> Iterator[bytes]:
    """Small images as JPEG, no two alike."""
    numbers = np.random.default_rng(0)
    for _ in range(rows):
        small = numbers.integers(0, 256, (3, 8, 8), dtype=np.uint8)
        yield encode(small.repeat(4, 1).repeat(4, 2), 90)


def filled(folder: Path, rows: int) -> None:
    """A prepared data set, of the same few images over and over."""
    folder.mkdir()
    few = list(pictures(64))
    with EncodedWriter(folder, COLUMNS) as writer:
        for row in range(rows):
            name = f"{row // PER_FOLDER:04d}/{row % PER_FOLDER}.jpg"
            known = {"path": name, "split": "pool", "label": -1, "group": name, "width": SIDE, "height": SIDE}
            digest = f"{row:064x}"
            writer.add({"images": few[row % 64]}, {**known, "sha256": digest, "pixels": digest[32:]}, Moments())
    form = ImageFormat(3, SIDE, (0.5,) * 3, (0.25,) * 3)
    stored = {"side": SIDE, "quality": 90}
    write_json(folder / "dataset.json", {**described(form, ()), "stored": stored})


def list_files(rows: int, folder: Path) -> Callable[[], object]:
    files(folder / "raw", rows)
    return lambda: write_listing(folder / "data.csv", source="folder", path=str(folder / "raw"))


def find_images(rows: int, folder: Path) -> Callable[[], object]:
    files(folder / "raw", rows)

    def job() -> int:
        source = open_source("folder", folder / "raw", seed=0, test_fraction=0.2, label="category")
        return sum(1 for _ in source.records())

    return job


def prepare_images(rows: int, folder: Path) -> Callable[[], object]:
    for number, content in enumerate(pictures(rows)):
        place = folder / "raw" / f"{number // PER_FOLDER:04d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number % PER_FOLDER}.jpg").write_bytes(content)
    settings = {"source": "folder", "path": str(folder / "raw"), "image_size": SIDE, "channels": 3, "workers": 1}
    return lambda: prepare(folder / "out", lambda line: None, **settings, store="jpeg", stored_side=SIDE)


def first_image(rows: int, folder: Path) -> Callable[[], object]:
    files(folder / "raw", rows)

    def job() -> None:
        source = open_source("folder", folder / "raw", seed=0, test_fraction=0.2, label="category")
        book = Book(Losses("full"), Truths(source), Captioned(None), Measured(None), drop=True)
        work = Work(partial(decode, size=SIDE, channels=3))
        together = Together(folder / "parts", Turns())
        found = together.examine_all(tasks(source, book, 3 * SIDE**2), work, 1, MAX_PIXELS)
        with contextlib.closing(found):
            assert isinstance(next(found), Examined)

    return job


def write_shards(rows: int, folder: Path) -> Callable[[], object]:
    return lambda: filled(folder / "out", rows)


def first_batch(rows: int, folder: Path) -> Callable[[], object]:
    filled(folder / "out", rows)

    def job() -> None:
        dataset = Dataset(folder / "out")
        cpu = torch.device("cpu")
        examples = dataset.for_views(True, cpu)
        epochs = Epochs(examples, dataset.pretraining_rows, 256, cpu)
        next(epochs.batches(torch.randperm(len(dataset)), 0, lambda rows, _: examples.read(rows)))

    return job


def extract_features(rows: int, folder: Path) -> Callable[[], object]:
    filled(folder / "out", rows)
    encoder = Encoder(3, SIDE, name="resnet10", width=4, stem_stride=2)
    return lambda: write_features(folder / "features", encoder, "", Dataset(folder / "out"), torch.device("cpu"))


def cluster(rows: int, folder: Path) -> Callable[[], object]:
    table = features(rows)
    return lambda: kmeans(table, 0, clusters=100, metric="cosine", restarts=1, iterations=20)


def neighbours(rows: int, folder: Path) -> Callable[[], object]:
    table, queries = features(rows), features(QUERIES)
    return lambda: knn_predict(table, labels(rows), queries, 100)


def retrieve(rows: int, folder: Path) -> Callable[[], object]:
    table, queries = features(rows), features(200)
    return lambda: find_same(table, labels(rows), queries, labels(200))


def probe(rows: int, folder: Path) -> Callable[[], object]:
    table = features(rows)
    fit_linear(table[:200], labels(200), 100, 0, iterations=1)  # what torch loads for its first optimizer, 150 MiB
    return lambda: fit_linear(table, labels(rows), 100, 0, regularisation=(0.01,), iterations=10)


MEASURED: dict[str, tuple[Callable[[int, Path], Callable[[], object]], int]] = {
    "scan: the list of files": (list_files, ROWS[2]),
    "prepare: finding the images": (find_images, ROWS[2]),
    "prepare: to the first image decoded": (first_image, ROWS[2]),
    "prepare: writing shards and manifest": (write_shards, ROWS[2]),
    "pretrain: to the first batch": (first_batch, ROWS[2]),
    "extract: by a ResNet-10 of width 4": (extract_features, ROWS[1]),
    "pseudolabel: K-means, 100 clusters, 20 steps": (cluster, ROWS[2]),
    f"probe: kNN, {QUERIES:,} queries": (neighbours, ROWS[2]),
    "probe: retrieval, 200 queries": (retrieve, ROWS[2]),
    "probe: linear, 10 steps": (probe, ROWS[2]),
    "prepare: all of it, images of 32 pixels": (prepare_images, ROWS[1]),
}
"""What is measured, and up to how many rows."""


def measure(name: str, rows: int) -> dict[str, float]:
    """In this process: what it takes, once its input is there."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        job = MEASURED[name][0](rows, Path(folder))
        Path("/proc/self/clear_refs").write_text("5")  # the largest so far is the present one
        before, own = largest(), used()
        job()
        return {"seconds": round(used() - own, 3), "mib": round((largest() - before) / 2**10, 1)}


def largest() -> int:
    """KiB of this process at its largest, mapped files among them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def tables(kept: dict[str, dict[str, float]]) -> Iterator[str]:
    """As docs/scale.md has them."""
    yield "| | " + " | ".join(f"{rows:,}" for rows in ROWS) + " |"
    yield "|---|" + "---|" * len(ROWS)
    for name in MEASURED:
        cells = []
        for rows in ROWS:
            one = kept.get(f"{name} | {rows}")
            cells.append(f"{one['seconds']:.1f} s, {max(0, one['mib']):,.0f} MiB" if one else "–")
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=ROWS[-1], help="rows, at most")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "ROWS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, rows = arguments.one[0], int(arguments.one[1])
        print(json.dumps(measure(name, rows)))
        return
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    wanted = [
        (name, rows)
        for rows in (ROWS[0], *ROWS[:0:-1])
        for name, (_, most) in MEASURED.items()
        if rows <= min(most, arguments.most)
    ]
    for name, rows in wanted:
        if f"{name} | {rows}" in kept:
            continue
        command = [sys.executable, "-m", "benchmarks.scale", "--one", name, str(rows)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        kept[f"{name} | {rows}"] = json.loads(told.splitlines()[-1])
        print(f"{name}, {rows:,}: {kept[f'{name} | {rows}']}", flush=True)
        write_json(FILE, kept)
    print("\n".join(tables(kept)))


if __name__ == "__main__":
    main()
