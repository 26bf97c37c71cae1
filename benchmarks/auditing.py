"""Which of the faults planted into a set the audit finds: `python -m benchmarks.auditing`.

A copy of 1 % of the test images among the images to train on (a third each saved again as JPEG, moved by a pixel, made
darker), 20 blank images with a little noise, and 5 % of all labels changed at random, in each draw others; then `audit`
as its defaults are. A folder of class folders can be looked at in the same way: `--folder`.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from benchmarks.kept import make
from benchmarks.tables import replace_table
from sslflow.audit.findings import Audit, Found, audit
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat, described
from sslflow.data.splits import NO_LABEL, TEST, TRAIN
from sslflow.features.extract import extract
from sslflow.features.pixels import pixels
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.shards import ShardWriter
from sslflow.networks.starts import Start
from sslflow.networks.weights import given
from sslflow.runtime.files import write_json

WORK = Path("work/benchmarks/auditing")
SETS: dict[str, dict[str, Any]] = {
    "fashion": {"source": "samples:fashion", "image_size": 28, "channels": 1},
    "emoji": {"source": "samples:emoji", "image_size": 32, "channels": 3},
    "digits": {"source": "samples:digits/clean", "image_size": 28, "channels": 1},
    "digits/photo": {"source": "samples:digits/photo", "image_size": 28, "channels": 3},
}
TUNED = ("fashion", "emoji")
"""Sets on which the audit's limits were chosen, with the faults of draw 0."""
PIXELS = "pixels"
SIDE = 96
"""Pixels to which smaller images are brought for weights."""
BLANK = 20
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Planted:
    """A set with faults in it, and where they are."""

    dataset: Dataset
    copies: set[tuple[str, str]]
    """Paths of a test image and of its copy."""
    blank: set[str]
    wrong: set[str]
    """Paths of images whose label was changed."""


def saved_again(image: np.ndarray) -> np.ndarray:
    """Pixels `(channels, height, width)` after JPEG of quality 75."""
    buffer = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(buffer, "JPEG", quality=75)
    read = np.asarray(Image.open(buffer))
    return read[None] if read.ndim == 2 else read.transpose(2, 0, 1)


def moved(image: np.ndarray) -> np.ndarray:
    """A pixel to the right; at the border there is more of the same."""
    return np.pad(image, ((0, 0), (0, 0), (1, 0)), mode="edge")[:, :, :-1]


def darker(image: np.ndarray) -> np.ndarray:
    return (0.8 * image + 10).astype(np.uint8)


CHANGES: tuple[Callable[[np.ndarray], np.ndarray], ...] = (saved_again, moved, darker)


def plant(source: Dataset, folder: Path, draw: int) -> Planted:
    """Write the images of `source` to `folder` again, with faults."""
    rng = np.random.default_rng(draw)
    count, classes, shape = len(source), len(source.classes), (source.format.channels, *2 * (source.format.size,))
    test = source.rows(TEST)
    copied = rng.choice(test, max(len(CHANGES), round(0.01 * len(test))), replace=False)
    labels = source.labels.copy()
    labelled = np.flatnonzero(labels != NO_LABEL)
    wrong = rng.choice(labelled, round(0.05 * len(labelled)), replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    names = ("path", "split", "group", "width", "height")
    columns = {name: source.column(name) for name in names}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kinds = (("width", pa.int32()), ("height", pa.int32()))
    copies, blank = set(), set()
    with ShardWriter(folder, {"images": ("|u1", shape)}, kinds, "images") as writer:
        for row in range(count):
            known = {name: columns[name][row] for name in names}
            writer.add({"images": _image(source, row)}, {**known, "label": int(labels[row])})
        own = {"split": TRAIN, "width": source.format.size, "height": source.format.size}
        for number, row in enumerate(copied.tolist()):
            path = f"planted/copy-{number}.png"
            copies.add((str(columns["path"][row]), path))
            changed = CHANGES[number % len(CHANGES)](_image(source, row))
            writer.add({"images": changed}, {**own, "path": path, "group": path, "label": int(source.labels[row])})
        for number in range(BLANK):
            path = f"planted/blank-{number}.png"
            blank.add(path)
            grey = np.clip(rng.integers(0, 256) + rng.normal(0, 1, shape), 0, 255).astype(np.uint8)
            label = int(rng.integers(0, classes))
            writer.add({"images": grey}, {**own, "path": path, "group": path, "label": label})
        mean, std = writer.mean_and_std(TRAIN)
    form = ImageFormat(source.format.channels, source.format.size, mean, std)
    write_json(folder / "dataset.json", described(form, source.classes))
    return Planted(Dataset(folder), copies, blank, {str(columns["path"][row]) for row in wrong})


def _image(source: Dataset, row: int) -> np.ndarray:
    return source.read(np.array([row]))["images"].numpy()[0]


def counts(planted: Planted, found: Found) -> Counter[str]:
    """What was planted, what was found of it, and what else."""
    pairs = {frozenset((line[1], line[5])) for line in found.tables["copies"]}
    blank = {line[1] for line in found.tables["looks"] if line[4] == "blank"}
    doubted = [line[1] for line in found.tables["suspects"]]
    first = {"": len(doubted), " first": len(planted.wrong), " half": len(planted.wrong) // 2}
    return Counter(
        {
            "copies": len(planted.copies),
            "copies found": sum(frozenset(pair) in pairs for pair in planted.copies),
            "pairs": len(pairs),
            "blank": len(planted.blank),
            "blank found": len(blank & planted.blank),
            "blank others": len(blank - planted.blank),
            "wrong": len(planted.wrong),
            **{f"doubted{name}": len(doubted[:count]) for name, count in first.items()},
            **{f"wrong found{name}": len(planted.wrong.intersection(doubted[:count])) for name, count in first.items()},
        }
    )


def _share(found: int, of: int) -> str:
    return f"{100 * found / of:.0f} %" if of else "–"


def table(sets: dict[str, dict[str, Any]], known_by: list[str], draws: range) -> Iterator[str]:
    """A line for each set and what its images are known by: pixels, or weights as in `starts`."""
    folders = {name: WORK / name.replace("/", "-") for name in sets}
    for name, own in sets.items():
        place = folders[name]
        make(place, own, ("data", "ingest"), lambda place=place, own=own: prepare(place, print, **own))
    yield f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; {len(draws)} draws together."
    yield ""
    heads = ["set", "known by", "copies found", "pairs a draw", "blank found", "others"]
    heads += ["wrong labels doubted", "doubted that are wrong", "of the first so many as are wrong", "of half as many"]
    heads += ["classifier right", "seconds"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for (name, folder), known in product(folders.items(), known_by):
        source, total, right, spent = Dataset(folder), Counter[str](), 0.0, 0.0
        for draw in draws:
            planted = plant(source, WORK / f"{folder.name}-planted", draw)
            before = time.monotonic()
            found = audit(planted.dataset, _features(planted.dataset, known), CPU, Audit())
            spent += time.monotonic() - before
            total += counts(planted, found)
            right += found.metrics["out_of_fold"]
        cells = [
            f"{name}, {len(source):,} images{', of its tuning' if name in TUNED else ''}",
            known,
            f"{total['copies found']} of {total['copies']}",
            f"{total['pairs'] / len(draws):.0f}",
            f"{total['blank found']} of {total['blank']}",
            f"{total['blank others'] / len(draws):.0f}",
            _share(total["wrong found"], total["wrong"]),
            *(_share(total[f"wrong found{part}"], total[f"doubted{part}"]) for part in ("", " first", " half")),
            f"{100 * right / len(draws):.0f} %",
            f"{spent / len(draws):.0f}",
        ]
        yield f"| {' | '.join(cells)} |"


def _features(dataset: Dataset, known: str) -> Callable[[np.ndarray], torch.Tensor]:
    if known == PIXELS:
        return lambda rows: pixels(dataset, rows, CPU)
    encoder = given(Start(weights=known, side=max(SIDE, dataset.format.size)), dataset.format)
    return lambda rows: torch.from_numpy(extract(encoder, dataset, rows, CPU))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS)
    parser.add_argument("--folder", type=Path, help="images in a folder for each class, beside the sets")
    parser.add_argument("--size", type=int, default=64, help="pixels, of the folder's images when prepared")
    known = f"{PIXELS}, or weights as in starts; they see {SIDE} pixels at least"
    parser.add_argument("--known-by", nargs="+", default=[PIXELS, "package:efficientnet-lite0"], help=known)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--table", type=Path, help="write the table to this file, between its marks")
    asked = parser.parse_args()
    sets = {name: SETS[name] for name in asked.sets}
    if asked.folder:
        own = {"source": "imagefolder", "path": str(asked.folder), "image_size": asked.size, "channels": 3}
        sets[asked.folder.name] = own
    lines = []
    for line in table(sets, asked.known_by, range(asked.draws)):
        print(line, flush=True)
        lines.append(line)
    if asked.table:
        replace_table(asked.table, "auditing", "\n".join(lines))


if __name__ == "__main__":
    main()
