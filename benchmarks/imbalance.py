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
import platform
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.imbalance_runs import KINDS, ROWS, SEEDS, SETS, Job, images, make_folder, measured, run
from benchmarks.tables import show
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.data.splits import TEST, TRAIN
from sslflow.evaluation.intervals import Interval, crossed
from sslflow.evaluation.shots import GROUPS, class_weights, linear_terms, shots, spread_terms

PROBES = {
    "held_out": "balanced labelled images that no row was trained on",
    "own": "the images that the row was trained on",
}
COMPARED = ("simclr", "deepcluster", "simclr, continued from lite0")
"""Rows whose gap is compared with that of `supervised`."""


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
