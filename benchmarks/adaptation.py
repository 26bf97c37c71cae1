"""Adaptation methods on shipped pairs of domains, in four settings: `python -m benchmarks.adaptation`.

Frozen features of SimCLR encoders that were pretrained on the images of both domains without labels; with `--tuned` the
encoder is trained as well, from these weights and from random ones; with `--weights lite0` frozen features of an
ImageNet classifier as it came, on the emoji. What has been measured with the same settings and the same code is not
measured again. `--table docs/benchmarks.md` writes the tables.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.adaptation_runs import (
    GIVEN,
    LITE0,
    METHODS,
    PAIRS,
    SEEDS,
    SETTINGS,
    Run,
    code,
    features,
    measure,
    measured,
    prepared,
    pretrained,
    runs,
)
from benchmarks.kept import note, other_code
from benchmarks.tables import show
from sslflow.adaptation.task import UNKNOWN
from sslflow.examination.adaptation.gaps import Decided, Score, Truth, gap, signed, verdict
from sslflow.runtime.files import read_json

PART = {
    "digits": "the target's labels were in view when `margin`, `first` and `neighbours` of `gated_dance` were set; its "
    "bars are by other sources",
    "emoji": "its sources, with their labels, had a part in the bars of `gated_dance`; no label of a target had",
}
"""What had a part in the choice of settings."""
SHOWN = {
    "unk": "gated_dance: UNK",
    "main_half": "at half of ln K",
    "main_best_threshold": "at the best threshold",
}
"""Scores of gated_dance beside its main one; the best threshold needs labels."""


def table(found: list[Run]) -> Iterator[str]:
    """Two tables for each pair and start in Markdown: scores, and distances to doing nothing."""
    groups = list(dict.fromkeys((run.pair, run.start, run.tuned) for run in found))
    for pair, start, tuned in groups:
        here = [run for run in found if (run.pair, run.start, run.tuned) == (pair, start, tuned)]
        how = f"encoder trained, from {start} weights" if tuned else "frozen features"
        how += f" of {GIVEN.weights}" if start == LITE0 else ""
        yield from ("", f"### {pair}: {how}", "")
        methods = list(dict.fromkeys(run.method for run in here))
        columns = [*methods, *SHOWN.values()]
        yield f"| | {' | '.join(columns)} |"
        yield f"|---|{'---|' * len(columns)}"
        for setting in dict.fromkeys(run.setting for run in here):
            cells = [_spread(here, setting, method, "main") for method in methods]
            cells += [_spread(here, setting, "gated_dance", name) for name in SHOWN]
            yield f"| {setting} | {' | '.join(cells)} |"
        yield from ("", *_compared(here), "", f"Tuned where: {PART[here[0].family]}.")
        yield from note({name: _others([run for run in here if run.method == name]) for name in methods})


def _others(found: list[Run]) -> list[str]:
    return [other_code(done, code(run.method)) for run in found if (done := measured(run))]


def _values(found: list[Run], setting: str, method: str, score: str) -> list[float]:
    chosen_runs = [run for run in found if (run.setting, run.method) == (setting, method)]
    results = [done for run in chosen_runs if (done := measured(run))]
    return [100 * done[score] for done in results if score in done]


def _spread(found: list[Run], setting: str, method: str, score: str) -> str:
    values = _values(found, setting, method, score)
    if not values:
        return ""
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _between(found: list[Run], setting: str, method: str, score: Score) -> str:
    """By how much a method is above `source_only`, over the seeds that both have and images, and what that means."""
    done = {run.method: {} for run in found}
    for run in found:
        if run.setting == setting and measured(run):
            done[run.method][run.seed] = load_file(run.result.with_suffix(".safetensors"))
    ours, theirs = done.get(method, {}), done.get("source_only", {})
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return ""
    actual = ours[seeds[0]]["actual"].numpy()
    truth = Truth(actual != UNKNOWN, actual, np.arange(len(actual)))
    made = [[_decided(side[seed]["decisions"].numpy(), actual) for seed in seeds] for side in (ours, theirs)]
    between = gap(score, truth, *made)
    return f"{signed(between)} {verdict(between)}" if between else ""


def _decided(decisions: np.ndarray, actual: np.ndarray) -> Decided:
    return Decided(decisions == actual, decisions == UNKNOWN)


def _compared(found: list[Run]) -> Iterator[str]:
    """Against doing nothing: a row for each setting and method, with the interval and the word for it."""
    yield "| less source_only | | score | UNK |"
    yield "|---|---|---|---|"
    for setting in dict.fromkeys(run.setting for run in found):
        for method in dict.fromkeys(run.method for run in found if run.method != "source_only"):
            cells = [_between(found, setting, method, score) for score in ("main", "unk")]
            if any(cells):
                yield f"| {setting} | {method} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=PAIRS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    of_features = parser.add_mutually_exclusive_group()
    of_features.add_argument("--tuned", action="store_true", help="train the encoder, too")
    of_features.add_argument("--weights", default="simclr", choices=("simclr", LITE0), help="whose frozen features")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side, one thread each")
    parser.add_argument("--table", type=Path, help="write the tables to this file, between its marks")
    asked = parser.parse_args()
    wanted = runs(asked.weights, asked.tuned, asked.pairs, asked.methods, asked.settings, asked.seeds)
    for run in wanted:
        prepared(run)
        if run.start == LITE0:
            features(run)
        elif run.start != "random":
            pretrained(run.family, run.seed)
    missing = [run for run in wanted if measured(run) is None]
    print(f"{len(wanted)} runs, {len(missing)} to measure", flush=True)
    with ProcessPoolExecutor(asked.jobs) as workers:
        for future in as_completed([workers.submit(measure, run) for run in missing]):
            run = future.result()
            done = read_json(run.result)
            print(f"{' '.join(map(str, astuple(run)))}  {100 * done['main']:.1f}  {done['seconds']:.0f} s", flush=True)
    now = datetime.datetime.now(datetime.UTC).date()
    head = (
        f"{platform.machine()}, one thread a run, Python {platform.python_version()}, torch {torch.__version__}; "
        f"{now}. H, or accuracy with rejection in cda and pda, in %: mean ± standard deviation of {len(asked.seeds)} "
        "seeds."
    )
    mark = "tuned" if asked.tuned else "frozen" if asked.weights == "simclr" else f"frozen-{asked.weights}"
    show([head, *table(wanted)], asked.table, mark)


if __name__ == "__main__":
    main()
