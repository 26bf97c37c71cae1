"""Our methods beside lightly's parts for the same methods: `python -m benchmarks.beside_lightly`.

On both sides the same encoder, images, number of images seen, batch size, optimiser and learning rates, widths of heads
and strengths of augmentation (those of recipes/full.yaml), on the fashion sample, one CPU thread. Lightly's side is the
plain loop of its own examples: its transforms on PIL images in a DataLoader, its heads and its losses.

Speed: steps of both take turns in one process, and images a second and their ratio are medians over the rounds, by the
time of the processor, of all threads, and by the clock: on a machine that others use only the first is fair. Accuracy:
a linear classifier and kNN on the frozen features, tested on the test images. Each run is kept in
work/benchmarks/lightly when it is done and not run again; speeds are measured again where the code is another.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import lightly
import torch
from torch.utils.data import DataLoader

from benchmarks.kept import code_of, commit, make, note, other_code
from benchmarks.lightly_methods import Pictures, Theirs, transform_of
from benchmarks.methods_runs import ENCODERS
from benchmarks.tables import show
from sslflow.data.dataset import Dataset
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
ROUNDS = 15
CLOCKS = {"processor": time.process_time, "clock": time.perf_counter}
METHODS = ("simclr", "moco_v2", "byol", "barlow_twins", "vicreg", "dino", "swav", "mae")


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


def result_file(name: str, what: str) -> Path:
    """Where a result is kept: another name for other settings. `what`: side and seed, or `speed`."""
    content = json.dumps([settings_of(name), ENCODERS, EPOCHS], sort_keys=True, default=str)
    return WORK / f"{name}-{what}-{derive(0, content):016x}.json"


def code(name: str) -> dict[str, str]:
    """The code of ours that a method reaches today."""
    return code_of(("pretrain", "probe"), f"sslflow.methods.images.{name}")


def accuracy(name: str, side: str, seed: int) -> dict[str, float]:
    """Train one side, probe it, keep the result."""
    file = result_file(name, f"{side}-{seed}")
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


def speed(name: str) -> dict[str, dict[str, float]]:
    """By each clock, images a second of both sides and the ratio of ours to theirs; keep them."""
    file, now = result_file(name, "speed"), code(name)
    if file.exists() and (kept := read_json(file))["code"] == now:
        return kept
    dataset = prepared()
    steps = {label: side(name, 0, dataset, 1000)[1] for label, side in SIDES.items()}
    batch = settings_of(name)["train"]["batch_size"]
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(ROUNDS + 1):
        taken: dict[str, dict[str, float]] = {clock: {} for clock in CLOCKS}
        for label, one in steps.items():
            started = {clock: read_clock() for clock, read_clock in CLOCKS.items()}
            next(one)
            for clock, read_clock in CLOCKS.items():
                taken[clock][label] = read_clock() - started[clock]
        if number:
            rounds.append(taken)
    found = {
        clock: {label: statistics.median(batch / taken[clock][label] for taken in rounds) for label in SIDES}
        | {"ratio": statistics.median(taken[clock]["lightly"] / taken[clock]["sslflow"] for taken in rounds)}
        for clock in CLOCKS
    }
    write_json(file, {**found, "commit": commit(), "code": now})
    print(f"{name}: {found['processor']['ratio']:.2f} by the processor", flush=True)
    return found


def table(methods: list[str], seeds: list[int]) -> Iterator[str]:
    """The comparison in Markdown."""
    now = datetime.datetime.now(datetime.UTC).date()
    yield (
        f"{platform.machine()}, one thread, Python {platform.python_version()}, torch {torch.__version__}, lightly "
        f"{lightly.__version__}; {now}. fashion, {EPOCHS} epochs, seeds {', '.join(map(str, seeds))}, accuracy on the "
        f"test images in %; speeds are medians of {ROUNDS} rounds."
    )
    yield ""
    pairs = [f"{metric}, {side}" for metric in ("linear", "kNN", "img/s of the processor") for side in SIDES]
    yield f"| | {' | '.join(pairs)} | ratio | ratio by the clock |"
    yield f"|---|{'---|' * len(pairs)}---|---|"
    runs = {name: [[result_file(name, f"{side}-{seed}") for seed in seeds] for side in SIDES] for name in methods}
    others = {
        name: [other_code(read_json(file), code(name)) for side in runs[name] for file in side] for name in methods
    }
    for name in methods:
        cells = []
        for metric in ("linear", "knn"):
            for side in runs[name]:
                values = [100 * read_json(file)[metric] for file in side]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.fmean(values):.1f}{spread}")
        by = speed(name)
        cells += [f"{by['processor'][side]:.0f}" for side in SIDES] + [f"{by[clock]['ratio']:.1f}" for clock in CLOCKS]
        mark = " ‡" if any(others[name]) else ""
        yield f"| {name}{mark} | {' | '.join(cells)} |"
    yield from note(others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
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
    show(table(asked.methods, asked.seeds), asked.table, "lightly")


if __name__ == "__main__":
    main()
