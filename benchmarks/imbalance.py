"""Do self-supervised features suffer less from classes of different sizes? `python -m benchmarks.imbalance`.

Each row is trained on a long-tailed set and on a balanced one of as many images; a linear classifier on its frozen
features is fitted on balanced labelled images that neither holds, and once more on what the row was trained on. All of
these are drawn anew with each seed. What has been measured with the same settings is not measured again; a run that was
stopped resumes. `--table docs/imbalance.md` writes the tables. Nothing is chosen by test images: settings are those of
recipes/full.yaml, but for the number of epochs.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import platform
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML

from benchmarks.kept import ROOT, make
from benchmarks.methods import ENCODERS, code_of
from benchmarks.stages import run_python
from benchmarks.tables import show
from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.data.splits import TEST, TRAIN, placed
from sslflow.evaluation.intervals import Interval, crossed
from sslflow.evaluation.linear import fit_linear
from sslflow.evaluation.shots import GROUPS, class_weights, linear_terms, shots, spread_terms
from sslflow.features.extract import extract
from sslflow.ingest.images.imbalance import profile, subset, train_sizes
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.records import Item, Record, Source
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder
from sslflow.networks.starts import Start
from sslflow.networks.weights import given
from sslflow.runtime.files import read_json, sha256, write_json
from sslflow.runtime.rng import derive
from sslflow.settings.params import load, lookup

WORK = Path("work/benchmarks/imbalance")
SEEDS = (0, 1, 2)
SETS: dict[str, dict[str, Any]] = {
    "fashion": {"source": "samples:fashion", "image_size": 28, "channels": 1},
    "emoji": {"source": "samples:emoji", "image_size": 32, "channels": 3},
}
SIDES = {"fashion": 56, "emoji": 64}
"""Pixels to which images are brought for the weights."""
LEFT_OUT = {"emoji": ("Component",)}
"""Classes with too few images for a balanced set: this one has 12."""
HELD_OUT = {"fashion": 200, "emoji": 60}
"""Labelled images of each class for the classifier, which no row is trained on: supervised features know the labels of
what they have seen."""
FACTOR = 100.0
KINDS = ("long-tailed", "balanced")
PROBES = {
    "held_out": "balanced labelled images that no row was trained on",
    "own": "the images that the row was trained on",
}
WEIGHTS = "package:efficientnet-lite0"
IMAGES_SEEN = 60_000
CONTINUED_EPOCHS = 4


@dataclass(frozen=True)
class Row:
    """A line of the tables: a method, if one is trained, and whether it goes on from weights that exist."""

    method: str = ""
    continued: bool = False


ROWS = {
    "supervised": Row("supervised"),
    "simclr": Row("simclr"),
    "lite0, as it came": Row(continued=True),
    "deepcluster": Row("deepcluster"),
    "simclr, continued from lite0": Row("simclr", continued=True),
}
COMPARED = ("simclr", "deepcluster", "simclr, continued from lite0")
"""Rows whose gap is compared with that of `supervised`."""


@dataclass(frozen=True)
class Job:
    """One row with one seed on one data set of one kind."""

    data: str
    kind: str
    row: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where its stages run."""
        return WORK / self.data / self.row.replace(", ", "-").replace(" ", "-") / f"{self.kind}-{self.seed}"

    @property
    def result(self) -> Path:
        """What was measured."""
        return self.folder / "result.json"


@cache
def images(data: str, kind: str, seed: int) -> Path:
    """The prepared folder with the images of a kind: `long-tailed`, `balanced`, or `probe`."""
    folder = WORK / "prepared" / f"{data}-{kind}-{seed}"

    def build() -> None:
        prepare(folder, lambda line: None, part=partial(cut, data=data, kind=kind, seed=seed), **SETS[data], workers=1)

    make(folder, [SETS[data], LEFT_OUT.get(data), HELD_OUT[data], FACTOR, kind, seed], ("data", "ingest"), build)
    return folder


def cut(source: Source, data: str, kind: str, seed: int) -> Source:
    """What a kind of images has of a source to train on."""
    source = _without(source, LEFT_OUT.get(data, ()))
    held = _held_out(source, HELD_OUT[data], seed)
    if kind == "probe":
        return _trained_on(source, lambda name: name in held)
    rest = _trained_on(source, lambda name: name not in held)
    sizes = {source.classes[label]: size for label, size in train_sizes(rest).items()}
    shares = sum(FACTOR ** (-rank / (len(sizes) - 1)) for rank in range(len(sizes)))
    # With a larger class than this the smallest has too few for a balanced set of as many images.
    most = int(min(sizes.values()) * len(sizes) / shares)
    chosen = profile({name: min(size, most) for name, size in sizes.items()}, FACTOR, seed)
    if kind == "balanced":
        each, over = divmod(sum(chosen.values()), len(sizes))
        ordered = sorted(sizes, key=sizes.__getitem__, reverse=True)
        chosen = {name: each + (place < over) for place, name in enumerate(ordered)}
    return subset(rest, {source.classes.index(name): count for name, count in chosen.items()}, seed)


def _held_out(source: Source, each: int, seed: int) -> set[str]:
    """Names of `each` images to train on of every class, or a few more: groups, in an order drawn by `seed`, stay
    whole."""
    groups: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for item in source.records():
        if isinstance(item, Record) and item.split == TRAIN:
            groups[item.label, item.group or item.name].append(item.name)
    held: defaultdict[int, list[str]] = defaultdict(list)
    for label, group in sorted(groups, key=lambda one: placed(seed, "held out", one[1])):
        if len(held[label]) < each:
            held[label] += groups[label, group]
    return {name for names in held.values() for name in names}


def _trained_on(source: Source, wanted: Callable[[str], bool]) -> Source:
    """The source with those images to train on whose names are wanted."""

    def records() -> Iterator[Item]:
        for item in source.records():
            if not isinstance(item, Record) or item.split != TRAIN or wanted(item.name):
                yield item

    return replace(source, records=records)


def _without(source: Source, classes: tuple[str, ...]) -> Source:
    gone = {source.classes.index(name) for name in classes}
    kept = [label for label in range(len(source.classes)) if label not in gone]
    number = {label: place for place, label in enumerate(kept)}

    def records() -> Iterator[Item]:
        for item in source.records():
            if not isinstance(item, Record):
                yield item
            elif item.label in number:
                yield replace(item, label=number[item.label])

    return replace(source, classes=tuple(source.classes[label] for label in kept), records=records)


def make_folder(job: Job) -> None:
    """A folder in which stages find prepared images and their settings."""
    job.folder.mkdir(parents=True, exist_ok=True)
    prepared, row = images(job.data, job.kind, job.seed), ROWS[job.row]
    link = job.folder / paths.PREPARED
    link.parent.mkdir(exist_ok=True)
    if not link.exists():
        link.symlink_to(prepared.resolve(), target_is_directory=True)
    params = load(ROOT / "recipes/full.yaml")
    params["encoder"] = ENCODERS["resnet"]
    params["compute"] |= {"device": "cpu", "threads": 1}
    params["starts"] = {"lite0": {"weights": WEIGHTS, "side": SIDES[job.data]}}
    params["pretrain"]["log_every"] = 1000
    if row.continued:
        # What is kept may not depend on labels, of which the two kinds have others.
        params["start"] |= {"weights": "lite0", "keep": "last"}
    if row.method:
        seen = round(IMAGES_SEEN / len(Dataset(prepared).pretraining_rows))
        train = {**lookup(params, f"methods.{row.method}.train"), "epochs": CONTINUED_EPOCHS if row.continued else seen}
        params["methods"][row.method] = {**lookup(params, f"methods.{row.method}"), "train": train}
    with (job.folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump({**params, "domains": {}, "clips": {}}, handle)


def key(job: Job) -> str:
    """Changes when the settings that the row reads do, or its images, or the code of its method."""
    params, row = load(job.folder / "params.yaml"), ROWS[job.row]
    content: list[Any] = [job.data, job.kind, job.row, job.seed, params["starts"]]
    content += [params[section] for section in ("encoder", "extract", "probe", "start", "train", "views")]
    for folder in (images(job.data, job.kind, job.seed), images(job.data, "probe", job.seed)):
        content.append(sha256(folder / "manifest.parquet"))
    content += [lookup(params, f"methods.{row.method}"), code_of(row.method)] if row.method else []
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def measured(job: Job) -> dict[str, Any] | None:
    """The result, where it was measured with the present settings."""
    found = read_json(job.result) if job.result.exists() else None
    return found if found and found["key"] == key(job) else None


def run(job: Job) -> None:
    """Train one job, fit the classifiers, and write what they take the test images for."""
    row, began = ROWS[job.row], time.monotonic()
    result: dict[str, Any] = {"key": key(job)}
    own = Dataset[ImageFormat](images(job.data, job.kind, job.seed))
    if row.method:
        if row.continued:
            _stage(job, "scan")
        _stage(job, "pretrain", row.method, str(job.seed))
        result["seconds"] = read_json(job.folder / paths.metrics("pretrain", f"{row.method}-{job.seed}"))["seconds"]
        encoder = load_encoder(job.folder / paths.encoder(row.method, job.seed))
    else:
        encoder = given(Start(weights=WEIGHTS, side=SIDES[job.data]), own.format)
    settings = load(job.folder / "params.yaml")
    shared = Dataset[ImageFormat](images(job.data, "probe", job.seed))
    shared.format = own.format  # the encoder's images are normalised as those that it was trained on
    for probe, dataset in (("held_out", shared), ("own", own)):
        rows = dataset.labelled_rows(TRAIN)
        fitted = fit_linear(
            _features(encoder, dataset, rows, settings),
            torch.from_numpy(dataset.labels[rows]),
            len(dataset.classes),
            derive(job.seed, "probe"),
            torch.from_numpy(dataset.groups[rows]),
            **settings["probe"]["linear"],
        )
        test = dataset.labelled_rows(TEST)
        result[probe] = fitted.predict(_features(encoder, dataset, test, settings)).tolist()
        result[f"{probe}_validation"] = fitted.validation_accuracy
        result[f"{probe}_converged"] = int(fitted.converged)
    for folder in ("artifacts", "work"):
        shutil.rmtree(job.folder / folder, ignore_errors=True)
    write_json(job.result, result)
    print(
        f"{job.data}  {job.kind}  {job.row}  seed {job.seed}  validation {100 * result['held_out_validation']:.1f} %  "
        f"{time.monotonic() - began:.0f} s",
        flush=True,
    )


def _features(encoder: Encoder, dataset: Dataset[ImageFormat], rows: np.ndarray, settings: dict) -> torch.Tensor:
    return torch.from_numpy(extract(encoder, dataset, rows, torch.device("cpu"), **settings["extract"]))


def _stage(job: Job, stage: str, *arguments: str) -> None:
    words = ["-m", f"sslflow.stages.{stage}", *arguments]
    run_python(words, job.folder, stage, f"{job.row}, seed {job.seed}, on {job.data}")


@dataclass(frozen=True)
class Truth:
    """The test images of a data set, the same for all rows."""

    actual: np.ndarray
    groups: np.ndarray
    shots: dict[int, dict[str, list[int]]]
    """Seed → group of classes, by what the long tail of that seed leaves of them."""
    sizes: dict[int, list[int]]
    """Seed → images of each class in its long tail."""


@cache
def truth(data: str, seeds: tuple[int, ...]) -> Truth:
    """What the test images are."""
    shared, found, sizes = Dataset[ImageFormat](images(data, "probe", seeds[0])), {}, {}
    rows = shared.labelled_rows(TEST)
    for seed in seeds:
        for kind in (*KINDS, "probe"):
            own = Dataset[ImageFormat](images(data, kind, seed))
            assert np.array_equal(own.column("path", own.labelled_rows(TEST)), shared.column("path", rows))
            counts = np.bincount(own.labels[own.labelled_rows(TRAIN)], minlength=len(own.classes)).tolist()
            if kind == "long-tailed":
                found[seed], sizes[seed] = shots(dict(enumerate(counts))), counts
    return Truth(shared.labels[rows], shared.groups[rows], found, sizes)


Terms = Callable[[np.ndarray, int], np.ndarray]
"""From right answers `(n,)` and the seed to values `(n,)` whose mean is a measure."""


def measures(known: Truth) -> dict[str, Terms]:
    """The columns: accuracies, mean over classes, and the standard deviation over classes."""
    everything = sorted(set(known.actual.tolist()))

    def accuracy(group: str) -> Terms:
        def terms(right: np.ndarray, seed: int) -> np.ndarray:
            classes = known.shots[seed][group] if group in GROUPS else everything
            return linear_terms(right, class_weights(known.actual, classes))

        return terms

    named = {group: accuracy(group) for group in ("all", *GROUPS)}
    return {**named, "spread": lambda right, seed: spread_terms(right, known.actual, everything)}


def table(sets: list[str], seeds: list[int]) -> Iterator[str]:
    """The tables in Markdown, for each data set and each set that the classifier is fitted on."""
    now = datetime.datetime.now(datetime.UTC).date()
    yield f"{platform.machine()}, one thread a run, no GPU, torch {torch.__version__}; {now}. Accuracy in %."
    for data in sets:
        known = truth(data, tuple(seeds))
        done = {
            (row, kind): {seed: found for seed in seeds if (found := _found(Job(data, kind, row, seed)))}
            for row in ROWS
            for kind in KINDS
        }
        counts = sorted(known.sizes[seeds[0]], reverse=True)
        yield from ("", f"### {data}: {sum(counts):,} images to train on; long-tailed: {', '.join(map(str, counts))}")
        for probe, words in PROBES.items():
            yield from ("", f"Classifier fitted on {words}:", "")
            yield "| | seeds | trained on | all | many | medium | few | spread over classes |"
            yield "|---|---|---|---|---|---|---|---|"
            for (row, kind), found in done.items():
                if found:
                    cells = [_told(values, known) for values in _columns(found, probe, known).values()]
                    yield f"| {row} | {len(found)} | {kind} | {' | '.join(cells)} |"
            yield from ("", "Balanced less long-tailed, in points, with 95 % intervals:", "")
            yield "| | all | many | medium | few | relative gap, % | spread over classes |"
            yield "|---|---|---|---|---|---|---|"
            gaps = {row: _gaps(done[row, "long-tailed"], done[row, "balanced"], probe, known) for row in ROWS}
            for row, found in gaps.items():
                if found:
                    order = ("all", *GROUPS, "relative", "spread")
                    cells = [_signed(crossed(np.stack(list(found[name].values())), known.groups)) for name in order]
                    yield f"| {row} | {' | '.join(cells)} |"
            yield ""
            yield from (f"- {line}" for row in COMPARED for line in _compared(gaps, row, known))


def _found(job: Job) -> dict[str, Any] | None:
    return measured(job) if (job.folder / "params.yaml").exists() else None


def _columns(found: dict[int, dict[str, Any]], probe: str, known: Truth) -> dict[str, dict[int, np.ndarray]]:
    """Measure → seed → values `(n,)`."""
    right = {seed: np.asarray(one[probe] == known.actual, dtype=np.float64) for seed, one in found.items()}
    return {
        name: {seed: terms(answers, seed) for seed, answers in right.items()} for name, terms in measures(known).items()
    }


def _gaps(
    tail: dict[int, dict[str, Any]], balanced: dict[int, dict[str, Any]], probe: str, known: Truth
) -> dict[str, dict[int, np.ndarray]]:
    """By how much each measure is larger after training on balanced images, seed by seed, and the relative gap: the
    share of the accuracy that the long tail takes away."""
    seeds = sorted(tail.keys() & balanced.keys())
    if not seeds:
        return {}
    worse, better = (_columns({seed: one[seed] for seed in seeds}, probe, known) for one in (tail, balanced))
    gaps = {name: {seed: better[name][seed] - worse[name][seed] for seed in seeds} for name in better}
    gaps["relative"] = {}
    for seed in seeds:
        low, high = worse["all"][seed], better["all"][seed]
        ratio = low.mean() / high.mean()
        # To first order: what each image adds to the chance of 1 - low / high.
        gaps["relative"][seed] = 1 - ratio + (ratio * (high - high.mean()) - (low - low.mean())) / high.mean()
    return gaps


def _compared(gaps: dict[str, dict[str, dict[int, np.ndarray]]], row: str, known: Truth) -> Iterator[str]:
    """Whether a row's gap is smaller than that of supervised features."""
    theirs, ours = gaps["supervised"], gaps[row]
    seeds = sorted(theirs.get("all", {}).keys() & ours.get("all", {}).keys())
    if not seeds:
        return
    both = {
        name: crossed(np.stack([theirs[name][seed] - ours[name][seed] for seed in seeds]), known.groups)
        for name in ("all", "few", "relative")
    }
    told = both["all"]
    verdict = "not shown here: the interval holds 0"
    if told.sure:
        verdict = "reproduced" if told.low > 0 else "not holding here: it is the other way round"
    if len(seeds) == 1:
        verdict = "no answer yet: one seed, whose chance the interval can't know"
    yield (
        f"Gap of supervised features less that of {row}: {_signed(told)} points, {verdict}. In classes with few "
        f"images: {_signed(both['few'])} points; of relative gaps: {_signed(both['relative'])} %."
    )


def _told(values: dict[int, np.ndarray], known: Truth) -> str:
    found = crossed(np.stack(list(values.values())), known.groups)
    means = [100 * float(one.mean()) for one in values.values()]
    return f"{100 * found.mean:.1f}" + (f" ± {statistics.stdev(means):.1f}" if len(means) > 1 else "")


def _signed(told: Interval) -> str:
    return f"{100 * told.mean:+.1f} ({100 * told.low:+.1f} to {100 * told.high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--table", type=Path, help="write the tables to this file, between its marks")
    parser.add_argument("--measured", action="store_true", help="measure nothing: tables of what is there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [
        Job(data, kind, row, seed)
        for seed in asked.seeds
        for row in asked.rows
        for data in asked.sets
        for kind in KINDS
    ]
    failed = 0
    for job in [] if asked.measured else wanted:
        make_folder(job)
        if measured(job) is None:
            try:
                run(job)
            except RuntimeError as error:
                failed += 1
                print(error, flush=True)
    show(table(asked.sets, asked.seeds), asked.table, "imbalance")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
